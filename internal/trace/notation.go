package trace

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrNotation is what every error of [Parse] is.
var ErrNotation = errors.New("trace: bad notation")

// maxNotationSpans bounds what one text can grow to by its repetitions.
const maxNotationSpans = 1 << 20

// Parse reads a trace in the notation of our tests: one span a line, its children below it and further indented.
//
//	# a comment
//	GET/orders  0ms  120ms  service=shop kind=server
//	  auth      1ms    6ms  service=auth host=pod-7
//	  db.select 10ms  13ms  x30 kind=client db.system.name=postgresql
//	  "a name"  100ms 118ms every=0ms x3 failed
//
// A line is name, start, end and then, in any order:
//
//	xN          N copies, each starting where the one before it ended (children go to the last copy)
//	every=D     the copies start D apart; 0ms = all at once
//	service=S   inherited by children; "svc" at the top
//	host=H      inherited by children that name no service of their own
//	kind=K      server, client, ...
//	id=I        instead of the number of the span, counted from 1; copies get I.1, I.2, ...
//	parent=P    instead of the line above; "" = none
//	trace=T     ID of the trace, "t" unless told
//	link=T/S    a link to span S of trace T, before those told so far
//	failed      the span ended in an error
//	follows     its parent did not wait (a FOLLOWS_FROM reference)
//	key=value   any other pair is an attribute
//
// Names and values that hold blanks stand in double quotes. Times are offsets in the style of [time.ParseDuration]
// and become nanoseconds since the epoch as they are; an end before the start is kept, for it is a case to test.
// The whole text may be indented. Errors are [ErrNotation] and name the line.
func Parse(text string) (Trace, error) {
	p := notation{trace: Trace{ID: "t"}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, " \t\r\n")
		body := strings.TrimLeft(line, " \t")
		if body == "" || strings.HasPrefix(body, "#") {
			continue
		}
		if err := p.line(len(line)-len(body), body); err != nil {
			return Trace{}, fmt.Errorf("%w: line %d: %w", ErrNotation, number, err)
		}
	}
	for i := range p.trace.Spans {
		p.trace.Spans[i].TraceID = p.trace.ID
	}
	return p.trace, nil
}

type notation struct {
	trace Trace
	open  []level // the spans that the next line may be a child of
}

type level struct {
	indent int
	span   int
}

type copies struct {
	count int
	every time.Duration
	named bool // the ID was given
}

func (p *notation) line(indent int, body string) error {
	for len(p.open) > 0 && p.open[len(p.open)-1].indent >= indent {
		p.open = p.open[:len(p.open)-1]
	}
	words, err := split(body)
	if err != nil {
		return err
	}
	if len(words) < 3 {
		return errors.New("want: name start end")
	}
	span := Span{Name: words[0].text(), Service: "svc"}
	var host string
	if len(p.open) > 0 {
		above := p.trace.Spans[p.open[len(p.open)-1].span]
		span.Parent, span.Service, host = above.ID, above.Service, above.Host
	}
	start, err1 := time.ParseDuration(words[1].key)
	end, err2 := time.ParseDuration(words[2].key)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	c := copies{count: 1, every: end - start}
	for _, w := range words[3:] {
		if w.set && (w.key == "service" || w.key == "host") {
			host = ""
		}
	}
	span.Host = host
	for _, w := range words[3:] {
		if err := p.word(w, &span, &c); err != nil {
			return err
		}
	}
	return p.add(indent, span, start, end, c)
}

func (p *notation) word(w word, span *Span, c *copies) (err error) {
	switch {
	case w.set && w.key == "service":
		span.Service = w.value
	case w.set && w.key == "host":
		span.Host = w.value
	case w.set && w.key == "kind":
		if span.Kind = ParseKind(w.value); span.Kind == Unspecified && w.value != Unspecified.String() {
			return fmt.Errorf("unknown kind %q", w.value)
		}
	case w.set && w.key == "id":
		span.ID, c.named = w.value, true
	case w.set && w.key == "parent":
		span.Parent = w.value
	case w.set && w.key == "link":
		of, id, ok := strings.Cut(w.value, "/")
		if !ok {
			return fmt.Errorf("want link=TRACE/SPAN, not %q", w.value)
		}
		span.Link = &Link{of, id, span.Link}
	case w.set && w.key == "trace":
		p.trace.ID = w.value
	case w.set && w.key == "every":
		c.every, err = time.ParseDuration(w.value)
		return err
	case w.set:
		span.Attributes = append(span.Attributes, Attribute{w.key, w.value})
	case w.key == "failed":
		span.Failed = true
	case w.key == "follows":
		span.FollowsFrom = true
	case strings.HasPrefix(w.key, "x"):
		c.count, err = strconv.Atoi(w.key[1:])
		if err != nil || c.count < 1 {
			return fmt.Errorf("want a repetition such as x30, not %q", w.key)
		}
	default:
		return fmt.Errorf("unknown word %q", w.key)
	}
	return nil
}

func (p *notation) add(indent int, span Span, start, end time.Duration, c copies) error {
	if c.count > maxNotationSpans-len(p.trace.Spans) {
		return fmt.Errorf("more than %d spans", maxNotationSpans)
	}
	id := span.ID
	for i := range c.count {
		shift := time.Duration(i) * c.every
		span.Start, span.End = int64(start+shift), int64(end+shift)
		switch {
		case !c.named:
			span.ID = strconv.Itoa(len(p.trace.Spans) + 1)
		case c.count > 1:
			span.ID = id + "." + strconv.Itoa(i+1)
		}
		p.trace.Spans = append(p.trace.Spans, span)
	}
	p.open = append(p.open, level{indent, len(p.trace.Spans) - 1})
	return nil
}

// word is "key" or "key=value"; set tells them apart.
type word struct {
	key, value string
	set        bool
}

// text undoes the reading as a pair, for names such as "a=b".
func (w word) text() string {
	if w.set {
		return w.key + "=" + w.value
	}
	return w.key
}

func split(body string) ([]word, error) {
	var words []word
	for body = strings.TrimLeft(body, " \t"); body != ""; body = strings.TrimLeft(body, " \t") {
		var w word
		var err error
		if w.key, body, err = token(body, " \t="); err != nil {
			return nil, err
		}
		if strings.HasPrefix(body, "=") {
			w.set = true
			if w.value, body, err = token(body[1:], " \t"); err != nil {
				return nil, err
			}
		}
		words = append(words, w)
	}
	return words, nil
}

// token takes a quoted string, or everything up to one of stop.
func token(s, stop string) (text, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("a quoted word has no end: %s", s)
		}
		text, err = strconv.Unquote(quoted)
		return text, s[len(quoted):], err
	}
	if i := strings.IndexAny(s, stop); i >= 0 {
		return s[:i], s[i:], nil
	}
	return s, "", nil
}

package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// remote is a call that some span waits for, directly or through local spans that wrap it, as in a repository's
// method around one query.
type remote struct {
	span       int // the child of the waiting span
	leaf       int // the span that makes the call: span, or one below it
	served     int // the span that serves the call; -1 = none recorded
	key        call
	start, end int64
	critical   int64 // ns of the critical path that lie in it or below it
}

// call names what is called, so that equal work has equal names.
type call struct {
	segment            trace.Segment
	service, operation string
}

// critical adds up, for every span below the sample's root, the critical time of the span and all below it. order
// is those spans, parents first.
func (s *sample) critical() (order []int, inclusive []int64) {
	t := s.tree
	inclusive = make([]int64, len(t.Spans))
	for _, x := range s.sections {
		inclusive[x.Span] += x.End - x.Start
	}
	order = append(order, s.root)
	for at := 0; at < len(order); at++ {
		for _, c := range t.Children(order[at]) {
			order = append(order, int(c))
		}
	}
	for at := len(order) - 1; at > 0; at-- {
		i := order[at]
		inclusive[t.Parent[i]] += inclusive[i]
	}
	return order, inclusive
}

// remotes is what the spans below a sample's root wait for: by span, its calls in time order.
func (s *sample) remotes() map[int][]remote {
	if s.calls == nil {
		s.calls = s.findRemotes()
	}
	return s.calls
}

func (s *sample) findRemotes() map[int][]remote {
	t := s.tree
	order, inclusive := s.critical()
	// below[i] is the call that span i makes or wraps; its span is -1 where it makes none, -2 where several.
	below := make([]remote, len(t.Spans))
	for i := range below {
		below[i].span = -1
	}
	found := make(map[int][]remote)
	for at := len(order) - 1; at > 0; at-- {
		i := order[at]
		own := below[i]
		if served, ok := crossing(t, i); ok {
			own = s.remote(i, served)
		}
		if own.span == -1 || t.NonBlocking(i) || t.Spans[t.Parent[i]].Kind == trace.Client {
			continue
		}
		own.span, own.critical = i, inclusive[i]
		own.start, own.end = t.Clip(i)
		p := t.Parent[i]
		found[int(p)] = append(found[int(p)], own)
		if below[p].span == -1 {
			below[p] = own
		} else {
			below[p].span, below[p].key = -2, call{trace.SegService, t.Spans[p].Service, t.Spans[p].Name}
		}
	}
	for _, list := range found {
		slices.SortFunc(list, func(a, b remote) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end), cmp.Compare(t.Spans[a.span].ID, t.Spans[b.span].ID))
		})
	}
	return found
}

// remote describes the call that span i makes.
func (s *sample) remote(i, served int) remote {
	t := s.tree
	r := remote{span: i, leaf: i, served: served}
	span := &t.Spans[i]
	if served >= 0 {
		r.key = call{trace.SegDownstream, t.Spans[served].Service, t.Spans[served].Name}
		return r
	}
	at := locate(t, i)
	r.key = call{at.segment, at.service, span.Name}
	if text := span.Attr(keysQuery...); text != "" {
		r.key.operation = withoutLiterals(text)
	} else if path := pathOf(span); path != "" {
		r.key.operation = span.Name + " " + withoutIDs(path)
	}
	return r
}

// pathOf is the path that an HTTP span asked for, without its query; "" = it is none.
func pathOf(s *trace.Span) string {
	path := s.Attr("url.path", "http.target")
	if path == "" {
		if _, rest, ok := strings.Cut(s.Attr(keysURL...), "://"); ok {
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				path = rest[i:]
			}
		}
	}
	path, _, _ = strings.Cut(path, "?")
	return path
}

// maxStatement is how much of a statement tells it from others.
const maxStatement = 500

// withoutLiterals replaces the numbers and quoted texts of an SQL statement by question marks.
func withoutLiterals(sql string) string {
	sql = sql[:min(len(sql), maxStatement)]
	var b strings.Builder
	for i := 0; i < len(sql); i++ {
		c := sql[i]
		switch {
		case c == '\'':
			for i++; i < len(sql) && sql[i] != '\''; i++ {
			}
			b.WriteByte('?')
		case c >= '0' && c <= '9' && (i == 0 || !wordByte(sql[i-1])):
			for i+1 < len(sql) && (sql[i+1] >= '0' && sql[i+1] <= '9' || sql[i+1] == '.') {
				i++
			}
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// label names a call to a reader.
func (c call) label() string {
	operation := c.operation
	if len(operation) > 80 {
		operation = strings.ToValidUTF8(operation[:80], "") + "..."
	}
	return c.service + " " + operation
}

// spot is a span's service and operation: where in a program something happens.
type spot struct{ service, operation string }

func (v *view) spot(s *trace.Span) spot { return spot{s.Service, v.names.name(s.Service, s.Name)} }

// isSlow reports whether the sample of that index belongs to the slow band.
func (v *view) isSlow(i int) bool { return i >= len(v.samples)-len(v.slow) }

// share is ns of the slow band as a part of all its time.
func (v *view) share(ns int64) float64 { return ratio(float64(ns), float64(v.slowTotal)) }

// perSlow is ns of the slow band as a mean of its traces.
func (v *view) perSlow(ns int64) time.Duration {
	return time.Duration(ns / int64(max(len(v.slow), 1)))
}

// duration rounds d for a reader: three digits.
func duration(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// ordered is the keys of m in order.
func ordered[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func bySpot(a, b spot) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation))
}

// findingsBySpot applies f to the entries of m in a fixed order and keeps what it finds.
func findingsBySpot[V any](m map[spot]V, f func(spot, V) (Finding, bool)) []Finding {
	var list []Finding
	for _, at := range slices.SortedFunc(maps.Keys(m), bySpot) {
		if found, ok := f(at, m[at]); ok {
			list = append(list, found)
		}
	}
	return list
}

// leastShare is the part of the slow band's critical path below which a cause is not worth a finding.
const leastShare = 0.05

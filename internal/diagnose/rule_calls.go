package diagnose

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// remote is a call that some span waits for, directly or through local spans that wrap it, as in a repository's
// method around one query.
type remote struct {
	parent     int // the waiting span
	span       int // its child
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
// is those spans, parents first. The caller must change neither: they are kept for the next one who asks.
func (s *sample) critical() (order []int, inclusive []int64) {
	if s.order != nil {
		return s.order, s.inclusive
	}
	t := s.tree
	inclusive = make([]int64, len(t.Spans))
	for _, x := range s.sections {
		inclusive[x.Span] += x.End - x.Start
	}
	order = t.appendBelow(make([]int, 0, len(t.Spans)), s.root)
	for at := len(order) - 1; at > 0; at-- {
		i := order[at]
		inclusive[t.Parent[i]] += inclusive[i]
	}
	s.order, s.inclusive = order, inclusive
	return order, inclusive
}

// appendBelow appends root and the spans below it, parents first.
func (t *Tree) appendBelow(order []int, root int) []int {
	from := len(order)
	order = append(order, root)
	for at := from; at < len(order); at++ {
		for _, c := range t.Children(order[at]) {
			order = append(order, int(c))
		}
	}
	return order
}

// remotes is what the spans below the root of a sample wait for: by span, its calls in time order.
func (v *view) remotes(n int) iter.Seq2[int, []remote] {
	s := &v.samples[n]
	if s.calls == nil {
		s.calls = v.findRemotes(s)
	}
	return func(yield func(int, []remote) bool) {
		for rest := s.calls; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].parent == rest[0].parent {
				n++
			}
			if !yield(rest[0].parent, rest[:n:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// findRemotes lists the calls by the span that waits for them, then in time order.
func (v *view) findRemotes(s *sample) []remote {
	t := s.tree
	order, inclusive := s.critical()
	found := make([]remote, 0, len(order)/2)
	wraps := []remote{{}} // what spans wrap that have several calls below; the first is nobody's
	// below[i] is the call that span i makes or wraps: an index of found, or with a minus of wraps; 0 = none.
	below := make([]int32, len(t.Spans))
	for at := len(order) - 1; at > 0; at-- {
		i := order[at]
		served, is := crossing(t, i)
		if !is && below[i] == 0 || t.NonBlocking(i) || t.Spans[t.Parent[i]].Kind == trace.Client {
			continue
		}
		var own remote
		switch n := below[i]; {
		case is:
			own = v.remote(t, i, served)
		case n > 0:
			own = found[n-1]
		default:
			own = wraps[-n]
		}
		p := int(t.Parent[i])
		own.span, own.parent, own.critical = i, p, inclusive[i]
		own.start, own.end = t.Clip(i)
		found = append(found, own)
		switch {
		case below[p] == 0:
			below[p] = int32(len(found))
		case below[p] > 0:
			several := found[below[p]-1]
			several.key = call{trace.SegService, t.Spans[p].Service, t.Spans[p].Name}
			wraps = append(wraps, several)
			below[p] = -int32(len(wraps) - 1)
		}
	}
	slices.Reverse(found) // which puts most of them in order
	slices.SortFunc(found, func(a, b remote) int {
		if a.parent != b.parent {
			return cmp.Compare(a.parent, b.parent)
		}
		if c := cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)); c != 0 {
			return c
		}
		return cmp.Compare(t.Spans[a.span].ID, t.Spans[b.span].ID)
	})
	return found
}

// remote describes the call that span i makes.
func (v *view) remote(t *Tree, i, served int) remote {
	r := remote{span: i, leaf: i, served: served}
	span := &t.Spans[i]
	if served >= 0 {
		r.key = call{trace.SegDownstream, t.Spans[served].Service, t.Spans[served].Name}
		return r
	}
	at := locate(t, i)
	r.key = call{at.segment, at.service, span.Name}
	if text := t.attr(i, askQuery); text != "" {
		r.key.operation = v.statement(text)
	} else if path := t.path(i); path != "" {
		r.key.operation = span.Name + " " + withoutIDs(path)
	}
	return r
}

// path is the path that span i asked for by HTTP, without its query; "" = it is none.
func (t *Tree) path(i int) string {
	path := t.attr(i, askPath)
	if path == "" {
		if _, rest, ok := strings.Cut(t.attr(i, askURL), "://"); ok {
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

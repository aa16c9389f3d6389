package diagnose

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// edge is one position in a system at which time is compared with itself: the time a service has for itself
// within one of its operations (callee == ""), or a call on its way from one operation to another service.
type edge struct {
	caller, operation string        // the service that has the time or makes the call, and its operation that was entered
	callee, target    string        // the service called and its operation; callee "" = none
	segment           trace.Segment // of the time
	shape             uint64        // of the service's own time: what it calls meanwhile; see shapeOf
}

// general is e whatever it calls.
func (e edge) general() edge {
	e.shape = 0
	return e
}

// series is what was measured at one position: a value for every time it was on a critical path, milliseconds.
type series struct{ values []float64 }

// tally is the measured positions of a set of traces.
type tally struct {
	traces int
	met    map[string]int // by service: traces that wait for it
	last   map[string]int // by service: the number of the trace that did so last, from 1
	at     map[edge]*series
	room   []uint64 // for shapeOf
}

// meet counts a trace as one that waits for service.
func (c *tally) meet(service string) {
	if c.last[service] != c.traces {
		c.last[service] = c.traces
		c.met[service]++
	}
}

func (c *tally) add(e edge, ns int64) {
	s := c.series(e)
	s.values = append(s.values, ms(ns))
}

// series is what was measured at e; it makes an empty one.
func (c *tally) series(e edge) *series {
	s := c.at[e]
	if s == nil {
		s = new(series)
		c.at[e] = s
	}
	return s
}

// outgoing is a call that leaves a service, clipped to the time the service was waited for.
type outgoing struct {
	start, end int64
	span       int // the call's
	served     int // the callee's span, which may be the same; -1 = none recorded
	at         place
}

// visit is one entry of a service and the part of it that somebody waited for.
type visit struct {
	span       int
	service    string // whose visit it is: the span's own service, unless only the caller recorded it
	via        edge   // the call, when only the caller recorded it: no telling its way from the service's own time; else zero
	start, end int64
}

// measure walks the critical path of every trace on the level of services: the spans between a service's entry
// and its outgoing calls are looked through. So a local span that merely runs beside a call, as frameworks with
// an event loop record them, cannot take the blame for what the callee does.
func measure(trees []*Tree, n *namer) *tally {
	c := &tally{met: make(map[string]int), last: make(map[string]int), at: make(map[edge]*series)}
	var work []visit
	var calls []outgoing
	var stack []int
	for _, t := range trees {
		c.traces++
		for i := range t.Spans {
			if t.Parent[i] < 0 || t.NonBlocking(i) && t.Why(i) != Canceled {
				work = append(work, visit{i, t.Spans[i].Service, edge{}, t.Spans[i].Start, t.Spans[i].End})
			}
		}
		for len(work) > 0 {
			v := work[len(work)-1]
			work = work[:len(work)-1]
			calls, stack = leaving(t, v, calls[:0], stack[:0])
			work = c.enter(t, v, calls, n, work)
		}
	}
	return c
}

// leaving collects the calls that leave the service within visit v, latest end first.
func leaving(t *Tree, v visit, calls []outgoing, stack []int) ([]outgoing, []int) {
	stack = append(stack, v.span)
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, child := range t.Blocking(i) {
			c := int(child)
			served, is := crossing(t, c)
			if !is {
				stack = append(stack, c)
				continue
			}
			call := outgoing{start: max(t.Spans[c].Start, v.start), end: min(t.Spans[c].End, v.end), span: c, served: served, at: locate(t, c)}
			if service := implied(t, call); service != "" {
				call.at = place{trace.SegDownstream, service, t.Spans[c].Name}
			}
			if call.end > call.start {
				calls = append(calls, call)
			}
		}
	}
	slices.SortFunc(calls, func(a, b outgoing) int {
		return cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(a.start, b.start), cmp.Compare(a.at.operation, b.at.operation))
	})
	return calls, stack
}

// crossing reports whether span c leaves the service, and which span serves it on the other side.
func crossing(t *Tree, c int) (served int, ok bool) {
	if served, ok := calls(t, c); ok {
		return served, true
	}
	if entry(t, c) {
		return c, true
	}
	if len(t.Children(c)) > 0 {
		return -1, false
	}
	switch locate(t, c).segment {
	case trace.SegDatabase, trace.SegCache, trace.SegQueue:
		return -1, true
	}
	return -1, false
}

// implied is the service that call enters when it recorded no span for that, but only its own calls below the caller's
// client span, as where nothing but clients are instrumented; else "". The client span is its visit then.
func implied(t *Tree, call outgoing) string {
	if call.served < 0 {
		return ""
	}
	caller, callee := &t.Spans[call.span], &t.Spans[call.served]
	if call.span != call.served && caller.Kind == trace.Client && (callee.Kind == trace.Client || callee.Kind == trace.Producer) {
		return callee.Service
	}
	return ""
}

// shapeOf tells visits of one operation apart that do different things: it is a hash of what they call, however often
// and in which order. Otherwise more of the heavier kind would look like growth. It appends to room what it is made of.
func shapeOf(calls []outgoing, n *namer, room []uint64) (shape uint64, parts []uint64) {
	for _, c := range calls {
		h := fnv.New64a()
		h.Write([]byte(c.at.service))
		h.Write([]byte{0})
		h.Write([]byte(n.name(c.at.service, c.at.operation)))
		room = append(room, h.Sum64())
	}
	slices.Sort(room)
	room = slices.Compact(room)
	for _, h := range room {
		shape ^= h
	}
	return shape, room
}

// overlapRatio is the part of a visit by which two calls may overlap and still count as one after the other.
const overlapRatio = 0.01

// enter walks back through visit v: what no call covers is the service's own, what the callee's span does not
// cover of a call is the edge's, and the callee is visited next.
func (c *tally) enter(t *Tree, v visit, calls []outgoing, n *namer, work []visit) []visit {
	s := &t.Spans[v.span]
	c.meet(v.service)
	at := edge{caller: v.service, operation: n.name(v.service, s.Name)}
	slack := int64(overlapRatio * float64(v.end-v.start))
	now, own := v.end, int64(0)
	for _, call := range calls {
		if call.end > now+slack || call.start >= now {
			continue // it ran beside the one that was waited for
		}
		end := min(call.end, now)
		own += now - end
		now = call.start
		e := at
		e.segment, e.callee, e.target = call.at.segment, call.at.service, n.name(call.at.service, call.at.operation)
		if call.served < 0 {
			c.meet(e.callee)
			c.add(e, end-call.start)
			continue
		}
		callee := &t.Spans[call.served]
		if service := implied(t, call); service != "" {
			work = append(work, visit{call.span, service, e, call.start, end})
			continue
		}
		start, stop := max(callee.Start, call.start), min(callee.End, end)
		stop = max(start, stop)
		if e.segment, e.callee, e.target = trace.SegNetwork, callee.Service, n.name(callee.Service, callee.Name); call.span != call.served {
			c.add(e, end-call.start-(stop-start))
		}
		if stop > start {
			work = append(work, visit{call.served, callee.Service, edge{}, start, stop})
		}
	}
	if v.via != (edge{}) {
		at = v.via
	} else {
		at.segment = trace.SegService
	}
	at.shape, c.room = shapeOf(calls, n, c.room[:0])
	c.add(at, own+now-v.start)
	return work
}

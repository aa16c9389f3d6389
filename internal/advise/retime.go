package advise

import (
	"cmp"
	"slices"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// overlapTolerance is how far two siblings may overlap, as a share of their parent, and still count as one after the
// other: clocks that round make back-to-back calls overlap (rule 6 of the critical path).
const overlapTolerance = 0.01

// A timeline is one recorded trace, ready to be re-timed.
//
// Every duration follows from the spans below it: a call starts its own gap after the last sibling that had ended
// before it began, and a span ends its own tail after the last call it waited for. The gaps and tails are the span's
// own work and stay as recorded. Durations are relative, so that skew between hosts does no harm.
type timeline struct {
	spans   []trace.Span
	parent  []int   // index of the parent; -1 = none
	root    []bool  // the span is the root of a path, not only without a parent
	order   []int   // parents before their children
	first   []int   // blocking children of i: kids[first[i]:first[i+1]]
	kids    []int   // each run sorted by start, end, ID
	step    int64   // of the clock, ns
	weight  float64 // how many traces it stands for
	calls   []bool  // the span waits for another service, itself or in what it wraps
	scratch []sibling
}

// sibling is one blocking call of a span, in ns since the start of that span.
type sibling struct {
	start, end int64 // as recorded, clipped to the parent
	wait       int64 // where the next in line may begin: end, less what rounding made overlap
	newEnd     int64
	newWait    int64
}

// newTimeline indexes the spans of a tree by their parents.
func newTimeline(tree *diagnose.Tree) *timeline {
	spans := tree.Spans
	n := len(spans)
	parent := make([]int, n)
	for i, p := range tree.Parent {
		parent[i] = int(p)
	}
	t := &timeline{spans: spans, parent: parent, root: make([]bool, n), first: make([]int, n+1), weight: 1}
	if main := mainRoot(tree); main >= 0 {
		t.root[main] = true
	}
	all := make([]int, n+1) // where the children of i begin in below
	for i := range spans {
		if t.hasParent(i) {
			all[parent[i]+1]++
		}
	}
	for i := range n {
		all[i+1] += all[i]
	}
	below := make([]int, all[n])
	next := slices.Clone(all[:n])
	for i := range spans {
		if t.hasParent(i) {
			below[next[parent[i]]] = i
			next[parent[i]]++
		}
	}
	t.order = t.parentsFirst(all, below)
	t.step = tree.Granularity()
	for i := range n {
		from := len(t.kids)
		for _, k := range below[all[i]:all[i+1]] {
			if !tree.NonBlocking(k) {
				t.kids = append(t.kids, k)
			}
		}
		t.sort(i, t.kids[from:])
		t.first[i+1] = len(t.kids)
	}
	t.markCalls()
	return t
}

// mainRoot is the root that took longest, the first of equals: the one that a diagnosis takes the trace's route from. It
// is -1 when there is none.
func mainRoot(tree *diagnose.Tree) int {
	best := -1
	for _, r := range tree.Roots {
		if best < 0 || tree.Spans[r].Duration() > tree.Spans[best].Duration() {
			best = r
		}
	}
	return best
}

// markCalls finds the spans that stand for a remote call, and the local ones that wrap some.
func (t *timeline) markCalls() {
	t.calls = make([]bool, len(t.spans))
	for _, i := range slices.Backward(t.order) {
		t.calls[i] = t.calls[i] || t.spans[i].Kind == trace.Client
		if t.hasParent(i) && (t.calls[i] || t.spans[i].Service != t.spans[t.parent[i]].Service) {
			t.calls[i] = true
			if p := t.parent[i]; t.spans[p].Kind != trace.Server && t.spans[p].Kind != trace.Consumer {
				t.calls[p] = true
			}
		}
	}
}

func (t *timeline) hasParent(i int) bool {
	p := t.parent[i]
	return p >= 0 && p < len(t.spans) && p != i
}

func (t *timeline) parentsFirst(all, below []int) []int {
	order := make([]int, 0, len(t.spans))
	for i := range t.spans {
		if !t.hasParent(i) {
			order = append(order, i)
		}
	}
	for at := 0; at < len(order); at++ {
		i := order[at]
		order = append(order, below[all[i]:all[i+1]]...)
	}
	return order
}

func (t *timeline) sort(i int, kids []int) {
	slices.SortFunc(kids, func(a, b int) int {
		as, ae := t.clip(i, a)
		bs, be := t.clip(i, b)
		return cmp.Or(cmp.Compare(as, bs), cmp.Compare(ae, be), cmp.Compare(t.spans[a].ID, t.spans[b].ID))
	})
}

// blocking returns the children that span i waited for, in the order they began.
func (t *timeline) blocking(i int) []int { return t.kids[t.first[i]:t.first[i+1]] }

// clip is the part of child k that lies inside span i, in ns since the start of i.
func (t *timeline) clip(i, k int) (start, end int64) {
	p, c := &t.spans[i], &t.spans[k]
	start = min(max(c.Start, p.Start), p.End) - p.Start
	return start, max(start, min(c.End, p.End)-p.Start)
}

// recorded is the duration of span i in ns as it was; 0 for a malformed one.
func (t *timeline) recorded(i int) int64 { return max(0, t.spans[i].End-t.spans[i].Start) }

// An edit is what would be different in one trace. It is reused from trace to trace.
type edit struct {
	fixed   []int64   // new duration in ns by span; 0 = the span is gone; -1 = as its children make it
	own     []float64 // by span: what its own time is multiplied by
	plus    []int64   // by span: ns that it takes more, after all else
	group   []int     // spans of one group, not 0, start together, each after the parent's own gap before it,
	lane    []int     // but those of one lane in it still one after the other
	changed bool
}

func (e *edit) reset(n int) {
	e.fixed = slices.Grow(e.fixed[:0], n)[:n]
	e.own = slices.Grow(e.own[:0], n)[:n]
	e.plus = slices.Grow(e.plus[:0], n)[:n]
	e.group = slices.Grow(e.group[:0], n)[:n]
	e.lane = slices.Grow(e.lane[:0], n)[:n]
	for i := range n {
		e.fixed[i], e.own[i], e.plus[i], e.group[i], e.lane[i] = -1, 1, 0, 0, 0
	}
	e.changed = false
}

// set gives span i a duration of d ns.
func (e *edit) set(i int, d int64) {
	e.fixed[i] = max(0, d)
	e.changed = true
}

// scale multiplies the time of span i in which it waits for none of its calls.
func (e *edit) scale(i int, by float64) {
	e.own[i] *= max(0, by)
	e.changed = e.changed || by != 1
}

// add makes span i take d ns more, or less, than it would otherwise.
func (e *edit) add(i int, d int64) {
	e.plus[i] += d
	e.changed = e.changed || d != 0
}

// together lets spans, siblings that ran one after the other, start at once, except that those of one kind still wait
// for each other.
func (e *edit) together(spans []int, kind func(int) string) {
	lanes := make(map[string]int)
	for _, i := range spans {
		if _, ok := lanes[kind(i)]; !ok {
			lanes[kind(i)] = i + 1
		}
		e.group[i], e.lane[i] = spans[0]+1, lanes[kind(i)]
	}
	e.changed = e.changed || len(spans) > 1
}

// retime returns the duration of every span in ns under the edit, in into if that is large enough. Without a change it
// returns the recorded durations exactly.
func (t *timeline) retime(e *edit, into []int64) []int64 {
	into = slices.Grow(into[:0], len(t.spans))[:len(t.spans)]
	for i := range t.spans {
		into[i] = t.recorded(i)
	}
	if !e.changed {
		return into
	}
	for _, i := range slices.Backward(t.order) {
		switch {
		case e.fixed[i] >= 0:
			into[i] = e.fixed[i]
		case e.own[i] != 1 || t.moved(i, e, into):
			into[i] = t.walk(i, e, into)
		}
		into[i] = max(0, into[i]+e.plus[i])
	}
	return into
}

// moved reports whether anything that span i waited for changed.
func (t *timeline) moved(i int, e *edit, now []int64) bool {
	for _, k := range t.blocking(i) {
		if now[k] != t.recorded(k) || e.group[k] != 0 {
			return true
		}
	}
	return false
}

// walk runs span i again with its calls as long as they are now and returns its new duration.
func (t *timeline) walk(i int, e *edit, now []int64) int64 {
	kids := t.blocking(i)
	line := t.line(i, kids)
	byEnd := make([]int, len(kids))
	for k := range byEnd {
		byEnd[k] = k
	}
	slices.SortFunc(byEnd, func(a, b int) int {
		return cmp.Or(cmp.Compare(line[a].wait, line[b].wait), cmp.Compare(a, b))
	})
	var doneOld, doneNew, lastOld, lastNew int64 // ended before this one began; ended at all
	ended := 0
	starts := make(map[int][2]int64) // of a group: new start and old end of its latest member
	lanes := make(map[int]int64)     // new end of its latest member
	for k := range line {
		s := &line[k]
		for ended < len(byEnd) && byEnd[ended] < k && line[byEnd[ended]].wait <= s.start {
			doneOld = line[byEnd[ended]].wait
			doneNew = max(doneNew, line[byEnd[ended]].newWait)
			ended++
		}
		begin := doneNew + e.scaled(i, s.start-doneOld)
		if g := e.group[kids[k]]; g != 0 {
			if before, ok := starts[g]; ok {
				begin = max(lanes[e.lane[kids[k]]], before[0]+max(0, s.start-before[1]))
			}
			starts[g] = [2]int64{begin, s.wait}
		}
		s.newEnd = begin + t.inside(i, kids[k], now[kids[k]])
		s.newWait = max(begin, s.newEnd-(s.end-s.wait))
		if lane := e.lane[kids[k]]; lane != 0 {
			lanes[lane] = s.newWait
		}
		lastOld, lastNew = max(lastOld, s.end), max(lastNew, s.newEnd)
	}
	return max(0, lastNew+e.scaled(i, t.recorded(i)-lastOld))
}

// scaled is ns of the own time of span i under the edit.
func (e *edit) scaled(i int, ns int64) int64 {
	if e.own[i] == 1 {
		return ns
	}
	return int64(e.own[i] * float64(ns))
}

// line lays out the calls of span i as recorded.
func (t *timeline) line(i int, kids []int) []sibling {
	line := slices.Grow(t.scratch[:0], len(kids))[:len(kids)]
	t.scratch = line
	for k, kid := range kids {
		start, end := t.clip(i, kid)
		line[k] = sibling{start: start, end: end, wait: end}
	}
	tolerance := max(t.step, int64(overlapTolerance*float64(t.recorded(i))))
	for k := range len(line) - 1 {
		a, b := &line[k], &line[k+1]
		overlap := a.end - b.start
		if overlap > 0 && overlap <= tolerance && 2*overlap <= min(a.end-a.start, b.end-b.start) {
			a.wait = b.start
		}
	}
	return line
}

// inside is how much of child k, now d ns long, lies inside span i. What a client gave up on at its deadline stays cut
// off there, unless the child is now fast enough.
func (t *timeline) inside(i, k int, d int64) int64 {
	start, end := t.clip(i, k)
	recorded := t.recorded(k)
	if d > recorded {
		return end - start + d - recorded
	}
	before := t.spans[i].Start + start - t.spans[k].Start // cut off at the front: clock skew
	return min(end-start, max(0, d-before))
}

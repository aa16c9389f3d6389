package diagnose

import (
	"slices"
	"strings"
)

// Section is a piece of a critical path: the time during which the path's root waited for Span itself, and for none
// of its children.
type Section struct {
	Span       int   // index in Tree.Spans
	Start, End int64 // ns since the Unix epoch; End is after Start
}

// Path returns the critical path of span root: sections in time order that partition its duration exactly. It is
// empty for a root without duration.
//
// The path is found from the end: in a span, the blocking child that ends last holds up the span; what lies between
// is the span's own time. It goes on in the same way from that child's start. Of children that end together the one
// that starts first counts, then the one whose ID is first. A child that overlaps the next one by less than 1 % of
// their parent, or by no more than the granularity of the clock, is taken to have released it if no third sibling
// starts or ends meanwhile (the rule of Uber's CRISP, whose paths count the overlap twice, though).
//
// Of a tree from [Trees], a child that ended before the next one started is passed over when other traces show that the
// next one does not wait for it; see [Trees].
//
// It is O(n) in the spans below root, plus a logarithm for each overlap; it does not recurse.
func (t *Tree) Path(root int) []Section { return t.AppendPath(nil, root) }

// AppendPath is [Tree.Path] into memory of the caller's.
func (t *Tree) AppendPath(path []Section, root int) []Section {
	if t.walked != nil && root == t.Roots[0] {
		return append(path, t.walked...)
	}
	w := walk{tree: t, path: path}
	w.run(root)
	return w.path
}

// walk goes through the spans of a path from its end to its start.
type walk struct {
	tree *Tree
	path []Section // latest first
	open []frame   // the span in whose time we are, and those that wait for it
}

// frame is a span whose time before now is not yet given to anybody.
type frame struct {
	interval // the part of the span that counts
	span     int32
	next     int32 // first blocking child not yet ruled out, in Tree.block
	now      int64
	later    int32     // the child that the path went through last; -1 = none
	known    *siblings // orders that are none; nil = there are no such
}

// of makes the path of root of t, in the memory of the one before.
func (w *walk) of(t *Tree, root int) {
	w.tree, w.path = t, w.path[:0]
	w.run(root)
}

// run appends the path of root.
func (w *walk) run(root int) {
	from, s := len(w.path), &w.tree.Spans[root]
	w.enter(int32(root), interval{s.Start, s.End})
	for len(w.open) > 0 {
		w.step()
	}
	slices.Reverse(w.path[from:])
}

func (w *walk) enter(span int32, c interval) {
	if c.start >= c.end {
		return
	}
	w.open = append(w.open, frame{interval: c, span: span, next: w.tree.blockFrom[span], now: c.end, later: -1, known: w.tree.orders.below(w.tree, span)})
}

// step gives away the time up to the end of the child that comes next (from the back), and enters it; or the rest of
// the span's time to the span itself.
func (w *walk) step() {
	f := &w.open[len(w.open)-1]
	child, c := int32(-1), interval{f.start, f.start}
	if f.now > f.start {
		if k, found := f.pick(w.tree); found {
			child, c = k, interval{max(w.tree.Spans[k].Start, f.start), min(w.tree.Spans[k].End, f.now)}
		}
	}
	if c.end < f.now {
		w.path = append(w.path, Section{int(f.span), c.end, f.now})
	}
	if child < 0 {
		w.open = w.open[:len(w.open)-1]
		return
	}
	f.now, f.later = c.start, child
	w.enter(child, c)
}

// pick finds the blocking child that ends last, but not after now.
func (f *frame) pick(t *Tree) (child int32, found bool) {
	if f.later >= 0 {
		if child, found = f.overlapping(t); found {
			return child, true
		}
	}
	for stop := t.blockFrom[f.span+1]; f.next < stop; {
		// Ends beyond the span's own count as its end.
		end := min(t.Spans[t.block[f.next]].End, f.end)
		if end <= f.start {
			return -1, false
		}
		child = -1
		for ; f.next < stop && min(t.Spans[t.block[f.next]].End, f.end) == end; f.next++ {
			if k := t.block[f.next]; end <= f.now && t.Spans[k].Start < end && (child < 0 || f.before(t, k, child)) && !f.chance(t, k) {
				child = k
			}
		}
		if child >= 0 {
			return child, true
		}
	}
	return -1, false
}

// chance says that the child that the path went through last did not wait for k, as other traces show.
func (f *frame) chance(t *Tree, k int32) bool {
	return f.known != nil && f.later >= 0 && f.known.chance(t.spots[k], t.spots[f.later])
}

// before decides between children that end together.
func (f *frame) before(t *Tree, a, b int32) bool {
	startA, startB := max(t.Spans[a].Start, f.start), max(t.Spans[b].Start, f.start)
	if startA != startB {
		return startA < startB
	}
	return strings.Compare(t.Spans[a].ID, t.Spans[b].ID) < 0
}

// overlapping finds the child that ends so shortly after now, the start of the later one, that it can be what the
// later one waited for: of the children that run at now only the first to end, for its end would disturb the others.
// It rules out all of them.
func (f *frame) overlapping(t *Tree) (child int32, found bool) {
	first, stop := t.blockFrom[f.span], t.blockFrom[f.span+1]
	end := func(at int32) int64 { return t.Spans[t.block[at]].End }
	from := f.next
	for f.next < stop && end(f.next) > f.now {
		f.next++
	}
	at := f.next - 1
	if at < from {
		return -1, false
	}
	child = t.block[at]
	s := &t.Spans[child]
	length := f.end - f.start
	small := minus(s.End, f.now) <= t.step(child, f.later) || minus(s.End, f.now) <= (length-1)/100
	alone := (f.next == stop || end(f.next) < f.now) && (at == first || end(at-1) > s.End)
	laterEnd := min(t.Spans[f.later].End, f.end)
	return child, small && alone && s.Start < f.now && s.End < laterEnd && f.startsWithin(t, s.End) == 1 && !f.chance(t, child)
}

// startsWithin counts the blocking children that start from now to end, at most up to 2.
func (f *frame) startsWithin(t *Tree, end int64) (count int) {
	children := t.Children(int(f.span))
	at, _ := slices.BinarySearchFunc(children, f.now, func(k int32, now int64) int {
		if t.Spans[k].Start < now {
			return -1
		}
		return 1
	})
	for ; at < len(children) && t.Spans[children[at]].Start <= end && count < 2; at++ {
		if t.why[children[at]] == Waited {
			count++
		}
	}
	return count
}

package diagnose

// Float is the room that a span has in time.
type Float struct {
	// Slack is by how much later the span could have ended, with all that its parent waited for in its place, and the
	// root still have ended when it did, ns; 0 = it is on the critical path, or ties with it; -1 = nobody waited for it.
	Slack int64
	// Drag is by how much sooner the root would have ended had the span, with all below it, taken no time, ns; 0 off the
	// critical path. It is less than the span's time on the path where something else ran meanwhile that would then be
	// waited for.
	Drag int64
}

// Floats returns slack and drag of all spans below root, and of root, by index in Spans; the others have none of both.
// It is O(n log n) and does not recurse.
//
// A child's slack is what it lacks to the end of the sibling that its parent waited for at that time, or of the parent
// where it waited for none, and its parent's slack. A child's drag is what it has on top of the siblings that ran
// beside it: its time on the path since the last of them ended; at most its parent's drag.
//
// Source: slack_drag.py of Uber's CRISP, after Google's calligator. It differs: siblings are compared only with those
// that ran beside them, so that the last of calls in a row has drag where it follows after a pause; drag is bounded by
// all ancestors', not by the span's own time alone; and slack comes from the end of a span, for how much sooner it
// could have started its siblings' starts do not tell.
func (t *Tree) Floats(root int) []Float {
	floats := make([]Float, len(t.Spans))
	for i := range floats {
		floats[i].Slack = -1
	}
	whole := interval{t.Spans[root].Start, t.Spans[root].End}
	floats[root] = Float{Slack: 0, Drag: whole.end - whole.start}
	w := floater{tree: t, floats: floats, open: []visited{{int32(root), whole}}}
	for len(w.open) > 0 {
		at := w.open[len(w.open)-1]
		w.open = w.open[:len(w.open)-1]
		w.visit(at)
	}
	return floats
}

// visited is a span, and the part of it that its parent waited for.
type visited struct {
	span int32
	interval
}

type floater struct {
	tree   *Tree
	floats []Float
	open   []visited // spans whose children have no floats yet
	chain  []visited // scratch: what the span waited for, latest first
}

// visit finds the floats of the children of a span.
func (w *floater) visit(v visited) {
	t := w.tree
	children := t.Blocking(int(v.span))
	if len(children) == 0 {
		return
	}
	w.findChain(v)
	own, at := w.floats[v.span], 0
	for _, k := range children { // by later end, as the chain is
		end := min(t.Spans[k].End, v.end)
		for at < len(w.chain) && w.chain[at].start >= end {
			at++
		}
		if at < len(w.chain) && w.chain[at].span == k {
			continue
		}
		until := v.end // the end of the chain's child that ran when this one ended
		if at < len(w.chain) && w.chain[at].end >= end {
			until = w.chain[at].end
		}
		w.floats[k] = Float{Slack: plus(own.Slack, max(minus(until, end), 0))}
		w.open = append(w.open, visited{k, within(interval{t.Spans[k].Start, t.Spans[k].End}, v.interval)})
	}
	for _, c := range w.chain {
		w.floats[c.span] = Float{Slack: own.Slack, Drag: min(own.Drag, c.end-w.rival(children, c, v.end))}
		w.open = append(w.open, c)
	}
}

// findChain lists what the span waited for: the children that its own path goes through.
func (w *floater) findChain(v visited) {
	t := w.tree
	w.chain = w.chain[:0]
	f := frame{interval: v.interval, span: v.span, next: t.blockFrom[v.span], now: v.end, later: -1, known: t.orders.below(t, v.span)}
	for f.now > f.start {
		k, found := f.pick(t)
		if !found {
			return
		}
		c := interval{max(t.Spans[k].Start, f.start), min(t.Spans[k].End, f.now)}
		w.chain = append(w.chain, visited{k, c})
		f.now, f.later = c.start, k
	}
}

// rival is when the last of the siblings of a chain's child ended that ran beside it: what the span would have waited
// for without it; its own start when there is none. Ends beyond the span's own count as its end.
func (w *floater) rival(children []int32, c visited, end int64) int64 {
	at := 0
	if c.end < end {
		at = w.firstUpTo(children, c.end)
	}
	for _, k := range children[at:] {
		s := &w.tree.Spans[k]
		if s.End <= c.start {
			break
		}
		if k != c.span && s.Start < c.end && !w.mirrors(k, c) {
			return min(s.End, end)
		}
	}
	return c.start
}

// mirrors says whether span k merely runs beside c, as frameworks with an event loop record the wait for a call twice: it
// is local, nothing is recorded below it, and it lasts as long.
func (w *floater) mirrors(k int32, c visited) bool {
	t := w.tree
	if len(t.Children(int(k))) > 0 || len(t.Children(int(c.span))) == 0 || t.Spans[k].Start > c.start+(c.end-c.start)/10 {
		return false
	}
	_, leaves := crossing(t, int(k))
	return !leaves
}

// firstUpTo is the index of the first child, of those by later end, that ends no later than end.
func (w *floater) firstUpTo(children []int32, end int64) int {
	low, high := 0, len(children)
	for low < high {
		if mid := (low + high) / 2; w.tree.Spans[children[mid]].End > end {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

package diagnose

import (
	"cmp"
	"slices"
	"strings"
)

// order lists the nodes with parents before their children, and finds how deep they are.
func (b *builder) order() {
	b.from, b.kids = again(b.from, len(b.parent)+1), again(b.kids, len(b.parent))
	from, kids := bucket(b.parent, b.from, b.kids)
	b.depth = again(b.depth, len(b.nodes))
	b.down = again(b.down, len(b.nodes))[:0]
	b.tops = b.tops[:0]
	for i, p := range b.parent {
		if p == noParent || p == missing {
			b.tops = append(b.tops, int32(i))
		}
	}
	b.down = append(b.down, b.tops...)
	for at := 0; at < len(b.down); at++ {
		n := b.down[at]
		for _, k := range kids[from[n]:from[n+1]] {
			b.depth[k] = b.depth[n] + 1
			b.down = append(b.down, k)
		}
	}
}

// bucket sorts 0..len(parent)-1 by parent, stably: those of parent p are in all[from[p]:from[p+1]]. It is given zeroes
// in from, one more than there are parents, and room in all.
func bucket(parent, from, all []int32) (_, _ []int32) {
	for _, p := range parent {
		if p >= 0 {
			from[p+1]++
		}
	}
	for i := range parent {
		from[i+1] += from[i]
	}
	all = all[:from[len(parent)]]
	for i, p := range parent { // each from moves to the next one's place, and back after that
		if p >= 0 {
			all[from[p]] = int32(i)
			from[p]++
		}
	}
	copy(from[1:], from)
	from[0] = 0
	return from, all
}

// ranked is a node with what decides on its place.
type ranked struct {
	start, end  int64
	depth, node int32
}

// arrange gives the spans their final order and fills the tree with them. Depth comes before ID because a client's
// and a server's span may share one.
func (b *builder) arrange() {
	t := b.tree
	b.ranked = again(b.ranked, len(b.down))
	sorted := b.ranked
	for i, n := range b.down {
		sorted[i] = ranked{b.start[n], b.end[n], b.depth[n], n}
	}
	slices.SortFunc(sorted, func(x, y ranked) int {
		switch {
		case x.start != y.start:
			return cmp.Compare(x.start, y.start)
		case x.end != y.end:
			return cmp.Compare(y.end, x.end)
		case x.depth != y.depth:
			return cmp.Compare(x.depth, y.depth)
		}
		return strings.Compare(b.span(x.node).ID, b.span(y.node).ID)
	})
	b.place = again(b.place, len(b.nodes))
	place := b.place
	for i := range sorted {
		place[sorted[i].node] = int32(i)
	}
	t.Spans = b.rolls.spans.cut(len(sorted))
	numbers := b.rolls.numbers.cut(2 * len(sorted))
	t.Parent, t.depth = numbers[:len(sorted):len(sorted)], numbers[len(sorted):]
	if b.layouts != nil {
		t.layouts, t.marks = b.rolls.layouts.cut(len(sorted)), b.rolls.marks.cut(len(sorted))
		b.twins = again(b.twins, len(sorted))
	}
	if t.SkewCorrected > 0 {
		t.skew = make([]int64, len(sorted))
	}
	for i := range sorted {
		s, n := &t.Spans[i], sorted[i].node
		*s = *b.span(n)
		if s.Link != nil {
			t.linked++
		}
		if t.layouts != nil {
			x := b.twinOf(i)
			if x != nil {
				t.layouts[i] = x.layout
			} else {
				t.layouts[i] = b.layouts.of(s)
			}
			b.twins[i] = x
			t.mark(i, x)
		}
		if t.skew != nil {
			t.skew[i] = b.start[n] - s.Start
		}
		s.Start, s.End = b.start[n], b.end[n]
		t.depth[i] = b.depth[n]
		t.Parent[i] = noParent
		if p := b.parent[n]; p >= 0 {
			t.Parent[i] = place[p]
		}
		b.root(i, n)
	}
	for i, n := range b.down {
		b.down[i] = place[n]
	}
	if len(t.Roots) == 0 {
		t.Roots = slices.Clone(t.Orphans)
	}
	t.Incomplete = t.Incomplete || len(t.Orphans) > 0
}

// root enters span i, which was node n, among the roots or orphans if it is one.
func (b *builder) root(i int, n int32) {
	t := b.tree
	switch {
	case b.parent[n] == noParent:
		t.Roots = append(t.Roots, i)
	case b.parent[n] == missing, t.Synthetic && b.nodes[b.parent[n]] == synthetic:
		t.Orphans = append(t.Orphans, i)
	}
}

// hang lists the children of every span.
func (t *Tree) hang(r *rolls) {
	n := len(t.Parent)
	numbers := r.numbers.cut(2*n + 1)
	t.childFrom, t.child = bucket(t.Parent, numbers[:n+1:n+1], numbers[n+1:])
}

// clipAll cuts every span to what lies within its ancestors; down has parents before children.
func (t *Tree) clipAll(down []int32, r *rolls) {
	t.clip = r.clips.cut(len(t.Spans))
	for _, i := range down {
		s := &t.Spans[i]
		c := interval{s.Start, s.End}
		if p := t.Parent[i]; p >= 0 && t.why[i] == Waited {
			c = within(c, t.clip[p])
		}
		t.clip[i] = c
	}
}

// within is the part of c inside of outer. Where they do not meet it is empty, and lies on the edge of outer.
func within(c, outer interval) interval {
	start := min(max(c.start, outer.start), outer.end)
	return interval{start, max(start, min(c.end, outer.end))}
}

package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// order lists the nodes with parents before their children, and finds how deep they are.
func (b *builder) order() {
	from, kids := bucket(b.parent)
	b.depth = make([]int32, len(b.nodes))
	b.down = make([]int32, 0, len(b.nodes))
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

// bucket sorts 0..len(parent)-1 by parent, stably: those of parent p are in all[from[p]:from[p+1]].
func bucket(parent []int32) (from, all []int32) {
	from = make([]int32, len(parent)+1)
	for _, p := range parent {
		if p >= 0 {
			from[p+1]++
		}
	}
	for i := range parent {
		from[i+1] += from[i]
	}
	all = make([]int32, from[len(parent)])
	next := slices.Clone(from)
	for i, p := range parent {
		if p >= 0 {
			all[next[p]] = int32(i)
			next[p]++
		}
	}
	return from, all
}

// arrange gives the spans their final order and fills the tree with them. Depth comes before ID because a client's
// and a server's span may share one.
func (b *builder) arrange() {
	t := b.tree
	sorted := slices.Clone(b.down)
	slices.SortFunc(sorted, func(x, y int32) int {
		if c := cmp.Compare(b.start[x], b.start[y]); c != 0 {
			return c
		}
		if c := cmp.Compare(b.end[y], b.end[x]); c != 0 {
			return c
		}
		if c := cmp.Compare(b.depth[x], b.depth[y]); c != 0 {
			return c
		}
		return strings.Compare(b.span(x).ID, b.span(y).ID)
	})
	place := make([]int32, len(b.nodes))
	for i, n := range sorted {
		place[n] = int32(i)
	}
	t.Spans = make([]trace.Span, len(sorted))
	t.Parent = make([]int32, len(sorted))
	t.depth = make([]int32, len(sorted))
	if t.SkewCorrected > 0 {
		t.skew = make([]int64, len(sorted))
	}
	for i, n := range sorted {
		s := &t.Spans[i]
		*s = *b.span(n)
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
func (t *Tree) hang() { t.childFrom, t.child = bucket(t.Parent) }

// clipAll cuts every span to what lies within its ancestors; down has parents before children.
func (t *Tree) clipAll(down []int32) {
	t.clip = make([]interval, len(t.Spans))
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

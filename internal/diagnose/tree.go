package diagnose

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// Tree is one trace made walkable: cleaned, clock-corrected and in a fixed order, whatever order its spans came in.
// It is immutable after [Build] and safe for concurrent use. Spans are named by their index in Spans.
type Tree struct {
	ID     string
	Weight float64 // how many traces this one stands for; more than 0
	// Spans are the valid spans, each once, with corrected times, by start, then later end, then depth, then ID.
	// They are copies; only their attributes are shared with the input.
	Spans     []trace.Span
	Parent    []int32  // of each span; -1 = none, or it is missing
	Roots     []int    // spans without a parent, in the order of Spans: the first is the trace's root. Empty only when Spans is
	Orphans   []int    // spans whose parent is named but is not there, in the order of Spans
	Malformed []string // IDs of the dropped spans: end before start, own ancestor; sorted

	Duplicates    int // spans dropped because a span of that ID was there
	Invalid       int // spans dropped as malformed, or because they have no ID
	SkewCorrected int // spans that were moved because their host's clock was off
	SkewIgnored   int // hosts (one on each way down) whose correction would have been beyond ClockOptions.MaxAdjust

	Incomplete bool // a span is missing or unusable, so that others hang in the air
	// Synthetic says that Roots[0] was not in the input: no span was without a parent, but several share the same
	// missing one. It has that parent's ID, spans its children, and its service and name are "unknown".
	Synthetic bool

	granularity int64
	steps       []int64 // of each span's clock; nil = all are granularity
	depth       []int32
	skew        []int64 // nil = none was moved
	why         []Detached
	clip        []interval
	childFrom   []int32 // children of i: child[childFrom[i]:childFrom[i+1]], in the order of Spans
	child       []int32
	blockFrom   []int32 // the same for the blocking ones, by later end, then earlier start, then ID
	block       []int32
	layouts     []*layout // of each span, nil = it has none; nil = the tree stands alone
	marks       []marks   // what is asked of a span again and again; nil = the tree stands alone
	has         marks     // those of all spans together
	spots       []int32   // the number of each span's operation; nil = the tree stands alone
	known       []place   // that spans belong to; nil = the tree stands alone
	places      []int32   // of each span, in known
	served      []int32   // whom each span calls; see calls
	process     []int32   // the number of the process that each span came in by, for its shard; -1 = it did not
	detached    int       // spans that nobody waited for
	linked      int       // spans with links
	walked      []Section // the path of Roots[0]; nil = it is not known
	worth       []int32   // the reads below Roots[0] that are worth keeping; nil = the tree stands alone; see readReader
	orders      *orders   // what other traces tell about siblings; nil = nothing
}

type interval struct{ start, end int64 }

// Build makes the tree of t in O(n log n), without recursion. No input makes it fail: what cannot be used is left
// out and counted. Of several spans with one ID the one that ends last is kept (then the one that starts first, then
// the one with more attributes, ...), except that a client and a server span may share an ID, as Zipkin's B3 has it:
// the server's is then the child of the client's.
func Build(t trace.Trace, o ClockOptions) *Tree {
	var b builder
	return b.build(t, o)
}

// build makes the tree of t in the memory of the trees before it, of which it keeps nothing that they hold.
func (b *builder) build(t trace.Trace, o ClockOptions) *Tree {
	if o.Yield != nil {
		o.Yield()
	}
	b.in, b.options, b.tree = t.Spans, o, &Tree{ID: t.ID, Weight: weightOf(t)}
	b.collect()
	b.link()
	b.cut()
	b.adopt()
	b.order()
	b.granularity()
	b.correct()
	b.arrange()
	b.steps()
	b.tree.hang(&b.rolls)
	b.tree.detach(&b.rolls)
	b.tree.clipAll(b.down, &b.rolls)
	return b.tree
}

// weightOf is the weight of t. One that is no number above 0, which its documentation rules out, counts as 1.
func weightOf(t trace.Trace) float64 {
	if t.Weight > 0 && !math.IsInf(t.Weight, 0) {
		return t.Weight
	}
	return 1
}

// Children returns the children of span i, detached ones included, in the order of Spans. The caller must not change it.
func (t *Tree) Children(i int) []int32 {
	return t.child[t.childFrom[i]:t.childFrom[i+1]:t.childFrom[i+1]]
}

// Blocking returns the children that span i waited for, by later end, then earlier start, then ID. The caller must not change it.
func (t *Tree) Blocking(i int) []int32 {
	return t.block[t.blockFrom[i]:t.blockFrom[i+1]:t.blockFrom[i+1]]
}

// Why says whether the parent of span i waited for it: [Waited], which spans without a parent are too, or why not.
func (t *Tree) Why(i int) Detached { return t.why[i] }

// NonBlocking says that the parent of span i did not wait for it.
func (t *Tree) NonBlocking(i int) bool { return t.why[i] != Waited }

// Depth is the number of ancestors of span i.
func (t *Tree) Depth(i int) int { return int(t.depth[i]) }

// Skew is what was added to the times of span i, in nanoseconds.
func (t *Tree) Skew(i int) int64 {
	if t.skew == nil {
		return 0
	}
	return t.skew[i]
}

// Granularity is the step of the trace's clock in nanoseconds: as told, or else the coarsest of a millisecond, a
// microsecond and a nanosecond that all times of the trace are multiples of. Of a tree from [Trees] each clock has a
// step of its own, if they differ, which is found in the same way from all traces; this then is the trace's finest.
func (t *Tree) Granularity() int64 { return t.granularity }

// Clip returns the part of span i that lies within its parent, its parent's parent and so on, up to the span whose
// own path it belongs to. The end is never before the start.
func (t *Tree) Clip(i int) (start, end int64) { return t.clip[i].start, t.clip[i].end }

// step is what the times of spans a and b may be off by because their clocks go in steps.
func (t *Tree) step(a, b int32) int64 {
	if t.steps == nil {
		return t.granularity
	}
	return max(t.steps[a], t.steps[b])
}

// Find returns the topmost span of that service and operation (of several, the first in Spans), or -1.
func (t *Tree) Find(service, operation string) int {
	found := -1
	for i := range t.Spans {
		if t.Spans[i].Service == service && t.Spans[i].Name == operation && (found < 0 || t.depth[i] < t.depth[found]) {
			found = i
		}
	}
	return found
}

// builder numbers the usable spans ("nodes") as they come; arrange renumbers them for good.
type builder struct {
	in      []trace.Span
	options ClockOptions
	tree    *Tree

	index  idTable // numbers groups
	groups []group
	nodes  []int32 // place in the input; synthetic = the root we made up
	parent []int32 // node, noParent or missing
	start  []int64 // corrected
	end    []int64
	depth  []int32
	tops   []int32 // nodes that have no parent in the tree
	down   []int32 // nodes, after arrange spans, with parents before children
	made   trace.Span

	stamp  []int32
	place  []int32
	from   []int32
	kids   []int32
	ranked []ranked

	offsets []offset
	layouts *layouts // nil = trees are made without
	rolls   rolls    // what trees keep
	twin    map[*trace.Shared]*twin
	twins   []*twin // of the spans of the last tree; nil = nothing is known
}

// again is s with n zeroes, in the same memory if it is large enough.
func again[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	s = s[:n]
	clear(s)
	return s
}

// group is the spans of one ID: at most a server's and another one.
type group struct{ other, server int32 }

const (
	noParent  int32 = -1
	missing   int32 = -2
	dropped   int32 = -3
	synthetic int32 = -1 // in builder.nodes
)

func (b *builder) span(node int32) *trace.Span {
	if b.nodes[node] == synthetic {
		return &b.made
	}
	return &b.in[b.nodes[node]]
}

// collect sorts the input into groups, and drops what has no meaning.
func (b *builder) collect() {
	b.index.reset(len(b.in))
	b.groups = again(b.groups, len(b.in))[:0]
	for i := range b.in {
		s := &b.in[i]
		if s.ID == "" || s.End < s.Start || s.End-s.Start < 0 {
			b.malformed(s)
			continue
		}
		g, known := b.index.add(s.ID)
		if !known {
			b.groups = append(b.groups, group{-1, -1})
		}
		slot := &b.groups[g].other
		if s.Kind == trace.Server {
			slot = &b.groups[g].server
		}
		*slot = b.better(*slot, int32(i))
	}
	for i := range b.groups {
		g := &b.groups[i]
		if g.other >= 0 && g.server >= 0 && b.in[g.other].Kind != trace.Client {
			g.other, g.server = b.better(g.other, g.server), -1
		}
	}
}

func (b *builder) malformed(s *trace.Span) {
	b.tree.Invalid++
	if s.ID != "" {
		b.tree.Malformed = append(b.tree.Malformed, s.ID)
	}
}

// better counts one of two spans as a duplicate and returns the other. It is the maximum of a total order, so that
// the order of the input has no say.
func (b *builder) better(old, new int32) int32 {
	if old < 0 {
		return new
	}
	b.tree.Duplicates++
	if compareContent(&b.in[new], &b.in[old]) < 0 {
		return new
	}
	return old
}

// compareContent is negative when a is the better of two spans with one ID, and zero only when they are equal.
func compareContent(a, b *trace.Span) int {
	if c := cmp.Or(
		cmp.Compare(b.End, a.End), cmp.Compare(a.Start, b.Start),
		cmp.Compare(b.Len(), a.Len()), cmp.Compare(b.Kind, a.Kind),
	); c != 0 {
		return c
	}
	if c := cmp.Or(
		strings.Compare(b.Parent, a.Parent), strings.Compare(a.Service, b.Service), strings.Compare(a.Name, b.Name),
		strings.Compare(b.Host, a.Host), strings.Compare(a.TraceID, b.TraceID),
		compareBool(b.Failed, a.Failed), compareBool(a.FollowsFrom, b.FollowsFrom),
	); c != 0 {
		return c
	}
	for i := range min(a.Len(), b.Len()) {
		x, y := a.At(i), b.At(i)
		if c := cmp.Or(strings.Compare(x.Key, y.Key), strings.Compare(x.Value, y.Value)); c != 0 {
			return c
		}
	}
	return compareLinks(a.Link, b.Link)
}

// compareLinks puts the longer list first.
func compareLinks(a, b *trace.Link) int {
	for ; a != nil && b != nil; a, b = a.Next, b.Next {
		if c := cmp.Or(strings.Compare(a.TraceID, b.TraceID), strings.Compare(a.SpanID, b.SpanID)); c != 0 {
			return c
		}
	}
	return compareBool(a != nil, b != nil)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// link makes the nodes and finds their parents. The group of a node is remembered by replacing its places in the
// input by node numbers.
func (b *builder) link() {
	b.nodes = again(b.nodes, 2*len(b.groups)+1)[:0]
	for i := range b.groups {
		for _, slot := range []*int32{&b.groups[i].other, &b.groups[i].server} {
			if *slot >= 0 {
				b.nodes = append(b.nodes, *slot)
				*slot = int32(len(b.nodes) - 1)
			}
		}
	}
	b.parent = again(b.parent, len(b.nodes)+1)[:len(b.nodes)]
	for i := range b.groups {
		g := b.groups[i]
		if g.other >= 0 {
			b.parent[g.other] = b.parentOf(b.span(g.other), int32(i))
		}
		switch {
		case g.server >= 0 && g.other >= 0:
			b.parent[g.server] = g.other
		case g.server >= 0:
			b.parent[g.server] = b.parentOf(b.span(g.server), int32(i))
		}
	}
}

func (b *builder) parentOf(s *trace.Span, own int32) int32 {
	if s.Parent == "" {
		return noParent
	}
	g := b.index.find(s.Parent)
	switch {
	case g < 0:
		return missing
	case g == own:
		b.malformed(s)
		return dropped
	case b.groups[g].server >= 0:
		return b.groups[g].server
	}
	return b.groups[g].other
}

// cut drops the spans that are their own ancestors. What hangs below them loses its parent.
func (b *builder) cut() {
	b.stamp = again(b.stamp, len(b.nodes))
	stamp := b.stamp // number of the walk that came by
	for i := range b.nodes {
		walk, n := int32(i)+1, int32(i)
		for n >= 0 && stamp[n] == 0 {
			stamp[n] = walk
			n = b.parent[n]
		}
		if n < 0 || stamp[n] != walk {
			continue
		}
		for b.parent[n] != dropped {
			up := b.parent[n]
			b.malformed(b.span(n))
			b.parent[n] = dropped
			n = up
		}
	}
	for i, p := range b.parent {
		if p >= 0 && b.parent[p] == dropped {
			b.parent[i] = missing
		}
	}
	slices.Sort(b.tree.Malformed)
}

// adopt makes a root where there is none but all orphans miss the same parent.
func (b *builder) adopt() {
	var orphans []int32
	for i, p := range b.parent {
		switch p {
		case noParent:
			return
		case missing:
			orphans = append(orphans, int32(i))
		}
	}
	b.tree.Incomplete = true
	if len(orphans) < 2 {
		return
	}
	first := b.span(orphans[0])
	made := trace.Span{TraceID: first.TraceID, ID: first.Parent, Service: "unknown", Name: "unknown", Start: first.Start, End: first.End}
	for _, n := range orphans[1:] {
		s := b.span(n)
		if s.Parent != made.ID {
			return
		}
		made.Start, made.End = min(made.Start, s.Start), max(made.End, s.End)
	}
	if made.End-made.Start < 0 {
		return
	}
	b.made = made
	b.tree.Synthetic = true
	root := int32(len(b.nodes))
	b.nodes = append(b.nodes, synthetic)
	b.parent = append(b.parent, noParent)
	for _, n := range orphans {
		b.parent[n] = root
	}
}

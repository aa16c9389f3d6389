package diagnose

import (
	"cmp"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// Picture is what it takes to draw a route: its aggregate critical path at several quantiles of latency, and two traces.
type Picture struct {
	Service   string
	Operation string
	// Levels are the quantiles that Nodes have figures for, ascending, 0..1. Traces behind a level are those nearest to it:
	// a twentieth of all, of the slow ones a hundredth, and at least five, if there are as many.
	Levels []float64
	// Nodes are the call paths, the root first, each after its parent. Small ones are joined as "other".
	Nodes []PathNode
	// Typical is the median trace and Slow that at the 0.99 quantile; nil where the route has one trace only.
	Typical, Slow *Waterfall
}

// PathNode is one call path below a route's root.
type PathNode struct {
	Parent    int // index in Nodes, less than the node's own; -1 = the root
	Segment   trace.Segment
	Service   string
	Operation string
	MS        []float64 // mean critical time at each level, with that of the nodes below, milliseconds
}

// Waterfall is one trace.
type Waterfall struct {
	TraceID    string
	DurationMS float64
	Spans      []Bar // depth first, siblings by their start
	Cut        int   // spans that are left out because there are too many
}

// Bar is one span of a [Waterfall]. Times are in milliseconds from the root's start.
type Bar struct {
	Depth     int // 0 = the root
	Segment   trace.Segment
	Service   string
	Operation string
	StartMS   float64
	EndMS     float64
	Critical  [][2]float64 // when the request waited for the span itself: start and end, in order
	Failed    bool
	Async     bool // nobody waited for it
}

// The bounds of a picture.
const (
	maxPathNodes = 120
	maxPathsSeen = 5000
	maxPathDepth = 40
	maxBars      = 100
	leastPath    = 0.004 // of a level's time: what is less everywhere is joined
	levelFew     = 5
)

var pictureLevels = []float64{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1}

// Pictures are those of the first most routes of [Run] with the same traces and options, in the same order.
func Pictures(traces []trace.Trace, o Options, most int) []Picture {
	o = o.withDefaults()
	set := newSet(traces, o.Clock)
	p := set.named()
	list := set.views(p, o)
	var out []Picture
	for _, v := range list[:min(len(list), most)] {
		out = append(out, v.picture(p))
	}
	return out
}

func (v *view) picture(p *places) Picture {
	pic := Picture{Service: v.service, Operation: v.operation, Levels: pictureLevels}
	g := pathGraph{places: p, index: make(map[pathKey]int), levels: len(pic.Levels)}
	at := v.positions()
	for level, q := range pic.Levels {
		from, to := near(at, q)
		weight := weigh(v.samples[from:to])
		for i := range v.samples[from:to] {
			s := &v.samples[from+i]
			g.take(s, level, s.stands()/weight/1e6)
		}
	}
	pic.Nodes = g.fold()
	if n := len(v.samples); n > 1 {
		pic.Typical = v.samples[nearest(at, 0.5)].waterfall(p)
		pic.Slow = v.samples[max(nearest(at, 0.99), min(n-1, nearest(at, 0.5)+1))].waterfall(p)
	} else if n == 1 {
		pic.Typical = v.samples[0].waterfall(p)
	}
	return pic
}

// positions is where each sample stands among those that all stand for, 0..1.
func (v *view) positions() []float64 {
	total, sum := weigh(v.samples), 0.0
	at := make([]float64, len(v.samples))
	for i := range v.samples {
		w := v.samples[i].stands()
		at[i] = (sum + w/2) / total
		sum += w
	}
	return at
}

// nearest is the place of the sample that is nearest to a quantile.
func nearest(at []float64, q float64) int {
	i, _ := slices.BinarySearch(at, q)
	i = min(i, len(at)-1)
	if i > 0 && q-at[i-1] < at[i]-q {
		i--
	}
	return i
}

// near is the samples around a quantile.
func near(at []float64, q float64) (from, to int) {
	n := len(at)
	width := n / 20
	if q >= 0.95 {
		width = n / 100
	}
	width = min(n, max(width, levelFew))
	from = min(max(nearest(at, q)-width/2, 0), n-width)
	return from, from + width
}

// pathKey names a call path: its parent's number and the place of the call.
type pathKey struct {
	parent int
	place  int32
}

// pathGraph adds up the critical time of call paths.
type pathGraph struct {
	places *places
	levels int
	index  map[pathKey]int
	nodes  []PathNode
	chain  []int32 // scratch
}

// take adds the path of s to a level, each nanosecond times weight.
func (g *pathGraph) take(s *sample, level int, weight float64) {
	last, node := -1, 0
	for _, section := range s.sections {
		if section.Span != last {
			last, node = section.Span, g.node(s, section.Span)
		}
		for n := node; n >= 0; n = g.nodes[n].Parent {
			g.nodes[n].MS[level] += float64(section.End-section.Start) * weight
		}
	}
}

// node is the number of the call path that leads to a span.
func (g *pathGraph) node(s *sample, span int) int {
	g.chain = g.chain[:0]
	for i := int32(span); i >= 0; i = s.tree.Parent[i] {
		g.chain = append(g.chain, i)
		if int(i) == s.root {
			break
		}
	}
	at := -1
	for k, i := range slices.Backward(g.chain) {
		if len(g.chain)-k > maxPathDepth {
			break
		}
		key := pathKey{at, g.places.of(s.tree, int(i))}
		if at < 0 {
			key.place = -1 // all of the route begin at the same root
		}
		next, known := g.index[key]
		if !known {
			if len(g.nodes) >= maxPathsSeen {
				break
			}
			next = len(g.nodes)
			g.index[key] = next
			where := g.places.list[g.places.of(s.tree, int(i))]
			g.nodes = append(g.nodes, PathNode{Parent: at, Segment: where.segment, Service: where.service, Operation: where.operation, MS: make([]float64, g.levels)})
		}
		at = next
	}
	return at
}

// fold keeps the largest nodes and joins the others below the same parent. A node is never larger than its parent, so that
// what is kept hangs together.
func (g *pathGraph) fold() []PathNode {
	if len(g.nodes) == 0 {
		return nil
	}
	size := make([]float64, len(g.nodes))
	for i := range g.nodes {
		for level, ms := range g.nodes[i].MS {
			if whole := g.nodes[0].MS[level]; whole > 0 {
				size[i] = max(size[i], ms/whole)
			}
		}
	}
	order := make([]int, len(g.nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(size[b], size[a]), cmp.Compare(a, b)) })
	kept := make([]bool, len(g.nodes))
	for n, i := range order {
		kept[i] = i == 0 || n < maxPathNodes && size[i] >= leastPath
	}
	var out []PathNode
	number := make([]int, len(g.nodes))
	rest := make(map[int]int) // number of the parent to that of what is joined below it
	for i, node := range g.nodes {
		switch {
		case kept[i]:
			number[i] = len(out)
			if node.Parent >= 0 {
				node.Parent = number[node.Parent]
			}
			out = append(out, node)
		case kept[node.Parent]:
			parent := number[node.Parent]
			at, known := rest[parent]
			if !known {
				at = len(out)
				rest[parent] = at
				out = append(out, PathNode{Parent: parent, Operation: other, MS: make([]float64, g.levels)})
			}
			for level, ms := range node.MS {
				out[at].MS[level] += ms
			}
		}
	}
	for i := range out {
		for level, ms := range out[i].MS {
			out[i].MS[level] = math.Round(ms*1000) / 1000
		}
	}
	return out
}

// waterfall draws one trace.
func (s *sample) waterfall(p *places) *Waterfall {
	t := s.tree
	begin := t.Spans[s.root].Start
	ms := func(ns int64) float64 { return math.Round(float64(ns-begin)/1e3) / 1e3 }
	critical := make(map[int][][2]float64)
	own := make(map[int]int64)
	for _, x := range s.sections {
		critical[x.Span] = append(critical[x.Span], [2]float64{ms(x.Start), ms(x.End)})
		own[x.Span] += x.End - x.Start
	}
	order := s.depthFirst()
	shown := s.mostTelling(order, own)
	w := &Waterfall{TraceID: t.ID, DurationMS: float64(s.duration) / 1e6, Cut: len(order) - len(shown)}
	for _, i := range order {
		if !shown[i] {
			continue
		}
		span := &t.Spans[i]
		where := p.list[p.of(t, i)]
		w.Spans = append(w.Spans, Bar{
			Depth: t.Depth(i) - t.Depth(s.root), Segment: where.segment, Service: span.Service, Operation: p.names.name(span.Service, span.Name),
			StartMS: ms(span.Start), EndMS: ms(span.End), Critical: critical[i], Failed: span.Failed, Async: i != s.root && t.NonBlocking(i),
		})
	}
	return w
}

// depthFirst is the spans below the root, itself first.
func (s *sample) depthFirst() (order []int) {
	for stack := []int32{int32(s.root)}; len(stack) > 0; {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		order = append(order, int(i))
		for _, k := range slices.Backward(s.tree.Children(int(i))) {
			stack = append(stack, k)
		}
	}
	return order
}

// mostTelling chooses the spans to show: those on the path first, then the longest, each with all above it.
func (s *sample) mostTelling(order []int, own map[int]int64) map[int]bool {
	t := s.tree
	ranked := slices.Clone(order)
	slices.SortStableFunc(ranked, func(a, b int) int {
		return cmp.Or(cmp.Compare(own[b], own[a]), cmp.Compare(t.Spans[b].End-t.Spans[b].Start, t.Spans[a].End-t.Spans[a].Start))
	})
	shown := map[int]bool{s.root: true}
	for _, i := range ranked {
		var chain []int
		for k := i; !shown[k]; k = int(t.Parent[k]) {
			chain = append(chain, k)
		}
		if len(shown)+len(chain) > maxBars {
			continue
		}
		for _, k := range chain {
			shown[k] = true
		}
	}
	return shown
}

package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// other names what is counted together because there is too much of it.
const other = "other"

// Run says where the time of traces goes, route by route, why, and, with a baseline, who made them slower.
//
// The answer depends on the spans alone, not on their order. It takes O(n log n) for n spans.
func Run(traces []trace.Trace, o Options) Report {
	o = o.withDefaults()
	set := newSet(traces, o.Clock)
	trees := set.trees
	r := Report{Input: Input{Files: o.Files, Traces: len(traces)}, Routes: []Route{}}
	r.Input.count(trees)
	r.Input.Logs = logsJoined(o.Logs, traces)
	r.Clocks, r.ClocksCut = set.clocks.models()
	r.Orders = Orders{Dropped: set.orders.dropped(), Skipped: set.orders.lost}
	views, routes := set.routes(o, logsOf(traces))
	r.Routes = append(r.Routes, routes...)
	if r.Input.IncompleteTraces > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of %d traces are incomplete: time under a missing span is counted as its parent's", r.Input.IncompleteTraces, len(traces)))
	}
	r.Notes = append(r.Notes, unfair(r.Routes, &o.Facts)...)
	if set.passes != nil && set.passes.cut > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d links between spans were not followed, because there are more than %d", set.passes.cut, maxPasses))
	}
	if o.Baseline != nil {
		base := newSet(o.Baseline, o.Clock)
		against(r.Routes, views, base, o)
		c := compareTrees(trees, base.trees)
		r.Culprits = c.Culprits
		r.Notes = append(r.Notes, c.Notes...)
	}
	return r
}

// count takes in what became of the traces.
func (in *Input) count(trees []*Tree) {
	below, weight := 0, 0.0
	for _, t := range trees {
		in.Spans += len(t.Spans)
		in.DuplicateSpans += t.Duplicates
		in.InvalidSpans += t.Invalid
		in.SkewCorrectedSpans += t.SkewCorrected
		in.OrphanSpans += len(t.Orphans)
		if t.Incomplete {
			in.IncompleteTraces++
		}
		if t.Synthetic {
			in.SyntheticRoots++
		}
		below += t.covered()
		weight += t.Weight
	}
	in.Coverage = coverage(below, in.Spans)
	in.Represented = represented(weight, len(trees))
}

// coverage is the share of spans that are below a root; of no spans it is whole.
func coverage(below, spans int) float64 {
	if spans == 0 {
		return 1
	}
	return float64(below) / float64(spans)
}

// represented is what n traces stand for, or 0 where they stand for themselves.
func represented(weight float64, n int) float64 {
	if math.Abs(weight-float64(n)) < 1e-6*float64(n) {
		return 0
	}
	return weight
}

// covered is how many spans stand below the trace's root, itself included.
func (t *Tree) covered() int {
	if len(t.Roots) == 0 {
		return 0
	}
	if len(t.Roots) == 1 && (len(t.Orphans) == 0 || t.Synthetic || t.Roots[0] == t.Orphans[0] && len(t.Orphans) == 1) {
		return len(t.Spans)
	}
	n := 0
	stack := []int32{int32(t.Roots[0])}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = append(stack[:len(stack)-1], t.Children(int(i))...)
		n++
	}
	return n
}

// view is a route with all that the rules look at.
type view struct {
	service, operation string
	samples            []sample // by duration, shortest first
	whole              *view    // the view that this one has only a part of the samples of; nil = it has all; see thin
	answered           *view    // the part that is looked at for what differs; most rules look at a part of it. nil = all
	typical, slow      []sample // parts of samples; see bandsOf
	segments           []Segment
	slowTotal          int64   // ns, of the slow band
	total              float64 // ns, of all traces that the samples stand for
	errors             int
	names              *namer
	passes             *passes // nil = no link tells of a message
	facts              *evidence.Facts
	world              *world
	yield              func()            // ClockOptions.Yield
	plain              map[string]string // statements without their values, of those that were seen
	seen               *scene            // what the rules share; nil until asked for
}

// named is the names and the places of the set's operations.
func (s *set) named() *places {
	names := newNamer()
	for _, at := range s.spots.list {
		names.count(at.service, at.operation)
	}
	return newPlaces(s.places, names)
}

// routes reports every route. Each has two tasks, which have nothing to do with each other: what the rules find, and the rest.
func (s *set) routes(o Options, logs map[string][]trace.Log) ([]*view, []Route) {
	p := s.named()
	all := &world{set: s, clock: &o.Clock}
	list := s.views(p, o)
	routes, found := make([]Route, len(list)), make([][]Finding, len(list))
	for _, v := range list {
		v.facts, v.world = &o.Facts, all
		v.answered = v.thin(maxAnswered)
		v.answered.answered = v.answered // and so of the parts of it
	}
	o.Clock.each(2*len(list), func(n int) {
		i, rules := task(n, len(list))
		if rules {
			found[i] = list[i].answered.thin(maxJudged).findings()
			return
		}
		routes[i] = list[i].report(p)
		routes[i].Logged = list[i].logged(logs)
	})
	for i := range routes {
		routes[i].Findings = found[i]
		routes[i].tell(routes[i].Logged)
	}
	return list, routes
}

// task is the nth of the tasks of so many routes: of which route, and whether it is what the rules find. Those of a route follow each
// other, as they look at the same traces; at the end the shorter ones come last, so that who shares the work is done together.
func task(n, routes int) (route int, rules bool) {
	if routes > 1 {
		switch 2*routes - n {
		case 3:
			n++
		case 2:
			n--
		}
	}
	return n / 2, n%2 == 0
}

// views sorts the traces by route, those with the most time in total first. Routes beyond MaxRoutes are joined as "other".
func (s *set) views(p *places, o Options) []*view {
	names := p.names
	samples := make([]sample, len(s.trees))
	s.each(o.Clock, func(x *shard) {
		k := newTaker(p)
		for i := x.from; i < x.to; i++ {
			if t := s.trees[i]; len(t.Roots) > 0 { // else it has no usable span
				samples[i] = k.take(t)
			}
			o.Clock.rest()
		}
	})
	list := s.byRoute(samples, names)
	slices.SortFunc(list, func(a, b *view) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation))
	})
	if most := o.MaxRoutes; len(list) > most {
		rest := &view{service: other, operation: other, names: names, passes: s.passes}
		for _, v := range list[most:] {
			for i := range v.samples {
				rest.add(&v.samples[i])
			}
		}
		list = append(list[:most:most], rest)
	}
	o.Clock.each(len(list), func(i int) {
		list[i].yield = o.Clock.Yield
		list[i].rest()
		list[i].finish(p)
	})
	return list
}

// byRoute sorts the samples by route. Those without a tree belong to none.
func (s *set) byRoute(samples []sample, names *namer) (list []*view) {
	by := make(map[spot]*view)
	known := make([]*view, len(s.spots.list)) // by the number of the root's operation
	counts := make(map[*view]int)
	for n, at := range s.rooted(samples) {
		if at == 0 {
			continue
		}
		key := s.spots.list[n]
		key.operation = names.name(key.service, key.operation)
		v := by[key]
		if v == nil {
			v = &view{service: key.service, operation: key.operation, names: names, passes: s.passes}
			by[key] = v
			list = append(list, v)
		}
		known[n] = v
		counts[v] += at
	}
	for v, n := range counts {
		v.samples = make([]sample, 0, n)
	}
	for i := range samples {
		if samples[i].tree != nil {
			known[samples[i].operation].add(&samples[i])
		}
	}
	return list
}

// rooted is how many samples have each operation for their root.
func (s *set) rooted(samples []sample) []int {
	counts := make([]int, len(s.spots.list))
	for i := range samples {
		if samples[i].tree != nil {
			counts[samples[i].operation]++
		}
	}
	return counts
}

func (v *view) add(s *sample) {
	v.samples = append(v.samples, *s)
	v.total += s.stands() * float64(s.duration)
	if s.failed {
		v.errors++
	}
}

func (v *view) finish(p *places) {
	slices.SortFunc(v.samples, func(a, b sample) int {
		return cmp.Or(cmp.Compare(a.duration, b.duration), cmp.Compare(a.tree.ID, b.tree.ID))
	})
	b := bandsOf(v.samples)
	v.typical, v.slow = b.typical, b.slow
	for i := range v.slow {
		v.slowTotal += v.slow[i].duration
	}
	v.segments = segments(b, p)
}

// report is the route without what the rules find.
func (v *view) report(p *places) Route {
	r := Route{
		Service: v.service, Operation: v.operation, Traces: len(v.samples), Errors: v.errors,
		Latency: latency(v.samples), Segments: v.segments,
		Represented: represented(weigh(v.samples), len(v.samples)),
	}
	below, spans := 0, 0
	for i := range v.samples {
		t := v.samples[i].tree
		below, spans = below+t.covered(), spans+len(t.Spans)
		if t.Incomplete {
			r.Incomplete++
		}
	}
	r.Coverage = coverage(below, spans)
	differCut, asyncCut := 0, 0
	r.Differences, differCut = v.differences()
	r.Async, r.Queues, asyncCut = v.async(p)
	r.Cut = differCut + asyncCut
	return r
}

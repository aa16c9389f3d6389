package diagnose

import (
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// set is traces that were observed in one system, and what they tell together that none of them tells alone.
type set struct {
	trees  []*Tree // one a trace, in the order of the input
	spots  *spots
	places []place // of the trees' spans, by number
	clocks *clocks
	orders *orders
	shards []shard
	passes *passes // what links tell; nil = nothing
}

// shard is traces that follow each other in the input, which one goroutine works on. How many shards there are depends on the traces
// alone, and they are put together in their order: so does the answer.
type shard struct {
	from, to  int
	clocks    *clocks
	pairs     *clocks // what the shard alone tells of pairs of hosts
	builder   builder
	spots     *spots
	located   *located
	processes *processes
	reads     readReader
	walk      walk
	moved     bool // spans of a tree, because of a clock
}

// The size of shards.
const (
	maxShards   = 32
	leastShared = 64 // traces; fewer are no work to share
)

func shardsOf(n int) []shard {
	shards := make([]shard, max(min(n/leastShared, maxShards), 1))
	for i := range shards {
		shards[i] = shard{from: i * n / len(shards), to: (i + 1) * n / len(shards)}
	}
	return shards
}

// Trees is [Build] for traces of one system, which correct each other.
//
// Clocks: the step of each clock, and how far those of two hosts are apart, are found from all traces; see
// [ClockModel]. A known offset corrects messages too, which do not show it themselves, and tells a caller that gave up
// from a clock that is off.
//
// Siblings: that a child ended before the next one started does not mean that the next one waited for it. In a tree of
// its own it is taken for that. Here the path goes through it only if no trace falsifies the order: if the two overlap
// in one trace, neither waits for the other in any; unless the start of the second follows the end of the first so
// closely, over all traces in which it came later, that it cannot be chance. Nothing is concluded from fewer than eight
// spans, about operations that one span has several children of, or where a span has more than a dozen different children.
//
// The trees are in the order of traces, and may share memory with each other.
func Trees(traces []trace.Trace, o ClockOptions) []*Tree { return newSet(traces, o).trees }

func newSet(traces []trace.Trace, o ClockOptions) *set {
	s := &set{trees: make([]*Tree, len(traces)), shards: shardsOf(len(traces))}
	s.clocks = s.learnSteps(traces, o)
	s.each(o, func(x *shard) {
		x.begin(s.clocks)
		for i := x.from; i < x.to; i++ {
			s.trees[i] = x.build(traces[i], o)
			if o.Rule == Centre {
				x.pairs.learnPairs(s.trees[i])
			}
			x.processes.see(s.trees[i])
			x.moved = x.moved || s.trees[i].skew != nil
		}
	})
	for i := range s.shards {
		s.clocks.joinPairs(s.shards[i].pairs)
		s.shards[i].pairs = nil
	}
	s.clocks.concludePairs()
	s.correct(traces, o)
	s.join(o)
	s.namePeers(o)
	s.orders = learnOrders(s.trees, len(s.spots.list), o)
	s.passes = passesOf(s.trees)
	for _, t := range s.trees {
		t.orders = s.orders
		if s.orders.some {
			t.walked = nil
		}
	}
	return s
}

func (x *shard) begin(c *clocks) {
	x.clocks, x.pairs, x.builder, x.spots, x.located, x.processes = c.reader(), newClocks(), builder{layouts: newLayouts()}, newSpots(), newLocated(), newProcesses()
}

// correct makes those trees again of which the models of all clocks know better how far these are apart.
func (s *set) correct(traces []trace.Trace, o ClockOptions) {
	if !s.clocks.apart && !slices.ContainsFunc(s.shards, func(x shard) bool { return x.moved }) {
		return
	}
	s.each(o, func(x *shard) {
		x.processes.forget()
		for i := x.from; i < x.to; i++ {
			o.rest()
			if t := s.trees[i]; (s.clocks.apart || t.skew != nil) && x.clocks.improves(t) {
				s.trees[i] = x.build(traces[i], o)
			}
			x.processes.see(s.trees[i])
		}
	})
}

// build makes a tree, with all that is asked of its spans again and again while they are at hand.
func (x *shard) build(t trace.Trace, o ClockOptions) *Tree {
	o.known = x.clocks
	tree := x.builder.build(t, o)
	r := &x.builder.rolls
	x.spots.mark(tree, r)
	x.located.all(tree, r, x.builder.twins)
	x.processes.number(tree, r)
	if len(tree.Roots) > 0 {
		x.walk.of(tree, tree.Roots[0])
		tree.walked = r.sections.keep(x.walk.path)
		tree.worth = r.numbers.keep(x.reads.worth(tree, tree.Roots[0]))
	}
	return tree
}

// each calls do for every shard, as many at once as the options allow.
func (s *set) each(o ClockOptions, do func(x *shard)) {
	o.each(len(s.shards), func(i int) { do(&s.shards[i]) })
}

// learnSteps finds the step of every clock from the times of all spans.
func (s *set) learnSteps(traces []trace.Trace, o ClockOptions) *clocks {
	s.each(o, func(x *shard) {
		x.clocks = newClocks()
		for i := x.from; i < x.to; i++ {
			o.rest()
			x.clocks.learnSteps(traces[i].Spans)
		}
	})
	c := s.shards[0].clocks
	for i := range s.shards[1:] {
		c.join(s.shards[i+1].clocks)
	}
	c.conclude()
	return c
}

// join gives operations and places the numbers that they have in all shards.
func (s *set) join(o ClockOptions) {
	s.spots = newSpots()
	l := newLocated()
	spots, places := make([][]int32, len(s.shards)), make([][]int32, len(s.shards))
	for i := range s.shards {
		x := &s.shards[i]
		for _, at := range x.spots.list {
			spots[i] = append(spots[i], s.spots.number(at.service, at.operation))
		}
		for _, at := range x.located.list {
			places[i] = append(places[i], l.add(at))
		}
	}
	s.places = l.list
	o.each(len(s.shards), func(i int) {
		x := &s.shards[i]
		x.clocks, x.builder, x.spots, x.located, x.reads, x.walk = nil, builder{}, nil, nil, readReader{}, walk{}
		for _, t := range s.trees[x.from:x.to] {
			t.known = s.places
			for k := range t.spots {
				t.spots[k], t.places[k] = spots[i][t.spots[k]], places[i][t.places[k]]
			}
		}
	})
}

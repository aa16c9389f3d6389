package diagnose

import "github.com/longpole/longpole/internal/trace"

// set is traces that were observed in one system, and what they tell together that none of them tells alone.
type set struct {
	trees  []*Tree // one a trace, in the order of the input
	spots  *spots
	clocks *clocks
	orders *orders
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
// spans, about siblings of the same operation, or where a span has more than a dozen different children.
//
// The trees are in the order of traces, and may share memory with each other.
func Trees(traces []trace.Trace, o ClockOptions) []*Tree { return newSet(traces, o).trees }

func newSet(traces []trace.Trace, o ClockOptions) *set {
	s := &set{spots: newSpots(), clocks: learnSteps(traces)}
	o.known = s.clocks
	s.trees = make([]*Tree, len(traces))
	var b builder
	for i := range traces {
		s.trees[i] = b.build(traces[i], o)
	}
	if o.Rule == Centre {
		s.clocks.learnPairs(s.trees)
	}
	places := newLocated()
	for i, t := range s.trees {
		if o.Yield != nil {
			o.Yield()
		}
		if s.clocks.improves(t) {
			t = b.build(traces[i], o)
			s.trees[i] = t
		}
		s.spots.mark(t)
		places.attach(t)
	}
	s.orders = learnOrders(s.trees, len(s.spots.list))
	for _, t := range s.trees {
		t.orders = s.orders
	}
	return s
}

package diagnose

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// Comparison is what makes one set of traces slower than another.
type Comparison struct {
	Culprits []Culprit // most likely first (not always most excess first), one a service; empty, never nil, when no service stands out
	Notes    []string  // what a reader must know: that the sets do not differ, or cannot be compared
}

// minSamples is how often a position must occur in either set; two values tell nothing of how much they vary.
const minSamples = 3

// Compare finds the services that make suspect traffic slower than the baseline, or break in it.
//
// It compares like with like: the time each service has for itself in each of its operations, and the time that
// each call between two operations spends on its way (the part of the client's span that the server's does not
// cover). Both are taken from critical paths only, per call, so a change in the mix of traffic is no growth; what
// occurs in one set alone is left out.
//
// What all services share is nobody's fault: the growth of the median service, and as much as services usually differ
// by from one period to the next, do not count. See [driftBetween]. What is left must be beyond chance, over all services
// and all their positions: see [scan]. The growth of an edge is the callee's, unless the evidence speaks for the caller: see
// [blameCaller]. Services stand in the order of what they add to a trace that meets them, times the order of magnitude
// by which they grew.
//
// Operations that fail, or leave calls out that healthy ones always make, are faults without any growth. See [broken].
//
// It takes O(n log n) for n spans.
func Compare(suspect, baseline []trace.Trace) Comparison {
	return compareTrees(Trees(suspect, ClockOptions{}), Trees(baseline, ClockOptions{}))
}

func compareTrees(suspect, baseline []*Tree) Comparison {
	n := newNamer()
	for _, t := range slices.Concat(suspect, baseline) {
		for i := range t.Spans {
			n.count(t.Spans[i].Service, t.Spans[i].Name)
		}
	}
	a, b := measure(suspect, n), measure(baseline, n)
	grown, alone := grow(a, b)
	c := Comparison{Culprits: []Culprit{}}
	if len(grown) == 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("nothing to compare: no operation occurs at least %d times in both the suspect and the baseline traces", minSamples))
		return c
	}
	if alone > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d of %d positions occur in too few traces of one set to be compared", alone, alone+len(grown)))
	}
	usual := 0.0
	for _, g := range grown {
		usual += g.base * float64(g.calls()) / float64(a.traces)
	}
	faults := broken(takeCensus(suspect, n), takeCensus(baseline, n))
	for _, f := range faults {
		c.Notes = append(c.Notes, f.note())
	}
	c.Culprits = join(rank(grown, a), faults, usual)
	if len(c.Culprits) == 0 {
		c.Notes = append(c.Notes, "the two sets do not differ: no operation or call is slower than in the baseline beyond chance")
	}
	return c
}

// grow compares the positions that both sets have, in a fixed order, and counts those that only one has.
func grow(suspect, baseline *tally) (grown []growth, alone int) {
	generalise(suspect, baseline)
	var both []measured
	for at, s := range suspect.at {
		b := baseline.at[at]
		if b == nil || len(s.values) < minSamples || len(b.values) < minSamples {
			alone++
			continue
		}
		slices.Sort(s.values)
		slices.Sort(b.values)
		both = append(both, measured{at, s.values, b.values})
	}
	slices.SortFunc(both, func(a, b measured) int { return compareEdges(a.at, b.at) })
	d, usual := driftBetween(both), usualSpread(both)
	for _, p := range both {
		grown = append(grown, newGrowth(p, d, usual))
	}
	return grown, alone
}

// generalise joins the shapes of an operation that are too rare in either set to be compared one by one.
func generalise(suspect, baseline *tally) {
	enough := func(c *tally, at edge) bool { return c.at[at] != nil && len(c.at[at].values) >= minSamples }
	rare := make(map[edge]bool)
	for _, c := range []*tally{suspect, baseline} {
		for at := range c.at {
			if at.shape != 0 && (!enough(suspect, at) || !enough(baseline, at)) {
				rare[at] = true
			}
		}
	}
	for _, c := range []*tally{suspect, baseline} {
		for at := range rare {
			if s := c.at[at]; s != nil {
				delete(c.at, at)
				c.series(at.general()).values = append(c.series(at.general()).values, s.values...)
			}
		}
	}
}

func compareEdges(a, b edge) int {
	return cmp.Or(cmp.Compare(a.caller, b.caller), cmp.Compare(a.operation, b.operation), cmp.Compare(a.callee, b.callee),
		cmp.Compare(a.target, b.target), cmp.Compare(a.segment, b.segment), cmp.Compare(a.shape, b.shape))
}

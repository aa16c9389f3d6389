package advise

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// What makes attempts kin: whether slow traces are slow all over.
const (
	leastCorrelation = 0.15 // between an attempt and the rest of its trace, below which it counts as none
	fewKin           = 40   // attempts that a draw chooses from at least
	kinRatio         = 0.1  // of the attempts, that it chooses from
)

// kin are attempts in order of how slow the rest of their trace was. A heavy request is heavy everywhere: a second attempt
// of a call in a slow trace is not drawn from all traces, but from those that are as slow elsewhere. It is immutable.
type kin struct {
	tries    []*try
	mood     []float64 // of each, rising
	moodOf   []float64 // by trace
	heaviest float64
}

// kin finds whether the attempts of p depend on the traces that they are in; nil when they do not.
func (c *corpus) kin(p *pool) *kin {
	k := &kin{moodOf: c.moods(p)}
	for i := range p.tries {
		if t := &p.tries[i]; !t.failed && !math.IsNaN(k.moodOf[t.trace]) {
			k.tries = append(k.tries, t)
			k.heaviest = max(k.heaviest, t.weight)
		}
	}
	if len(k.tries) < fewKin || k.correlation() < max(leastCorrelation, 3/math.Sqrt(float64(len(k.tries)))) {
		return nil
	}
	slices.SortStableFunc(k.tries, func(a, b *try) int {
		return cmp.Or(cmp.Compare(k.moodOf[a.trace], k.moodOf[b.trace]), cmp.Compare(a.took, b.took), cmp.Compare(a.endpoint, b.endpoint))
	})
	for _, t := range k.tries {
		k.mood = append(k.mood, k.moodOf[t.trace])
	}
	return k
}

// correlation is Pearson's, of the attempts' latencies with their traces' moods. Both are logarithms; a slow endpoint is
// no mood.
func (k *kin) correlation() float64 {
	sums, counts := make(map[string]float64), make(map[string]float64)
	for _, t := range k.tries {
		sums[t.endpoint] += logOf(t.took)
		counts[t.endpoint]++
	}
	var xx, yy, xy, mean float64
	for _, t := range k.tries {
		mean += k.moodOf[t.trace] / float64(len(k.tries))
	}
	for _, t := range k.tries {
		x, y := k.moodOf[t.trace]-mean, logOf(t.took)-sums[t.endpoint]/counts[t.endpoint]
		xx, yy, xy = xx+x*x, yy+y*y, xy+x*y
	}
	if xx == 0 || yy == 0 {
		return 0
	}
	return xy / math.Sqrt(xx*yy)
}

// draw is the latency in ns of one of the attempts nearest to a of which fits says so.
func (k *kin) draw(a *try, r *rand.Rand, fits func(*try) bool) (int64, bool) {
	mood := k.moodOf[a.trace]
	if math.IsNaN(mood) {
		return 0, false
	}
	near := max(fewKin, int(kinRatio*float64(len(k.tries))))
	at, _ := slices.BinarySearch(k.mood, mood)
	from := min(max(0, at-near/2), max(0, len(k.tries)-near))
	near = min(near, len(k.tries))
	const patience = 64
	for range patience {
		t := k.tries[from+r.IntN(near)]
		if fits(t) && r.Float64()*k.heaviest <= t.weight {
			return t.took, true
		}
	}
	return 0, false
}

// logOf is the logarithm of a latency; a microsecond more keeps zeros finite.
func logOf(ns int64) float64 { return math.Log(float64(ns + int64(time.Microsecond))) }

// moods are how much slower than usual each trace was apart from the attempts of p and what lies below them: the mean
// logarithm over the spans' own times, each against the median of its operation. NaN = nothing is left to judge by.
func (c *corpus) moods(p *pool) []float64 {
	c.selfTimes()
	own := p.byTrace()
	moods := make([]float64, len(c.traces))
	var below []bool
	for n, t := range c.traces {
		below = slices.Grow(below[:0], len(t.spans))[:len(t.spans)]
		clear(below)
		for _, a := range own[n] {
			below[a.span] = true
		}
		sum, count := 0.0, 0
		for _, i := range t.order {
			if t.hasParent(i) && below[t.parent[i]] {
				below[i] = true
			}
			if !below[i] && c.self[n][i] > 0 {
				sum += logOf(c.self[n][i]) - c.usual[keyOf(&t.spans[i])]
				count++
			}
		}
		moods[n] = math.NaN()
		if count > 0 {
			moods[n] = sum / float64(count)
		}
	}
	return moods
}

// selfTimes fills c.self and c.usual once.
func (c *corpus) selfTimes() {
	if c.self != nil {
		return
	}
	c.self = make([][]int64, len(c.traces))
	by := make(map[routeKey][]int64)
	for n, t := range c.traces {
		c.self[n] = make([]int64, len(t.spans))
		for i := range t.spans {
			c.self[n][i] = t.own(i)
			if own := c.self[n][i]; own > 0 {
				by[keyOf(&t.spans[i])] = append(by[keyOf(&t.spans[i])], own)
			}
		}
	}
	c.usual = make(map[routeKey]float64, len(by))
	for key, list := range by {
		slices.Sort(list)
		c.usual[key] = logOf(quantile(list, 0.5))
	}
}

// own is the time of span i in ns during which none of its calls ran.
func (t *timeline) own(i int) int64 {
	left := t.recorded(i)
	busy := int64(0)
	for _, k := range t.blocking(i) {
		start, end := t.clip(i, k)
		left -= max(0, end-max(start, busy))
		busy = max(busy, end)
	}
	return max(0, left)
}

package judge

import "math"

// trials is evidence that an arm has an event less often, or more often, than at a given rate, each of its calls being a
// trial. It looks at one arm alone and needs no variance: a Series of differences waits long for one that it can trust
// where hardly a slice has the event, however many calls went well.
//
// It serves NO WORSE and IMPROVED beside the Series:
//
//   - A share of calls has an absolute margin. Since no baseline fails less often than never, a candidate that fails less often
//     than the margin is within it.
//   - Where fewer than 1 % of the candidate's calls are slower than the baseline's p95, and more than 1 % of the baseline's
//     own are, its p99 is the lower one. That is so after a big improvement only, and shows in fewer calls than those
//     beyond p99 do, since there are none to count. The same holds of the baseline's p50, and of the candidate's p95: where
//     the baseline's slow calls come in bursts, as while a queue is there, few of them tell its own p95 and p99.
//
// Events that come in bursts are fewer trials than they seem. The evidence is shared by how much more the counts of slices
// scatter than those of single events, which keeps it evidence.
//
// Source: the likelihood ratio of Wald 1945, mixed over some rates.
type trials struct {
	logs [ratesTried]float64 // logarithm of the evidence for each rate
	scatter
}

const ratesTried = 3

var (
	fewer = [ratesTried]float64{0.5, 0.2, 0.05} // of as often as the rate
	more  = [ratesTried]float64{1.5, 2.5, 4}
)

// scatter tells counts of slices.
type scatter struct{ n, sum, squares float64 }

func (s *scatter) add(k float64) {
	s.n++
	s.sum += k
	s.squares += k * k
}

// burst is the variance of a count over its mean: 1 for single events, 10 for those that come ten at a time. Never below 1.
func (s *scatter) burst() float64 {
	if s.n < 2 || s.sum == 0 {
		return 1
	}
	return max(1, (s.squares-s.sum*s.sum/s.n)/(s.n-1)/(s.sum/s.n))
}

// add takes k events in n calls, of which rate is to be compared with rate times each factor.
func (t *trials) add(k, n, rate float64, factors *[ratesTried]float64) {
	k = min(k, n)
	for i, f := range factors {
		t.logs[i] += k*math.Log(f) + (n-k)*(math.Log1p(-rate*f)-math.Log1p(-rate))
	}
	t.scatter.add(k)
}

// logE is the logarithm of the evidence, when the events come so many at a time.
func (t *trials) logE(burst float64) float64 {
	parts := t.logs
	for i := range parts {
		parts[i] = parts[i]/burst - math.Log(ratesTried)
	}
	return logSum(parts[:])
}

// alone is what the arms' calls tell each by themselves.
type alone struct {
	share    [rows]trials  // the candidate's events of share rows, against their margin
	baseline [rows]scatter // the baseline's

	p99Below95, p99Below50, p95Below50 lower
	downstreams                        [MaxDownstreams]lower // their p95 below their p50
}

// lower tells whether a quantile of the candidate is below a lower one of the baseline, the level.
type lower struct {
	tail  trials // the baseline's calls beyond the level: more often than the quantile's share
	pass  trials // the candidate's beyond that times the level's margin, less often
	plain trials // and without the margin
}

// add takes a slice's calls beyond the level; share is that of the calls beyond the quantile.
func (l *lower) add(base, cand *event, share float64) {
	if min(base.of, cand.of) < minSliceCalls {
		return
	}
	l.tail.add(base.plain, base.of, share, &more)
	l.pass.add(cand.pass, cand.of, share, &fewer)
	l.plain.add(cand.plain, cand.of, share, &fewer)
}

// logE is the evidence of the weaker of both halves.
func (l *lower) logE(candidate *trials) float64 {
	return min(candidate.logE(candidate.burst()), l.tail.logE(l.tail.burst()))
}

// p99 is the evidence that the candidate's p99 is the lower one, of both levels alike.
func (a *alone) p99(of func(*lower) *trials) float64 {
	return logSum([]float64{
		a.p99Below95.logE(of(&a.p99Below95)) - math.Ln2,
		a.p99Below50.logE(of(&a.p99Below50)) - math.Ln2,
	})
}

func passing(l *lower) *trials   { return &l.pass }
func improving(l *lower) *trials { return &l.plain }

// The weights of that evidence beside that of the Series. They are what a burst that did not come yet may be worth, and what
// the evidence of a big improvement costs all others: at a tenth for latencies, two in a hundred of equal candidates could not be
// called no worse any more in ten minutes of stalls and waves.
const (
	trustShares    = 0.1
	trustLatencies = 0.02
)

func (j *Judge) trust(i int) float64 {
	if j.metric(i).kind == share {
		return trustShares
	}
	return trustLatencies
}

func (j *Judge) addAlone(b, c *counts) {
	a := &j.alone
	for i := range rows {
		if j.metric(i).kind != share || min(b.rows[i].of, c.rows[i].of) < minSliceCalls {
			continue
		}
		a.share[i].add(c.rows[i].plain, c.rows[i].of, j.margin(i), &fewer)
		a.baseline[i].add(b.rows[i].plain)
	}
	a.p99Below95.add(&b.rows[p95], &c.rows[p95], 1-table[p99].q)
	a.p99Below50.add(&b.rows[p50], &c.rows[p50], 1-table[p99].q)
	a.p95Below50.add(&b.rows[p50], &c.rows[p50], 1-table[p95].q)
	for k := range a.downstreams {
		a.downstreams[k].add(&b.middles[k], &c.middles[k], 1-downTable[downLatency].q)
	}
}

// aside is the logarithm of the evidence that row i is within its margin besides that of the Series. ok is false for a row that
// has none.
func (j *Judge) aside(i int) (logE float64, ok bool) {
	a := &j.alone
	switch {
	case i == p99:
		return a.p99(passing), true
	case i == p95:
		return a.p95Below50.logE(&a.p95Below50.pass), true
	case i >= fixedRows && (i-fixedRows)%perDownstream == downLatency:
		x := &a.downstreams[(i-fixedRows)/perDownstream]
		return x.logE(&x.pass), true
	case j.metric(i).kind == share:
		return a.share[i].logE(max(a.share[i].burst(), a.baseline[i].burst())), true
	}
	return 0, false
}

// noWorse is the logarithm of the evidence that row i is within its margin.
func (j *Judge) noWorse(i int) float64 {
	series := j.pass[i].LogEBelow(j.floor(i))
	if other, ok := j.aside(i); ok {
		return together(series, other, j.trust(i))
	}
	return series
}

// improved is the logarithm of the evidence that row i is better.
func (j *Judge) improved(i int) float64 {
	series := j.plain[i].LogEBelow(j.floor(i))
	switch i {
	case p99:
		return together(series, j.alone.p99(improving), trustLatencies)
	case p95:
		return together(series, j.alone.p95Below50.logE(&j.alone.p95Below50.plain), trustLatencies)
	}
	return series
}

// neededNoWorse is how many slices in all would show that row i is within its margin, should they go on as so far; 0 = no
// number would.
func (j *Judge) neededNoWorse(i int) int {
	goal := math.Log(1 / AlphaNoWorse)
	n := j.pass[i].NeededBelow(goal-math.Log1p(-j.trust(i)), j.floor(i))
	other, ok := j.aside(i)
	growth := (other + math.Log(ratesTried)) / float64(j.pass[i].Len()) // of the rate that explains the slices best
	if !ok || !(growth > 0) {
		return n
	}
	alone := int(math.Ceil(min((goal+math.Log(ratesTried/j.trust(i)))/growth, math.MaxInt32)))
	if n == 0 || alone < n {
		return alone
	}
	return n
}

// together is the weighted mean of two pieces of evidence, which is evidence again however they depend on each other.
func together(series, alone, trust float64) float64 {
	return logSum([]float64{math.Log1p(-trust) + series, math.Log(trust) + alone})
}

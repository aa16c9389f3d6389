package judge

import (
	"math"

	"github.com/longpole/longpole/internal/stats"
)

// The events of the fast tier, and the weights of their evidence.
const (
	fastErrors = iota
	fastTimeouts
	fastSlow
	fastShed // with a Config.Shed only
	fastRows
)

var (
	fastWeights = [fastRows]float64{0.6, 0.2, 0.2, 0}
	fastPriced  = [fastRows]float64{0.4, 0.2, 0.2, 0.2} // with a price on shed calls
	fastNames   = [fastRows]string{"errors", "timeouts", "calls over four times p99", "most calls shed"}
)

// fastLeans is the evidence of the fast tier that holds a ramp: three seconds or so that only the candidate failed in.
const fastLeans = 0.75

// slowShift makes four times p99 of p99.
const slowShift = 128

// labels counts the seconds in which one arm alone had an event. A second in which both had says nothing of which has
// them more often, and is left out.
type labels struct{ baseline, candidate uint64 }

// ratios are how many times as often the candidate may have the event: the mixture of the fast tier.
var ratios = [...]float64{1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 150}

// logE is the natural logarithm of the evidence that the candidate has the event more often. With equal cohorts and no
// difference, each label is the toss of a fair coin whatever came before, so that this is a martingale; a candidate
// that has it less often makes it shrink.
//
// Source: Lindon, Malek 2022 (arXiv 2011.03567), reduced to the seconds that differ as in McNemar's test, because
// bursts would otherwise count as many events: with errors that come ten at a time the plain test is
// wrong every other time.
func (l labels) logE() float64 {
	c, n := float64(l.candidate), float64(l.candidate+l.baseline)
	var parts [len(ratios)]float64
	for i, r := range ratios {
		parts[i] = c*math.Log(r) - n*math.Log((1+r)/2) - math.Log(float64(len(ratios)))
	}
	return logSum(parts[:])
}

// logSum is the logarithm of the sum of what parts are logarithms of.
func logSum(parts []float64) float64 {
	top := math.Inf(-1)
	for _, p := range parts {
		top = max(top, p)
	}
	if math.IsInf(top, 0) {
		return top
	}
	var sum float64
	for _, p := range parts {
		sum += math.Exp(p - top)
	}
	return top + math.Log(sum)
}

// Watch is the fast tier: what one instance's cohorts did in one second. Call it for each instance. It may be called
// before Freeze, when it sees errors and timeouts only. Longer slices are fine, and see less.
func (j *Judge) Watch(baseline, candidate stats.Tally) {
	slow := func(t *stats.Tally) bool {
		x := stats.Shift(j.reference[p99], slowShift)
		return j.reference[p99] > 0 && t.Latency.Above(x)+t.FailedLatency.Above(x) > 0
	}
	j.watch(
		[fastRows]bool{j.failed(&baseline) > 0, baseline.TimedOut > 0, slow(&baseline), j.served(&baseline, &candidate)},
		[fastRows]bool{j.failed(&candidate) > 0, candidate.TimedOut > 0, slow(&candidate), j.shunned(&baseline, &candidate)},
	)
}

// shunned reports whether the candidate refused, beyond what the baseline did, more than half of the calls that the price leaves
// it to serve, and served that it did not. Of two arms at the price the first happens in fewer than half of all seconds; seconds
// with too few calls for that are left out.
func (j *Judge) shunned(b, c *stats.Tally) bool {
	return j.tellsShed(b, c) && shedRatio(c)-shedRatio(b) > (1+j.config.Shed)/2
}

func (j *Judge) served(b, c *stats.Tally) bool {
	return j.tellsShed(b, c) && c.Calls > 0 && !j.shunned(b, c)
}

// tellsShed reports whether a second tells what is shed. At a high price most of a few calls are often refused all together: the
// median of n calls lies within one call of n times the price, which is under the threshold from 2/(1-price) calls on. Up
// to a third the threshold is more than twice the price, which is passed in fewer than half of all seconds however few the calls.
func (j *Judge) tellsShed(b, c *stats.Tally) bool {
	price := j.config.Shed
	return price > 0 && (price <= 1.0/3 || float64(min(b.Calls, c.Calls)) >= 2/(1-price))
}

func shedRatio(t *stats.Tally) float64 { return float64(t.Shed) / max(float64(t.Calls), 1) }

func (j *Judge) fastWeight(i int) float64 {
	if j.config.Shed > 0 {
		return fastPriced[i]
	}
	return fastWeights[i]
}

func (j *Judge) watch(baseline, candidate [fastRows]bool) {
	j.watched++
	for i := range j.labels {
		switch {
		case candidate[i] && !baseline[i]:
			j.labels[i].candidate++
		case baseline[i] && !candidate[i]:
			j.labels[i].baseline++
		}
	}
}

// fastWorse is the weighted mean of the fast tier's evidence.
func (j *Judge) fastWorse() float64 {
	var parts [fastRows]float64
	for i := range j.labels {
		parts[i] = math.Log(j.fastWeight(i)) + j.labels[i].logE()
	}
	return logSum(parts[:])
}

// fastStrongest is the event with the most evidence.
func (j *Judge) fastStrongest() int {
	best, most := 0, math.Inf(-1)
	for i := range j.labels {
		if e := math.Log(j.fastWeight(i)) + j.labels[i].logE(); e > most {
			best, most = i, e
		}
	}
	return best
}

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
	fastRows
)

var (
	fastWeights = [fastRows]float64{0.6, 0.2, 0.2}
	fastNames   = [fastRows]string{"errors", "timeouts", "calls over four times p99"}
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
		return j.referred > 0 && t.Latency.Above(stats.Shift(j.reference[p99], slowShift)) > 0
	}
	j.watch(
		[fastRows]bool{baseline.Failed+baseline.Shed > 0, baseline.TimedOut > 0, slow(&baseline)},
		[fastRows]bool{candidate.Failed+candidate.Shed > 0, candidate.TimedOut > 0, slow(&candidate)},
	)
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
		parts[i] = math.Log(fastWeights[i]) + j.labels[i].logE()
	}
	return logSum(parts[:])
}

// fastStrongest is the event with the most evidence.
func (j *Judge) fastStrongest() int {
	best := 0
	for i := range j.labels {
		if math.Log(fastWeights[i])+j.labels[i].logE() > math.Log(fastWeights[best])+j.labels[best].logE() {
			best = i
		}
	}
	return best
}

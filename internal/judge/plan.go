package judge

import (
	"fmt"
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// planPower is how often an effect of the size that a plan names is found.
const planPower = 0.8

// Detectable is how many times as often as in the baseline the event of a metric must occur in the candidate, beyond the
// margin, for the main tier to find it in 4 of 5 rollouts of so many calls of each arm in so many slices. For p99 the event
// is a call slower than 1.10 times the baseline's p99, against one slower than p99. +Inf when no ratio would do, or when
// the metric is none of Metrics. rate is that of the event in the baseline, for errors and timeouts; the percentiles have
// their own.
func Detectable(metric string, calls float64, slices int, rate float64) float64 {
	row, known := index(metric)
	if !known || !(calls > 0) {
		return math.Inf(1)
	}
	m := &table[row]
	fail := 0.0
	switch m.kind {
	case latency:
		rate = 1 - m.q
	case share:
		fail = m.fail
	default: // counts and costs have no common variance
		return math.Inf(1)
	}
	const quantile = 0.8416 // of planPower
	needed := stats.DetectableT(slices, math.Log(1/(alphaMain*m.weight))) + quantile
	misses := func(ratio float64) bool {
		p := min(rate*ratio, 1)
		spread := math.Sqrt((rate*(1-rate) + p*(1-p)) / calls)
		return p-rate-fail < needed*spread
	}
	low, high := 1.0, 1/rate // 1/rate: all calls
	if misses(high) || !(rate > 0) {
		return math.Inf(1)
	}
	for range 60 {
		if middle := (low + high) / 2; misses(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// Soonest is how many calls of each arm it takes at least until a candidate can be called improved that has next to no slow
// calls and no errors, with so many calls of each arm in a slice; +Inf when most calls are not enough.
func Soonest(callsPerSlice, most float64) float64 {
	per := float64(minSliceCalls)
	if callsPerSlice > per {
		per = callsPerSlice
	}
	least := fewer[ratesTried-1]
	trials := func(rate, trust float64) float64 {
		return math.Log(ratesTried/(trust*AlphaNoWorse)) / (math.Log1p(-rate*least) - math.Log1p(-rate))
	}
	n := max(minCalls, trials(1-table[p99].q, trustLatencies), trials(table[errored].pass, trustShares))
	for _, i := range [...]int{p50, p95} {
		p := 1 - table[i].q
		signal := per / 2 * p * p / table[i].floor // of a slice
		slices := math.Ceil(n / per)
		for stats.DetectableT(int(slices), math.Log(1/AlphaNoWorse)) > math.Sqrt(slices*signal) {
			if slices++; slices*per > most {
				return math.Inf(1)
			}
		}
		n = max(n, slices*per)
	}
	if n > most {
		return math.Inf(1)
	}
	return n
}

// Plan says in one line, before a rollout, what it will be able to see at the given rate of calls per arm, when what comes in
// slice is judged as one; 0 = 10 s.
func Plan(callsPerSecond float64, duration, slice time.Duration) string {
	if !(callsPerSecond > 0) {
		return "no calls were seen on this route yet; without at least 100 per arm the rollout will end inconclusive"
	}
	if slice <= 0 {
		slice = mainSlice
	}
	calls, perSlice := callsPerSecond*duration.Seconds(), max(callsPerSecond*slice.Seconds(), minSliceCalls)
	slices := int(min(calls/perSlice, mostSlices))
	text := fmt.Sprintf("at %.3g calls per second and arm, in %s (%.0f calls each)", callsPerSecond, duration.Round(time.Second), calls)
	if slice != mainSlice {
		text += fmt.Sprintf(", judged in slices of %s,", slice)
	}
	tail, soonest := Detectable("p99", calls, slices, 0), Soonest(perSlice, calls)
	if math.IsInf(tail, 1) {
		text += " no regression of p99 can be told from chance"
	} else {
		text += fmt.Sprintf(" it shows in %.0f %% of rollouts when calls beyond 1.10 times the baseline's p99 become %.3g times as frequent as those beyond its p99 were, "+
			"and when those beyond 1.03 times its p50 become %.3g times as frequent as those beyond its p50; smaller regressions may end inconclusive",
			100*planPower, tail, Detectable("p50", calls, slices, 0))
	}
	if math.IsInf(soonest, 1) {
		return text + "; the rollout will most likely end inconclusive, since even a candidate without a slow call or an error needs more calls to be called improved"
	}
	return text + fmt.Sprintf("; a candidate without a slow call or an error can be called improved after %.0f calls each", soonest)
}

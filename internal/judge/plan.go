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

// Plan says in one line, before a rollout, what it will be able to see at the given rate of calls per arm, when so many slices of
// 10 s are judged as one; 0 = each by itself.
func Plan(callsPerSecond float64, duration time.Duration, join int) string {
	if !(callsPerSecond > 0) {
		return "no calls were seen on this route yet; without at least 100 per arm the rollout will end inconclusive"
	}
	slice := time.Duration(max(join, 1)) * mainSlice
	calls, slices := callsPerSecond*duration.Seconds(), int(duration/slice)
	text := fmt.Sprintf("at %.3g calls per second and arm, in %s (%.0f calls each)", callsPerSecond, duration.Round(time.Second), calls)
	if slice > mainSlice {
		text += fmt.Sprintf(", judged in slices of %s because equal halves of these calls differ in shorter ones,", slice)
	}
	tail := Detectable("p99", calls, slices, 0)
	if calls < minCalls || math.IsInf(tail, 1) {
		return text + " no change of p99 can be told from chance; the rollout will most likely end inconclusive"
	}
	return text + fmt.Sprintf(" it shows in %.0f %% of rollouts when calls beyond 1.10 times the baseline's p99 become %.3g times as frequent as those beyond its p99 were, "+
		"and when those beyond 1.03 times its p50 become %.3g times as frequent as those beyond its p50; smaller regressions may end inconclusive",
		100*planPower, tail, Detectable("p50", calls, slices, 0))
}

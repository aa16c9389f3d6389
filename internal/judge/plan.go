package judge

import (
	"fmt"
	"math"
	"time"
)

// DetectableRatio is how many times as often as in the baseline an event of the given rate (0.01: calls beyond p99) must
// occur in the candidate for calls of each arm to show it at level alpha. +Inf when no ratio would do.
//
// Source: the expected growth of a likelihood ratio for which arm an event falls in, ln(1/alpha) plus 1.5 for the
// mixture; Lindon, Malek 2022 (arXiv 2011.03567).
func DetectableRatio(calls, rate, alpha float64) float64 {
	const most = 1e6
	needed := math.Log(1/alpha) + 1.5
	growth := func(ratio float64) float64 {
		p := ratio / (1 + ratio)
		return calls * rate * (1 + ratio) * (p*math.Log(2*p) + (1-p)*math.Log(2*(1-p)))
	}
	if !(calls > 0 && rate > 0 && alpha > 0) || growth(most) < needed {
		return math.Inf(1)
	}
	low, high := 1.0, most
	for range 100 {
		middle := math.Sqrt(low * high)
		if growth(middle) < needed {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// Plan says in one line, before a rollout, what it will be able to see at the given rate of calls per arm.
func Plan(callsPerSecond float64, duration time.Duration) string {
	if !(callsPerSecond > 0) {
		return "no calls were seen on this route yet; without at least 100 per arm the rollout will end inconclusive"
	}
	calls := callsPerSecond * duration.Seconds()
	text := fmt.Sprintf("at %.3g calls per second and arm, in %s (%.0f calls each)", callsPerSecond, duration.Round(time.Second), calls)
	tail := DetectableRatio(calls, 0.01, AlphaWorse)
	if calls < minCalls || math.IsInf(tail, 1) || tail > 100 {
		return text + " no change of p99 can be told from chance; the rollout will most likely end inconclusive"
	}
	return text + fmt.Sprintf(" it shows when calls beyond 1.10 times the baseline's p99 become %.3g times as frequent as those beyond its p99, "+
		"and when those beyond 1.03 times its p50 become %.3g times as frequent as those beyond its p50; smaller regressions will end inconclusive",
		tail, DetectableRatio(calls, 0.5, AlphaWorse))
}

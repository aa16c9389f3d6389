package review

import (
	"time"

	"github.com/longpole/longpole/call"
)

// leastCalls is how many calls a lint about a route needs.
const leastCalls = 1000

// lints are the rules, one file each.
func lints() []func(*Input) []Finding {
	return []func(*Input) []Finding{
		timeoutTooLong, timeoutTooShort, retriesNever, retriesAlways, hedgeDelay, hedgeWins, breakerIdle, limiterNever, limiterAlways,
		cacheWorse, coalescingIdle, objectiveLoose, objectiveTight, settingsDrift, killedLong, adviceGrown, replicasAbove,
		indexUnused, statementSlower, tableGrowth, poolWaits, poolIdle, headroomGone, costGrown,
	}
}

func lint(in *Input) (list []Finding) {
	for _, rule := range lints() {
		list = append(list, rule(in)...)
	}
	return list
}

// busy calls with for every route that had enough calls for a lint.
func busy(in *Input, with func(Route) (Finding, bool)) (list []Finding) {
	for _, r := range in.Routes {
		if r.Did.Calls < leastCalls {
			continue
		}
		if f, ok := with(r); ok {
			f.Subject = r.Name
			list = append(list, f)
		}
	}
	return list
}

// hitRatio is the share of a cache's lookups that it answered.
func hitRatio(r Route) (ratio float64, ok bool) {
	all := uint64(0)
	for state, n := range r.Caches {
		if state != call.Uncached.String() {
			all += n
		}
	}
	if r.Policy.Cache == nil || all < leastCalls {
		return 0, false
	}
	return float64(r.Caches[call.Hit.String()]+r.Caches[call.Stale.String()]) / float64(all), true
}

// short is a duration in three digits or so.
func short(d time.Duration) string {
	step := time.Duration(1)
	for d >= 1000*step {
		step *= 10
	}
	return d.Round(max(step, time.Microsecond)).String()
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

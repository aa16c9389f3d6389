package review

import "fmt"

// limiterAlways is LP309: a limiter that refuses calls most of the time says that there is too little capacity.
func limiterAlways(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		return Finding{
			Code: "LP309", Name: "always at the limit", Severity: Warning, Size: float64(r.Limited) / float64(max(r.Windows, 1)),
			Detail: fmt.Sprintf("calls were refused in %d of %d windows of 10 s, %d in all", r.Limited, r.Windows, r.Did.Shed),
			Mend:   "add replicas (docs/autoscaling.md), or take work out of the calls; a higher limit only makes them wait elsewhere",
		}, r.Policy.Limit != nil && r.Windows >= leastWindows && 2*r.Limited > r.Windows
	})
}

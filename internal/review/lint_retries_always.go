package review

import "fmt"

// retriesAlways is LP304: a budget that is always spent protects the upstream and hides an outage that never ends.
func retriesAlways(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		return Finding{
			Code: "LP304", Name: "retry budget always spent", Severity: Warning, Size: float64(r.BusyTurns) / float64(max(r.Windows, 1)),
			Detail: fmt.Sprintf("in %d of %d windows of 10 s retries and hedges used nine tenths of their budget or more", r.BusyTurns, r.Windows),
			Mend:   "cure what fails; a larger budget would only load the upstream more",
		}, r.Policy.Retry != nil && !r.Policy.Retry.Off && r.Windows >= leastWindows && 2*r.BusyTurns > r.Windows
	})
}

// leastWindows is how many windows of 10 s a lint about "always" needs.
const leastWindows = 30

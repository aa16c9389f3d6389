package review

import "fmt"

// retriesNever is LP303: calls fail, retries are on, and not one was made: nothing that fails is idempotent, or the
// attempts are used up elsewhere.
func retriesNever(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		p := r.Policy.Retry
		return Finding{
			Code: "LP303", Name: "retries never used", Severity: Info, Size: float64(r.Did.Failed) / float64(r.Did.Calls),
			Detail: fmt.Sprintf("%d of %d calls failed and none was tried again", r.Did.Failed, r.Did.Calls),
			Mend:   "name idempotent methods or keys for the route, or switch retries off so that nobody counts on them",
		}, p != nil && !p.Off && p.MaxAttempts > 1 && r.Did.Retries == 0 && r.Did.Failed >= 10
	})
}

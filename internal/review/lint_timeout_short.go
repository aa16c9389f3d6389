package review

import "fmt"

// timeoutTooShort is LP302: a timeout below p99 cuts calls that would have been answered. Calls that it cut are as long as
// it, so that p99 is never measured above it: one call in a hundred that times out is what shows.
func timeoutTooShort(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		share := float64(r.Did.TimedOut) / float64(r.Did.Calls)
		return Finding{
			Code: "LP302", Name: "timeout too short", Severity: Warning, Size: share, Basis: r.Policy.Timeout.String(),
			Detail: fmt.Sprintf("timeout is %s, and %.2g %% of %d calls run into it; p99 is no shorter", r.Policy.Timeout, 100*share, r.Did.Calls),
			Mend:   "find out what they wait for (`longpole diagnose`), or try a longer timeout",
		}, r.Policy.Timeout > 0 && share >= 0.01
	})
}

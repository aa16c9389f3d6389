package review

import "fmt"

// timeoutTooLong is LP301: a timeout of more than ten times p99.9 holds connections and callers for calls that are lost.
func timeoutTooLong(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		slowest := r.Did.Latency.Quantile(0.999)
		return Finding{
			Code: "LP301", Name: "timeout too long", Severity: Info, Size: float64(r.Policy.Timeout) / float64(max(slowest, 1)), Basis: r.Policy.Timeout.String(),
			Detail: fmt.Sprintf("timeout is %s, p99.9 of %d calls is %s", r.Policy.Timeout, r.Did.Calls, short(slowest)),
			Mend:   fmt.Sprintf("try timeout: %s, three times p99.9", short(3*slowest)),
		}, slowest > 0 && r.Policy.Timeout > 10*slowest
	})
}

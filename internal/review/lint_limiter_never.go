package review

import (
	"fmt"
	"time"
)

// limiterNever is LP308: a fixed limit that was never reached in a week protects nothing that was ever in danger.
func limiterNever(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		l := r.Policy.Limit
		return Finding{
			Code: "LP308", Name: "limit never reached", Severity: Info, Basis: fmt.Sprint(limitOf(r)),
			Detail: fmt.Sprintf("no call was refused in %d days; the limit is fixed at %d", days(in.Now.Sub(r.Since)), limitOf(r)),
			Mend:   "let it find the knee by itself (algorithm: adaptive), or exercise it with `longpole load`",
		}, l != nil && l.Algorithm == "fixed" && r.Did.Shed == 0 && in.Now.Sub(r.Since) >= 7*24*time.Hour
	})
}

func limitOf(r Route) int {
	if r.Policy.Limit == nil {
		return 0
	}
	return r.Policy.Limit.Limit
}

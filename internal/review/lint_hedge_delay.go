package review

import (
	"fmt"
	"time"
)

// hedgeDelay is LP305: a fixed delay that is no longer near p95 sends copies of ordinary calls, or helps nobody.
//
// Source: Dean, Barroso 2013, who send the copy at p95.
func hedgeDelay(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		after, p95 := hedgeAfter(r), r.Did.Latency.Quantile(0.95)
		return Finding{
			Code: "LP305", Name: "hedge delay off", Severity: Warning, Size: apart(after, p95), Basis: after.String(),
			Detail: fmt.Sprintf("copies are sent after %s, p95 is %s", after, short(p95)),
			Mend:   fmt.Sprintf("try retry.hedge.after: %s, or 0 to follow what is measured", short(p95)),
		}, after > 0 && p95 > 0 && (after > 2*p95 || 2*after < p95)
	})
}

// hedgeAfter is the fixed delay; 0 = none.
func hedgeAfter(r Route) time.Duration {
	if p := r.Policy.Retry; p != nil && !p.Off && p.Hedge != nil {
		return p.Hedge.After
	}
	return 0
}

// apart is how many times as long one of two durations is as the other, from 1 up; 0 when one of them is not known.
func apart(a, b time.Duration) float64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	return float64(max(a, b)) / float64(min(a, b))
}

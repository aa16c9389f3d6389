package diagnose

import (
	"fmt"
	"slices"
	"time"
)

const (
	longTimeout      = 5.0                           // times the p99 of what succeeds, from where waiting longer is vain
	longTimeoutLeast = int64(100 * time.Millisecond) // shorter time-outs hurt nobody
	longTimeoutFine  = 10                            // calls that succeed, to know what they need
)

// timeoutTooLong finds LP118: callers that wait for an answer long after any answer that ever came.
func timeoutTooLong(v *view) []Finding {
	return findingsBySpot(v.patience(), v.tooLong)
}

func (v *view) tooLong(key spot, targets map[place]*givenUp) (Finding, bool) {
	g := worstOf(targets, func(g *givenUp) float64 {
		slices.Sort(g.fine)
		if t := g.timeout(); t < longTimeoutLeast || len(g.fine) < longTimeoutFine || float64(t) < longTimeout*float64(quantile(g.fine, 0.99)) {
			return 0
		}
		return float64(g.slow)
	})
	if g == nil || v.share(g.slow) < leastShare {
		return Finding{}, false
	}
	t, p99 := time.Duration(g.timeout()), time.Duration(quantile(g.fine, 0.99))
	share := v.share(g.slow)
	saved := int64(float64(g.slow) * (1 - 2*float64(p99)/float64(t)))
	f := Finding{
		Code: "LP118", Class: "timeout_too_long", Segment: g.to.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.8, ShareP99: share,
		Summary: fmt.Sprintf("%s %s waits %s for %s before it gives up, although answers come within %s (p99): %s of the slow traces",
			key.service, key.operation, duration(t), g.to.service, duration(p99), percent(share)),
		Evidence: []string{
			fmt.Sprintf("%d calls were given up after %s; of %d that succeeded the slowest took %s", len(g.lost), duration(t), len(g.fine), duration(time.Duration(g.fine[len(g.fine)-1]))),
		},
		Detail: Detail{Callees: []string{g.to.service}, Timeout: t, Latency: p99, Failed: g.gone / g.all, Saved: v.perSlow(saved), Calls: g.all / v.weight()},
	}
	if len(g.fine) >= 100 {
		f.Confidence = 0.9
	} else {
		f.doubt(0, fmt.Sprintf("few calls: %d", len(g.fine)+len(g.lost)))
	}
	f.doubt(0, "why "+g.to.service+" does not answer at times is another question")
	return f, true
}

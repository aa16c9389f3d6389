package diagnose

import (
	"fmt"
	"slices"
	"time"
)

const (
	shortTimeoutRatio = 0.05 // of the calls that are given up, from where a time-out is no guard against outliers any more
	shortTimeoutPress = 0.7  // of the time-out, that one in ten answers takes or more: they press against it
	shortTimeoutLate  = 0.5  // of the calls given up, whose callee went on and answered
	shortTimeoutNeed  = 3.0  // times the time-out, within which the callee answers
)

// timeoutTooShort finds LP119: callers that give up shortly before the answer comes.
func timeoutTooShort(v *view) []Finding {
	return findingsBySpot(v.patience(), v.tooShort)
}

func (v *view) tooShort(key spot, targets map[place]*givenUp) (Finding, bool) {
	g := worstOf(targets, func(g *givenUp) float64 {
		if len(g.lost) < timeoutCalls+2 || g.gone < shortTimeoutRatio*g.all || g.timeout() == 0 || !g.pressed() && !g.answered() {
			return 0
		}
		return g.gone
	})
	if g == nil {
		return Finding{}, false
	}
	t := time.Duration(g.timeout())
	slices.Sort(g.needed)
	slices.Sort(g.fine)
	need := time.Duration(quantile(g.needed, 0.99))
	share := v.share(g.slow)
	f := Finding{
		Code: "LP119", Class: "timeout_too_short", Segment: g.to.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.6, ShareP99: share,
		Summary: fmt.Sprintf("%s %s gives up calls of %s after %s, %s of them, although the answers would come",
			key.service, key.operation, g.to.service, duration(t), percent(g.gone/g.all)),
		Evidence: []string{fmt.Sprintf("%d calls were given up after %s", len(g.lost), duration(t))},
		Detail:   Detail{Callees: []string{g.to.service}, Timeout: t, Latency: need, Failed: g.gone / g.all, Calls: g.all / v.weight()},
	}
	if g.answered() {
		f.Confidence = 0.85
		f.Evidence = append(f.Evidence, fmt.Sprintf("in %d of the %d whose callee is recorded it went on and answered well; it needs %s (p99)", g.late, g.seen, duration(need)))
	} else {
		f.doubt(0, "whether the answers would have come is not recorded: the callee may hang")
	}
	if g.pressed() {
		f.Confidence += 0.05
		f.Evidence = append(f.Evidence, fmt.Sprintf("one in ten of the answers in time takes %s or more: they press against it", duration(time.Duration(quantile(g.fine, 0.9)))))
	}
	return f, true
}

// pressed reports whether the answers that came in time end shortly before the time-out, as if it cut the rest off.
func (g *givenUp) pressed() bool {
	slices.Sort(g.fine)
	return len(g.fine) >= longTimeoutFine && float64(quantile(g.fine, 0.9)) >= shortTimeoutPress*float64(g.timeout())
}

// answered reports whether the callee went on and answered, not long after the caller had gone.
func (g *givenUp) answered() bool {
	slices.Sort(g.needed)
	return g.seen > 0 && float64(g.late) >= shortTimeoutLate*float64(len(g.lost)) && float64(quantile(g.needed, 0.9)) <= shortTimeoutNeed*float64(g.timeout())
}

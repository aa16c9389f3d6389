package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	clockMore   = int64(5 * time.Millisecond) // that a clock must be off; less is common, and corrected well enough
	clockOfCall = 0.5                         // of the call's time that the correction makes up: what lies around the call is a guess then
	clockTraces = 0.2                         // of the traces in which it is so
	clockFew    = 5                           // traces, the same
)

// off is what was corrected of one host's clock.
type off struct {
	skews  []int64 // ns, without sign
	traces int
	behind int
}

// clock finds LP124: clocks that are so far off that the time before and after a call is a guess.
func clock(v *view) []Finding {
	at := make(map[spot]*off)
	ignored := 0
	for n := range v.samples {
		t := v.samples[n].tree
		if t.SkewIgnored > 0 {
			ignored++
		}
		seen := make(map[spot]bool)
		for i := range t.Spans {
			p := t.Parent[i]
			if p < 0 {
				continue
			}
			by := t.Skew(i) - t.Skew(int(p))
			if by == 0 {
				continue
			}
			s := &t.Spans[i]
			if far := max(by, -by); far < clockMore || float64(far) < clockOfCall*float64(t.Spans[p].End-t.Spans[p].Start) {
				continue
			}
			key := spot{s.Service, s.Host}
			if at[key] == nil {
				at[key] = &off{}
			}
			at[key].skews = append(at[key].skews, max(by, -by))
			if by > 0 {
				at[key].behind++
			}
			if !seen[key] {
				seen[key] = true
				at[key].traces++
			}
		}
	}
	var found []Finding
	if f, ok := v.clockFinding(at); ok {
		found = append(found, f)
	}
	if ignored >= clockFew && float64(ignored) >= clockTraces*float64(len(v.samples)) {
		found = append(found, v.ignoredClocks(ignored))
	}
	return found
}

// clockFinding makes one finding of the host that is off in most traces.
func (v *view) clockFinding(at map[spot]*off) (Finding, bool) {
	keys := slices.SortedFunc(func(yield func(spot) bool) {
		for k := range at {
			if !yield(k) {
				return
			}
		}
	}, func(a, b spot) int { return cmp.Or(cmp.Compare(at[b].traces, at[a].traces), bySpot(a, b)) })
	if len(keys) == 0 {
		return Finding{}, false
	}
	host, x := keys[0], at[keys[0]]
	if x.traces < clockFew || float64(x.traces) < clockTraces*float64(len(v.samples)) {
		return Finding{}, false
	}
	slices.Sort(x.skews)
	skew := time.Duration(quantile(x.skews, 0.5))
	where := "behind"
	if x.behind*2 < len(x.skews) {
		where = "ahead"
	}
	share := 0.0
	for _, s := range v.segments {
		if s.Segment == trace.SegNetwork && s.Service == host.service {
			share += s.Share.P99
		}
	}
	f := Finding{
		Code: "LP124", Class: "clock", Segment: trace.SegNetwork, Service: host.service, Operation: v.operation, Verdict: Likely, Confidence: 0.8, ShareP99: share,
		Summary: fmt.Sprintf("the clock of host %s (%s) is %s %s: how long requests are on the way to it and back is a guess", host.operation, host.service, duration(skew), where),
		Evidence: []string{
			fmt.Sprintf("in %d of %d traces its spans lie outside of the calls that they serve, by more than half of the call's time", x.traces, len(v.samples)),
		},
		CounterEvidence: []string{"the spans were moved into the middle of their calls; the sum of both ways is right, and so is the work of the service itself"},
		Detail:          Detail{Endpoint: host.operation, Skew: skew, Instances: []string{host.operation}},
	}
	if spread := x.skews[len(x.skews)-1] - x.skews[0]; float64(spread) <= 0.2*float64(skew) {
		f.Confidence = 0.9
		f.Evidence = append(f.Evidence, "it is off by the same each time")
	}
	return f, true
}

// ignoredClocks says that clocks were off by more than was allowed to be corrected.
func (v *view) ignoredClocks(n int) Finding {
	return Finding{
		Code: "LP124", Class: "clock", Segment: trace.SegNetwork, Service: v.service, Operation: v.operation, Verdict: Likely, Confidence: 0.7,
		Summary:  fmt.Sprintf("in %d of %d traces clocks are off by more than may be corrected: what these traces tell is not to be trusted", n, len(v.samples)),
		Evidence: []string{fmt.Sprintf("%d traces hold corrections beyond the limit that was set", n)},
	}
}

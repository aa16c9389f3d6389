package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// resends are the waits after which TCP of the common systems sends again what was not acknowledged: a segment, and the first
// packet of a connection.
var resends = []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second}

const (
	resendSlack = 0.15 // of the wait, that a gap may be longer
	resendRatio = 0.5  // of the long gaps

	// networkLeast is the least median of what the long ones take more than is usual: a busy machine at either end makes less by itself.
	networkLeast = int64(20 * time.Millisecond)
)

// slowNetwork finds LP108: calls that take much longer for the caller than for the callee.
func slowNetwork(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().of(trace.SegNetwork) {
		if v.once(s) || !s.constant && s.more() < networkLeast {
			continue
		}
		f := v.finding("LP108", "network", s, 0.6)
		f.Summary = fmt.Sprintf("the way to %s %s and back takes %s", s.service, s.operation, s.part())
		lost := 0
		long := 0
		for _, w := range s.works {
			if !s.long(w) {
				continue
			}
			long++
			for _, r := range resends {
				if more := w.self - s.p50; more >= int64(r) && float64(more) <= (1+resendSlack)*float64(r) {
					lost++
				}
			}
		}
		if float64(lost) >= resendRatio*float64(long) && long > 0 && !s.constant {
			f.Confidence += 0.15
			f.Evidence = append(f.Evidence, fmt.Sprintf("%d of the %d long ones are longer by 200 ms, 1 s or 3 s: after such waits TCP sends again what was lost", lost, long))
		}
		v.calleeBusy(&f, s)
		found = append(found, f)
	}
	return found
}

// more is the median of what the long works take more than is usual, ns.
func (s *suspect) more() int64 {
	var more []int64
	for _, w := range s.works {
		if s.long(w) {
			more = append(more, w.self-s.p50)
		}
	}
	slices.Sort(more)
	return quantile(more, 0.5)
}

// calleeBusy doubts that the network is slow where the callee had no time to answer.
func (v *view) calleeBusy(f *Finding, s *suspect) {
	known := false
	for _, p := range v.facts.Of(s.service, "") {
		busy, told := p.Busy()
		known = known || told
		switch {
		case told && busy >= cpuBusy:
			f.doubt(0.3, fmt.Sprintf("%s kept %s of its processors busy: it may have been late to take the call", process(p), percent(busy)))
			return
		case p.Runtime != nil && p.Runtime.SchedP99 != nil && *p.Runtime.SchedP99 >= 0.01:
			f.doubt(0.3, fmt.Sprintf("in %s work that is ready waits %.0f ms for a processor (p99)", process(p), *p.Runtime.SchedP99*1000))
			return
		}
	}
	if known {
		f.Evidence = append(f.Evidence, "the callee had processors to spare")
		f.Confidence += 0.1
		return
	}
	f.doubt(0, "a callee too busy to accept a call, or a caller too busy to read the answer, looks the same as a slow network")
}

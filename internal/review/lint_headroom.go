package review

import (
	"fmt"
	"time"
)

const (
	fullAbove   = 0.8                 // of the knee at the busiest minute
	foreseen    = 90 * 24 * time.Hour // ahead
	soonReached = 14 * 24 * time.Hour
)

// headroomGone is LP326: the busiest minute is near the knee, or will be if the traffic goes on growing as it does.
func headroomGone(in *Input) (list []Finding) {
	for _, h := range headroom(in) {
		f := Finding{
			Code: "LP326", Name: "headroom", Severity: Info, Subject: h.Name, Size: h.Used(),
			Detail: fmt.Sprintf("the busiest minute of the last week had %s calls a second, the knee is at %s (%s)", digits(h.Peak), digits(h.Capacity), h.Why),
			Mend:   "add replicas before (docs/autoscaling.md), or take work out of the calls (`longpole diagnose`)",
		}
		if h.Weekly > 0 {
			f.Detail += fmt.Sprintf("; it grows by %s a week", digits(h.Weekly))
		}
		if !h.Reached.IsZero() {
			f.Detail += ", and is there on " + h.Reached.UTC().Format(time.DateOnly)
		}
		near := !h.Reached.IsZero() && h.Reached.Sub(in.Now) <= foreseen
		if h.Used() < fullAbove && !near {
			continue
		}
		if h.Used() >= fullAbove || h.Reached.Sub(in.Now) <= soonReached {
			f.Severity = Warning
		}
		list = append(list, f)
	}
	return list
}

package review

import "fmt"

const leastLooks = 20 // windows before a pool is judged

// poolWaits is LP324: callers wait for a connection in more than one window of twenty.
func poolWaits(in *Input) (list []Finding) {
	for _, p := range in.Systems.Pools {
		if p.Windows < leastLooks || 20*p.Exhausted <= p.Windows {
			continue
		}
		wait := ""
		if p.WaitP99 > 0 {
			wait = fmt.Sprintf(", p99 of the wait up to %s", short(p.WaitP99))
		}
		if p.Timeouts > 0 {
			wait += fmt.Sprintf(", %s gave up", number(p.Timeouts))
		}
		list = append(list, Finding{
			Code: "LP324", Name: "pool too small", Severity: Warning, Subject: p.Service + " " + p.Name, Size: float64(p.Exhausted) / float64(p.Windows), Basis: fmt.Sprint(p.Max),
			Detail: fmt.Sprintf("somebody waited for one of %.0f connections in %d of %d windows%s", p.Max, p.Exhausted, p.Windows, wait),
			Mend:   "hold connections for less time first (`longpole diagnose`: LP111); then a larger pool, if the database has room",
		})
	}
	return list
}

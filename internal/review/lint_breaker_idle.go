package review

import "fmt"

// breakerIdle is LP307: a breaker that never opened and that no fault ever made open may not work when it is needed.
func breakerIdle(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		return Finding{
			Code: "LP307", Name: "breaker never exercised", Severity: Info,
			Detail: fmt.Sprintf("no breaker was seen open since %s, and no fault was injected that could open one", r.Since.UTC().Format("2006-01-02")),
			Mend:   fmt.Sprintf("longpole fault start --route %s, with an abort at attempt, and a stop condition", r.Name),
		}, r.Policy.Breaker != nil && !r.Policy.Breaker.Off && r.Opened.IsZero() && !exercised(in, r.Name)
	})
}

// exercised reports whether a fault hit the route that makes attempts fail.
func exercised(in *Input, route string) bool {
	for _, e := range in.Exercised {
		if e.Route == route && e.Hits > 0 && (e.Class == "abort" || e.Class == "reset" || e.Class == "blackhole") {
			return true
		}
	}
	return false
}

package review

import "fmt"

// objectiveTight is LP313: an objective that is missed by far all the time is ignored all the time.
func objectiveTight(in *Input) (list []Finding) {
	for _, o := range in.Objectives {
		if o.Calls >= leastCounted && float64(o.Bad) > 2*o.Allowed {
			list = append(list, Finding{
				Code: "LP313", Name: "objective too tight", Severity: Warning, Subject: o.Name, Size: float64(o.Bad) / o.Allowed, Basis: fmt.Sprint(o.Target),
				Detail: fmt.Sprintf("%.4g %% are promised, %.4g %% are good: %d bad calls where %.0f are allowed in %s", 100*o.Target, 100*o.Good, o.Bad, o.Allowed, o.Period),
				Mend:   "cure what burns it (`longpole slo`), or promise what can be kept",
			})
		}
	}
	return list
}

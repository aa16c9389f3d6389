package review

import "fmt"

// leastCounted is how many calls an objective must have counted to be judged.
const leastCounted = 10_000

// objectiveLoose is LP312: an objective that would hold with a tenth of its budget wakes nobody before users complain.
func objectiveLoose(in *Input) (list []Finding) {
	for _, o := range in.Objectives {
		if o.Calls >= leastCounted && o.Allowed >= 10 && float64(o.Bad) < o.Allowed/10 {
			list = append(list, Finding{
				Code: "LP312", Name: "objective too loose", Severity: Info, Subject: o.Name, Basis: fmt.Sprint(o.Target),
				Detail: fmt.Sprintf("%.4g %% are promised, %.4g %% are good: %d of %.0f allowed bad calls in %s", 100*o.Target, 100*o.Good, o.Bad, o.Allowed, o.Period),
				Mend:   fmt.Sprintf("promise what is kept anyway, about %.4g %%, or spend the budget on changes", 100-100*(1-o.Target)/5),
			})
		}
	}
	return list
}

package review

import (
	"fmt"

	"github.com/longpole/longpole/internal/staging"
)

// adviceGrown is LP316: advice that was tried and given up, whose finding has grown by a fifth since.
func adviceGrown(in *Input) (list []Finding) {
	seen := map[string]bool{}
	for _, r := range staging.Newest(in.Records, len(in.Records)) {
		key := r.Code + " " + r.Route
		if r.Code == "" || seen[key] {
			continue
		}
		seen[key] = true
		gaveUp := r.Phase != staging.Promoted || !r.Undone.IsZero()
		for _, a := range in.Advice {
			if gaveUp && a.Code == r.Code && a.Route == r.Route && r.ShareP99 > 0 && a.ShareP99 >= grownBy*r.ShareP99 {
				list = append(list, Finding{
					Code: "LP316", Name: "given up, and grown", Severity: Info, Subject: a.Code + " on route " + a.Route, Size: a.ShareP99,
					Detail: fmt.Sprintf("its cure ended %s in %s, when it was %.0f %% of p99; now it is %.0f %%", r.Phase, r.Rollout, 100*r.ShareP99, 100*a.ShareP99),
					Mend:   fmt.Sprintf("longpole rollout start --route %s --advice %s", a.Route, a.Code),
				})
				break
			}
		}
	}
	return list
}

package review

import (
	"fmt"
	"strings"
)

const dearerBy = 1.2 // times as much of anything that calls use

// costGrown is LP327: a thousand calls use a fifth more than at the last review.
func costGrown(in *Input) (list []Finding) {
	base := in.baseline()
	for _, c := range costs(in) {
		was, known := base.cost(c.Route)
		if !known {
			continue
		}
		var grown []string
		most := 0.0
		for _, p := range partsOf(was, c) {
			if p.before > 0 && p.now >= dearerBy*p.before {
				grown = append(grown, fmt.Sprintf("%s from %s to %s", p.name, p.show(p.before), p.show(p.now)))
				most = max(most, p.now/p.before)
			}
		}
		if len(grown) == 0 {
			continue
		}
		detail := "for a thousand calls: " + strings.Join(grown, ", ")
		if c.Money > 0 && was.Money > 0 {
			detail += fmt.Sprintf("; %s where it was %s", in.Config.Prices.money(c.Money), in.Config.Prices.money(was.Money))
		}
		list = append(list, Finding{
			Code: "LP327", Name: "calls cost more", Severity: Info, Subject: c.Route, Size: most, Detail: detail,
			Mend: "look for a cache that hits less (LP310), retries and hedges, larger answers, a change since then (the ledger)",
		})
	}
	return list
}

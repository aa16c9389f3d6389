package review

import "fmt"

// cacheWorse is LP310: the cache answers a fifth less than at the last review.
func cacheWorse(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		now, ok := hitRatio(r)
		before, known := 0.0, false
		if base := in.baseline(); base != nil {
			before, known = base.HitRatios[r.Name]
		}
		return Finding{
			Code: "LP310", Name: "cache hits fell", Severity: Warning, Size: before - now,
			Detail: fmt.Sprintf("%.1f %% of lookups hit, %.1f %% at the last review", 100*now, 100*before),
			Mend:   "look for new keys (a parameter, a Vary), a shorter TTL, or too little room: `longpole routes -o wide`",
		}, ok && known && now < 0.8*before
	})
}

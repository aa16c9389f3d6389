package review

import (
	"fmt"

	"github.com/longpole/longpole/call"
)

// coalescingIdle is LP311: a cache that neither hits nor lets calls share a fetch only costs memory.
func coalescingIdle(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		hits, ok := hitRatio(r)
		missed := r.Caches[call.Miss.String()] + r.Caches[call.Revalidated.String()]
		shared := r.Caches[call.Coalesced.String()]
		ratio := float64(missed+shared) / max(float64(missed), 1)
		return Finding{
			Code: "LP311", Name: "cache shares nothing", Severity: Info,
			Detail: fmt.Sprintf("%.1f %% of lookups hit, and a fetch serves %.2f calls", 100*hits, ratio),
			Mend:   "leave the cache out for this route, or find out why no two calls have the same key",
		}, ok && hits < 0.05 && ratio < 1.02
	})
}

package review

import (
	"fmt"
	"math"
	"time"
)

const (
	idleAbove   = 0.5 // of the connections that were never in use
	idleLeast   = 10  // connections; smaller pools cost little
	idleWindows = 500
	idleFor     = 3 * 24 * time.Hour
)

// poolIdle is LP325: a pool of which half was never used holds memory in the database, and lets a stampede through.
func poolIdle(in *Input) (list []Finding) {
	if in.Systems.Since.IsZero() || in.Now.Sub(in.Systems.Since) < idleFor {
		return nil
	}
	for _, p := range in.Systems.Pools {
		if p.Max < idleLeast || p.Windows < idleWindows || p.Exhausted > 0 || p.Used > (1-idleAbove)*p.Max {
			continue
		}
		list = append(list, Finding{
			Code: "LP325", Name: "pool too large", Severity: Info, Subject: p.Service + " " + p.Name, Basis: fmt.Sprint(p.Max),
			Detail: fmt.Sprintf("no more than %.0f of %.0f connections were in use at any look, %d windows in %d days", p.Used, p.Max, p.Windows, days(in.Now.Sub(in.Systems.Since))),
			Mend:   fmt.Sprintf("try %.0f: half as many again as were used", max(2, math.Ceil(1.5*p.Used))),
		})
	}
	return list
}

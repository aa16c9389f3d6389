package review

import "fmt"

// hedgeWins is LP306: copies that win less than one time in fifty are load without a benefit.
func hedgeWins(in *Input) []Finding {
	return busy(in, func(r Route) (Finding, bool) {
		won := float64(r.Did.HedgesWon) / max(float64(r.Did.Hedges), 1)
		return Finding{
			Code: "LP306", Name: "hedges do not win", Severity: Warning, Size: float64(r.Did.Hedges) / float64(r.Did.Calls),
			Detail: fmt.Sprintf("%d of %d copies were answered first, %.2g %%", r.Did.HedgesWon, r.Did.Hedges, 100*won),
			Mend:   "switch hedging off: all endpoints are slow at the same time, or the copy comes too late",
		}, r.Did.Hedges >= 100 && won < 0.02
	})
}

package review_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// of is a route with n calls of that length, under a policy in which all parts are off.
func of(n int, took time.Duration, edit func(*review.Route)) review.Input {
	ds := make([]time.Duration, n)
	for i := range ds {
		ds[i] = took
	}
	calls := uint64(n)
	r := review.Route{
		Name: "orders", Since: noon.Add(-8 * 24 * time.Hour), Windows: 1000, Policy: longpole.Config{Timeout: 5 * took},
		Did: stats.Tally{Latency: stats.Of(ds...), Calls: calls, Attempts: calls},
	}
	if edit != nil {
		edit(&r)
	}
	return review.Input{Now: noon, Routes: []review.Route{r}}
}

func busy(edit func(*review.Route)) review.Input { return of(5000, 20*time.Millisecond, edit) }

func retrying(c retry.Config, edit func(*review.Route)) func(*review.Route) {
	return func(r *review.Route) {
		c := c.WithDefaults()
		r.Policy.Retry = &c
		if edit != nil {
			edit(r)
		}
	}
}

func caching(edit func(*review.Route)) func(*review.Route) {
	return func(r *review.Route) {
		r.Policy.Cache = &cache.Config{}
		edit(r)
	}
}

func limited(c limit.Config, edit func(*review.Route)) func(*review.Route) {
	return func(r *review.Route) {
		r.Policy.Limit = &c
		if edit != nil {
			edit(r)
		}
	}
}

func objective(bad uint64) review.Input {
	const calls = 1_000_000
	return review.Input{Now: noon, Objectives: []slo.Status{{
		Name: "there", Route: "orders", Target: 0.999, Calls: calls, Bad: bad, Good: 1 - float64(bad)/calls, Allowed: 1000,
	}}}
}

func gaveUp(phase string, then, now float64) review.Input {
	return review.Input{
		Now: noon, Records: []staging.Record{{Rollout: "r1", Route: "orders", Phase: phase, Code: "LP103", ShareP99: then, At: noon}},
		Advice: []review.Advice{{Code: "LP103", Route: "orders", ShareP99: now}},
	}
}

func hitRatio(before float64, hits, misses uint64) review.Input {
	in := busy(caching(func(r *review.Route) { r.Caches = map[string]uint64{"hit": hits, "miss": misses} }))
	in.Last = &review.Review{Figures: review.Figures{At: noon.Add(-7 * 24 * time.Hour), HitRatios: map[string]float64{"orders": before}}}
	return in
}

func exercised(class string, hits uint64) func(review.Input) review.Input {
	return func(in review.Input) review.Input {
		in.Exercised = []review.Exercise{{Class: class, Route: "orders", At: noon.Add(-time.Hour), Hits: hits}}
		return in
	}
}

func withBreaker(edit func(*review.Route)) review.Input {
	return busy(func(r *review.Route) {
		r.Policy.Breaker = &breaker.Config{}
		if edit != nil {
			edit(r)
		}
	})
}

func killed(days int) review.Input {
	return review.Input{Now: noon, Killed: []review.Kill{{Parts: []string{"cache"}, Reason: "stale prices", Since: noon.Add(-time.Duration(days) * 24 * time.Hour)}}}
}

func replicas(ready, desired int) review.Input {
	return review.Input{Now: noon, Replicas: []scale.Recommendation{{Name: "shop", Ready: ready, Desired: desired, Active: true, Reason: "12 calls/s"}}}
}

func TestLints(t *testing.T) {
	hedge := retry.Config{Hedge: &retry.Hedge{After: 20 * time.Millisecond}}
	late := retry.Config{Hedge: &retry.Hedge{After: 200 * time.Millisecond}}
	for i, c := range []struct {
		code string
		in   review.Input
		want bool
	}{
		{"LP301", busy(func(r *review.Route) { r.Policy.Timeout = 30 * time.Second }), true},
		{"LP301", busy(func(r *review.Route) { r.Policy.Timeout = 150 * time.Millisecond }), false},
		{"LP301", of(500, 20*time.Millisecond, func(r *review.Route) { r.Policy.Timeout = 30 * time.Second }), false},
		{"LP302", busy(func(r *review.Route) { r.Did.TimedOut = 60 }), true},
		{"LP302", busy(func(r *review.Route) { r.Did.TimedOut = 20 }), false},
		{"LP302", busy(func(r *review.Route) { r.Did.TimedOut, r.Policy.Timeout = 60, 0 }), false},
		{"LP303", busy(retrying(retry.Config{}, func(r *review.Route) { r.Did.Failed = 50 })), true},
		{"LP303", busy(retrying(retry.Config{}, func(r *review.Route) { r.Did.Failed, r.Did.Retries = 50, 1 })), false},
		{"LP303", busy(retrying(retry.Config{Off: true}, func(r *review.Route) { r.Did.Failed = 50 })), false},
		{"LP304", busy(retrying(retry.Config{}, func(r *review.Route) { r.BusyTurns = 600 })), true},
		{"LP304", busy(retrying(retry.Config{}, func(r *review.Route) { r.BusyTurns = 400 })), false},
		{"LP304", busy(retrying(retry.Config{}, func(r *review.Route) { r.BusyTurns, r.Windows = 10, 10 })), false},
		{"LP305", busy(retrying(late, nil)), true},
		{"LP305", busy(retrying(hedge, nil)), false},
		{"LP305", busy(retrying(retry.Config{Hedge: &retry.Hedge{}}, nil)), false},
		{"LP306", busy(retrying(hedge, func(r *review.Route) { r.Did.Hedges, r.Did.HedgesWon = 400, 4 })), true},
		{"LP306", busy(retrying(hedge, func(r *review.Route) { r.Did.Hedges, r.Did.HedgesWon = 400, 40 })), false},
		{"LP306", busy(retrying(hedge, func(r *review.Route) { r.Did.Hedges = 50 })), false},
		{"LP307", withBreaker(nil), true},
		{"LP307", withBreaker(func(r *review.Route) { r.Opened = noon.Add(-time.Hour) }), false},
		{"LP307", withBreaker(func(r *review.Route) { r.Policy.Breaker.Off = true }), false},
		{"LP307", exercised("abort", 12)(withBreaker(nil)), false},
		{"LP307", exercised("abort", 0)(withBreaker(nil)), true},
		{"LP307", exercised("delay", 12)(withBreaker(nil)), true},
		{"LP308", busy(limited(limit.Config{Algorithm: "fixed", Limit: 100}, nil)), true},
		{"LP308", busy(limited(limit.Config{Algorithm: "adaptive"}, nil)), false},
		{"LP308", busy(limited(limit.Config{Algorithm: "fixed"}, func(r *review.Route) { r.Did.Shed = 1 })), false},
		{"LP308", busy(limited(limit.Config{Algorithm: "fixed"}, func(r *review.Route) { r.Since = noon.Add(-time.Hour) })), false},
		{"LP309", busy(limited(limit.Config{}, func(r *review.Route) { r.Limited, r.Did.Shed = 600, 900 })), true},
		{"LP309", busy(limited(limit.Config{}, func(r *review.Route) { r.Limited = 400 })), false},
		{"LP310", hitRatio(0.8, 3000, 2000), true},
		{"LP310", hitRatio(0.8, 3500, 1500), false},
		{"LP310", hitRatio(0.8, 10, 20), false},
		{"LP311", busy(caching(func(r *review.Route) { r.Caches = map[string]uint64{"hit": 10, "miss": 4990, "coalesced": 5} })), true},
		{"LP311", busy(caching(func(r *review.Route) { r.Caches = map[string]uint64{"miss": 3000, "coalesced": 2000} })), false},
		{"LP311", busy(caching(func(r *review.Route) { r.Caches = map[string]uint64{"hit": 1000, "miss": 4000} })), false},
		{"LP312", objective(20), true},
		{"LP312", objective(200), false},
		{"LP313", objective(2500), true},
		{"LP313", objective(1500), false},
		{"LP314", review.Input{Now: noon, Drift: []staging.Setting{{Path: "routes.orders.timeout", Staging: "9s", Production: "2s"}}}, true},
		{"LP314", review.Input{Now: noon}, false},
		{"LP315", killed(10), true},
		{"LP315", killed(3), false},
		{"LP316", gaveUp("rolled_back", 0.3, 0.5), true},
		{"LP316", gaveUp("rolled_back", 0.3, 0.33), false},
		{"LP316", gaveUp("promoted", 0.3, 0.5), false},
		{"LP317", replicas(5, 3), true},
		{"LP317", replicas(3, 3), false},
		{"LP317", replicas(3, 0), false},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.code, i), func(t *testing.T) {
			r := review.Run(c.in)
			found := false
			for _, f := range r.Findings {
				if f.Code != c.code {
					continue
				}
				found = true
				if f.Name == "" || f.Severity == "" || f.Subject == "" || f.Detail == "" || f.Mend == "" {
					t.Errorf("%+v is not complete", f)
				}
			}
			if found != c.want {
				t.Errorf("found: %v, want %v: %+v", found, c.want, r.Findings)
			}
		})
	}
}

func TestManyDriftingSettingsAreBounded(t *testing.T) {
	in := review.Input{Now: noon}
	for i := range 500 {
		in.Drift = append(in.Drift, staging.Setting{Path: fmt.Sprintf("p%03d", i)})
	}
	if r := review.Run(in); len(r.Findings) != 21 {
		t.Errorf("%d findings, want 20 and one of the rest", len(r.Findings))
	}
}

func TestMetersReachBackOneToTwoPeriods(t *testing.T) {
	m := review.NewMeters()
	now := noon
	policy := longpole.Config{Retry: &retry.Config{}, Limit: &limit.Config{}}.WithDefaults()
	look := review.Meter{Route: "orders", Policy: policy, Caches: map[string]uint64{}}
	step := func(calls, shed, retries uint64, open bool) {
		now = now.Add(10 * time.Second)
		look.Did.Calls, look.Did.Attempts = look.Did.Calls+calls, look.Did.Attempts+calls+retries
		look.Did.Shed, look.Did.Retries, look.Open = look.Did.Shed+shed, look.Did.Retries+retries, open
		look.Caches = map[string]uint64{"hit": look.Caches["hit"] + calls}
		m.Observe(now, look)
	}
	route := func() review.Route { return m.Routes([]review.Meter{look})[0] }
	m.Observe(now, look)
	step(100, 1, 30, false) // 20 % of 100, and one a second for 10 s, are 30
	step(100, 0, 5, false)
	step(0, 0, 0, true)
	if r := route(); r.Did.Calls != 200 || r.Windows != 2 || r.Limited != 1 || r.BusyTurns != 1 || !r.Opened.Equal(now) || r.Caches["hit"] != 200 || !r.Since.Equal(noon) {
		t.Errorf("%+v", r)
	}
	turned := now
	m.Turn()
	step(50, 0, 0, false)
	if r := route(); r.Did.Calls != 250 {
		t.Errorf("the period before no longer counts: %+v", r)
	}
	m.Turn()
	if r := route(); r.Did.Calls != 50 || r.Windows != 1 || r.Limited != 0 || !r.Since.Equal(turned) || r.Caches["hit"] != 50 {
		t.Errorf("two periods back still count: %+v", r)
	}
	look.Did = stats.Tally{Calls: 7}
	m.Observe(now.Add(10*time.Second), look)
	if r := route(); r.Did.Calls != 7 {
		t.Errorf("a route that began anew: %+v", r)
	}
}

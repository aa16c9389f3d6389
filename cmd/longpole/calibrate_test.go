package main

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
)

// twins is a gateway with the routes busy and local, whose halves are drawn from one distribution.
type twins struct {
	draw     *rand.Rand
	halves   map[string]*[2]stats.Tally
	rollout  bool // one runs on busy
	unhalved int
}

func (w *twins) Routes() []gateway.RouteStatus {
	return []gateway.RouteStatus{{Name: "busy"}, {Name: "local"}}
}

func (w *twins) Halve(route string, _ float64) error {
	if route == "local" {
		return gateway.ErrNoPolicy
	}
	if w.rollout {
		return gateway.ErrStaged
	}
	w.halves[route] = new([2]stats.Tally)
	return nil
}

func (w *twins) Halves(route string) (one, other stats.Tally, err error) {
	h := w.halves[route]
	if h == nil || w.rollout {
		delete(w.halves, route)
		return one, other, gateway.ErrNoCandidate
	}
	for i := range h {
		all := make([]time.Duration, 200)
		for j := range all {
			all[j] = time.Duration(w.draw.ExpFloat64() * float64(20*time.Millisecond))
		}
		h[i] = h[i].Merge(stats.Tally{Calls: 200, Attempts: 200, Latency: stats.Of(all...)})
	}
	return h[0], h[1], nil
}

func (w *twins) Unhalve(route string) error {
	w.unhalved++
	delete(w.halves, route)
	return nil
}

func TestAPolicyIsComparedWithItselfWhileNoRolloutRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &twins{draw: rand.New(rand.NewPCG(1, 2)), halves: map[string]*[2]stats.Tally{}}
		cfg := gateway.Judge{}.WithDefaults()
		c := newCalibrations(w, func() gateway.Judge { return cfg }, slog.New(slog.DiscardHandler))
		steps := func(n int) {
			for range n {
				c.step()
			}
		}
		if steps(10); len(w.halves) != 0 || len(c.List()) != 0 {
			t.Fatal("without calibrate: true routes are halved")
		}
		cfg.Calibrate = true
		steps(1200)
		all := c.List()
		if len(all) != 1 || all[0].Route != "busy" || all[0].Total < 10 || all[0].FalseAlarmRatio > 0.06 {
			t.Fatalf("1200 slices of twins: %+v", all)
		}
		before := all[0].Total
		w.rollout = true
		if steps(300); c.List()[0].Total != before || len(w.halves) != 0 {
			t.Errorf("while a rollout runs %d comparisons become %d", before, c.List()[0].Total)
		}
		w.rollout = false
		if steps(300); c.List()[0].Total <= before {
			t.Error("after the rollout nothing is compared any more")
		}
		cfg.Share, w.unhalved = 0.1, 0
		if steps(1); w.unhalved != 2 || len(w.halves) != 1 {
			t.Errorf("another share ends %d halves and makes %d", w.unhalved, len(w.halves))
		}
		cfg.Calibrate = false
		if steps(2); len(w.halves) != 0 {
			t.Error("the halves stay when they are not wanted any more")
		}
	})
}

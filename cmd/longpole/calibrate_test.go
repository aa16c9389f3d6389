package main

import (
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
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

func TestWhatACalibrationFoundOutlivesTheProcess(t *testing.T) {
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()}.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	w := &twins{draw: rand.New(rand.NewPCG(3, 4)), halves: map[string]*[2]stats.Tally{}}
	cfg := gateway.Judge{Calibrate: true}.WithDefaults()
	begin := func() *calibrations {
		c := newCalibrations(w, func() gateway.Judge { return cfg }, slog.New(slog.DiscardHandler))
		c.load(t.Context(), s)
		return c
	}
	c := begin()
	for range 200 {
		c.step()
		c.save(t.Context())
	}
	found := c.Of("busy")
	if found.Total < 2 || found.Join != 1 || c.Of("local") != (rollout.Calibration{}) {
		t.Fatalf("200 slices: %+v", c.List())
	}
	w.halves = map[string]*[2]stats.Tally{}
	again := begin()
	if got := again.Of("busy"); got != found {
		t.Errorf("%+v became %+v", found, got)
	}
	cfg.Calibrate = false
	if got := again.Of("busy"); got != (rollout.Calibration{}) {
		t.Errorf("without calibrate: true rollouts are judged by %+v", got)
	}
	if err := s.Put(t.Context(), time.Now(), calibrationName, []byte(`{"busy":{"join":2}}`)); err != nil {
		t.Fatal(err)
	}
	if cfg.Calibrate = true; begin().Of("busy") != (rollout.Calibration{}) {
		t.Error("a damaged state was taken")
	}
}

func TestARolloutSaysHowOftenTheJudgeIsWrong(t *testing.T) {
	var out strings.Builder
	s := rollout.Status{ID: "r1", Route: "all", Calibration: &rollout.Calibration{Join: 6, Runs: 60, FalseAlarmRatio: 0.05, Noisy: true}}
	renderEvidence(&out, s)
	if want := "false alarms in 5 % of 60 comparisons of the policy with itself; judged in slices of 60 s at least; too many for a promotion"; !strings.Contains(out.String(), want) {
		t.Errorf("%s\nwant %s", out.String(), want)
	}
	out.Reset()
	s.Calibration = nil
	if renderEvidence(&out, s); strings.Contains(out.String(), "calibration") {
		t.Errorf("where nothing is calibrated: %s", out.String())
	}
}

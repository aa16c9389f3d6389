package review_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/stats"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// holdback is a simulated route: lognormal latencies, of which the promoted cohort's are factor times as long.
type holdback struct {
	rand               *rand.Rand
	now                time.Time
	promoted, heldBack stats.Tally
	promise            review.Promise
	watch              *review.Watch
	calls              int // of each cohort in 10 s
}

const window = 30 * time.Minute

func newHoldback(seed uint64, then float64) *holdback {
	return &holdback{
		rand: rand.New(rand.NewPCG(seed, seed)), now: noon, watch: review.NewWatch(window), calls: 100,
		promise: review.Promise{ID: "r1", Route: "orders", Target: "p99", Then: math.Log(then)},
	}
}

func (h *holdback) slice(factor, errors float64) stats.Tally {
	ds := make([]time.Duration, h.calls)
	failed := uint64(0)
	for i := range ds {
		middle := 20.0
		if h.rand.Float64() < 0.05 {
			middle = 90 // the tail
		}
		ds[i] = time.Duration(factor * middle * math.Exp(0.4*h.rand.NormFloat64()) * 1e6)
		if h.rand.Float64() < errors {
			failed++
		}
	}
	n := uint64(h.calls)
	return stats.Tally{Latency: stats.Of(ds...), Calls: n, Attempts: n, Failed: failed}
}

// run lets time pass in which the promoted policy's latencies are factor times the others', and collects the verdicts
// as they change.
func (h *holdback) run(d time.Duration, factor, errors float64) (last review.Standing, changes []review.Verdict) {
	for end := h.now.Add(d); h.now.Before(end); {
		h.now = h.now.Add(10 * time.Second)
		h.promoted = h.promoted.Merge(h.slice(factor, errors))
		h.heldBack = h.heldBack.Merge(h.slice(1, 0))
		s, changed := h.watch.Add(h.now, h.promise, h.promoted, h.heldBack)
		if last = s; changed {
			changes = append(changes, s.Verdict)
		}
	}
	return last, changes
}

func TestAnEffectThatFadesVanishesAndTurnsIsFollowed(t *testing.T) {
	h := newHoldback(1, 0.5)
	for _, c := range []struct {
		factor float64
		want   review.Verdict
	}{{0.5, review.StillHelps}, {0.85, review.Decayed}, {1, review.NoEffect}, {0.5, review.StillHelps}, {1.4, review.NowHarmful}} {
		s, _ := h.run(3*window, c.factor, 0)
		if s.Verdict != c.want {
			t.Fatalf("latencies times %v: %s, want %s: %s", c.factor, s.Verdict, c.want, s.Sentence)
		}
		if math.Abs(s.Now-math.Log(c.factor)) > 0.12 {
			t.Errorf("latencies times %v: the effect is said to be %.3f, want %.3f", c.factor, s.Now, math.Log(c.factor))
		}
		if s.HeldBackCalls == 0 || s.Since.IsZero() || s.Sentence == "" || s.Unit != "ms" {
			t.Errorf("%+v", s)
		}
	}
}

func TestHarmIsSaidBeforeTheWindowIsOver(t *testing.T) {
	h := newHoldback(2, 0.5)
	h.run(2*window, 0.5, 0)
	at := h.now
	for h.now.Sub(at) < window {
		if s, _ := h.run(10*time.Second, 0.5, 0.10); s.Verdict == review.NowHarmful {
			if took := h.now.Sub(at); took > 5*time.Minute {
				t.Errorf("one call in ten fails, and it took %s to say so", took)
			}
			return
		}
	}
	t.Error("one call in ten fails, and a whole window does not show it")
}

func TestAnEffectThatStaysIsNeverCalledHarmful(t *testing.T) {
	for seed := range uint64(10) {
		h := newHoldback(seed+10, 0.7)
		_, changes := h.run(6*window, 0.7, 0)
		for _, v := range changes {
			if v == review.NowHarmful || v == review.NoEffect {
				t.Errorf("seed %d: %v", seed, changes)
			}
		}
	}
}

func TestNoTrafficIsNoVerdict(t *testing.T) {
	h := newHoldback(3, 0.5)
	h.calls = 0
	if s, changes := h.run(10*window, 1, 0); s.Verdict != review.NotJudged || len(changes) > 0 {
		t.Errorf("%+v %v", s, changes)
	}
	h = newHoldback(3, 0.5)
	h.run(2*window, 0.5, 0)
	h.calls = 0
	if s, _ := h.run(2*window, 1, 0); s.Verdict != review.StillHelps {
		t.Errorf("a quiet hour forgets the verdict: %+v", s)
	}
	if s, _ := h.run(10*window, 1, 0); s.Verdict != review.NotJudged {
		t.Errorf("a verdict stands on without calls: %+v", s)
	}
}

func TestAChangePromotedForBeingNoWorseNeedNotHelp(t *testing.T) {
	h := newHoldback(4, 1)
	h.promise.NoWorse = true
	if s, _ := h.run(3*window, 1, 0); s.Verdict != review.StillHelps || !strings.Contains(s.Sentence, "No worse") {
		t.Errorf("%+v", s)
	}
}

func TestCohortsThatBeginAnewAreNoEvidence(t *testing.T) {
	h := newHoldback(5, 0.5)
	h.run(window+time.Minute, 0.5, 0)
	h.promoted, h.heldBack = stats.Tally{}, stats.Tally{}
	s, _ := h.run(20*time.Second, 0.5, 0)
	if s.Verdict != review.StillHelps {
		t.Errorf("%+v", s)
	}
}

func TestStandingsSurviveARestart(t *testing.T) {
	h := newHoldback(6, 0.5)
	h.run(2*window, 0.5, 0)
	kept := h.watch.Standings()
	h.watch = review.NewWatch(window)
	h.watch.Restore(kept)
	h.promoted, h.heldBack = stats.Tally{}, stats.Tally{}
	if s, changes := h.run(time.Minute, 0.5, 0); s.Verdict != review.StillHelps || len(changes) > 0 {
		t.Errorf("%+v %v", s, changes)
	}
	h.watch.Forget(map[string]bool{})
	if left := h.watch.Standings(); len(left) != 0 {
		t.Errorf("forgotten changes still stand: %+v", left)
	}
}

// inTurns lets days pass in which a change is held back in turns: each 50 minutes a pair of 1000 calls each ends.
func (h *holdback) inTurns(d time.Duration, factor, errors float64) (last review.Standing) {
	h.promise.Turns, h.calls = true, 1000
	for end := h.now.Add(d); h.now.Before(end); {
		h.now = h.now.Add(10 * time.Minute)
		if h.now.Sub(noon)%(50*time.Minute) == 0 {
			h.promoted = h.promoted.Merge(h.slice(factor, errors))
			h.heldBack = h.heldBack.Merge(h.slice(1, 0))
		}
		last, _ = h.watch.Add(h.now, h.promise, h.promoted, h.heldBack)
	}
	return last
}

func TestAChangeThatIsHeldBackInTurnsIsFollowed(t *testing.T) {
	h := newHoldback(7, 0.5)
	h.watch = review.NewWatch(24 * time.Hour)
	for _, c := range []struct {
		factor, errors float64
		want           review.Verdict
	}{{0.5, 0, review.StillHelps}, {0.8, 0, review.Decayed}, {1, 0, review.NoEffect}, {0.5, 0, review.StillHelps}, {0.5, 0.05, review.NowHarmful}} {
		s := h.inTurns(5*24*time.Hour, c.factor, c.errors)
		if s.Verdict != c.want {
			t.Fatalf("latencies times %v: %s, want %s: %s", c.factor, s.Verdict, c.want, s.Sentence)
		}
	}
}

func TestTurnsOfWhatIsTheSameAreNotHarmful(t *testing.T) {
	for seed := range uint64(10) {
		h := newHoldback(seed+20, 0.5)
		h.watch = review.NewWatch(24 * time.Hour)
		if s := h.inTurns(5*24*time.Hour, 1, 0); s.Verdict != review.NoEffect {
			t.Errorf("seed %d: %s, want %s: %s", seed, s.Verdict, review.NoEffect, s.Sentence)
		}
	}
}

// TestALimitThatKeepsToItsPriceIsNotHarmful refuses calls, which is what it was promoted with.
func TestALimitThatKeepsToItsPriceIsNotHarmful(t *testing.T) {
	for price, want := range map[float64]review.Verdict{0.3: review.StillHelps, 0.1: review.NowHarmful} {
		h := newHoldback(8, 0.5)
		h.watch, h.promise.Shed, h.promise.Turns = review.NewWatch(24*time.Hour), price, true
		var s review.Standing
		for range 5 * 24 * 6 {
			h.now, h.calls = h.now.Add(10*time.Minute), 800
			if h.now.Sub(noon)%(50*time.Minute) == 0 {
				with := h.slice(0.5, 0)
				with.Calls, with.Shed = 1000, 200
				h.promoted = h.promoted.Merge(with)
				h.calls = 1000
				h.heldBack = h.heldBack.Merge(h.slice(1, 0))
			}
			s, _ = h.watch.Add(h.now, h.promise, h.promoted, h.heldBack)
		}
		if s.Verdict != want {
			t.Errorf("refuses 20 %% at a price of %v: %s, want %s: %s", price, s.Verdict, want, s.Sentence)
		}
	}
}

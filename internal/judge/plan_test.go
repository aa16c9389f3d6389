package judge

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestDetectableRatioIsTheFormula(t *testing.T) {
	for _, c := range []struct{ calls, ratio float64 }{{1.2e3, 3}, {3.6e3, 2}, {12e3, 1.5}, {67e3, 1.2}} {
		if got := DetectableRatio(c.calls, .01, .01); math.Abs(got-c.ratio)/c.ratio > .02 {
			t.Errorf("with %v calls: %v, want %v", c.calls, got, c.ratio)
		}
	}
	for _, calls := range []float64{0, -1, math.NaN(), 1e-3} {
		if got := DetectableRatio(calls, .01, .01); got < 1e3 {
			t.Errorf("with %v calls: %v", calls, got)
		}
	}
	if text := Plan(40, 10*time.Minute); !strings.Contains(text, "24000 calls") || !strings.Contains(text, "1.3") {
		t.Error(text)
	}
	for _, text := range []string{Plan(0, time.Minute), Plan(.1, time.Minute), Plan(math.NaN(), time.Minute)} {
		if !strings.Contains(text, "inconclusive") {
			t.Error(text)
		}
	}
}

// What the plan promises for p99 must be what the judge then sees: neither hardly ever, nor nearly always at much less.
func TestThePlanIsWhatTheJudgeCanSee(t *testing.T) {
	found := func(ratio float64) float64 {
		runs, n := few(200), 0
		for seed := range runs {
			rng := rand.New(rand.NewPCG(uint64(seed), 3))
			j := New(Config{})
			j.referred = 1
			for range 60 {
				b, c := counts{calls: 500, timed: 500}, counts{calls: 500, timed: 500}
				b.rows[p99] = event{of: 500, plain: rare(rng, 5), fail: 0}
				c.rows[p99] = event{of: 500, plain: 0, fail: rare(rng, 5*ratio)}
				j.add(&b, &c)
				if j.Verdict() == Worse {
					n++
					break
				}
			}
		}
		return float64(n) / float64(runs)
	}
	ratio := DetectableRatio(30_000, .01, AlphaWorse)
	at, below, beyond := found(ratio), found(1+(ratio-1)/2), found(1+(ratio-1)*1.5)
	t.Logf("30000 calls: %.3g times as frequent found in %.0f %% of runs; half of the excess in %.0f %%, 1.5 times the excess in %.0f %%", ratio, 100*at, 100*below, 100*beyond)
	if at < .35 || below > .25 || beyond < .85 {
		t.Errorf("%v %v %v", at, below, beyond)
	}
}

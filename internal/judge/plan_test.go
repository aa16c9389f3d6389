package judge

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestLessTrafficShowsOnlyMore(t *testing.T) {
	last := 0.0
	for _, calls := range []float64{1e6, 1e5, 3e4, 1e4, 3e3, 1e3} {
		got := Detectable("p99", calls, 60, 0)
		if got <= last {
			t.Errorf("with %v calls: %v, with more %v", calls, got, last)
		}
		last = got
	}
	for _, got := range []float64{
		Detectable("p99", 0, 60, 0), Detectable("p99", math.NaN(), 60, 0), Detectable("p99", 1e6, 3, 0), Detectable("p98", 1e6, 60, 0),
		Detectable("errors", 1e6, 60, 0), Detectable("cost", 1e6, 60, .1),
	} {
		if !math.IsInf(got, 1) {
			t.Errorf("%v is detectable", got)
		}
	}
	if got := Detectable("errors", 30_000, 60, .001); got < 2.5 || got > 5 {
		t.Errorf("errors of 0.1 %% show when they are %v times as frequent", got)
	}
	if text := Plan(40, 10*time.Minute, 1); !strings.Contains(text, "24000 calls") || !strings.Contains(text, "1.5") {
		t.Error(text)
	}
	for _, text := range []string{Plan(0, time.Minute, 1), Plan(.1, time.Minute, 1), Plan(math.NaN(), time.Minute, 1), Plan(1e-300, time.Hour, 1)} {
		if !strings.Contains(text, "inconclusive") {
			t.Error(text)
		}
	}
	if text := Plan(40, 30*time.Minute, 6); !strings.Contains(text, "slices of 1m0s") {
		t.Error(text)
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
	ratio := Detectable("p99", 30_000, 60, 0)
	at, below, beyond := found(ratio), found(1+(ratio-1)/2), found(1+(ratio-1)*1.5)
	t.Logf("30000 calls: %.3g times as frequent found in %.0f %% of runs; half of the excess in %.0f %%, 1.5 times the excess in %.0f %%", ratio, 100*at, 100*below, 100*beyond)
	if at < planPower-.15 || at > planPower+.15 || below > .3 || beyond < .9 {
		t.Errorf("%v %v %v", at, below, beyond)
	}
}

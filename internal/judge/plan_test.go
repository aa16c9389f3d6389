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
	if text := Plan(40, 10*time.Minute, 10*time.Second); !strings.Contains(text, "24000 calls") || !strings.Contains(text, "1.5") {
		t.Error(text)
	}
	for _, text := range []string{Plan(0, time.Minute, 0), Plan(.1, time.Minute, 0), Plan(math.NaN(), time.Minute, 0), Plan(1e-300, time.Hour, 0)} {
		if !strings.Contains(text, "inconclusive") {
			t.Error(text)
		}
	}
	if text := Plan(40, 30*time.Minute, time.Minute); !strings.Contains(text, "slices of 1m0s") {
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

// A rollout on thin traffic says when a big improvement can be called one, and that is about when the judge does.
func TestThePlanKnowsHowSoonABigImprovementShows(t *testing.T) {
	if text := Plan(33, 90*time.Second, time.Second); !strings.Contains(text, "slices of 1s") || !strings.Contains(text, "improved after 13") || strings.Contains(text, "most likely") {
		t.Error(text)
	}
	if text := Plan(33, 30*time.Second, time.Second); !strings.Contains(text, "most likely end inconclusive") {
		t.Error(text)
	}
	y := story("", and(thin, cached(1))).sliced(1)
	planned := Soonest(33, 1e6)
	for seed := range 5 {
		if o := y.simulate(uint64(seed), isEnding); o.verdict != Improved || o.calls > 1.3*planned || o.calls < planned/1.5 {
			t.Errorf("%s after %v calls, %v were planned", o.verdict, o.calls, planned)
		}
	}
	for _, per := range []float64{0, 1, 50, 1e9, math.NaN()} {
		if got := Soonest(per, 1e12); !(got >= 1000) {
			t.Errorf("%v calls a slice: after %v", per, got)
		}
	}
}

// The outlook of a running comparison knows the same.
func TestCallsNeededKnowOfABigImprovement(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 15))
	j := frozen(rng, 2000)
	for range 14 {
		j.Add(cohort(rng, 33, 1), cohort(rng, 33, .01))
	}
	g := j.say()
	if n := g.CallsNeeded; n < 300 || n > 1200 {
		t.Errorf("%d more calls: %s", n, g.Sentence)
	}
}

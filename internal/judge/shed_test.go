package judge

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// limited is a cohort that shed some of n calls. What it served made two calls to a downstream and 4 ms of work each.
func limited(rng *rand.Rand, n int, shed, scale float64) stats.Tally {
	served := n
	for range n {
		if rng.Float64() < shed {
			served--
		}
	}
	t := with(rng, cohort(rng, served, scale), 4*time.Millisecond, 1, 1, "db")
	t.Calls, t.Shed = uint64(n), uint64(n-served)
	return t
}

func TestShedCallsHaveTheirPrice(t *testing.T) {
	for _, c := range []struct {
		name             string
		price            float64
		base, shed       float64 // of each arm
		want             Verdict
		metric, sentence string
	}{
		{"none, none paid", 0, 0, 0, NoWorse, "", "all metrics"},
		{"4 % without a price", 0, 0, .04, Worse, "errors", "errors are"},
		{"4 % at 5 %", .05, 0, .04, NoWorse, "", "all metrics"},
		{"15 % at 5 %", .05, 0, .15, Worse, "shed", "shed are 15"},
		{"15 % at 5 % beside 11 %", .05, .11, .15, NoWorse, "", "all metrics"},
		{"30 % at 30 %", .30, 0, .30, NoWorse, "", "all metrics"},
		{"99 % at 95 %", .95, 0, .99, Worse, "shed", "shed are"},
	} {
		rng := rand.New(rand.NewPCG(20, 20))
		j := New(Config{Shed: c.price})
		j.Freeze(limited(rng, 3000, c.base, 1))
		var total [2]stats.Tally
		for range 60 {
			b, k := limited(rng, 400, c.base, 1), limited(rng, 400, c.shed, 1)
			total[0], total[1] = total[0].Merge(b), total[1].Merge(k)
			if j.Add(b, k); j.Verdict() == Worse {
				break
			}
		}
		g := j.Judgement(total[0], total[1])
		if g.Verdict != c.want || !strings.Contains(g.Sentence, c.sentence) || c.metric != "" && j.name(j.strongest()) != c.metric {
			t.Errorf("%s: %s", c.name, g.Sentence)
		}
		for _, m := range g.Metrics {
			if m.Metric == "shed" && (c.price == 0 || math.Abs(m.Candidate-c.shed) > .02 || m.Unit != "ratio") {
				t.Errorf("%s: %+v", c.name, m)
			}
			if known := m.Metric == "attempts" || m.Metric == "db calls"; known && c.price > 0 && math.Abs(m.Candidate-m.Baseline) > .01 {
				t.Errorf("%s: %s per call that was served is %v against %v", c.name, m.Metric, m.Candidate, m.Baseline)
			}
		}
	}
}

func TestARequestMayStateThePrice(t *testing.T) {
	for _, c := range []struct {
		price float64
		want  Verdict
	}{{0, Worse}, {.1, NoWorse}} {
		r := Request{Shed: c.price}
		for range 40 {
			p := Pair{Baseline: Sample{Calls: 300}, Candidate: Sample{Calls: 300, Shed: 20}}
			for i := range 300 {
				p.Baseline.LatencyMS = append(p.Baseline.LatencyMS, float64(10+i%50))
				if i%15 != 0 {
					p.Candidate.LatencyMS = append(p.Candidate.LatencyMS, float64(10+i%50))
				}
			}
			r.Slices = append(r.Slices, p)
		}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		if g := r.Judge(); g.Verdict != c.want {
			t.Errorf("at a price of %v: %s", c.price, g.Sentence)
		}
	}
}

func TestShedCallsAreBesideThoseWithALatency(t *testing.T) {
	s := Sample{LatencyMS: make([]float64, 100), Shed: 50}
	left := mostSamples
	if got := s.tally().Calls; got != 150 || s.validate(&left) != nil {
		t.Errorf("%d calls", got)
	}
	if s.Calls = 120; s.validate(&left) == nil {
		t.Error("a latency of a shed call is taken")
	}
}

// A limit that sheds at its price is called worse as seldom as anything at its margin, and one that sheds 2 % of calls more than
// that no worse.
func TestThePriceOfShedCallsHolds(t *testing.T) {
	ended := func(shed float64, v Verdict) float64 {
		runs, n := few(200), 0
		for seed := range runs {
			rng := rand.New(rand.NewPCG(uint64(seed), 21))
			j := New(Config{Shed: .05})
			j.referred = 1
			for range 60 {
				b, c := counts{calls: 500, timed: 500}, counts{calls: 500, timed: 500}
				b.rows[sheds] = counted(500, 0)
				c.rows[sheds] = counted(500, rare(rng, 500*shed))
				j.add(&b, &c)
				if got := j.Verdict(); got == v {
					n++
					break
				}
			}
		}
		return float64(n) / float64(runs)
	}
	at, beyond, passed, far := ended(.05, Worse), ended(.08, Worse), ended(.05, NoWorse), ended(.07, NoWorse)
	t.Logf("at the price %.1f %% of runs are called worse and %.1f %% no worse; 3 %% of calls beyond it %.1f %% are called worse, 2 %% beyond it %.1f %% no worse", 100*at, 100*passed, 100*beyond, 100*far)
	if at > .03 || beyond < .95 || passed < .95 || far > .1 {
		t.Error("not as it should be")
	}
}

func TestACandidateThatRefusesMostIsSeenInSeconds(t *testing.T) {
	for _, c := range []struct {
		price, shed float64
		worse       bool
	}{{.05, 1, true}, {.05, .7, true}, {.05, .3, false}, {.5, .6, false}, {.5, .9, true}, {.95, .96, false}} {
		j := New(Config{Shed: c.price})
		at := 0
		for i := 1; i <= 30 && at == 0; i++ {
			j.Watch(stats.Tally{Calls: 100}, stats.Tally{Calls: 100, Shed: uint64(100 * c.shed)})
			if j.Verdict() == Worse {
				at = i
			}
		}
		if (at > 0) != c.worse || at > 15 {
			t.Errorf("%v at a price of %v: worse after %d seconds", c.shed, c.price, at)
		}
		if g := j.say(); c.worse && !strings.Contains(g.Sentence, "refused more than half") {
			t.Error(g.Sentence)
		}
	}
}

// Refusing nearly everything must not pass because too few calls are left to be judged.
func TestWhatServesNothingIsNotPassed(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 22))
	for _, price := range []float64{0, .05, .95} {
		j := New(Config{Shed: price})
		j.Freeze(cohort(rng, 2000, 1))
		for range 600 {
			j.Add(cohort(rng, 100, 1), stats.Tally{Calls: 100, Shed: 100})
			if v := j.Verdict(); v != Worse && v != Inconclusive {
				t.Fatalf("at a price of %v: %s", price, v)
			}
		}
		if v := j.Verdict(); v != Worse {
			t.Errorf("at a price of %v: %s at the end", price, v)
		}
	}
	if c := (Config{Shed: math.NaN()}).WithDefaults(); c.Shed != 0 {
		t.Error(c.Shed)
	}
}

// TestAPriceIsHeldOnAQuietRouteToo has arms that refuse exactly what they may, few calls a second.
func TestAPriceIsHeldOnAQuietRouteToo(t *testing.T) {
	for _, c := range []struct {
		price, base float64
		calls       int // a second and arm
	}{{.95, 0, 10}, {.8, 0, 2}, {.6, 0, 1}, {.5, .4, 1}, {.3, 0, 5}, {.95, 0, 50}, {.05, .05, 1}} {
		wrong, runs := 0, few(100)
		for seed := range runs {
			rng := rand.New(rand.NewPCG(uint64(seed), 23))
			refused := func(p float64) (n uint64) {
				for range c.calls {
					if rng.Float64() < p {
						n++
					}
				}
				return n
			}
			j := New(Config{Shed: c.price})
			for range 300 {
				calls := uint64(c.calls)
				j.Watch(stats.Tally{Calls: calls, Shed: refused(c.base)}, stats.Tally{Calls: calls, Shed: refused(c.base + c.price)})
				if j.Verdict() == Worse {
					wrong++
					break
				}
			}
		}
		if wrong > runs/20 {
			t.Errorf("%v beyond %v of %d calls a second: called worse in %d of %d runs", c.price, c.base, c.calls, wrong, runs)
		}
	}
}

package rollout

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// cohort is a tally of n calls with latencies of scale times lognormal(20 ms, 0.5).
func cohort(rng *rand.Rand, n int, scale float64) stats.Tally {
	var h stats.Histogram
	for range n {
		h.Record(time.Duration(scale * 20e6 * math.Exp(.5*rng.NormFloat64())))
	}
	return stats.Tally{Latency: h.Snapshot(), Calls: uint64(n), Attempts: uint64(n)}
}

func frozen(rng *rand.Rand) Judge {
	j := NewJudge("p99", 0)
	j.Freeze(cohort(rng, 2000, 1).Latency)
	return j
}

func TestFewCallsAreNeverJudged(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name              string
		slices, base, cnd int
		scale             float64
	}{
		{"4 slices of 24, far worse", 4, 24, 24, 20},
		{"4 slices of 24, far better", 4, 24, 24, .01},
		{"no candidate calls", 50, 500, 0, 1},
		{"no baseline calls", 50, 0, 500, 1},
		{"nothing", 50, 0, 0, 1},
	} {
		j := frozen(rng)
		for range c.slices {
			j.Add(cohort(rng, c.base, 1), cohort(rng, c.cnd, c.scale))
		}
		if v := j.Verdict(); v != Inconclusive {
			t.Errorf("%s: %s", c.name, v)
		}
		g := j.Judgement(stats.Snapshot{}, stats.Snapshot{})
		if !strings.Contains(g.Sentence, "too few") {
			t.Errorf("%s: %s", c.name, g.Sentence)
		}
		for _, m := range g.Metrics {
			if m.Verdict != Inconclusive {
				t.Errorf("%s: %s is %s", c.name, m.Metric, m.Verdict)
			}
		}
	}
}

// Not a single error must not pass for proof that errors are rare, before there were enough calls to see one.
func TestNoErrorsInFewCallsIsNoProof(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	j := frozen(rng)
	errors, _ := metricIndex("errors")
	passedAt := uint64(0)
	for passedAt == 0 && j.slices < 1000 {
		j.Add(cohort(rng, 25, 1), cohort(rng, 25, 1))
		if j.noWorse(errors) >= math.Log(1/AlphaNoWorse) {
			passedAt = j.candidate.calls
		}
	}
	t.Logf("0 errors pass after %d calls each", passedAt)
	// Fewer than 600 calls are without error once in 20 times at a rate of 0.5 %.
	if passedAt < 600 || passedAt > 4000 {
		t.Errorf("passed after %d calls", passedAt)
	}
}

func TestAnUnevenSplitInvalidates(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	j := frozen(rng)
	for range 16 {
		j.Add(cohort(rng, 220, 1), cohort(rng, 180, 1)) // 55 to 45
	}
	if v := j.Verdict(); v != Invalid {
		t.Errorf("55 to 45 of %d calls: %s", j.baseline.calls+j.candidate.calls, v)
	}
	if g := j.Judgement(stats.Snapshot{}, stats.Snapshot{}); !strings.Contains(g.Sentence, "no even split") {
		t.Error(g.Sentence)
	}
}

func TestHistogramsAndRawSamplesAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	var warm, first, second, both stats.Histogram
	var raw []time.Duration
	for i := range 4000 {
		d := time.Duration(20e6 * math.Exp(.5*rng.NormFloat64()))
		warm.Record(time.Duration(20e6 * math.Exp(.5*rng.NormFloat64())))
		both.Record(d)
		raw = append(raw, d)
		if i%2 == 0 {
			first.Record(d)
		} else {
			second.Record(d)
		}
	}
	j := NewJudge("p99", 0)
	j.Freeze(warm.Snapshot())
	merged := stats.Tally{Calls: 4000, Latency: first.Snapshot().Merge(second.Snapshot())}
	if got, want := j.measure(merged), j.measure(stats.Tally{Calls: 4000, Latency: both.Snapshot()}); got != want {
		t.Errorf("merged %+v, whole %+v", got, want)
	}
	for i := range table {
		if table[i].kind != latency {
			continue
		}
		var want uint64
		for _, d := range raw {
			if d > j.reference[i] {
				want++
			}
		}
		if got := j.measure(merged).events[i].plain; got != want {
			t.Errorf("%s: %d of the buckets, %d of the samples lie above", table[i].name, got, want)
		}
	}
}

func TestMarginsAreWhatTheTableSays(t *testing.T) {
	sum := 0.0
	for _, c := range []struct {
		name       string
		fail, pass float64
	}{{"p50", 1.03, 1.05}, {"p95", 1.05, 1.10}, {"p99", 1.10, 1.25}} {
		i, _ := metricIndex(c.name)
		if f := math.Exp2(table[i].fail / 64); math.Abs(f-c.fail) > .006 {
			t.Errorf("%s fails from %v on", c.name, f)
		}
		if p := math.Exp2(table[i].pass / 64); math.Abs(p-c.pass) > .006 {
			t.Errorf("%s passes up to %v", c.name, p)
		}
	}
	for _, m := range table {
		sum += m.weight
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("weights add up to %v", sum)
	}
}

func TestJudgementIsJSONAtEveryMoment(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	j := frozen(rng)
	var zero Judge
	for _, judge := range []*Judge{&zero, &j} {
		for i := range 40 {
			g := judge.Judgement(stats.Snapshot{}, stats.Snapshot{})
			if _, err := json.Marshal(g); err != nil {
				t.Fatalf("after %d slices: %v", i, err)
			}
			judge.Add(cohort(rng, 200, 1), cohort(rng, 200, 3))
		}
	}
	g := j.Judgement(stats.Of(20*time.Millisecond), stats.Of(60*time.Millisecond))
	if g.Verdict != Worse || !strings.Contains(g.Sentence, "60.") || !strings.Contains(g.Sentence, "8000 candidate") {
		t.Errorf("%s: %s", g.Verdict, g.Sentence)
	}
	p50 := g.Metrics[0]
	if p50.Verdict != Worse || p50.Low <= 0 || p50.Low > p50.Difference || p50.High < p50.Difference || p50.Worse.Log10E < p50.Worse.Threshold {
		t.Errorf("p50: %+v", p50)
	}
}

func TestOddSlicesStayFinite(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	j := frozen(rng)
	before := j
	if j.Add(stats.Tally{Calls: 500}, stats.Tally{Calls: 500}) {
		t.Error("a slice without a single latency was judged")
	}
	if j != before {
		t.Error("a slice that was not taken changed the judge")
	}
	j.Add(stats.Tally{Calls: math.MaxUint64, Latency: cohort(rng, 50, 1).Latency, Failed: math.MaxUint64, Attempts: 1}, cohort(rng, 50, 1))
	if e := j.overallWorse(); math.IsNaN(e) {
		t.Errorf("evidence = %v", e)
	}
}

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

func TestQuantilesAreMillisecondsInJSON(t *testing.T) {
	in := Quantiles{P50: 1500 * time.Microsecond, P95: 20 * time.Millisecond, P99: time.Second}
	data, err := json.Marshal(in)
	if err != nil || string(data) != `{"p50":1.5,"p95":20,"p99":1000}` {
		t.Fatalf("%s, %v", data, err)
	}
	var out Quantiles
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("back: %+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"p50":"x"}`), &out); err == nil {
		t.Error("text was taken for milliseconds")
	}
}

func BenchmarkLook(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	j := frozen(rng)
	base, candidate := cohort(rng, 500, 1), cohort(rng, 500, 1)
	for b.Loop() {
		j.Add(base, candidate)
		j.Verdict()
	}
}

package judge

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/longpole/longpole/internal/stats"
)

// cohort is a tally of n calls with latencies of scale times lognormal(20 ms, 0.5).
func cohort(rng *rand.Rand, n int, scale float64) stats.Tally {
	return stats.Tally{Latency: draws(rng, n, scale), Calls: uint64(n), Attempts: uint64(n)}
}

func draws(rng *rand.Rand, n int, scale float64) stats.Snapshot {
	var h stats.Histogram
	for range n {
		h.Record(time.Duration(scale * 20e6 * math.Exp(.5*rng.NormFloat64())))
	}
	return h.Snapshot()
}

// frozen is a judge whose thresholds stand on so many calls.
func frozen(rng *rand.Rand, calls int) Judge {
	j := New(Config{})
	j.Freeze(cohort(rng, calls, 1))
	return j
}

func (j *Judge) say() Judgement { return j.Judgement(stats.Tally{}, stats.Tally{}) }

func TestFewCallsAreNeverJudged(t *testing.T) { // T8, T9
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name              string
		slices, base, cnd int
		scale             float64
	}{
		{"4 slices of 24, far worse", 4, 24, 24, 20},
		{"4 slices of 24, far better", 4, 24, 24, .01},
		{"99 calls in one slice", 1, 99, 99, 20},
		{"no candidate calls", 50, 500, 0, 1},
		{"no baseline calls", 50, 0, 500, 1},
		{"nothing", 50, 0, 0, 1},
	} {
		j := frozen(rng, 2000)
		for range c.slices {
			j.Add(cohort(rng, c.base, 1), cohort(rng, c.cnd, c.scale))
		}
		if v := j.Verdict(); v != Inconclusive {
			t.Errorf("%s: %s", c.name, v)
		}
		g := j.say()
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

func TestTheFastTierNeedsNoHundredCalls(t *testing.T) { // T8
	j := New(Config{})
	for i := 1; i < 60; i++ {
		j.Watch(stats.Tally{Calls: 1}, stats.Tally{Calls: 1, Failed: 1})
		if j.Verdict() == Worse {
			if i < 9 || i > 14 {
				t.Errorf("after %d seconds", i)
			}
			if g := j.say(); !strings.Contains(g.Sentence, "errors were seen in") || g.Fast[0].Candidate != uint64(i) || g.FastWorse.Log10E < g.FastWorse.Threshold {
				t.Errorf("%+v", g)
			}
			return
		}
	}
	t.Error("a candidate that always fails was not seen")
}

func TestSecondsThatBothFailInSayNothing(t *testing.T) {
	j := New(Config{})
	for range 1000 {
		j.Watch(stats.Tally{Calls: 100, Failed: 1}, stats.Tally{Calls: 100, Failed: 50})
	}
	if e := j.fastWorse(); math.Abs(e) > 1e-9 {
		t.Errorf("evidence %v", e)
	}
}

// The evidence must not grow on average when labels are tosses of a coin: that is what makes it safe to look every second.
func TestFastEvidenceIsAMartingale(t *testing.T) {
	for c := range 12 {
		for b := range 12 {
			now := labels{uint64(b), uint64(c)}
			next := .5*math.Exp(labels{uint64(b + 1), uint64(c)}.logE()) + .5*math.Exp(labels{uint64(b), uint64(c + 1)}.logE())
			if got := math.Exp(now.logE()); math.Abs(got-next) > 1e-9*got {
				t.Fatalf("%v: %v now, %v on average after the next", now, got, next)
			}
		}
	}
}

func TestSlowCallsAreSeenInSeconds(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	j := frozen(rng, 2000) // p99 is 64 ms
	for range 14 {
		slow := cohort(rng, 50, 1)
		slow.Latency = slow.Latency.Merge(stats.Of(270 * time.Millisecond))
		j.Watch(cohort(rng, 50, 1), slow)
	}
	if v := j.Verdict(); v != Worse || !strings.Contains(j.say().Sentence, "calls over four times p99") {
		t.Errorf("%s: %s", v, j.say().Sentence)
	}
}

// Not a single error must not pass for proof that errors are rare, before there were enough calls to see one.
func TestNoErrorsInFewCallsIsNoProof(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	j := frozen(rng, 2000)
	passedAt := 0.0
	for passedAt == 0 && j.slices < 1000 {
		j.Add(cohort(rng, 25, 1), cohort(rng, 25, 1))
		if j.passed(errored) {
			passedAt = j.total[1].calls
		}
	}
	t.Logf("0 errors pass after %v calls each", passedAt)
	// Fewer than 600 calls are without error once in 20 times at a rate of 0.5 %.
	if passedAt < 600 || passedAt > 4000 {
		t.Errorf("passed after %v calls", passedAt)
	}
}

func TestAnUnevenSplitInvalidates(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	j := frozen(rng, 2000)
	for range 16 {
		j.Add(cohort(rng, 220, 1), cohort(rng, 180, 1)) // 55 to 45
	}
	if v := j.Verdict(); v != Invalid {
		t.Errorf("55 to 45 of %v calls: %s", j.total[0].calls+j.total[1].calls, v)
	}
	if g := j.say(); !strings.Contains(g.Sentence, "no even split") {
		t.Error(g.Sentence)
	}
	turns := New(Config{Blocks: true})
	turns.Freeze(cohort(rng, 2000, 1))
	for range 16 {
		turns.Add(cohort(rng, 220, 1), cohort(rng, 180, 1))
	}
	if v := turns.Verdict(); v == Invalid {
		t.Error("blocks of different traffic are no faulty split")
	}
}

// splitFlagged is the share of runs in which the split is called uneven by the time that both arms have n calls.
func splitFlagged(runs, slice, n int, p float64) float64 {
	flagged := 0
	for seed := range runs {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		var j Judge
		uneven := false
		for total := 0; total < n; total += slice {
			for range slice {
				if rng.Float64() < p {
					j.total[0].calls++
				} else {
					j.total[1].calls++
				}
			}
			j.split.look(j.total[0].calls, j.total[1].calls)
			uneven = uneven || j.uneven()
		}
		if uneven {
			flagged++
		}
	}
	return float64(flagged) / float64(runs)
}

func TestAFaultySplitShowsIn3200Calls(t *testing.T) { // T10
	at, even := splitFlagged(few(2000), 400, 3200, .55), splitFlagged(few(2000), 800, 60_000, .5)
	t.Logf("split: 55 to 45 flagged by 3200 calls in %.2f %% of runs, 50 to 50 by 60000 in %.2f %%", 100*at, 100*even)
	if at < .985 || even > 2*AlphaInvalid {
		t.Error("not as it should be")
	}
}

func TestHistogramsAndRawSamplesAgree(t *testing.T) { // T11
	rng := rand.New(rand.NewPCG(4, 4))
	var first, second, both stats.Histogram
	var raw []time.Duration
	for i := range 4000 {
		d := time.Duration(20e6 * math.Exp(.5*rng.NormFloat64()))
		both.Record(d)
		raw = append(raw, d)
		if i%2 == 0 {
			first.Record(d)
		} else {
			second.Record(d)
		}
	}
	j := frozen(rng, 20_000)
	merged := stats.Tally{Calls: 4000, Latency: first.Snapshot().Merge(second.Snapshot())}
	whole := stats.Tally{Calls: 4000, Latency: both.Snapshot()}
	if got, want := j.measure(&merged), j.measure(&whole); got != want {
		t.Errorf("merged %+v, whole %+v", got, want)
	}
	for _, i := range []int{p50, p95, p99, p999} {
		m := &table[i]
		e := j.measure(&merged).rows[i]
		for _, c := range []struct{ buckets, got float64 }{{0, e.plain}, {m.fail, e.fail}, {m.pass, e.pass}} {
			want, x := 0.0, stats.Shift(j.reference[i], int(c.buckets))
			for _, d := range raw {
				if d > x {
					want++
				}
			}
			if c.got != want || e.of != 4000 {
				t.Errorf("%s and %v buckets: %v of the histogram, %v of the samples lie above", m.name, c.buckets, c.got, want)
			}
		}
	}
}

func TestMarginsAreWhatTheTableSays(t *testing.T) {
	sum := poolKnown + poolLate
	for _, c := range []struct {
		row        int
		fail, pass float64
	}{{p50, 1.03, 1.05}, {p95, 1.05, 1.10}, {p99, 1.10, 1.25}, {p999, 1.25, 1.5}} {
		m := &table[c.row]
		if f := math.Exp2(m.fail / 64); math.Abs(f-c.fail) > .007 {
			t.Errorf("%s fails from %v on", m.name, f)
		}
		if p := math.Exp2(m.pass / 64); math.Abs(p-c.pass) > .008 {
			t.Errorf("%s passes up to %v", m.name, p)
		}
	}
	for _, m := range table {
		sum += m.weight
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("weights add up to %v", sum)
	}
	if a, b := math.Exp2(envShift/64.), math.Exp2(slowShift/64.); math.Abs(a-1.25) > .01 || b != 4 {
		t.Errorf("environment from %v on, slow from %v on", a, b)
	}
}

func TestJudgementIsJSONAtEveryMoment(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	j := frozen(rng, 2000)
	var zero Judge
	for _, judge := range []*Judge{&zero, &j} {
		for i := range 40 {
			if _, err := json.Marshal(judge.say()); err != nil {
				t.Fatalf("after %d slices: %v", i, err)
			}
			judge.Watch(cohort(rng, 200, 1), cohort(rng, 200, 3))
			judge.Add(cohort(rng, 200, 1), cohort(rng, 200, 3))
		}
	}
	g := j.Judgement(stats.Tally{Latency: stats.Of(20 * time.Millisecond)}, stats.Tally{Latency: stats.Of(60 * time.Millisecond)})
	if g.Verdict != Worse || !strings.Contains(g.Sentence, "60.") || !strings.Contains(g.Sentence, "8000 candidate") {
		t.Errorf("%s: %s", g.Verdict, g.Sentence)
	}
	m := g.Metrics[0]
	if m.Verdict != Worse || m.Low <= 0 || m.Low > m.Difference || m.High < m.Difference || m.Worse.Log10E < m.Worse.Threshold || m.CallsNeeded != 0 {
		t.Errorf("p50: %+v", m)
	}
}

func TestOddSlicesStayFinite(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	j := frozen(rng, 2000)
	if j.Add(stats.Tally{Calls: 500}, stats.Tally{Calls: 500}) || j.slices != 0 {
		t.Error("a slice without a single latency was judged")
	}
	if j.Verdict() != Inconclusive {
		t.Error(j.Verdict())
	}
	odd := stats.Tally{Calls: math.MaxUint64, Latency: cohort(rng, 50, 1).Latency, Failed: math.MaxUint64, Attempts: 1}
	j.Add(odd, cohort(rng, 50, 1))
	j.Add(odd, odd)
	if e := j.mainWorse(); math.IsNaN(e) {
		t.Errorf("evidence = %v", e)
	}
	if _, err := json.Marshal(j.say()); err != nil {
		t.Error(err)
	}
}

func TestThinSlicesAreJoined(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	j := frozen(rng, 2000)
	for range 9 {
		j.Add(cohort(rng, 8, 1), cohort(rng, 8, 1))
	}
	if j.slices != 3 || j.total[1].calls != 72 {
		t.Errorf("%d slices of %v calls", j.slices, j.total[1].calls)
	}
	j.Heed(CalibrationStatus{Join: 3}, mainSlice)
	for range 9 {
		j.Add(cohort(rng, 80, 1), cohort(rng, 80, 1))
	}
	if j.slices != 6 || j.total[1].calls != 792 {
		t.Errorf("%d slices of %v calls", j.slices, j.total[1].calls)
	}
}

func TestACopyIsIndependent(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	j := frozen(rng, 2000)
	before := j
	j.Add(cohort(rng, 50, 1), cohort(rng, 50, 1))
	j.Watch(stats.Tally{Failed: 1}, stats.Tally{})
	if before == j || before.slices != 0 || before.labels != ([fastRows]labels{}) {
		t.Error("the copy changed")
	}
	if size := unsafe.Sizeof(j); size > 22<<10 {
		t.Errorf("a judge has %d bytes", size)
	}
}

func TestP999IsJudgedWhenCallsAllow(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 10))
	for _, c := range []struct {
		reference, slice int
		judged           bool
	}{{20_000, 2500, true}, {20_000, 500, false}, {2000, 2500, false}} {
		j := frozen(rng, c.reference)
		j.Add(cohort(rng, c.slice, 1), cohort(rng, c.slice, 1))
		if j.judged(p999) != c.judged || strings.Contains(strings.Join(open(new(j.say())), " "), "p99.9") != c.judged {
			t.Errorf("%+v", c)
		}
	}
	j := frozen(rng, 20_000)
	for range 30 {
		slow := cohort(rng, 2000, 1)
		for range 16 {
			slow.Latency = slow.Latency.Merge(stats.Of(180 * time.Millisecond))
		}
		j.Add(cohort(rng, 2016, 1), slow)
	}
	if g := j.say(); j.find(&g, p999).Verdict != Worse {
		t.Errorf("0.8 %% of calls at 180 ms: %+v", j.find(&g, p999))
	}
}

func TestBothArmsGettingWorseIsTheEnvironment(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	j := frozen(rng, 2000)
	add := func(n int, b, c float64) Verdict {
		for range n {
			j.Add(cohort(rng, 500, b), cohort(rng, 500, c))
		}
		return j.Verdict()
	}
	if v := add(30, 1, 1); v != NoWorse {
		t.Fatalf("calm: %s", v)
	}
	if v := add(3, 1.6, 1.6); v != Environment || !strings.Contains(j.say().Sentence, "both cohorts") {
		t.Errorf("both slower: %s", v)
	}
	if v := add(20, 1, 1); v != NoWorse {
		t.Errorf("calm again: %s", v)
	}
	if j.LeansWorse() {
		t.Error("leans worse without a reason")
	}
	if add(6, 1, 1.3); !j.LeansWorse() {
		t.Error("a candidate that was slower for a minute leans worse")
	}
	j = frozen(rng, 2000)
	if v := add(20, 1.6, 2.5); v != Worse {
		t.Errorf("both slower, the candidate more so: %s", v)
	}
	errs := frozen(rng, 2000)
	for range 20 {
		b, c := cohort(rng, 500, 1), cohort(rng, 500, 1)
		b.Failed, c.Failed = 20+rng.Uint64N(10), 20+rng.Uint64N(10)
		errs.Add(b, c)
	}
	if v := errs.Verdict(); v != Environment {
		t.Errorf("5 %% errors of both: %s", v)
	}
}

// with adds what a call costs, and two calls to each of some downstreams.
func with(rng *rand.Rand, t stats.Tally, cpu time.Duration, factor, scale float64, names ...string) stats.Tally {
	t.CPU = time.Duration(float64(cpu) * (float64(t.Calls) + math.Sqrt(float64(t.Calls))*rng.NormFloat64()))
	for _, name := range names {
		n := int(2 * factor * float64(t.Calls))
		t.Downstreams = append(t.Downstreams, stats.Downstream{Name: name, Calls: uint64(n), Latency: draws(rng, n, scale)})
	}
	return t
}

func TestCostAndDownstreamsAreJudged(t *testing.T) {
	for _, c := range []struct {
		name          string
		cpu           time.Duration
		factor, scale float64
		more          []string
		failed        uint64
		metric        string
	}{
		{"equal", 4e6, 1, 1, nil, 0, ""},
		{"processor time", 6e6, 1, 1, nil, 0, "cost"},
		{"twice the calls", 4e6, 2, 1, nil, 0, "db calls"},
		{"slower calls", 4e6, 1, 1.4, nil, 0, "db p95"},
		{"failed calls", 4e6, 1, 1, nil, 40, "db errors"},
		{"a new downstream", 4e6, 1, 1, []string{"mail"}, 0, "mail calls"},
	} {
		rng := rand.New(rand.NewPCG(12, 12))
		j := New(Config{})
		j.Freeze(with(rng, cohort(rng, 2000, 1), 4e6, 1, 1, "cache", "db"))
		var total stats.Tally
		for range 30 {
			b := with(rng, cohort(rng, 300, 1), 4e6, 1, 1, "cache", "db")
			k := with(rng, cohort(rng, 300, 1), c.cpu, c.factor, c.scale, append([]string{"cache", "db"}, c.more...)...)
			k.Downstreams[1].Failed = c.failed
			total = total.Merge(k)
			j.Add(b, k)
		}
		g := j.Judgement(total, total)
		if c.metric == "" {
			if g.Verdict != NoWorse || len(g.Metrics) != 7+2*3 {
				t.Errorf("%s: %s with %d metrics: %s", c.name, g.Verdict, len(g.Metrics), g.Sentence)
			}
			continue
		}
		m := g.Metrics[0]
		for _, other := range g.Metrics {
			if other.Metric == c.metric {
				m = other
			}
		}
		if g.Verdict != Worse || m.Metric != c.metric || m.Verdict != Worse || m.Candidate == 0 {
			t.Errorf("%s: %s, %+v", c.name, g.Sentence, m)
		}
	}
}

func TestDownstreamsAreBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 13))
	j := frozen(rng, 2000)
	names := strings.Split("abcdefghijklmnop", "")
	for range 3 {
		j.Add(with(rng, cohort(rng, 100, 1), 0, 1, 1), with(rng, cohort(rng, 100, 1), 0, 1, 1, names...))
	}
	if g := j.say(); j.met != MaxDownstreams || g.Unjudged != 3*(16-MaxDownstreams) {
		t.Errorf("%d met, %d not judged", j.met, g.Unjudged)
	}
	sum := 0.0
	for i := fixedRows; i < rows; i++ {
		sum += j.weight(i)
	}
	if sum > poolLate {
		t.Errorf("late downstreams weigh %v", sum)
	}
}

func TestCallsNeededShrinkToNone(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 14))
	j := frozen(rng, 2000)
	var saw uint64
	for range 60 {
		j.Add(cohort(rng, 500, 1), cohort(rng, 500, 1))
		g := j.say()
		if g.CallsNeeded > 0 && j.slices == 8 {
			saw = g.CallsNeeded
			if !strings.Contains(g.Sentence, "more calls of each would settle it") {
				t.Error(g.Sentence)
			}
		}
		if g.Verdict == NoWorse {
			t.Logf("after 4000 calls %d more were asked for; %v settled it", saw, j.total[1].calls)
			if g.CallsNeeded != 0 || saw < 500 || saw > 50_000 {
				t.Errorf("%d needed, first %d", g.CallsNeeded, saw)
			}
			return
		}
	}
	t.Error("never settled")
}

func BenchmarkLook(b *testing.B) { // T12
	rng := rand.New(rand.NewPCG(1, 1))
	j := New(Config{})
	names := []string{"cache", "db"}
	j.Freeze(with(rng, cohort(rng, 20_000, 1), 4e6, 1, 1, names...))
	base, candidate := with(rng, cohort(rng, 3000, 1), 4e6, 1, 1, names...), with(rng, cohort(rng, 3000, 1), 4e6, 1, 1, names...)
	b.ReportAllocs()
	for b.Loop() {
		j.Watch(base, candidate)
		j.Add(base, candidate)
		j.Verdict()
	}
}

package load

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// world is how a simulated system behaves, second by second.
type world struct {
	rate    float64 // calls a second
	seconds int
	scale   float64 // of all latencies; 0 = 1
	tail    float64 // further share of the calls that take 200 ms longer
	errors  float64 // share of the calls
	drift   float64 // standard deviation of the logarithm of a scale that wanders (AR(1), 0.8 a second)
	stall   int     // a stall in every so many seconds; 0 = none
	bursts  float64 // errors come in bursts of so many seconds' worth
	between float64 // standard deviation of the logarithm of a scale of the whole run
}

// simulate is a run in that world: 97 % lognormal around 20 ms and 3 % around 90 ms.
func (w world) simulate(seed uint64) Report {
	r := rand.New(rand.NewPCG(seed, 99))
	if w.scale == 0 {
		w.scale = 1
	}
	out := Report{Format: reportFormat, Version: reportVersion, Valid: true, TookSeconds: float64(w.seconds), SliceSeconds: 1}
	wander := r.NormFloat64() * w.drift
	whole := r.NormFloat64() * w.between
	failing := false
	offset := 0
	if w.stall > 0 {
		offset = r.IntN(w.stall)
	}
	for s := range w.seconds {
		wander = 0.8*wander + 0.6*w.drift*r.NormFloat64()
		if w.bursts > 0 {
			failing = r.Float64() < 1/w.bursts/10
		}
		n := poisson(r, w.rate)
		ds := make([]time.Duration, 0, n)
		var failed uint64
		for i := range n {
			median := 20.0
			if r.Float64() < 0.03 {
				median = 90
			}
			v := median * w.scale * math.Exp(0.5*r.NormFloat64()+wander+whole)
			if r.Float64() < w.tail {
				v += 200
			}
			if w.stall > 0 && (s+offset)%w.stall == 0 {
				v += 1000 * float64(n-i) / float64(n)
			}
			if p := w.errors; w.bursts > 0 && failing && r.Float64() < min(p*w.bursts*10, 1) || w.bursts == 0 && r.Float64() < p {
				failed++
			}
			ds = append(ds, time.Duration(v*1e6))
		}
		out.Slices = append(out.Slices, Slice{Calls: uint64(n), Failed: failed, Response: binsOf(stats.Of(ds...))})
		out.Total.Calls += uint64(n)
	}
	return out
}

// poisson draws a Poisson number around mean by counting exponential gaps.
func poisson(r *rand.Rand, mean float64) (n int) {
	for at := r.ExpFloat64(); at < mean; at += r.ExpFloat64() {
		n++
	}
	return n
}

// verdicts compares n pairs of runs and counts what is said, over all and by metric.
func verdicts(a, b world, n int) (overall map[Verdict]int, by map[string]map[Verdict]int) {
	overall, by = map[Verdict]int{}, map[string]map[Verdict]int{}
	for i := range n {
		c := Compare([]Report{a.simulate(uint64(2*i) + 1)}, []Report{b.simulate(uint64(2*i) + 2)}, CompareOptions{})
		overall[c.Verdict]++
		for _, d := range c.Deltas {
			if by[d.Metric] == nil {
				by[d.Metric] = map[Verdict]int{}
			}
			by[d.Metric][d.Verdict]++
		}
	}
	return overall, by
}

// quiet is 200 calls a second for a minute.
var quiet = world{rate: 200, seconds: 60, errors: 0.002}

func (w world) with(change func(*world)) world {
	change(&w)
	return w
}

var grid = []struct {
	name string
	a, b world
}{
	{"same", quiet, quiet},
	{"same, 20 s", quiet.with(func(w *world) { w.seconds = 20 }), quiet.with(func(w *world) { w.seconds = 20 })},
	{"same, 300 s", quiet.with(func(w *world) { w.seconds = 300 }), quiet.with(func(w *world) { w.seconds = 300 })},
	{"same, drift 5%", quiet.with(func(w *world) { w.drift = 0.05 }), quiet.with(func(w *world) { w.drift = 0.05 })},
	{"same, drift 10%", quiet.with(func(w *world) { w.drift = 0.1 }), quiet.with(func(w *world) { w.drift = 0.1 })},
	{"same, stalls", quiet.with(func(w *world) { w.stall = 10 }), quiet.with(func(w *world) { w.stall = 10 })},
	{"same, bursts of errors", quiet.with(func(w *world) { w.errors, w.bursts = 0.01, 2 }), quiet.with(func(w *world) { w.errors, w.bursts = 0.01, 2 })},
	{"all +10%", quiet, quiet.with(func(w *world) { w.scale = 1.1 })},
	{"all +20%", quiet, quiet.with(func(w *world) { w.scale = 1.2 })},
	{"all -20%", quiet, quiet.with(func(w *world) { w.scale = 0.8 })},
	{"2% of calls +200 ms", quiet, quiet.with(func(w *world) { w.tail = 0.02 })},
	{"errors 0.2% to 2%", quiet, quiet.with(func(w *world) { w.errors = 0.02 })},
}

// BenchmarkVerdicts says how often each verdict is given, of 200 pairs of runs. Run it with -benchtime 1x.
func BenchmarkVerdicts(b *testing.B) {
	for _, c := range grid {
		b.Run(c.name, func(b *testing.B) {
			var overall map[Verdict]int
			for b.Loop() {
				overall, _ = verdicts(c.a, c.b, 200)
			}
			for _, v := range []Verdict{Regression, Improvement, NoDifference, Inconclusive} {
				b.ReportMetric(float64(overall[v])/2, strings.ReplaceAll(string(v), " ", "_")+"_%")
			}
		})
	}
}

func TestEqualSystemsAreSeldomCalledDifferent(t *testing.T) {
	for _, c := range []struct {
		name string
		most int // of 60
	}{{"same", 0}, {"same, drift 5%", 4}, {"same, stalls", 0}} {
		for _, g := range grid {
			if g.name != c.name {
				continue
			}
			if overall, _ := verdicts(g.a, g.b, 60); overall[Regression]+overall[Improvement] > c.most {
				t.Errorf("%s: %v; want at most %d differences", g.name, overall, c.most)
			}
		}
	}
}

func TestLongRunsOfEqualSystemsAreCalledEqual(t *testing.T) {
	overall, by := verdicts(grid[2].a, grid[2].b, 10)
	if overall[NoDifference] != 10 || by["p99.9"][NoDifference] > 10 {
		t.Errorf("%v; want no difference in all 10", overall)
	}
}

func TestDifferencesAreFoundWhereTheyAre(t *testing.T) {
	for _, c := range []struct {
		grid   int
		metric string
		want   Verdict
		none   []string // metrics of which it is not said
	}{
		{8, "p50", Regression, []string{"errors", "throughput"}},
		{9, "p50", Improvement, []string{"errors", "throughput"}},
		{10, "p99", Regression, []string{"p50", "errors", "throughput"}},
		{11, "errors", Regression, []string{"p50", "p95", "throughput"}},
	} {
		overall, by := verdicts(grid[c.grid].a, grid[c.grid].b, 20)
		if by[c.metric][c.want] != 20 || c.want == Regression && overall[Regression] != 20 || c.want == Improvement && overall[Regression] > 0 {
			t.Errorf("%s: %v, of %s %v; want %s each time", grid[c.grid].name, overall, c.metric, by[c.metric], c.want)
		}
		for _, m := range c.none {
			if by[m][c.want] > 0 {
				t.Errorf("%s: %s of %s, which did not change", grid[c.grid].name, c.want, m)
			}
		}
	}
}

// Each start of a program is a little faster or slower than the one before: one run of each side cannot know that.
func TestRunsOfASideTellHowMuchRunsDiffer(t *testing.T) {
	w := world{rate: 100, seconds: 40, between: 0.1}
	one, several := 0, 0
	for i := range 30 {
		var a, b []Report
		for k := range 4 {
			seed := uint64(i*100 + k*2)
			a, b = append(a, w.simulate(seed)), append(b, w.simulate(seed+1))
		}
		if Compare(a[:1], b[:1], CompareOptions{}).Deltas[0].Verdict != Inconclusive {
			one++
		}
		if v := Compare(a, b, CompareOptions{}).Deltas[0].Verdict; v == Regression || v == Improvement {
			several++
		}
	}
	if one < 10 || several > 3 {
		t.Errorf("of 30: %d with one run a side, %d with four; want many and few", one, several)
	}
}

func TestEqualRunsDoNotDiffer(t *testing.T) {
	r := quiet.simulate(1)
	c := Compare([]Report{r}, []Report{r}, CompareOptions{})
	for _, d := range c.Deltas {
		if math.Abs(d.Change.At) > 1e-12 || d.Change.Low > 0 || d.Change.High < 0 && !d.Change.Open {
			t.Errorf("%s: %+v", d.Metric, d.Change)
		}
	}
}

func TestRunsThatProveNothingAreRefused(t *testing.T) {
	good := quiet.simulate(1)
	for _, c := range []struct {
		want   string
		change func(*Report)
	}{
		{"run 1 of next is invalid: late", func(r *Report) { r.Valid, r.Doubts = false, []string{"late"} }},
		{"interrupted", func(r *Report) { r.Interrupted = true }},
		{"rate 0 and 5", func(r *Report) { r.Workload.Rate = 5 }},
		{"connections 0 and 3", func(r *Report) { r.Workload.Connections = 3 }},
		{"no call", func(r *Report) { r.Total.Calls = 0 }},
	} {
		bad := good
		c.change(&bad)
		got := Compare([]Report{good}, []Report{bad}, CompareOptions{})
		if got.Verdict != Inconclusive || len(got.Refused) == 0 || !strings.Contains(strings.Join(got.Refused, "\n"), c.want) || len(got.Deltas) > 0 {
			t.Errorf("%s, refused %q, %d deltas; want it refused for %q", got.Verdict, got.Refused, len(got.Deltas), c.want)
		}
		forced := Compare([]Report{good}, []Report{bad}, CompareOptions{Force: true})
		if len(forced.Refused) > 0 || len(forced.Warnings) == 0 || len(forced.Deltas) != len(Metrics) {
			t.Errorf("forced: refused %q, warned %q", forced.Refused, forced.Warnings)
		}
	}
	if got := Compare(nil, []Report{good}, CompareOptions{Force: true}); len(got.Deltas) > 0 && got.Verdict != Inconclusive {
		t.Errorf("no run against one is %s", got.Verdict)
	}
}

func TestFewCallsProveNothingOfTheTail(t *testing.T) {
	w := world{rate: 5, seconds: 30}
	c := Compare([]Report{w.simulate(1)}, []Report{w.with(func(w *world) { w.scale = 3 }).simulate(2)}, CompareOptions{})
	for _, d := range c.Deltas {
		if d.Metric == "p99" && (d.Verdict != Inconclusive || !strings.Contains(d.Reason, "too few calls")) {
			t.Errorf("p99 of 150 calls is %s: %s", d.Verdict, d.Reason)
		}
		if d.Metric == "p50" && d.Verdict != Regression {
			t.Errorf("a median three times as long is %s", d.Verdict)
		}
	}
}

func TestQuantilesOfStudentAreThoseOfTheTables(t *testing.T) {
	for _, c := range []struct{ level, df, want float64 }{
		{0.975, 1, 12.706}, {0.975, 2, 4.303}, {0.975, 3, 3.182}, {0.975, 5, 2.571}, {0.975, 30, 2.042}, {0.95, 4, 2.132}, {0.99, 10, 2.764}, {0.975, 1e6, 1.960},
	} {
		if got := student(c.level, c.df); math.Abs(got/c.want-1) > 0.005 {
			t.Errorf("t(%g, %g) is %.4f; want %.3f", c.level, c.df, got, c.want)
		}
	}
}

func TestBinsKeepWhatAHistogramCounted(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var h stats.Histogram
	for range 5000 {
		h.Record(time.Duration(math.Exp(18 * r.Float64())))
	}
	s := h.Snapshot()
	b := binsOf(s)
	if b.Count() != s.Count() || b.check() != nil {
		t.Fatalf("%d of %d, %v", b.Count(), s.Count(), b.check())
	}
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		if got, want := b.Quantile(q), s.Quantile(q); got != want {
			t.Errorf("quantile %g is %s; the histogram says %s", q, got, want)
		}
		bin, into, ok := b.quantile(q)
		if d := math.Exp(point(bin, into)) * 1e9; !ok || s.Quantile(q) > 2*time.Microsecond && math.Abs(d/float64(s.Quantile(q))-1) > 0.012 {
			t.Errorf("quantile %g lies at %g ns; the histogram says %s", q, d, s.Quantile(q))
		}
	}
	both := b.merge(Bins{Zero: 3, First: 5, Counts: []uint64{1, 2}})
	if both.Count() != b.Count()+6 {
		t.Errorf("merged %d and 6 to %d", b.Count(), both.Count())
	}
}

package retry

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
)

// straggler draws from lognormal(mean 5 ms, deviation 2 ms), 5 % of it ten times as slow.
func straggler(r *rand.Rand) time.Duration {
	s := math.Sqrt(math.Log(1 + 0.4*0.4))
	v := math.Exp(math.Log(5) - s*s/2 + s*r.NormFloat64())
	if r.Float64() < 0.05 {
		v *= 10
	}
	return time.Duration(v * 1e6)
}

func TestHedgeDelayMinimisesThePredictedTail(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := New(Config{Hedge: &Hedge{BudgetRatio: 0.08}})
	for range 50_000 {
		p.Observe(t0, call.Outcome{Latency: straggler(r)})
	}
	after, ok := p.HedgeAfter(t0, 1, idem)
	if !ok {
		t.Fatal("no hedge")
	}
	curve := survival(p.delay.samples.Load().finished.Snapshot(t0), stats.Snapshot{})
	extra, plain, promise := above(curve, after), promise(curve, math.MaxInt64, 0.01), promise(curve, after, 0.01)
	t.Logf("delay %v, extra %.1f %%, p99 %v -> %v", after, 100*extra, plain, promise)
	if extra > 0.08*headroom+1e-6 {
		t.Errorf("%.1f %% of the calls would send a copy, the budget is 8 %%", 100*extra)
	}
	if plain < 60*time.Millisecond || plain > 68*time.Millisecond || promise > 17500*time.Microsecond {
		t.Errorf("p99 %v -> %v; want 64 ms -> at most 17.5 ms", plain, promise)
	}
}

func TestHedgeWaitsForSamples(t *testing.T) {
	p := New(Config{Hedge: &Hedge{}})
	r := rand.New(rand.NewPCG(1, 2))
	for range minSamples - 1 {
		p.Observe(t0, call.Outcome{Latency: straggler(r)})
	}
	if d, ok := p.HedgeAfter(t0, 1, idem); ok {
		t.Error("hedges after", d, "with too few samples")
	}
	for range 1000 {
		p.Observe(t0, call.Outcome{Latency: straggler(r)})
	}
	if _, ok := p.HedgeAfter(t0.Add(renewEvery-1), 1, idem); ok {
		t.Error("renewed too early")
	}
	if _, ok := p.HedgeAfter(t0.Add(renewEvery), 1, idem); !ok {
		t.Error("not renewed")
	}
	if _, ok := p.HedgeAfter(t0.Add(time.Minute), 1, idem); ok {
		t.Error("hedges by latencies that are a minute old")
	}
}

func TestNoHedgeWhereItDoesNotHelp(t *testing.T) {
	for name, latency := range map[string]func(i int) time.Duration{
		"all alike":       func(int) time.Duration { return 10 * time.Millisecond },
		"always slow":     func(i int) time.Duration { return time.Duration(1000+i%20) * time.Millisecond },
		"sub-millisecond": func(i int) time.Duration { return time.Duration(10+i%500) * time.Microsecond },
	} {
		p := New(Config{Hedge: &Hedge{}})
		for i := range 5000 {
			p.Observe(t0, call.Outcome{Latency: latency(i)})
		}
		if d, ok := p.HedgeAfter(t0, 1, idem); ok {
			t.Errorf("%s: hedges after %v", name, d)
		}
	}
}

func TestHedgeOnlyWhatMayBeSentTwice(t *testing.T) {
	p := New(Config{MaxAttempts: 2, Hedge: &Hedge{After: time.Second}})
	if d, ok := p.HedgeAfter(t0, 1, idem); !ok || d != time.Second {
		t.Error(d, ok)
	}
	if _, ok := p.HedgeAfter(t0, 1, call.Info{}); ok {
		t.Error("hedges a call that is not idempotent")
	}
	if _, ok := p.HedgeAfter(t0, 2, idem); ok {
		t.Error("hedges beyond MaxAttempts")
	}
}

// Why no fixed quantile will do: two that look alike differ by half in what they achieve.
func TestAFixedQuantileMissesTheBestDelay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h stats.Histogram
	for range 200_000 {
		h.Record(straggler(r))
	}
	s := h.Snapshot()
	curve := survival(s, stats.Snapshot{})
	at95, at93 := promise(curve, s.Quantile(0.95), 0.01), promise(curve, s.Quantile(0.93), 0.01)
	t.Logf("p99 hedged at p95: %v, at p93: %v", at95, at93)
	if at95 < 24*time.Millisecond || at93 > 17500*time.Microsecond {
		t.Error("want about 25 ms and 17 ms")
	}
}

// Losers are given up at the age at which the winner was there. Taken as finished, they would make the distribution,
// and with it the delay, shrink with every round.
func TestCensoredLosersDoNotDragTheDelayDown(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const hedgeAt = 12 * time.Millisecond
	var done, lost []time.Duration
	truth := 0
	const n = 100_000
	for range n {
		a := straggler(r)
		if a > 40*time.Millisecond {
			truth++
		}
		if a <= hedgeAt {
			done = append(done, a)
			continue
		}
		if b := straggler(r); hedgeAt+b < a {
			done, lost = append(done, b), append(lost, hedgeAt+b)
		} else {
			done, lost = append(done, a), append(lost, a-hedgeAt)
		}
	}
	curve := survival(stats.Of(done...), stats.Of(lost...))
	got, want := above(curve, 40*time.Millisecond), float64(truth)/n
	naive := survival(stats.Of(append(done, lost...)...), stats.Snapshot{})
	t.Logf("share above 40 ms: %.2f %%, estimated %.2f %%, naively %.2f %%", 100*want, 100*got, 100*above(naive, 40*time.Millisecond))
	if math.Abs(got-want) > 0.1*want {
		t.Errorf("share above 40 ms estimated as %.4f, is %.4f", got, want)
	}
}

func TestFastFailuresDoNotCount(t *testing.T) {
	p := New(Config{Hedge: &Hedge{}})
	for range 1000 {
		p.Observe(t0, call.Outcome{Class: call.Server, Latency: time.Microsecond})
		p.Observe(t0, call.Outcome{Class: call.Refused, Latency: time.Microsecond})
		p.Observe(t0, call.Outcome{Class: call.Shed})
	}
	if n := p.delay.samples.Load().finished.Snapshot(t0).Count(); n != 0 {
		t.Errorf("%d failures were taken as latencies", n)
	}
}

func TestReconfigureToAnAdaptiveDelay(t *testing.T) {
	p := New(Config{})
	p.Observe(t0, call.Outcome{Latency: time.Second})
	p.Reconfigure(Config{Hedge: &Hedge{}})
	p.Observe(t0, call.Outcome{Latency: time.Second})
	if _, ok := p.HedgeAfter(t0, 1, idem); ok {
		t.Error("hedges after one sample")
	}
}

func BenchmarkChooseDelay(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var h stats.Histogram
	for range 100_000 {
		h.Record(straggler(r))
	}
	for b.Loop() {
		choose(survival(h.Snapshot(), stats.Snapshot{}), 0.1, 0.01)
	}
}

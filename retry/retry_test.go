package retry

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"pgregory.net/rapid"
)

var (
	t0     = time.Unix(1_700_000_000, 0)
	idem   = call.Info{Idempotent: true}
	failed = call.Outcome{Class: call.Server}
)

func rich(c Config) *Policy { // whose budget never matters
	c.MinPerSecond = 1e6
	return New(c)
}

func TestRetryPausesDouble(t *testing.T) {
	p := rich(Config{MaxAttempts: 10, BaseDelay: 20 * time.Millisecond, MaxDelay: 200 * time.Millisecond})
	for made, ceiling := range []time.Duration{1: 20e6, 2: 40e6, 3: 80e6, 4: 160e6, 5: 200e6, 6: 200e6, 9: 200e6} {
		if ceiling == 0 {
			continue
		}
		for _, draw := range []struct {
			rand uint64
			want time.Duration
		}{{0, 0}, {uint64(ceiling), ceiling}, {uint64(ceiling) / 2, ceiling / 2}, {uint64(ceiling) + 1, 0}} {
			p.rand = func() uint64 { return draw.rand }
			if got, err := p.Next(t0, made, idem, failed); err != nil || got != draw.want {
				t.Errorf("after %d attempts and draw %d: pause %v, %v; want %v", made, draw.rand, got, err, draw.want)
			}
		}
	}
}

func TestRetryBackoffNeverOverflows(t *testing.T) {
	p := rich(Config{MaxAttempts: 10, BaseDelay: 100 * time.Hour, MaxDelay: 200 * time.Hour})
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Uint64().Draw(t, "rand")
		p.rand = func() uint64 { return draw }
		made := rapid.IntRange(1, 9).Draw(t, "made")
		if got, err := p.Next(t0, made, idem, failed); err != nil || got < 0 || got > 200*time.Hour {
			t.Fatal(got, err)
		}
	})
}

func TestRetryOnlyWhatIsSafeAndWorthIt(t *testing.T) {
	post := call.Info{}
	for _, tt := range []struct {
		name string
		made int
		info call.Info
		out  call.Outcome
		want error
	}{
		{"idempotent server failure", 1, idem, failed, nil},
		{"idempotent timeout", 1, idem, call.Outcome{Class: call.Timeout}, nil},
		{"refused is safe for all", 1, post, call.Outcome{Class: call.Refused}, nil},
		{"not idempotent", 1, post, failed, ErrNoMore},
		{"not idempotent timeout", 1, post, call.Outcome{Class: call.Timeout}, ErrNoMore},
		{"success", 1, idem, call.Outcome{}, ErrNoMore},
		{"the caller's fault", 1, idem, call.Outcome{Class: call.Client}, ErrNoMore},
		{"caller gone", 1, idem, call.Outcome{Class: call.Canceled}, ErrNoMore},
		{"shed by us", 1, idem, call.Outcome{Class: call.Shed}, ErrNoMore},
		{"the last attempt", 3, idem, failed, ErrNoMore},
		{"pushback within reason", 1, idem, call.Outcome{Class: call.Server, Pushback: MaxPushback}, nil},
		{"pushback too long", 1, idem, call.Outcome{Class: call.Server, Pushback: MaxPushback + 1}, ErrNoMore},
		{"pushback that says never", 1, idem, call.Outcome{Class: call.Server, Pushback: -1}, ErrNoMore},
	} {
		p := rich(Config{})
		if _, err := p.Next(t0, tt.made, tt.info, tt.out); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	off := rich(Config{Off: true, Hedge: &Hedge{After: 1}})
	if _, err := off.Next(t0, 1, idem, failed); !errors.Is(err, ErrNoMore) {
		t.Error("off:", err)
	}
	if _, ok := off.HedgeAfter(t0, 1, idem); ok || off.Hedge(t0) {
		t.Error("off: hedges")
	}
}

func TestPushbackIsTheLeastPause(t *testing.T) {
	p := rich(Config{BaseDelay: 10 * time.Millisecond})
	p.rand = func() uint64 { return 7e6 }
	got, err := p.Next(t0, 1, idem, call.Outcome{Class: call.Server, Pushback: 2 * time.Second})
	if err != nil || got != 2007*time.Millisecond {
		t.Error(got, err)
	}
}

func TestBudgetAllowsTheReserveAndTheRatio(t *testing.T) {
	p := New(Config{MaxAttempts: 10, BudgetRatio: 0.2, MinPerSecond: 0.5})
	for range 100 {
		p.Begin(t0)
	}
	n := 0
	for ; n < 1000; n++ {
		if _, err := p.Next(t0, 1, idem, failed); err != nil {
			if !errors.Is(err, ErrBudget) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != 25 { // 20 % of 100, and 0.5/s for 10 s
		t.Errorf("%d retries, want 25", n)
	}
	if p.Refused() != 1 {
		t.Errorf("%d refusals are counted, want the one", p.Refused())
	}
	later := t0.Add(window + slotWidth)
	n = 0
	for ; p.budget.spend(later, p.cfg.Load(), false); n++ {
	}
	if n != 5 {
		t.Errorf("%d retries when the window is empty, want the 5 of the reserve", n)
	}
}

func TestHedgesHaveTheirOwnBudgetAndSpendTheShared(t *testing.T) {
	p := New(Config{BudgetRatio: 0.2, MinPerSecond: 1e-9, Hedge: &Hedge{After: 1, BudgetRatio: 0.05}})
	for range 1000 {
		p.Begin(t0)
	}
	hedges, retries := 0, 0
	for p.Hedge(t0) {
		hedges++
	}
	for p.budget.spend(t0, p.cfg.Load(), false) {
		retries++
	}
	if hedges != 50 || retries != 150 {
		t.Errorf("%d hedges, %d retries; want 50 and 150", hedges, retries)
	}
	if New(Config{Hedge: &Hedge{After: 1}}).Hedge(t0) {
		t.Error("a hedge came from the reserve, which is for retries")
	}
}

func TestBudgetIsExactUnderConcurrency(t *testing.T) {
	p := New(Config{BudgetRatio: 0.2, MinPerSecond: 1e-9})
	var spent atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				p.Begin(t0)
			}
		})
	}
	wg.Wait()
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, err := p.Next(t0, 1, idem, failed); err == nil {
					spent.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := spent.Load(); n != 1600 {
		t.Errorf("%d retries of 8000 calls at 20 %%, want 1600", n)
	}
}

// The property for which the budget is there: in an outage, when every attempt fails, the extra load stays bounded in
// every 10 s that end with an extra attempt.
func TestBudgetHoldsInAnyTenSecondsOfAnOutage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			MaxAttempts:  10,
			BudgetRatio:  rapid.Float64Range(0.01, 1).Draw(t, "ratio"),
			MinPerSecond: rapid.Float64Range(0.001, 2).Draw(t, "reserve"),
			Hedge:        &Hedge{After: 1, BudgetRatio: rapid.Float64Range(0.01, 1).Draw(t, "hedge ratio")},
		}
		p := New(c)
		gap := rapid.IntRange(50, 500).Draw(t, "mean gap in ms")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var firsts, extras, hedges []time.Time
		for now := t0; now.Before(t0.Add(25 * time.Second)); now = now.Add(time.Duration(r.ExpFloat64() * float64(gap) * 1e6)) {
			p.Begin(now)
			firsts = append(firsts, now)
			for made := 1; made < 10; made++ {
				if r.IntN(2) == 0 && p.Hedge(now) {
					extras, hedges = append(extras, now), append(hedges, now)
				} else if _, err := p.Next(now, made, idem, failed); err == nil {
					extras = append(extras, now)
				}
			}
			if len(extras) == 0 || !extras[len(extras)-1].Equal(now) {
				continue
			}
			f := float64(within(firsts, now))
			if n := within(extras, now); float64(n) > c.BudgetRatio*f+c.MinPerSecond*10 {
				t.Fatalf("%d extra attempts and %v first ones in 10 s", n, f)
			}
			if n := within(hedges, now); len(hedges) > 0 && hedges[len(hedges)-1].Equal(now) && float64(n) > c.Hedge.BudgetRatio*f {
				t.Fatalf("%d hedges and %v first attempts in 10 s", n, f)
			}
		}
	})
}

// The same while many callers spend at once: in each step of time all goroutines begin calls, retry and hedge as often
// as they are let, and every 10 s that end with an extra attempt are counted afterwards.
func TestBudgetHoldsInAnyTenSecondsUnderConcurrency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			MaxAttempts:  10,
			BudgetRatio:  rapid.Float64Range(0.01, 0.5).Draw(t, "ratio"),
			MinPerSecond: rapid.Float64Range(0.001, 2).Draw(t, "reserve"),
			Hedge:        &Hedge{After: 1, BudgetRatio: rapid.Float64Range(0.01, 0.5).Draw(t, "hedge ratio")},
		}
		p := New(c)
		type step struct {
			at             time.Duration
			firsts, extras int64
		}
		var steps []step
		for at := time.Duration(0); at < 25*time.Second; at += time.Duration(rapid.IntRange(10, 2000).Draw(t, "gap")) * ms {
			var extras atomic.Int64
			calls := rapid.IntRange(0, 20).Draw(t, "calls")
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					for range calls {
						p.Begin(t0.Add(at))
					}
					for i := range 30 {
						if (g+i)%2 == 0 && p.Hedge(t0.Add(at)) {
							extras.Add(1)
						} else if _, err := p.Next(t0.Add(at), 1, idem, failed); err == nil {
							extras.Add(1)
						}
					}
				})
			}
			wg.Wait()
			steps = append(steps, step{at, int64(4 * calls), extras.Load()})
			var all step
			for _, s := range steps {
				if at-s.at < window {
					all.firsts, all.extras = all.firsts+s.firsts, all.extras+s.extras
				}
			}
			if steps[len(steps)-1].extras > 0 && float64(all.extras) > c.BudgetRatio*float64(all.firsts)+10*c.MinPerSecond {
				t.Fatalf("%d extra attempts and %d first ones in 10 s", all.extras, all.firsts)
			}
		}
	})
}

// within counts those of the last 10 s.
func within(times []time.Time, now time.Time) (n int) {
	for n < len(times) && now.Sub(times[len(times)-1-n]) < window {
		n++
	}
	return n
}

func TestBudgetSurvivesAClockThatStepsBack(t *testing.T) {
	p := New(Config{BudgetRatio: 0.5, MinPerSecond: 1e-9})
	for i := range 100 {
		p.Begin(t0.Add(-time.Duration(i) * time.Hour))
	}
	n := 0
	for p.budget.spend(t0.Add(-time.Hour), p.cfg.Load(), false) {
		n++
	}
	if n != 50 {
		t.Errorf("%d, want 50", n)
	}
}

func TestReconfigureKeepsTheBudget(t *testing.T) {
	p := New(Config{BudgetRatio: 0.1, MinPerSecond: 1e-9})
	for range 100 {
		p.Begin(t0)
	}
	for range 10 {
		if _, err := p.Next(t0, 1, idem, failed); err != nil {
			t.Fatal(err)
		}
	}
	p.Reconfigure(Config{BudgetRatio: 0.2, MinPerSecond: 1e-9})
	n := 0
	for p.budget.spend(t0, p.cfg.Load(), false) {
		n++
	}
	if n != 10 {
		t.Errorf("%d more, want 10", n)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{
		MaxAttempts: 11, BaseDelay: -1, MaxDelay: -1, BudgetRatio: 2, MinPerSecond: -1,
		Hedge: &Hedge{After: -1, BudgetRatio: -1, Quantile: 0.3},
	}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 8 {
		t.Errorf("%v: want 8 faults", err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Hedge: &Hedge{}}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	p := New(Config{Hedge: &Hedge{After: time.Second}})
	if n := testing.AllocsPerRun(1000, func() {
		p.Begin(t0)
		p.HedgeAfter(t0, 1, idem)
		p.Hedge(t0)
		p.Observe(t0, failed)
		p.Next(t0, 1, idem, failed)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkACallThatMayBeHedged(b *testing.B) {
	p := New(Config{Hedge: &Hedge{}})
	out := call.Outcome{Latency: time.Millisecond}
	for b.Loop() {
		p.Begin(t0)
		p.HedgeAfter(t0, 1, idem)
		p.Observe(t0, out)
	}
}

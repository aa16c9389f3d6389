package policies

import (
	"context"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"github.com/sony/gobreaker/v2"
)

// work answers at once, as the functions given to the peers do. contextual has no deadlines of its own.
type contextual struct{ n int }

func (w *contextual) Try(context.Context, longpole.Attempt) (*int, error) { return &w.n, nil }
func (w *contextual) Judge(*int, error) call.Outcome                      { return call.Outcome{} }
func (w *contextual) Discard(*int)                                        {}
func (w *contextual) Hold(r *int, release func()) *int                    { release(); return r }

type timed struct{ contextual }

func (*timed) KeepsDeadline() {}

var info = call.Info{Route: "bench", Idempotent: true}

func policy(b *testing.B, c longpole.Config, endpoints ...string) *longpole.Policy {
	var set *balance.Set
	if len(endpoints) > 0 {
		set = balance.NewSet(endpoints...)
	}
	p, err := longpole.New(c, set)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

func both(b *testing.B, f func()) { each(b, func() func() { return f }) }

// each runs what make returns in one goroutine, then in several, each with its own.
func each(b *testing.B, make func() func()) {
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		f := make()
		for b.Loop() {
			f()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			f := make()
			for pb.Next() {
				f()
			}
		})
	})
}

// do runs calls with a record and a histogram, as a program would.
func do[W longpole.Work[*int]](b *testing.B, p *longpole.Policy, w W) {
	ctx := context.Background()
	var h stats.Histogram
	each(b, func() func() {
		rec := new(call.Record) // of a caller that uses it again
		return func() {
			rec.Count = 0
			if _, err := longpole.Do(ctx, p, info, rec, w); err != nil {
				b.Error(err)
			}
			h.Record(rec.Latency)
		}
	})
}

func BenchmarkChain(b *testing.B) {
	four := longpole.Config{Timeout: time.Second, Limit: &limit.Config{}, Retry: &retry.Config{}, Breaker: &breaker.Config{}}
	b.Run("longpole", func(b *testing.B) { do(b, policy(b, four), &timed{}) })
	b.Run("longpole-context", func(b *testing.B) { do(b, policy(b, four), &contextual{}) })
	more := four
	more.Balance = &balance.Config{Algorithm: balance.PeakEWMA, Eject: &balance.Eject{}}
	more.Limit = &limit.Config{Queue: &limit.Queue{}, Rate: &limit.Rate{PerSecond: 1e9}}
	b.Run("longpole-all", func(b *testing.B) { do(b, policy(b, more, "a", "b", "c"), &timed{}) })
	b.Run("failsafe", func(b *testing.B) {
		x := failsafe.With[int](
			retrypolicy.NewBuilder[int]().WithBudget(budget.New()).Build(),
			circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build(),
			adaptivelimiter.NewBuilder[int]().Build(),
			timeout.New[int](time.Second),
		)
		get := func() (int, error) { return 1, nil }
		both(b, func() {
			if _, err := x.Get(get); err != nil {
				b.Error(err)
			}
		})
	})
}

func BenchmarkBreaker(b *testing.B) {
	b.Run("longpole", func(b *testing.B) {
		br := breaker.New(breaker.Config{})
		now := time.Now()
		both(b, func() {
			if br.Allow(now) == nil {
				br.Record(now, call.Outcome{Latency: 1})
			}
		})
	})
	b.Run("longpole-clock", func(b *testing.B) {
		br := breaker.New(breaker.Config{})
		both(b, func() {
			now := time.Now()
			if br.Allow(now) == nil {
				took := time.Since(now)
				br.Record(now.Add(took), call.Outcome{Latency: took})
			}
		})
	})
	b.Run("gobreaker", func(b *testing.B) {
		br := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
		get := func() (int, error) { return 1, nil }
		both(b, func() { _, _ = br.Execute(get) })
	})
	b.Run("failsafe", func(b *testing.B) {
		br := circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build()
		both(b, func() {
			if br.TryAcquirePermit() {
				br.RecordSuccess()
			}
		})
	})
}

func BenchmarkLimiter(b *testing.B) {
	b.Run("longpole", func(b *testing.B) {
		l := limit.New(limit.Config{})
		both(b, func() {
			now := time.Now()
			if t := l.Admit(now, info, time.Time{}); t.Admitted() {
				took := time.Since(now)
				l.Done(now.Add(took), t, call.Outcome{Latency: took})
			}
		})
	})
	b.Run("failsafe", func(b *testing.B) {
		l := adaptivelimiter.NewBuilder[int]().Build()
		both(b, func() {
			if p, ok := l.TryAcquirePermit(); ok {
				p.Record()
			}
		})
	})
}

func BenchmarkRetryThatIsNotNeeded(b *testing.B) {
	b.Run("longpole", func(b *testing.B) { do(b, policy(b, longpole.Config{Retry: &retry.Config{}}), &contextual{}) })
	b.Run("failsafe", func(b *testing.B) {
		x := failsafe.With[int](retrypolicy.NewBuilder[int]().WithBudget(budget.New()).Build())
		get := func() (int, error) { return 1, nil }
		both(b, func() { _, _ = x.Get(get) })
	})
}

func BenchmarkHedgeThatIsNotSent(b *testing.B) {
	b.Run("longpole", func(b *testing.B) {
		do(b, policy(b, longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{After: time.Second}}}, "a", "b"), &contextual{})
	})
	b.Run("failsafe", func(b *testing.B) {
		x := failsafe.With[int](hedgepolicy.NewWithDelay[int](time.Second))
		get := func() (int, error) { return 1, nil }
		both(b, func() { _, _ = x.Get(get) })
	})
}

func BenchmarkHistogram(b *testing.B) {
	var h stats.Histogram
	both(b, func() { h.Record(12 * time.Millisecond) })
}

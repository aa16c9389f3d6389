package longpole_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

func TestACallHasOnePermitWhateverItsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 20 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{Limit: &limit.Config{}, Retry: r}, "a", "b", "c")
		s := &script{steps: []step{fail10, {took: 100 * ms}, {took: 50 * ms}}}
		go func() {
			for range 8 {
				time.Sleep(9 * ms)
				if n := p.Limiter().InFlight(); n > 1 {
					t.Errorf("%d permits for one call", n)
				}
			}
		}()
		if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil || s.tries() != 3 {
			t.Error(err, s.tries())
		}
		if n := p.Limiter().InFlight(); n != 0 {
			t.Error(n, "permits after the head of the answer")
		}
		time.Sleep(time.Second)
	})
}

func TestRefusedCallsAreShedAndRefusedPermitsAreNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Limit: &limit.Config{Algorithm: limit.Fixed, Limit: 2, Max: 2}})
		s := &script{steps: []step{ok10}}
		var shed, ok int
		var mu sync.Mutex
		var run sync.WaitGroup
		for range 5 {
			run.Go(func() {
				var rec call.Record
				_, err := longpole.Do(t.Context(), p, idem, &rec, s)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					ok++
				case errors.Is(err, limit.ErrShed) && longpole.Class(err) == call.Shed && rec.Class == call.Shed && rec.Count == 0:
					shed++
				default:
					t.Error(err)
				}
			})
		}
		run.Wait()
		if ok != 2 || shed != 3 || p.Limiter().InFlight() != 0 {
			t.Error(ok, shed, p.Limiter().InFlight())
		}
	})
}

func TestARateSaysWhenToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Limit: &limit.Config{Algorithm: limit.None, Rate: &limit.Rate{PerSecond: 2, Burst: 1}}})
		s := &script{steps: []step{ok10}}
		_, _ = longpole.Do(t.Context(), p, idem, nil, s)
		var own *longpole.Error
		if _, err := longpole.Do(t.Context(), p, idem, nil, s); !errors.As(err, &own) || !errors.Is(err, limit.ErrRate) || own.Pushback.Round(ms) != 490*ms {
			t.Errorf("%v %+v", err, own)
		}
	})
}

func TestWhoWaitsLeavesWithItsContextAndItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: 300 * ms, Limit: one()})
		s := &script{steps: []step{ok10}}
		held := p.Limiter().Admit(time.Now(), call.Info{}, time.Time{})
		var rec call.Record
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*ms, cancel)
		if _, err := longpole.Do(ctx, p, idem, &rec, s); longpole.Class(err) != call.Canceled || rec.QueueWait != 100*ms {
			t.Error(err, rec.QueueWait)
		}
		start := time.Now()
		if _, err := longpole.Do(t.Context(), p, idem, &rec, s); err == nil || time.Since(start) > 300*ms {
			t.Error(err, time.Since(start))
		}
		if s.tries() != 0 || p.Limiter().Queued() != 0 {
			t.Error(s.tries(), p.Limiter().Queued())
		}
		p.Limiter().Done(time.Now(), held, call.Outcome{})
	})
}

func TestNoHedgeWhileShedding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{Limit: &limit.Config{Algorithm: limit.Fixed, Limit: 2, Max: 2}, Retry: r}, "a", "b")
		run := func() int {
			s := &script{steps: []step{{took: 100 * ms}}}
			if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil {
				t.Error(err)
			}
			return s.tries()
		}
		if run() != 2 {
			t.Error("no hedge in peace")
		}
		go func() { // sheds one while the other runs
			s := &script{steps: []step{{took: 30 * ms}}}
			var two sync.WaitGroup
			for range 2 {
				two.Go(func() { _, _ = longpole.Do(t.Context(), p, call.Info{}, nil, s) })
			}
			two.Wait()
		}()
		if run() != 1 {
			t.Error("a hedge while calls are shed")
		}
		time.Sleep(2 * time.Second)
		if run() != 2 {
			t.Error("no hedge after it")
		}
	})
}

func TestTheLeaderOfAFillIsAdmittedAndAHitIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Second, StaleWhileRevalidate: time.Minute}, Limit: one()})
		s := &script{storable: true, steps: []step{ok10}}
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Miss)
		held := p.Limiter().Admit(time.Now(), call.Info{}, time.Time{})
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Hit)
		time.Sleep(2 * time.Second)
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Stale)
		synctest.Wait()
		if p.Limiter().Queued() != 1 {
			t.Error("the refresh does not wait for a permit")
		}
		p.Limiter().Done(time.Now(), held, call.Outcome{})
		time.Sleep(20 * ms)
		wantAnswer(t, t.Context(), p, s, "answer 2", call.Hit)
	})
}

func TestBeginGoesThroughAllStepsUpToTheTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, MinTry: 10 * ms, Limit: one(), Balance: inTurn, Breaker: &breaker.Config{MinCalls: 1}}, "a", "b")
		var rec call.Record
		b, err := longpole.Begin(t.Context(), p, idem, &rec)
		if err != nil || b.Attempt().Endpoint != "a" || time.Until(b.Attempt().Deadline) != time.Second || p.Limiter().InFlight() != 1 {
			t.Fatal(err)
		}
		time.Sleep(100 * ms)
		b.Head(call.Outcome{Class: call.Server})
		b.Head(call.Outcome{Class: call.OK}) // too late to count
		if p.Limiter().InFlight() != 0 || p.Breaker(time.Now(), "a") != breaker.Open || rec.Class != call.Server || rec.Latency != 100*ms || b.Context().Err() != nil {
			t.Errorf("%+v", rec)
		}
		b.Close()
		if b.Context().Err() == nil {
			t.Error("the context outlives the call")
		}
		b, err = longpole.Begin(t.Context(), p, idem, &rec)
		if err != nil || b.Attempt().Endpoint != "b" {
			t.Fatal(err)
		}
		b.Close()
		if rec.Class != call.Canceled || p.Limiter().InFlight() != 0 {
			t.Errorf("%+v", rec)
		}
		short, cancel := context.WithTimeout(t.Context(), 5*ms)
		defer cancel()
		if _, err := longpole.Begin(short, p, idem, nil); !errors.Is(err, longpole.ErrTooLate) {
			t.Error(err)
		}
		p.Limiter().Admit(time.Now(), call.Info{}, time.Time{})
		if _, err := longpole.Begin(t.Context(), p, idem, nil); err == nil || p.Limiter().Queued() != 0 {
			t.Error(err)
		}
	})
}

// reporting tells a load in its answers.
type reporting struct {
	instant
	places map[string]int
}

func (w *reporting) Try(_ context.Context, a longpole.Attempt) (*int, error) {
	w.places[a.Endpoint]++
	return &w.n, nil
}

func (w *reporting) Load(*int) (balance.Load, bool) { return balance.Load{RIF: 1, Latency: ms}, true }

func TestPrequalAsksInTheBackgroundWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Balance: &balance.Config{Algorithm: balance.Prequal}}, "a", "b", "c")
		var mu sync.Mutex
		running, most := 0, 0
		p.SetProber(func(ctx context.Context, endpoint string) (balance.Load, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-ctx.Done() // deaf and dumb
			mu.Lock()
			running--
			mu.Unlock()
			return balance.Load{}, ctx.Err()
		})
		w := &reporting{places: map[string]int{}}
		for range 100 {
			if _, err := longpole.Do(t.Context(), p, idem, nil, w); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if most != 64 {
			t.Errorf("%d probes at once, the bound is 64", most)
		}
		start := time.Now()
		p.Close()
		if running != 0 || time.Since(start) > 50*ms {
			t.Error(running, time.Since(start))
		}
	})
}

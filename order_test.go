package longpole_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// spare is a script with another answer.
type spare struct {
	storing
	fails bool
	took  time.Duration
}

func (s spare) Fallback(ctx context.Context, f longpole.Fallback, class call.Class, err error) (*answer, error) {
	timer := time.NewTimer(s.took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("fallback for %v", class)
	if s.fails {
		return nil, longpole.ErrNoFallback
	}
	return &answer{ctx: ctx, value: "spare", release: func() {}}, nil
}

// one is a limit of a single call, for which others wait.
func one() *limit.Config {
	return &limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1, Queue: &limit.Queue{Length: 10, Target: 10 * time.Second, MaxAge: 10 * time.Second}}
}

// The whole order in one picture: deadline, fault, cache, admit { retry { pick, breaker, try } }, fallback.
func TestOrderOfAllSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{
			Timeout: time.Second, Cache: &cache.Config{}, Limit: one(), Retry: &retry.Config{MaxAttempts: 2, BaseDelay: 1, MaxDelay: 1},
			Balance: inTurn, Breaker: &breaker.Config{}, Fallback: &longpole.Fallback{},
		}, "a", "b")
		s := spare{storing: storing{&script{storable: true, steps: []step{fail10, fail10, ok10}}}}
		s.begun = time.Now()
		p.Inject(func(_ context.Context, now time.Time, info call.Info) (time.Duration, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.note("fault slot of %s", info.Key)
			return 5 * ms, nil
		})
		permit := p.Limiter().Admit(time.Now(), call.Info{}, time.Time{})
		go func() {
			time.Sleep(100 * ms)
			s.mu.Lock()
			s.note("permit free")
			s.mu.Unlock()
			p.Limiter().Done(time.Now(), permit, call.Outcome{})
		}()
		do := func(key string) call.Record {
			var rec call.Record
			info := call.Info{Key: key, Idempotent: true}
			r, err := longpole.Do(t.Context(), p, info, &rec, s)
			if err != nil {
				t.Error(key, err)
				return rec
			}
			s.mu.Lock()
			s.note("%s has %s", key, r.value)
			s.mu.Unlock()
			r.close()
			return rec
		}
		first := do("k")
		second := do("k")
		third := do("k")
		want := `
   0 fault slot of k
 100 permit free
 100 try 1 at a
 110 1 ends: server
 110 try 2 at b
 120 2 ends: server
 120 fallback for server
 120 k has spare
 120 fault slot of k
 125 try 1 at a
 135 1 ends: ok
 135 keep 1: true
 135 open: miss
 135 k has answer 3
 135 fault slot of k
 140 open: hit
 140 k has answer 3`
		if got := "\n" + s.diagram(); got != want {
			t.Errorf("got%s\nwant%s", got, want)
		}
		if first.QueueWait != 95*ms || !first.Fallback || first.Class != call.Server || first.Latency.Truncate(ms) != 120*ms || first.Count != 2 || first.Attempts[1].Won {
			t.Errorf("%+v", first)
		}
		if second.QueueWait != 0 || second.Fallback || third.Cache != call.Hit || third.Latency != 5*ms {
			t.Errorf("%+v %+v", second, third)
		}
	})
}

func TestInjectedFaultsEndACallAsTheySay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: 100 * ms})
		s := &script{steps: []step{ok10}}
		var delay time.Duration
		var fault error
		p.Inject(func(context.Context, time.Time, call.Info) (time.Duration, error) { return delay, fault })
		for _, c := range []struct {
			delay time.Duration
			err   error
			class call.Class
			took  time.Duration
		}{
			{0, errFake, call.Server, 0},
			{50 * ms, &longpole.Error{Class: call.Refused, Err: errFake}, call.Refused, 50 * ms},
			{time.Hour, nil, call.Timeout, 100 * ms},
			{95 * ms, nil, call.Timeout, 100 * ms}, // the delay is of the call's time
			{90 * ms, nil, call.OK, 100 * ms},
		} {
			delay, fault = c.delay, c.err
			s.steps[0].took = 10 * ms
			if c.class == call.OK {
				s.steps[0].took = 9 * ms
				c.took = 99 * ms
			}
			start := time.Now()
			r, err := longpole.Do(t.Context(), p, idem, nil, s)
			if err == nil {
				r.close()
			}
			if longpole.Class(err) != c.class || time.Since(start) != c.took || c.err != nil && !errors.Is(err, longpole.ErrInjected) {
				t.Errorf("%+v: %v after %v", c, err, time.Since(start))
			}
		}
		p.Inject(nil)
		if d := took(func() { longpole.Do(t.Context(), p, idem, nil, s) }); d != 9*ms {
			t.Error(d)
		}
	})
}

func TestNoAttemptIsBegunWithTooLittleTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The first attempt ends with 30ms left: a second one would be in vain, and the failed answer is given as it is.
		p := policy(t, longpole.Config{Timeout: 100 * ms, MinTry: 50 * ms, Retry: atOnce()}, "a", "b")
		s := &script{steps: []step{{took: 70 * ms, out: call.Outcome{Class: call.Server}, answered: true}}}
		if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil || s.tries() != 1 {
			t.Error(err, s.tries())
		}
		short, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		var own *longpole.Error
		_, err := longpole.Do(short, p, idem, nil, s)
		if !errors.As(err, &own) || own.Class != call.Timeout || own.Attempts != 0 || !errors.Is(err, longpole.ErrTooLate) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// No copy either.
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 60 * ms, BudgetRatio: 1}
		p = policy(t, longpole.Config{Timeout: 100 * ms, MinTry: 50 * ms, Retry: r}, "a", "b")
		s = &script{steps: []step{{took: 90 * ms}}}
		if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil || s.tries() != 1 {
			t.Error(err, s.tries())
		}
	})
}

func TestAttemptsKnowTheirDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, TryTimeout: 300 * ms})
		start := time.Now()
		for own, want := range map[time.Duration][2]time.Duration{
			time.Hour: {time.Second, 300 * ms}, 500 * ms: {500 * ms, 300 * ms}, 200 * ms: {200 * ms, 200 * ms},
		} {
			ctx, cancel := context.WithDeadline(t.Context(), start.Add(own))
			w := &told{}
			_, _ = longpole.Do(ctx, p, idem, nil, w)
			cancel()
			if got := [2]time.Duration{w.a.Deadline.Sub(start), w.a.HeadBy.Sub(start)}; got != want {
				t.Errorf("%v: %v, want %v", own, got, want)
			}
		}
	})
}

// told notes its attempt.
type told struct {
	instant
	a   longpole.Attempt
	ctx context.Context
}

func (w *told) Try(ctx context.Context, a longpole.Attempt) (*int, error) {
	w.a, w.ctx = a, ctx
	return &w.n, nil
}

// punctual keeps its deadlines itself, as a loop of events does.
type punctual struct {
	instant
	takes time.Duration
	a     longpole.Attempt
	ctx   context.Context
}

func (w *punctual) KeepsDeadline() {}
func (w *punctual) Try(ctx context.Context, a longpole.Attempt) (*int, error) {
	w.a, w.ctx = a, ctx
	if left := time.Until(a.HeadBy); !a.HeadBy.IsZero() && w.takes > left {
		time.Sleep(left)
		return nil, errFake
	}
	time.Sleep(w.takes)
	return &w.n, nil
}

func (w *punctual) Judge(_ *int, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: call.Server}
	}
	return call.Outcome{}
}

func TestATimedWorkNeedsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, TryTimeout: 400 * ms, Retry: atOnce()})
		w := &punctual{takes: 10 * ms}
		if _, err := longpole.Do(t.Context(), p, idem, nil, w); err != nil || w.ctx != t.Context() {
			t.Error(err, "or another context than the caller's")
		}
		w.takes = time.Hour
		var rec call.Record
		start := time.Now()
		_, err := longpole.Do(t.Context(), p, idem, &rec, w)
		if !errors.Is(err, longpole.ErrDeadline) || longpole.Class(err) != call.Timeout || time.Since(start) != time.Second || rec.Count != 3 {
			t.Error(err, time.Since(start), rec.Count)
		}
		if rec.Attempts[0].Class != call.Timeout || rec.Attempts[0].Latency != 400*ms {
			t.Errorf("%+v", rec.Kept())
		}
	})
}

// all is a policy with every decider on, for a call that fails nowhere.
func all(t testing.TB) *longpole.Policy {
	return policy(t, longpole.Config{
		Timeout: time.Second, TryTimeout: 500 * ms, MinTry: ms, Cache: &cache.Config{}, Limit: &limit.Config{Queue: &limit.Queue{}, Rate: &limit.Rate{PerSecond: 1e9}},
		Retry: &retry.Config{}, Balance: &balance.Config{Algorithm: balance.PeakEWMA, Eject: &balance.Eject{}, SlowStart: time.Second},
		Breaker: &breaker.Config{}, Fallback: &longpole.Fallback{Static: &longpole.Static{}},
	}, "a", "b", "c")
}

func TestDoAllocatesNothingWithAllDecidersOn(t *testing.T) {
	p, w, ctx := all(t), &punctual{}, context.Background()
	var rec call.Record
	if n := testing.AllocsPerRun(1000, func() {
		rec = call.Record{}
		if _, err := longpole.Do(ctx, p, idem, &rec, w); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// prompt is an instant with deadlines of its own.
type prompt struct{ instant }

func (*prompt) KeepsDeadline() {}

// BenchmarkDoAll is a call under limiter, budget, balancer, breaker and deadline, and its record in a histogram.
func BenchmarkDoAll(b *testing.B) {
	w, ctx := &prompt{}, context.Background()
	var h stats.Histogram
	for _, c := range []struct {
		name string
		p    *longpole.Policy
	}{
		{"breaker+limiter+budget+deadline+histogram", policy(b, longpole.Config{
			Timeout: time.Second, Limit: &limit.Config{}, Retry: &retry.Config{}, Breaker: &breaker.Config{},
		})},
		{"all", all(b)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var rec call.Record
			for b.Loop() {
				rec.Count = 0
				if _, err := longpole.Do(ctx, c.p, idem, &rec, w); err != nil {
					b.Fatal(err)
				}
				h.Record(rec.Latency)
			}
		})
	}
}

// A loop of events has no goroutine to block: it is told the time, asks each decider, and is told when to come again.
func TestEveryDeciderCanBeDrivenByALoopOfEvents(t *testing.T) {
	now := time.Unix(1000, 0)
	set := balance.NewSet("a", "b")
	l := limit.New(*one())
	re := retry.New(retry.Config{MaxAttempts: 3, BaseDelay: 1, MaxDelay: 1, Hedge: &retry.Hedge{After: 50 * ms, BudgetRatio: 1}})
	lb := balance.New(balance.Config{Algorithm: balance.RoundRobin}, set)
	breakers := map[*balance.Endpoint]*breaker.Breaker{}
	for _, e := range set.Endpoints() {
		breakers[e] = breaker.New(breaker.Config{MinCalls: 1})
	}
	kept := cache.New(cache.Config{})
	defer kept.Close()
	var steps []string
	note := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	info := call.Info{Idempotent: true, Key: "k"}
	deadline := now.Add(time.Second)

	found := kept.Lookup(now, info.Key)
	note("lookup: %v, lead %v", found.State, found.Lead)
	other := l.Admit(now, call.Info{}, deadline)
	mine := l.Admit(now, info, deadline)
	note("admit: %v, then waiting %v", other.Admitted(), mine.Waiting())
	now = now.Add(10 * ms)
	l.Done(now, other, call.Outcome{Latency: 10 * ms})
	select {
	case <-mine.Decided():
		note("decided: %v", mine.Admitted())
	default:
		t.Fatal("the permit was not passed on")
	}

	re.Begin(now)
	out := call.Outcome{Class: call.Server, Latency: 5 * ms}
	var tried []*balance.Endpoint
	for made := 1; ; made++ {
		e, err := lb.Pick(now, func(e *balance.Endpoint) bool { return len(tried) > 0 && e == tried[0] || !breakers[e].Ready(now) })
		if err != nil {
			t.Fatal(err)
		}
		tried = append(tried, e)
		after, hedge := re.HedgeAfter(now, made, info)
		note("try %d at %s, allowed %v, hedge %v after %v", made, e.Name(), breakers[e].Allow(now) == nil, hedge && !l.Shedding(now), after)
		now = now.Add(5 * ms)
		lb.Done(e, now, out)
		breakers[e].Record(now, out)
		re.Observe(now, out)
		if out.Class == call.OK {
			break
		}
		pause, err := re.Next(now, made, info, out)
		note("failed: again %v", err == nil)
		now = now.Add(pause)
		out.Class = call.OK
	}
	l.Done(now, mine, call.Outcome{Latency: 10 * ms})
	kept.Fill(now, found.Flight, value("answer"), 0)
	note("breaker of %s: %v; in flight %d; lookup: %v", tried[0].Name(), breakers[tried[0]].State(now), l.InFlight(), kept.Lookup(now, info.Key).State)

	want := []string{
		"lookup: miss, lead true",
		"admit: true, then waiting true",
		"decided: true",
		"try 1 at a, allowed true, hedge true after 50ms",
		"failed: again true",
		"try 2 at b, allowed true, hedge true after 50ms",
		"breaker of a: open; in flight 0; lookup: hit",
	}
	if fmt.Sprint(steps) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", steps, want)
	}
}

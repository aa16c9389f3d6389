package longpole_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
)

func set(names ...string) *balance.Set {
	if len(names) == 0 {
		return nil
	}
	return balance.NewSet(names...)
}

// atOnce retries without a noticeable pause, and without a budget that matters.
func atOnce() *retry.Config {
	return &retry.Config{BaseDelay: 1, MaxDelay: 1, MinPerSecond: 1000}
}

var inTurn = &balance.Config{Algorithm: balance.RoundRobin}

// The order of all policies, in one picture: cache { retry { hedge { pick, try } } } under one deadline.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{
			Timeout: time.Second,
			Cache:   &cache.Config{},
			Retry:   r,
			Balance: &balance.Config{Algorithm: balance.RoundRobin},
			Breaker: &breaker.Config{},
		}, "a", "b", "c")
		s := storing{&script{storable: true, keeps: 5 * ms, steps: []step{
			{took: 10 * ms, out: call.Outcome{Class: call.Server}, answered: true},
			{took: time.Hour, reaction: 1 * ms},
			{took: 7 * ms},
		}}}
		var rec call.Record
		info := call.Info{Route: "orders", Idempotent: true, Key: "k"}
		first, err := longpole.Do(t.Context(), p, info, &rec, s)
		if err != nil || first.value != "answer 3" {
			t.Fatal(first, err)
		}
		if _, err := longpole.Do(t.Context(), p, info, nil, s); err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := longpole.Do(gone, p, info, nil, s); longpole.Class(err) != call.Canceled {
			t.Error("even a hit is no answer for a caller that is gone:", err)
		}
		want := `
   0 try 1 at a
  10 1 ends: server
  10 discard 1
  10 try 2 at c
  60 hedge 3 at b
  67 3 ends: ok
  68 2 cut off
  72 keep 3: true
  72 open: miss
  72 open: hit`
		if got := "\n" + s.diagram(); got != want {
			t.Errorf("got%s\nwant%s", got, want)
		}
		if rec.Route != "orders" || rec.Class != call.OK || rec.Cache != call.Miss || rec.Latency.Truncate(ms) != 72*ms || rec.Total != rec.Latency {
			t.Errorf("%+v", rec)
		}
		for i := range rec.Kept() { // the pause is a nanosecond at most
			rec.Attempts[i].Start = rec.Attempts[i].Start.Truncate(ms)
		}
		wantAttempts := []call.Attempt{
			{Endpoint: "a", Latency: 10 * ms, Class: call.Server},
			{Endpoint: "c", Start: 10 * ms, Latency: 57 * ms, Class: call.Canceled},
			{Endpoint: "b", Start: 60 * ms, Latency: 7 * ms, Hedge: true, Won: true},
		}
		if !slices.Equal(rec.Kept(), wantAttempts) {
			t.Errorf("%+v", rec.Kept())
		}
	})
}

func TestRetriesPauseWithinTheirCeilings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: &retry.Config{MaxAttempts: 4, BaseDelay: 100 * ms, MaxDelay: 150 * ms, MinPerSecond: 100}})
		s := &script{steps: []step{fail10, fail10, fail10, ok10}}
		r, err := longpole.Do(t.Context(), p, idem, nil, s)
		if err != nil || r.number != 4 {
			t.Fatal(r, err)
		}
		for i, ceiling := range []time.Duration{100 * ms, 150 * ms, 150 * ms} {
			if pause := s.sent[i+1] - s.sent[i] - 10*ms; pause < 0 || pause > ceiling {
				t.Errorf("pause %d is %v, the ceiling %v", i+1, pause, ceiling)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: atOnce()})
		s := &script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: call.Server, Pushback: 2 * time.Second}}, ok10}}
		d := took(func() { longpole.Do(t.Context(), p, idem, nil, s) })
		if d.Truncate(ms) != 2020*ms {
			t.Error(d)
		}
	})
}

func TestWhatIsNotIdempotentIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for class, want := range map[call.Class]int{call.Server: 1, call.Timeout: 1, call.Client: 1, call.Refused: 3} {
			r := atOnce()
			r.Hedge = &retry.Hedge{After: ms, BudgetRatio: 1}
			p := policy(t, longpole.Config{Retry: r}, "a", "b", "c")
			s := &script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: class}}}}
			_, err := longpole.Do(t.Context(), p, call.Info{}, nil, s)
			if longpole.Class(err) != class || !errors.Is(err, errFake) || s.tries() != want {
				t.Errorf("%v: %d tries, %v; want %d", class, s.tries(), err, want)
			}
		}
	})
}

func TestAFailedAnswerIsGivenAsItIs(t *testing.T) {
	p := policy(t, longpole.Config{Retry: atOnce()})
	s := &script{steps: []step{{out: call.Outcome{Class: call.Server}, answered: true}}}
	var rec call.Record
	r, err := longpole.Do(t.Context(), p, idem, &rec, s)
	if err != nil || r.number != 3 || rec.Class != call.Server || s.held != 1 {
		t.Error(r, err, rec.Class, s.held)
	}
	if !slices.Equal(s.dropped(), []int{1, 2}) || !rec.Attempts[2].Won || rec.Attempts[1].Won {
		t.Error(s.dropped(), rec.Kept())
	}
}

func TestEachAttemptGoesElsewhere(t *testing.T) {
	for range 100 {
		p := policy(t, longpole.Config{Retry: atOnce()}, "a", "b", "c")
		s := &script{steps: []step{{out: call.Outcome{Class: call.Refused}}}}
		longpole.Do(t.Context(), p, idem, nil, s)
		slices.Sort(s.places)
		if got := strings.Join(s.places, ""); got != "abc" {
			t.Fatal(got)
		}
	}
}

func TestOneEndpointIsRetriedToo(t *testing.T) {
	p := policy(t, longpole.Config{Retry: atOnce(), Breaker: &breaker.Config{}}, "a")
	s := &script{steps: []step{{out: call.Outcome{Class: call.Refused}}, {}}}
	if r, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil || r.number != 2 {
		t.Error(r, err)
	}
}

func TestTheBudgetEndsRetries(t *testing.T) {
	p := policy(t, longpole.Config{Retry: &retry.Config{BaseDelay: 1, MaxDelay: 1, BudgetRatio: 0.1, MinPerSecond: 1e-9}})
	s := &script{quiet: true, steps: []step{{out: call.Outcome{Class: call.Server}}}}
	var err error
	for range 1000 {
		_, err = longpole.Do(t.Context(), p, idem, nil, s)
	}
	if n := s.tries(); n != 1100 {
		t.Errorf("%d attempts for 1000 calls in an outage, want 1100", n)
	}
	for range 9 {
		_, err = longpole.Do(t.Context(), p, idem, nil, s)
	}
	if !errors.Is(err, retry.ErrBudget) || !errors.Is(err, errFake) || longpole.Class(err) != call.Server {
		t.Error(err)
	}
}

// tier calls the tier below it, or fails when it is the lowest.
type tier struct {
	below *longpole.Policy
	next  *tier
	tries int
}

func (w *tier) Try(ctx context.Context, _ longpole.Attempt) (string, error) {
	w.tries++
	if w.next == nil {
		return "", errFake
	}
	return longpole.Do(ctx, w.below, idem, nil, w.next)
}

func (w *tier) Judge(string, error) call.Outcome     { return call.Outcome{Class: call.Server} }
func (w *tier) Discard(string)                       {}
func (w *tier) Hold(r string, release func()) string { release(); return r }

// Three tiers of three attempts are 27 attempts at the bottom. The budgets leave 1.1 * 1.1 * 1.1.
func TestBudgetsStopTheStormOfTiers(t *testing.T) {
	tight := func() *longpole.Policy {
		return policy(t, longpole.Config{Retry: &retry.Config{BaseDelay: 1, MaxDelay: 1, BudgetRatio: 0.1, MinPerSecond: 1e-9}})
	}
	bottom := &tier{}
	top := &tier{below: tight(), next: &tier{below: tight(), next: bottom}}
	p := tight()
	for range 1000 {
		longpole.Do(t.Context(), p, idem, nil, top)
	}
	if bottom.tries < 1300 || bottom.tries > 1331 {
		t.Errorf("%d attempts at the bottom for 1000 calls, want at most 1331", bottom.tries)
	}
}

func TestOneDeadlineForAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: 100 * ms, Retry: &retry.Config{MaxAttempts: 10, BaseDelay: 1, MaxDelay: 1, MinPerSecond: 100}})
		s := &script{steps: []step{{took: 30 * ms, out: call.Outcome{Class: call.Server}}}}
		var rec call.Record
		var err error
		d := took(func() { _, err = longpole.Do(t.Context(), p, idem, &rec, s) })
		if d != 100*ms || !errors.Is(err, longpole.ErrDeadline) || !errors.Is(err, context.DeadlineExceeded) ||
			longpole.Class(err) != call.Timeout || s.tries() != 4 || rec.Class != call.Timeout || rec.Latency != 100*ms {
			t.Errorf("%v, %d tries, %v, %+v", d, s.tries(), err, rec)
		}
	})
}

func TestTheCallersDeadlineHoldsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, Retry: atOnce()})
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		var err error
		d := took(func() { _, err = longpole.Do(ctx, p, idem, nil, &script{steps: []step{hang}}) })
		if d != 50*ms || longpole.Class(err) != call.Timeout || !errors.Is(err, longpole.ErrDeadline) {
			t.Error(d, err)
		}
		if _, err := longpole.Do(ctx, p, idem, nil, &script{}); !errors.Is(err, longpole.ErrDeadline) {
			t.Error("a call that is too late was tried:", err)
		}
	})
}

func TestNoPauseBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, Retry: atOnce()})
		s := &script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: call.Server, Pushback: 5 * time.Second}}}}
		var err error
		d := took(func() { _, err = longpole.Do(t.Context(), p, idem, nil, s) })
		if d != 10*ms || longpole.Class(err) != call.Server {
			t.Error("waited in vain:", d, err)
		}
	})
}

func TestACallerThatLeavesEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: atOnce()})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(40*ms, cancel)
		s := &script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: call.Server, Pushback: 5 * time.Second}}}}
		var err error
		d := took(func() { _, err = longpole.Do(ctx, p, idem, nil, s) })
		if d != 40*ms || longpole.Class(err) != call.Canceled || s.tries() != 1 {
			t.Error(d, err)
		}
	})
}

func TestTryTimeoutEndsOneAttemptAndIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{TryTimeout: 50 * ms, Retry: atOnce()})
		s := &script{steps: []step{hang, ok10}}
		var rec call.Record
		var r *answer
		var err error
		d := took(func() { r, err = longpole.Do(t.Context(), p, idem, &rec, s) })
		if d.Truncate(ms) != 60*ms || err != nil || r.number != 2 || rec.Attempts[0].Class != call.Timeout {
			t.Error(d, err, rec.Kept())
		}
		time.Sleep(time.Minute)
		if !r.readable() {
			t.Error("TryTimeout ended the body")
		}
		r.close()
		if r.readable() {
			t.Error("the attempt's context outlives its answer")
		}
		_, err = longpole.Do(t.Context(), policy(t, longpole.Config{TryTimeout: 50 * ms}), idem, nil, &script{steps: []step{hang}})
		if !errors.Is(err, longpole.ErrTryTimeout) || longpole.Class(err) != call.Timeout {
			t.Error(err)
		}
	})
}

func TestAnAnswerAfterTryTimeoutIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{took: 80 * ms, deaf: true}}}
		_, err := longpole.Do(t.Context(), policy(t, longpole.Config{TryTimeout: 50 * ms}), idem, nil, s)
		if !errors.Is(err, longpole.ErrTryTimeout) || longpole.Class(err) != call.Timeout || !slices.Equal(s.dropped(), []int{1}) {
			t.Error(err, s.dropped())
		}
	})
}

func TestAnErrorSaysWhatHappened(t *testing.T) {
	p := policy(t, longpole.Config{Retry: atOnce()})
	_, err := longpole.Do(t.Context(), p, idem, nil, &script{steps: []step{{out: call.Outcome{Class: call.Refused}}}})
	if got, want := err.Error(), "longpole: call ended as refused after 3 attempts: fake failure"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTimeoutIncludesTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second})
		r, err := longpole.Do(t.Context(), p, idem, nil, &script{steps: []step{ok10}})
		if err != nil || !r.readable() {
			t.Fatal("the body cannot be read after Do returned", err)
		}
		time.Sleep(980 * ms)
		if !r.readable() {
			t.Error("too early")
		}
		time.Sleep(20 * ms)
		if r.readable() || !errors.Is(context.Cause(r.ctx), longpole.ErrDeadline) {
			t.Error("the body may be read after Timeout")
		}
		r.close()
	})
}

func TestBreakerOpensAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Breaker: &breaker.Config{MinCalls: 5}}, "a")
		s := &script{steps: []step{{out: call.Outcome{Class: call.Server}}}}
		for range 5 {
			longpole.Do(t.Context(), p, idem, nil, s)
		}
		if st := p.Breaker(time.Now(), "a"); st != breaker.Open {
			t.Fatal(st)
		}
		var rec call.Record
		_, err := longpole.Do(t.Context(), p, idem, &rec, s)
		if !errors.Is(err, breaker.ErrOpen) || longpole.Class(err) != call.Shed || rec.Class != call.Shed || rec.Count != 0 || s.tries() != 5 {
			t.Error(err, rec.Class, s.tries())
		}
		time.Sleep(5 * time.Second)
		good := &script{steps: []step{{}}}
		for range 3 {
			if _, err := longpole.Do(t.Context(), p, idem, nil, good); err != nil {
				t.Error(err)
			}
		}
		if st := p.Breaker(time.Now(), "a"); st != breaker.Closed {
			t.Error(st)
		}
	})
}

// The failure that opens the last breaker is a better answer than the breaker's refusal of the retry.
func TestTheAnswerThatOpensTheBreakerIsNotLost(t *testing.T) {
	for _, endpoints := range [][]string{nil, {"a"}} {
		p := policy(t, longpole.Config{Retry: atOnce(), Breaker: &breaker.Config{MinCalls: 2}}, endpoints...)
		s := &script{steps: []step{{out: call.Outcome{Class: call.Server}, answered: true}}}
		r, err := longpole.Do(t.Context(), p, idem, nil, s)
		if err != nil || r.number != 2 || s.held != 1 {
			t.Error(r, err)
		}
		if _, err = longpole.Do(t.Context(), p, idem, nil, s); !errors.Is(err, breaker.ErrOpen) {
			t.Error(err)
		}
	}
}

func TestAnOpenEndpointIsNotPicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: atOnce(), Breaker: &breaker.Config{MinCalls: 5}, Balance: inTurn}, "a", "b")
		for range 200 {
			w := &byPlace{bad: "a"}
			if r, err := longpole.Do(t.Context(), p, idem, nil, w); err != nil || r != "b" {
				t.Fatal(r, err)
			}
		}
		if st := p.Breaker(time.Now(), "a"); st != breaker.Open {
			t.Fatal(st)
		}
		w := &byPlace{bad: "a"}
		for range 100 {
			longpole.Do(t.Context(), p, idem, nil, w)
		}
		if len(w.log) != 100 || slices.Contains(w.log, "a") {
			t.Error("an open endpoint was tried")
		}
		// When b fails too, the call ends there: a is not tried, b once more as it is better than none.
		w = &byPlace{bad: "ab"}
		longpole.Do(t.Context(), p, idem, nil, w)
		if strings.Join(w.log, "") != "bbb" {
			t.Error(w.log)
		}
	})
}

// byPlace fails at the endpoints named in bad.
type byPlace struct {
	bad string
	log []string
}

func (b *byPlace) Try(_ context.Context, a longpole.Attempt) (string, error) {
	b.log = append(b.log, a.Endpoint)
	if strings.Contains(b.bad, a.Endpoint) {
		return "", errFake
	}
	return a.Endpoint, nil
}

func (b *byPlace) Judge(_ string, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: call.Server}
	}
	return call.Outcome{}
}
func (b *byPlace) Discard(string) {}
func (b *byPlace) Hold(r string, release func()) string {
	release()
	return r
}

func TestNoHealthyEndpointIsShed(t *testing.T) {
	s := balance.NewSet("a")
	s.Find("a").SetHealthy(false)
	p, err := longpole.New(longpole.Config{Retry: atOnce()}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, err = longpole.Do(t.Context(), p, idem, nil, &script{})
	if !errors.Is(err, balance.ErrNoEndpoint) || longpole.Class(err) != call.Shed {
		t.Error(err)
	}
}

func TestNothingStaysInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoints := balance.NewSet("a", "b", "c")
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 5 * ms, BudgetRatio: 1}
		p, err := longpole.New(longpole.Config{Timeout: 50 * ms, TryTimeout: 30 * ms, Retry: r, Breaker: &breaker.Config{MinCalls: 3, OpenFor: 20 * ms}}, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for i := range 200 {
			s := &script{steps: [][]step{{ok10}, {fail10, ok10}, {hang, hang, ok10}, {hang}, {fail10}, {{took: 10 * ms, reaction: 3 * ms}, ok10}}[i%6]}
			if a, err := longpole.Do(t.Context(), p, idem, nil, s); err == nil {
				a.close()
			}
		}
		time.Sleep(time.Minute)
		for _, e := range endpoints.Endpoints() {
			if e.InFlight() != 0 {
				t.Error(e.Name(), e.InFlight())
			}
		}
	})
}

package longpole_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
)

// hedged sends a copy after 50 ms, and retries once more after that.
func hedged(t *testing.T, endpoints ...string) *longpole.Policy {
	r := atOnce()
	r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
	return policy(t, longpole.Config{Retry: r, Balance: inTurn}, endpoints...)
}

func TestHedges(t *testing.T) {
	slowFail := step{took: 70 * ms, out: call.Outcome{Class: call.Server}, answered: true}
	for _, tt := range []struct {
		name   string
		steps  []step
		took   time.Duration
		winner int // 0 = error
		want   []call.Class
	}{
		{"fast enough, no copy", []step{{took: 49 * ms}}, 49 * ms, 1, []call.Class{call.OK}},
		{"the copy wins", []step{hang, {took: 5 * ms}}, 55 * ms, 2, []call.Class{call.Canceled, call.OK}},
		{"the first wins", []step{{took: 60 * ms}, hang}, 60 * ms, 1, []call.Class{call.OK, call.Canceled}},
		{"a loser that hears nothing is not waited for", []step{{took: time.Hour, deaf: true}, {took: 5 * ms}}, 55 * ms, 2, []call.Class{call.Canceled, call.OK}},
		{"the first error waits for the copy", []step{slowFail, {took: 100 * ms}}, 150 * ms, 2, []call.Class{call.Server, call.OK}},
		{"the copy's error waits for the first", []step{{took: 90 * ms}, {took: 5 * ms, out: call.Outcome{Class: call.Refused}}}, 90 * ms, 1, []call.Class{call.OK, call.Refused}},
		{"the caller's fault is an answer", []step{hang, {took: 5 * ms, out: call.Outcome{Class: call.Client}, answered: true}}, 55 * ms, 2, []call.Class{call.Canceled, call.Client}},
		{"an early failure is retried, not hedged", []step{fail10, ok10}, 20 * ms, 2, []call.Class{call.Server, call.OK}},
		{"both fail, then a retry", []step{slowFail, slowFail, ok10}, 130 * ms, 3, []call.Class{call.Server, call.Server, call.OK}},
		{"all fail", []step{slowFail, {took: 10 * ms, out: call.Outcome{Class: call.Server}}, fail10}, 80 * ms, 0, []call.Class{call.Server, call.Server, call.Server}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: tt.steps}
				var rec call.Record
				var r *answer
				var err error
				d := took(func() { r, err = longpole.Do(t.Context(), hedged(t, "a", "b", "c"), idem, &rec, s) })
				if d.Truncate(ms) != tt.took {
					t.Errorf("took %v, want %v", d, tt.took)
				}
				if tt.winner == 0 {
					if longpole.Class(err) != call.Server || !errors.Is(err, errFake) {
						t.Error(err)
					}
				} else if err != nil || r.number != tt.winner || !r.readable() || !rec.Attempts[tt.winner-1].Won {
					t.Errorf("answer %+v, %v; want that of attempt %d", r, err, tt.winner)
				}
				for i, a := range rec.Kept() {
					if i >= len(tt.want) || a.Class != tt.want[i] {
						t.Errorf("attempt %d: %v, want %v", i+1, a.Class, tt.want)
					}
				}
				if rec.Count != len(tt.want) {
					t.Errorf("%d attempts, want %d", rec.Count, len(tt.want))
				}
				time.Sleep(2 * time.Hour) // until the deafest loser is back
				if r != nil && !r.readable() {
					t.Error("a loser took the winner's body with it")
				}
				if slices.Contains(s.dropped(), tt.winner) {
					t.Error("the winner was discarded")
				}
				if r != nil {
					r.close()
				}
			})
		})
	}
}

func TestTheLoserIsCancelledAtOnceAndItsAnswerDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{took: 80 * ms, deaf: true}, {took: 5 * ms}}}
		r, err := longpole.Do(t.Context(), hedged(t, "a", "b"), idem, nil, s)
		if err != nil || r.number != 2 {
			t.Fatal(r, err)
		}
		time.Sleep(25 * ms)
		synctest.Wait()
		if !slices.Equal(s.dropped(), []int{1}) || !r.readable() {
			t.Error(s.dropped(), r.readable())
		}
		r.close()
		want := []string{"   0 try 1 at a", "  50 hedge 2 at b", "  55 2 ends: ok", "  80 1 ends: ok", "  80 discard 1"}
		if got := s.diagram(); got != strings.Join(want, "\n") {
			t.Error(got)
		}
	})
}

func TestWhoeverLosesIsToldAtTheHeadOfTheWinner(t *testing.T) {
	for _, tt := range []struct {
		steps []step
		want  []string
	}{
		{[]step{{took: 60 * ms}, hang}, []string{"   0 try 1 at a", "  50 hedge 2 at b", "  60 1 ends: ok", "  60 2 cut off"}},
		{[]step{hang, {took: 5 * ms}}, []string{"   0 try 1 at a", "  50 hedge 2 at b", "  55 2 ends: ok", "  55 1 cut off"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{steps: tt.steps}
			r, err := longpole.Do(t.Context(), hedged(t, "a", "b"), idem, nil, s)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(ms) // the winner's body is still being read
			if got := s.diagram(); got != strings.Join(tt.want, "\n") {
				t.Error(got)
			}
			r.close()
		})
	}
}

// The copies win, so no caller sees that a hangs; its balancer does.
func TestAnEndpointWhoseCopiesWinIsEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		endpoints := balance.NewSet("a", "b", "c")
		p, err := longpole.New(longpole.Config{Retry: r, Balance: &balance.Config{Algorithm: balance.RoundRobin, Eject: &balance.Eject{}}}, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s := &hangs{at: "a"}
		for range 200 {
			if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := s.hung.Load(); n < 5 || n > 6 { // the sixth may be picked before the fifth is known to be lost
			t.Errorf("%d calls went to the endpoint that hangs, want 5", n)
		}
	})
}

// hangs answers at once, except at one endpoint.
type hangs struct {
	at   string
	hung atomic.Int64
}

func (h *hangs) Try(ctx context.Context, a longpole.Attempt) (int, error) {
	if a.Endpoint != h.at {
		return 1, nil
	}
	h.hung.Add(1)
	<-ctx.Done()
	return 0, ctx.Err()
}

func (h *hangs) Judge(_ int, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: call.Refused}
	}
	return call.Outcome{}
}
func (h *hangs) Discard(int) {}
func (h *hangs) Hold(r int, release func()) int {
	release()
	return r
}

func TestACopyGoesToAnotherHealthyEndpointOrNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{took: 100 * ms}}}
		if d := took(func() { longpole.Do(t.Context(), hedged(t, "a"), idem, nil, s) }); d != 100*ms || s.tries() != 1 {
			t.Error("one endpoint:", d, s.tries())
		}
		endpoints := balance.NewSet("a", "b")
		endpoints.Find("b").SetHealthy(false)
		p, err := longpole.New(hedged(t).Config(), endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s = &script{steps: []step{{took: 100 * ms}}}
		if longpole.Do(t.Context(), p, idem, nil, s); s.tries() != 1 {
			t.Error("one healthy endpoint:", s.tries())
		}
		endpoints.Find("b").SetHealthy(true)
		s = &script{steps: []step{{took: 100 * ms}}}
		if longpole.Do(t.Context(), p, idem, nil, s); s.tries() != 2 || s.places[0] == s.places[1] {
			t.Error("two healthy endpoints:", s.places)
		}
		// Without endpoints the Work knows where to go.
		s = &script{steps: []step{{took: 100 * ms}}}
		if longpole.Do(t.Context(), hedged(t), idem, nil, s); s.tries() != 2 {
			t.Error("no balancing:", s.tries())
		}
	})
}

func TestNoCopyToAnOpenEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.MaxAttempts, r.Hedge = 2, &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{Retry: r, Breaker: &breaker.Config{MinCalls: 2, OpenFor: time.Hour}, Balance: inTurn}, "a", "b")
		for range 200 {
			longpole.Do(t.Context(), p, call.Info{}, nil, &byPlace{bad: "b"})
		}
		if p.Breaker(time.Now(), "b") != breaker.Open {
			t.Fatal("not open")
		}
		s := &script{steps: []step{{took: 100 * ms}}}
		if longpole.Do(t.Context(), p, idem, nil, s); s.tries() != 1 {
			t.Error(s.places)
		}
	})
}

func TestACopyPassesAnOpenEndpointBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{Retry: r, Breaker: &breaker.Config{MinCalls: 2, OpenFor: time.Hour}, Balance: inTurn}, "a", "b", "c")
		for range 200 {
			longpole.Do(t.Context(), p, call.Info{}, nil, &byPlace{bad: "b"})
		}
		for range 20 {
			s := &script{steps: []step{{took: 100 * ms}}}
			if longpole.Do(t.Context(), p, idem, nil, s); s.tries() != 2 || slices.Contains(s.places, "b") {
				t.Fatal(s.places)
			}
		}
	})
}

func TestHedgesEndWithTheirBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{After: 5 * ms, BudgetRatio: 0.1}}}, "a", "b")
		s := &script{quiet: true, steps: []step{ok10}}
		for i := range 500 {
			if s.steps[0].took = ms; i%4 == 0 {
				s.steps[0].took = 10 * ms
			}
			if r, err := longpole.Do(t.Context(), p, idem, nil, s); err == nil {
				r.close()
			}
		}
		if n := s.tries(); n > 550 || n < 545 {
			t.Errorf("%d attempts for 500 calls, a quarter of them slow; want the 50 that the budget pays for", n)
		}
	})
}

func TestTheDeadlineEndsBothHalvesAndIsHeldAgainstThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{Timeout: 100 * ms, Retry: r, Breaker: &breaker.Config{MinCalls: 3}}, "a", "b")
		var rec call.Record
		for range 3 {
			rec = call.Record{}
			var err error
			d := took(func() { _, err = longpole.Do(t.Context(), p, idem, &rec, &script{steps: []step{hang}}) })
			if d != 100*ms || !errors.Is(err, longpole.ErrDeadline) || longpole.Class(err) != call.Timeout {
				t.Error(d, err)
			}
			for i, latency := range []time.Duration{100 * ms, 50 * ms} {
				if a := rec.Attempts[i]; a.Class != call.Timeout || a.Latency != latency {
					t.Errorf("attempt %d: %+v", i+1, a)
				}
			}
			synctest.Wait()
		}
		for _, e := range []string{"a", "b"} {
			if st := p.Breaker(time.Now(), e); st != breaker.Open {
				t.Error(e, st)
			}
		}
	})
}

func TestACallerThatLeavesEndsBothHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(70*ms, cancel)
		s := &script{steps: []step{hang}}
		var err error
		d := took(func() { _, err = longpole.Do(ctx, hedged(t, "a", "b"), idem, nil, s) })
		if d != 70*ms || longpole.Class(err) != call.Canceled || s.tries() != 2 {
			t.Error(d, err)
		}
	})
}

func TestTryTimeoutInARace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p := policy(t, longpole.Config{TryTimeout: 80 * ms, Retry: r}, "a", "b", "c")
		var rec call.Record
		var a *answer
		d := took(func() { a, _ = longpole.Do(t.Context(), p, idem, &rec, &script{steps: []step{hang, hang, ok10}}) })
		if d.Truncate(ms) != 140*ms || rec.Count != 3 || rec.Attempts[0].Class != call.Timeout || rec.Attempts[1].Class != call.Timeout {
			t.Error(d, rec.Kept())
		}
		time.Sleep(time.Minute)
		if !a.readable() {
			t.Error("TryTimeout ended the winner's body")
		}
		a.close()
	})
}

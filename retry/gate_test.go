package retry

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// fixed is a policy that hedges at a fixed age and whose budgets never matter here.
func fixed() *Policy {
	p := New(Config{BudgetRatio: 1, Hedge: &Hedge{After: 10 * ms, BudgetRatio: 0.1}})
	for range 10_000 {
		p.Begin(t0)
	}
	return p
}

// attempts lets n attempts begin, a share of which becomes old, and returns how many copies were allowed.
func attempts(p *Policy, n, everyNth int) (copies int) {
	for i := range n {
		p.HedgeAfter(t0, 1, idem)
		if everyNth > 0 && i%everyNth == 0 && p.Hedge(t0) {
			copies++
		}
	}
	return copies
}

func TestCopiesAreWithheldWhileAllAttemptsAreOld(t *testing.T) {
	p := fixed()
	if n := attempts(p, 500, 10); n != 50 {
		t.Errorf("%d copies of 500 attempts of which 50 became old", n)
	}
	if n := attempts(p, 1000, 1); n > 30 {
		t.Errorf("%d copies of 1000 attempts that all became old", n)
	}
	attempts(p, 150, 0)
	if n := attempts(p, 500, 10); n != 50 {
		t.Errorf("%d copies after it was over, want 50", n)
	}
}

func TestFewAttemptsAreNoCommonSlowness(t *testing.T) {
	p := fixed()
	if n := attempts(p, gateWarm-1, 1); n != gateWarm-1 {
		t.Errorf("%d copies of the first %d attempts", n, gateWarm-1)
	}
}

// Chance alone must not close the gate: of attempts that are independent it takes an improbable run.
func TestChanceClosesTheGateHardlyEver(t *testing.T) {
	for _, usual := range []float64{0.01, 0.05, 0.07, 0.09} {
		r := rand.New(rand.NewPCG(1, 1))
		var g gate
		old, refused := 0, 0
		for range 200_000 {
			g.began(t0, usual)
			if r.Float64() < usual {
				if old++; !g.reached(t0, usual) {
					refused++
				}
			}
		}
		t.Logf("usual %.0f %%: %d of %d copies withheld", 100*usual, refused, old)
		if float64(refused) > 0.002*float64(old) {
			t.Errorf("usual %.0f %%: %d of %d copies were withheld by chance", 100*usual, refused, old)
		}
	}
}

func TestTheGateCountsExactlyUnderConcurrency(t *testing.T) {
	p := fixed()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { attempts(p, 200, 1) })
	}
	wg.Wait()
	if p.Hedge(t0) {
		t.Error("1600 attempts became old, and the gate is open")
	}
}

func TestNothingIsHedgedWhileSuspended(t *testing.T) {
	p := New(Config{Hedge: &Hedge{After: 10 * ms, BudgetRatio: 1}})
	p.Begin(t0)
	p.Suspend(t0.Add(time.Second))
	p.Suspend(t0.Add(time.Millisecond)) // shortens nothing
	late := t0.Add(time.Second - 1)
	if _, ok := p.HedgeAfter(late, 1, idem); ok || p.Hedge(late) {
		t.Error("hedges while suspended")
	}
	if _, ok := p.HedgeAfter(t0.Add(time.Second), 1, idem); !ok || !p.Hedge(t0.Add(time.Second)) {
		t.Error("does not hedge after that")
	}
}

func TestWhatNobodyWaitsForIsNotHedged(t *testing.T) {
	p := New(Config{Hedge: &Hedge{After: 10 * ms}})
	for priority, want := range map[call.Priority]bool{
		call.Critical: true, call.Normal: true, call.Deferrable: true, call.Background: false, call.Speculative: false,
	} {
		if _, ok := p.HedgeAfter(t0, 1, call.Info{Idempotent: true, Priority: priority}); ok != want {
			t.Errorf("priority %d: %v, want %v", priority, ok, want)
		}
	}
}

func TestPassedSaysNeverWhenItWasTried(t *testing.T) {
	for _, tt := range []struct {
		name string
		out  call.Outcome
		made int
		why  error
		want time.Duration
	}{
		{"tried twice", failed, 2, ErrNoMore, -1},
		{"no budget", failed, 1, ErrBudget, -1},
		{"not tried again, not idempotent here", failed, 1, ErrNoMore, 0},
		{"the server's own word stays", call.Outcome{Class: call.Server, Pushback: time.Second}, 1, ErrNoMore, time.Second},
		{"a success is nobody's concern", call.Outcome{}, 2, ErrNoMore, 0},
	} {
		if got := Passed(tt.out, tt.made, tt.why); got.Pushback != tt.want || got.Class != tt.out.Class {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

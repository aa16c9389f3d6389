package breaker

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

var (
	t0   = time.Unix(1_700_000_000, 0)
	good = call.Outcome{}
	bad  = call.Outcome{Class: call.Server}
	gone = call.Outcome{Class: call.Canceled}
)

func record(b *Breaker, now time.Time, n int, out call.Outcome) {
	for range n {
		b.Record(now, out)
	}
}

// opened is a breaker that opened at t0, for 5 s, with 3 probes.
func opened(t *testing.T) *Breaker {
	t.Helper()
	b := New(Config{})
	record(b, t0, 20, bad)
	if s := b.State(t0); s != Open {
		t.Fatal(s)
	}
	return b
}

func TestOpensAtTheRatioOfEnoughCalls(t *testing.T) {
	for _, tt := range []struct {
		name      string
		good, bad int
		want      State
	}{
		{"nothing known", 0, 0, Closed},
		{"too few calls", 0, 19, Closed},
		{"enough calls, all bad", 0, 20, Open},
		{"below the ratio", 11, 10, Closed},
		{"at the ratio", 10, 10, Open},
	} {
		b := New(Config{})
		record(b, t0, tt.good, good)
		record(b, t0, tt.bad, bad)
		if got := b.State(t0); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if err := b.Allow(t0); errors.Is(err, ErrOpen) != (tt.want == Open) {
			t.Errorf("%s: Allow says %v", tt.name, err)
		}
	}
}

func TestOnlyTheDependencysFailuresCount(t *testing.T) {
	for _, class := range []call.Class{call.OK, call.Client, call.Canceled, call.Shed} {
		b := New(Config{})
		record(b, t0, 1000, call.Outcome{Class: class})
		if s := b.State(t0); s != Closed {
			t.Errorf("%v: %v", class, s)
		}
	}
	for _, class := range []call.Class{call.Server, call.Refused, call.Timeout} {
		b := New(Config{})
		record(b, t0, 20, call.Outcome{Class: class})
		if s := b.State(t0); s != Open {
			t.Errorf("%v: %v", class, s)
		}
	}
}

func TestWindowForgets(t *testing.T) {
	b := New(Config{})
	record(b, t0, 19, bad)
	record(b, t0.Add(10*time.Second), 19, bad)
	if s := b.State(t0.Add(10 * time.Second)); s != Closed {
		t.Fatal("failures of 10 s ago count:", s)
	}
	record(b, t0.Add(19*time.Second), 1, bad)
	if s := b.State(t0.Add(19 * time.Second)); s != Open {
		t.Error("failures of 9 s ago do not count:", s)
	}
}

func TestHalfOpenAdmitsExactlyTheProbesAndCloses(t *testing.T) {
	b := opened(t)
	due := t0.Add(5 * time.Second)
	if !errors.Is(b.Allow(due.Add(-1)), ErrOpen) || b.Ready(due.Add(-1)) {
		t.Error("open ended too early")
	}
	if b.State(due) != HalfOpen || !b.Ready(due) {
		t.Error("not half-open in time")
	}
	for i := range 3 {
		if err := b.Allow(due); err != nil {
			t.Fatal("probe", i, err)
		}
	}
	if !errors.Is(b.Allow(due), ErrOpen) || b.Ready(due) {
		t.Error("a fourth probe")
	}
	b.Record(due, good)
	b.Record(due, good)
	if !errors.Is(b.Allow(due), ErrOpen) {
		t.Error("a fourth probe after two good ones")
	}
	b.Record(due, good)
	if s := b.State(due); s != Closed {
		t.Error(s)
	}
	b.Record(due, bad)
	if s := b.State(due); s != Closed {
		t.Error("old failures count again:", s)
	}
}

func TestOneBadProbeOpensAgain(t *testing.T) {
	b := opened(t)
	due := t0.Add(5 * time.Second)
	for range 3 {
		b.Allow(due)
	}
	b.Record(due, good)
	b.Record(due.Add(time.Second), call.Outcome{Class: call.Timeout, Latency: time.Second})
	b.Record(due.Add(time.Second), call.Outcome{Latency: time.Second}) // the third, late
	if s := b.State(due.Add(time.Second)); s != Open {
		t.Error(s)
	}
	if b.Allow(due.Add(11*time.Second-1)) == nil || b.Allow(due.Add(11*time.Second)) != nil {
		t.Error("not open for another 10 s")
	}
}

func TestAProbeGivenUpMakesRoom(t *testing.T) {
	b := opened(t)
	due := t0.Add(5 * time.Second)
	for range 3 {
		b.Allow(due)
	}
	b.Cancel(due)
	b.Record(due.Add(time.Second), call.Outcome{Class: call.Canceled, Latency: time.Second})
	if b.Allow(due) != nil || b.Allow(due) != nil || !errors.Is(b.Allow(due), ErrOpen) {
		t.Error("want room for exactly two")
	}
}

// A call that began before the breaker opened says nothing about the endpoint now.
func TestCallsFromBeforeAreNoProbes(t *testing.T) {
	b := opened(t)
	due := t0.Add(5 * time.Second)
	b.Allow(due)
	for range 10 {
		b.Record(due.Add(time.Second), call.Outcome{Class: call.Server, Latency: 7 * time.Second})
		b.Record(due.Add(time.Second), call.Outcome{Latency: 7 * time.Second})
		b.Record(due.Add(time.Second), call.Outcome{Class: call.Canceled, Latency: 7 * time.Second})
	}
	if s := b.State(due.Add(time.Second)); s != HalfOpen {
		t.Fatal(s)
	}
	if b.Allow(due) != nil || b.Allow(due) != nil || !errors.Is(b.Allow(due), ErrOpen) {
		t.Error("want room for exactly two")
	}
}

func TestProbesAreExactUnderConcurrency(t *testing.T) {
	b := opened(t)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 100 {
				if b.Allow(t0.Add(5*time.Second)) == nil {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != 3 {
		t.Errorf("%d probes, want 3", n)
	}
}

func TestReconfigureKeepsTheState(t *testing.T) {
	b := opened(t)
	b.Reconfigure(Config{MinCalls: 100})
	if !errors.Is(b.Allow(t0), ErrOpen) {
		t.Error("new settings closed it")
	}
	b.Reconfigure(Config{Off: true})
	if b.Allow(t0) != nil || b.State(t0) != Closed {
		t.Error("off, and yet it refuses")
	}
	record(b, t0, 100, bad)
	if b.Allow(t0) != nil {
		t.Error("off, and yet it opened")
	}
}

func TestAStepOfTheClockDoesNotLockItOpen(t *testing.T) {
	b := New(Config{})
	record(b, t0, 10, bad)
	record(b, t0.Add(-24*time.Hour), 10, bad)
	if s := b.State(t0); s == Closed {
		t.Error("late records were lost")
	}
	if b.Allow(t0) != nil {
		t.Error("open longer than it should be")
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{
		FailureRatio: 2, MinCalls: -1, Window: 1, OpenFor: -1, Probes: 101,
		WindowCalls: 10_001, SlowAfter: -1, SlowRatio: 2, MaxOpenFor: -2,
	}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 9 {
		t.Errorf("%v: want 9 faults", err)
	}
	if (Config{MinCalls: 11, WindowCalls: 10}).Validate() == nil {
		t.Error("it could never open")
	}
	if err := (Config{WindowCalls: 5}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := New(Config{})
	if n := testing.AllocsPerRun(1000, func() { b.Allow(t0); b.Record(t0, gone); b.Record(t0, good); b.Ready(t0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

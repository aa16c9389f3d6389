package breaker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"pgregory.net/rapid"
)

func TestACountWindowKnowsTheLatestCallsOnly(t *testing.T) {
	b := New(Config{WindowCalls: 10, MinCalls: 10})
	record(b, t0, 4, bad)
	record(b, t0.Add(time.Hour), 5, good)
	if s := b.State(t0.Add(time.Hour)); s != Closed {
		t.Fatal("opened below MinCalls")
	}
	record(b, t0.Add(2*time.Hour), 1, bad) // the tenth, and the fifth bad one: age does not matter
	if s := b.State(t0.Add(2 * time.Hour)); s != Open {
		t.Error(s, "at 5 of 10")
	}
	b = New(Config{WindowCalls: 10, MinCalls: 10})
	record(b, t0, 4, bad)
	record(b, t0, 9, good)
	record(b, t0, 4, bad) // of the latest ten, four
	if s := b.State(t0); s != Closed {
		t.Error(s, "at 4 of 10")
	}
	record(b, t0, 1, bad)
	if s := b.State(t0); s != Open {
		t.Error(s, "at 5 of 10")
	}
}

// The window against the plainest thing that could be right: a list of all calls.
func TestTheWindowsCountWhatAListWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{WindowCalls: rapid.IntRange(1, 30).Draw(t, "window")}.WithDefaults()
		var w window
		w.reset(&c)
		var all []flags
		for range rapid.IntRange(1, 200).Draw(t, "calls") {
			one := counted | flags(rapid.SampledFrom([]int{0, 2, 4, 6}).Draw(t, "flags"))
			all = append(all, one)
			got := w.add(t0, &c, one)
			var want count
			for _, f := range all[max(0, len(all)-c.WindowCalls):] {
				want.add(f.count())
			}
			if got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		c := Config{Window: time.Second}.WithDefaults()
		var w window
		w.reset(&c)
		type at struct {
			slot int64
			f    flags
		}
		var all []at
		for now := t0; len(all) < 100; now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "gap")) * time.Millisecond) {
			one := counted | flags(rapid.SampledFrom([]int{0, 2, 4, 6}).Draw(t, "flags"))
			slot := int64(now.Sub(t0) / (100 * time.Millisecond))
			all = append(all, at{slot, one})
			got := w.add(now, &c, one)
			var want count
			for _, a := range all {
				if a.slot > slot-slots {
					want.add(a.f.count())
				}
			}
			if got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
		}
	})
}

func TestSlowCallsOpen(t *testing.T) {
	slowCfg := Config{SlowAfter: 100 * time.Millisecond, SlowRatio: 0.3}
	quick := call.Outcome{Latency: 100 * time.Millisecond}
	for _, tt := range []struct {
		name string
		out  call.Outcome
		n    int
		want State
	}{
		{"quick enough", quick, 30, Closed},
		{"slow", call.Outcome{Latency: 101 * time.Millisecond}, 30, Open},
		{"slow, but too few", call.Outcome{Latency: time.Second}, 29, Closed},
		{"given up after it was slow", call.Outcome{Class: call.Canceled, Latency: time.Second}, 30, Open},
		{"given up before", call.Outcome{Class: call.Canceled, Latency: 10 * time.Millisecond}, 30, Closed},
		{"refused by us", call.Outcome{Class: call.Shed, Latency: time.Second}, 30, Closed},
		{"the caller's fault, slow", call.Outcome{Class: call.Client, Latency: time.Second}, 30, Open},
	} {
		b := New(slowCfg)
		record(b, t0, 70, quick)
		record(b, t0, tt.n, tt.out)
		if s := b.State(t0); s != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, s, tt.want)
		}
		without := New(Config{})
		record(without, t0, 70, quick)
		record(without, t0, tt.n, tt.out)
		if s := without.State(t0); s != Closed {
			t.Errorf("%s: %v though slowness does not matter", tt.name, s)
		}
	}
}

func TestSlowProbesOpenAgainAtTheRatio(t *testing.T) {
	for slowOnes, want := range []State{Closed, Closed, Open, Open} {
		b := New(Config{SlowAfter: 100 * time.Millisecond, Probes: 4})
		record(b, t0, 20, bad)
		due := t0.Add(5 * time.Second)
		for range 4 {
			if err := b.Allow(due); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			out := good
			if i < slowOnes {
				out.Latency = time.Second
			}
			b.Record(due.Add(out.Latency), out)
		}
		if s := b.State(due.Add(time.Second)); s != want {
			t.Errorf("%d of 4 slow: %v, want %v", slowOnes, s, want)
		}
	}
}

func TestOpensExactlyAtTheCallThatMakesTheRatio(t *testing.T) {
	for _, c := range []Config{{MinCalls: 1000}, {MinCalls: 1000, WindowCalls: 1000}} {
		b := New(c)
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() {
				for i := range 111 {
					b.Record(t0, []call.Outcome{good, bad, bad}[i%3])
				}
			})
		}
		wg.Wait()
		if s := b.State(t0); s != Closed {
			t.Fatal(s, "after 999 calls")
		}
		b.Record(t0, good)
		b.Record(t0, bad)
		if s := b.State(t0); s != Open {
			t.Error(s, "after 1001 calls")
		}
	}
}

// However many goroutines ask, report and give up at once, never more than k probes are out, and what is out is counted.
func TestHalfOpenIsExactWhileProbesComeAndGo(t *testing.T) {
	b := New(Config{Probes: 3, MinCalls: 2})
	record(b, t0, 2, bad)
	due := t0.Add(5 * time.Second)
	var out, most atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				if b.Allow(due) != nil {
					continue
				}
				n := out.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				out.Add(-1)
				b.Cancel(due)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || b.State(due) != HalfOpen {
		t.Errorf("%d probes at once, state %v", most.Load(), b.State(due))
	}
	if b.Allow(due) != nil || b.Allow(due) != nil || b.Allow(due) != nil || !errors.Is(b.Allow(due), ErrOpen) {
		t.Error("want room for exactly three")
	}
}

func TestOpensLongerEachTimeItOpensAgainSoon(t *testing.T) {
	b := New(Config{MaxOpenFor: 25 * time.Second})
	now := t0
	for _, want := range []time.Duration{5, 10, 20, 25, 25} {
		record(b, now, 20, bad)
		now = now.Add(want * time.Second)
		if b.Ready(now.Add(-1)) || !b.Ready(now) {
			t.Fatalf("not open for %v s", int(want))
		}
		for range 3 {
			b.Allow(now)
			b.Record(now, good)
		}
		if s := b.State(now); s != Closed {
			t.Fatal(s)
		}
	}
	now = now.Add(10 * time.Second) // a quiet window
	record(b, now, 20, bad)
	if b.Ready(now.Add(5*time.Second-1)) || !b.Ready(now.Add(5*time.Second)) {
		t.Error("not open for 5 s after a quiet time")
	}
}

func TestATimeJumpNeverLocksItOpen(t *testing.T) {
	b := opened(t)
	back := t0.Add(-48 * time.Hour)
	if b.Ready(back) {
		t.Error("closed by a jump")
	}
	if b.Allow(back.Add(5*time.Second)) != nil {
		t.Error("open for longer than 5 s after the clock was set back")
	}
	b = opened(t)
	if b.Allow(t0.Add(1000*time.Hour)) != nil {
		t.Error("open after the clock was set ahead")
	}
	b = New(Config{})
	record(b, t0, 19, bad)
	record(b, t0.Add(1000*time.Hour), 1, bad)
	if s := b.State(t0.Add(1000 * time.Hour)); s != Closed {
		t.Error("failures from before the jump count")
	}
}

// One bad endpoint of ten, each with its own breaker, for ten minutes: the bad one is asked less and less often instead
// of flapping, and the others, which fail now and then, never open.
func TestOneBadOfTenDoesNotFlap(t *testing.T) {
	for _, failing := range []float64{0.6, 0.9, 1} {
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var bs [10]*Breaker
			for i := range bs {
				bs[i] = New(Config{})
			}
			var openings [10]int
			var bads, calls int
			for at := time.Duration(0); at < 10*time.Minute; at += 10 * time.Millisecond {
				now := t0.Add(at)
				i := r.IntN(len(bs))
				before := bs[i].State(now)
				if bs[i].Allow(now) != nil {
					continue
				}
				out, share := good, 0.02
				if i == 0 {
					share = failing
				}
				if r.Float64() < share {
					out = bad
				}
				bs[i].Record(now, out)
				if calls++; i == 0 && out.Class.Failed() {
					bads++
				}
				if bs[i].State(now) == Open && before != Open {
					openings[i]++
				}
			}
			t.Logf("openings %v, %d of %d calls failed at the bad one", openings, bads, calls)
			if openings[0] < 5 || openings[0] > 25 {
				t.Errorf("the bad one opened %d times in 10 minutes", openings[0])
			}
			for i, n := range openings[1:] {
				if n > 0 {
					t.Errorf("endpoint %d, which is good, opened %d times", i+1, n)
				}
			}
			if float64(bads) > 0.01*float64(calls) {
				t.Errorf("%d of %d calls failed at the bad one", bads, calls)
			}
		})
	}
}

func TestReconfigureDuringCallsIsSafe(t *testing.T) {
	b := New(Config{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				if b.Allow(t0) == nil {
					b.Record(t0, []call.Outcome{good, bad}[i%2])
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			b.Reconfigure(Config{WindowCalls: i % 50, MinCalls: max(1, i%50)})
		}
	})
	wg.Wait()
}

// Callers read the clock before they come for the lock. One that read it before the first probe did is a probe all the
// same, and its end must be counted, or the breaker would wait for it for ever.
func TestAProbeThatReadTheClockFirstCounts(t *testing.T) {
	b := opened(t)
	late, early := t0.Add(5*time.Second+time.Millisecond), t0.Add(5*time.Second)
	for _, now := range []time.Time{late, early, early} {
		if b.Allow(now) != nil {
			t.Fatal("refused")
		}
	}
	if b.Allow(late) == nil {
		t.Error("a fourth probe")
	}
	for _, took := range []time.Duration{9, 10, 10} {
		b.Record(early.Add(10*time.Millisecond), call.Outcome{Latency: took * time.Millisecond})
	}
	if s := b.State(late.Add(time.Second)); s != Closed {
		t.Error(s, "after three good probes")
	}
}

func TestProbesThatHangMakeRoomForOthers(t *testing.T) {
	b := opened(t)
	first := t0.Add(5 * time.Second)
	for range 3 {
		if b.Allow(first) != nil {
			t.Fatal("refused")
		}
	}
	if b.Ready(first.Add(5*time.Second - 1)) {
		t.Error("more probes before the time that it was open for has passed")
	}
	second := first.Add(5 * time.Second)
	for range 3 {
		if b.Allow(second) != nil {
			t.Fatal("refused, because the first probes hang")
		}
	}
	if b.Ready(second) {
		t.Error("more than three again")
	}
	b.Record(second.Add(time.Second), call.Outcome{Latency: 6 * time.Second}) // one of the first comes back
	for range 2 {
		b.Record(second.Add(time.Second), call.Outcome{Latency: time.Second})
	}
	if s := b.State(second.Add(time.Second)); s != Closed {
		t.Error(s, "after three good probes")
	}
}

func TestATimeJumpDoesNotKeepItHalfOpen(t *testing.T) {
	b := opened(t)
	for range 3 {
		_ = b.Allow(t0.Add(5 * time.Second))
	}
	back := t0.Add(-48 * time.Hour)
	for range 3 {
		b.Record(back, call.Outcome{Latency: time.Millisecond})
	}
	_ = b.Allow(back)
	if b.Allow(back.Add(5*time.Second)) != nil {
		t.Error("no probe after the clock was set back")
	}
}

// Every end is counted once, however many come at once.
func TestCountersAreExactUnderABurst(t *testing.T) {
	const callers, each = 8, 5000
	for _, c := range []Config{{Window: time.Hour}, {WindowCalls: 10_000}} {
		c.MinCalls, c.FailureRatio, c.SlowAfter, c.SlowRatio = 10_000, 1, time.Second, 1
		b := New(c)
		var run sync.WaitGroup
		for range callers {
			run.Go(func() {
				for i := range each {
					switch i % 5 {
					case 0:
						b.Record(t0, call.Outcome{Class: call.Server})
					case 1:
						b.Record(t0, call.Outcome{Latency: 2 * time.Second})
					case 2:
						b.Record(t0, call.Outcome{Class: call.Canceled})
					default:
						b.Record(t0, good)
					}
				}
			})
		}
		run.Wait()
		want := count{calls: callers * each * 4 / 5, failed: callers * each / 5, slow: callers * each / 5}
		if c.WindowCalls > 0 {
			listed := count{}
			for _, one := range b.window.last {
				listed.add(one.count())
			}
			want = listed
			if want.calls != c.WindowCalls {
				t.Errorf("%d calls in the window, want %d", want.calls, c.WindowCalls)
			}
		}
		if b.window.sum != want {
			t.Errorf("%+v, want %+v", b.window.sum, want)
		}
	}
}

package limit

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/setting"
)

var (
	never time.Time // no deadline
	good  = call.Outcome{Class: call.OK, Latency: 10 * ms}
)

func fixedAt(n int, q *Queue) *Limiter {
	return New(Config{Algorithm: Fixed, Limit: n, Queue: q})
}

func at(d time.Duration) time.Time { return epoch.Add(d) }

// learned is a limiter that has seen answers of the given latency.
func learned(c Config, latency time.Duration) *Limiter {
	l := New(c)
	for range kept {
		t := l.Admit(at(0), call.Info{}, never)
		l.Done(at(0), t, call.Outcome{Class: call.OK, Latency: latency})
	}
	return l
}

func TestAFixedLimitAdmitsExactlyThatMany(t *testing.T) {
	l := fixedAt(3, nil)
	var held []Ticket
	for range 3 {
		ticket := l.Admit(at(0), call.Info{}, never)
		if !ticket.Admitted() || ticket.Refused() != nil || ticket.Waiting() || ticket.Decided() != nil || !ticket.Expiry().IsZero() {
			t.Fatalf("not admitted at once: %+v", ticket)
		}
		held = append(held, ticket)
	}
	if ticket := l.Admit(at(0), call.Info{}, never); ticket.Admitted() || !errors.Is(ticket.Refused(), ErrShed) {
		t.Errorf("the fourth: %v", ticket.Refused())
	}
	l.Done(at(ms), held[0], good)
	if l.InFlight() != 2 {
		t.Errorf("%d in flight", l.InFlight())
	}
	if !l.Admit(at(ms), call.Info{}, never).Admitted() {
		t.Error("the permit that was given back is lost")
	}
}

func TestAWaitingCallGetsTheNextPermit(t *testing.T) {
	l := fixedAt(1, &Queue{})
	first := l.Admit(at(0), call.Info{}, never)
	second := l.Admit(at(0), call.Info{}, never)
	if !second.Waiting() || second.Admitted() || second.Refused() != nil || l.Queued() != 1 {
		t.Fatalf("%+v, %d queued", second, l.Queued())
	}
	select {
	case <-second.Decided():
		t.Fatal("decided while the permit is out")
	default:
	}
	l.Done(at(ms), first, good)
	select {
	case <-second.Decided():
	default:
		t.Fatal("not decided although the permit is free")
	}
	if !second.Admitted() || l.InFlight() != 1 || l.Queued() != 0 {
		t.Errorf("admitted %v, %d in flight, %d queued", second.Admitted(), l.InFlight(), l.Queued())
	}
}

func TestACallThatWaitedTooLongIsRefused(t *testing.T) {
	l := fixedAt(1, &Queue{MaxAge: 50 * ms})
	l.Admit(at(0), call.Info{}, never)
	w := l.Admit(at(0), call.Info{}, never)
	if got := w.Expiry(); !got.Equal(at(50 * ms)) {
		t.Fatalf("expires at %v", got.Sub(epoch))
	}
	l.Expire(at(49*ms), w)
	if !w.Waiting() {
		t.Fatal("expired early")
	}
	l.Expire(at(50*ms), w)
	l.Expire(at(60*ms), w)
	if !errors.Is(w.Refused(), ErrAge) || l.Queued() != 0 || l.Counts().Age != 1 {
		t.Errorf("%v, %d queued, %+v", w.Refused(), l.Queued(), l.Counts())
	}
}

func TestTheAgeBoundIsAThirdOfTheTimeThatACallHas(t *testing.T) {
	l := fixedAt(1, &Queue{})
	l.Admit(at(0), call.Info{}, never)
	for deadline, want := range map[time.Duration]time.Duration{300 * ms: 100 * ms, 3 * time.Second: time.Second} {
		if got := l.Admit(at(0), call.Info{}, at(deadline)).Expiry().Sub(epoch); got != want {
			t.Errorf("deadline in %v: waits up to %v, want %v", deadline, got, want)
		}
	}
	if got := l.Admit(at(0), call.Info{}, never).Expiry().Sub(epoch); got != time.Second {
		t.Errorf("no deadline: waits up to %v, want 1s", got)
	}
}

func TestAPermitGivenToACallThatLeavesIsNotLost(t *testing.T) {
	l := fixedAt(1, &Queue{})
	first := l.Admit(at(0), call.Info{}, never)
	gone, second := l.Admit(at(0), call.Info{}, never), l.Admit(at(0), call.Info{}, never)
	l.Cancel(at(ms), gone)
	l.Cancel(at(ms), gone)
	if gone.Admitted() || l.Queued() != 1 || l.Counts().Gone != 1 {
		t.Fatalf("%d queued, %+v", l.Queued(), l.Counts())
	}
	l.Done(at(ms), first, good)
	l.Cancel(at(ms), second) // admitted in the same instant in which its caller leaves
	if l.InFlight() != 0 {
		t.Errorf("%d in flight", l.InFlight())
	}
}

func TestADoomedCallIsRefusedAtOnce(t *testing.T) {
	for _, c := range []struct {
		left time.Duration
		want error
	}{{100 * ms, nil}, {80 * ms, nil}, {79 * ms, ErrDoomed}, {ms, ErrDoomed}, {0, ErrDoomed}, {-ms, ErrDoomed}} {
		l := learned(Config{}, 80*ms)
		l.service.pass = int64(time.Hour) // none to correct the median with
		ticket := l.Admit(at(time.Second), call.Info{Priority: call.Critical}, at(time.Second+c.left))
		if !errors.Is(ticket.Refused(), c.want) {
			t.Errorf("%v left of a median of 80 ms: %v, want %v", c.left, ticket.Refused(), c.want)
		}
	}
}

func TestACallThatWouldWaitTooLongIsDoomedToo(t *testing.T) {
	l := learned(Config{Algorithm: Fixed, Limit: 1, Queue: &Queue{Length: 10, MaxAge: time.Minute}}, 80*ms)
	l.service.pass = int64(time.Hour)
	l.Admit(at(0), call.Info{}, never)
	if w := l.Admit(at(0), call.Info{}, at(159*ms)); !errors.Is(w.Refused(), ErrDoomed) {
		t.Errorf("with 159 ms for a wait and a service of 80 ms each: %v", w.Refused())
	}
	if w := l.Admit(at(0), call.Info{}, at(161*ms)); !w.Waiting() {
		t.Errorf("with 161 ms: %v", w.Refused())
	}
}

// A median that is too high would refuse all the calls that could correct it.
func TestTheServiceTimeIsUnlearnedWhenTheDependencyRecovers(t *testing.T) {
	l := learned(Config{}, time.Second)
	passed := time.Duration(0)
	for now := ms; now < 10*time.Second && passed == 0; now += 2 * ms {
		ticket := l.Admit(at(now), call.Info{}, at(now+200*ms))
		if ticket.Admitted() {
			l.Done(at(now), ticket, call.Outcome{Class: call.OK, Latency: 20 * ms})
		}
		if l.service.usual(l.at) < int64(200*ms) {
			passed = now
		}
	}
	if passed == 0 || passed > 6*time.Second {
		t.Errorf("calls with 200 ms for a service of 20 ms are refused until %v", passed)
	}
}

func TestRejectsAndCanceledCallsAreNoSamples(t *testing.T) {
	for _, algorithm := range []string{Adaptive, AIMD, Vegas, Gradient2} {
		quiet, noisy := New(Config{Algorithm: algorithm}), New(Config{Algorithm: algorithm})
		for i := range 5000 {
			now := at(time.Duration(i) * 5 * ms)
			a, b := quiet.Admit(now, call.Info{}, never), noisy.Admit(now, call.Info{}, never)
			end := now.Add(4 * ms)
			for _, class := range []call.Class{call.Canceled, call.Shed, call.Client, call.Server} {
				extra := noisy.Admit(now, call.Info{}, never)
				noisy.Done(end, extra, call.Outcome{Class: class, Latency: 100 * time.Microsecond})
			}
			noisy.Done(end, Ticket{err: ErrShed}, call.Outcome{Class: call.OK, Latency: time.Microsecond})
			quiet.Done(end, a, call.Outcome{Class: call.OK, Latency: 4 * ms})
			noisy.Done(end, b, call.Outcome{Class: call.OK, Latency: 4 * ms})
		}
		if quiet.Limit() != noisy.Limit() {
			t.Errorf("%s: limit %d with, %d without calls that tell nothing", algorithm, noisy.Limit(), quiet.Limit())
		}
		if got := noisy.service.usual(noisy.at); got != int64(4*ms) {
			t.Errorf("%s: the usual service time is %v, want that of the successes, 4ms", algorithm, time.Duration(got))
		}
	}
}

func TestAnExemptCallAlwaysPasses(t *testing.T) {
	l := New(Config{Algorithm: Fixed, Limit: 1, Rate: &Rate{PerSecond: 1, Burst: 1}})
	l.Admit(at(0), call.Info{}, never)
	check := l.Admit(at(0), call.Info{Priority: Exempt}, at(-time.Second))
	if !check.Admitted() || l.InFlight() != 1 {
		t.Errorf("%v, %d in flight", check.Refused(), l.InFlight())
	}
	l.Done(at(0), check, good)
	if l.InFlight() != 1 {
		t.Error("a health check gave back a permit that it did not take")
	}
}

func TestTheZeroTicketIsIgnored(t *testing.T) {
	l := fixedAt(1, nil)
	l.Done(at(0), Ticket{}, good)
	l.Cancel(at(0), Ticket{})
	l.Expire(at(0), Ticket{})
	if (Ticket{}).Admitted() || l.InFlight() != 0 {
		t.Errorf("%d in flight", l.InFlight())
	}
}

func TestDropsAreTimeoutsRefusalsPushbackAndAnswersTooLate(t *testing.T) {
	for _, c := range []struct {
		out  call.Outcome
		drop bool
	}{
		{call.Outcome{Class: call.OK, Latency: 10 * ms}, false},
		{call.Outcome{Class: call.OK, Latency: 600 * ms}, true},
		{call.Outcome{Class: call.Timeout, Latency: 10 * ms}, true},
		{call.Outcome{Class: call.Refused}, true},
		{call.Outcome{Class: call.Server}, false},
		{call.Outcome{Class: call.Server, Pushback: time.Second}, true},
		{call.Outcome{Class: call.Client}, false},
		{call.Outcome{Class: call.Canceled}, false},
	} {
		l := New(Config{Algorithm: AIMD, Limit: 100, MaxLatency: 500 * ms})
		l.Done(at(time.Second), l.Admit(at(0), call.Info{}, never), c.out)
		if got := l.Limit() < 100; got != c.drop {
			t.Errorf("%+v: drop %v, want %v", c.out, got, c.drop)
		}
	}
}

func TestReconfigureKeepsWhatWasLearned(t *testing.T) {
	l := New(Config{Algorithm: AIMD, Limit: 100})
	l.Done(at(0), l.Admit(at(0), call.Info{}, never), call.Outcome{Class: call.Timeout})
	l.Reconfigure(at(0), Config{Algorithm: AIMD, Limit: 50})
	if l.Limit() != 90 {
		t.Errorf("limit %d, want the 90 that was learned", l.Limit())
	}
	l.Reconfigure(at(0), Config{Algorithm: Vegas, Limit: 50})
	if l.Limit() != 90 {
		t.Errorf("limit %d under another algorithm, want 90", l.Limit())
	}
	l.Reconfigure(at(0), Config{Algorithm: Vegas, Limit: 50, Max: 60})
	if l.Limit() != 60 {
		t.Errorf("limit %d, want the new maximum 60", l.Limit())
	}
	l.Reconfigure(at(0), Config{Algorithm: Fixed, Limit: 50})
	if l.Limit() != 50 {
		t.Errorf("limit %d, want 50", l.Limit())
	}
	l.Reconfigure(at(0), Config{Algorithm: None})
	l.Reconfigure(at(0), Config{Algorithm: AIMD})
	if l.Limit() != 20 {
		t.Errorf("limit %d after none, want the default 20", l.Limit())
	}
}

func TestReconfigureAdmitsOrRefusesThoseThatWait(t *testing.T) {
	l := fixedAt(1, &Queue{})
	l.Admit(at(0), call.Info{}, never)
	var waiting []Ticket
	for range 3 {
		waiting = append(waiting, l.Admit(at(0), call.Info{}, never))
	}
	l.Reconfigure(at(0), Config{Algorithm: Fixed, Limit: 2, Queue: &Queue{}})
	if !waiting[0].Admitted() || !waiting[1].Waiting() {
		t.Error("a higher limit does not admit the first of those that wait")
	}
	l.Reconfigure(at(0), Config{Algorithm: Fixed, Limit: 2})
	if !errors.Is(waiting[1].Refused(), ErrShed) || !errors.Is(waiting[2].Refused(), ErrShed) || l.Queued() != 0 {
		t.Error("the queue was taken away, but calls still wait")
	}
}

func TestTimeThatStepsBackChangesNothing(t *testing.T) {
	l := New(Config{Queue: &Queue{}, Rate: &Rate{PerSecond: 10, Burst: 1}})
	l.Admit(at(time.Hour), call.Info{}, never)
	if got := l.Admit(at(0), call.Info{}, never); !errors.Is(got.Refused(), ErrRate) {
		t.Errorf("%v", got.Refused())
	}
	if !l.Admit(at(time.Hour+100*ms), call.Info{}, never).Admitted() {
		t.Error("the clock that came back is not trusted")
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Algorithm: "magic", Limit: 5, Min: 10, Max: 8, MaxLatency: -1, Tenants: -1,
		Queue: &Queue{Length: -1, Target: -1, TargetShare: 0.6, MaxAge: -1, LIFOAbove: -1},
		Rate:  &Rate{PerSecond: 0, Burst: -1, Algorithm: "magic", Tenants: -1},
	}
	var got []string
	for _, err := range setting.List(bad.Validate()) {
		fault, ok := errors.AsType[*setting.Error](err)
		if !ok {
			t.Fatalf("%T", err)
		}
		got = append(got, fault.Path)
	}
	want := "[algorithm max limit max_latency tenants queue.length queue.target queue.target_share queue.max_age queue.lifo_above rate.per_second rate.burst rate.algorithm rate.tenants]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// A model of what must hold whatever happens.
func TestEveryCallIsDecidedOnceAndNoPermitIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 5).Draw(t, "limit")
		c := Config{Algorithm: Fixed, Limit: most, Tenants: 2, Queue: &Queue{Length: rapid.IntRange(1, 8).Draw(t, "length")}}
		l := New(c)
		var open []Ticket
		now, calls, wait := time.Duration(0), uint64(0), 0
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * ms
			switch op := rapid.IntRange(0, 5).Draw(t, "op"); {
			case op < 3 || len(open) == 0:
				calls++
				info := call.Info{
					Priority: call.Priority(rapid.IntRange(-3, 2).Draw(t, "tier")), Cohort: uint8(rapid.IntRange(0, 127).Draw(t, "cohort")),
					Tenant: rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "tenant"),
				}
				if ticket := l.Admit(at(now), info, at(now+time.Duration(rapid.IntRange(1, 900).Draw(t, "left"))*ms)); ticket.Refused() == nil {
					open = append(open, ticket)
				}
			default:
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				ticket := open[i]
				switch {
				case op == 3:
					l.Cancel(at(now), ticket)
					open = append(open[:i], open[i+1:]...)
				case op == 4:
					l.Expire(at(now), ticket)
				case ticket.Admitted():
					l.Done(at(now), ticket, good)
					open = append(open[:i], open[i+1:]...)
				}
			}
			admitted, kept := 0, open[:0]
			wait = 0
			for _, ticket := range open {
				if ticket.Admitted() {
					admitted++
				}
				if ticket.Waiting() {
					wait++
				}
				if ticket.Refused() == nil {
					kept = append(kept, ticket)
				}
			}
			open = kept
			if admitted != l.InFlight() || admitted > most || wait != l.Queued() || wait > 0 && admitted < most || wait > c.Queue.Length {
				t.Fatalf("%d admitted, %d in flight of %d; %d wait, %d queued", admitted, l.InFlight(), most, wait, l.Queued())
			}
		}
		n := l.Counts()
		if got := n.Admitted + n.Shed + n.Rate + n.Doomed + n.Age + n.Gone + uint64(wait); got != calls {
			t.Fatalf("%d calls, but %+v and %d waiting", calls, n, wait)
		}
	})
}

func TestPermitsHoldUnderConcurrency(t *testing.T) {
	l := New(Config{Limit: 8, Max: 8, Queue: &Queue{Length: 16, MaxAge: time.Minute, Target: time.Minute}})
	var mu sync.Mutex
	running, most := 0, 0
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 300 {
				ticket := l.Admit(epoch, call.Info{Tenant: fmt.Sprint(g), Priority: call.Priority(g%6 - 3)}, never)
				if ticket.Waiting() {
					if i%10 == 0 {
						l.Cancel(epoch, ticket)
						continue
					}
					<-ticket.Decided()
				}
				if !ticket.Admitted() {
					continue
				}
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				mu.Lock()
				running--
				mu.Unlock()
				l.Done(epoch, ticket, good)
			}
		})
	}
	all.Wait()
	if most > 8 || l.InFlight() != 0 || l.Queued() != 0 {
		t.Errorf("up to %d at once of 8; %d in flight and %d queued at the end", most, l.InFlight(), l.Queued())
	}
}

func TestNothingIsAllocatedForACallThatDoesNotWait(t *testing.T) {
	info := call.Info{Tenant: "tenant"}
	for _, c := range []Config{{}, {Queue: &Queue{}}, {Algorithm: Vegas}, {Algorithm: Gradient2}, {Algorithm: AIMD}, {Rate: &Rate{PerSecond: 1e9, PerTenant: true}}} {
		l := New(c)
		now := epoch
		if n := testing.AllocsPerRun(2000, func() {
			now = now.Add(ms)
			l.Done(now, l.Admit(now, info, now.Add(time.Second)), good)
		}); n != 0 {
			t.Errorf("%+v: %v allocations for a call that is admitted at once", c, n)
		}
	}
	l := fixedAt(1, nil)
	l.Admit(epoch, info, never)
	if n := testing.AllocsPerRun(2000, func() { l.Admit(epoch, info, never) }); n != 0 {
		t.Errorf("%v allocations for a call that is shed", n)
	}
}

func BenchmarkAdmitted(b *testing.B) {
	l := New(Config{Queue: &Queue{}})
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		l.Done(now, l.Admit(now, call.Info{}, never), good)
	}
}

func BenchmarkShed(b *testing.B) {
	l := fixedAt(1, nil)
	l.Admit(epoch, call.Info{}, never)
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		l.Admit(now, call.Info{}, never)
	}
}

func BenchmarkWaited(b *testing.B) {
	l := fixedAt(1, &Queue{})
	now := epoch
	held := l.Admit(now, call.Info{}, never)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		next := l.Admit(now, call.Info{}, never)
		l.Done(now, held, good)
		held = next
	}
}

func BenchmarkRate(b *testing.B) {
	for _, r := range []Rate{{PerSecond: 1e9}, {PerSecond: 1e9, Algorithm: GCRA}, {PerSecond: 1e9, PerTenant: true}} {
		b.Run(fmt.Sprintf("%s per tenant %v", r.Algorithm, r.PerTenant), func(b *testing.B) {
			rate := newRate(r.withDefaults(), 0)
			at := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				at += 1000
				rate.take(at, "tenant")
			}
		})
	}
}

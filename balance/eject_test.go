package balance

import (
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

const ms = time.Millisecond

var slowDown = call.Outcome{Class: call.Client, Pushback: time.Second}

// end makes a call that was picked on e end so.
func end(b *Balancer, e *Endpoint, now time.Time, out call.Outcome) {
	e.inFlight.Add(1)
	b.Done(e, now, out)
}

func after(d time.Duration) time.Time { return t0.Add(d) }

// ejecting is a balancer over n endpoints a, b, c...
func ejecting(n int, e Eject) (*Balancer, []*Endpoint) {
	s := NewSet(eleven[:n]...)
	b := New(Config{Eject: &e}, s)
	b.Usable(t0)
	return b, s.Endpoints()
}

// traffic lets each endpoint end 20 calls a second for span, as serve says.
func traffic(b *Balancer, from, span time.Duration, serve func(e *Endpoint) call.Outcome) {
	for at := from; at < from+span; at += 50 * ms {
		for _, e := range b.set.Endpoints() {
			if !b.Ejected(e) {
				end(b, e, after(at), serve(e))
			}
		}
	}
}

func TestFailuresInARowEjectExactly(t *testing.T) {
	b, es := ejecting(4, Eject{Consecutive: 5})
	for range 4 {
		end(b, es[0], t0, bad)
	}
	if b.Ejected(es[0]) {
		t.Fatal("four are enough")
	}
	end(b, es[0], t0, ok) // begins the count anew
	for range 4 {
		end(b, es[0], t0, bad)
	}
	end(b, es[0], t0, none) // says nothing
	if b.Ejected(es[0]) || b.Usable(t0) != 4 {
		t.Fatal("four in a row are enough")
	}
	if end(b, es[0], t0, bad); !b.Ejected(es[0]) || b.Usable(t0) != 3 {
		t.Fatal("five are not enough")
	}
	for range 100 {
		if e := pick(t, b, nil); e == es[0] {
			t.Fatal("picked while ejected")
		}
	}
}

func TestFailuresFarApartAreNotInARow(t *testing.T) {
	b, es := ejecting(4, Eject{})
	for i := range 20 {
		if end(b, es[0], after(time.Duration(i)*11*time.Second), bad); b.Ejected(es[0]) {
			t.Fatal("ejected")
		}
	}
}

// One that answers "too many requests" is not well, though it is the caller's class of error, and fast.
func TestEjectionSurvivesSuccessBy429(t *testing.T) {
	b, es := ejecting(4, Eject{})
	for range 5 {
		end(b, es[0], t0, slowDown)
	}
	if !b.Ejected(es[0]) {
		t.Fatal("429 counts as a success")
	}
	for range 2 {
		end(b, es[1], t0, bad)
		end(b, es[1], t0, slowDown)
	}
	end(b, es[1], t0, bad)
	if b.Usable(t0) != 3 { // the ceiling is one of four, so it may not go, but it was counted
		t.Fatal(b.Usable(t0))
	}
	// The trial's 429 keeps it out.
	later := after(11 * time.Second)
	if e := tryOut(t, b, later); e != es[0] {
		t.Fatal(e.Name())
	} else if b.Done(e, later, slowDown); !b.Ejected(e) {
		t.Fatal("429 brought it back")
	}
}

// tryOut picks the endpoint whose ejection is over.
func tryOut(t *testing.T, b *Balancer, now time.Time) *Endpoint {
	t.Helper()
	e, err := b.Pick(now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEjectedEndpointComesBackByOneTrial(t *testing.T) {
	b, es := ejecting(4, Eject{For: 10 * time.Second})
	for range 5 {
		end(b, es[2], t0, bad)
	}
	for i := range 99 {
		now := after(time.Duration(i) * 100 * ms)
		if e := tryOut(t, b, now); e == es[2] {
			t.Fatal("tried after", now.Sub(t0))
		} else {
			b.Done(e, now, ok)
		}
	}
	now := after(10 * time.Second)
	trial := tryOut(t, b, now)
	if trial != es[2] {
		t.Fatal("no trial")
	}
	for range 50 { // it is the only one
		if e := tryOut(t, b, now); e == es[2] {
			t.Fatal("a second trial")
		}
	}
	b.Done(trial, now.Add(5*ms), call.Outcome{Latency: 5 * ms})
	if b.Ejected(es[2]) || b.Usable(now) != 4 {
		t.Fatal("a good trial did not bring it back")
	}
}

func TestWhatComesBackFromAnEjectionStartsSlowly(t *testing.T) {
	b, _ := seeded(Config{SlowStart: 10 * time.Second, Eject: &Eject{For: 10 * time.Second}}, 8, "a", "b", "c", "d")
	b.Usable(t0)
	counts(t, b, t0, 100)
	for range 5 {
		end(b, b.set.Find("a"), t0, bad)
	}
	now := after(20 * time.Second)
	trial := tryOut(t, b, now)
	if trial.Name() != "a" {
		t.Fatal("no trial")
	}
	b.Done(trial, now, call.Outcome{Latency: ms})
	wantShares(t, "back", counts(t, b, now, 20_000), map[string]float64{"a": 0.03})
	wantShares(t, "half", counts(t, b, now.Add(5*time.Second), 20_000), map[string]float64{"a": 0.5 / 3.5})
	wantShares(t, "full", counts(t, b, now.Add(11*time.Second), 20_000), map[string]float64{"a": 0.25})
}

func TestATrialThatWasGivenUpMakesRoomForAnother(t *testing.T) {
	b, es := ejecting(4, Eject{For: 10 * time.Second})
	for range 5 {
		end(b, es[0], t0, bad)
	}
	now := after(10 * time.Second)
	for range 3 {
		e := tryOut(t, b, now)
		if e != es[0] {
			t.Fatal("no trial")
		}
		b.Done(e, now, none)
	}
	tryOut(t, b, now) // it never ends
	if e := tryOut(t, b, now.Add(10*time.Second)); e != es[0] {
		t.Fatal("a trial that hangs keeps the endpoint out")
	}
}

func TestEjectionsGrowAndAreForgiven(t *testing.T) {
	b, es := ejecting(4, Eject{For: 10 * time.Second, MaxFor: time.Minute})
	fail := func(now time.Time) {
		for range 5 {
			end(b, es[0], now, bad)
		}
	}
	fail(t0)
	at := time.Duration(0)
	for _, want := range []time.Duration{10, 20, 40, 60, 60} {
		if e := tryOut(t, b, after(at+want*time.Second-ms)); e == es[0] {
			t.Fatal("tried early, want after", want)
		}
		at += want * time.Second
		e := tryOut(t, b, after(at))
		if e != es[0] {
			t.Fatal("not tried after", want)
		}
		b.Done(e, after(at), bad)
	}
	at += 60 * time.Second
	b.Done(tryOut(t, b, after(at)), after(at), ok)
	// It fails again soon: the next ejection is as long as the last. It serves for a minute: it begins anew.
	fail(after(at + time.Second))
	if e := tryOut(t, b, after(at+60*time.Second)); e == es[0] {
		t.Fatal("forgiven too soon")
	}
	at += 61 * time.Second
	b.Done(tryOut(t, b, after(at)), after(at), ok)
	at += 60 * time.Second
	fail(after(at))
	if e := tryOut(t, b, after(at+10*time.Second)); e != es[0] {
		t.Fatal("not forgiven")
	}
}

// Calls that were in flight when it was ejected fail after it: they neither make the ejection longer nor end a trial.
func TestLateFailuresDoNotCountTwice(t *testing.T) {
	b, es := ejecting(4, Eject{For: 10 * time.Second})
	for range 20 {
		end(b, es[0], t0, bad)
	}
	now := after(10 * time.Second)
	trial := tryOut(t, b, now)
	if trial != es[0] {
		t.Fatal("a burst made the ejection longer")
	}
	for range 20 {
		end(b, es[0], now.Add(ms), call.Outcome{Class: call.Timeout, Latency: 15 * time.Second})
	}
	b.Done(trial, now.Add(2*ms), call.Outcome{Latency: 2 * ms})
	if b.Ejected(es[0]) {
		t.Fatal("old failures ended the trial")
	}
	for range 20 {
		end(b, es[0], now.Add(3*ms), call.Outcome{Class: call.Timeout, Latency: 15 * time.Second})
	}
	if b.Ejected(es[0]) {
		t.Fatal("old failures ejected it again")
	}
}

// Everything fails: the dependency behind them all is broken.
func TestNeverAllAreEjected(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 10} {
		b, es := ejecting(n, Eject{MaxEjected: 1})
		traffic(b, 0, 20*time.Second, func(*Endpoint) call.Outcome { return bad })
		if out := ejectedOf(b, es); out >= n {
			t.Errorf("%d of %d are out", out, n)
		}
		if _, err := b.Pick(after(time.Second), nil); err != nil {
			t.Error(n, err)
		}
	}
	for n, want := range map[int]int{1: 0, 2: 1, 3: 1, 4: 1, 10: 3, 11: 3} {
		b, es := ejecting(n, Eject{})
		traffic(b, 0, 5*time.Second, func(*Endpoint) call.Outcome { return bad })
		if out := ejectedOf(b, es); out != want {
			t.Errorf("%d of %d are out, want %d", out, n, want)
		}
	}
}

func ejectedOf(b *Balancer, es []*Endpoint) int {
	n := 0
	for _, e := range es {
		if b.Ejected(e) {
			n++
		}
	}
	return n
}

func TestPanicUsesTheEjectedWhenTooFewAreLeft(t *testing.T) {
	b, es := ejecting(4, Eject{})
	for range 5 {
		end(b, es[0], t0, bad)
	}
	es[1].SetHealthy(false)
	if b.Usable(t0) != 2 {
		t.Fatal(b.Usable(t0))
	}
	es[2].SetHealthy(false)
	if b.Usable(t0) != 2 {
		t.Fatal("one of four is left, and the ejected one is not used:", b.Usable(t0))
	}
	es[3].SetHealthy(false)
	if e := pick(t, b, nil); e != es[0] {
		t.Fatal(e.Name())
	}
	es[0].SetHealthy(false)
	if _, err := b.Pick(t0, nil); err == nil {
		t.Fatal("active checks found all unfit")
	}
}

func TestShareOfFailuresEjectsTheOutlierOnly(t *testing.T) {
	for name, c := range map[string]struct {
		a, others int // one of so many fails
		want      bool
	}{
		"one of three, alone":                    {3, 0, true},
		"one of ten is below the share":          {10, 0, false},
		"all fail as much":                       {3, 3, false},
		"the others fail more than half as much": {3, 5, false},
		"the others fail much less":              {3, 10, true},
	} {
		b, es := ejecting(5, Eject{Consecutive: 100})
		calls := map[*Endpoint]int{}
		traffic(b, 0, 10*time.Second, func(e *Endpoint) call.Outcome {
			calls[e]++
			every := c.others
			if e == es[0] {
				every = c.a
			}
			if every > 0 && calls[e]%every == 0 {
				return bad
			}
			return call.Outcome{Latency: ms}
		})
		if b.Ejected(es[0]) != c.want || ejectedOf(b, es[1:]) > 0 {
			t.Errorf("%s: ejected %v, others %d", name, b.Ejected(es[0]), ejectedOf(b, es[1:]))
		}
	}
}

func TestRelativeLatencyEjectsTheSlowHost(t *testing.T) {
	for name, c := range map[string]struct {
		hosts     int
		a, others time.Duration
		want      bool
	}{
		"five times as slow":         {3, 100 * ms, 20 * ms, true},
		"twice as slow":              {3, 40 * ms, 20 * ms, false},
		"all are slow":               {3, 900 * ms, 900 * ms, false},
		"below the floor":            {3, 9 * ms, 1 * ms, false},
		"too small a difference":     {3, 12 * ms, 3 * ms, false},
		"two are too few":            {2, 100 * ms, 20 * ms, false},
		"one of eleven":              {11, 100 * ms, 20 * ms, true},
		"the fast one is no outlier": {3, 1 * ms, 100 * ms, false},
	} {
		b, es := ejecting(c.hosts, Eject{})
		traffic(b, 0, 5*time.Second, func(e *Endpoint) call.Outcome {
			if e == es[0] {
				return call.Outcome{Latency: c.a}
			}
			return call.Outcome{Latency: c.others}
		})
		if b.Ejected(es[0]) != c.want || ejectedOf(b, es[1:]) > 0 {
			t.Errorf("%s: ejected %v, others %d", name, b.Ejected(es[0]), ejectedOf(b, es[1:]))
		}
	}
}

// What a quiet host did minutes ago is no evidence against it.
func TestOldEvidenceFadesWithoutTraffic(t *testing.T) {
	b, es := ejecting(3, Eject{Consecutive: 100})
	traffic(b, 0, 900*ms, func(e *Endpoint) call.Outcome {
		if e == es[0] {
			return bad
		}
		return call.Outcome{Latency: ms}
	})
	traffic(b, 2*time.Minute, 5*time.Second, func(*Endpoint) call.Outcome { return call.Outcome{Latency: ms} })
	if b.Ejected(es[0]) {
		t.Error("ejected")
	}
}

func TestTooFewAnswersEjectNobody(t *testing.T) {
	b, es := ejecting(3, Eject{MinCalls: 50})
	traffic(b, 0, 2*time.Second, func(e *Endpoint) call.Outcome { // 40 calls
		return call.Outcome{Latency: map[bool]time.Duration{true: time.Second, false: 20 * ms}[e == es[0]]}
	})
	if b.Ejected(es[0]) {
		t.Error("ejected")
	}
}

// Where hedges cancel every call to the slow host, none of its calls ever ends: their ages are evidence too.
func TestCanceledCallsShowThatAHostIsSlow(t *testing.T) {
	b, es := ejecting(3, Eject{})
	traffic(b, 0, 2*time.Second, func(*Endpoint) call.Outcome { return call.Outcome{Latency: 20 * ms} })
	traffic(b, 2*time.Second, 20*time.Second, func(e *Endpoint) call.Outcome {
		if e == es[0] {
			return call.Outcome{Class: call.Canceled, Latency: 100 * ms}
		}
		return call.Outcome{Latency: 20 * ms}
	})
	if !b.Ejected(es[0]) {
		t.Error("not ejected")
	}
	// And where callers leave at once it is no evidence.
	b, es = ejecting(3, Eject{})
	traffic(b, 0, 20*time.Second, func(e *Endpoint) call.Outcome {
		if e == es[0] {
			return call.Outcome{Class: call.Canceled, Latency: ms}
		}
		return call.Outcome{Latency: 20 * ms}
	})
	if b.Ejected(es[0]) {
		t.Error("ejected")
	}
}

// Hedging hides a host from its callers that now and then hangs. That it was overtaken speaks against it all the same.
func TestWhatIsOvertakenAgainAndAgainIsEjected(t *testing.T) {
	overtaken := call.Outcome{Class: call.Canceled, Latency: 60 * ms, Overtaken: true}
	hangs := func(all bool) func(*Endpoint) call.Outcome {
		calls := map[*Endpoint]int{}
		return func(e *Endpoint) call.Outcome {
			calls[e]++
			if (all || e.Name() == "a") && calls[e]%3 == 0 {
				return overtaken
			}
			return call.Outcome{Latency: 20 * ms}
		}
	}
	b, es := ejecting(3, Eject{})
	traffic(b, 0, 2*time.Second, hangs(false))
	if !b.Ejected(es[0]) || b.Usable(after(2*time.Second)) != 2 {
		t.Error("not ejected")
	}
	b, es = ejecting(3, Eject{})
	if traffic(b, 0, time.Minute, hangs(true)); ejectedOf(b, es) > 0 {
		t.Error("ejected for what all do")
	}
	b, es = ejecting(3, Eject{})
	for range 5 {
		end(b, es[0], t0, overtaken)
	}
	if !b.Ejected(es[0]) {
		t.Error("five in a row do not eject")
	}
}

// A long good past does not protect a host that has begun to fail: the share over 10 s would need 4 s to rise to 40 %.
func TestAGoodPastProtectsNobodyForLong(t *testing.T) {
	b, es := ejecting(3, Eject{FailureRatio: 0.4})
	traffic(b, 0, time.Minute, func(*Endpoint) call.Outcome { return ok })
	calls := 0
	fails := func(e *Endpoint) call.Outcome {
		if e == es[0] {
			if calls++; calls%4 != 0 {
				return bad
			}
		}
		return ok
	}
	if traffic(b, time.Minute, 2*time.Second, fails); !b.Ejected(es[0]) {
		t.Error("not ejected within 2 s")
	}
	if calls > 30 {
		t.Errorf("only after %d calls", calls)
	}
}

// Three of ten calls are long polls that answer after half a minute, on every host.
func TestLongPollingIsNotPenalised(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA} {
		b, r := seeded(Config{Algorithm: a, Eject: &Eject{}}, 3, "a", "b", "c")
		got := map[string]int{}
		drive(b, r, 100, 2*time.Minute, func(_ time.Duration, e *Endpoint) call.Outcome {
			got[e.Name()]++
			if r.IntN(10) < 3 {
				return call.Outcome{Latency: 30 * time.Second}
			}
			return call.Outcome{Latency: 20 * ms}
		})
		for name, n := range got {
			if n < 3200 || n > 4800 {
				t.Errorf("%s: %s got %d of about 12000 calls", a, name, n)
			}
		}
		if n := ejectedOf(b, b.set.Endpoints()); n > 0 {
			t.Errorf("%s: %d are ejected", a, n)
		}
	}
}

// One of ten fails all calls for ten minutes. It must stay out but for a trial now and then, and nobody else may go.
func TestOneBadOfTenDoesNotFlap(t *testing.T) {
	b, r := seeded(Config{Eject: &Eject{}}, 4, eleven[:10]...)
	failed := 0
	drive(b, r, 100, 10*time.Minute, func(at time.Duration, e *Endpoint) call.Outcome {
		if e.Name() == "a" {
			failed++
			return call.Outcome{Class: call.Server, Latency: ms}
		}
		return call.Outcome{Latency: 20 * ms}
	})
	if failed > 12 {
		t.Errorf("%d calls went to it", failed)
	}
	if n := ejectedOf(b, b.set.Endpoints()); n != 1 {
		t.Errorf("%d are out", n)
	}
}

func TestARecoveredHostComesBackByItself(t *testing.T) {
	for _, a := range []string{P2C, RoundRobin, Weighted, PeakEWMA} {
		b, r := seeded(Config{Algorithm: a, Eject: &Eject{}}, 5, "a", "b", "c", "d")
		last := 0
		drive(b, r, 200, 2*time.Minute, func(at time.Duration, e *Endpoint) call.Outcome {
			if e.Name() == "a" && at > 10*time.Second && at < 40*time.Second {
				return call.Outcome{Class: call.Refused}
			}
			if e.Name() == "a" && at > 110*time.Second {
				last++
			}
			return call.Outcome{Latency: 20 * ms}
		})
		if last < 400 || last > 600 {
			t.Errorf("%s: %d of about 2000 calls", a, last)
		}
	}
}

// Many goroutines fail at once on all hosts: the ceiling holds, and each counts once.
func TestEjectionUnderARace(t *testing.T) {
	for range 20 {
		b, es := ejecting(10, Eject{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 200 {
					e, err := b.Pick(after(time.Duration(i)*ms), nil)
					if err != nil {
						t.Error(err)
						return
					}
					b.Done(e, after(time.Duration(i)*ms), bad)
				}
			})
		}
		wg.Wait()
		if n := ejectedOf(b, es); n != 3 || int(b.eject.count.Load()) != n {
			t.Fatalf("%d are out, counted %d, want 3", n, b.eject.count.Load())
		}
		// All are let in again after the first period: none was ejected twice.
		for range 3 {
			e := tryOut(t, b, after(11*time.Second))
			if !b.Ejected(e) {
				t.Fatal("no trial")
			}
			b.Done(e, after(11*time.Second), ok)
		}
		if n := ejectedOf(b, es); n != 0 || b.eject.count.Load() != 0 {
			t.Fatal(n, "are out")
		}
	}
}

func TestTimeJumpsHarmNothing(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 100 * 24 * time.Hour, -100 * 24 * time.Hour} {
		for _, a := range []string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal} {
			b, r := seeded(Config{Algorithm: a, Eject: &Eject{}, SlowStart: 10 * time.Second}, 6, "a", "b", "c", "d")
			drive(b, r, 100, 10*time.Second, func(_ time.Duration, e *Endpoint) call.Outcome {
				if e.Name() == "a" {
					return bad
				}
				return call.Outcome{Latency: 20 * ms}
			})
			got := map[string]int{}
			for i := range 6000 {
				now := after(jump + time.Duration(i)*10*ms)
				for _, e := range b.Probes(now) {
					b.Report(e, now, Load{RIF: 1, Latency: ms})
				}
				e, err := b.Pick(now, nil)
				if err != nil {
					t.Fatal(err)
				}
				if i >= 4000 {
					got[e.Name()]++
				}
				b.Done(e, now, ok)
			}
			for _, name := range []string{"a", "b", "c", "d"} {
				if n := got[name]; n < 300 || n > 700 {
					t.Errorf("%s, jump %v: %s got %d of 2000", a, jump, name, n)
				}
			}
		}
	}
}

func TestEjectionEndsWhenItIsTurnedOff(t *testing.T) {
	b, es := ejecting(4, Eject{})
	for range 5 {
		end(b, es[0], t0, bad)
	}
	b.Reconfigure(Config{})
	if b.Usable(t0) != 4 {
		t.Error(b.Usable(t0))
	}
}

package balance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/setting"
	"pgregory.net/rapid"
)

var (
	t0   = time.Unix(1_700_000_000, 0)
	ok   = call.Outcome{}
	bad  = call.Outcome{Class: call.Server}
	none = call.Outcome{Class: call.Canceled}
)

func pick(t *testing.T, b *Balancer, avoid func(*Endpoint) bool) *Endpoint {
	t.Helper()
	e, err := b.Pick(t0, avoid)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestP2CTakesTheLessLoadedOfTwoDifferent(t *testing.T) {
	s := NewSet("a", "b")
	b := New(Config{}, s)
	for range 1000 {
		s.Find("a").inFlight.Store(5)
		s.Find("b").inFlight.Store(4)
		// Of two endpoints both are drawn, never one of them twice: the loaded one can never win.
		if e := pick(t, b, nil); e.Name() != "b" {
			t.Fatal("picked", e.Name())
		}
	}
}

func TestP2CSpreadsEvenly(t *testing.T) {
	s := NewSet("a", "b", "c", "d")
	b := New(Config{}, s)
	got := map[string]int{}
	for range 40_000 {
		e := pick(t, b, nil)
		got[e.Name()]++
		b.Done(e, t0, ok)
	}
	for _, e := range s.Endpoints() {
		if n := got[e.Name()]; n < 9500 || n > 10_500 {
			t.Errorf("%s: %d of 40000, want about 10000", e.Name(), n)
		}
	}
}

// The slow path, for when one of the two drawn is not fit, must be as even.
func TestP2CSpreadsEvenlyOverTheRest(t *testing.T) {
	s := NewSet("a", "b", "c", "d", "e")
	s.Find("b").SetHealthy(false)
	b := New(Config{}, s)
	got := map[string]int{}
	for range 30_000 {
		e := pick(t, b, func(e *Endpoint) bool { return e.Name() == "d" })
		got[e.Name()]++
		b.Done(e, t0, ok)
	}
	for _, name := range []string{"a", "c", "e"} {
		if n := got[name]; n < 9500 || n > 10_500 {
			t.Errorf("%s: %d of 30000, want about 10000", name, n)
		}
	}
	if len(got) != 3 {
		t.Error(got)
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	s := NewSet("a", "b", "c")
	b := New(Config{Algorithm: RoundRobin}, s)
	got := ""
	for range 6 {
		got += pick(t, b, nil).Name()
	}
	if got != "abcabc" {
		t.Error(got)
	}
	s.Find("b").SetHealthy(false)
	got = ""
	for range 4 {
		got += pick(t, b, nil).Name()
	}
	if got != "acac" {
		t.Error("with b sick:", got)
	}
}

// Whatever is sick or avoided, the choice is the best there is.
func TestPickPrefersHealthyThenNotAvoided(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e", "f"}[:rapid.IntRange(0, 6).Draw(t, "n")]
		s := NewSet(names...)
		avoided := map[*Endpoint]bool{}
		healthy, best := 0, 0
		for _, e := range s.Endpoints() {
			e.SetHealthy(rapid.Bool().Draw(t, "healthy"))
			avoided[e] = rapid.Bool().Draw(t, "avoid")
			if e.Healthy() {
				healthy++
				if !avoided[e] {
					best++
				}
			}
		}
		b := New(Config{Algorithm: rapid.SampledFrom([]string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal}).Draw(t, "algorithm")}, s)
		e, err := b.Pick(t0, func(e *Endpoint) bool { return avoided[e] })
		switch {
		case healthy == 0:
			if !errors.Is(err, ErrNoEndpoint) || e != nil {
				t.Fatal(e, err)
			}
		case err != nil || !e.Healthy() || best > 0 && avoided[e]:
			t.Fatal(e, err)
		case e.InFlight() != 1:
			t.Fatal("in flight", e.InFlight())
		}
		if err == nil {
			b.Done(e, t0, none)
			if e.InFlight() != 0 {
				t.Fatal("in flight", e.InFlight())
			}
		}
	})
}

// The order of preference holds under every rule, in every zone and subset, whatever is ejected.
func TestPickKeepsItsOrderOfPreference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := eleven[:rapid.IntRange(1, 11).Draw(t, "n")]
		b := New(Config{
			Algorithm: rapid.SampledFrom([]string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal}).Draw(t, "algorithm"),
			Eject:     &Eject{}, Subset: rapid.IntRange(0, 6).Draw(t, "subset"), SubsetKey: "me",
			Zone: rapid.SampledFrom([]string{"", "x"}).Draw(t, "zone"), SlowStart: time.Second,
		}, NewSet())
		var targets []Target
		for _, name := range names {
			targets = append(targets, Target{name, rapid.Float64Range(0.1, 10).Draw(t, "weight"), rapid.SampledFrom([]string{"x", "y"}).Draw(t, "in")})
		}
		b.set.Configure(targets)
		v, _ := b.look(t0)
		avoided := map[*Endpoint]bool{}
		var left, best, healthy int
		for _, n := range v.all {
			n.e.SetHealthy(rapid.Float64().Draw(t, "healthy") > 0.2)
			avoided[n.e] = rapid.Bool().Draw(t, "avoid")
			used := slices.Contains(v.used, n)
			if used && rapid.Float64().Draw(t, "ejected") < 0.3 {
				n.out.Store(int64(time.Minute))
				b.eject.count.Add(1)
			}
			if !n.e.Healthy() {
				continue
			}
			healthy++
			if n.out.Load() == 0 {
				if used {
					left++
				}
				if !avoided[n.e] {
					best++
				}
			}
			b.Report(n.e, t0, Load{RIF: rapid.IntRange(0, 9).Draw(t, "rif"), Latency: time.Millisecond})
		}
		panicking := b.eject.count.Load() > 0 && float64(left) < 0.5*float64(len(v.used))
		e, err := b.Pick(t0, func(e *Endpoint) bool { return avoided[e] })
		switch {
		case healthy == 0:
			if !errors.Is(err, ErrNoEndpoint) {
				t.Fatal(e, err)
			}
		case err != nil:
			t.Fatal(err)
		case !e.Healthy():
			t.Fatal("unfit")
		case best > 0 && avoided[e]:
			t.Fatal("avoided, though there are others")
		case best > 0 && b.Ejected(e) && !panicking:
			t.Fatal("ejected, though there are others")
		}
	})
}

// An endpoint that refuses at once never has anything in flight. It must not draw the traffic for that.
func TestFastFailureIsNoSinkhole(t *testing.T) {
	s := NewSet("bad", "b", "c")
	b := New(Config{}, s)
	for _, e := range s.Endpoints()[1:] {
		e.inFlight.Store(3)
	}
	n := 0
	for i := range 1000 {
		now := t0.Add(time.Duration(i) * time.Millisecond)
		e, _ := b.Pick(now, nil)
		if e.Name() == "bad" {
			n++
			b.Done(e, now, bad)
		} else {
			b.Done(e, now, ok)
		}
	}
	if n > 20 {
		t.Errorf("%d of 1000 calls went to the endpoint that fails", n)
	}
	// It comes back after a while, and one success clears it.
	later := t0.Add(10 * time.Second)
	for tries := 0; ; tries++ {
		if tries == 100 {
			t.Fatal("never tried again")
		}
		e, _ := b.Pick(later, nil)
		b.Done(e, later, ok)
		if e.Name() == "bad" {
			break
		}
	}
	if v, now := b.look(later); v.by[s.Find("bad")].pending(now) != 0 {
		t.Error("one success did not clear it")
	}
}

func TestReplaceKeepsThoseThatStay(t *testing.T) {
	s := NewSet("a", "b", "b")
	a, b := s.Find("a"), s.Find("b")
	a.SetHealthy(false)
	a.inFlight.Store(3)
	s.Replace([]string{"c", "a"})
	if list := s.Endpoints(); len(list) != 2 || list[1] != a || a.Healthy() || a.InFlight() != 3 {
		t.Error(list)
	}
	if s.Find("b") != nil || s.Healthy() != 1 {
		t.Error("b stayed")
	}
	New(Config{}, s).Done(b, t0, ok) // a call on one that is gone ends as usual
}

func TestPickWhileTheSetChanges(t *testing.T) {
	s := NewSet("a", "b")
	var wg sync.WaitGroup
	for _, algorithm := range []string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal} {
		b := New(Config{Algorithm: algorithm, Eject: &Eject{}, SlowStart: time.Second}, s)
		wg.Go(func() {
			for range 2000 {
				if e, err := b.Pick(t0, nil); err == nil {
					b.Done(e, t0, bad)
				}
			}
		})
	}
	for i := range 500 {
		s.Replace([]string{"a", "b", "c"}[:1+i%3])
		s.Endpoints()[0].SetHealthy(i%5 != 0)
	}
	wg.Wait()
	for _, e := range s.Endpoints() {
		if e.InFlight() != 0 {
			t.Error(e.Name(), e.InFlight())
		}
	}
}

func TestCheckNeedsSeveralInARow(t *testing.T) {
	c := NewCheck(HealthConfig{Unhealthy: 2, Healthy: 3})
	results := "-+--+-++-+++-"
	want := "hhhUuuuuuuuHh" // upper case: changed by this result
	for i, r := range results {
		healthy, changed := c.Result(r == '+')
		got := 'u'
		if healthy {
			got = 'h'
		}
		if changed {
			got += 'A' - 'a'
		}
		if byte(got) != want[i] {
			t.Errorf("result %d: %c, want %c", i, got, want[i])
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	if (Config{}).Validate() != nil || (Config{}).WithDefaults().Validate() != nil {
		t.Error("the defaults are no good")
	}
	c := Config{
		Algorithm: "fastest", ZoneMin: 2, Subset: -1, SlowStart: -1,
		Eject: &Eject{
			Consecutive: -1, FailureRatio: 2, LatencyFactor: 1, LatencyFloor: -1, LatencyDelta: -1, MinCalls: -1,
			MaxEjected: -1, PanicBelow: 2, For: 2, MaxFor: 1,
		},
		Prequal: &Probing{PerCall: 17, Hot: -1},
	}
	if n := len(setting.List(c.Validate())); n != 15 {
		t.Errorf("%d faults, want 15: %v", n, c.Validate())
	}
	good := Config{Algorithm: Prequal, Eject: &Eject{}}
	full := good.WithDefaults()
	if full.Validate() != nil || *good.Eject != (Eject{}) || full.Eject.Consecutive != 5 || full.Prequal.PerCall != 3 {
		t.Error(full.Validate(), good.Eject, full.Eject, full.Prequal)
	}
	clone := full.Clone()
	if clone.Eject == full.Eject || clone.Prequal == full.Prequal || *clone.Eject != *full.Eject {
		t.Error("the clone shares")
	}
	err := HealthConfig{Path: "x", Interval: 1, Timeout: -1, Unhealthy: -1, Healthy: -1}.Validate()
	joined, isJoined := err.(interface{ Unwrap() []error })
	if !isJoined || len(joined.Unwrap()) != 5 {
		t.Errorf("%v: want 5 faults", err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for _, algorithm := range []string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal} {
		s := NewSet("a", "b", "c", "d")
		b := New(Config{Algorithm: algorithm, Eject: &Eject{}, SlowStart: time.Second, Zone: "x"}, s)
		tried := s.Endpoints()[0]
		now := t0
		if n := testing.AllocsPerRun(1000, func() {
			now = now.Add(100 * time.Millisecond)
			for _, e := range s.Endpoints() {
				b.Report(e, now, Load{RIF: 1, Latency: time.Millisecond})
			}
			e, _ := b.Pick(now, func(e *Endpoint) bool { return e == tried })
			b.Done(e, now, ok)
		}); n != 0 {
			t.Errorf("%s: %v allocations", algorithm, n)
		}
	}
}

func BenchmarkPickAndDone(b *testing.B) {
	for _, algorithm := range []string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal} {
		for _, eject := range []*Eject{nil, {}} {
			b.Run(fmt.Sprintf("%s/eject=%v", algorithm, eject != nil), func(b *testing.B) {
				s := NewSet(eleven...)
				lb := New(Config{Algorithm: algorithm, Eject: eject}, s)
				now := t0
				for i := range b.N {
					now = now.Add(time.Millisecond)
					if algorithm == Prequal {
						lb.Report(s.Endpoints()[i%11], now, Load{RIF: 1, Latency: time.Millisecond})
					}
					e, _ := lb.Pick(now, nil)
					lb.Done(e, now, call.Outcome{Latency: time.Millisecond})
				}
			})
		}
	}
}

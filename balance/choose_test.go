package balance

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// counts makes n idle picks at now and says how many each endpoint got.
func counts(t *testing.T, b *Balancer, now time.Time, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		e, err := b.Pick(now, nil)
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()]++
		b.Done(e, now, call.Outcome{Latency: ms})
	}
	return got
}

func wantShares(t *testing.T, what string, got map[string]int, want map[string]float64) {
	t.Helper()
	total := 0
	for _, n := range got {
		total += n
	}
	for name, share := range want {
		if is := float64(got[name]) / float64(total); math.Abs(is-share) > 0.02 {
			t.Errorf("%s: %s got %.3f, want %.3f", what, name, is, share)
		}
	}
}

func TestSmoothWeightedRoundRobin(t *testing.T) {
	s := NewSet()
	s.Configure([]Target{{Name: "a", Weight: 5}, {Name: "b", Weight: 1}, {Name: "c", Weight: 1}})
	b := New(Config{Algorithm: Weighted}, s)
	b.rand = func() uint64 { return 0 } // the first turn is drawn
	got := ""
	for range 14 {
		got += pick(t, b, nil).Name()
	}
	if got != "aabacaaaabacaa" { // nginx's own example
		t.Error(got)
	}
}

func TestCallersBeginTheirTurnsAnywhere(t *testing.T) {
	first := map[string]int{}
	for seed := range uint64(500) {
		b, _ := seeded(Config{Algorithm: Weighted}, seed, "a", "b", "c", "d")
		first[pick(t, b, nil).Name()]++
	}
	for name, n := range first {
		if n < 90 || n > 160 || len(first) != 4 {
			t.Errorf("%d of 500 begin at %s", n, name)
		}
	}
}

func TestWeightsHoldForIdleEndpoints(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA, Weighted, Prequal} {
		b, _ := seeded(Config{Algorithm: a}, 1)
		b.set.Configure([]Target{{Name: "a", Weight: 1}, {Name: "b", Weight: 2}, {Name: "c", Weight: 5}})
		wantShares(t, a, counts(t, b, t0, 20_000), map[string]float64{"a": 0.125, "b": 0.25, "c": 0.625})
	}
}

func TestWeightsHoldUnderLoad(t *testing.T) {
	b, r := seeded(Config{}, 2)
	b.set.Configure([]Target{{Name: "a", Weight: 1}, {Name: "b", Weight: 3}})
	got := map[string]int{}
	drive(b, r, 2000, 20*time.Second, func(_ time.Duration, e *Endpoint) call.Outcome {
		got[e.Name()]++
		return call.Outcome{Latency: 20 * ms}
	})
	wantShares(t, "p2c", got, map[string]float64{"a": 0.25, "b": 0.75})
}

// The others share what an ejected one leaves, in proportion, and get their old shares when it is back.
func TestWeightsAfterEjection(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA, Weighted} {
		b, _ := seeded(Config{Algorithm: a, Eject: &Eject{For: 10 * time.Second}}, 3)
		b.set.Configure([]Target{{Name: "a", Weight: 4}, {Name: "b", Weight: 1}, {Name: "c", Weight: 2}, {Name: "d", Weight: 1}})
		b.Usable(t0)
		for range 5 {
			end(b, b.set.Find("a"), t0, bad)
		}
		wantShares(t, a, counts(t, b, t0, 20_000), map[string]float64{"a": 0, "b": 0.25, "c": 0.5, "d": 0.25})
		later := after(10 * time.Second)
		b.Done(tryOut(t, b, later), later.Add(ms), call.Outcome{Latency: ms})
		if a == PeakEWMA {
			later = after(10 * time.Minute) // its failures are forgotten slowly, as they should
		}
		wantShares(t, a, counts(t, b, later, 20_000), map[string]float64{"a": 0.5, "b": 0.125, "c": 0.25, "d": 0.125})
	}
}

func TestPendingConnectsCount(t *testing.T) {
	b, _ := seeded(Config{}, 1, "a", "b")
	hung := map[string]int{}
	for range 100 { // none of them ever gets a connection, let alone an answer
		hung[pick(t, b, nil).Name()]++
	}
	if hung["a"] != 50 || hung["b"] != 50 {
		t.Error(hung)
	}
}

func TestNewHostIsNotFlooded(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA, RoundRobin, Weighted, Prequal} {
		for _, slow := range []time.Duration{0, 10 * time.Second} {
			if raceOn && slow == 0 && a != Prequal {
				continue
			}
			b, r := seeded(Config{Algorithm: a, SlowStart: slow}, 7, eleven[:10]...)
			arrived := 20 * time.Second
			first, second, late := 0, 0, 0
			drive(b, r, 500, 60*time.Second, func(at time.Duration, e *Endpoint) call.Outcome {
				if at > arrived && len(b.set.Endpoints()) == 10 {
					b.set.Replace(eleven)
				}
				for _, asked := range b.Probes(after(at)) {
					n := int(asked.InFlight())
					b.Report(asked, after(at), Load{RIF: n, Latency: time.Duration(n+1) * 20 * ms})
				}
				if e.Name() == "k" {
					switch {
					case at < arrived+time.Second:
						first++
					case at < arrived+2*time.Second:
						second++
					case at > arrived+20*time.Second:
						late++
					}
				}
				return call.Outcome{Latency: 100 * ms}
			})
			// Its fair share is 45 of the 500 calls in a second. An idle one is entitled to some more, to catch up.
			limit := 110
			if slow > 0 {
				limit = 40
			}
			if first > limit || second > limit {
				t.Errorf("%s, slow start %v: %d and %d calls in its first seconds", a, slow, first, second)
			}
			if late < 700 || late > 1200 {
				t.Errorf("%s, slow start %v: %d of 10000 calls later", a, slow, late)
			}
		}
	}
}

func TestSlowStartRampsUpWhatComesBack(t *testing.T) {
	for _, a := range []string{P2C, RoundRobin, Weighted} {
		b, _ := seeded(Config{Algorithm: a, SlowStart: 10 * time.Second}, 8, "a", "b", "c", "d")
		b.Usable(t0)
		wantShares(t, a+", at first", counts(t, b, t0, 20_000), map[string]float64{"a": 0.25})
		e := b.set.Find("a")
		e.SetHealthy(false)
		counts(t, b, t0, 100)
		e.SetHealthy(true)
		half := 0.5 / 3.5
		if a == RoundRobin {
			half = 0.125
		}
		counts(t, b, t0, 1)
		wantShares(t, a+", back", counts(t, b, t0, 20_000), map[string]float64{"a": 0.03})
		wantShares(t, a+", half", counts(t, b, after(5*time.Second), 20_000), map[string]float64{"a": half})
		wantShares(t, a+", full", counts(t, b, after(11*time.Second), 20_000), map[string]float64{"a": 0.25})
	}
}

func zoned(min float64) (*Balancer, []*Endpoint) {
	b, _ := seeded(Config{Zone: "x", ZoneMin: min}, 9)
	var targets []Target
	for i := range 20 {
		targets = append(targets, Target{Name: strconv.Itoa(i), Zone: []string{"x", "y"}[i/10]})
	}
	b.set.Configure(targets)
	return b, b.set.Endpoints()
}

func TestTheOwnZoneIsPreferredAndSpillsOver(t *testing.T) {
	b, es := zoned(0)
	own := func() float64 {
		n := 0
		for name, k := range counts(t, b, t0, 10_000) {
			if i, _ := strconv.Atoi(name); i < 10 {
				n += k
			}
		}
		return float64(n) / 10_000
	}
	for sick, want := range []float64{1, 1, 1, 1, 6 / 7.0, 5 / 7.0, 4 / 7.0, 3 / 7.0, 2 / 7.0, 1 / 7.0, 0} {
		if sick > 0 {
			es[sick-1].SetHealthy(false)
		}
		if got := own(); math.Abs(got-want) > 0.02 {
			t.Errorf("%d of 10 unfit: %.3f stay in the zone, want %.3f", sick, got, want)
		}
	}
	// A zone in which nothing runs is no zone.
	b.Reconfigure(Config{Zone: "z"})
	if len(counts(t, b, t0, 1000)) != 10 {
		t.Error("not all of the fit ones are used")
	}
}

// A retry finds another zone before it tries the same endpoint again.
func TestAvoidLeavesTheZone(t *testing.T) {
	b, es := zoned(0)
	for range 100 {
		if e := pick(t, b, func(e *Endpoint) bool { return e.Zone() == "x" }); e.Zone() != "y" {
			t.Fatal(e.Name(), es[0].Zone())
		}
	}
}

func subsetOf(key string, k int, names ...string) []string {
	b := New(Config{Subset: k, SubsetKey: key}, NewSet(names...))
	v, _ := b.look(t0)
	var in []string
	for _, n := range v.used {
		in = append(in, n.e.Name())
	}
	slices.Sort(in)
	return in
}

func TestSubsetsAreDeterministicEvenAndStable(t *testing.T) {
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("10.0.0.%d:8080", i))
	}
	turned := slices.Clone(names)
	slices.Reverse(turned)
	used := map[string]int{}
	for i := range 500 {
		key := fmt.Sprintf("client-%d", i)
		in := subsetOf(key, 10, names...)
		if len(in) != 10 || !slices.Equal(in, subsetOf(key, 10, turned...)) {
			t.Fatal(in)
		}
		kept := 0
		for _, name := range subsetOf(key, 10, names[1:]...) {
			if slices.Contains(in, name) {
				kept++
			}
		}
		if kept < 9 {
			t.Fatalf("one endpoint left, and %d of 10 stayed", kept)
		}
		for _, name := range in {
			used[name]++
		}
	}
	for _, name := range names {
		if n := used[name]; n < 65 || n > 135 { // 100 and 3.5 sigma
			t.Errorf("%s is in %d of 500 subsets, want about 100", name, n)
		}
	}
}

func TestSubsetIsLeftOnlyWhenAllOfItIsUnfit(t *testing.T) {
	b, _ := seeded(Config{Subset: 2, SubsetKey: "me"}, 1, eleven...)
	got := counts(t, b, t0, 1000)
	if len(got) != 2 {
		t.Fatal(got)
	}
	for name := range got {
		b.set.Find(name).SetHealthy(false)
	}
	rest := counts(t, b, t0, 1000)
	for name := range got {
		if rest[name] > 0 || len(rest) != 9 {
			t.Error(rest)
		}
	}
}

// All that call one upstream use the same connections, unless they say who they are.
func TestBalancersOfOneSetShareTheSubset(t *testing.T) {
	s := NewSet(eleven...)
	used := map[string]bool{}
	for range 5 {
		b := New(Config{Subset: 3}, s)
		for name := range counts(t, b, t0, 200) {
			used[name] = true
		}
	}
	if len(used) != 3 {
		t.Error(used)
	}
}

func TestReplaceKeepsWeights(t *testing.T) {
	s := NewSet()
	s.Configure([]Target{{Name: "a", Weight: 3, Zone: "x"}, {Name: "b", Weight: -1}, {Name: "c", Weight: math.NaN()}})
	s.Replace([]string{"a", "b", "c", "d"})
	for name, want := range map[string]float64{"a": 3, "b": 1, "c": 1, "d": 1} {
		if w := s.Find(name).Weight(); w != want {
			t.Error(name, w)
		}
	}
	if s.Find("a").Zone() != "x" {
		t.Error("the zone is gone")
	}
}

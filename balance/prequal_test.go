package balance

import (
	"math"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// asked is a Prequal balancer whose reports may be used for ever.
func asked(names ...string) (*Balancer, func(name string, rif int, latency time.Duration)) {
	b, _ := seeded(Config{Algorithm: Prequal, Prequal: &Probing{Hot: 0.5}}, 1, names...)
	return b, func(name string, rif int, latency time.Duration) {
		b.Report(b.set.Find(name), t0, Load{RIF: rif, Latency: latency})
	}
}

func TestHotAndCold(t *testing.T) {
	type said struct {
		name    string
		rif     int
		latency time.Duration
	}
	for what, c := range map[string]struct {
		reports []said
		avoid   string
		want    string
	}{
		"the fastest of the cold":                {[]said{{"a", 1, 9 * ms}, {"b", 2, 5 * ms}, {"c", 9, 1 * ms}, {"d", 8, 2 * ms}}, "", "b"},
		"all alike: the fastest":                 {[]said{{"a", 3, 9 * ms}, {"b", 3, 5 * ms}, {"c", 3, 7 * ms}}, "", "b"},
		"only hot ones are left: the least busy": {[]said{{"a", 1, 1 * ms}, {"c", 9, 1 * ms}, {"d", 8, 2 * ms}}, "a", "d"},
	} {
		b, report := asked("a", "b", "c", "d")
		for _, r := range c.reports {
			report(r.name, r.rif, r.latency)
		}
		if e := pick(t, b, func(e *Endpoint) bool { return e.Name() == c.avoid }); e.Name() != c.want {
			t.Errorf("%s: %s, want %s", what, e.Name(), c.want)
		}
	}
}

// An overloaded endpoint that is asked again and again must not raise the quantile that it is measured by.
func TestReportsOfOneEndpointCountOnce(t *testing.T) {
	b, report := asked("a", "b", "c")
	report("a", 1, 9*ms)
	report("b", 2, 8*ms)
	for range 10 {
		report("c", 50, ms)
	}
	if e := pick(t, b, nil); e.Name() == "c" {
		t.Error("the hot one was taken for cold")
	}
	if b.pool.size > 3 {
		t.Error("pool", b.pool.size)
	}
}

// The next picks know of the calls that this client has sent since the report.
func TestOwnCallsCountUntilTheNextReport(t *testing.T) {
	b, report := asked("a", "b")
	report("a", 1, 10*ms)
	report("b", 1, 11*ms)
	if e := pick(t, b, nil); e.Name() != "a" {
		t.Fatal(e.Name())
	}
	// The oldest probe, a's, goes with each pick.
	report("a", 2, 15*ms)
	if e := pick(t, b, nil); e.Name() != "b" {
		t.Fatal(e.Name())
	}
	b, report = asked(eleven...)
	for _, name := range eleven {
		report(name, 1, 10*ms)
	}
	got := map[string]bool{}
	for range 4 { // a probe may be used several times: not four times in a row
		got[pick(t, b, nil).Name()] = true
	}
	if len(got) < 3 {
		t.Error(got)
	}
}

func TestReportsAgeAndWearOut(t *testing.T) {
	b, _ := seeded(Config{Algorithm: Prequal}, 1, "a", "b", "c")
	for _, e := range b.set.Endpoints() {
		b.Report(e, t0, Load{RIF: 1, Latency: ms})
	}
	b.Pick(after(1001*ms), nil)
	if b.pool.size != 0 {
		t.Error("old reports stay:", b.pool.size)
	}
	for _, e := range b.set.Endpoints() {
		b.Report(e, after(2*time.Second), Load{RIF: 1, Latency: ms})
	}
	for range 50 {
		b.Pick(after(2*time.Second), nil)
	}
	if b.pool.size > 1 {
		t.Error("used reports stay:", b.pool.size)
	}
	for i := range 100 {
		b.Report(b.set.Endpoints()[i%3], after(3*time.Second), Load{RIF: i})
	}
	if b.pool.size > 3 {
		t.Error("pool", b.pool.size)
	}
	b.set.Replace([]string{"c"})
	b.Pick(after(3*time.Second), nil)
	if b.pool.size > 1 {
		t.Error("reports of those that are gone stay:", b.pool.size)
	}
	b.Report(&Endpoint{name: "z"}, after(3*time.Second), Load{}) // of one that is gone
}

// The paper's own figures for 100 replicas.
func TestReuseFollowsThePaper(t *testing.T) {
	for _, c := range []struct{ perCall, reuse, remove float64 }{{3, 2 / 1.52, 1}, {1, 2 / 0.59, 0.25}, {0.5, 2 / 0.17, 0.25}, {0.1, maxReuse, 0.25}} {
		reuse, remove := rates(c.perCall, 100)
		if math.Abs(reuse-c.reuse) > 0.01 || remove != c.remove {
			t.Errorf("%v probes: reuse %.2f, remove %v; want %.2f, %v", c.perCall, reuse, remove, c.reuse, c.remove)
		}
	}
	for n := range 50 { // with few endpoints the formula has no finite answer
		if reuse, _ := rates(3, n+1); !(reuse >= 1 && reuse <= maxReuse) {
			t.Error(n+1, reuse)
		}
	}
}

func TestProbesAreDrawnEvenlyAndOnce(t *testing.T) {
	for _, perCall := range []float64{0.4, 1, 2.5, 3, 11, 16} {
		b, _ := seeded(Config{Algorithm: Prequal, Prequal: &Probing{PerCall: perCall}}, 2, eleven...)
		b.set.Find("d").SetHealthy(false)
		got, total := map[*Endpoint]int{}, 0
		for range 11_000 {
			seen := map[*Endpoint]bool{}
			for _, e := range b.Probes(t0) {
				if seen[e] || !e.Healthy() {
					t.Fatal("twice, or unfit:", e.Name())
				}
				seen[e] = true
				got[e]++
				total++
			}
		}
		want := 1000 * min(perCall, 11)
		for _, e := range b.set.Endpoints() {
			if n := float64(got[e]); e.Healthy() && math.Abs(n-want) > 5*math.Sqrt(want) {
				t.Errorf("%v a call: %s was asked %v times, want about %v", perCall, e.Name(), n, want)
			}
		}
	}
	if b := New(Config{}, NewSet(eleven...)); b.Probes(t0) != nil {
		t.Error("probes without Prequal")
	}
}

// Without any report, as from servers that know nothing of probes, it is P2C by what this process sees.
func TestPrequalWithoutReportsIsP2C(t *testing.T) {
	b, _ := seeded(Config{Algorithm: Prequal}, 1, "a", "b")
	b.set.Find("a").inFlight.Store(5)
	for range 5 {
		if e := pick(t, b, nil); e.Name() != "b" {
			t.Fatal(e.Name())
		}
	}
}

// Whatever the rule: an endpoint that fails at once is idle, fast, and reports it.
func TestFastFailingHostAttractsNothing(t *testing.T) {
	for _, a := range []string{P2C, RoundRobin, Weighted, PeakEWMA, Prequal} {
		for _, eject := range []*Eject{nil, {}} {
			b, r := seeded(Config{Algorithm: a, Eject: eject}, 9, "a", "b", "c", "d")
			n := 0
			drive(b, r, 200, 20*time.Second, func(at time.Duration, e *Endpoint) call.Outcome {
				for _, x := range b.Probes(after(at)) {
					b.Report(x, after(at), Load{RIF: int(x.InFlight()), Latency: map[bool]time.Duration{true: ms, false: 50 * ms}[x.Name() == "a"]})
				}
				if e.Name() == "a" {
					n++
					return call.Outcome{Class: call.Server, Latency: ms}
				}
				return call.Outcome{Latency: 50 * ms}
			})
			limit := 1010 // its share of the 4000, for those who do not look
			switch {
			case eject != nil:
				limit = 10
			case a == Prequal || a == P2C || a == PeakEWMA:
				limit = 300
			}
			if n > limit {
				t.Errorf("%s, ejection %v: %d of 4000 calls", a, eject != nil, n)
			}
		}
	}
}

// One that finds nothing answers at once, and it is nobody's failure. As it is always idle it wins whenever it is
// drawn, which is every second time; its latency must not make it win more.
func TestFastNotFoundDoesNotLookFast(t *testing.T) {
	b, r := seeded(Config{Algorithm: PeakEWMA}, 9, "a", "b", "c", "d")
	n := 0
	drive(b, r, 100, 2*time.Minute, func(at time.Duration, e *Endpoint) call.Outcome {
		switch {
		case e.Name() != "a" || at < 5*time.Second:
			return call.Outcome{Latency: 50 * ms}
		default:
			n++
			return call.Outcome{Class: call.Client, Latency: 0}
		}
	})
	if n > 11_500/2 {
		t.Errorf("%d of 11500 calls", n)
	}
	v, now := b.look(after(2 * time.Minute))
	if l := v.by[b.set.Find("a")].latency(now); l < 20e6 {
		t.Errorf("its latency counts as %v", time.Duration(l))
	}
}

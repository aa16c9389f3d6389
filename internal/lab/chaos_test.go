package lab

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/stats"
)

// TestEveryDrawnFaultFitsItsSystem draws schedules for every system that comes with Longpole.
func TestEveryDrawnFaultFitsItsSystem(t *testing.T) {
	all, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	shop, err := ChaosShop()
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, shop)
	under := map[string]map[string]longpole.Config{}
	for i := range all {
		under[all[i].Name] = chaosPolicies(&all[i])
	}
	rapid.Check(t, func(t *rapid.T) {
		spec := rapid.SampledFrom(all).Draw(t, "spec")
		o := ChaosOptions{
			Seed: rapid.Uint64().Draw(t, "seed"), Every: time.Duration(rapid.IntRange(6000, 60_000).Draw(t, "every")) * time.Millisecond,
			For: 10 * time.Minute, AtOnce: rapid.IntRange(1, 3).Draw(t, "at once"),
		}
		if rapid.Bool().Draw(t, "real") {
			o.Real = &Real{}
		}
		policies := under[spec.Name]
		if len(policies) != len(spec.Gateway) {
			t.Fatalf("%d policies for %d services", len(policies), len(spec.Gateway))
		}
		slots := DrawChaos(&spec, policies, o)
		if !reflect.DeepEqual(slots, DrawChaos(&spec, policies, o)) {
			t.Fatal("equal seeds draw different schedules")
		}
		if len(slots) != int(o.For/o.Every) {
			t.Fatalf("%d slots in %s, one each %s", len(slots), o.For, o.Every)
		}
		struck := spec
		struck.Faults = nil
		names := map[string]bool{}
		end := time.Duration(0)
		for _, s := range slots {
			if s.At != end || s.On <= s.At || s.Off <= s.On || s.End-s.Off < o.Every/5 || s.End != s.At+o.Every {
				t.Fatalf("a slot of %s has the times %s %s %s %s", o.Every, s.At, s.On, s.Off, s.End)
			}
			end = s.End
			places := map[string]bool{}
			if len(s.Faults) == 0 || len(s.Faults) > o.AtOnce {
				t.Fatalf("%d faults at once; want 1..%d", len(s.Faults), o.AtOnce)
			}
			for _, x := range s.Faults {
				h := x.Hypothesis
				name := x.fault.Name + x.own.Name
				if names[name] || places[x.Where] || x.What == "" || h.Text == "" || h.Recovery <= 0 || h.MaxErrors <= 0 || h.MaxErrors > 2 || h.Within > s.Off-s.On && x.most == 0 {
					t.Fatalf("fault %+v of a slot with %v", x, places)
				}
				names[name], places[x.Where] = true, true
				if x.crashes != "" {
					if o.Real == nil || x.fault.Kind != "" {
						t.Fatalf("a server is killed: %+v", x)
					}
					continue
				}
				if x.own.Share > 0 {
					own := x.own
					own.TTL = o.Every
					if err := own.Validate(); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if x.fault.Share <= 0 {
					t.Fatalf("%s strikes no call", x.Kind)
				}
				struck.Faults = append(struck.Faults[:0:0], x.fault)
				if err := struck.Validate(); err != nil {
					t.Fatalf("%s: %v", x.Kind, err)
				}
			}
		}
	})
}

// TestChaosKnowsManyKinds holds the shop of chaos to having a place for every kind.
func TestChaosKnowsManyKinds(t *testing.T) {
	shop, err := ChaosShop()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(40) {
		for _, s := range DrawChaos(&shop, chaosPolicies(&shop), ChaosOptions{Seed: seed, Real: &Real{NATS: "nats://lent:4222"}}) {
			x := s.Faults[0]
			seen[x.Kind+x.crashes], seen[x.Kind] = true, true
		}
	}
	if !seen[Crash+inStores] || !seen[Crash+inCaches] || seen[Crash+inQueues] {
		t.Errorf("of the servers, the lent one alone is not killed; seen was %v", seen)
	}
	for _, kind := range append(scenario.Kinds(), Flapping, Abort, Severed) {
		if !seen[kind] {
			t.Errorf("%s is never drawn", kind)
		}
	}
}

func TestHypothesesFollowThePolicies(t *testing.T) {
	spec, err := scenario.Read("three.yaml", []byte(`
name: three
about: a service of three
services:
  - {name: a, replicas: 3, operations: [{name: x, steps: [{cpu: {fixed: 1ms}}, {call: {to: b.y, repeat: 4}}]}]}
  - {name: b, operations: [{name: y, steps: [{cpu: {fixed: 1ms}}]}]}
gateway: [{service: a}]
load: {routes: [{to: a.x, rate: 10}]}
truth: {healthy: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		policy string
		draw   func(*drawing, place) Drawn
		check  func(Hypothesis) bool
	}{
		"ejection is expected":                 {"balance: {eject: {}}", (*drawing).errors, func(h Hypothesis) bool { return h.Reacts[0] == Ejected && h.Within == 3*time.Second }},
		"else a breaker, later":                {"{}", (*drawing).errors, func(h Hypothesis) bool { return h.Reacts[0] == Opened && h.Within == 8*time.Second }},
		"else what retries cannot bear fails":  {"breaker: {off: true}", (*drawing).errors, func(h Hypothesis) bool { return len(h.Reacts) == 0 && h.MaxErrors > 0.1 && h.MaxErrors < 0.2 }},
		"without retries a third fails":        {"{breaker: {off: true}, retry: {off: true}}", (*drawing).errors, func(h Hypothesis) bool { return h.MaxErrors > 0.33 && h.MaxErrors < 0.4 }},
		"a silent replica needs a try_timeout": {"balance: {eject: {}}", (*drawing).blackhole, func(h Hypothesis) bool { return h.Factor == 0 && h.MaxErrors > 0.33 }},
		"and is out soon with one":             {"{try_timeout: 200ms, balance: {eject: {}}}", (*drawing).blackhole, func(h Hypothesis) bool { return h.Within == 3200*time.Millisecond && h.MaxErrors == fewFail }},
		"a hedge hides a delay":                {"retry: {hedge: {}}", (*drawing).delay, func(h Hypothesis) bool { return slices.Contains(h.Reacts, Hedged) }},
		"nothing hides it without":             {"{}", (*drawing).delay, func(h Hypothesis) bool { return len(h.Reacts) == 0 && h.Plus >= 300*time.Millisecond }},
	} {
		spec.Gateway[0].Policy = x.policy
		d := &drawing{spec: &spec, random: newSource(1, "x").rand, shields: map[string]shield{}}
		for service, c := range chaosPolicies(&spec) {
			d.shields[service] = shieldOf(c)
		}
		if h := x.draw(d, d.replicas(true)[0]).Hypothesis; !x.check(h) {
			t.Errorf("%s: %+v", name, h)
		}
		if got := d.visits("b"); got != 4 {
			t.Errorf("b is visited %v times; want 4", got)
		}
		if got := d.visits("a"); got != 1 {
			t.Errorf("a is visited %v times; want 1", got)
		}
	}
}

// TestWhatNeedsAPartThatIsAwayMayFail holds hypotheses about stores and queues to the calls that come to them, and to the policies
// before these.
func TestWhatNeedsAPartThatIsAwayMayFail(t *testing.T) {
	shop, err := ChaosShop()
	if err != nil {
		t.Fatal(err)
	}
	d := &drawing{spec: &shop, random: newSource(1, "x").rand, shields: map[string]shield{}, mortal: (&Real{}).mortal()}
	for service, c := range chaosPolicies(&shop) {
		d.shields[service] = shieldOf(c)
	}
	if n := len(d.servers()); n != 3 {
		t.Fatalf("%d servers may be killed; want those of a store, a cache and a queue", n)
	}
	checkouts := 40.0 / 70 // the other calls need neither database nor queue
	for _, p := range d.servers() {
		h := d.crash(p).Hypothesis
		if want := map[string]float64{inStores: fewFail + checkouts, inCaches: fewFail, inQueues: fewFail + checkouts}[p.server]; h.MaxErrors != want || (h.Factor == 0) != (p.server != inCaches) {
			t.Errorf("when %s are away: %+v; want errors up to %v", p.server, h, want)
		}
	}
	lock := func() Hypothesis { return d.lock(d.updated()[0]).Hypothesis }
	if h := lock(); h.MaxErrors != fewFail+checkouts || !slices.Contains(h.Reacts, CutOff) {
		t.Errorf("a lock that outlasts try_timeout: %+v", h)
	}
	s := d.shields["orders"]
	s.try = 0
	d.shields["orders"] = s
	if h := lock(); h.MaxErrors != fewFail || len(h.Reacts) > 0 {
		t.Errorf("a lock that is waited for: %+v", h)
	}
}

// seconds is a tape of glances of half a second with 20 calls each, of which as many fail as each number says.
func seconds(slow time.Duration, failed ...uint64) (all tape) {
	for i, n := range failed {
		all = append(all, glance{from: time.Duration(i) * glanceTime, to: time.Duration(i+1) * glanceTime, calls: 20, failed: n, latency: same(20, slow)})
	}
	return all
}

func same(n int, d time.Duration) stats.Snapshot {
	var h stats.Histogram
	for range n {
		h.Record(d)
	}
	return h.Snapshot()
}

func TestFaultsAreTakenAwayWhenTheyHurtForAWhile(t *testing.T) {
	o := ChaosOptions{}.WithDefaults()
	for name, x := range map[string]struct {
		seen tape
		want string
		at   int // the glance with which it stops
	}{
		"all is well":          {seconds(time.Millisecond, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "", -1},
		"half is not above it": {seconds(time.Millisecond, 10, 10, 10, 10, 10, 10, 10, 10, 10), "", -1},
		"most fail":            {seconds(time.Millisecond, 0, 15, 15, 15, 15, 15, 15, 15), "calls failed for 3s", 6},
		"not for long enough":  {seconds(time.Millisecond, 15, 15, 15, 15, 15, 0, 15, 15, 15, 15, 15), "", -1},
		"slow":                 {seconds(6*time.Second, 0, 0, 0, 0, 0, 0, 0), "p99 was above 5s", 5},
	} {
		g := newGuard(o)
		got, at := "", -1
		for i, s := range x.seen {
			if got = g.look(s); got != "" {
				at = i
				break
			}
		}
		if at != x.at || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q at %d; want %q at %d", name, got, at, x.want, x.at)
		}
	}
	g := newGuard(o)
	var empty glance
	for i := range 20 {
		empty.from, empty.to = empty.to, time.Duration(i+1)*glanceTime
		if why := g.look(empty); why != "" {
			t.Fatalf("nothing was seen, and it stops: %s", why)
		}
	}
}

func TestHypothesesAreJudged(t *testing.T) {
	slot := Slot{At: 0, On: time.Second, Off: 4 * time.Second, End: 8 * time.Second}
	fast, fine := 10*time.Millisecond, uint64(0)
	calm := glance{calls: 100, latency: same(100, fast)}
	h := Hypothesis{Within: time.Second, MaxErrors: 0.1, Factor: 2, Plus: 10 * time.Millisecond, Recovery: time.Second}
	reacts, any := h, Hypothesis{MaxErrors: 1, Recovery: 4 * time.Second}
	reacts.Reacts = []string{Ejected, Retried}
	quiet := seconds(fast, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine, fine)
	early := seconds(fast, 0, 0, 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // before a second had passed
	late := seconds(fast, 0, 0, 0, 0, 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	slow := slices.Clone(quiet)
	for i := 4; i < 8; i++ {
		slow[i].latency = same(20, 40*time.Millisecond)
	}
	lame := seconds(fast, 0, 0, 0, 0, 0, 0, 0, 0, 20, 20, 20, 20, 0, 0, 0, 0)
	never := seconds(fast, 0, 0, 0, 0, 0, 0, 0, 0, 20, 20, 20, 20, 20, 20, 20, 0)
	silent := slices.Clone(quiet)
	for i := 2; i < 8; i++ {
		silent[i] = glance{from: silent[i].from, to: silent[i].to}
	}
	patient := h
	patient.Recovery = 5 * time.Second
	for name, x := range map[string]struct {
		h       Hypothesis
		seen    tape
		stopped string
		did     map[string]uint64
		why     string
	}{
		"nothing happens":             {h, quiet, "", nil, ""},
		"trouble before it is judged": {h, early, "", nil, ""},
		"trouble when it is judged":   {h, late, "", nil, "50 % of the calls failed"},
		"anything goes":               {any, late, "", nil, ""},
		"slow":                        {h, slow, "", nil, "p99 was 40ms, more than 30ms"},
		"nobody reacts":               {reacts, quiet, "", map[string]uint64{Hedged: 3}, "an ejection or a retry was expected, and seen was a hedge"},
		"somebody reacts":             {reacts, quiet, "", map[string]uint64{Retried: 8}, ""},
		"as always":                   {reacts, quiet, "", map[string]uint64{Retried: 7}, "a retry was expected"},
		"recovers late":               {h, lame, "", nil, "as before only 2s after its end"},
		"never recovers":              {h, never, "", nil, "not as before 4s after its end"},
		"had no time to recover":      {patient, never, "", nil, ""},
		"taken away":                  {h, quiet, "it was too much", nil, "taken away after 3s: it was too much"},
		"nobody is served":            {h, silent, "", nil, "only 0 calls"},
	} {
		slot.Faults = []Drawn{{Kind: "delay", Where: "a-1", Hypothesis: x.h}}
		w := newWatcher(protections{})
		w.look(protections{counts: x.did}, time.Second)
		e := &episode{slot: slot, off: slot.Off, stopped: x.stopped, calm: calm, usual: map[string]float64{Retried: 1}, seen: x.seen, watched: w}
		got := e.judge()[0]
		if why := strings.Join(got.Why, "; "); got.Held != (x.why == "") || !strings.Contains(why, x.why) {
			t.Errorf("%s: %q; want %q", name, why, x.why)
		}
		e.out = map[string]bool{"a-1": true}
		if got := e.judge()[0]; !got.Out || slices.ContainsFunc(got.Why, func(w string) bool { return strings.Contains(w, "expected") }) {
			t.Errorf("%s: a reaction to what is out already is wanted: %q", name, got.Why)
		}
	}
}

func TestFaultsOfOneSlotShareTheirBounds(t *testing.T) {
	a := Hypothesis{Within: time.Second, MaxErrors: 0.02, Factor: 2, Plus: time.Millisecond, Recovery: time.Second}
	b := Hypothesis{Within: 2 * time.Second, MaxErrors: 0.99, Factor: 3, Plus: time.Millisecond, Recovery: 3 * time.Second}
	got := a.loosest(b)
	want := Hypothesis{Within: 2 * time.Second, MaxErrors: 1, Factor: 3, Plus: 2 * time.Millisecond, Recovery: 3 * time.Second}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if b.Factor = 0; a.loosest(b).Factor != 0 {
		t.Error("a latency that one does not bound is bounded")
	}
}

func TestALateGeneratorIsADoubt(t *testing.T) {
	for _, x := range []struct {
		latency, lag time.Duration
		late         bool
	}{{time.Millisecond, 4 * time.Millisecond, false}, {time.Millisecond, 6 * time.Millisecond, true}, {time.Second, 40 * time.Millisecond, false}, {time.Second, 60 * time.Millisecond, true}} {
		if g := (glance{latency: same(20, x.latency), lag: same(20, x.lag)}); g.late() != x.late {
			t.Errorf("calls of %s sent %s late: %t", x.latency, x.lag, !x.late)
		}
	}
}

func TestFewCallsSayLittleAboutErrors(t *testing.T) {
	for _, x := range []struct {
		calls, failed uint64
		low, high     float64
	}{{0, 0, 0, 0}, {58, 40, 0.53, 0.55}, {100, 3, 0, 0.02}, {100, 10, 0.04, 0.06}, {10_000, 300, 0.025, 0.03}, {20, 20, 0.75, 0.8}} {
		g := glance{calls: x.calls, failed: x.failed}
		if got := g.leastErrors(); got < x.low || got > x.high {
			t.Errorf("%d of %d failed: at least %v; want %v..%v", x.failed, x.calls, got, x.low, x.high)
		}
	}
}

func TestReactionsComeFromTheGatewaysCounters(t *testing.T) {
	at := func(retries, cut uint64, broken, out bool, refused uint64) protections {
		e := gateway.EndpointStatus{Name: "e", Breaker: "closed", Ejected: out, Healthy: !out, Classes: map[string]uint64{"timeout": cut}}
		if broken {
			e.Breaker = "open"
		}
		return protectionsOf([]gateway.RouteStatus{{
			Name: "r", Tally: stats.Tally{Retries: retries, HedgesWon: 1}, Endpoints: []gateway.EndpointStatus{e},
			Caches: map[string]stats.Snapshot{"stale": same(int(cut), time.Millisecond)}, RetriesRefused: refused,
		}})
	}
	w := newWatcher(at(5, 0, false, false, 0))
	w.look(at(5, 0, false, false, 0), time.Second)
	w.look(at(8, 2, true, false, 4), 2*time.Second)
	w.look(at(9, 2, true, true, 4), 3*time.Second)
	w.look(at(9, 2, false, false, 4), 4*time.Second)
	e := &episode{slot: Slot{End: 4 * time.Second}, watched: w, usual: map[string]float64{Retried: 0.5}}
	want := []Reaction{
		{Retried, 4, 2, 2 * time.Second},
		{Stale, 2, 0, 2 * time.Second},
		{CutOff, 2, 0, 2 * time.Second},
		{Opened, 1, 0, 2 * time.Second},
		{Ejected, 1, 0, 3 * time.Second},
		{Back, 1, 0, 4 * time.Second},
		{Unfit, 1, 0, 3 * time.Second},
	}
	got := e.reactions()
	for _, x := range want {
		if !slices.Contains(got, x) {
			t.Errorf("%+v is missing in %+v", x, got)
		}
	}
	if len(got) != len(want) || w.refused != 4 {
		t.Errorf("got %+v and %d refused; want %+v and 4", got, w.refused, want)
	}
}

func TestChaosOptionsAreChecked(t *testing.T) {
	if err := (ChaosOptions{}).Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []ChaosOptions{{For: -1}, {Every: time.Second}, {For: 10 * time.Second}, {AtOnce: 4}, {StopErrors: 2}, {StopP99: -1}, {StopAfter: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestChaosStrikesARunningSystem looks at the whole once: one slot, and an end by hand in the second.
func TestChaosStrikesARunningSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole system on real sockets")
	}
	shop, err := ChaosShop()
	if err != nil {
		t.Fatal(err)
	}
	shop.Load.Warmup = 500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told []ChaosResult
	began := false
	o := ChaosOptions{Seed: 3, For: 12 * time.Second, Every: 6 * time.Second, Ended: func(r []ChaosResult) { told = append(told, r...) }, Progress: func(phase string) {
		if strings.HasPrefix(phase, "slot 2 of 2: ") && !strings.HasSuffix(phase, "calm") {
			began = true
			cancel()
		}
	}}
	report, err := Chaos(ctx, shop, o)
	if err != nil {
		t.Skipf("this machine has no calm to compare with: %v", err)
	}
	if !began || !report.Interrupted || len(report.Faults) != 1 || len(told) != 1 {
		t.Fatalf("report %+v, told of %d faults, the second began: %t", report, len(told), began)
	}
	r := report.Faults[0]
	if r.Before.Calls+r.During.Calls+r.After.Calls < 50 || r.Took < time.Second || r.Hypothesis.Text == "" || report.Calm.P99 == 0 {
		t.Errorf("result %+v after a calm of %+v", r, report.Calm)
	}
	if r.Held != (len(r.Why) == 0) || report.Held > 1 {
		t.Errorf("held: %t, %q, %d", r.Held, r.Why, report.Held)
	}
}

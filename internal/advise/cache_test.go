package advise

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

var repeatedReads = diagnose.Finding{Code: "LP104", Class: "repeated_reads", Service: "catalogue", Operation: "SELECT products"}

// cacheRun runs a cache over arrivals the plain way, one event after the other, and returns what each waited.
func cacheRun(list []arrival, ttl time.Duration) (waits []time.Duration, hits int) {
	type entry struct{ ready, until time.Duration }
	entries := map[int]entry{}
	for _, a := range list {
		e, ok := entries[a.key]
		switch {
		case ok && a.at < e.ready:
			waits, hits = append(waits, e.ready-a.at), hits+1
		case ok && a.at < e.until:
			waits, hits = append(waits, 0), hits+1
		default:
			entries[a.key] = entry{a.at + a.took, a.at + a.took + ttl}
			waits = append(waits, a.took)
		}
	}
	return waits, hits
}

func TestCacheForecastMatchesADirectRun(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} {
		c := load(catalogue(arrivals(1, 60, 60*time.Second, 200)), diagnose.ClockOptions{})
		r, route := c.readsOf(&repeatedReads)
		if route != "catalogue" {
			t.Fatalf("route %q", route)
		}
		kept := c.kept(r, cache.Config{TTL: ttl})
		effects, saved := c.replay([]routeKey{{gatewayService, "catalogue"}, {gatewayService, "browse"}}, kept), -kept.extra
		long := arrivals(2, 60, 1200*time.Second, 200) // other calls, and so many that the cold start is nothing
		waits, hits := cacheRun(long, ttl)
		if got, want := saved, float64(hits)/float64(len(long)); !near(got, want, 0.03) {
			t.Errorf("ttl %v: hit ratio %.3f, directly %.3f", ttl, got, want)
		}
		for i := range waits {
			waits[i] += 2 * gatewayLag
		}
		for _, q := range []struct{ q, got float64 }{{0.5, effects[0].Predicted.P50}, {0.95, effects[0].Predicted.P95}, {0.99, effects[0].Predicted.P99}} {
			if want := after(waits, q.q); !near(q.got, want, 0.1) {
				t.Errorf("ttl %v: catalogue at %v: %.2f ms, directly %.2f ms", ttl, q.q, q.got, want)
			}
		}
		if e := effects[1]; e.Predicted.P50 < 2 || e.Predicted.P50 > 5 {
			t.Errorf("ttl %v: browse keeps the frontend's own time: %+v", ttl, e.Predicted)
		}
	}
}

// shares are the popularity of a demo's keys: 1/rank.
func shares(keys int) []float64 {
	list := make([]float64, keys)
	for i := range list {
		list[i] = 1 / float64(i+1)
	}
	return list
}

// staleRun runs a cache with a stale part over arrivals the plain way and returns the share of them that waited.
func staleRun(list []arrival, c cache.Config) float64 {
	type entry struct{ ready, fresh, stale, refreshed time.Duration }
	entries := map[int]*entry{}
	waited := 0
	for _, a := range list {
		e := entries[a.key]
		if e != nil && e.refreshed > 0 && a.at >= e.refreshed {
			*e = entry{ready: e.refreshed, fresh: e.refreshed + c.TTL, stale: e.refreshed + c.TTL + c.StaleWhileRevalidate}
		}
		switch {
		case e == nil || a.at >= e.stale && e.refreshed == 0:
			done := a.at + a.took
			entries[a.key] = &entry{ready: done, fresh: done + c.TTL, stale: done + c.TTL + c.StaleWhileRevalidate}
			waited++
		case a.at < e.ready || a.at >= e.stale:
			waited++
		case a.at >= e.fresh && e.refreshed == 0:
			e.refreshed = a.at + a.took
		}
	}
	return float64(waited) / float64(len(list))
}

func TestCanaryCanProveTheLifetime(t *testing.T) {
	for _, rate := range []float64{30, 60, 120} {
		for seed := range uint64(6) {
			r, _ := load(catalogue(weighted(seed, rate, 40*time.Second, shares(12))), diagnose.ClockOptions{}).readsOf(&repeatedReads)
			plan, ok := r.planCache()
			age := plan.config.TTL + plan.config.StaleWhileRevalidate
			if !ok || plan.canary > fewWaits || age > 20*time.Second {
				t.Fatalf("%v calls/s: %+v", rate, plan)
			}
			const long = 2000 * time.Second // other calls, and so many that the cold start is little
			half := staleRun(weighted(seed+100, rate/2, long, shares(12)), plan.config)
			all := staleRun(weighted(seed+200, rate, long, shares(12)), plan.config)
			if half >= 0.01 || all > half {
				t.Errorf("%v calls/s, age %v: in truth %.2f%% of a canary's calls wait, %.2f%% of all", rate, age, 100*half, 100*all)
			}
			t.Logf("%3v calls/s: %v + %v; waits in the canary %.2f%%, in truth %.2f%%; of all %.2f%%, in truth %.2f%%; saved %.0f%%", rate,
				plan.config.TTL, plan.config.StaleWhileRevalidate, 100*plan.canary, 100*half, 100*plan.all, 100*all, 100*r.saved(r.simulate(plan.config)))
		}
	}
}

func TestLifetimeIsTheShortestThatWillDo(t *testing.T) {
	r, _ := load(catalogue(weighted(1, 60, 60*time.Second, shares(12))), diagnose.ClockOptions{}).readsOf(&repeatedReads)
	plan, _ := r.planCache()
	for _, age := range lifetimes {
		if age >= plan.config.TTL+plan.config.StaleWhileRevalidate {
			return
		}
		waits := 0.0
		for k := range thinnings {
			half := r.half(k)
			waits += half.waits(half.simulate(ofAge(age))) / thinnings
		}
		if waits <= fewWaits {
			t.Errorf("%v would do, chosen was %+v", age, plan.config)
		}
	}
}

func TestShortRecordingSaysWhatItCannotJudge(t *testing.T) {
	// 60 keys at 10 calls a second: the rare ones come once in half a minute.
	s := situationOf(catalogue(weighted(1, 10, 40*time.Second, shares(60))), repeatedReads, "browse")
	f := s.corpus.advise(repeatedReads, s.route, map[string]longpole.Config{"catalogue": {}})
	if len(f.CounterEvidence) == 0 || !strings.Contains(strings.Join(f.CounterEvidence, "\n"), "can judge") {
		t.Errorf("reasons %q", f.CounterEvidence)
	}
	for _, a := range f.Actions {
		if c := a.Change.To.Cache; c.TTL+c.StaleWhileRevalidate > 20*time.Second {
			t.Errorf("%+v was judged by 40s", *c)
		}
	}
	t.Logf("%d actions; %s", len(f.Actions), strings.Join(f.CounterEvidence, "; "))
}

func TestCanaryArmIsForecastWhereItDiffers(t *testing.T) {
	traces := catalogue(weighted(3, 40, 40*time.Second, shares(40)))
	s := situationOf(traces, repeatedReads, "browse")
	f := s.corpus.advise(repeatedReads, s.route, map[string]longpole.Config{"catalogue": {}})
	if len(f.Actions) != 1 {
		t.Fatalf("%+v, reasons %v", f.Actions, f.CounterEvidence)
	}
	a := f.Actions[0]
	r, _ := s.corpus.readsOf(&repeatedReads)
	got, e := r.canary(*a.Change.To.Cache), a.Effect("catalogue")
	if differs := got.P99 > 100 && e.Predicted.P99 < 100; differs != (a.Canary != nil) {
		t.Errorf("effect %+v, canary %+v, told %+v", e.Predicted, got, a.Canary)
	}
	t.Logf("%s; %s; effect %+v, canary %+v; %v", a.Summary, a.Benefit, e.Predicted, got, f.CounterEvidence)
}

func TestCacheAnswersByAgeAndFlight(t *testing.T) {
	config := cache.Config{TTL: time.Second, StaleWhileRevalidate: time.Second}
	read := read{key: "k", lead: 1e6, fetch: 101e6, took: 102e6, stored: true}
	entries := map[string]*kept{}
	for _, c := range []struct {
		at, took time.Duration
		state    string
	}{
		{0, 102 * time.Millisecond, "miss"},
		{50 * time.Millisecond, 52 * time.Millisecond, "coalesced"}, // 1 before, 50 of the leader's fetch, 1 after
		{101 * time.Millisecond, 2 * time.Millisecond, "hit"},
		{1099 * time.Millisecond, 2 * time.Millisecond, "hit"},
		{1101 * time.Millisecond, 2 * time.Millisecond, "stale"}, // starts a refresh that ends at 1202ms
		{1150 * time.Millisecond, 2 * time.Millisecond, "stale"},
		{1300 * time.Millisecond, 2 * time.Millisecond, "hit"},
		{4 * time.Second, 102 * time.Millisecond, "miss"},
	} {
		got := read.answer(entries, config, int64(c.at))
		if got.state.String() != c.state || time.Duration(got.took) != c.took {
			t.Errorf("at %v: %v after %v, want %s after %v", c.at, got.state, time.Duration(got.took), c.state, c.took)
		}
	}
	failing := read
	failing.stored = false
	for i := range 2 { // a failed fetch is shared by nobody and kept by nobody
		if got := failing.answer(map[string]*kept{"k": {flight: 5e9, fails: true}}, config, int64(i)); got.state.String() != "miss" {
			t.Errorf("%v behind a fetch that fails", got.state)
		}
	}
}

func TestCacheAdviceHasAChange(t *testing.T) {
	s := situationOf(catalogue(arrivals(1, 60, 60*time.Second, 40)), repeatedReads, "browse")
	from := longpole.Config{Timeout: time.Second}
	f := s.corpus.advise(repeatedReads, s.route, map[string]longpole.Config{"catalogue": from, "browse": {}})
	if len(f.Actions) != 1 {
		t.Fatalf("%+v, reasons %v", f.Actions, f.CounterEvidence)
	}
	a := f.Actions[0]
	if a.Kind != KindCache || a.Change == nil || a.Change.Route != "catalogue" || a.Change.From.Cache != nil || a.Change.To.Timeout != time.Second {
		t.Fatalf("%+v", a)
	}
	if err := a.Change.To.Validate(); err != nil {
		t.Error(err)
	}
	if a.Predicted.P99 > 20 || a.ExtraLoad > -0.9 {
		t.Errorf("predicted %+v, load %v", a.Predicted, a.ExtraLoad)
	}
	t.Logf("%s (%s): %+v", a.Summary, a.Benefit, *a.Change.To.Cache)
}

func TestNoCacheWithoutAReason(t *testing.T) {
	with := func(key, value string) []trace.Trace {
		traces := catalogue(arrivals(1, 40, 30*time.Second, 20))
		for n := range traces {
			for i := range traces[n].Spans {
				s := &traces[n].Spans[i]
				if s.Attr("longpole.segment") != "" {
					s.Attributes = append([]trace.Attribute{{Key: key, Value: value}}, s.Attributes...)
				}
			}
		}
		return traces
	}
	unique := catalogue(arrivals(1, 40, 30*time.Second, 20))
	for n := range unique {
		for i := range unique[n].Spans {
			unique[n].Spans[i].Attributes = append([]trace.Attribute{{Key: "url.query", Value: unique[n].ID}}, unique[n].Spans[i].Attributes...)
		}
	}
	for name, c := range map[string]struct {
		traces  []trace.Trace
		current longpole.Config
	}{
		"credentials":     {traces: with("http.request.header.authorization", "REDACTED")},
		"writes":          {traces: with("http.request.method", "POST")},
		"failures":        {traces: with("http.response.status_code", "500")},
		"not to be kept":  {traces: with("http.response.header.cache-control", "private, max-age=3")},
		"never the same":  {traces: unique},
		"cached already":  {catalogue(arrivals(1, 40, 30*time.Second, 20)), longpole.Config{Cache: &cache.Config{}}},
		"few reads":       {traces: catalogue(arrivals(1, 1, 30*time.Second, 20))},
		"a short glimpse": {traces: catalogue(arrivals(1, 400, time.Second/2, 20))},
	} {
		s := situationOf(c.traces, repeatedReads, "browse")
		f := s.corpus.advise(repeatedReads, s.route, map[string]longpole.Config{"catalogue": c.current})
		if len(f.Actions) != 0 || len(f.CounterEvidence) == 0 {
			t.Errorf("%s: %+v, reasons %v", name, f.Actions, f.CounterEvidence)
		}
	}
}

func TestStatementsWithPlaceholdersHaveNoKeyAlone(t *testing.T) {
	key := func(attributes ...string) string {
		b := &builder{trace.Trace{ID: "t"}}
		b.span(-1, trace.Client, "s", "q", 0, 1, attributes...)
		k, _ := readKey(&b.Spans[0])
		return k
	}
	if k := key("db.query.text", "SELECT * FROM t WHERE id = ?"); k != "" {
		t.Errorf("key %q", k)
	}
	one := key("db.query.text", "SELECT * FROM t WHERE id = $1", "db.query.parameter.0", "1")
	two := key("db.query.text", "SELECT * FROM t WHERE id = $1", "db.query.parameter.0", "2")
	if one == "" || one == two {
		t.Errorf("keys %q and %q", one, two)
	}
	if k := key("db.query.text", "UPDATE t SET a = 1"); k != notRead {
		t.Errorf("a write has key %q", k)
	}
}

func TestAdviceDependsOnNoOrder(t *testing.T) {
	traces := shop(5, 300)
	shuffled := append([]trace.Trace{}, traces...)
	r := rand.New(rand.NewPCG(1, 1))
	r.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
	for n := range shuffled {
		spans := append([]trace.Span{}, shuffled[n].Spans...)
		r.Shuffle(len(spans), func(i, k int) { spans[i], spans[k] = spans[k], spans[i] })
		shuffled[n].Spans = spans
	}
	serial := diagnose.Finding{Code: "LP101", Service: "frontend", Operation: "GET /checkout"}
	for _, f := range []diagnose.Finding{slowOrders, serial} {
		a := load(traces, diagnose.ClockOptions{}).advise(f, routeKey{gatewayService, "checkout"}, nil)
		b := load(shuffled, diagnose.ClockOptions{}).advise(f, routeKey{gatewayService, "checkout"}, nil)
		if asJSON(t, a.Actions) != asJSON(t, b.Actions) {
			t.Errorf("%s: two orders, two answers:\n%s\n%s", f.Code, asJSON(t, a.Actions), asJSON(t, b.Actions))
		}
	}
}

// TestASampleForecastsWhatTheWholeDoes keeps one trace in ten. Of keys that are all asked for once it must not take the ten that a
// trace stands for as calls for its key.
func TestASampleForecastsWhatTheWholeDoes(t *testing.T) {
	once := arrivals(3, 60, 120*time.Second, 12)
	for i := range once {
		once[i].key = i
	}
	config := cache.Config{TTL: 5 * time.Second, StaleWhileRevalidate: 15 * time.Second}
	for name, c := range map[string]struct {
		list        []arrival
		below, over float64 // that the share of reads that wait may be off by
	}{
		"few keys":       {weighted(1, 60, 120*time.Second, shares(12)), 0.002, 0.002},
		"many keys":      {weighted(2, 60, 120*time.Second, shares(300)), 0.02, 0.08},
		"each key once":  {once, 0, 0},
		"and in between": {arrivals(2, 60, 120*time.Second, 3000), 0.02, 0.05},
	} {
		traces := catalogue(c.list)
		var some []trace.Trace
		for i := range traces {
			if i*7919%10 == 0 {
				some = append(some, traces[i])
				some[len(some)-1].Weight = 10
			}
		}
		whole, _ := load(traces, diagnose.ClockOptions{}).readsOf(&repeatedReads)
		part, _ := load(some, diagnose.ClockOptions{}).readsOf(&repeatedReads)
		want, got := whole.waits(whole.simulate(config)), part.waits(part.simulate(config))
		if got < want-c.below || got > want+c.over {
			t.Errorf("%s: by one read in ten %.4f of the reads wait, by all of them %.4f", name, got, want)
		}
		half := part.half(0)
		if n := float64(len(half.unseen)); math.Abs(n-float64(len(part.unseen))/2) > 5*math.Sqrt(n+1) {
			t.Errorf("%s: half of %d guessed reads are %v", name, len(part.unseen), n)
		}
	}
}

// TestMissesOfRareKeysAskForAFullerCache whether the finding says that the gateway was asked, or the service behind it.
func TestMissesOfRareKeysAskForAFullerCache(t *testing.T) {
	rare := poisson(rand.New(rand.NewPCG(1, 1)), 40, 12*time.Second, func() int { return 0 })
	for i := range rare {
		rare[i].key = i / 2
	}
	some := slices.Clone(rare) // most reads are for hot keys, and the tail is as long without them
	for i := range some {
		if i%5 < 3 {
			some[i].key = -i % 5
		}
	}
	for _, callee := range []string{gatewayService, "catalogue"} {
		f := diagnose.Finding{
			Code: "LP115", Service: "frontend", Operation: "GET /browse", Segment: trace.SegCache,
			Detail: diagnose.Detail{Variant: "misses", Callees: []string{callee}, HitRatio: 0.2},
		}
		for name, list := range map[string][]arrival{"all rare": rare, "some rare": some} {
			actions := load(catalogue(list), diagnose.ClockOptions{}).advise(f, routeKey{gatewayService, "browse"}, nil).Actions
			if len(actions) != 1 || actions[0].Kind != KindPrecompute || !strings.Contains(actions[0].Summary, "fill the cache of frontend") {
				t.Errorf("%s, %s: %+v", callee, name, actions)
			}
		}
	}
}

// Where callers keep the answers in a cache of their own, those of one arm spare the other its calls: what the callers' callers see tells both apart.
func TestACacheBehindACacheIsObservedInFrontOfBoth(t *testing.T) {
	for _, system := range []string{"redis", "postgresql"} {
		traces := catalogue(arrivals(1, 40, 40*time.Second, 12))
		for i := range traces {
			b := &builder{traces[i]}
			front, fetch := b.Spans[2], b.Spans[3] // frontend's, and the gateway's of its call
			b.span(2, trace.Client, "frontend", "GET", time.Duration(front.Start), time.Duration(fetch.Start)-100*time.Microsecond, "db.system.name", system)
			traces[i] = b.Trace
		}
		f := situationOf(traces, repeatedReads, "browse").corpus.advise(repeatedReads, routeKey{gatewayService, "browse"}, map[string]longpole.Config{"catalogue": {}})
		if len(f.Actions) == 0 || f.Actions[0].Change == nil {
			t.Fatalf("%s: %+v", system, f)
		}
		a := f.Actions[0]
		if want := map[string]string{"redis": "browse"}[system]; a.Observe != want || a.Turns != (want != "") || a.Predicted == nil {
			t.Errorf("%s: observed on %q, turns: %t, predicted %v", system, a.Observe, a.Turns, a.Predicted)
		}
	}
}

package advise

import (
	"math/rand/v2"
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
		effects, saved := c.replayCache(r, cache.Config{TTL: ttl}, []routeKey{{gatewayService, "catalogue"}, {gatewayService, "browse"}})
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

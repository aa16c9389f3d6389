package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/web"
	"github.com/longpole/longpole/retry"
)

// fixture is an admin side with a real gateway and a real controller behind it.
type fixture struct {
	*testing.T
	gateway  *gateway.Gateway
	rollouts *rollout.Controller
	findings web.Findings
	token    string
	version  string
	handler  http.Handler
	store    *store.Store
	live     web.Live
	lab      web.Lab
}

// twoRoutes is a configuration with the routes orders and catalogue, which share one upstream.
func twoRoutes(endpoints ...string) string {
	return fmt.Sprintf(`
upstreams: {shop: {endpoints: [%s]}}
routes:
- {name: orders, match: {path: /orders, method: [GET, POST]}, upstream: shop}
- {name: catalogue, upstream: shop}
`, strings.Join(endpoints, ", "))
}

func newFixture(t *testing.T, file string, o gateway.Options, change ...func(*fixture)) *fixture {
	t.Helper()
	cfg, err := gateway.Load("test", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, version: "v1.2.3", gateway: g, rollouts: rollout.NewController(rollout.Options{Target: g})}
	for _, c := range change {
		c(f)
	}
	f.handler = web.New(web.Options{
		Gateway: g, Rollouts: f.rollouts, Findings: func() web.Findings { return f.findings }, Token: f.token,
		Dropped: func() map[string]uint64 { return map[string]uint64{"queue_full": 3, "late": 0} }, Version: f.version, Store: f.store, Live: f.live, Lab: f.lab,
	})
	return f
}

// answer is what the admin side said.
type answer struct {
	*testing.T
	status int
	header http.Header
	body   string
}

// do makes one request to 127.0.0.1; headers are name, value, name, value.
func (f *fixture) do(method, target, body string, headers ...string) answer {
	f.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:9901"
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return answer{f.T, w.Code, w.Header(), w.Body.String()}
}

// call makes calls through the gateway.
func (f *fixture) call(path string, n int) {
	f.Helper()
	for range n {
		w := httptest.NewRecorder()
		f.gateway.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != http.StatusOK {
			f.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
		}
	}
}

// want fails unless the status is as given and the body has all parts.
func (a answer) want(status int, parts ...string) answer {
	a.Helper()
	if a.status != status {
		a.Errorf("status %d, want %d; body: %s", a.status, status, a.body)
	}
	for _, p := range parts {
		if !strings.Contains(a.body, p) {
			a.Errorf("body has no %q: %.600s", p, a.body)
		}
	}
	return a
}

// json gives the value at the keys: names of objects and indices of lists.
func (a answer) json(keys ...any) any {
	a.Helper()
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.Fatalf("no JSON: %v: %s", err, a.body)
	}
	for i, k := range keys {
		switch k := k.(type) {
		case string:
			m, _ := v.(map[string]any)
			next, ok := m[k]
			if !ok {
				a.Fatalf("no %v in %s", keys[:i+1], a.body)
			}
			v = next
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				a.Fatalf("no %v in %s", keys[:i+1], a.body)
			}
			v = l[k]
		}
	}
	return v
}

// upstream is a service that answers all calls.
func upstream(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(s.Close)
	return s.URL
}

// hedged is a change of route that sends a second copy of late calls.
func hedged(route string) *longpole.Change {
	to := longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{}}}.Safe()
	return &longpole.Change{Route: route, From: longpole.Config{}.Safe(), To: to}
}

// sample is a diagnosis in which one of three replicas makes the tail of route, with two actions against it. The names
// are what a hostile trace may hold.
func sample(route string) web.Findings {
	predicted := advise.Predicted{P50: 8.1, P95: 14.2, P99: 21.5}
	hedge := advise.Action{
		Kind: advise.KindHedge, Summary: "Send a second copy of calls that take longer than the p95.", Predicted: &predicted,
		Benefit: "p99 from 188 ms to 21.5 ms", Cost: "5.2 % more upstream calls", Risk: "only calls that may run twice are copied", ExtraLoad: 0.052,
		Effects: []advise.Effect{{
			Service: "gateway", Operation: "GET /orders", Route: route, Calls: 1204,
			Before: advise.Predicted{P50: 8.3, P95: 120, P99: 188}, Predicted: predicted,
			Interval: advise.Interval{P50: [2]float64{8, 8.3}, P95: [2]float64{13.8, 15}, P99: [2]float64{20.1, 24.4}},
		}},
		Change: hedged(route),
	}
	drain := advise.Action{Kind: advise.KindDrain, Summary: "Take 10.0.0.3:9001 out of the rotation and look at its disk.", Benefit: "the tail of one replica", Cost: "a third of the capacity"}
	finding := advise.Finding{
		Finding: diagnose.Finding{
			Code: "LP103", Class: "slow_endpoint", Segment: "downstream", Service: "orders", Operation: "GET /orders",
			Verdict: diagnose.Likely, Confidence: 0.87, ShareP99: 0.72,
			Summary:         "One of three endpoints of orders makes the tail: 10.0.0.3:9001 has a p99 of 188 ms, its siblings 22 ms.",
			Evidence:        []string{"10.0.0.3:9001 took 401 of 1204 calls and 39 of the 40 slowest", "its siblings got the same mix of operations"},
			CounterEvidence: []string{"the endpoint's own spans are missing, so that the network before it cannot be told apart"},
		},
		Actions: []advise.Action{drain, hedge},
	}
	segments := []diagnose.Segment{
		{Segment: "downstream", Service: "orders", Operation: "GET /orders", Share: diagnose.Bands{P50: 0.31, P99: 0.72}, CriticalMS: diagnose.Bands{P50: 2.6, P99: 135}},
		{Segment: "database", Service: "catalogue", Operation: "SELECT items", Share: diagnose.Bands{P50: 0.42, P99: 0.16}, CriticalMS: diagnose.Bands{P50: 3.5, P99: 30}},
		{Segment: "gateway", Service: "gateway", Operation: "<img src=x onerror=alert(1)>", Share: diagnose.Bands{P50: 0.27, P99: 0.12}, CriticalMS: diagnose.Bands{P50: 2.2, P99: 22.6}},
	}
	one := advise.Route{Findings: []advise.Finding{finding}, Route: diagnose.Route{
		Service: "gateway", Operation: "GET /orders", Traces: 1204, Errors: 2,
		Latency: diagnose.Latency{P50: 8.3, P90: 31, P95: 120, P99: 188, P999: 240, Max: 251}, Segments: segments,
	}}
	other := advise.Route{Findings: []advise.Finding{}, Route: diagnose.Route{
		Service: "gateway", Operation: "GET /" + strings.Repeat("long-", 40), Traces: 310, Latency: diagnose.Latency{P50: 1.2, P90: 2, P95: 2.4, P99: 3.9, P999: 5, Max: 5}, Segments: segments[2:],
	}}
	return web.Findings{
		At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Window: 5 * time.Minute,
		Report: advise.Report{
			Report: diagnose.Report{Input: diagnose.Input{Traces: 1514, Spans: 9211, IncompleteTraces: 3}}, Routes: []advise.Route{one, other},
		},
	}
}

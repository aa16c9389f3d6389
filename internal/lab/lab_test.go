package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/trace"
)

// world is a running lab with a plain gateway before it and a receiver behind it.
type world struct {
	lab     *Lab
	gateway string

	mu    sync.Mutex
	spans []trace.Span
	ended chan error
}

func newWorld(t *testing.T, c Config) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("a whole system on real sockets")
	}
	if c.Rows == 0 {
		c.Rows = 2000 // the race detector makes SQLite slow
	}
	w := &world{ended: make(chan error, 1)}
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil {
			err = ingest.DecodeOTLP(body, func(s trace.Span) { w.spans = append(w.spans, s) })
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("unexpected export to %s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(receiver.Close)
	lab, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.lab = lab
	upstreams, err := lab.Start()
	if err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(forward(t, upstreams))
	t.Cleanup(gateway.Close)
	w.gateway = gateway.URL
	lab.Connect(gateway.URL, receiver.URL+"/v1/traces")
	go func() { w.ended <- lab.Run(context.Background()) }()
	t.Cleanup(func() { lab.Close() })
	return w
}

// forward stands for the gateway: by prefix, endpoints in turn.
func forward(t *testing.T, upstreams []Upstream) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	for _, route := range Routes() {
		for _, u := range upstreams {
			if u.Name != route.Upstream {
				continue
			}
			next := make(chan *url.URL, len(u.Endpoints))
			for _, e := range u.Endpoints {
				at, err := url.Parse(e)
				if err != nil {
					t.Fatal(err)
				}
				next <- at
			}
			proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
				at := <-next
				next <- at
				r.SetURL(at)
			}}
			mux.Handle(route.Path, proxy)
			mux.Handle(route.Path+"/", proxy)
		}
	}
	return mux
}

// get calls the gateway as a client with a trace of its own.
func (w *world) get(t *testing.T, path, traceparent string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.gateway+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if traceparent != "" {
		request.Header.Set("Traceparent", traceparent)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// close ends the lab and returns the spans of one trace, all of them by name: everything is exported by then.
func (w *world) close(t *testing.T, traceID string) map[string]trace.Span {
	t.Helper()
	w.lab.Close()
	if err := <-w.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sent, dropped := w.lab.Spans(); dropped != 0 || int(sent) != len(w.spans) {
		t.Errorf("%d spans sent, %d dropped, %d received", sent, dropped, len(w.spans))
	}
	named := make(map[string]trace.Span)
	for _, s := range w.spans {
		if s.TraceID == traceID {
			named[s.Service+" "+s.Kind.String()+" "+s.Name] = s
		}
	}
	return named
}

const (
	testTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	testParent = "00-" + testTrace + "-00f067aa0ba902b7-01"
)

// parents maps each span to its parent, both by name.
func parents(spans map[string]trace.Span) map[string]string {
	byID := map[string]string{"00f067aa0ba902b7": "client"}
	for name, s := range spans {
		byID[s.ID] = name
	}
	out := make(map[string]string)
	for name, s := range spans {
		out[name] = byID[s.Parent]
	}
	return out
}

func TestSystemCheckoutIsOneChainOfSpans(t *testing.T) {
	w := newWorld(t, Config{Faults: []Fault{}})
	if status, body := w.get(t, "/checkout?user=7", testParent); status != http.StatusOK || !strings.Contains(body, `"n":"7"`) {
		t.Fatalf("checkout answered %d %s", status, body)
	}
	spans := w.close(t, testTrace)
	want := map[string]string{
		"frontend server GET /checkout":       "client",
		"frontend internal validate cart":     "frontend server GET /checkout",
		"frontend client GET /orders/{n}":     "frontend server GET /checkout",
		"orders server GET /orders/{n}":       "frontend client GET /orders/{n}",
		"orders internal orders work":         "orders server GET /orders/{n}",
		"frontend client GET /pricing/{n}":    "frontend server GET /checkout",
		"pricing server GET /pricing/{n}":     "frontend client GET /pricing/{n}",
		"pricing internal pricing work":       "pricing server GET /pricing/{n}",
		"frontend client GET /inventory/{n}":  "frontend server GET /checkout",
		"inventory server GET /inventory/{n}": "frontend client GET /inventory/{n}",
		"inventory internal inventory work":   "inventory server GET /inventory/{n}",
		"frontend internal write receipt":     "frontend server GET /checkout",
	}
	if diff := cmp.Diff(want, parents(spans)); diff != "" {
		t.Fatalf("span and parent (-want +got):\n%s", diff)
	}
	for earlier, later := range map[string]string{
		"frontend client GET /orders/{n}": "frontend client GET /pricing/{n}", "frontend client GET /pricing/{n}": "frontend client GET /inventory/{n}",
	} {
		if spans[earlier].End > spans[later].Start {
			t.Errorf("%s overlaps %s", earlier, later)
		}
	}
	checkAttributes(t, spans["orders server GET /orders/{n}"], map[string]string{
		"http.request.method": "GET", "http.route": "/orders/{n}", "url.path": "/orders/7",
		"http.response.status_code": "200", "server.address": "127.0.0.1", "service.instance.id": "orders-1",
	})
	checkAttributes(t, spans["frontend client GET /orders/{n}"], map[string]string{
		"http.request.method": "GET", "url.template": "/orders/{n}", "http.response.status_code": "200",
		"server.address": "127.0.0.1", "server.port": w.gateway[strings.LastIndexByte(w.gateway, ':')+1:],
	})
	checkAttributes(t, spans["frontend server GET /checkout"], map[string]string{"url.query": "user=7", "service.instance.id": "frontend-1"})
}

func checkAttributes(t *testing.T, s trace.Span, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got := s.Attr(key); got != value {
			t.Errorf("%s %s: %s is %q; want %q", s.Service, s.Name, key, got, value)
		}
	}
	if s.Host == "" || s.Attr("host.name") == "" || s.End < s.Start {
		t.Errorf("%s %s: no host, or it ends before it starts", s.Service, s.Name)
	}
}

func TestSystemBrowseReadsTheDatabaseForReal(t *testing.T) {
	w := newWorld(t, Config{Faults: []Fault{{Name: ExpensiveRead, Service: "catalogue", Kind: FullScan, Min: 1, Max: 2}}})
	_, scanned := w.get(t, "/browse?category=books", testParent)
	if !strings.Contains(scanned, "product-") {
		t.Fatalf("browse answered %s", scanned)
	}
	if err := w.lab.Remove(ExpensiveRead); err != nil {
		t.Fatal(err)
	}
	if _, cured := w.get(t, "/browse?category=books", ""); cured != scanned {
		t.Errorf("the summary answers otherwise than the scan:\n%s\n%s", cured, scanned)
	}
	if status, _ := w.get(t, "/browse?category=nothing", ""); status != http.StatusBadGateway {
		t.Errorf("an unknown category answered %d", status)
	}
	spans := w.close(t, testTrace)
	db, ok := spans["catalogue client SELECT sale"]
	if !ok {
		t.Fatalf("no database span among %v", parents(spans))
	}
	if got := parents(spans)["catalogue client SELECT sale"]; got != "catalogue server GET /catalogue/{category}" {
		t.Errorf("the database span's parent is %q", got)
	}
	checkAttributes(t, db, map[string]string{
		"db.system.name": "sqlite", "db.query.text": scanQuery, "db.query.parameter.0": "books",
		"db.operation.name": "SELECT", "db.collection.name": "sale", "db.response.returned_rows": "20",
	})
	if db.Attr("lab.simulated_wait_ms") == "" {
		t.Error("the simulated wait is not said in the span")
	}
}

func TestSystemFaultsTakeEffectAtOnce(t *testing.T) {
	w := newWorld(t, Config{Faults: []Fault{}})
	if err := w.lab.Plant(Fault{Name: "outage", Service: "pricing", Kind: Fail, Status: 503}); err != nil {
		t.Fatal(err)
	}
	if status, body := w.get(t, "/checkout?user=1", testParent); status != http.StatusBadGateway || !strings.Contains(body, "503") {
		t.Errorf("with pricing down checkout answered %d %s; want 502 and the reason", status, body)
	}
	if got := w.lab.Faults(); len(got) != 1 || got[0].Name != "outage" {
		t.Errorf("planted are %v", got)
	}
	if err := w.lab.Remove("outage"); err != nil {
		t.Fatal(err)
	}
	if status, _ := w.get(t, "/checkout?user=1", ""); status != http.StatusOK {
		t.Errorf("after the outage checkout answered %d", status)
	}
	spans := w.close(t, testTrace)
	for _, name := range []string{"pricing server GET /pricing/{n}", "frontend client GET /pricing/{n}", "frontend server GET /checkout"} {
		if s := spans[name]; !s.Failed || s.Attr("error.type") == "" {
			t.Errorf("%s is not marked as failed", name)
		}
	}
	if spans["orders server GET /orders/{n}"].Failed {
		t.Error("orders is marked as failed")
	}
}

func TestSystemUnderItsTraffic(t *testing.T) {
	w := newWorld(t, Config{Seed: 1})
	plan := Plan(w.gateway, Rates{CheckoutPerSecond: 30, BrowsePerSecond: 20}, 1)
	plan.Drain = time.Minute // a busy machine may stand still for a while
	g, err := load.New(plan, load.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.Snapshot().Results {
		if r.Calls == 0 || r.Failed != 0 || r.Abandoned != 0 {
			t.Errorf("%s: %d calls, %d failed, %d abandoned", r.Target, r.Calls, r.Failed, r.Abandoned)
		}
		t.Logf("%s: %d calls, p50 %s, p99 %s, lag p99 %s", r.Target, r.Calls, r.Response.Quantile(0.5), r.Response.Quantile(0.99), r.Lag.Quantile(0.99))
	}
	w.close(t, "")
}

func TestSystemLeavesNothingBehind(t *testing.T) {
	w := newWorld(t, Config{})
	for _, u := range w.lab.Upstreams() {
		for _, e := range u.Endpoints {
			if status, _ := (&world{gateway: e}).get(t, HealthPath, ""); status != http.StatusOK {
				t.Errorf("%s: health is %d", e, status)
			}
		}
	}
	w.get(t, "/browse?category=art", "")
	folder := w.lab.db.folder.Path()
	w.close(t, "")
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the database's folder is still there: %v", err)
	}
	stacks := func() string {
		buffer := make([]byte, 4<<20)
		return string(buffer[:runtime.Stack(buffer, true)])
	}
	own := func() bool {
		all := stacks()
		return strings.Contains(all, "internal/lab.(*service)") || strings.Contains(all, "internal/lab.(*exporter)") ||
			strings.Contains(all, "internal/lab.(*Lab)") || strings.Contains(all, "database/sql.(*DB)")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 { // a connection's goroutine may outlive its server by a moment
		if !own() {
			return
		}
		<-tick.C
	}
	t.Errorf("goroutines are left:\n%s", stacks())
}

func TestLabHasOneLife(t *testing.T) {
	lab, err := New(Config{Rows: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Run(t.Context()); !errors.Is(err, ErrNotStarted) {
		t.Errorf("Run before Start: %v; want ErrNotStarted", err)
	}
	if _, err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Start(); !errors.Is(err, ErrStarted) {
		t.Errorf("Start again: %v; want ErrStarted", err)
	}
	lab.Close()
	lab.Close()
	if err := lab.Run(t.Context()); !errors.Is(err, ErrStarted) {
		t.Errorf("Run after Close: %v; want ErrStarted", err)
	}
	never, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	never.Close()
}

func TestGatewayConfigurationIsWhole(t *testing.T) {
	lab, err := New(Config{Rows: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if _, err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	yaml := lab.GatewayYAML("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	c, err := gateway.Load("lab.yaml", yaml)
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	if c.Listen[0].Address != "127.0.0.1:1" || c.Admin != "127.0.0.1:2" || c.OTLP.HTTP != "127.0.0.1:3" || c.OTLP.GRPC != gateway.Off {
		t.Errorf("unexpected addresses in %+v", c)
	}
	for _, u := range lab.Upstreams() {
		if got := c.Upstreams[u.Name]; !slices.EqualFunc(got.Endpoints, u.Endpoints, func(e gateway.Endpoint, url string) bool { return e.URL == url }) || got.Health.Path != HealthPath {
			t.Errorf("%s: got %+v; want %v", u.Name, got, u.Endpoints)
		}
	}
	for i, r := range Routes() {
		if got := c.Routes[i]; got.Name != r.Name || got.Match.Path != r.Path || got.Upstream != r.Upstream {
			t.Errorf("route %d: got %+v; want %+v", i, got, r)
		}
	}
}

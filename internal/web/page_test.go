package web_test

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/systemtest"
)

// busyShop is a running gateway with two fit endpoints and an unfit one, with calls on both routes until the test ends.
func busyShop(t *testing.T) *fixture {
	t.Helper()
	service := func(health int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ok" {
				w.WriteHeader(health)
			}
			_, _ = io.WriteString(w, "ok")
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	file := "listen: 127.0.0.1:0\n" + twoRoutes(service(200), service(200), service(500))
	cfg, err := gateway.Load("test", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	shop := cfg.Upstreams["shop"]
	shop.Health.Path, shop.Health.Interval, shop.Health.Timeout = "/ok", 200*time.Millisecond, 5*time.Second
	cfg.Upstreams["shop"] = shop
	f := newFixture(t, file, gateway.Options{}, func(f *fixture) { f.store, f.live.SLOs, f.lab = pastOfShop(t), promises, newBench() })
	if err := f.gateway.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	f.findings = sample("orders")

	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	t.Cleanup(func() { cancel(); run.Wait() })
	run.Go(func() {
		if err := f.gateway.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	run.Go(func() { _ = f.rollouts.Run(ctx) })
	for _, path := range []string{"/orders/7", "/things"} {
		run.Go(func() {
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				f.gateway.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, http.NoBody))
			}
		})
	}
	return f
}

// pastOfShop is a state folder with the last half hour of the route orders, of which a part was spent in a database.
func pastOfShop(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	now := time.Now()
	var list []store.Rollup
	for ago := 30 * time.Minute; ago > 0; ago -= 10 * time.Second {
		swing := time.Duration(20+10*math.Sin(ago.Minutes())) * time.Millisecond
		for of, d := range map[store.Series]time.Duration{{Route: "orders"}: swing, {Route: "orders", Segment: "database"}: swing / 2, {Route: "orders", Segment: "database", Endpoint: "pg"}: swing / 2} {
			list = append(list, store.Rollup{Series: of, From: now.Add(-ago), Calls: 3, Latency: stats.Of(d/2, d, 3*d)})
		}
	}
	if err := s.Add(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
	return s
}

// promises are two objectives: one that burns, and one without calls.
func promises() []slo.Status {
	book, err := slo.New([]slo.Objective{{Name: "orders-there", Route: "orders", Target: 0.999}, {Name: "catalogue-fast", Route: "catalogue", Target: 0.99, Threshold: 250 * time.Millisecond}})
	if err != nil {
		panic(err) // both are valid
	}
	now := time.Now()
	book.Explain(now, "orders-there", []slo.Share{{Cause: slo.Cause{Segment: "timeout"}, Ratio: 1}})
	book.Add(now, "orders-there", slo.Counts{Total: 100_000, Bad: 75})
	book.Add(now, "orders-there", slo.Counts{Total: 1000, Bad: 1000})
	book.Evaluate(now)
	return book.Status(now)
}

// oddRoute takes and does what few routes do.
const oddRoute = `- {name: old, match: {host: a.example, pattern: "/old/{id}", header: [{name: X-Age, prefix: v1}]}, static: {status: 410}}
`

// TestPageInABrowser says what it looks for in ui/page.test.mjs. With LONGPOLE_SCREENSHOTS it leaves pictures in that
// folder.
func TestPageInABrowser(t *testing.T) {
	systemtest.NeedBrowser(t)
	f := busyShop(t)
	to := longpole.Config{Timeout: 29 * time.Second}.Safe()
	_, err := f.rollouts.Start(rollout.Spec{
		Change: longpole.Change{Route: "catalogue", To: to}, Steps: []float64{0.25, 0.5}, Slice: 5 * time.Second, Warmup: time.Second,
		MaxDuration: time.Hour, Predicted: rollout.Quantiles{P50: time.Millisecond, P95: 2 * time.Millisecond, P99: 4 * time.Millisecond},
		Shed: 0.1, Reason: "a shorter timeout",
	})
	if err != nil {
		t.Fatal(err)
	}
	busy := httptest.NewServer(f.handler)
	defer busy.Close()
	idle := httptest.NewServer(newFixture(t, strings.Replace(twoRoutes("http://127.0.0.1:1"), "routes:\n", "routes:\n"+oddRoute, 1), gateway.Options{}).handler)
	defer idle.Close()

	systemtest.Look(t, "page.test.mjs", busy.URL, idle.URL)
	s, ok := f.rollouts.Get("r2")
	if !ok || s.Phase != rollout.Aborted || s.Reason != "LP103, from the page" {
		t.Errorf("the rollout that the page started and ended: %+v", s)
	}
}

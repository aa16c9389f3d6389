package fleet

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/stats"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func book(t *testing.T) *slo.Book {
	t.Helper()
	b, err := slo.New([]slo.Objective{
		{Name: "fast", Route: "orders", Target: 0.99, Threshold: 250 * time.Millisecond},
		{Name: "there", Route: "orders", Target: 0.999},
		{Name: "gone", Route: "removed", Target: 0.999},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// traffic is a gateway with one route, 100 calls a second, of which a share is bad.
type traffic struct {
	start time.Time
	bad   func(second int) int
	calls stats.Histogram
	tries stats.Histogram
	done  int
	ok    uint64
	wrong uint64
}

func (g *traffic) routes() []gateway.RouteStatus {
	for ; g.done < int(time.Since(g.start)/time.Second); g.done++ {
		bad := g.bad(g.done)
		for i := range 100 {
			took := 50 * time.Millisecond
			if i < bad {
				took = time.Second
			}
			g.calls.Record(took)
			g.tries.Record(took)
		}
		g.ok += uint64(100 - bad)
		g.wrong += uint64(bad)
	}
	endpoint := func(name string, healthy bool) gateway.EndpointStatus {
		return gateway.EndpointStatus{Name: name, Healthy: healthy, Latency: g.tries.Snapshot()}
	}
	return []gateway.RouteStatus{{
		Name: "orders", Classes: map[string]uint64{"ok": g.ok, "server": g.wrong, "canceled": 7},
		Tally:     stats.Tally{Calls: g.ok + g.wrong, Latency: g.calls.Snapshot()},
		Endpoints: []gateway.EndpointStatus{endpoint("a:1", true), endpoint("b:1", true), endpoint("c:1", false), endpoint("a:1", true)},
	}}
}

func TestWatchAlertsAndScales(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 200)
		g := &traffic{start: time.Now(), bad: func(second int) int {
			if second < 600 {
				return 0
			}
			return 50
		}}
		n := NewNotifier(WebhookConfig{URL: "http://hook.test"}, r.transport, quiet())
		w := &Watch{
			Routes: g.routes, Log: quiet(), Book: book(t), Board: &Board{}, Notifier: n, PageURL: "https://longpole.test/",
			File: filepath.Join(t.TempDir(), "budgets.json"),
			Shares: func(string, slo.Kind) []slo.Share {
				return []slo.Share{{Cause: slo.Cause{Segment: "database", Service: "stock"}, Ratio: 0.75}}
			},
			Workloads: []scale.Config{{Name: "orders", Max: 10, Latency: 250 * time.Millisecond}}, Permits: func(string) int { return 8 },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{}, 2)
		go func() { w.Run(ctx); ended <- struct{}{} }()
		go func() { n.Run(ctx); ended <- struct{}{} }()
		time.Sleep(599 * time.Second)
		synctest.Wait()
		if len(r.bodies) != 0 {
			t.Errorf("alerts before anything is wrong: %v", r.bodies)
		}
		rec, ok := w.Board.Get(time.Now(), "orders")
		if !ok || rec.Ready != 2 || rec.Desired != 2 || rec.Slots != 4 { // 100/s * 50 ms / (4 * 0.7) = 1.8
			t.Errorf("%t %+v", ok, rec)
		}
		time.Sleep(10 * time.Minute)
		cancel()
		<-ended
		<-ended
		synctest.Wait()
		var p slo.Payload
		if len(r.bodies) < 2 {
			t.Fatalf("%d alerts", len(r.bodies))
		}
		if err := json.Unmarshal([]byte(r.bodies[0]), &p); err != nil {
			t.Fatal(err)
		}
		if p.Version != "4" || p.Status != "firing" || p.Alerts[0].Labels["severity"] != "page" || p.ExternalURL != w.PageURL {
			t.Errorf("%+v", p)
		}
		if text := p.Alerts[0].Annotations["description"]; !strings.Contains(text, "75 % database stock") {
			t.Error(text)
		}
		again := book(t)
		if err := LoadBudgets(w.File, time.Now(), again); err != nil {
			t.Fatal(err)
		}
		was, is := w.Book.Status(time.Now()), again.Status(time.Now())
		if was[0].Bad == 0 || was[0].Bad != is[0].Bad || was[1].Calls != is[1].Calls {
			t.Errorf("kept %+v\nof %+v", is[0], was[0])
		}
	})
}

func TestBudgetsThatCannotBeReadBeginAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "budgets.json")
	if err := LoadBudgets(file, time.Now(), book(t)); err != nil {
		t.Errorf("a first start: %v", err)
	}
	for _, text := range []string{"", "{", `{"version": 9}`, "[]"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := LoadBudgets(file, time.Now(), book(t)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	if err := SaveBudgets(filepath.Join(dir, "missing", "budgets.json"), time.Now(), book(t)); err == nil {
		t.Error("saved where there is no folder")
	}
	if err := SaveBudgets(file, time.Now(), book(t)); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
}

func TestCollectorPassesTheLinter(t *testing.T) {
	now := time.Now()
	b, board := book(t), &Board{}
	b.Add(now, "fast", slo.Counts{Total: 100, Bad: 50})
	b.Evaluate(now)
	board.Set(scale.Recommendation{Name: "orders", At: now, Current: 3, Ready: 2, Desired: 4, PerSecond: 12.5})
	c := Collector{Book: b, Board: board, Notifier: func() *Notifier { return NewNotifier(WebhookConfig{URL: "http://hook.test"}, nil, quiet()) }, Now: func() time.Time { return now }}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	text := answer.Body.String()
	faults, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(faults) > 0 {
		t.Error(err, faults)
	}
	for _, want := range []string{
		`longpole_scale_current_replicas{state="ready",workload="orders"} 2`,
		`longpole_scale_current_replicas{state="starting",workload="orders"} 1`,
		`longpole_scale_desired_replicas{workload="orders"} 4`,
		`longpole_scale_expected_calls_per_second{workload="orders"} 12.5`,
		`longpole_slo_alert_firing{route="orders",severity="page",slo="fast"} 1`,
		`longpole_slo_alert_firing{route="orders",severity="page",slo="there"} 0`,
		`longpole_slo_burn_rate{route="orders",slo="fast",window="1h"} 50`,
		`longpole_slo_error_budget_remaining_ratio{route="orders",slo="fast"} -49`,
		`longpole_slo_error_budget_remaining_ratio{route="removed",slo="gone"} 1`,
		`longpole_notifications_total{result="dropped"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

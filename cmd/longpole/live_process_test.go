package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/store"
)

// keptAnswer is what /api/v1/traces says.
type keptAnswer struct {
	Traces []struct {
		ID     string  `json:"trace_id"`
		Route  string  `json:"route"`
		Failed bool    `json:"failed"`
		MS     float64 `json:"duration_ms"`
	} `json:"traces"`
}

// historyAnswer is what /api/v1/history says.
type historyAnswer struct {
	Series []struct {
		store.Series
		Points []struct {
			Calls uint64 `json:"calls"`
		} `json:"points"`
	} `json:"series"`
}

// calls is how many there were of a series.
func (h historyAnswer) calls(s store.Series) (n uint64) {
	for _, one := range h.Series {
		if one.Series == s {
			for _, p := range one.Points {
				n += p.Calls
			}
		}
	}
	return n
}

// TestKill9LosesNothingThatWasKept lets a gateway keep traces of its own and of others, kills it when they can be found, and
// looks for them after the next start.
func TestKill9LosesNothingThatWasKept(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills a gateway")
	}
	up := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	port, admin, otlp := freePort(t), freePort(t), freePort(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "longpole.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:%s
admin: 127.0.0.1:%s
otlp: {grpc: off, http: 127.0.0.1:%s}
state: {dir: %s}
upstreams: {up: {endpoints: http://%s}}
routes: [{name: all, upstream: up}]
slos: [{name: there, route: all, target: 99.9%%}]
`, port, admin, otlp, filepath.Join(dir, "state"), up.address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &durable{t: t, url: "http://127.0.0.1:" + port, admin: "http://127.0.0.1:" + admin}
	d.gateway = startProcess(t, "longpole", "serve", "--config", file)
	d.up()
	for i := range 30 {
		get(fmt.Sprintf("%s/%d", d.url, i))
	}
	now := time.Now().UnixNano()
	var spans []string
	for i := range 20 {
		spans = append(spans, fmt.Sprintf(`{"traceId":"%032x","spanId":"%016x","name":"pay","kind":2,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","status":{"code":%d}}`,
			i+1, i+1, now-int64(i+1)*1e6, now, 2*(i%2)))
	}
	post := func(path, body string) {
		t.Helper()
		resp, err := client.Post("http://127.0.0.1:"+otlp+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s gets %s", path, resp.Status)
		}
	}
	post("/v1/logs", fmt.Sprintf(`{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"till"}}]},"scopeLogs":[{"logRecords":[
		{"timeUnixNano":"%d","severityNumber":17,"body":{"stringValue":"the drawer is stuck"},"traceId":"%032x","spanId":"%016x"}]}]}]}`, now, 2, 2))
	post("/v1/traces", `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"till"}}]},"scopeSpans":[{"spans":[`+strings.Join(spans, ",")+`]}]}]}`)
	var kept keptAnswer
	eventually(t, "the traces are kept", func() bool {
		kept = keptAnswer{}
		d.ask(http.MethodGet, "/api/v1/traces?limit=1000", "", &kept)
		return len(kept.Traces) >= 50
	})
	var before, after historyAnswer
	d.ask(http.MethodGet, "/api/v1/history", "", &before)
	d.again()
	d.ask(http.MethodGet, "/api/v1/history", "", &after)
	for _, s := range []store.Series{{Route: "all"}, {Route: "all", Segment: "downstream"}, {Route: "all", Segment: "gateway"}, {Route: "till pay"}, {Route: "till pay", Segment: "service"}, {Route: "till pay", Segment: "service", Endpoint: "till"}} {
		if n, m := before.calls(s), after.calls(s); n < 20 || m < n {
			t.Errorf("%+v: %d calls before the kill, %d after it", s, n, m)
		}
	}
	for _, one := range kept.Traces {
		a := get(d.admin + "/api/v1/traces/" + one.ID)
		if !a.ok() || !strings.Contains(a.body, one.ID) {
			t.Fatalf("trace %s of %s is gone: %d %s", one.ID, one.Route, a.status, a.body)
		}
	}
	if a := get(d.admin + "/api/v1/traces/" + fmt.Sprintf("%032x", 2)); !strings.Contains(a.body, "the drawer is stuck") {
		t.Errorf("what was logged in the trace is gone: %s", a.body)
	}
	var failed keptAnswer
	d.ask(http.MethodGet, "/api/v1/traces?route=till%20pay&failed=true&order=slowest", "", &failed)
	if len(failed.Traces) != 10 || failed.Traces[0].MS != 20 {
		t.Errorf("%d failed traces of till pay, want 10, the slowest first: %+v", len(failed.Traces), failed.Traces)
	}
}

package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

// keptTraces is a state folder with traces of the route orders, the i-th of which is i*10 ms long and i minutes old; the
// second failed.
func keptTraces(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	now := time.Now()
	var list []store.Kept
	for i := 1; i <= 5; i++ {
		id, start := fmt.Sprintf("%032x", i), now.Add(-time.Duration(i)*time.Minute).UnixNano()
		list = append(list, store.Kept{Route: "orders", Failed: i == 2, Trace: trace.Trace{ID: id, Weight: float64(i), Spans: []trace.Span{
			{TraceID: id, ID: "00000000000000a1", Kind: trace.Server, Service: "shop", Name: "GET", Host: "h1", Start: start, End: start + int64(i)*1e7, Failed: i == 2, Attributes: []trace.Attribute{{Key: "k", Value: "v"}}},
			{TraceID: id, ID: "00000000000000a2", Parent: "00000000000000a1", Kind: trace.Client, Service: "db", Name: "SELECT", Start: start, End: start + 1e6},
		}, Logs: []trace.Log{{TraceID: id, SpanID: "00000000000000a1", Time: start, Severity: trace.SeverityError, Service: "shop", Body: "stuck", Exception: "IOError"}}}})
	}
	if err := s.Keep(t.Context(), now, list...); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeptTracesAreFound(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.store = keptTraces(t) })
	for query, want := range map[string][]int{
		"":                        {1, 2, 3, 4, 5},
		"?order=slowest&limit=2":  {5, 4},
		"?min=30ms":               {3, 4, 5},
		"?failed=true":            {2},
		"?route=orders&from=150s": {1, 2},
		"?route=other":            nil,
		"?from=6m&to=210s":        {4, 5},
	} {
		var answer struct {
			Traces []struct {
				ID       string  `json:"trace_id"`
				Duration float64 `json:"duration_ms"`
				Weight   float64
			}
		}
		a := f.do(http.MethodGet, "/api/v1/traces"+query, "").want(http.StatusOK)
		if err := json.Unmarshal([]byte(a.body), &answer); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, one := range answer.Traces {
			got = append(got, int(one.Weight))
			if one.Duration != 10*one.Weight || one.ID != fmt.Sprintf("%032x", int(one.Weight)) {
				t.Errorf("%s: %+v", query, one)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q finds %v, want %v", query, got, want)
		}
	}
	for query, says := range map[string]string{"?min=x": "no duration", "?limit=0": "1..1000", "?order=x": "newest or slowest", "?failed=x": "neither", "?from=x": `from: \"x\" is no time`, "?to=x": `to: \"x\" is no time`} {
		f.do(http.MethodGet, "/api/v1/traces"+query, "").want(http.StatusBadRequest, says)
	}
}

func TestAKeptTraceIsADocumentOfOTLP(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.store = keptTraces(t) })
	a := f.do(http.MethodGet, "/api/v1/traces/"+strings.Repeat("0", 31)+"2", "").want(http.StatusOK)
	var spans []trace.Span
	if err := ingest.DecodeOTLPJSON([]byte(a.body), func(s trace.Span) { spans = append(spans, s) }); err != nil {
		t.Fatal(err)
	}
	if len(spans) != 2 || !spans[0].Failed || spans[0].Service != "shop" || spans[0].Host != "h1" || spans[0].Kind != trace.Server || spans[0].Attr("k") != "v" ||
		spans[1].Parent != spans[0].ID || spans[1].Kind != trace.Client || spans[0].Duration() != 20*time.Millisecond {
		t.Errorf("%+v", spans)
	}
	in, err := ingest.ReadPaths(t.Context(), []string{"-"}, strings.NewReader(a.body), nil) // as longpole diagnose - does
	if err != nil || len(in.Traces) != 1 || len(in.Traces[0].Logs) != 1 || in.Stats.Logs.Records != 1 {
		t.Fatalf("%+v, %v", in, err)
	}
	if l := in.Traces[0].Logs[0]; l.Service != "shop" || l.Body != "stuck" || l.Exception != "IOError" || l.Severity != trace.SeverityError || l.SpanID != spans[0].ID || l.TraceID != in.Traces[0].ID || l.Time != spans[0].Start {
		t.Errorf("%+v", l)
	}
	f.do(http.MethodGet, "/api/v1/traces/77", "").want(http.StatusNotFound, "no trace")
	newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}).do(http.MethodGet, "/api/v1/traces", "").want(http.StatusNotFound, "state: {dir: FOLDER}")
}

func TestWhatTheServerKnowsBesideTheGatewayIsShown(t *testing.T) {
	live := web.Live{
		SLOs: func() []slo.Status { return []slo.Status{{Name: "there", Remaining: 0.5}} },
		Scale: func() []scale.Recommendation {
			return []scale.Recommendation{{Name: "orders", Desired: 3, Reason: "because"}}
		},
		Calibrations: func() []web.Calibration {
			return []web.Calibration{{Route: "orders", CalibrationStatus: judge.CalibrationStatus{FalseAlarmRatio: 0.04, Total: 50}}}
		},
		Received: func() []ingest.Received {
			return []ingest.Received{{Protocol: "zipkin", Accepted: 7, Refused: map[string]uint64{"full": 2}, Dropped: map[string]uint64{"invalid": 1}}}
		},
		Kept: func() map[string]uint64 { return map[string]uint64{"written": 9} },
	}
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.live, f.store = live, keptTraces(t) })
	f.do(http.MethodGet, "/api/v1/slos", "").want(http.StatusOK, `{"slos":[{"name":"there"`, `"remaining":0.5`)
	f.do(http.MethodGet, "/api/v1/scale", "").want(http.StatusOK, `{"workloads":[{"name":"orders"`, `"desired":3`, `"reason":"because"`)
	f.do(http.MethodGet, "/api/v1/calibration", "").want(http.StatusOK, `{"routes":[{"route":"orders","false_alarm_ratio":0.04`)
	f.do(http.MethodGet, "/api/v1/received", "").want(http.StatusOK, `{"protocols":[{"protocol":"zipkin"`, `"full":2`)
	f.do(http.MethodGet, "/api/v1/findings", "").want(http.StatusOK, `"dropped":{"late":0,"queue_full":3}`)
	f.do(http.MethodGet, "/metrics", "").want(http.StatusOK,
		`longpole_received_total{protocol="zipkin"} 7`, `longpole_received_refused_total{protocol="zipkin",reason="full"} 2`, `longpole_received_dropped_total{protocol="zipkin",reason="invalid"} 1`,
		`longpole_traces_kept_total{result="written"} 9`, `longpole_judge_aa_false_alarm_ratio{route="orders"} 0.04`, `longpole_judge_aa_comparisons_total{route="orders"} 50`, `longpole_store_dropped_total{what="traces"} 0`)
	idle := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	for path, want := range map[string]string{"slos": `{"slos":[]}`, "scale": `{"workloads":[]}`, "received": `{"protocols":[]}`, "calibration": `{"routes":[]}`} {
		idle.do(http.MethodGet, "/api/v1/"+path, "").want(http.StatusOK, want)
	}
}

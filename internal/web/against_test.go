package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

// twoDays is a state folder with 40 traces of the route orders of the last ten minutes, 90 ms long, and 40 of the same time of
// yesterday, 30 ms long.
func twoDays(t *testing.T, now time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for day, took := range []time.Duration{90 * time.Millisecond, 30 * time.Millisecond} {
		var list []store.Kept
		durations := map[time.Duration]uint64{took: 40}
		at := now.Add(-time.Duration(day)*24*time.Hour - 10*time.Minute)
		for i := range 40 {
			id, start := fmt.Sprintf("%031x%d", i+1, day), at.Add(time.Duration(i)*time.Second).UnixNano()
			list = append(list, store.Kept{Route: "orders", Trace: trace.Trace{ID: id, Spans: []trace.Span{
				{TraceID: id, ID: "00000000000000a1", Kind: trace.Server, Service: "shop", Name: "GET", Start: start, End: start + int64(took)},
			}}})
		}
		if err := s.Keep(t.Context(), at, list...); err != nil {
			t.Fatal(err)
		}
		latency := stats.FromBuckets(func(yield func(time.Duration, uint64) bool) {
			for d, n := range durations {
				if !yield(d, n) {
					return
				}
			}
		})
		if err := s.Add(t.Context(), store.Rollup{Series: store.Series{Route: "orders"}, From: at, Calls: 40, Latency: latency}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestTwoTimesAreCompared(t *testing.T) {
	now := time.Now()
	var got [2]int
	busy := false
	compare := func(now, before []trace.Trace) (advise.Report, bool) {
		got = [2]int{len(now), len(before)}
		return advise.Report{}, !busy
	}
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.store, f.live = twoDays(t, now), web.Live{Compare: compare} })
	a := f.do(http.MethodGet, "/api/v1/findings?baseline=24h", "").want(http.StatusOK, `"traces":40`, `"baseline_traces":40`, `"routes":[]`)
	var answer struct {
		Series []struct {
			store.Series
			Before, Now struct {
				Calls   uint64
				Latency struct{ P99 float64 } `json:"latency_ms"`
			}
		}
	}
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil {
		t.Fatal(err)
	}
	s := answer.Series
	if got != [2]int{40, 40} || len(s) != 1 || s[0].Route != "orders" || s[0].Before.Calls != 40 || s[0].Now.Calls != 40 ||
		s[0].Before.Latency.P99 < 29 || s[0].Before.Latency.P99 > 31 || s[0].Now.Latency.P99 < 89 || s[0].Now.Latency.P99 > 91 {
		t.Errorf("%v; %+v", got, s)
	}
	yesterday := now.Add(-24*time.Hour - 15*time.Minute).UTC().Format(time.RFC3339)
	f.do(http.MethodGet, "/api/v1/findings?baseline="+yesterday, "").want(http.StatusOK, `"baseline_traces":40`)
	f.do(http.MethodGet, "/api/v1/findings?baseline=48h", "").want(http.StatusOK, `"traces":40`, `"baseline_traces":0`)
	f.do(http.MethodGet, "/api/v1/findings?baseline=5m", "").want(http.StatusBadRequest, "at least 15m0s before it")
	f.do(http.MethodGet, "/api/v1/findings?baseline=soon", "").want(http.StatusBadRequest, `baseline: \"soon\" is no time`)
	f.do(http.MethodGet, "/api/v1/findings?baseline=48h&from=30h", "").want(http.StatusBadRequest, "at most 24h0m0s between them")
	busy = true
	if a := f.do(http.MethodGet, "/api/v1/findings?baseline=24h", "").want(http.StatusTooManyRequests, "under way"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestTwoTimesNeedAStateFolder(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.do(http.MethodGet, "/api/v1/findings?baseline=24h", "").want(http.StatusNotFound, "state: {dir: FOLDER}")
}

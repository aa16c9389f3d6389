package web_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
)

// slicesOf is a body for /judge: n slices of 200 calls of 10 ms and more, those of the candidate scaled.
func slicesOf(n int, scale float64) string {
	rng := rand.New(rand.NewPCG(1, 2))
	sample := func(scale float64) string {
		var all []string
		for range 200 {
			all = append(all, fmt.Sprintf("%.3f", scale*(10+2*rng.ExpFloat64())))
		}
		return `{"latency_ms": [` + strings.Join(all, ",") + `]}`
	}
	var pairs []string
	for range n {
		pairs = append(pairs, `{"baseline": `+sample(1)+`, "candidate": `+sample(scale)+`}`)
	}
	return `{"slices": [` + strings.Join(pairs, ",") + `]}`
}

func TestTheJudgeServesOthersByStatusAndBody(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	for _, tt := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"worse", slicesOf(30, 2), http.StatusConflict, `"verdict":"worse"`},
		{"better", slicesOf(200, 0.5), http.StatusOK, `"verdict":"improved"`},
		{"too little", slicesOf(1, 1), http.StatusUnprocessableEntity, `"verdict":"inconclusive"`},
		{"nothing", `{}`, http.StatusBadRequest, "slices"},
		{"an unknown field", `{"slcies": []}`, http.StatusBadRequest, "slcies"},
		{"two objects", slicesOf(1, 1) + `{}`, http.StatusBadRequest, "one JSON object"},
	} {
		if a := f.do(http.MethodPost, "/judge", tt.body); a.status != tt.status || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s: %d %.300s", tt.name, a.status, a.body)
		}
	}
}

func TestPartsAreSwitchedOffAndOnAgain(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	if a := f.do(http.MethodPost, "/api/v1/killed", `{"route": "orders", "parts": ["retry", "rollouts"], "reason": "incident"}`); a.status != http.StatusOK || a.body != `{"killed":{"orders":["retry"]},"no_rollouts":{"orders":"incident"}}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := f.do(http.MethodPost, "/api/v1/rollouts", `{"route": "orders", "to": {"timeout": "1s"}}`); a.status != http.StatusConflict || !strings.Contains(a.body, "incident") {
		t.Errorf("a rollout begins: %d %s", a.status, a.body)
	}
	if a := f.do(http.MethodGet, "/api/v1/routes", ""); !strings.Contains(a.body, `"off":["retry"]`) {
		t.Errorf("routes say %s", a.body)
	}
	for body, want := range map[string]int{
		`{"route": "orders", "reason": "over"}`:        http.StatusOK,
		`{"route": "none", "reason": "over"}`:          http.StatusNotFound,
		`{"route": "orders"}`:                          http.StatusBadRequest,
		`{"parts": ["caches"], "reason": "a mistake"}`: http.StatusBadRequest,
	} {
		if a := f.do(http.MethodPost, "/api/v1/killed", body); a.status != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := f.do(http.MethodGet, "/api/v1/killed", ""); a.body != `{"killed":{},"no_rollouts":{}}`+"\n" {
		t.Errorf("at the end %s", a.body)
	}
}

func TestHistoryIsMergedToSteps(t *testing.T) {
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.store = s })
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 12 {
		took := time.Duration(i+1) * time.Millisecond
		if err := s.Add(t.Context(), store.Rollup{Series: store.Series{Route: "orders"}, From: noon.Add(time.Duration(i) * 10 * time.Second), Calls: 1, Latency: stats.Of(took)}); err != nil {
			t.Fatal(err)
		}
	}
	a := f.do(http.MethodGet, "/api/v1/history?route=orders&from=2026-03-01T12:00:00Z&to=2026-03-01T13:00:00Z&step=1m", "")
	if a.status != http.StatusOK || strings.Count(a.body, `"at"`) != 2 || strings.Count(a.body, `"calls":6`) != 2 || !strings.Contains(a.body, `"step_seconds":60`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	for query, says := range map[string]string{
		"from=noon": `from: \"noon\" is no time`, "to=noon": `to: \"noon\" is no time`, "step=1s": `step: \"1s\" is no step`, "step=x": "step: ",
		"from=1h&to=2h": "", "from=8760h&step=10s": "",
	} {
		f.do(http.MethodGet, "/api/v1/history?"+query, "").want(http.StatusBadRequest, says)
	}
	bare := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	if a := bare.do(http.MethodGet, "/api/v1/history", ""); a.status != http.StatusNotFound || !strings.Contains(a.body, "state:") {
		t.Errorf("without a folder: %d %s", a.status, a.body)
	}
}

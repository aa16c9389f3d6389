package review_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/systemtest"
)

// everything is a review in which every section has something to say.
func everything() review.Review {
	first := table(1e6, 1.5e6, 700, nil)
	first.Routes = busy(nil).Routes
	in := full(daysOf(28, weekly(600, 10)), func(r *review.Route) { r.Upstream, r.Policy.Timeout = "orders", 30*time.Second })
	carts := busy(func(r *review.Route) { r.Policy.Timeout = 30 * time.Second }).Routes[0]
	carts.Name, carts.Upstream = "carts", "carts"
	in.Routes = append(in.Routes, carts)
	in.Environment, in.Program = "production", "v1"
	in.Systems = first.Systems
	in.Systems.Pools = []review.Pool{{Service: "shop", Name: "main", Max: 10, Used: 10, Windows: 100, Exhausted: 20, WaitP99: 40 * time.Millisecond}}
	in.Last = first.Last
	in.Last.Figures.Costs = []review.Cost{{Route: "orders", Attempts: 800}}
	in.Last.Findings = []review.Finding{{Code: "LP302", Subject: "orders"}}
	foretold := func(id, kind string, after time.Duration) staging.Record {
		return promoted(id, func(r *staging.Record) {
			r.Kind, r.At, r.Judgement = kind, noon.Add(-after), judge.Judgement{Slices: 20}
			r.Predicted, r.Low, r.High = &staging.Latency{P50: 10, P95: 40, P99: 30}, &staging.Latency{P50: 9, P95: 36, P99: 27}, &staging.Latency{P50: 11, P95: 44, P99: 33}
		})
	}
	for i, id := range []string{"r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"} {
		in.Records = append(in.Records, foretold(id, "hedge", time.Duration(i+1)*day))
	}
	in.Records = append(in.Records, promoted("r12", func(r *staging.Record) { r.Phase, r.At = "rolled_back", noon.Add(-time.Hour) }))
	in.Standings = []review.Standing{standing("r1", review.NowHarmful), standing("r2", review.StillHelps), standing("r3", review.Decayed)}
	in.Staging = []staging.Record{promoted("s7", func(r *staging.Record) { r.Environment = "staging" })}
	score := staging.Fidelity(staging.Workload{Calls: 1}, staging.Workload{Calls: 1, Version: "v1"}, 70)
	in.Fidelity = &score
	in.Poles = []review.Pole{{Route: "shop GET /", Segment: "<img src=x onerror=alert(1)> database stock SELECT", Share: 0.6}}
	in.Advice = advice(0.3, "likely").Advice
	in.Objectives = []slo.Status{{Name: "fast", Route: "orders", Target: 0.999, Good: 0.995, Calls: 20_000, Bad: 100, Allowed: 20, Remaining: -4}}
	in.Exercised = []review.Exercise{
		{Class: "delay", Route: "orders", At: noon.Add(-day), Hits: 5, Verdict: "held"},
		{Class: "abort", Route: "orders", At: noon.Add(-200 * day), Hits: 5, Verdict: "held", Environment: "staging"},
		{Class: "blackhole", Route: "carts", At: noon.Add(-day), Hits: 5, Verdict: "ended early: 7 % of the calls failed", Environment: "staging"},
	}
	in.Dismissals = []review.Dismissal{{Code: "LP301", Subject: "carts", By: "ann", Reason: "exports take as long", At: noon.Add(-day), Until: noon.Add(30 * day), Size: 1500, Basis: "30s"}}
	return review.Run(in)
}

// TestThePageInABrowser says what it looks for in ui/review.test.mjs. With LONGPOLE_SCREENSHOTS it leaves pictures in that
// folder, and the other forms of the same review beside them.
func TestThePageInABrowser(t *testing.T) {
	systemtest.NeedBrowser(t)
	r := everything()
	var page bytes.Buffer
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	if folder := systemtest.Screenshots(); folder != "" {
		var text, markdown bytes.Buffer
		if err := r.Text(&text); err != nil {
			t.Fatal(err)
		}
		if err := r.Markdown(&markdown); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"review.txt": text.Bytes(), "review.md": markdown.Bytes(), "review.html": page.Bytes()} {
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page.Bytes())
	}))
	defer server.Close()
	systemtest.Look(t, "review.test.mjs", server.URL)
}

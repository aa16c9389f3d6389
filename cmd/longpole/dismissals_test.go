package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

func TestADismissedFindingStaysSoUntilItIsAnotherMatter(t *testing.T) {
	base := config("{timeout: 10s}", newBackend(t, named("x"))) + "state: {dir: " + t.TempDir() + "}\nreview: {killed_for: 1ns}\n"
	var y *system
	run := func(process string, with func(*testing.T)) {
		t.Run(process, func(t *testing.T) {
			y = newSystem(t, base)
			with(t)
		})
	}
	ok := func(args ...string) (stdout, stderr string) {
		y.t.Helper()
		code, stdout, stderr := y.cli(append(args, "--admin", y.adminURL())...)
		if code != 0 {
			y.t.Fatalf("%v: %d %s%s", args, code, stdout, stderr)
		}
		return stdout, stderr
	}
	run("the first process", func(t *testing.T) {
		ok("kill", "off", "cache", "--route", "all", "--reason", "stale prices")
		if out, _ := ok("review"); !strings.Contains(out, "LP315 warning  switched off for long: all") {
			t.Fatal(out)
		}
		for _, wrong := range [][]string{
			{"LP315", "--route", "all", "--until", "2099-01-01", "--reason", "x"},
			{"LP315", "--route", "all", "--reason", "x"},
			{"LP315 all", "--route", "all", "--reason", "x", "--until", soon()},
			{"LP315", "--until", "soon", "--reason", "x"},
		} {
			if code, _, _ := y.cli(append([]string{"review", "dismiss", "--admin", y.adminURL()}, wrong...)...); code != exitUsage {
				t.Errorf("%v: %d", wrong, code)
			}
		}
		until := soon()
		if code, _, stderr := y.cli("review", "dismiss", "LP301", "--route", "all", "--reason", "x", "--until", until, "--admin", y.adminURL()); code != exitError || !strings.Contains(stderr, "there is nothing of that name to dismiss: LP301 all") {
			t.Errorf("%d %s", code, stderr)
		}
		if _, said := ok("review", "dismiss", "lp315", "--route", "all", "--reason", "until the new shop", "--until", until, "--by", "ann"); !strings.Contains(said, "LP315 all is dismissed until ") {
			t.Error(said)
		}
	})
	run("the second process", func(t *testing.T) {
		if out, _ := ok("review", "dismissed"); !strings.Contains(out, "LP315  all") || !strings.Contains(out, "ann") || !strings.Contains(out, "until the new shop") {
			t.Errorf("after a restart: %s", out)
		}
		if out, _ := ok("review"); !strings.Contains(out, "LP315 dismissed  switched off for long: all\n  by ann on ") || !strings.Contains(out, "1 dismissed") || strings.Contains(out, "LP315 warning") {
			t.Fatal(out)
		}
		if got := get(y.adminURL() + "/metrics"); strings.Contains(got.body, `longpole_review_findings{code="LP315"`) {
			t.Error("what is dismissed is counted")
		}
		ok("kill", "restore", "--route", "all", "--reason", "over")
		ok("kill", "off", "cache", "--route", "all", "--reason", "again")
		if out, _ := ok("review"); !strings.Contains(out, "LP315 warning") || !strings.Contains(strings.Join(strings.Fields(out), " "), "back, since its evidence changed (dismissed by ann on ") {
			t.Fatal(out)
		}
		if _, said := ok("review", "dismissed"); !strings.Contains(said, "nothing is dismissed") {
			t.Error(said)
		}
		ok("review", "dismiss", "LP315", "all", "--reason", "once more", "--until", soon())
	})
	run("the third process", func(t *testing.T) {
		if _, said := ok("review", "reopen", "LP315", "all", "--reason", "no more"); !strings.Contains(said, "LP315 all is open again") {
			t.Error(said)
		}
		if out, _ := ok("review", "-o", "markdown"); !strings.Contains(out, "| LP315 | warning |") {
			t.Error(out)
		}
		if n := len(y.reviewer.Dismissals()); n != 0 {
			t.Errorf("%d are in force", n)
		}
	})
}

// soon is a date that can be dismissed until.
func soon() string { return time.Now().Add(30 * 24 * time.Hour).Format(time.DateOnly) }

// serial is a file of traces of a service that makes three calls one after the other.
func serial(t *testing.T) string {
	t.Helper()
	var spans []map[string]any
	for i := range 200 {
		at, long := int64(1_700_000_000_000_000+i*1_000_000), int64(10_000+100*(i%20))
		span := func(id, parent int, kind, service, name string, start, took int64) {
			s := map[string]any{"traceId": fmt.Sprintf("%032x", i+1), "id": fmt.Sprintf("%016x", id), "kind": kind, "name": name, "timestamp": start, "duration": took, "localEndpoint": map[string]string{"serviceName": service}}
			if parent > 0 {
				s["parentId"] = fmt.Sprintf("%016x", parent)
			}
			spans = append(spans, s)
		}
		span(1, 0, "SERVER", "shop", "GET /cart", at, 3*long+3000)
		for k := range 3 {
			start := at + 1000 + int64(k)*long
			span(10+k, 1, "CLIENT", "shop", "GET", start, long-200)
			span(20+k, 10+k, "SERVER", []string{"stock", "price", "user"}[k], "GET /one", start+100, long-400)
		}
	}
	data, err := json.Marshal(spans)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "traces.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestForecastsThatMissedWidenTheNextOnes(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, named("x"))))
	path := serial(t)
	_, plain, _ := y.cli("diagnose", path)
	if !strings.Contains(plain, "→ parallelise") || strings.Contains(plain, "widened") {
		t.Fatal(plain)
	}
	ms := func(f float64) *staging.Latency { return &staging.Latency{P50: 10 * f, P95: 40 * f, P99: 50 * f} }
	for i := range 12 {
		y.reviewer.remember(staging.Record{
			Rollout: fmt.Sprint("r", i), Route: "all", Kind: "parallelise", Predicted: ms(1), Low: ms(1 / 1.1), High: ms(1.1), After: *ms(1.21), Judgement: judge.Judgement{Slices: 20},
		})
	}
	code, wider, stderr := y.cli("diagnose", "--admin", y.adminURL(), path)
	if code != 0 || !strings.Contains(wider, "      intervals widened 2x after 12 outcomes of its kind, of which the model's own held 0 %\n") {
		t.Fatalf("%d %s%s", code, wider, stderr)
	}
	if code, text, _ := y.cli("diagnose", "--admin", y.adminURL(), "-o", "html", path); code != 0 || !strings.Contains(text, "Intervals widened 2x after 12 outcomes of its kind.") {
		t.Errorf("the page does not say it: %d", code)
	}
	cmd := newDiagnose()
	cmd.SetContext(t.Context())
	in, err := readInput(cmd, []string{path})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range in.Traces {
		y.analysis.Receive(one.Spans)
	}
	live := func() (widened int) {
		r, _ := y.analysis.Refresh(time.Hour)
		for _, route := range r.Routes {
			for _, f := range route.Findings {
				for _, a := range f.Actions {
					if a.Kind == "parallelise" && a.Widened != nil && a.Widened.Outcomes == 12 {
						widened++
					}
				}
			}
		}
		return widened
	}
	eventually(t, "live advice is widened too", func() bool { return live() > 0 })
	if code, _, stderr := y.cli("diagnose", "--admin", "http://127.0.0.1:1", path); code != exitError || !strings.Contains(stderr, "no answer from") {
		t.Errorf("a gateway that does not answer: %d %s", code, stderr)
	}
}

func TestADismissalTooManyIsRefusedRatherThanAnOldOneForgotten(t *testing.T) {
	v := &reviewer{findings: func() web.Findings { return web.Findings{} }, log: slog.New(slog.DiscardHandler), last: &review.Review{}}
	for i := range review.MostDismissals + 1 {
		v.last.Findings = append(v.last.Findings, review.Finding{Code: "LP318", Subject: fmt.Sprint("index ", i)})
	}
	order := func(subject string) error {
		_, err := v.Dismiss(t.Context(), review.Order{Code: "LP318", Subject: subject, Reason: "x", By: "ann", Until: soon()})
		return err
	}
	if err := order(""); !errors.Is(err, review.ErrDismissal) || len(v.dismissals) != 0 {
		t.Errorf("all at once: %v, %d", err, len(v.dismissals))
	}
	for i := range review.MostDismissals {
		if err := order(fmt.Sprint("index ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := order(fmt.Sprint("index ", review.MostDismissals)); !errors.Is(err, review.ErrDismissal) || v.dismissals[0].Subject != "index 0" {
		t.Errorf("one too many: %v, the first is %s", err, v.dismissals[0].Subject)
	}
	if err := order("index 0"); err != nil {
		t.Errorf("one that is dismissed already: %v", err)
	}
}

func TestForecastsOfAComparisonAreWidenedToo(t *testing.T) {
	asked := false
	a := &analysis{policies: func() map[string]longpole.Config { return nil }, stretches: func() staging.Stretches {
		asked = true
		return nil
	}}
	if _, ok := a.Compare(nil, []trace.Trace{}); !ok || !asked {
		t.Errorf("compared %v, asked by how much forecasts missed %v", ok, asked)
	}
}

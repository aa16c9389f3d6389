package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/rollout"
)

// slow answers after a pause, as a service with work to do.
func slow(pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "done")
	}
}

// policyFile writes a candidate.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// quickly is the pace of the rollouts here.
var quickly = []string{"--steps", "0.5", "--slice", "100ms", "--warmup", "500ms", "--max-duration", "60s"}

// start asks for a rollout of a candidate and returns the exit code and the output.
func (y *system) start(candidate string, more ...string) (code int, stdout, stderr string) {
	y.t.Helper()
	args := append([]string{"rollout", "start", "--admin", y.adminURL(), "--route", "all", "--to", policyFile(y.t, candidate)}, quickly...)
	return y.cli(append(args, more...)...)
}

// status is a rollout as `rollout get -o json` prints it.
func (y *system) status(id string) (s rollout.Status) {
	y.t.Helper()
	code, stdout, stderr := y.cli("rollout", "get", id, "-o", "json", "--admin", y.adminURL())
	if code != 0 {
		y.t.Fatalf("rollout get exits %d: %s", code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		y.t.Fatal(err)
	}
	return s
}

func TestACureIsPromoted(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, slow(8*time.Millisecond))))
	f := drive(t, y.url+"/same", 8)
	f.more(t, 100)
	code, stdout, stderr := y.start("cache: {ttl: 1m}\ntimeout: 10s\n", "--target", "p50", "--reason", "the same read again and again", "--watch")
	if code != 0 || !strings.Contains(stdout, "rollout r1 of route all: promoted") {
		t.Fatalf("rollout start --watch exits %d\n%s%s", code, stdout, stderr)
	}
	for _, want := range []string{"asked for: the same read again and again", "warmed up", "promoted"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the watcher was not told %q: %s", want, stderr)
		}
	}
	for _, want := range []string{"METRIC", "  p50", "  p99", "  errors", "improved", "baseline", "candidate"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the report does not show %q: %s", want, stdout)
		}
	}
	if got := get(y.adminURL() + "/api/v1/routes"); !strings.Contains(got.body, `"cache"`) {
		t.Errorf("the candidate is not in force: %s", got.body)
	}
	s := y.status("r1")
	if s.Phase != rollout.Promoted || s.Measured.P50 >= s.Baseline.P50 {
		t.Errorf("the status is %+v", s)
	}
	f.stop()
	if n := f.failed.Load(); n > 0 {
		t.Errorf("%d calls failed: %+v", n, f.worst)
	}
	if code, _, stderr := y.cli("rollout", "watch", "r1", "--admin", y.adminURL()); code != 0 {
		t.Errorf("watching what was promoted exits %d: %s", code, stderr)
	}
}

func TestAWorseCandidateIsRolledBack(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, slow(8*time.Millisecond))))
	f := drive(t, y.url+"/", 8)
	f.more(t, 100)
	code, stdout, stderr := y.start("{try_timeout: 1ms, timeout: 10s, retry: {off: true}}", "-o", "json")
	var s rollout.Status
	if err := json.Unmarshal([]byte(stdout), &s); code != 0 || err != nil || s.ID != "r1" {
		t.Fatalf("rollout start exits %d (%v)\n%s%s", code, err, stdout, stderr)
	}
	code, stdout, stderr = y.cli("rollout", "watch", "--admin", y.adminURL())
	if code != exitThreshold || !strings.Contains(stdout, "rollout r1 of route all: rolled_back") || !strings.Contains(stderr, "longpole: error: rollout r1 of route all") {
		t.Fatalf("watch exits %d; want 99\n%s%s", code, stdout, stderr)
	}
	if got := get(y.adminURL() + "/api/v1/routes"); strings.Contains(got.body, "try_timeout") {
		t.Errorf("the candidate is still there: %s", got.body)
	}
	failed := f.failed.Load()
	f.more(t, 50)
	f.more(t, 50)
	if n := f.failed.Load() - failed; n > 8 {
		t.Errorf("%d calls failed after the rollback: %+v", n, f.worst)
	}
}

func TestRolloutsAreSteeredByHand(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, slow(time.Millisecond))))
	admin := []string{"--admin", y.adminURL()}
	cli := func(args ...string) (int, string, string) { return y.cli(append(args, admin...)...) }

	if code, stdout, stderr := cli("rollout", "list"); code != 0 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "no rollout yet") {
		t.Errorf("an empty list exits %d with %q and %q", code, stdout, stderr)
	}
	if code, stdout, _ := cli("rollout", "list", "-o", "json"); code != 0 || strings.TrimSpace(stdout) != "[]" {
		t.Errorf("an empty list exits %d with %q", code, stdout)
	}
	if code, _, stderr := cli("rollout", "get"); code != exitError || !strings.Contains(stderr, "longpole: error: there is no rollout") {
		t.Errorf("get exits %d with %q", code, stderr)
	}
	if code, _, stderr := cli("rollout", "start", "--route", "nowhere", "--to", policyFile(t, "{}")); code != exitError || !strings.Contains(stderr, "nowhere") {
		t.Errorf("a rollout of a route that is not there exits %d with %q", code, stderr)
	}
	if code, _, stderr := cli("rollout", "start", "--route", "all", "--advice", "LP103"); code != exitError || !strings.Contains(stderr, "no finding LP103") {
		t.Errorf("advice that nobody gave exits %d with %q", code, stderr)
	}

	// Without traffic it waits in its warm-up.
	if code, stdout, stderr := y.start("{timeout: 9s}"); code != 0 || !strings.Contains(stdout, "r1") {
		t.Fatalf("rollout start exits %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := y.start("{timeout: 8s}"); code != exitError || !strings.Contains(stderr, "longpole: error: the route has a rollout under way: r1") {
		t.Errorf("a second rollout of a route exits %d with %q", code, stderr)
	}
	eventually(t, "the warm-up", func() bool { return y.status("r1").Phase == rollout.Warmup })
	if code, stdout, _ := cli("rollout", "get"); code != 0 || !strings.Contains(stdout, "rollout r1 of route all: warmup") || !strings.Contains(stdout, "not judged yet") {
		t.Errorf("get exits %d with %q", code, stdout)
	}
	if code, stdout, _ := cli("rollout", "abort", "--reason", "second thoughts"); code != 0 || !strings.Contains(stdout, "aborted") || !strings.Contains(stdout, "second thoughts") {
		t.Errorf("abort exits %d with %q", code, stdout)
	}
	if code, _, stderr := cli("rollout", "watch", "r1"); code != exitAborted || !strings.Contains(stderr, "second thoughts") {
		t.Errorf("watching what was aborted exits %d with %q; want 97", code, stderr)
	}
	if code, _, stderr := cli("rollout", "abort", "r1"); code != exitError || !strings.Contains(stderr, "longpole: hint: `longpole rollout list` shows") {
		t.Errorf("a second abort exits %d with %q", code, stderr)
	}
	if code, _, stderr := cli("rollout", "get", "r77"); code != exitError || !strings.Contains(stderr, "no such rollout: r77") {
		t.Errorf("get of what is not there exits %d with %q", code, stderr)
	}

	if code, _, stderr := y.start("{timeout: 8s}"); code != 0 {
		t.Fatal(stderr)
	}
	eventually(t, "the warm-up", func() bool { return y.status("r2").Phase == rollout.Warmup })
	if code, stdout, stderr := cli("rollout", "promote"); code != 0 || !strings.Contains(stdout, "promoted") {
		t.Errorf("promote exits %d with %q %q", code, stdout, stderr)
	}
	if got := get(y.adminURL() + "/api/v1/routes"); !strings.Contains(got.body, `8s`) {
		t.Errorf("the promoted policy is not in force: %s", got.body)
	}
	code, stdout, _ := cli("rollout", "list")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[1], "r1  all") || !strings.HasPrefix(lines[2], "r2  all") {
		t.Errorf("list exits %d with\n%s", code, stdout)
	}
	if code, _, stderr := y.cli("rollout", "list", "--admin", y.url); code != exitError || !strings.Contains(stderr, "longpole: hint: ") {
		t.Errorf("the address of the data plane exits %d with %q", code, stderr)
	}
}

func TestARolloutWithoutEvidenceIsInconclusive(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, slow(time.Millisecond))))
	code, _, stderr := y.start("{timeout: 9s}", "--max-duration", "700ms", "--watch")
	if code != exitInconclusive || !strings.Contains(stderr, "longpole: error: rollout r1 of route all: inconclusive") {
		t.Errorf("exits %d with %q; want 98", code, stderr)
	}
}

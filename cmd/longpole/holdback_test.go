package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
)

// TestAnOlderChangeThatBecameHarmfulIsTakenBackAlone has two promoted changes, of which the first fails every call.
func TestAnOlderChangeThatBecameHarmfulIsTakenBackAlone(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, slow(4*time.Millisecond)))+"review: {auto_rollback: true}\n")
	f := drive(t, y.url+"/", 8)
	f.more(t, 100)
	for i, candidate := range []string{"{try_timeout: 1ms, timeout: 10s, retry: {off: true}}", "{try_timeout: 1ms, timeout: 9s, retry: {off: true}}"} {
		id := fmt.Sprintf("r%d", i+1)
		if code, _, stderr := y.start(candidate, "--holdback", "0.025"); code != 0 {
			t.Fatal(stderr)
		}
		eventually(t, "the warm-up", func() bool { return y.status(id).Phase != rollout.Pending })
		if code, _, stderr := y.cli("rollout", "promote", id, "--admin", y.adminURL(), "--reason", "no time"); code != 0 {
			t.Fatal(stderr)
		}
	}
	if _, stdout, _ := y.cli("rollout", "get", "r1", "--admin", y.adminURL()); !strings.Contains(stdout, "holdback: 2.5 % of the calls keep the policy without this change") {
		t.Errorf("r1 is shown as %s", stdout)
	}
	now := time.Now()
	eventually(t, "the first is taken back", func() bool {
		f.more(t, 600)
		now = now.Add(10 * time.Second)
		y.reviewer.look(now)
		return !y.status("r1").Undone.IsZero()
	})
	p, err := y.gateway.Policy("all")
	if err != nil || p.TryTimeout != 0 || p.Timeout != 9*time.Second || p.Retry.Off {
		t.Errorf("in force: %+v, %v", p, err)
	}
	if s := y.status("r2"); !s.Undone.IsZero() || s.Held != rollout.Held {
		t.Errorf("the second: undone %v, held %q", s.Undone, s.Held)
	}
	if code, stdout, stderr := y.cli("rollout", "release", "r2", "--reason", "known well enough", "--admin", y.adminURL()); code != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	code, stdout, stderr := y.cli("review", "-o", "json", "--admin", y.adminURL())
	var r review.Review
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || len(r.Ledger) != 2 || r.Ledger[0].Unheld != "released: known well enough" {
		t.Errorf("%d %v %s%s", code, err, stdout, stderr)
	}
	f.stop()
}

// TestAChangeTriedInTurnsIsHeldBackInTurns has a policy that fails every call, or refuses it once its breaker is open, and a change
// that mends it.
func TestAChangeTriedInTurnsIsHeldBackInTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("a turn comes within 20 s")
	}
	y := newSystem(t, config("{try_timeout: 1ms, timeout: 10s, retry: {off: true}}", newBackend(t, slow(4*time.Millisecond))))
	f := drive(t, y.url+"/", 8)
	f.more(t, 100)
	if code, _, stderr := y.start("{timeout: 10s, retry: {off: true}}", "--switchback", "2s", "--washout", "500ms", "--holdback", "0.1"); code != 0 {
		t.Fatal(stderr)
	}
	eventually(t, "the candidate", func() bool { return y.status("r1").Phase != rollout.Pending })
	if code, _, stderr := y.cli("rollout", "promote", "r1", "--admin", y.adminURL(), "--reason", "it mends all"); code != 0 {
		t.Fatal(stderr)
	}
	if _, stdout, _ := y.cli("rollout", "get", "r1", "--admin", y.adminURL()); !strings.Contains(stdout, "holdback: for 10 % of the time, 2s at a time, all calls get the policy without this change") {
		t.Errorf("r1 is shown as %s", stdout)
	}
	eventually(t, "a pair of turns", func() bool {
		with, without, err := y.rollouts.HeldInTurns("r1")
		if err != nil {
			t.Fatal(err)
		}
		if lost := without.Failed + without.Shed; without.Calls > 0 && (lost != without.Calls || with.Calls == 0 || with.Failed+with.Shed > 0) {
			t.Fatalf("%d of %d calls failed or were refused without it, %d of %d with it", lost, without.Calls, with.Failed+with.Shed, with.Calls)
		}
		return without.Calls > 0
	})
	eventually(t, "the end of the turns", func() bool { _, _, err := y.gateway.Tallies("all"); return err != nil })
	if code, stdout, stderr := y.cli("rollout", "release", "r1", "--reason", "known well enough", "--admin", y.adminURL()); code != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	if _, _, err := y.rollouts.HeldInTurns("r1"); err == nil {
		t.Error("it is held back although it was released")
	}
	f.stop()
}

func TestThePriceIsShownBesideWhatIsPaid(t *testing.T) {
	s := rollout.Status{Shed: 0.4, Calibration: &rollout.Calibration{FalseAlarmRatio: 0.01, Runs: 128, Join: 3}}
	s.Judgement.Metrics = []rollout.MetricResult{{Metric: "shed", Unit: "ratio", Candidate: 0.31}}
	var text strings.Builder
	renderEvidence(&text, s)
	for _, want := range []string{
		"price: may refuse 40 % of the calls beyond the baseline's; refuses 31 % where the baseline refuses 0 %",
		"calibration: false alarms in 1 % of 128 comparisons of the policy with itself; judged in slices of 30 s at least",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %s", want, text.String())
		}
	}
}

func TestKill9ForgetsNoHoldback(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills a gateway")
	}
	d := newDurable(t)
	for i, to := range []string{`{"cache": {"ttl": "1m"}}`, `{"cache": {"ttl": "1m"}, "timeout": "9s"}`, `{"cache": {"ttl": "1m"}, "timeout": "8s"}`} {
		id := fmt.Sprintf("r%d", i+1)
		d.ask(http.MethodPost, "/api/v1/rollouts", `{"route": "all", "to": `+to+`, "goal": "no_worse"}`, nil)
		d.reaches(id, rollout.Warmup)
		d.ask(http.MethodPost, "/api/v1/rollouts/"+id+"/promote", `{"reason": "by hand"}`, nil)
	}
	held := func() (names []string) {
		var all struct {
			Routes []struct {
				Holdbacks []struct{ Name string }
			}
		}
		d.ask(http.MethodGet, "/api/v1/routes", "", &all)
		for _, h := range all.Routes[0].Holdbacks {
			names = append(names, h.Name)
		}
		return names
	}
	for range 2 {
		if names := fmt.Sprint(held()); names != "[r1 r3]" {
			t.Errorf("held back: %s", names)
		}
		if s := d.rollout("r2"); s.Held != "superseded by r3" || strings.Count(fmt.Sprint(s.Journal), "superseded by r3") != 1 {
			t.Errorf("r2: %q, %v", s.Held, s.Journal)
		}
		d.again()
	}
}

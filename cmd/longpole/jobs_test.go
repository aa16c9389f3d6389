package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longpole/longpole/internal/offload"
)

// TestDeadLettersAreListedReplayedAndDeleted puts two calls off to a receiver that refuses them, and looks after them.
func TestDeadLettersAreListedReplayedAndDeleted(t *testing.T) {
	var healed atomic.Bool
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && !healed.Load() {
			http.Error(w, "not like this", http.StatusUnprocessableEntity)
		}
	})
	y := newSystem(t, strings.Replace(config("{}", a), "    policy: {}", "    offload: {}", 1)+"offload: {dir: "+t.TempDir()+", sync_interval: 1s}\n")
	cli := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := y.cli(append(args, "--admin", y.adminURL())...)
		if code != want {
			t.Errorf("longpole %v exits %d, want %d\n%s%s", args, code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	eventually(t, "an answer", func() bool { return get(y.url).ok() })
	ids := []string{y.putOff("/one"), y.putOff("/two")}
	var dead letters
	eventually(t, "two dead letters", func() bool {
		out, _ := cli(0, "jobs", "list", "--dead", "all", "-o", "json")
		return json.Unmarshal([]byte(out), &dead) == nil && len(dead.Letters) == 2
	})
	if out, _ := cli(0, "jobs", "list"); !strings.HasPrefix(out, "QUEUE") || !strings.Contains(out, "all") {
		t.Errorf("list: %s", out)
	}
	if out, _ := cli(0, "jobs", "list", "--dead", "all"); !strings.Contains(out, "POST /one") || !strings.Contains(out, "permanent") {
		t.Errorf("list --dead: %s", out)
	}
	if out, stderr := cli(0, "jobs", "list", "--dead", "all", "--limit", "1"); strings.Count(out, "POST /") != 1 || !strings.Contains(stderr, "--limit") {
		t.Errorf("list --limit 1: %s%s", out, stderr)
	}
	if out, _ := cli(0, "jobs", "get", ids[0]); !strings.Contains(out, "dead") || !strings.Contains(out, "not like this") || !strings.Contains(out, "POST") {
		t.Errorf("get: %s", out)
	}
	if out, _ := cli(0, "jobs", "get", ids[0], "-o", "json"); !strings.Contains(out, `"body": "work"`) {
		t.Errorf("get -o json: %s", out)
	}
	healed.Store(true)
	if out, _ := cli(0, "jobs", "replay", ids[0]); out != ids[0]+" replayed\n" {
		t.Errorf("replay: %s", out)
	}
	eventually(t, "the delivery", func() bool {
		out, _ := cli(0, "jobs", "get", ids[0])
		return strings.Contains(out, string(offload.Done))
	})
	if out, stderr := cli(exitError, "jobs", "delete", ids[1], "nosuch"); out != ids[1]+" deleted\n" || !strings.Contains(stderr, "nosuch: no such job") || !strings.Contains(stderr, "hint") {
		t.Errorf("delete: %s%s", out, stderr)
	}
	if out, _ := cli(0, "jobs", "replay", "--all", "all"); out != "0 dead letters replayed\n" {
		t.Errorf("replay --all: %s", out)
	}
	if _, stderr := cli(exitError, "jobs", "list", "--dead", "al"); !strings.Contains(stderr, "no such queue") {
		t.Errorf("an unknown queue: %s", stderr)
	}
	if _, stderr := cli(exitError, "jobs", "get", "nosuch"); !strings.Contains(stderr, "no such job") || !strings.Contains(stderr, "jobs list --dead QUEUE") {
		t.Errorf("an unknown job: %s", stderr)
	}
}

// putOff makes a call that is stored, and returns the ID of its job.
func (y *system) putOff(path string) string {
	y.t.Helper()
	resp, err := client.Post(y.url+path, "text/plain", strings.NewReader("work"))
	if err != nil {
		y.t.Fatal(err)
	}
	defer resp.Body.Close()
	var receipt struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&receipt); err != nil || resp.StatusCode != http.StatusAccepted || receipt.ID == "" {
		y.t.Fatalf("POST %s: %d %v", path, resp.StatusCode, err)
	}
	return receipt.ID
}

func TestWithoutOffloadThereAreNoQueues(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	code, out, stderr := y.cli("jobs", "list", "--admin", y.adminURL())
	if code != 0 || !strings.HasPrefix(out, "QUEUE") || !strings.Contains(stderr, "no route puts calls off") {
		t.Errorf("%d %s%s", code, out, stderr)
	}
}

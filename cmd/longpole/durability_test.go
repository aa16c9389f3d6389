package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/rollout"
)

// durable is a gateway as a process of its own, with a state folder, traffic, and an upstream that stays.
type durable struct {
	t       *testing.T
	gateway *process
	url     string
	admin   string
	state   string // folder
}

func newDurable(t *testing.T) *durable {
	t.Helper()
	up := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Duration(1+rand.IntN(4)) * time.Millisecond) // time is the subject: what the judge compares
		_, _ = io.WriteString(w, "x")
	})
	dir := t.TempDir()
	file, port, admin := durableFile(t, filepath.Join(dir, "state"), "http://"+up.address)
	d := &durable{t: t, url: "http://127.0.0.1:" + port, admin: "http://127.0.0.1:" + admin}
	d.gateway = startProcess(t, "longpole", "serve", "--config", file)
	d.state = filepath.Join(dir, "state")
	d.up()
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for range 4 {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := get(d.url + "/"); a.err != nil {
					time.Sleep(20 * time.Millisecond) // it is being killed
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); traffic.Wait() })
	return d
}

// durableFile writes a configuration with addresses of its own.
func durableFile(t *testing.T, state, upstream string) (file, port, admin string) {
	t.Helper()
	port, admin = freePort(t), freePort(t)
	file = filepath.Join(t.TempDir(), "longpole.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:%s
admin: 127.0.0.1:%s
otlp: {grpc: off, http: off}
state: {dir: %s}
upstreams: {up: {endpoints: %s}}
routes: [{name: all, upstream: up, policy: {}}]
`, port, admin, state, upstream)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, port, admin
}

func (d *durable) up() {
	d.t.Helper()
	eventually(d.t, "the gateway answers", func() bool { return get(d.url+"/").ok() && get(d.admin+"/livez").ok() })
}

// again kills the gateway as the kernel does, and starts it anew.
func (d *durable) again() {
	d.t.Helper()
	d.gateway.kill()
	d.gateway.start()
	d.up()
}

// ask makes one request to the admin side; answers other than 2xx end the test.
func (d *durable) ask(method, path, body string, into any) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.admin+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		d.t.Fatalf("%s %s: %v, %d %s", method, path, err, res.StatusCode, data)
	}
	if into != nil {
		if err := json.Unmarshal(data, into); err != nil {
			d.t.Fatalf("%v in %s", err, data)
		}
	}
}

func (d *durable) rollout(id string) (s rollout.Status) {
	d.t.Helper()
	d.ask(http.MethodGet, "/api/v1/rollouts/"+id, "", &s)
	return s
}

func (d *durable) reaches(id string, phase rollout.Phase) rollout.Status {
	d.t.Helper()
	var s rollout.Status
	eventually(d.t, "rollout "+id+" is "+string(phase), func() bool { s = d.rollout(id); return s.Phase == phase })
	return s
}

// cached reports whether the route's policy in force has a cache.
func (d *durable) cached() bool {
	d.t.Helper()
	var c struct {
		Routes []struct {
			Policy struct {
				Cache json.RawMessage `json:"cache"`
			} `json:"policy"`
		} `json:"routes"`
	}
	d.ask(http.MethodGet, "/api/v1/config", "", &c)
	return len(c.Routes[0].Policy.Cache) > 0 && string(c.Routes[0].Policy.Cache) != "null"
}

const tryCache = `{"route": "all", "to": {"cache": {"ttl": "1m"}}, "goal": "no_worse", "steps": [0.25, 0.5], "slice": "100ms", "warmup": "1s", "risk": 1, "holdback": 0}`

func TestKill9AtEveryStateOfARolloutForgetsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills a gateway six times")
	}
	d := newDurable(t)
	d.ask(http.MethodPost, "/api/v1/rollouts", tryCache, nil)
	for n, at := range []rollout.Phase{rollout.Warmup, rollout.Step, rollout.Paused} {
		if at == rollout.Paused {
			d.reaches("r1", rollout.Warmup)
			d.ask(http.MethodPost, "/api/v1/rollouts/r1/pause", `{"reason": "lunch"}`, nil)
		}
		d.reaches("r1", at)
		d.again()
		if s := d.rollout("r1"); s.Phase.Final() || s.Restarts != n+1 {
			t.Errorf("killed while %s: %s after %d restarts", at, s.Phase, s.Restarts)
		}
		if d.cached() {
			t.Errorf("killed while %s: the candidate is in force", at)
		}
	}
	d.reaches("r1", rollout.Paused) // a restart is no reason to give the candidate calls that a person took from it
	d.ask(http.MethodPost, "/api/v1/rollouts/r1/resume", `{"reason": "back"}`, nil)
	s := d.reaches("r1", rollout.Promoted)
	if text := fmt.Sprint(s.Journal); strings.Count(text, "ended in the middle") != 3 || !strings.Contains(text, "paused: lunch") {
		t.Errorf("the journal is not complete: %s", text)
	}
	d.again()
	if s := d.rollout("r1"); s.Phase != rollout.Promoted || !d.cached() {
		t.Errorf("killed when promoted: %s, in force: %v", s.Phase, d.cached())
	}
	d.ask(http.MethodPost, "/api/v1/killed", `{"parts": ["cache"], "reason": "stale prices"}`, nil)
	if d.cached() {
		t.Error("the kill switch does nothing")
	}
	d.again()
	if d.cached() {
		t.Error("what was switched off is on again")
	}
	d.ask(http.MethodPost, "/api/v1/killed", `{"reason": "prices are right"}`, nil)
	if !d.cached() {
		t.Error("what was restored is off")
	}
	d.ask(http.MethodPost, "/api/v1/rollouts/r1/undo", `{"reason": "not worth it"}`, nil)
	d.again()
	if s := d.rollout("r1"); s.Undone.IsZero() || d.cached() {
		t.Errorf("killed when undone: %v, in force: %v", s.Undone, d.cached())
	}
	var history struct {
		Series []struct {
			Points []struct{ Calls uint64 }
		}
	}
	eventually(t, "the history of before the kills", func() bool {
		d.ask(http.MethodGet, "/api/v1/history?route=all", "", &history)
		return len(history.Series) > 0 && len(history.Series[0].Points) > 0 && history.Series[0].Points[0].Calls > 0
	})
}

func TestAStateFolderThatIsInUseIsNamed(t *testing.T) {
	d := newDurable(t)
	file, _, _ := durableFile(t, d.state, "http://127.0.0.1:1")
	second := startProcess(t, "longpole", "serve", "--config", file)
	<-second.done
	log, err := os.ReadFile(second.log)
	if err != nil || !strings.Contains(string(log), "another process uses the folder") {
		t.Errorf("%v: %s", err, log)
	}
}

package web_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/web"
)

// operations is an admin side with all that an operator may turn on, or with none of it.
func operations(t *testing.T, on bool, reload func() error) http.Handler {
	t.Helper()
	cfg, err := gateway.Load("test", []byte(twoRoutes("http://127.0.0.1:9001")))
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := web.Options{
		Gateway: g, Rollouts: rollout.NewController(rollout.Options{Target: g}), Findings: func() web.Findings { return web.Findings{} },
		Dropped: func() map[string]uint64 { return nil },
	}
	if on {
		o.Schema, o.Reload, o.Profile = []byte(`{"$schema": "x"}`), reload, true
	}
	return web.New(o)
}

func ask(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = "127.0.0.1:9901"
	h.ServeHTTP(w, r)
	return w
}

func TestTheEffectiveConfigurationHasItsDefaultsSpeltOut(t *testing.T) {
	h := operations(t, false, nil)
	w := ask(h, "GET", "/api/v1/config")
	var c map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %v %s", w.Code, err, w.Body)
	}
	if c["admin"] != "127.0.0.1:9901" || c["limits"].(map[string]any)["idle_timeout"] != "2m" {
		t.Errorf("%s", w.Body)
	}
	file := ask(h, "GET", "/api/v1/config?format=yaml").Body.Bytes()
	if _, err := gateway.Load("written", file); err != nil {
		t.Errorf("what the gateway writes it does not read: %v\n%s", err, file)
	}
}

func TestReloadOverTheAPI(t *testing.T) {
	fails := errors.New("longpole.yaml:3:1: unknown field")
	h := operations(t, true, func() error { return fails })
	if w := ask(h, "POST", "/-/reload"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "unknown field") {
		t.Errorf("a bad file: %d %s", w.Code, w.Body)
	}
	fails = nil
	if w := ask(h, "POST", "/-/reload"); w.Code != http.StatusOK {
		t.Errorf("a good file: %d %s", w.Code, w.Body)
	}
}

func TestWhatIsNotTurnedOnIsNotThere(t *testing.T) {
	on, off := operations(t, true, func() error { return nil }), operations(t, false, nil)
	for _, c := range []struct{ method, path string }{
		{"GET", "/schema.json"}, {"POST", "/-/reload"}, {"GET", "/debug/pprof/"}, {"GET", "/debug/pprof/symbol"},
	} {
		if w := ask(on, c.method, c.path); w.Code != http.StatusOK {
			t.Errorf("on: %s is %d", c.path, w.Code)
		}
		if w := ask(off, c.method, c.path); w.Code == http.StatusOK {
			t.Errorf("off: %s is there", c.path)
		}
	}
}

func TestOverloadIsShown(t *testing.T) {
	w := ask(operations(t, false, nil), "GET", "/api/v1/overload")
	var o struct {
		Overload struct{ Shed map[string]uint64 }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || len(o.Overload.Shed) != 6 {
		t.Errorf("%v %s", err, w.Body)
	}
	metrics := ask(operations(t, false, nil), "GET", "/metrics").Body.String()
	for _, name := range []string{"longpole_overload_pressure_ratio", `longpole_overload_shed_total{priority="critical"}`, "longpole_unrouted_total", "longpole_draining"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("%s is not among the metrics", name)
		}
	}
}

func TestWhatStandsBesideTheRoutesIsShown(t *testing.T) {
	f := everything(t)
	f.do(http.MethodGet, "/api/v1/certificates", "").want(http.StatusOK, `"certificates":[]`)
	d := f.do(http.MethodGet, "/api/v1/discovery", "").want(http.StatusOK)
	if got := d.json("upstreams", 0, "upstream"); got != "found" {
		t.Errorf("discovery shows %v", got)
	}
	if got := f.do(http.MethodGet, "/api/v1/jobs", "").json("queues", 0, "queue"); got != "later" {
		t.Errorf("jobs shows the queue %v", got)
	}
	f.do(http.MethodGet, "/api/v1/jobs/nosuch", "").want(http.StatusNotFound, "no such job")
	f.do(http.MethodGet, "/api/v1/jobs/dead?queue=later", "").want(http.StatusOK, `"letters":[]`)
	f.do(http.MethodGet, "/api/v1/jobs/dead?queue=never", "").want(http.StatusNotFound, "no such queue")
	f.do(http.MethodGet, "/api/v1/jobs/dead/nosuch", "").want(http.StatusNotFound)
	f.do(http.MethodPost, "/api/v1/jobs/dead/nosuch/replay", "").want(http.StatusNotFound)
	f.do(http.MethodDelete, "/api/v1/jobs/dead/nosuch", "").want(http.StatusNotFound)
	f.do(http.MethodPost, "/api/v1/jobs/dead/replay?queue=later", "").want(http.StatusOK, `"replayed":0`)
	f.do(http.MethodPost, "/api/v1/faults", smallFault, "Sec-Fetch-Site", "cross-site").want(http.StatusForbidden)
	f.do(http.MethodGet, "/api/v1/nothing", "").want(http.StatusNotFound, "jobs")
}

func TestWithoutOffloadThereAreNoJobs(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.do(http.MethodGet, "/api/v1/jobs", "").want(http.StatusOK, `"queues":[]`)
	f.do(http.MethodGet, "/api/v1/jobs/dead?queue=orders", "").want(http.StatusNotFound)
}

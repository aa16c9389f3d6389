package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/trace"
)

// poolPage is the metrics of a process whose pool is empty, and its profiles.
func poolPage(t *testing.T) string {
	t.Helper()
	var looks atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		n := looks.Add(1)
		fmt.Fprintf(w, "go_sql_max_open_connections{db_name=\"main\"} 4\ngo_sql_in_use_connections{db_name=\"main\"} 4\ngo_sql_wait_count_total{db_name=\"main\"} %d\ngo_sql_wait_duration_seconds_total{db_name=\"main\"} %d\n", 10*n, 2*n)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// TestProbeWritesFactsThatDiagnoseReads: from a file of settings and from flags, through the commands.
func TestProbeWritesFactsThatDiagnoseReads(t *testing.T) {
	url := poolPage(t)
	dir := t.TempDir()
	settings := filepath.Join(dir, "evidence.yaml")
	if err := os.WriteFile(settings, []byte("profiles:\n  - {service: shop, url: "+url+"/debug/pprof, kinds: [heap, goroutine]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"json", "text"} {
		var out, said bytes.Buffer
		code := run(t.Context(), []string{"probe", "--config", settings, "--metrics", "shop=" + url + "/metrics", "--redis", "127.0.0.1:1", "--for", "1s", "-o", tool}, strings.NewReader(""), &out, &said)
		if code != 0 || !strings.Contains(said.String(), "warning: redis 127.0.0.1:1") {
			t.Fatalf("exit %d: %s", code, said.String())
		}
		if tool == "text" {
			for _, want := range []string{"Service shop", "pool main: 4 of 4 in use, 1 wait, mean wait 200ms", "goroutine profile", "Not seen: redis 127.0.0.1:1"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the text does not say %q:\n%s", want, out.String())
				}
			}
			continue
		}
		file := filepath.Join(dir, "facts.json")
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		facts, err := readFacts(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(facts)
		if err != nil || len(facts.Services) != 1 || len(facts.Services[0].Profiles) != 2 || len(facts.Services[0].Pools) != 1 || !facts.Services[0].Pools[0].Exhausted() {
			t.Errorf("%s, %v", again, err)
		}
	}
}

// TestTheGatewaysFileNamesWhatIsProbed: the section evidence of a whole configuration, with its faults in their lines.
func TestTheGatewaysFileNamesWhatIsProbed(t *testing.T) {
	const rest = "upstreams: {a: {endpoints: [http://127.0.0.1:1]}}\nroutes: [{name: all, match: {path: /}, upstream: a}]\n"
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "longpole.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := evidenceOf(write(rest + "evidence:\n  redis: [{address: 'cache:6379', password: secret}]\n"))
	if err != nil || len(c.Redis) != 1 || c.Redis[0].Address != "cache:6379" || c.Redis[0].Timeout != time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	if shown := c.WithoutSecrets(); shown.Redis[0].Password != "hidden" || c.Redis[0].Password != "secret" {
		t.Errorf("shown %+v", shown)
	}
	for text, want := range map[string]string{
		rest: "no section evidence",
		rest + "evidence:\n  redis: [{address: cache}]\n": "evidence.redis[0].address",
		"redis: [{address: cache}]\n":                     "redis[0].address",
		"tables: 3\n":                                     "tables",
	} {
		if _, err := evidenceOf(write(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestLiveEvidenceFollowsTheConfiguration: off, on with a source that fails, and off again after a reload.
func TestLiveEvidenceFollowsTheConfiguration(t *testing.T) {
	url := poolPage(t)
	var mu sync.Mutex
	var now *probe.Config
	set := func(c *probe.Config) {
		mu.Lock()
		defer mu.Unlock()
		now = c
	}
	g := newGatherer(func() *probe.Config { mu.Lock(); defer mu.Unlock(); return now },
		func(time.Time, time.Duration) []trace.Trace { return nil }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s: %+v", what, g.Status())
			}
		}
	}
	until("off", func() bool { return g.Status() == nil })
	budget := probe.Budget{MinInterval: time.Second}
	set(&probe.Config{Every: 10 * time.Second, Metrics: []probe.MetricsConfig{{Service: "shop", URLs: []string{url + "/metrics"}, Budget: budget}}, Redis: []probe.RedisConfig{{Address: "127.0.0.1:1"}}})
	until("on", func() bool { return len(g.Facts().Services) == 1 })
	if f := g.Facts(); !f.Services[0].Pools[0].Exhausted() || len(f.Gaps) == 0 {
		t.Errorf("%+v", f)
	}
	for _, s := range g.Status() {
		if failed := s.Fault != ""; failed != (s.Kind == "redis") {
			t.Errorf("%+v", s)
		}
	}
	set(nil)
	until("off again", func() bool { return g.Status() == nil && g.Facts().To.IsZero() })
	cfg, err := gateway.Load("smallest", []byte("upstreams: {up: {endpoints: http://127.0.0.1:1}}\nroutes: [{name: all, upstream: up}]\n"))
	if err != nil || cfg.Evidence != nil {
		t.Errorf("evidence is not off by default: %+v, %v", cfg.Evidence, err)
	}
}

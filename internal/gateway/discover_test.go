package gateway

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/httppolicy"
)

func TestEndpointsHaveWeightsAndZones(t *testing.T) {
	c, err := Load("f", []byte(strings.Replace(smallest, "[http://127.0.0.1:9001, http://127.0.0.1:9002]", "[http://a:1, {url: 'http://b:1', weight: 3, zone: eu-1}]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := g.upstreams["orders"].set.Find("b:1")
	if e.Weight() != 3 || e.Zone() != "eu-1" || g.upstreams["orders"].set.Find("a:1").Weight() != 1 {
		t.Errorf("weight %v, zone %q", e.Weight(), e.Zone())
	}
	for text, want := range map[string]string{
		"[{url: 'http://b:1', weight: -1}]": "upstreams.orders.endpoints[0].weight", "[{weight: 1}]": "upstreams.orders.endpoints[0].url",
		"[http://a:1]\n    tls: {server_name: x}":         "upstreams.orders.tls",
		"[http://a:1]\n    probe: {path: load}":           "upstreams.orders.probe.path",
		"[]\n    discover: {}":                            "upstreams.orders.discover",
		"[]\n    discover: {dns: {name: a, port: 70000}}": "upstreams.orders.discover.dns.port",
	} {
		_, err := Load("f", []byte(strings.Replace(smallest, "[http://127.0.0.1:9001, http://127.0.0.1:9002]", text, 1)))
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s: %v; want a fault at %s", text, err, want)
		}
	}
}

func TestAnUpstreamFollowsItsDiscovery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+".new", time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		release := make(chan struct{})
		var sick atomic.Bool
		for _, name := range []string{"a:1", "b:1", "c:1"} {
			n.serve(t, name, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/healthz" && name == "c:1" && sick.Load():
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				case r.URL.Path == "/slow":
					<-release
				}
				_, _ = io.WriteString(w, name)
			})
		}
		g := n.start(t, `
listen: gw:80
admin: off
otlp: {grpc: off, http: off}
upstreams: {a: {endpoints: http://a:1, health: {path: /healthz}, discover: {file: {path: '`+path+`'}}}}
routes: [{name: all, upstream: a}]
`, nil)
		get := func(path string) string {
			res, err := n.client(t).Get("http://gw:80" + path)
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			return string(body)
		}
		served := func() string {
			seen := make(map[string]bool)
			for range 60 {
				seen[get("/")] = true
			}
			var all []string
			for _, name := range []string{"a:1", "b:1", "c:1"} {
				if seen[name] {
					all = append(all, name)
				}
				delete(seen, name)
			}
			return strings.Join(all, " ") + fmt.Sprint(len(seen))
		}
		expect := func(what, want string) {
			t.Helper()
			if got := served(); got != want+"0" {
				t.Errorf("%s: %s", what, got)
			}
		}
		expect("to begin with", "a:1")
		slow := make(chan string, 1)
		go func() { slow <- get("/slow") }()
		synctest.Wait()
		write("[http://b:1, http://c:1]")
		time.Sleep(2 * time.Second)
		expect("found", "b:1 c:1")
		close(release)
		if got := <-slow; got != "a:1" {
			t.Errorf("the call at the endpoint that left: %s", got)
		}
		sick.Store(true)
		time.Sleep(5 * time.Second)
		expect("one that was found is checked", "b:1")
		sick.Store(false)
		time.Sleep(5 * time.Second)
		if err := g.Reload(g.Config()); err != nil {
			t.Fatal(err)
		}
		expect("after a reload", "b:1 c:1")
		write("[]")
		time.Sleep(30 * time.Second)
		expect("an empty set is not believed at once", "b:1 c:1")
		write("[{url: 'http://c:1', weight: 2}]")
		time.Sleep(2 * time.Second)
		expect("found again", "c:1")
		if got := g.Routes()[0].Endpoints; len(got) != 1 || got[0].Name != "c:1" {
			t.Errorf("status %+v", got)
		}
	})
}

func TestPrequalAsksEndpointsForTheirLoad(t *testing.T) {
	for _, probe := range []string{"", "probe: {path: /load}, "} {
		path := httppolicy.ProbePath
		if probe != "" {
			path = "/load"
		}
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			var calls, probes [2]atomic.Int32
			for i, load := range []balance.Load{{RIF: 500, Latency: time.Second}, {RIF: 1, Latency: time.Millisecond}} {
				n.serve(t, fmt.Sprintf("up:%d", i+1), func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set(httppolicy.HeaderLoad, load.String())
					if r.URL.Path == path {
						probes[i].Add(1)
						w.WriteHeader(http.StatusNoContent)
						return
					}
					calls[i].Add(1)
				})
			}
			n.start(t, `
listen: gw:80
admin: off
otlp: {grpc: off, http: off}
upstreams: {a: {`+probe+`endpoints: [http://up:1, http://up:2]}}
routes: [{name: all, upstream: a, policy: {balance: {algorithm: prequal}}}]
`, nil)
			client := n.client(t)
			for range 200 {
				res, err := client.Get("http://gw:80/")
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				synctest.Wait()
			}
			if probes[0].Load() == 0 || probes[1].Load() == 0 {
				t.Errorf("probes %v, %v", probes[0].Load(), probes[1].Load())
			}
			if busy := calls[0].Load(); busy > 20 {
				t.Errorf("the busy one got %d of 200 calls", busy)
			}
		})
	}
}

func TestALoadIsReadFromAnAnswer(t *testing.T) {
	want := balance.Load{RIF: 3, Latency: 1250 * time.Microsecond}
	got, ok := (&exchange{}).Load(&http.Response{Header: http.Header{httppolicy.HeaderLoad: {want.String()}}})
	if d := cmp.Diff(want, got); d != "" || !ok {
		t.Error(d, ok)
	}
	if _, ok := (&exchange{}).Load(&http.Response{Header: http.Header{}}); ok {
		t.Error("a load out of nothing")
	}
}

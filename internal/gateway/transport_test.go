package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnUpstreamIsSpokenToInItsProtocol(t *testing.T) {
	said := func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto) }
	both := httptest.NewUnstartedServer(http.HandlerFunc(said))
	both.Config.Protocols = new(http.Protocols)
	both.Config.Protocols.SetHTTP1(true)
	both.Config.Protocols.SetUnencryptedHTTP2(true)
	both.Start()
	defer both.Close()
	tls := httptest.NewUnstartedServer(http.HandlerFunc(said))
	tls.EnableHTTP2 = true
	tls.StartTLS()
	defer tls.Close()
	for _, tt := range []struct{ protocol, url, want string }{
		{"auto", both.URL, "HTTP/1.1"},
		{"http1", both.URL, "HTTP/1.1"},
		{"h2c", both.URL, "HTTP/2.0"},
		{"auto", tls.URL, "HTTP/2.0"},
		{"http1", tls.URL, "HTTP/1.1"},
		{"h2", tls.URL, "HTTP/2.0"},
	} {
		c := load(t, fmt.Sprintf("listen: 127.0.0.1:0\nupstreams: {up: {protocol: %s, endpoints: ['%s']}}\nroutes:\n- {name: all, upstream: up}\n", tt.protocol, tt.url))
		g, err := New(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if tls.URL == tt.url {
			trusting(g, "up", tls.Certificate())
		}
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 200 || w.Body.String() != tt.want {
			t.Errorf("%s %s: %d %s", tt.protocol, tt.url, w.Code, w.Body)
		}
		g.roads.close()
	}
}

func TestAProtocolMustFitItsEndpoints(t *testing.T) {
	for _, text := range []string{"{protocol: h2, endpoints: ['http://a:1']}", "{protocol: h2c, endpoints: ['https://a:1']}", "{protocol: h3, endpoints: ['https://a:1']}"} {
		_, err := Load("f", []byte("upstreams: {up: "+text+"}\nroutes:\n- {name: all, upstream: up}\n"))
		if err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestConnectionsOutliveAReloadThatDoesNotConcernThem(t *testing.T) {
	g, err := New(load(t, one("{}", "http://a:1")), Options{})
	if err != nil {
		t.Fatal(err)
	}
	u := g.upstreams["up"]
	first := g.road(u)
	if err := g.Reload(load(t, one("{}", "http://a:1", "http://b:1"))); err != nil {
		t.Fatal(err)
	}
	if second := g.road(u); second == first || second.pools != first.pools {
		t.Error("another endpoint made other pools")
	}
	c := load(t, strings.Replace(one("{}", "http://a:1"), "{endpoints", "{protocol: h2c, endpoints", 1))
	if err := g.Reload(c); err != nil {
		t.Fatal(err)
	}
	if g.road(u).pools == first.pools {
		t.Error("another protocol kept the pools")
	}
}

// TestAnAnswerThatWasCutOffDoesNotPoisonItsConnection has attempts lose, time out and be left while their answers are on
// their way: no later call may see a byte of them.
func TestAnAnswerThatWasCutOffDoesNotPoisonItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		calls := 0
		for _, name := range []string{"a:1", "b:1"} {
			n.serve(t, name, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				calls++
				slow := calls%3 == 0
				mu.Unlock()
				if slow {
					time.Sleep(60 * time.Millisecond)
				}
				_, _ = io.WriteString(w, r.URL.Path)
				_ = http.NewResponseController(w).Flush()
				if slow {
					time.Sleep(200 * time.Millisecond)
				}
				_, _ = io.WriteString(w, r.URL.Path)
			})
		}
		n.start(t, one("{timeout: 150ms, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 20ms, budget_ratio: 100%}}, breaker: {off: true}}", "http://a:1", "http://b:1"), nil)
		c := n.client(t)
		for i := range 200 {
			path := fmt.Sprintf("/%d", i)
			if got := get(t, c, "http://gw:80"+path); got.err == nil && got.status == 200 && got.body != path+path {
				t.Fatalf("%s was answered with %q", path, got.body)
			}
		}
	})
}

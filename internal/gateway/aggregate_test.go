package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const page = `
listen: gw:80
upstreams: {users: {endpoints: ["http://a:1"]}, orders: {endpoints: ["http://b:1"]}}
routes:
- name: page
  match: {path: /page}
  policy: {retry: {off: true}}
  aggregate:
    mode: MODE
    timeout: 2s
    bytes: 1KiB
    parts:
    - {name: user, upstream: users, path: "/users/{segment.2}"}
    - {name: orders, upstream: orders, path: "/orders?of={segment.2}&page={query.page}", policy: {timeout: 500ms, retry: {off: true}}}
`

// shop runs both upstreams and a gateway before them.
func shop(t *testing.T, mode string, users, orders http.HandlerFunc, spans func([]trace.Span)) (*Gateway, *http.Client) {
	t.Helper()
	n := newNetwork()
	n.serve(t, "a:1", users)
	n.serve(t, "b:1", orders)
	g := n.start(t, strings.Replace(page, "MODE", mode, 1), spans)
	return g, n.client(t)
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestPartsAreAskedAtTheSameTimeAndMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []*http.Request
		slow := func(body string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				seen = append(seen, r)
				mu.Unlock()
				time.Sleep(300 * time.Millisecond)
				_, _ = w.Write([]byte(body))
			}
		}
		var spans collector
		_, c := shop(t, "first_error", slow(`{"name":"Ann"}`), slow(" [1, 2]\n"), spans.add)
		a := get(t, c, "http://gw:80/page/7%2F8?page=2", "Authorization", "Bearer t", "Accept-Encoding", "gzip", "If-None-Match", `"x"`)
		if a.status != 200 || a.body != `{"user":{"name":"Ann"},"orders":[1, 2]}`+"\n" || a.header.Get("Content-Type") != "application/json" ||
			a.header.Get("X-Longpole-Parts") != "user=200, orders=200" || a.header.Get("X-Longpole-Partial") != "" {
			t.Fatalf("%+v", a)
		}
		if a.took != 300*time.Millisecond {
			t.Error(a.took)
		}
		for _, r := range seen {
			want := map[string]string{"a:1": "/users/7%2F8", "b:1": "/orders?of=7%2F8&page=2"}
			if r.RequestURI != want["a:1"] && r.RequestURI != want["b:1"] || r.Header.Get("Authorization") != "Bearer t" || r.Header.Get("Accept") != "application/json" ||
				r.Header.Get("Accept-Encoding") != "" || r.Header.Get("If-None-Match") != "" || r.Method != http.MethodGet {
				t.Errorf("%s %v", r.RequestURI, r.Header)
			}
		}
		if h := do(c, request(t, http.MethodHead, "http://gw:80/page/7?page=1", nil)); h.status != 200 || h.body != "" || h.header.Get("Content-Length") == "0" {
			t.Errorf("%+v", h)
		}
		synctest.Wait()
		servers, inner, clients := map[string]bool{}, map[string]bool{}, 0
		for _, s := range spans.all() {
			switch s.Kind {
			case trace.Server:
				servers[s.ID] = true
			case trace.Internal:
				inner[s.ID] = servers[s.Parent] || s.Parent != ""
			case trace.Client:
				clients++
			}
		}
		if len(servers) != 2 || len(inner) != 4 || clients != 4 {
			t.Error(len(servers), len(inner), clients, "spans")
		}
	})
}

func TestAPartThatFails(t *testing.T) {
	late := func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }
	torn := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`{"a":`))
	}
	packed := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte(`{}`))
	}
	for _, tt := range []struct {
		name   string
		orders http.HandlerFunc
		status int    // of the whole, with first_error
		part   int    // as it is told of
		reason string // as it is told of
	}{
		{"an error", says(500, "oops"), 502, 500, "status"},
		{"unavailable", says(503, ""), 503, 503, "status"},
		{"not there", says(404, "{}"), 404, 404, "status"},
		{"elsewhere", says(302, ""), 502, 302, "status"},
		{"no JSON", says(200, "<html>"), 502, 200, "not_json"},
		{"nothing", says(200, ""), 502, 200, "not_json"},
		{"two values", says(200, "{}{}"), 502, 200, "not_json"},
		{"too long", says(200, `"`+strings.Repeat("x", 2000)+`"`), 502, 200, "answer_too_large"},
		{"torn", torn, 502, 200, "upstream_error"},
		{"packed", packed, 502, 200, "encoded"},
		{"late", late, 504, 504, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, mode := range []string{modeFirstError, modeBestEffort} {
				synctest.Test(t, func(t *testing.T) {
					_, c := shop(t, mode, says(200, `{"name":"Ann"}`), tt.orders, nil)
					a := get(t, c, "http://gw:80/page/7?page=2")
					if mode == modeFirstError {
						if a.status != tt.status || a.header.Get("X-Longpole-Error") != "part_failed" || !strings.Contains(a.body, "part orders") {
							t.Errorf("%s: %+v", mode, a)
						}
						return
					}
					var body struct {
						User   map[string]string
						Orders any
						Errors map[string]struct {
							Status int
							Reason string
						}
					}
					if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != 200 || body.User["name"] != "Ann" || body.Orders != nil ||
						a.header.Get("X-Longpole-Partial") != "orders" || a.header.Get("Cache-Control") != "no-store" {
						t.Errorf("%s: %+v, %v", mode, a, err)
					}
					if e := body.Errors["orders"]; e.Status != tt.part || e.Reason != tt.reason {
						t.Errorf("%s: %+v", mode, e)
					}
				})
			}
		})
	}
}

func TestAnAggregateThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		count := func(http.ResponseWriter, *http.Request) { calls.Add(1) }
		_, c := shop(t, modeBestEffort, count, count, nil)
		for _, tt := range []struct {
			method, path string
			status       int
		}{
			{"GET", "/page/7", 400}, {"GET", "/page?page=1", 400}, {"POST", "/page/7?page=1", 405},
		} {
			if a := do(c, request(t, tt.method, "http://gw:80"+tt.path, nil)); a.status != tt.status {
				t.Errorf("%s %s: %+v", tt.method, tt.path, a)
			}
		}
		if n := calls.Load(); n != 0 {
			t.Error(n, "calls for nothing")
		}
		if a := get(t, c, "http://gw:80/page/7?page=1"); a.status != 502 || calls.Load() != 2 {
			t.Errorf("all parts failed: %+v", a)
		}
	})
}

func TestPartsKeepWhatTheyLearnedThroughAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := shop(t, modeFirstError, says(200, "1"), says(200, "2"), nil)
		get(t, c, "http://gw:80/page/7?page=1")
		before := g.table.Load().byName["page#orders"].live
		if err := g.Reload(load(t, strings.Replace(page, "MODE", modeBestEffort, 1))); err != nil {
			t.Fatal(err)
		}
		if after := g.table.Load().byName["page#orders"].live; after != before || after.figures.total.calls.Load() != 1 {
			t.Error("the part begins anew")
		}
		if a := get(t, c, "http://gw:80/page/7?page=1"); a.body != `{"user":1,"orders":2}`+"\n" {
			t.Error(a)
		}
	})
}

func TestAPartIsAskedEvenIfAReloadTookItAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", answering(`{}`))
		file := `
listen: gw:80
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: page, match: {path: /page}, upstream: up, aggregate: {parts: [{name: user, path: /user}]}}
- {name: rest, upstream: up}
`
		g := n.start(t, file, nil)
		old := g.table.Load()
		if err := g.Reload(load(t, strings.Replace(file, "{name: page,", "{name: other,", 1))); err != nil {
			t.Fatal(err)
		}
		w := &captured{head: make(http.Header), limit: 1 << 10}
		r := innerRequest(t.Context(), http.MethodGet, &http.Request{Host: "gw:80"})
		r.URL, r.Header = request(t, http.MethodGet, "http://gw:80/page", nil).URL, http.Header{}
		v := &visit{g: g, w: w, r: r, route: old.byName["page"], start: time.Now()}
		v.draw()
		v.run()
		if w.status != 200 || w.body.String() != "{\"user\":{}}\n" {
			t.Errorf("%d %s", w.status, &w.body)
		}
	})
}

package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/conf"
)

// everyRoute has a route of each kind.
const everyRoute = `
listen: gw:80
trust: [10.0.0.0/8, "::1"]
upstreams:
  v1: {endpoints: http://a:1}
  v2: {endpoints: http://b:1/base}
routes:
- {name: moved, match: {exact: /old}, redirect: {to: "/new", status: 301}}
- {name: secure, match: {host: secure.example}, redirect: {https: true}}
- {name: user, match: {pattern: "/out/{user}/{rest...}"}, redirect: {to: "https://{user}.example.com/{rest}", status: 307}}
- {name: ok, match: {exact: /ok}, static: {header: {X-Kind: static}, body: "{\"ok\":true}"}, answer_header: {set: {X-From: "{request.host}"}}}
- {name: gone, match: {path: /gone}, static: {status: 410}}
- name: beta
  match: {path: /api, header: {name: X-Beta, exact: "1"}}
  upstream: v2
  rewrite: {strip_prefix: /api}
- name: orders
  match: {pattern: "/users/{id}/orders/{rest...}", method: [GET, POST]}
  upstream: v2
  rewrite: {path: "/o/{rest}", host: "{id}.internal", set_query: {user: "{id}"}, remove_query: [debug]}
  request_header: {set: {X-User: "{id}"}, add: {X-Tag: a}, remove: [X-Secret]}
  answer_header: {set: {Strict-Transport-Security: max-age=1}, remove: [Server-Version]}
- {name: q, match: {path: /search, query: [{name: v, prefix: "2"}]}, upstream: v2, priority: background}
- name: all
  split: [{upstream: v1, weight: 95}, {upstream: v2, weight: 5}]
  sticky: {cookie: session}
  priority: {header: X-Tier, default: normal, values: {gold: critical, batch: background}}
  tenant: {header: X-Tenant}
`

// asked answers with what it was asked for.
func asked(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server-Version", "7")
		_, _ = fmt.Fprintf(w, "%s %s %s%s user=%s tags=%s secret=%s priority=%s", name, r.Method, r.Host, r.RequestURI,
			r.Header.Get("X-User"), strings.Join(r.Header["X-Tag"], "+"), r.Header.Get("X-Secret"), r.Header.Get("X-Request-Priority"))
	}
}

// anyHost is a client for which every host is the gateway.
func (n *network) anyHost(t *testing.T) *http.Client {
	c := n.client(t)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return n.dial(ctx, network, "gw:80") }
	return c
}

func TestRoutesAnswerOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", asked("a"))
		n.serve(t, "b:1", asked("b"))
		g := n.start(t, everyRoute, nil)
		if err := g.Split("all", map[string]int{"v2": 0}); err != nil {
			t.Fatal(err)
		}
		c := n.anyHost(t)
		tests := []struct {
			name   string
			url    string
			header []string
			status int
			where  string // Location
			body   string
		}{
			{name: "redirect", url: "http://h/old?a=b", status: 301, where: "/new?a=b"},
			{name: "to https", url: "http://secure.example:80/x%2Fy?q", status: 308, where: "https://secure.example/x%2Fy?q"},
			{name: "redirect with captures", url: "http://h/out/ann/a/b", status: 307, where: "https://ann.example.com/a/b"},
			{name: "redirect that names no host", url: "http://h/out/a@b/", status: 400},
			{name: "static", url: "http://h/ok", status: 200, body: `{"ok":true}`},
			{name: "static without body", url: "http://h/gone/x", status: 410},
			{name: "header", url: "http://h/api/x%2Fy?a=1", header: []string{"X-Beta", "1"}, status: 200, body: "b GET h/base/x%2Fy?a=1 user= tags= secret= priority="},
			{name: "without the header", url: "http://h/api/x", status: 200, body: "a GET h/api/x user= tags= secret= priority=normal"},
			{name: "rewrite", url: "http://h/users/7%2F8/orders/9/a%20b?debug=1&x=%31", header: []string{"X-Secret", "s", "X-Tag", "c", "X-User", "forged"}, status: 400},
			{name: "rewrite with a host", url: "http://h/users/78/orders/9/a%20b?debug=1&x=%31", header: []string{"X-Secret", "s", "X-Tag", "c", "X-User", "forged"}, status: 200, body: "b GET 78.internal/base/o/9/a%20b?x=%31&user=78 user=78 tags=c+a secret= priority="},
			{name: "an encoded slash parts nothing", url: "http://h/users%2F7/orders/9", status: 200, body: "a GET h/users%2F7/orders/9 user= tags= secret= priority=normal"},
			{name: "query", url: "http://h/search?v=21", status: 200, body: "b GET h/base/search?v=21 user= tags= secret= priority=background"},
			{name: "other query", url: "http://h/search?v=1", status: 200, body: "a GET h/search?v=1 user= tags= secret= priority=normal"},
		}
		for _, tt := range tests {
			got := get(t, c, tt.url, tt.header...)
			got.body, _, _ = strings.Cut(got.body, ";cohort")
			if got.err != nil || got.status != tt.status || got.header.Get("Location") != tt.where || tt.body != "" && got.body != tt.body {
				t.Errorf("%s: %d %q %q %v", tt.name, got.status, got.header.Get("Location"), got.body, got.err)
			}
			if id := tt.name == "rewrite with a host"; id != (got.header.Get("Strict-Transport-Security") != "") || id && got.header.Get("Server-Version") != "" {
				t.Errorf("%s: header %v", tt.name, got.header)
			}
		}
		head := do(c, request(t, http.MethodHead, "http://h/ok", nil))
		if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != "11" || head.header.Get("X-From") != "h" || head.header.Get("X-Kind") != "static" {
			t.Errorf("HEAD gives %+v", head)
		}
	})
}

func TestRoutesWithoutUpstreamAreEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", asked("a"))
		n.serve(t, "b:1", asked("b"))
		var spans collector
		g := n.start(t, everyRoute, spans.add)
		get(t, n.client(t), "http://gw:80/ok")
		synctest.Wait()
		s := g.Routes()[3]
		if s.Name != "ok" || s.Action != "static" || s.Calls != 1 || string(s.Policy) != "null" || len(s.Endpoints) != 0 || s.Classes["ok"] != 1 {
			t.Errorf("status is %+v", s)
		}
		if all := spans.all(); len(all) != 1 || all[0].Name != "ok" || all[0].Attr("http.route") != "/ok" {
			t.Errorf("spans are %+v", all)
		}
		_, err := g.Policy("ok")
		for name, err := range map[string]error{"policy": err, "stage": g.Stage("ok", load(t, everyRoute).Routes[8].Policy), "promote": g.Promote("ok"), "weight": g.Weight("ok", 0.1)} {
			if err == nil || !strings.Contains(err.Error(), "answers by itself") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := g.Discard("ok"); err != nil {
			t.Errorf("nothing to discard: %v", err)
		}
		// A reload turns a route of one kind into another, and keeps its figures.
		file := strings.Replace(everyRoute, `static: {header: {X-Kind: static}, body: "{\"ok\":true}"}`, "upstream: v1", 1)
		for _, next := range []string{file, everyRoute, file} {
			if err := g.Reload(load(t, next)); err != nil {
				t.Fatal(err)
			}
			if got := get(t, n.client(t), "http://gw:80/ok"); got.status != 200 || got.err != nil {
				t.Errorf("after a reload: %+v", got)
			}
		}
		if s := g.Routes()[3]; s.Calls != 4 || s.Action != "upstream" || len(s.Endpoints) != 1 {
			t.Errorf("status is %+v", s)
		}
		text, err := json.Marshal(g.Routes())
		if err != nil || !strings.Contains(string(text), `"priority":"background"`) || !strings.Contains(string(text), `"tenant":"header X-Tenant"`) {
			t.Errorf("%v: %s", err, text)
		}
	})
}

func TestTheEffectiveConfigurationHasWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		g := n.start(t, everyRoute, nil)
		p, err := g.Policy("all")
		if err != nil {
			t.Fatal(err)
		}
		p.Timeout = 7e9
		if err := slices.MaxFunc([]error{g.Stage("all", p), g.Promote("all"), g.Split("all", map[string]int{"v1": 1, "v2": 2})}, func(a, b error) int {
			if a != nil {
				return 1
			}
			return -1
		}); err != nil {
			t.Fatal(err)
		}
		text, err := conf.Marshal(g.Effective())
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load("effective", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		all := c.Routes[8]
		if all.Policy.Timeout != 7e9 || all.Split[0].Weight != 1 || all.Split[1].Weight != 2 || all.Priority.Values["gold"] != 2 || c.Routes[1].Match.Scheme != "http" {
			t.Errorf("got %+v", all)
		}
		if d := cmp.Diff(c, g.Effective()); d != "" {
			t.Error(d)
		}
		if g.Config().Routes[8].Policy.Timeout == 7e9 {
			t.Error("the configuration of the file has changed")
		}
	})
}

func TestFaultyRoutesAreRefusedWithTheirPlace(t *testing.T) {
	const frame = "listen: gw:80\nupstreams: {v1: {endpoints: http://a:1}, v2: {endpoints: http://b:1}}\nroutes:\n- {name: r, %s}\n"
	for _, c := range []struct{ route, want string }{
		{"match: {path: /}", "routes[0].upstream"},
		{"upstream: v1, static: {}", "routes[0].static"},
		{"split: [{upstream: v1, weight: 1}, {upstream: v3, weight: 1}]", "routes[0].split[1].upstream"},
		{"split: [{upstream: v1, weight: 1}, {upstream: v1, weight: 1}]", "routes[0].split[1].upstream"},
		{"split: [{upstream: v1}, {upstream: v2}]", "routes[0].split"},
		{"split: [{upstream: v1, weight: -1}, {upstream: v2, weight: 2}]", "routes[0].split[0].weight"},
		{"redirect: {to: /x}, sticky: {cookie: c}", "routes[0].sticky"},
		{"static: {}, policy: {timeout: 1s}", "routes[0].policy"},
		{"static: {}, rewrite: {path: /x}", "routes[0].rewrite"},
		{"static: {}, request_header: {remove: a}", "routes[0].request_header"},
		{"upstream: v1, rewrite: {path: \"/{id}\"}", "routes[0].rewrite.path"},
		{"upstream: v1, answer_header: {set: {Transfer-Encoding: x}}", "routes[0].answer_header.set.Transfer-Encoding"},
		{"redirect: {to: x}", "routes[0].redirect.to"},
		{"match: {scheme: https}, redirect: {https: true}", "routes[0].match.scheme"},
		{"static: {status: 99}", "routes[0].static.status"},
		{"upstream: v1, priority: {header: a b}", "routes[0].priority.header"},
		{"upstream: v1, priority: urgent", "routes[0].priority"},
		{"upstream: v1, priority: {exempt: true, header: x}", "routes[0].priority.exempt"},
		{"upstream: v1, tenant: {}", "routes[0].tenant"},
		{"upstream: v1, tenant: {capture: id}", "routes[0].tenant.capture"},
		{"upstream: v1, policy: {fallback: {upstream: v1}}", "routes[0].policy.fallback.upstream"},
		{"split: [{upstream: v1, weight: 1}, {upstream: v2}], policy: {fallback: {upstream: v2}}", "routes[0].policy.fallback.upstream"},
	} {
		_, err := Load("f", fmt.Appendf(nil, frame, c.route))
		if err == nil || !strings.Contains(err.Error(), c.want+":") {
			t.Errorf("%s: %v", c.route, err)
		}
	}
}

const rewriting = `
listen: gw:80
upstreams: {up: {endpoints: "http://a:1/base", rewrite_host: true}, spare: {endpoints: http://b:1}}
routes:
- {name: host, match: {pattern: "/host/{rest...}"}, upstream: up, rewrite: {host: own.example, path: "/h/{rest}"}}
- name: all
  match: {pattern: "/all/{rest...}"}
  upstream: up
  rewrite: {path: "/r/{rest}"}
  policy: {retry: {off: true}, fallback: {upstream: spare}}
`

func TestWhatIsRewrittenIsSoForEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		kill := n.serve(t, "a:1", asked("a"))
		n.serve(t, "b:1", asked("b"))
		g := n.start(t, rewriting, nil)
		c := n.client(t)
		at := func(path string) string {
			body, _, _ := strings.Cut(get(t, c, "http://gw:80"+path).body, " user=")
			return body
		}
		if got := at("/host/x"); got != "a GET own.example/base/h/x" {
			t.Errorf("a host of the route's own: %q", got)
		}
		if got := at("/all/x%2Fy?q"); got != "a GET a:1/base/r/x%2Fy?q" {
			t.Errorf("forwarded: %q", got)
		}
		// A call that is made later has its route, but was not matched just now.
		i := &inner{route: g.table.Load().byName["all"], r: request(t, http.MethodGet, "http://h/all/z", nil), header: http.Header{}, again: true, limit: 1 << 10}
		if got := g.call(i); !strings.HasPrefix(got.body.String(), "a GET a:1/base/r/z") {
			t.Errorf("made later: %q", got.body.String())
		}
		kill()
		if got := at("/all/x"); got != "b GET gw:80/r/x" {
			t.Errorf("by the fallback: %q", got)
		}
	})
}

func TestToFindARouteAndItsCallerCostsNothing(t *testing.T) {
	g, err := New(load(t, everyRoute), Options{})
	if err != nil {
		t.Fatal(err)
	}
	table := g.table.Load()
	r := request(t, http.MethodGet, "http://h/api/x?a=1", nil)
	r.RemoteAddr = "9.9.9.9:1"
	v := &visit{g: g, r: r}
	if n := testing.AllocsPerRun(100, func() {
		v.peer = peer{address: "9.9.9.9", client: "9.9.9.9"}
		v.route, v.captures = table.find(r)
		v.identify()
		v.draw()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if v.route.cfg.Name != "all" || v.caller.tenant != "9.9.9.9" || v.arm == nil {
		t.Errorf("got %+v", v)
	}
}

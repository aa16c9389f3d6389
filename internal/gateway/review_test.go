package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/offload"
)

func TestAnIDCannotChangeTheHostOrPathOfAJointCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		seen := make(chan string, 10)
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Host + " " + r.RequestURI
			_, _ = io.WriteString(w, `{"data":[]}`)
		})
		n.start(t, strings.NewReplacer("id: ID", "id: query.id", "/items?ids={ids}", "/of/{segment.2}?ids={ids}").Replace(items), nil)
		got := get(t, n.client(t), "http://gw:80/items/mine?id=7%0Aevil%0A/items/theirs")
		if line := <-seen; !strings.HasPrefix(line, "gw:80 /of/mine?") {
			t.Errorf("the upstream was asked %q; %+v", line, got)
		}
	})
}

func TestWhatARouteRewritesIsRewrittenOnceForAJob(t *testing.T) {
	n := newNetwork()
	seen := make(chan string, 10)
	n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Host + " " + r.RequestURI })
	file := strings.Replace(offloading(t, "{}", "{retry: {off: true}}"), "match: {path: /orders}", `match: {pattern: "/orders/{id}/{rest...}"}, rewrite: {path: "/v2/{id}/x/{rest}", host: "{id}.internal", set_query: {from: "{request.path}"}}`, 1)
	n.start(t, file, nil)
	c := n.client(t)
	_, place := accepted(t, do(c, request(t, "POST", "http://gw:80/orders/7/a%2Fb/c?x=1", strings.NewReader("o"))))
	const want = "7.internal /v2/7/x/a%2Fb/c?x=1&from=%2Forders%2F7%2Fa%252Fb%2Fc"
	if got := <-seen; got != want {
		t.Errorf("delivered as %q, want %q", got, want)
	}
	happens(t, "done", func() bool { return stateOf(t, c, place).State == offload.Done })
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

func TestAFieldForOneClientReachesTheFirstAndNobodyElse(t *testing.T) {
	for _, tt := range []struct{ control, field, body string }{
		{`max-age=60, private="X-User"`, "X-User", "b"},
		{`max-age=60, private="X-User"`, "X-User", ""},
		{`max-age=60, no-cache="set-cookie"`, "Set-Cookie", "b"},
		{"public, max-age=60", "Set-Cookie", "b"},
		{"s-maxage=60", "Set-Cookie", ""},
	} {
		cached(t, "{cache: {}}", answering(tt.body, "Cache-Control", tt.control, tt.field, "ann"), func(t *testing.T, n *network, o *origin) {
			c := n.client(t)
			if got := get(t, c, "http://gw:80/"); got.header.Get(tt.field) != "ann" {
				t.Errorf("%+v: the first client got %v", tt, got.header)
			}
			if got := get(t, c, "http://gw:80/"); got.header.Get(tt.field) != "" || got.body != tt.body {
				t.Errorf("%+v: the second client got %v", tt, got.header)
			}
			wantAsked(t, o, "GET /")
		})
	}
}

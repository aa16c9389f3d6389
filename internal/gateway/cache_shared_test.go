package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/fault"
)

// fleet is a second tier that several gateways share.
type fleet struct {
	mu  sync.Mutex
	has map[string]cache.Stored
}

func (f *fleet) Get(_ context.Context, key string) (cache.Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, ok := f.has[key]; ok {
		return v, nil
	}
	return cache.Stored{}, cache.ErrNotFound
}

func (f *fleet) Set(_ context.Context, key string, v cache.Stored) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.has == nil {
		f.has = make(map[string]cache.Stored)
	}
	f.has[key] = v
	return nil
}

func (f *fleet) Delete(_ context.Context, keys ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		delete(f.has, key)
	}
	return nil
}

func (f *fleet) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.has)
}

// join puts f behind the caches of a gateway.
func (f *fleet) join(g *Gateway) {
	for _, r := range g.table.Load().byName {
		for _, a := range r.live.arms.Load().baseline {
			a.policy.SetTier(f)
		}
	}
}

func TestWhatAnotherGatewayLearnedOfVaryMixesNobodysAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier, n := new(fleet), newNetwork()
		o := &origin{serve: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Millisecond)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Cookie")
			_, _ = io.WriteString(w, "for "+r.Header.Get("Cookie"))
		}}
		n.serve(t, "a:1", o.ServeHTTP)
		tier.join(n.start(t, one("{cache: {shared: true}}", "http://a:1"), nil))
		c := n.client(t)
		if got := get(t, c, "http://gw:80/", "Cookie", "u=ann"); got.body != "for u=ann" {
			t.Fatalf("%+v", got)
		}
		synctest.Wait()

		m := newNetwork()
		m.serve(t, "a:1", o.ServeHTTP)
		tier.join(m.start(t, one("{cache: {shared: true}}", "http://a:1"), nil))
		c = m.client(t)
		var run sync.WaitGroup
		for _, user := range []string{"u=bob", "u=eve", "u=joe"} {
			r := request(t, http.MethodGet, "http://gw:80/", nil, "Cookie", user)
			run.Go(func() {
				if got := do(c, r); got.body != "for "+user {
					t.Errorf("%s got the answer %q", user, got.body)
				}
			})
		}
		run.Wait()
		o.asked()
		for _, user := range []string{"u=ann", "u=bob", "u=eve", "u=joe"} {
			if got := get(t, c, "http://gw:80/", "Cookie", user); got.body != "for "+user {
				t.Errorf("%s got the answer %q", user, got.body)
			}
		}
		wantAsked(t, o, "")
	})
}

func TestWhatIsUnderWayWhenItIsInvalidatedReachesNoOtherGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier, n := new(fleet), newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				time.Sleep(time.Second)
			}
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, "old")
		})
		tier.join(n.start(t, one("{cache: {shared: true}}", "http://a:1"), nil))
		c := n.client(t)
		done := make(chan answer)
		r := request(t, http.MethodGet, "http://gw:80/", nil)
		go func() { done <- do(c, r) }()
		time.Sleep(100 * time.Millisecond)
		if got := do(c, request(t, http.MethodPost, "http://gw:80/", strings.NewReader("new"))); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		if got := <-done; got.body != "old" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if tier.size() > 0 {
			t.Error("what was made before the change lies in the second tier after it")
		}
	})
}

func TestWritersInvalidatePartsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		o := &origin{serve: answering(`{"v":1}`, "Cache-Control", "max-age=60")}
		n.serve(t, "a:1", o.ServeHTTP)
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- name: page
  match: {path: /page}
  upstream: up
  policy: {cache: {}}
  aggregate: {parts: [{name: user, path: /user}]}
- {name: rest, upstream: up}
`, nil)
		c := n.client(t)
		for range 2 {
			if got := get(t, c, "http://gw:80/page"); got.status != 200 || got.body != "{\"user\":{\"v\":1}}\n" {
				t.Fatalf("%+v", got)
			}
		}
		wantAsked(t, o, "GET /user")
		_ = do(c, request(t, http.MethodPost, "http://gw:80/user", strings.NewReader("x")))
		o.asked()
		get(t, c, "http://gw:80/page")
		wantAsked(t, o, "GET /user")
	})
}

func TestAnAnswerThatAFaultMadeIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", answering("real"))
		g := n.start(t, one("{cache: {ttl: 1m, negative_ttl: 1m}}", "http://a:1"), nil)
		c := n.client(t)
		inject(t, g, fault.Config{Name: "gone", At: fault.AtAttempt, Abort: 404})
		if got := get(t, c, "http://gw:80/"); got.status != 404 {
			t.Fatalf("%+v", got)
		}
		if err := g.StopFault("gone", "seen"); err != nil {
			t.Fatal(err)
		}
		if got := get(t, c, "http://gw:80/"); got.body != "real" {
			t.Errorf("after the fault: %+v", got)
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

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// origin is an upstream that counts what it is asked.
type origin struct {
	mu    sync.Mutex
	calls []string // method, target, and conditions
	serve http.HandlerFunc
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.RequestURI
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "Range"} {
		if v := r.Header.Get(name); v != "" {
			line += " " + name + "=" + v
		}
	}
	o.mu.Lock()
	o.calls = append(o.calls, line)
	o.mu.Unlock()
	o.serve(w, r)
}

// asked is what came since it was last called.
func (o *origin) asked() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := strings.Join(o.calls, "; ")
	o.calls = nil
	return s
}

// cached runs test in a bubble with a gateway that has a cache before serve.
func cached(t *testing.T, policy string, serve http.HandlerFunc, test func(t *testing.T, n *network, o *origin)) {
	synctest.Test(t, func(t *testing.T) {
		n, o := newNetwork(), &origin{serve: serve}
		n.serve(t, "a:1", o.ServeHTTP)
		n.start(t, one(policy, "http://a:1"), nil)
		test(t, n, o)
	})
}

// answering answers with these fields.
func answering(body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func wants(t *testing.T, what string, got answer, status int, body, cacheStatus string) {
	t.Helper()
	if got.err != nil || got.status != status || got.body != body || !strings.HasPrefix(got.header.Get("Cache-Status"), "longpole; "+cacheStatus) {
		t.Errorf("%s: %d %q %q %v", what, got.status, got.body, got.header.Get("Cache-Status"), got.err)
	}
}

func wantAsked(t *testing.T, o *origin, want string) {
	t.Helper()
	synctest.Wait()
	if got := o.asked(); got != want {
		t.Errorf("the upstream was asked %q, want %q", got, want)
	}
}

func TestVariantsStandSideBySide(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Foo")
		if r.Header.Get("Foo") == "new" {
			w.Header().Set("Vary", "Foo, Bar")
		}
		_, _ = io.WriteString(w, r.Header.Get("Foo")+r.Header.Get("Bar"))
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		for _, want := range []string{"fwd=miss", "hit"} {
			for _, foo := range []string{"1", "2", ""} {
				wants(t, foo, get(t, c, "http://gw:80/", "Foo", foo), 200, foo, want)
			}
		}
		wants(t, "other field", get(t, c, "http://gw:80/", "Foo", "1", "Other", "x"), 200, "1", "hit")
		// The answers turn out to depend on more: from then on they are told apart by that too.
		wants(t, "new", get(t, c, "http://gw:80/", "Foo", "new", "Bar", "a"), 200, "newa", "fwd=miss")
		wants(t, "new", get(t, c, "http://gw:80/", "Foo", "new", "Bar", "b"), 200, "newb", "fwd=miss")
		wants(t, "new", get(t, c, "http://gw:80/", "Foo", "new", "Bar", "a"), 200, "newa", "hit")
	})
}

func TestCallsForOtherVariantsThatWaitedGetTheirs(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		w.Header().Set("Vary", "Foo")
		_, _ = io.WriteString(w, r.Header.Get("Foo"))
	}
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		var run sync.WaitGroup
		for i := range 30 {
			run.Go(func() {
				foo := fmt.Sprint("v", i%3)
				if got := get(t, c, "http://gw:80/", "Foo", foo); got.body != foo || got.took > 2*time.Second {
					t.Errorf("%s: %q after %v", foo, got.body, got.took)
				}
			})
		}
		run.Wait()
		if got := strings.Count(o.asked(), "GET"); got != 3 {
			t.Errorf("%d fetches for 3 variants", got)
		}
	})
}

func TestWhatIsStaleIsConfirmed(t *testing.T) {
	n := atomic.Int64{}
	serve := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "max-age=1")
		h.Set("Etag", `"x"`)
		h.Set("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
		h.Set("X-Call", fmt.Sprint(n.Add(1)))
		if r.Header.Get("If-None-Match") == `"x"` {
			w.WriteHeader(304)
			return
		}
		_, _ = io.WriteString(w, "body")
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		wants(t, "first", get(t, c, "http://gw:80/"), 200, "body", "fwd=miss; ttl=1; stored")
		o.asked()
		time.Sleep(2 * time.Second)
		got := get(t, c, "http://gw:80/", "If-None-Match", `"theirs"`)
		wants(t, "confirmed", got, 200, "body", "fwd=stale; fwd-status=304; ttl=1; stored")
		if got.header.Get("X-Call") != "2" || got.header.Get("Content-Length") != "4" {
			t.Errorf("%v", got.header)
		}
		wantAsked(t, o, `GET / If-None-Match="x" If-Modified-Since=Sun, 06 Nov 1994 08:49:37 GMT`)
		wants(t, "then", get(t, c, "http://gw:80/"), 200, "body", "hit")
		wants(t, "client has it", get(t, c, "http://gw:80/", "If-None-Match", `"a", W/"x"`), 304, "", "hit")
		time.Sleep(2 * time.Second)
		wants(t, "both", get(t, c, "http://gw:80/", "If-None-Match", `"x"`), 304, "", "fwd=stale; fwd-status=304")
		wants(t, "asked to", get(t, c, "http://gw:80/", "Cache-Control", "no-cache"), 200, "body", "fwd=request; fwd-status=304")
	})
}

// A 304 that names another tag says nothing about what is kept, and must not reach a client that has not asked for it.
func TestA304ForSomethingElseIsNotBelieved(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1")
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Etag", `"z"`)
			w.WriteHeader(304)
			return
		}
		w.Header().Set("Etag", `"x"`)
		_, _ = io.WriteString(w, "body")
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		get(t, c, "http://gw:80/")
		o.asked()
		time.Sleep(2 * time.Second)
		wants(t, "again", get(t, c, "http://gw:80/"), 200, "body", "fwd=stale")
		wantAsked(t, o, `GET / If-None-Match="x"; GET /`)
	})
}

// What each call must ask for is kept, but nobody waits for the answer of another.
func TestNoCacheIsConfirmedForEachCall(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Etag", `"x"`)
		if r.Header.Get("If-None-Match") == `"x"` {
			w.WriteHeader(304)
			return
		}
		_, _ = io.WriteString(w, "body")
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		var run sync.WaitGroup
		for range 20 {
			run.Go(func() {
				if got := get(t, c, "http://gw:80/"); got.body != "body" || got.took > 2*time.Second {
					t.Errorf("%q after %v", got.body, got.took)
				}
			})
		}
		run.Wait()
		if asked := o.asked(); strings.Count(asked, "If-None-Match") != 19 {
			t.Error(asked)
		}
	})
}

func TestRangesComeFromTheWhole(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Etag", `"x"`)
		http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		// Not kept: it passes as it is, and what it brings is not taken for the whole.
		wants(t, "miss", get(t, c, "http://gw:80/", "Range", "bytes=2-3"), 206, "23", "fwd=miss")
		wantAsked(t, o, "GET / Range=bytes=2-3")
		wants(t, "whole", get(t, c, "http://gw:80/"), 200, "0123456789", "fwd=miss")
		wantAsked(t, o, "GET /")
		got := get(t, c, "http://gw:80/", "Range", "bytes=-3")
		wants(t, "suffix", got, 206, "789", "hit")
		if got.header.Get("Content-Range") != "bytes 7-9/10" || got.header.Get("Content-Length") != "3" {
			t.Errorf("%v", got.header)
		}
		got = get(t, c, "http://gw:80/", "Range", "bytes=10-")
		wants(t, "beyond", got, 416, "", "hit")
		if got.header.Get("Content-Range") != "bytes */10" {
			t.Errorf("%v", got.header)
		}
		wants(t, "if-range", get(t, c, "http://gw:80/", "Range", "bytes=0-1", "If-Range", `"y"`), 200, "0123456789", "hit")
		wants(t, "several", get(t, c, "http://gw:80/", "Range", "bytes=0-1,3-4"), 200, "0123456789", "hit")
		wantAsked(t, o, "")
	})
}

func TestWhatBreaksOffIsNotKept(t *testing.T) {
	var calls atomic.Int64
	serve := func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			if r.URL.Path == "/known" {
				w.Header().Set("Content-Length", "10")
			}
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "all of it")
	}
	for _, path := range []string{"/known", "/chunked"} {
		calls.Store(0)
		cached(t, "{cache: {ttl: 1m}, retry: {off: true}}", serve, func(t *testing.T, n *network, o *origin) {
			if got := get(t, n.client(t), "http://gw:80"+path); got.err == nil {
				t.Errorf("%s: %+v", path, got)
			}
			wants(t, path, get(t, n.client(t), "http://gw:80"+path), 200, "all of it", "fwd=miss")
			wants(t, path, get(t, n.client(t), "http://gw:80"+path), 200, "all of it", "hit")
		})
	}
}

func TestHeadAndGetShareAnAnswer(t *testing.T) {
	var version atomic.Int64
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=10")
		w.Header().Set("Etag", fmt.Sprintf(`"%d"`, version.Load()))
		w.Header().Set("X-Method", r.Method)
		_, _ = fmt.Fprintf(w, "version %d", version.Load())
	}
	cached(t, "{cache: {jitter: 0.001}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		head := func(status string) {
			t.Helper()
			got := do(c, request(t, "HEAD", "http://gw:80/", nil))
			wants(t, "head", got, 200, "", status)
			if got.header.Get("Content-Length") != "9" {
				t.Errorf("%v", got.header)
			}
		}
		head("fwd=miss") // and is not kept as if it were the answer to a GET
		wants(t, "get", get(t, c, "http://gw:80/"), 200, "version 0", "fwd=miss")
		wantAsked(t, o, "HEAD /; GET /")
		head("hit")
		wantAsked(t, o, "")
		// What it says when it is fetched counts for the answer that is kept.
		time.Sleep(11 * time.Second)
		head("fwd=miss")
		got := get(t, c, "http://gw:80/")
		wants(t, "freshened", got, 200, "version 0", "hit")
		if got.header.Get("X-Method") != "HEAD" {
			t.Errorf("%v", got.header)
		}
		version.Add(1)
		if got := do(c, request(t, "HEAD", "http://gw:80/", nil, "Cache-Control", "no-cache")); got.header.Get("Etag") != `"1"` {
			t.Errorf("%v", got.header)
		}
		wants(t, "changed", get(t, c, "http://gw:80/"), 200, "version 1", "fwd=miss")
	})
}

func TestWritersInvalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var version atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Foo")
			switch {
			case r.Header.Get("Fail") != "":
				w.WriteHeader(400)
			case r.Method == "POST":
				version.Add(1)
				w.Header().Set("Location", "/list")
				w.WriteHeader(201)
			default:
				_, _ = fmt.Fprint(w, version.Load())
			}
		})
		// Read by one route, written by another.
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: write, match: {method: [POST]}, upstream: up}
- {name: read, upstream: up, policy: {cache: {ttl: 1h}}}
`, nil)
		c := n.client(t)
		post := func(header ...string) {
			do(c, request(t, "POST", "http://gw:80/item", strings.NewReader("x"), header...))
		}
		all := func(body, status string) {
			t.Helper()
			for _, path := range []string{"/item", "/list"} {
				for _, foo := range []string{"1", "2"} {
					wants(t, path+" "+foo, get(t, c, "http://gw:80"+path, "Foo", foo), 200, body, status)
				}
			}
		}
		all("0", "fwd=miss")
		all("0", "hit")
		post("Fail", "x")
		all("0", "hit")
		post()
		all("1", "fwd=miss")
		all("1", "hit")
	})
}

// An answer that was under way when its target was written may be old: who waited gets it, nobody after.
func TestWhatIsUnderWayWhenItIsInvalidatedIsNotKept(t *testing.T) {
	var version atomic.Int64
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			version.Add(1)
			return
		}
		v := version.Load()
		time.Sleep(time.Second)
		_, _ = fmt.Fprint(w, v)
	}
	cached(t, "{cache: {ttl: 1h}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		var run sync.WaitGroup
		run.Go(func() { get(t, c, "http://gw:80/") })
		time.Sleep(500 * time.Millisecond)
		do(c, request(t, "PUT", "http://gw:80/", strings.NewReader("x")))
		wants(t, "after", get(t, c, "http://gw:80/"), 200, "1", "fwd=miss")
		run.Wait()
		wants(t, "later", get(t, c, "http://gw:80/"), 200, "1", "hit")
	})
}

func TestCredentialsGetNothingThatIsNotForAll(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		if control := r.URL.Query().Get("cc"); control != "" {
			w.Header().Set("Cache-Control", control)
		}
		_, _ = fmt.Fprint(w, "for ", r.Header.Get("Authorization"), r.Header.Get("Cookie"))
	}
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		for _, tt := range []struct{ field, control, first, then, other string }{
			{"Authorization", "", "for alice", "for bob", "for "},
			{"Authorization", "max-age=60", "for alice", "for bob", "for "},
			{"Authorization", "public,max-age=60", "for alice", "for alice", "for alice"},
			{"Cookie", "", "for alice", "for bob", "for "},
			{"Cookie", "max-age=60", "for alice", "for alice", "for alice"},
		} {
			u := "http://gw:80/" + tt.field + "?cc=" + tt.control
			first, then := get(t, c, u, tt.field, "alice").body, get(t, c, u, tt.field, "bob").body
			other := get(t, c, u).body
			if first != tt.first || then != tt.then || other != tt.other {
				t.Errorf("%s %q: %q, %q, %q", tt.field, tt.control, first, then, other)
			}
			// The other way round: what was kept for one without is not for one with.
			if last := get(t, c, u, tt.field, "carol").body; tt.other == "for " && last != "for carol" {
				t.Errorf("%s %q: %q", tt.field, tt.control, last)
			}
		}
	})
}

func TestWhatAClientWishesOfTheCache(t *testing.T) {
	cached(t, "{cache: {jitter: 0.001}}", answering("body", "Cache-Control", "max-age=10"), func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		ask := func(control string, status int, want string) {
			t.Helper()
			got := get(t, c, "http://gw:80/", "Cache-Control", control)
			if got.status != status || !strings.HasPrefix(got.header.Get("Cache-Status"), "longpole; "+want) {
				t.Errorf("%s: %d %q", control, got.status, got.header.Get("Cache-Status"))
			}
		}
		ask("only-if-cached", 504, "fwd=miss")
		wantAsked(t, o, "")
		ask("x", 200, "fwd=miss")
		time.Sleep(4 * time.Second)
		ask("only-if-cached", 200, "hit")
		ask("max-age=5", 200, "hit")
		ask("min-fresh=5", 200, "hit")
		ask("max-age=3", 200, "fwd=request")
		time.Sleep(7 * time.Second)
		ask("min-fresh=5", 200, "fwd=request")
		time.Sleep(12 * time.Second)
		ask("max-stale=1", 200, "fwd=stale")
		time.Sleep(12 * time.Second)
		ask("max-stale=100", 200, "hit; ttl=-")
		ask("max-stale", 200, "hit; ttl=-")
		ask("no-store", 200, "fwd=bypass")
		ask("no-cache", 200, "fwd=request")
	})
}

func TestAnswersSayHowLongTheyMayBeUsedStale(t *testing.T) {
	var fails atomic.Bool
	var calls atomic.Int64
	serve := func(w http.ResponseWriter, r *http.Request) {
		if fails.Load() {
			w.WriteHeader(503)
			return
		}
		w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
		_, _ = fmt.Fprint(w, calls.Add(1))
	}
	cached(t, "{cache: {stale_if_error: 1h}, retry: {off: true}, breaker: {min_calls: 1000}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		revalidate := "http://gw:80/?cc=max-age=1,stale-while-revalidate=5"
		wants(t, "first", get(t, c, revalidate), 200, "1", "fwd=miss")
		time.Sleep(3 * time.Second)
		wants(t, "stale", get(t, c, revalidate), 200, "1", "hit; ttl=-2")
		synctest.Wait()
		wants(t, "refreshed behind", get(t, c, revalidate), 200, "2", "hit; ttl=1")
		time.Sleep(10 * time.Second)
		wants(t, "too stale", get(t, c, revalidate), 200, "3", "fwd=stale")
		urls := map[string]int{"max-age=1": 200, "max-age=1,stale-if-error=5": 200, "max-age=1,must-revalidate": 503, "s-maxage=1": 503, "max-age=1,stale-if-error=1": 503}
		for control := range urls {
			get(t, c, "http://gw:80/?cc="+control)
		}
		fails.Store(true)
		time.Sleep(3 * time.Second)
		for control, status := range urls {
			if got := get(t, c, "http://gw:80/?cc="+control); got.status != status {
				t.Errorf("%s: %d, want %d", control, got.status, status)
			}
		}
		time.Sleep(2 * time.Hour)
		if got := get(t, c, "http://gw:80/?cc=max-age=1"); got.status != 503 {
			t.Error("stale without bound")
		}
	})
}

// What is in no key must not be in an answer.
func TestOneRequestCannotPoisonTheAnswersOfOthers(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Http-Method-Override") != "" || r.Header.Get("X-Oversized") != "" {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(500)
			return
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, r.Host, r.RequestURI, r.Header["X-Forwarded-Host"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Scheme"], r.Header["X-Original-Url"], string(b))
	}
	cached(t, "{cache: {ttl: 1m}, retry: {off: true}, breaker: {min_calls: 1000}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		clean := func(target string) string { return "gw:80" + target + "[gw:80] [http] [] []" }
		for i, attack := range [][]string{
			{"X-Forwarded-Host", "evil"},
			{"X-Forwarded-Proto", "evil"},
			{"X-Forwarded-Scheme", "evil"},
			{"X_Forwarded_Host", "evil"},
			{"X-Original-Url", "/evil"},
			{"X-Http-Method-Override", "DELETE"},
			{"X-Oversized", "x"},
		} {
			target := fmt.Sprint("/", i)
			get(t, c, "http://gw:80"+target, attack...)
			if got := get(t, c, "http://gw:80"+target); got.body != clean(target) {
				t.Errorf("%v: %q", attack, got.body)
			}
		}
		do(c, request(t, "GET", "http://gw:80/fat", strings.NewReader("evil")))
		if got := get(t, c, "http://gw:80/fat"); got.body != clean("/fat") {
			t.Errorf("a fat GET: %q", got.body)
		}
		for _, target := range []string{"/p?a=1;b=2", "/p?a=1&b=2", "/p;x", "/p%3Bx", "//p", "/p/", "/p%2f", "/p?A=1&b=2", "/p?b=2&a=1", "/p.css", "/p%00.css"} {
			for range 2 {
				if got := get(t, c, "http://gw:80"+target); got.status == 200 && got.body != clean(target) {
					t.Errorf("%s: %q", target, got.body)
				}
			}
		}
	})
}

func TestAThousandClientsAreOneFetch(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); answering("body")(w, r) }
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		var run sync.WaitGroup
		for range 1000 {
			run.Go(func() {
				if got := get(t, c, "http://gw:80/"); got.body != "body" {
					t.Errorf("%+v", got)
				}
			})
		}
		run.Wait()
		wantAsked(t, o, "GET /")
	})
}

func TestWhatIsPrivateMakesNoConvoy(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		answering("body", "Cache-Control", "private")(w, r)
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		for round, most := range []time.Duration{2 * time.Second, time.Second} {
			var run sync.WaitGroup
			for range 50 {
				run.Go(func() {
					if got := get(t, c, "http://gw:80/"); got.body != "body" || got.took > most {
						t.Errorf("round %d: %q after %v", round, got.body, got.took)
					}
				})
			}
			run.Wait()
		}
	})
}

// The one who asks first reads while the answer comes; those who come meanwhile wait for the end and share it.
func TestTheFirstOneNeedNotWaitForTheEnd(t *testing.T) {
	for name, policy := range map[string]string{"kept": "{cache: {ttl: 1m}}", "too long": "{cache: {ttl: 1m, max_entry_bytes: 1000}}"} {
		serve := func(w http.ResponseWriter, r *http.Request) {
			for i := range 10 {
				_, _ = io.WriteString(w, strings.Repeat(fmt.Sprint(i), 199)+"\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		}
		cached(t, policy, serve, func(t *testing.T, n *network, o *origin) {
			start := time.Now()
			res, err := n.client(t).Do(request(t, "GET", "http://gw:80/", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var run sync.WaitGroup
			run.Go(func() {
				if got := get(t, n.client(t), "http://gw:80/"); len(got.body) != 2000 || got.err != nil {
					t.Errorf("%s: the second got %d bytes, %v", name, len(got.body), got.err)
				}
			})
			lines := bufio.NewScanner(res.Body)
			for i := 0; lines.Scan(); i++ {
				if d := time.Since(start); len(lines.Text()) != 199 || d != time.Duration(i)*time.Second {
					t.Errorf("%s: line %d came after %v", name, i, d)
				}
			}
			if err := lines.Err(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			run.Wait()
			if want := map[string]int{"kept": 1, "too long": 2}[name]; strings.Count(o.asked(), "GET") != want {
				t.Errorf("%s: not %d fetches", name, want)
			}
		})
	}
}

// When the first one leaves in the middle, what he began is finished for the others.
func TestTheFirstOneMayLeaveInTheMiddle(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		for range 4 {
			_, _ = io.WriteString(w, "part ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		}
	}
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		res, err := n.client(t).Do(request(t, "GET", "http://gw:80/", nil))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		_ = res.Body.Close()
		wants(t, "second", get(t, n.client(t), "http://gw:80/"), 200, "part part part part ", "fwd=miss; ttl=5")
		wants(t, "third", get(t, n.client(t), "http://gw:80/"), 200, "part part part part ", "hit")
		wantAsked(t, o, "GET /")
	})
}

func TestEventsAndTrailersAreNotHeld(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
		} else {
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		}
		_, _ = io.WriteString(w, "data")
	}
	cached(t, "{cache: {}}", serve, func(t *testing.T, n *network, o *origin) {
		for _, path := range []string{"/events", "/trailer"} {
			for range 2 {
				res, err := n.client(t).Do(request(t, "GET", "http://gw:80"+path, nil))
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if string(b) != "data" || path == "/trailer" && res.Trailer.Get("X-Sum") != "42" {
					t.Errorf("%s: %q %v", path, b, res.Trailer)
				}
				wantAsked(t, o, "GET "+path)
			}
		}
	})
}

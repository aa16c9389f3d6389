package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatMayBeAnsweredFromTheCache(t *testing.T) {
	tests := []struct {
		name     string
		method   string
		request  []string // header
		response []string // header
		status   int
		kept     bool
	}{
		{name: "plain", kept: true},
		{name: "head", method: "HEAD"},
		{name: "post", method: "POST"},
		{name: "authorization", request: []string{"Authorization", "x"}},
		{name: "cookie", request: []string{"Cookie", "a=b"}},
		{name: "range of a server that knows none", request: []string{"Range", "x=0-1"}, kept: true},
		{name: "condition", request: []string{"If-None-Match", `"x"`}, kept: true},
		{name: "condition of a writer", request: []string{"If-Match", `"x"`}},
		{name: "client wants fresh", request: []string{"Cache-Control", "No-Cache"}},
		{name: "client wants no store", request: []string{"Cache-Control", "max-age=5, no-store"}},
		{name: "client wants age 0", request: []string{"Cache-Control", "max-age=0"}},
		{name: "pragma", request: []string{"Pragma", "no-cache"}},
		{name: "other pragma", request: []string{"Pragma", "x"}, kept: true},
		{name: "method override", request: []string{"X-HTTP-Method-Override", "DELETE"}},
		{name: "url override", request: []string{"X-Original-URL", "/admin"}},
		{name: "forged host", request: []string{"X-Forwarded-Host", "evil"}, kept: true}, // never reaches the upstream
		{name: "not found, for a short time", status: 404, kept: false},
		{name: "not found, for the time it says", status: 404, response: []string{"Cache-Control", "max-age=60"}, kept: true},
		{name: "moved", status: 301, kept: true},
		{name: "found", status: 302},
		{name: "bad request", status: 400},
		{name: "header too large", status: 431},
		{name: "failure, though it says so", status: 500, response: []string{"Cache-Control", "public, max-age=60"}},
		{name: "unavailable", status: 503, response: []string{"Cache-Control", "max-age=60"}},
		{name: "cookie, and it says so", request: []string{"Cookie", "a=b"}, response: []string{"Cache-Control", "max-age=60"}, kept: true},
		{name: "authorization, and it says so", request: []string{"Authorization", "x"}, response: []string{"Cache-Control", "public, max-age=60"}, kept: true},
		{name: "cookie set for all", response: []string{"Set-Cookie", "a=b", "Cache-Control", "s-maxage=60"}, kept: true},
		{name: "cookie set", response: []string{"Set-Cookie", "a=b"}},
		{name: "private", response: []string{"Cache-Control", "private"}},
		{name: "no-store", response: []string{"Cache-Control", "public, no-store"}},
		{name: "no-cache", response: []string{"Cache-Control", "max-age=60, no-cache"}},
		{name: "no-cache of a field", response: []string{"Cache-Control", `no-cache="x"`}, kept: true},
		{name: "max-age 0", response: []string{"Cache-Control", "max-age=0"}},
		{name: "s-maxage wins", response: []string{"Cache-Control", "s-maxage=0, max-age=60"}},
		{name: "max-age", response: []string{"Cache-Control", "max-age=60"}, kept: true},
		{name: "max-age not read", response: []string{"Cache-Control", "max-age=soon"}},
		{name: "too old", response: []string{"Cache-Control", "max-age=60", "Age", "60"}},
		{name: "expired", response: []string{"Expires", "0"}},
		{name: "vary star", response: []string{"Vary", "*"}},
		{name: "vary origin", response: []string{"Vary", "Accept, Origin"}, kept: true},
		{name: "vary encoding", response: []string{"Vary", "accept-encoding"}, kept: true},
		{name: "events", response: []string{"Content-Type", "text/event-stream"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				var calls atomic.Int64
				n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
					for i := 0; i < len(tt.response); i += 2 {
						w.Header().Add(tt.response[i], tt.response[i+1])
					}
					if tt.status != 0 {
						w.WriteHeader(tt.status)
					}
					_, _ = fmt.Fprintf(w, "answer %d", calls.Add(1))
				})
				n.start(t, one("{cache: {ttl: 1m}}", "http://a:1"), nil)
				method := tt.method
				if method == "" {
					method = "GET"
				}
				c := n.client(t)
				for range 2 {
					got := do(c, request(t, method, "http://gw:80/x?y", nil, tt.request...))
					if got.err != nil || tt.status != 0 && got.status != tt.status {
						t.Errorf("got %+v", got)
					}
					time.Sleep(time.Second)
				}
				if kept := calls.Load() == 1; kept != tt.kept {
					t.Errorf("kept is %v", kept)
				}
			})
		})
	}
}

func TestCachedAnswersSayTheirAgeAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=10")
			w.Header().Set("Age", "4")
			_, _ = fmt.Fprintf(w, "answer %d", calls.Add(1))
		})
		g := n.start(t, one("{cache: {ttl: 1h}}", "http://a:1"), nil)
		c := n.client(t)
		var got []string
		for range 4 {
			a := get(t, c, "http://gw:80/")
			got = append(got, a.body+" "+a.header.Get("Age")+" "+a.header.Get("Cache-Status")+" "+a.header.Get("Content-Length"))
			time.Sleep(2500 * time.Millisecond)
		}
		want := "answer 1 4 longpole; fwd=miss; ttl=6; stored 8|answer 1 6 longpole; hit; ttl=3 8|answer 1 9 longpole; hit; ttl=1 8|answer 2 4 longpole; fwd=stale; ttl=6; stored 8"
		if strings.Join(got, "|") != want {
			t.Errorf("got %s", strings.Join(got, "|"))
		}
		if s := g.Routes()[0]; s.Tally.CacheHits != 2 || s.Tally.Attempts != 2 || s.Caches["hit"].Count() != 2 || s.Caches["miss"].Count() != 2 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestKeysDoNotCollide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Accept, Accept-Encoding")
			_, _ = fmt.Fprint(w, r.Host, r.RequestURI, r.Header["Accept"], r.Header["Accept-Encoding"])
		})
		n.start(t, one("{cache: {}}", "http://a:1"), nil)
		seen := map[string]string{}
		for _, host := range []string{"h", "h2"} {
			for _, target := range []string{"/", "/a", "/a?b", "/a%3Fb", "/?a", "/a;b", "/a&b", "/%61"} {
				for _, accept := range []string{"", "text/html", "text/html,x"} {
					for range 2 {
						r := request(t, "GET", "http://gw:80"+target, nil)
						if r.Host = host; accept != "" {
							r.Header.Set("Accept", accept)
						}
						got := do(n.client(t), r).body
						if before, ok := seen[host+" "+target+" "+accept]; ok && before != got {
							t.Errorf("%s%s: %q, then %q", host, target, before, got)
						}
						seen[host+" "+target+" "+accept] = got
					}
				}
			}
		}
		distinct := map[string]bool{}
		for _, body := range seen {
			distinct[body] = true
		}
		if len(distinct) != len(seen) {
			t.Errorf("%d requests got %d answers", len(seen), len(distinct))
		}
	})
}

func TestManyMissesAreOneFetchAndTheLeaderMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls, gone atomic.Int64
		answer := slow(time.Second, "shared", &gone)
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) { calls.Add(1); answer(w, r) })
		var spans collector
		n.start(t, one("{cache: {ttl: 10s}}", "http://a:1"), spans.add)
		c := n.client(t)
		var run sync.WaitGroup
		for i := range 30 {
			run.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				if i == 0 {
					r := request(t, "GET", "http://gw:80/", nil)
					leave, err := n.dial(t.Context(), "tcp", "gw:80")
					if err != nil {
						t.Error(err)
						return
					}
					_ = r.Write(leave)
					time.Sleep(100 * time.Millisecond)
					_ = leave.Close()
					return
				}
				if got := get(t, c, "http://gw:80/"); got.body != "shared" || got.took > time.Second {
					t.Errorf("got %+v", got)
				}
			})
		}
		run.Wait()
		synctest.Wait()
		if calls.Load() != 1 || gone.Load() != 0 {
			t.Errorf("%d fetches, %d cut", calls.Load(), gone.Load())
		}
		checkTree(t, spans.all())
	})
}

func TestAnAnswerTooBigToKeepPassesWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		big := strings.Repeat("0123456789", 1000)
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/chunked" {
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = w.Write([]byte(big))
		})
		n.start(t, one("{cache: {max_entry_bytes: 5000}}", "http://a:1"), nil)
		for _, path := range []string{"/known", "/chunked"} {
			for range 2 {
				if got := get(t, n.client(t), "http://gw:80"+path); got.body != big || got.header.Get("Cache-Status") != "longpole; fwd=miss" {
					t.Errorf("%s: %d bytes, %v", path, len(got.body), got.header)
				}
			}
		}
	})
}

func TestAStaleAnswerStandsInForAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		kill := n.serve(t, "a:1", ok("kept"))
		n.start(t, one("{cache: {ttl: 1s, stale_if_error: 1m}}", "http://a:1"), nil)
		c := n.client(t)
		get(t, c, "http://gw:80/")
		kill()
		time.Sleep(5 * time.Second)
		if got := get(t, c, "http://gw:80/"); got.status != 200 || got.body != "kept" || got.header.Get("Age") != "5" {
			t.Errorf("got %+v", got)
		}
	})
}

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

	"github.com/longpole/longpole/internal/payload"
)

// TestABodyThatIsNotReadAheadIsInNoKeyEither has a GET bring a body of unknown length, or one that it sends only once it is
// told to: neither is there yet when the key is made.
func TestABodyThatIsNotReadAheadIsInNoKeyEither(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "said %q", b)
	}
	for _, hedge := range []string{"", "hedge: {after: 1s}"} {
		cached(t, "{cache: {ttl: 1m}, retry: {"+hedge+"}}", serve, func(t *testing.T, n *network, o *origin) {
			for i, attack := range []string{
				"Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
				"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nevil",
				"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
			} {
				path := fmt.Sprint("/", i)
				conn, r := n.raw(t, "")
				go func() { _, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: gw:80\r\n"+attack) }()
				for {
					res, err := http.ReadResponse(r, nil)
					if err != nil || res.StatusCode >= 200 {
						break
					}
				}
				if got := get(t, n.client(t), "http://gw:80"+path); got.body != `said ""` {
					t.Errorf("%q, attack %d: others get %s", hedge, i, got.body)
				}
			}
		})
	}
}

// TestAHostThatCannotBeSentIsTheClientsFault has clients name hosts that no request line or field can hold. What is no
// host must reach no endpoint, and must not be held against one: a client could end its traffic.
func TestAHostThatCannotBeSentIsTheClientsFault(t *testing.T) {
	var o witness
	g := run(t, load(t, strings.Replace(one("{breaker: {min_calls: 2}}", o.start(t)), "gw:80", "127.0.0.1:0", 1)), Options{})
	address := g.Addr().String()
	for _, host := range []string{"\xff\xfe", "\xc3\xa9.example", "h\x7f", "h|i", "h%zz", "[::1", "xn--\xff", "h:1:2", strings.Repeat("\xff", 70)} {
		for range 5 {
			if got := speak2(t, address).ask(1, "", ":method", "GET", ":scheme", "http", ":path", "/", ":authority", host); got == "200" || strings.HasPrefix(got, "5") {
				t.Errorf("authority %q: answered %s", host, got)
			}
		}
	}
	for _, target := range []string{"http://%ff%fe/", "http://%C3%A9.example/", "http://h%7f/"} {
		for range 5 {
			if got := spoken(t, address, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n"); len(got) != 1 || got[0] < 400 || got[0] > 499 {
				t.Errorf("target %s: answered %v", target, got)
			}
		}
	}
	if seen, _ := o.take(); len(seen) > 0 {
		t.Errorf("reached the endpoint as %v", seen)
	}
	if got := spoken(t, address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); fmt.Sprint(got) != "[200]" {
		t.Errorf("after that others get %v", got)
	}
}

// TestWhatAGatewayAsksByItselfIsForOneAnswer has a client ask an aggregate for another protocol, and whether it may send a
// body: the parts are calls of the gateway's own, and ask for neither.
func TestWhatAGatewayAsksByItselfIsForOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var odd []string
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			for _, name := range []string{"Upgrade", "Connection", "Expect", "Content-Length"} {
				if v := r.Header[name]; len(v) > 0 {
					odd = append(odd, fmt.Sprint(name, v))
				}
			}
			_, _ = io.WriteString(w, `{"ok": true}`)
		})
		n.start(t, "listen: gw:80\nupstreams: {up: {endpoints: [http://a:1]}}\nroutes:\n- {name: all, upstream: up, aggregate: {parts: [{name: one, path: /one}]}}\n", nil)
		for _, ask := range []string{"Connection: Upgrade\r\nUpgrade: echo/1\r\n", "Expect: 100-continue\r\n", "Content-Length: 0\r\n"} {
			_, r := n.raw(t, "GET /x HTTP/1.1\r\nHost: h\r\n"+ask+"\r\n")
			res, err := http.ReadResponse(r, nil)
			for err == nil && res.StatusCode == 100 {
				res, err = http.ReadResponse(r, nil)
			}
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%q: %+v, %v", ask, res, err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(odd) > 0 {
			t.Errorf("the parts were asked with %v", odd)
		}
	})
}

// TestAnAnswerWithoutABodyNamesNoLengthOfOne has an upstream give a 204 a length, which HTTP/2 would call malformed.
func TestAnAnswerWithoutABodyNamesNoLengthOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n")
			_ = conn.Close()
		})
		n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		c.Transport.(*http.Transport).Protocols = new(http.Protocols)
		c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
		got := get(t, c, "http://gw:80/")
		if got.status != 204 || got.header.Get("Content-Length") != "" || got.err != nil {
			t.Errorf("%d %v %v", got.status, got.header, got.err)
		}
	})
}

// TestHintsThatAClientDoesNotReadHoldNothingUp has a client take nothing while its upstream sends informational answers.
func TestHintsThatAClientDoesNotReadHoldNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var ended atomic.Bool
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</"+strings.Repeat("a", 8<<10)+">; rel=preload")
			for range passedInformational {
				w.WriteHeader(http.StatusEarlyHints)
			}
			<-r.Context().Done()
			ended.Store(true)
		})
		g := n.start(t, "limits: {stall_timeout: 5s}\n"+one("{timeout: 2s, retry: {off: true}}", "http://a:1"), nil)
		_, _ = n.raw(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n") // a pipe holds nothing: the first byte waits for a reader
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := g.Routes()[0]; !ended.Load() || s.Tally.Calls == 0 {
			t.Errorf("after a minute the call is still under way: upstream released %t, %+v", ended.Load(), s.Tally)
		}
	})
}

// TestARangeOfWhatIsKeptIsOfItsOwnBytes has a cache before an encoder: a range is one of the answer as it is kept, and a tag
// that stands for the encoded form opens no range of the other.
func TestARangeOfWhatIsKeptIsOfItsOwnBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", typed("application/json", long, true, "Cache-Control", "max-age=60", "Etag", `"v1"`))
		n.start(t, with("payload: {compress: {}}", "{cache: {}}", "http://a:1"), nil)
		c := n.client(t)
		whole := get(t, c, "http://gw:80/", "Accept-Encoding", "gzip")
		if whole.header.Get("Content-Encoding") != "gzip" || whole.header.Get("Accept-Ranges") != "" {
			t.Fatalf("%v", whole.header)
		}
		for _, condition := range []string{"", `"v1"`} {
			got := get(t, c, "http://gw:80/", "Accept-Encoding", "gzip", "Range", "bytes=5-9", "If-Range", condition)
			if condition == "" {
				got = get(t, c, "http://gw:80/", "Accept-Encoding", "gzip", "Range", "bytes=5-9")
			}
			if got.status != 206 || got.body != long[5:10] || got.header.Get("Content-Encoding") != "" || got.header.Get("Etag") != `"v1"` {
				t.Errorf("If-Range %q: %d %q %v", condition, got.status, got.body, got.header)
			}
		}
		got := get(t, c, "http://gw:80/", "Accept-Encoding", "gzip", "Range", "bytes=5-9", "If-Range", whole.header.Get("Etag"))
		if plain, err := payload.Read([]byte(got.body), payload.Gzip, 1<<20); got.status != 200 || err != nil || string(plain) != long {
			t.Errorf("with the tag of the encoded form: %d %v %v", got.status, got.header, err)
		}
		if got := get(t, c, "http://gw:80/", "Accept-Encoding", "gzip", "Range", "bytes=5-9", "Range", "bytes=0-1"); got.status != 200 {
			t.Errorf("two ranges: %d", got.status)
		}
		if got := get(t, c, "http://gw:80/", "Accept-Encoding", "gzip", "Range", "bytes=999999-"); got.status != 416 || got.header.Get("Content-Encoding") != "" {
			t.Errorf("beyond the end: %d %v", got.status, got.header)
		}
	})
}

// TestACredentialIsNobodyElsesKey has answers that do not say for how long they hold depend on fields that name a person.
func TestACredentialIsNobodyElsesKey(t *testing.T) {
	names := []string{"Authorization", "Cookie", "X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "X-Session-Token", "X-Amz-Security-Token", "Private-Token"}
	serve := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(10 * time.Millisecond)
		who := ""
		for _, name := range names {
			who += r.Header.Get(name)
		}
		_, _ = io.WriteString(w, "for "+who)
	}
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		for _, name := range names {
			path := "http://gw:80/" + name
			var run sync.WaitGroup
			for _, user := range []string{"k=ann", "k=bob", ""} {
				run.Go(func() {
					h := []string{name, user}
					if user == "" {
						h = nil
					}
					for range 2 {
						if got := get(t, c, path, h...); got.body != "for "+user {
							t.Errorf("%s %q got the answer %q", name, user, got.body)
						}
					}
				})
			}
			run.Wait()
		}
	})
}

// TestTimeInTheSecondTierIsAge has a client want nothing older than so much of a gateway that had its answer from another.
func TestTimeInTheSecondTierIsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier, o := new(fleet), &origin{serve: answering("body", "Cache-Control", "max-age=600")}
		gateways := []*http.Client{}
		for range 2 {
			n := newNetwork()
			n.serve(t, "a:1", o.ServeHTTP)
			tier.join(n.start(t, one("{cache: {shared: true}}", "http://a:1"), nil))
			gateways = append(gateways, n.client(t))
		}
		get(t, gateways[0], "http://gw:80/")
		synctest.Wait()
		time.Sleep(time.Minute)
		if got := get(t, gateways[1], "http://gw:80/"); got.header.Get("Age") != "60" {
			t.Errorf("from the tier: %v", got.header)
		}
		wantAsked(t, o, "GET /")
		wants(t, "at most two minutes", get(t, gateways[1], "http://gw:80/", "Cache-Control", "max-age=120"), 200, "body", "hit")
		wants(t, "at most ten seconds", get(t, gateways[1], "http://gw:80/", "Cache-Control", "max-age=10"), 200, "body", "fwd=request")
	})
}

// TestReloadsWhileHedgesRunLoseNoAnswer changes policy, endpoints and protocol under calls whose copies run.
func TestReloadsWhileHedgesRunLoseNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		for _, at := range []string{"a:1", "b:1", "c:1"} {
			n.serve(t, at, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if calls.Add(1)%3 == 0 {
					time.Sleep(80 * time.Millisecond)
				}
				_, _ = fmt.Fprintf(w, "%s %s", r.URL.Path, b)
			})
		}
		file := func(i int) string {
			hedge := []string{"{hedge: {after: 5ms}}", "{off: true}", "{hedge: {after: 20ms}}"}[i%3]
			ends := [][]string{{"http://a:1", "http://b:1"}, {"http://b:1", "http://c:1"}, {"http://a:1", "http://b:1", "http://c:1"}}[i%3]
			return one(fmt.Sprintf("{timeout: 5s, retry: %s, limit: {algorithm: none}, breaker: {off: true}}", hedge), ends...)
		}
		g := n.start(t, file(0), nil)
		c := n.client(t)
		var run sync.WaitGroup
		for w := range 8 {
			run.Go(func() {
				for i := range 40 {
					path := fmt.Sprintf("/%d/%d", w, i)
					r := request(t, "PUT", "http://gw:80"+path, strings.NewReader(path))
					if got := do(c, r); got.status != 200 || got.body != path+" "+path {
						t.Errorf("%s: %d %q %v %v", path, got.status, got.body, got.header["X-Longpole-Error"], got.err)
					}
				}
			})
		}
		for i := range 60 {
			time.Sleep(7 * time.Millisecond)
			if err := g.Reload(load(t, file(i))); err != nil {
				t.Error(err)
			}
		}
		run.Wait()
	})
}

// TestAClientThatLeavesADoubledCallLeavesNothingBehind has clients leave before, while and after a copy runs.
func TestAClientThatLeavesADoubledCallLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var running, most atomic.Int64
		for _, at := range []string{"a:1", "b:1"} {
			n.serve(t, at, func(w http.ResponseWriter, r *http.Request) {
				if now := running.Add(1); now > most.Load() {
					most.Store(now)
				}
				defer running.Add(-1)
				select {
				case <-r.Context().Done():
				case <-time.After(time.Hour):
				}
			})
		}
		g := n.start(t, one("{timeout: 2h, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 10ms, budget_ratio: 100%}}, limit: {algorithm: none}}", "http://a:1", "http://b:1"), nil)
		for i := range 20 {
			conn, _ := n.raw(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			time.Sleep(time.Duration(i) * time.Millisecond)
			_ = conn.Close()
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if running.Load() != 0 {
			t.Errorf("%d attempts still run", running.Load())
		}
		if got := g.replay.used.Load(); got != 0 {
			t.Errorf("%d bytes are still kept", got)
		}
	})
}

// TestClientsAreToldToGoBeforeTheGatewayEnds has a client use one connection for one call after another, none of which may be
// repeated: those of the delay before the drain end its connection, so that none meets one that is closed under it.
func TestClientsAreToldToGoBeforeTheGatewayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "body")
		})
		end, ended := n.startMortal(t, "limits: {drain_delay: 5s}\n"+one("{}", "http://a:1"))
		conn, r := n.raw(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		if got := finals(t, r); fmt.Sprint(got) != "[200]" {
			t.Fatal(got)
		}
		end()
		time.Sleep(time.Second)
		go func() {
			_, _ = io.WriteString(conn, strings.Repeat("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 2))
		}()
		if got := finals(t, r); fmt.Sprint(got) != "[200 close]" {
			t.Error("in the delay:", got)
		}
		if got := finals(t, r); fmt.Sprint(got) != "[closed]" {
			t.Error("after that:", got)
		}
		if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 {
			t.Errorf("a new connection in the delay: %+v", got)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// finals reads up to the next final answer, and says whether it ends the connection; informational ones must not say so.
func finals(t *testing.T, r *bufio.Reader) []string {
	t.Helper()
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return []string{"closed"}
		}
		_, _ = io.Copy(io.Discard, res.Body)
		switch {
		case res.StatusCode < 200 && res.Close:
			t.Error("an informational answer ends the connection")
		case res.StatusCode < 200:
		case res.Close:
			return []string{fmt.Sprint(res.StatusCode), "close"}
		default:
			return []string{fmt.Sprint(res.StatusCode)}
		}
	}
}

// TestABodyThatIsNotWantedNeedNotBeSent has clients wait for leave to send a body, and the upstream, or the gateway, say
// that it wants none: the answer comes at once, and what follows it is no request.
func TestABodyThatIsNotWantedNeedNotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var seen []string
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.URL.Path)
			mu.Unlock()
			switch r.URL.Path {
			case "/hang":
				time.Sleep(time.Hour)
			case "/take":
				_, _ = io.Copy(w, r.Body)
			default:
				w.WriteHeader(401)
			}
		})
		n.start(t, "limits: {body_bytes: 1000}\n"+one("{timeout: 2h, retry: {off: true}, limit: {algorithm: fixed, limit: 2}}", "http://a:1"), nil)
		ask := func(path string, length int, want string, most time.Duration) {
			t.Helper()
			start := time.Now()
			conn, r := n.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", path, length))
			if got := finals(t, r); fmt.Sprint(got) != want || time.Since(start) > most {
				t.Errorf("%s: %v after %v, want %s", path, got, time.Since(start), want)
			}
			go func() { _, _ = io.WriteString(conn, "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n") }()
			if got := finals(t, r); fmt.Sprint(got) != "[closed]" {
				t.Errorf("%s: then %v", path, got)
			}
		}
		ask("/deny", 35, "[401 close]", 0)
		ask("/deny", 2000, "[413 close]", 0)
		conn, r := n.raw(t, "POST /take HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 100 {
			t.Errorf("%+v, %v", res, err)
		}
		go func() { _, _ = io.WriteString(conn, "body") }()
		if got := finals(t, r); fmt.Sprint(got) != "[200]" {
			t.Errorf("a body that is wanted: %v", got)
		}
		for range 2 {
			_, _ = n.raw(t, "GET /hang HTTP/1.1\r\nHost: h\r\n\r\n")
		}
		time.Sleep(time.Second)
		ask("/deny", 35, "[503 close]", time.Second)
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(strings.Join(seen, " "), "evil") {
			t.Errorf("the upstream saw %v", seen)
		}
	})
}

// TestAStaleAnswerIsNobodyElses has an upstream fail after it has answered callers who said who they are.
func TestAStaleAnswerIsNobodyElses(t *testing.T) {
	var down atomic.Bool
	serve := func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1")
		if r.URL.Path == "/any" {
			w.Header().Set("Vary", "*")
		}
		_, _ = io.WriteString(w, "for "+r.Header.Get("Authorization")+r.Header.Get("X-User"))
	}
	cached(t, "{cache: {ttl: 1s, stale_if_error: 1h, stale_while_revalidate: 1h}, retry: {off: true}, breaker: {off: true}}", serve, func(t *testing.T, n *network, o *origin) {
		c := n.client(t)
		down.Store(false)
		for _, path := range []string{"/own", "/any"} {
			name := map[string]string{"/own": "Authorization", "/any": "X-User"}[path]
			get(t, c, "http://gw:80"+path, name, "ann")
			if got := get(t, c, "http://gw:80"+path, name, "bob"); got.body != "for bob" {
				t.Errorf("%s fresh: %q", path, got.body)
			}
		}
		time.Sleep(2 * time.Second)
		down.Store(true)
		for _, path := range []string{"/own", "/any"} {
			for _, h := range [][]string{nil, {"Authorization", "bob"}, {"X-User", "bob"}, {"Cache-Control", "max-stale"}} {
				if got := get(t, c, "http://gw:80"+path, h...); got.status != 500 {
					t.Errorf("%s %v: %d %q", path, h, got.status, got.body)
				}
			}
		}
	})
}

func TestACallThatGoesInACircleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		g := n.start(t, one("{timeout: 1h, retry: {off: true}, breaker: {off: true}}", "http://gw:80"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.status != http.StatusLoopDetected {
			t.Errorf("%d %v", got.status, got.err)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Calls != maxHops {
			t.Errorf("it went round %d times", s.Calls)
		}
	})
}

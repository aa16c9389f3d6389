package gateway

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAFieldThatIsDroppedOnTheWayIsInNoKey has a client declare a field that answers depend on to be of the connection
// alone: the upstream does not see it, and so its answer is that for a request without it.
func TestAFieldThatIsDroppedOnTheWayIsInNoKey(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Language")
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = fmt.Fprint(w, "in ", r.Header.Get("Accept-Language"), " for ", r.Header.Get("Cookie"), r.Header.Get("Authorization"))
	}
	cached(t, "{cache: {ttl: 1m}}", serve, func(t *testing.T, n *network, o *origin) {
		for i, attack := range []string{"Connection: Accept-Language\r\nAccept-Language: de\r\n", "Connection: Cookie\r\nCookie: a\r\nAccept-Language: de\r\n"} {
			path := fmt.Sprint("/", i)
			_, r := n.raw(t, "GET "+path+" HTTP/1.1\r\nHost: gw:80\r\n"+attack+"\r\n")
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
				t.Fatalf("%+v, %v", res, err)
			}
			if got := get(t, n.client(t), "http://gw:80"+path, "Accept-Language", "de"); got.body != "in de for " {
				t.Errorf("%q: others get %q", attack, got.body)
			}
		}
	})
}

// TestAnErrorThatOneClientCausesIsKeptForNobody covers CPDoS: oversized heads, meta characters and overrides of the method,
// refused here or by an upstream with other limits than ours, whatever it says of the time for which its answer holds.
func TestAnErrorThatOneClientCausesIsKeptForNobody(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		status := 200
		switch {
		case len(r.Header.Get("X-Large")) > 8<<10:
			status = 431
		case r.Header.Get("X-Meta") != "":
			status = 400
			w.Header().Del("Cache-Control") // with it, who answers so wants it kept
		case r.Header.Get("X-Http-Method-Override") != "" || r.Header.Get("X-Method-Override") != "" || r.Header.Get("X-Http-Method") != "":
			status = 405
		case r.Header.Get("Range") != "" && r.URL.Path != "/":
			status = 416
		case r.Header.Get("Expect") != "":
			status = 417
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, status)
	}
	cached(t, "{cache: {ttl: 1m}, retry: {off: true}, breaker: {off: true}}", serve, func(t *testing.T, n *network, o *origin) {
		for i, attack := range []string{
			"X-Large: " + strings.Repeat("a", 10<<10), "X-Large: " + strings.Repeat("a", 80<<10), "X-Meta: \x07", "X-Meta: \\n", "X-HTTP-Method-Override: POST",
			"X-Method-Override: DELETE", "X-HTTP-Method: PUT", "Range: bytes=cow-pig", "Expect: 200-ok", "X-Meta : 1",
		} {
			path := fmt.Sprint("/", i)
			_, r := n.raw(t, "")
			conn, _ := n.dial(t.Context(), "tcp", "gw:80")
			go func() {
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: gw:80\r\nConnection: close\r\n%s\r\n\r\n", path, attack)
			}()
			r.Reset(conn)
			_, _ = http.ReadResponse(r, nil)
			_ = conn.Close()
			if got := get(t, n.client(t), "http://gw:80"+path); got.status != 200 || got.body != "200" {
				t.Errorf("%.40q: others get %d", attack, got.status)
			}
		}
	})
}

// TestTheHerdBehindAFailingFetchIsServed has many calls wait for one fetch that ends in nothing.
func TestTheHerdBehindAFailingFetchIsServed(t *testing.T) {
	var calls atomic.Int64
	serve := func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		}
		_, _ = fmt.Fprint(w, "body")
	}
	cached(t, "{cache: {ttl: 1m}, retry: {off: true}, breaker: {off: true}, limit: {algorithm: none}}", serve, func(t *testing.T, n *network, o *origin) {
		paths := make([]string, 100)
		for i := range paths {
			paths[i] = "/"
		}
		failed := 0
		for _, got := range atOnce(t, n, paths) {
			if got.status != 200 {
				failed++
			}
		}
		if failed > 1 {
			t.Errorf("%d of 100 failed with the one that fetched", failed)
		}
	})
}

// TestWhatAClientNamesGrowsNothing has each call name a host, a tenant, a user agent, a path, a query and fields to vary by
// that were never seen before.
func TestWhatAClientNamesGrowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "User-Agent, Accept")
			_, _ = w.Write(make([]byte, 100))
		})
		file := one("{cache: {ttl: 1h, max_bytes: 1MiB}, limit: {algorithm: adaptive, tenants: 16, queue: {}, rate: {per_second: 1000000, per_tenant: true, tenants: 100}}}", "http://a:1")
		file = strings.Replace(file, "name: all,", "name: all, tenant: {header: X-Tenant, trust_all: true}, priority: {header: X-Tier, trust_all: true},", 1)
		g := n.start(t, file, nil)
		c := n.client(t)
		round := func(from, to int) uint64 {
			for i := from; i < to; i++ {
				r := request(t, "GET", fmt.Sprintf("http://gw:80/%d?q=%d", i, i), nil, "X-Tenant", fmt.Sprint("tenant-", strings.Repeat("x", 500), i), "User-Agent", fmt.Sprint("agent ", i),
					"X-Tier", fmt.Sprint(i), "Traceparent", fmt.Sprintf("00-%032x-%016x-01", i+1, i+1), "X-Forwarded-For", fmt.Sprint("10.0.", i/256%256, ".", i%256), "Idempotency-Key", fmt.Sprint(i))
				r.Host = fmt.Sprintf("host-%d.example", i)
				if got := do(c, r); got.status != 200 {
					t.Fatalf("call %d: %+v", i, got)
				}
			}
			time.Sleep(time.Minute) // a clock in a bubble lets go of timers that were stopped only when it moves
			runtime.GC()
			return heap()
		}
		before := round(0, 6000)
		after := round(6000, 18_000)
		if after > before+8<<20 {
			t.Errorf("12000 more names cost %d bytes", after-before)
		}
		if got := len(g.Routes()); got != 1 {
			t.Errorf("%d routes have figures", got)
		}
	})
}

// TestAClockThatIsWrongShortensNothing has an upstream whose clock is an hour off: what it says of times is relative to
// its own Date.
func TestAClockThatIsWrongShortensNothing(t *testing.T) {
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		var calls atomic.Int64
		serve := func(w http.ResponseWriter, r *http.Request) {
			its := time.Now().Add(off).UTC()
			w.Header().Set("Date", its.Format(http.TimeFormat))
			if r.URL.Path == "/expires" {
				w.Header().Set("Expires", its.Add(time.Minute).Format(http.TimeFormat))
			} else {
				w.Header().Set("Cache-Control", "max-age=60")
			}
			_, _ = fmt.Fprint(w, calls.Add(1))
		}
		cached(t, "{cache: {jitter: 0.001}}", serve, func(t *testing.T, n *network, o *origin) {
			c := n.client(t)
			for _, path := range []string{"/expires", "/max-age"} {
				get(t, c, "http://gw:80"+path)
				time.Sleep(30 * time.Second)
				got := get(t, c, "http://gw:80"+path)
				// A Date in the past may be an answer that was long under way (RFC 9111 section 4.2.3): then it is old.
				if hit := strings.Contains(got.header.Get("Cache-Status"), "hit"); hit != (off >= 0) || got.status != 200 {
					t.Errorf("a clock that is %v off, %s: %d %q", off, path, got.status, got.header.Get("Cache-Status"))
				}
				time.Sleep(time.Minute)
				if got := get(t, c, "http://gw:80"+path); strings.Contains(got.header.Get("Cache-Status"), "hit") {
					t.Errorf("a clock that is %v off, %s: kept for too long", off, path)
				}
			}
		})
	}
}

// TestADeadlineDoesNotDependOnAnyClock has a caller say how much time is left: an instant would mean another time to a
// host whose clock is wrong, and no header of the caller can change what it means.
func TestADeadlineDoesNotDependOnAnyClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var left atomic.Value
		n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) {
			left.Store(r.Header.Get("X-Request-Timeout-Ms"))
			<-r.Context().Done()
		})
		n.start(t, one("{timeout: 1h, retry: {off: true}}", "http://a:1"), nil)
		for _, off := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
			got := get(t, n.client(t), "http://gw:80/", "X-Request-Timeout-Ms", "2000", "Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			if got.status != 504 || got.took != 2*time.Second || left.Load() != "2000" {
				t.Errorf("got %d after %v; the upstream was told %v", got.status, got.took, left.Load())
			}
		}
	})
}

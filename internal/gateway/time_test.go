package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/call"
)

func ok(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// slow answers after d, unless the gateway gives up before; then it counts in gone.
func slow(d time.Duration, text string, gone *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			_, _ = io.WriteString(w, text)
		case <-r.Context().Done():
			gone.Add(1)
		}
	}
}

func TestAnUpstreamThatIsLateGives504(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(time.Hour, "", &gone))
		g := n.start(t, one("{timeout: 300ms}", "http://a:1"), nil)
		got := get(t, n.client(t), "http://gw:80/")
		if got.status != 504 || got.took != 300*time.Millisecond || got.header.Get("X-Longpole-Error") != "timeout" || !strings.Contains(got.body, `"route":"all"`) {
			t.Errorf("got %+v", got)
		}
		synctest.Wait()
		if gone.Load() != 1 {
			t.Error("the upstream was not told")
		}
		if s := g.Routes()[0]; s.Tally.TimedOut != 1 || s.Classes["timeout"] != 1 || s.Endpoints[0].InFlight != 0 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestATryTimeoutGoesOnToAnotherEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(time.Hour, "", &gone))
		n.serve(t, "b:1", ok("b"))
		g := n.start(t, one("{try_timeout: 100ms, balance: {algorithm: round_robin}}", "http://a:1", "http://b:1"), nil)
		for range 4 {
			if got := get(t, n.client(t), "http://gw:80/"); got.body != "b" || got.took > 150*time.Millisecond {
				t.Errorf("got %+v", got)
			}
		}
		if s := g.Routes()[0]; s.Tally.Retries == 0 || s.Tally.Failed != 0 {
			t.Errorf("tally is %+v", s.Tally)
		}
	})
}

func TestAHedgeCutsTheTailAndItsLoserHarmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone, calls atomic.Int64
		tail := slow(time.Second, "a", &gone)
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1)%2 == 0 {
				tail(w, r)
				return
			}
			_, _ = io.WriteString(w, "a")
		})
		n.serve(t, "b:1", ok("b"))
		var spans collector
		g := n.start(t, one("{retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 50ms, budget_ratio: 100%}}, balance: {algorithm: round_robin}}", "http://a:1", "http://b:1"), spans.add)
		c := n.client(t)
		for range 20 {
			got := get(t, c, "http://gw:80/")
			if got.status != 200 || got.err != nil || got.took != 0 && got.took != 50*time.Millisecond {
				t.Errorf("got %+v", got)
			}
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		s := g.Routes()[0]
		if s.Tally.Hedges == 0 || uint64(gone.Load()) != s.Tally.Hedges || s.Tally.Failed != 0 {
			t.Errorf("%d losers left, tally is %+v", gone.Load(), s.Tally)
		}
		for _, e := range s.Endpoints {
			if e.InFlight != 0 || e.Breaker != "closed" {
				t.Errorf("endpoint is %+v", e)
			}
		}
		checkTree(t, spans.all())
	})
}

func TestAPostIsNeitherRetriedNorHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			time.Sleep(time.Second)
			w.WriteHeader(500)
		})
		n.start(t, one("{retry: {hedge: {after: 10ms}}}", "http://a:1"), nil)
		c := n.client(t)
		if got := do(c, request(t, "POST", "http://gw:80/", strings.NewReader("x"))); got.status != 500 || calls.Load() != 1 {
			t.Errorf("got %+v after %d attempts", got, calls.Load())
		}
		calls.Store(0)
		got := do(c, request(t, "POST", "http://gw:80/", strings.NewReader("x"), "Idempotency-Key", "1"))
		if got.status != 500 || calls.Load() < 2 {
			t.Errorf("with a key: got %+v after %d attempts", got, calls.Load())
		}
	})
}

func TestAPostIsRetriedWhenNothingWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "b:1", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		n.start(t, one("{balance: {algorithm: round_robin}}", "http://a:1", "http://b:1"), nil)
		for _, body := range []io.Reader{strings.NewReader("known"), io.MultiReader(strings.NewReader("known"))} {
			for range 2 {
				if got := do(n.client(t), request(t, "POST", "http://gw:80/", body)); got.status != 200 {
					t.Errorf("got %+v", got)
				}
				body = io.MultiReader(strings.NewReader("known"))
			}
		}
	})
}

func TestAClientThatLeavesEndsTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(time.Hour, "", &gone))
		g := n.start(t, one("{}", "http://a:1"), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := do(n.client(t), request(t, "GET", "http://gw:80/", nil).WithContext(ctx))
		if !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("got %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; gone.Load() != 1 || s.Classes["canceled"] != 1 || s.Tally.Failed != 0 || s.Endpoints[0].InFlight != 0 {
			t.Errorf("%d told; status is %+v", gone.Load(), s)
		}
	})
}

func TestAnAnswerThatBreaksOffIsBrokenOffToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		g := n.start(t, one("{}", "http://a:1"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.err == nil || got.body != "half" {
			t.Errorf("got %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Classes["server"] != 1 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestTimeoutCoversTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		g := n.start(t, one("{timeout: 1s}", "http://a:1"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.err == nil || got.took != time.Second {
			t.Errorf("got %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Classes["timeout"] != 1 {
			t.Errorf("status is %+v", s.Classes)
		}
	})
}

func TestAStreamIsFlushedAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				_, _ = fmt.Fprintf(w, "%d\n", i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		})
		n.start(t, one("{cache: {}}", "http://a:1"), nil)
		start := time.Now()
		res, err := n.client(t).Do(request(t, "GET", "http://gw:80/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for i := range 3 {
			line := make([]byte, 2)
			if _, err := io.ReadFull(res.Body, line); err != nil || time.Since(start) != time.Duration(i)*time.Second {
				t.Errorf("line %d came after %v: %v", i, time.Since(start), err)
			}
		}
	})
}

func TestAStalledUploadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		g := n.start(t, "limits: {stall_timeout: 2s}\n"+one("{}", "http://a:1"), nil)
		for _, size := range []int{10, 1 << 20} { // kept for a retry; streamed
			conn, err := n.dial(t.Context(), "tcp", "gw:80")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n12345", size)
			start := time.Now()
			b, _ := io.ReadAll(conn)
			if !strings.HasPrefix(string(b), "HTTP/1.1 408 ") || time.Since(start) < 2*time.Second || time.Since(start) > 4*time.Second {
				t.Errorf("%d: after %v got %q", size, time.Since(start), b)
			}
			_ = conn.Close()
		}
		if s := g.Routes()[0]; s.Classes["client"] != 2 {
			t.Errorf("status is %+v", s.Classes)
		}
	})
}

func TestActiveChecksTakeAnEndpointOutAndBringItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var sick atomic.Bool
		health := func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if name == "a" && sick.Load() {
					w.WriteHeader(503)
				}
				_, _ = io.WriteString(w, name)
			}
		}
		n.serve(t, "a:1", health("a"))
		n.serve(t, "b:1", health("b"))
		file := strings.Replace(one("{retry: {off: true}, breaker: {off: true}, balance: {algorithm: round_robin}}", "http://a:1", "http://b:1"), "]}", "], health: {path: /h}}", 1)
		g := n.start(t, file, nil)
		share := func() (a int) {
			for range 10 {
				if get(t, n.client(t), "http://gw:80/").body == "a" {
					a++
				}
			}
			return a
		}
		time.Sleep(3 * time.Second)
		if a := share(); a != 5 {
			t.Errorf("well: %d of 10 to a", a)
		}
		sick.Store(true)
		time.Sleep(3 * time.Second)
		if a := share(); a != 0 || g.Routes()[0].Endpoints[0].Healthy {
			t.Errorf("sick: %d of 10 to a", a)
		}
		if err := g.Reload(load(t, strings.Replace(file, "path: /h", "path: /health, interval: 500ms", 1))); err != nil {
			t.Fatal(err)
		}
		if a := share(); a != 0 {
			t.Errorf("sick, after a reload: %d of 10 to a", a)
		}
		sick.Store(false)
		time.Sleep(3 * time.Second)
		if a := share(); a != 5 {
			t.Errorf("well again: %d of 10 to a", a)
		}
	})
}

func TestKillingUpstreamsUnderLoadHangsNothingAndHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		kill := map[string]func(){}
		up := func(name string) {
			kill[name] = n.serve(t, name, func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(5 * time.Millisecond)
				_, _ = io.WriteString(w, "fine")
			})
		}
		up("a:1")
		up("b:1")
		g := n.start(t, strings.Replace(one("{timeout: 2s, breaker: {open_for: 1s}}", "http://a:1", "http://b:1"), "]}", "], health: {path: /}}", 1), nil)
		c := n.client(t)
		var mu sync.Mutex
		phase, seen := "whole", map[string]map[int]int{}
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for range 10 {
			load.Go(func() {
				for ctx.Err() == nil {
					mu.Lock()
					at := phase
					mu.Unlock()
					got := get(t, c, "http://gw:80/")
					if got.err != nil || got.took > 2100*time.Millisecond {
						t.Errorf("%s: got %+v", at, got)
					}
					mu.Lock()
					if seen[at] == nil {
						seen[at] = map[int]int{}
					}
					seen[at][got.status]++
					mu.Unlock()
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		turn := func(next string) {
			time.Sleep(5 * time.Second)
			mu.Lock()
			phase = next
			mu.Unlock()
		}
		turn("one dies")
		kill["a:1"]()
		turn("all die")
		kill["b:1"]()
		turn("all dead")
		turn("they come back")
		up("a:1")
		up("b:1")
		turn("whole again")
		turn("")
		stop()
		load.Wait()
		for _, well := range []string{"whole", "one dies", "whole again"} {
			total := 0
			for _, count := range seen[well] {
				total += count
			}
			if bad := total - seen[well][200]; total < 1000 || bad > total/100 {
				t.Errorf("%s: %v", well, seen[well])
			}
		}
		for status := range seen["all dead"] {
			if status != 502 && status != 503 && status != 504 {
				t.Errorf("all dead: %v", seen["all dead"])
			}
		}
		synctest.Wait()
		for _, e := range g.Routes()[0].Endpoints {
			if e.InFlight != 0 || !e.Healthy || e.Breaker != "closed" {
				t.Errorf("at the end: %+v", e)
			}
		}
	})
}

func TestWithoutChecksTheBreakerAloneHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.start(t, one("{retry: {off: true}, breaker: {min_calls: 5, open_for: 1s}}", "http://a:1"), nil)
		c := n.client(t)
		var got []string
		for range 8 {
			a := get(t, c, "http://gw:80/")
			got = append(got, fmt.Sprint(a.status, " ", a.header.Get("X-Longpole-Error"), " ", a.header.Get("Retry-After")))
		}
		want := append(repeat("502 refused ", 5), repeat("503 breaker_open 1", 3)...)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v", got)
		}
		n.serve(t, "a:1", ok("back"))
		time.Sleep(1100 * time.Millisecond)
		for range 10 {
			if a := get(t, c, "http://gw:80/"); a.body != "back" {
				t.Errorf("got %+v", a)
			}
		}
	})
}

func repeat(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

func TestRunDrainsBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(3*time.Second, "in time", &gone))
		n.serve(t, "b:1", slow(time.Hour, "", &gone))
		end, ended := n.startMortal(t, `
listen: gw:80
limits: {drain_timeout: 5s}
upstreams: {a: {endpoints: http://a:1}, b: {endpoints: http://b:1}}
routes: [{name: a, match: {path: /a}, upstream: a}, {name: b, match: {path: /b}, upstream: b, policy: {timeout: 1h}}]
`)
		c := n.client(t)
		if idle, err := n.dial(t.Context(), "tcp", "gw:80"); err != nil {
			t.Error(err)
		} else {
			defer idle.Close()
		}
		var calls sync.WaitGroup
		calls.Go(func() {
			if got := get(t, c, "http://gw:80/a"); got.body != "in time" {
				t.Errorf("got %+v", got)
			}
		})
		calls.Go(func() {
			if got := get(t, c, "http://gw:80/b"); got.err == nil {
				t.Errorf("got %+v", got)
			}
		})
		time.Sleep(time.Second)
		start := time.Now()
		end()
		if err := <-ended; err != nil || time.Since(start) < 5*time.Second || time.Since(start) > 6*time.Second {
			t.Errorf("ended after %v: %v", time.Since(start), err)
		}
		calls.Wait()
		synctest.Wait()
		if gone.Load() != 1 {
			t.Errorf("%d upstream calls were cut; want 1", gone.Load())
		}
	})
}

func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					break
				}
			}
			gone.Add(1)
		})
		g := n.start(t, "limits: {stall_timeout: 3s}\n"+one("{timeout: 1h}", "http://a:1"), nil)
		conn, err := n.dial(t.Context(), "tcp", "gw:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := g.Routes()[0]; gone.Load() != 1 || s.Classes["canceled"] != 1 || s.Endpoints[0].InFlight != 0 {
			t.Errorf("%d told; status is %+v", gone.Load(), s.Classes)
		}
	})
}

func TestASlowHeadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		n.start(t, "limits: {header_timeout: 2s, idle_timeout: 5s}\n"+one("{}", "http://a:1"), nil)
		for text, want := range map[string]time.Duration{"GET / HTTP/1.1\r\nHost": 2 * time.Second, "": 2 * time.Second, "GET / HTTP/1.1\r\nHost: gw\r\n\r\n": 5 * time.Second} {
			conn, err := n.dial(t.Context(), "tcp", "gw:80")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, _ = io.WriteString(conn, text)
			_, _ = io.Copy(io.Discard, conn)
			if took := time.Since(start); took < want || took > want+time.Second {
				t.Errorf("%q: closed after %v; want %v", text, took, want)
			}
			_ = conn.Close()
		}
	})
}

func TestALongUploadToASlowUpstreamIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Second)
			size, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, size, " ", err)
		})
		n.start(t, "limits: {stall_timeout: 1s}\n"+one("{}", "http://a:1"), nil)
		got := do(n.client(t), request(t, "POST", "http://gw:80/", strings.NewReader(strings.Repeat("x", 1<<20))))
		if got.body != "1048576 <nil>" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnIdleConnectionDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		end, ended := n.startMortal(t, one("{}", "http://a:1"))
		conn, err := n.dial(t.Context(), "tcp", "gw:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		synctest.Wait()
		start := time.Now()
		end()
		if err := <-ended; err != nil || time.Since(start) > time.Second {
			t.Errorf("ended after %v: %v", time.Since(start), err)
		}
	})
}

func TestMoreConnectionsThanTheLimitWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var now, most atomic.Int64
		n.serve(t, "a:1", func(http.ResponseWriter, *http.Request) {
			if at := now.Add(1); at > most.Load() {
				most.Store(at)
			}
			time.Sleep(time.Second)
			now.Add(-1)
		})
		n.start(t, "limits: {connections: 3}\n"+one("{}", "http://a:1"), nil)
		var run sync.WaitGroup
		start := time.Now()
		for range 9 {
			run.Go(func() {
				c := n.client(t)
				if got := get(t, c, "http://gw:80/"); got.status != 200 {
					t.Errorf("got %+v", got)
				}
				c.CloseIdleConnections()
			})
		}
		run.Wait()
		if most.Load() != 3 || time.Since(start) != 3*time.Second {
			t.Errorf("%d at once, %v in all", most.Load(), time.Since(start))
		}
	})
}

func TestHostsRouteToTheirUpstreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		for _, name := range []string{"a:1", "b:1", "c:1"} {
			n.serve(t, name, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, name, " as ", r.Host) })
		}
		n.start(t, `
listen: gw:80
upstreams: {a: {endpoints: http://a:1}, b: {endpoints: http://b:1, rewrite_host: true}, c: {endpoints: http://c:1}}
routes:
  - {name: shop, match: {host: Shop.example}, upstream: a}
  - {name: tenants, match: {host: "*.shop.example", method: GET}, upstream: b}
  - {name: rest, match: {path: /rest}, upstream: c}
`, nil)
		for target, want := range map[string]string{
			"shop.example/":      "200 a:1 as shop.example",
			"SHOP.example:80/x":  "200 a:1 as SHOP.example:80",
			"one.shop.example/":  "200 b:1 as b:1",
			"other.example/rest": "200 c:1 as other.example",
			"other.example/":     "404 no_route",
		} {
			host, path, _ := strings.Cut(target, "/")
			r := request(t, "GET", "http://gw:80/"+path, nil)
			r.Host = host
			got := do(n.client(t), r)
			text := got.body
			if got.status != 200 {
				text = got.header.Get("X-Longpole-Error")
			}
			if s := fmt.Sprint(got.status, " ", text); s != want {
				t.Errorf("%s: got %s; want %s", target, s, want)
			}
		}
	})
}

func TestRetriesUseTheConnectionsThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var dials, calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1)%2 == 1 {
				w.WriteHeader(503)
			}
			_, _ = io.WriteString(w, "some text")
		})
		count := func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return n.dial(ctx, network, address)
		}
		run(t, load(t, one("{retry: {budget_ratio: 100%, min_per_second: 1000}, breaker: {off: true}}", "http://a:1")), Options{Dial: count, Listen: n.listen})
		for range 20 {
			if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 {
				t.Errorf("got %+v", got)
			}
		}
		if dials.Load() != 1 {
			t.Errorf("%d connections for %d attempts", dials.Load(), calls.Load())
		}
	})
}

func TestRetryAfterIsReadOn429AndOn503(t *testing.T) {
	x := &exchange{body: &inbound{}}
	for status, want := range map[int]call.Class{429: call.Server, 503: call.Server, 404: call.Client} {
		res := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {"2"}}}
		out := x.Judge(res, nil)
		if out.Class != want || want == call.Server && out.Pushback != 2*time.Second {
			t.Errorf("%d: %+v", status, out)
		}
	}
	if out := x.Judge(&http.Response{StatusCode: 429}, nil); out.Class != call.Client {
		t.Errorf("429 that says nothing more: %+v", out)
	}
}

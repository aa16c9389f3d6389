package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/retry"
)

// TestAReloadDropsNothingThatIsUnderWay has streams, tunnels and slow calls run through reloads that change all around them,
// even the route and the upstream that they belong to.
func TestAReloadDropsNothingThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		echo := switching("echo/1", func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/x":
				echo(w, r)
			case "/events":
				w.Header().Set("Content-Type", "text/event-stream")
				for i := range 5 {
					_, _ = fmt.Fprintf(w, "%d", i)
					_ = http.NewResponseController(w).Flush()
					time.Sleep(5 * time.Second)
				}
			case "/upload":
				b, err := io.ReadAll(r.Body)
				_, _ = fmt.Fprint(w, len(b), err)
			default:
				time.Sleep(20 * time.Second)
				_, _ = io.WriteString(w, "slow")
			}
		})
		n.serve(t, "b:1", ok("b"))
		file := one("{timeout: 1h}", "http://a:1")
		g := n.start(t, file, nil)
		conn, r := n.raw(t, askEcho)
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("%+v, %v", res, err)
		}
		w := n.wire2(t, false)
		if err := w.ask(1, "GET", "/slow", true); err != nil {
			t.Fatal(err)
		}
		var run sync.WaitGroup
		for path, want := range map[string]string{"/events": "01234", "/slow": "slow"} {
			run.Go(func() {
				if got := get(t, n.client(t), "http://gw:80"+path); got.body != want || got.err != nil {
					t.Errorf("%s: %+v", path, got)
				}
			})
		}
		run.Go(func() {
			body, feed := io.Pipe()
			go func() {
				for range 10 {
					_, _ = feed.Write(make([]byte, 100<<10))
					time.Sleep(2 * time.Second)
				}
				_ = feed.Close()
			}()
			if got := do(n.client(t), request(t, "POST", "http://gw:80/upload", body)); got.body != "1024000 <nil>" {
				t.Errorf("upload: %+v", got)
			}
		})
		for i, next := range []string{
			one("{timeout: 2s}", "http://b:1"),
			strings.NewReplacer("{up:", "{new:", "upstream: up", "upstream: new", "all,", "other,").Replace(one("{cache: {}}", "http://b:1")),
			"listen: gw:80\nupstreams: {b: {endpoints: 'http://b:1'}}\nroutes:\n- {name: none, static: {status: 204}}\n",
			file,
		} {
			time.Sleep(3 * time.Second)
			if err := g.Reload(load(t, next)); err != nil {
				t.Fatalf("reload %d: %v", i, err)
			}
			_, _ = io.WriteString(conn, "ping")
			got := make([]byte, 4)
			if _, err := io.ReadFull(r, got); err != nil || string(got) != "ping" {
				t.Errorf("the tunnel after reload %d: %q, %v", i, got, err)
			}
		}
		run.Wait()
		if got := w.outcome(1); got != "200" || w.over() {
			t.Errorf("the stream of HTTP/2: %q", got)
		}
		_ = conn.Close()
	})
}

// changing is what differs from call to call whatever the policy: identifiers and times.
var changing = regexp.MustCompile(`(?m)^(Traceparent|Date): .*\r\n`)

// conversation makes the same calls on a new connection and returns every byte that went to the upstream and that came to
// the client, less what is changing.
func conversation(t *testing.T, n *network, seen *spyglass) string {
	t.Helper()
	seen.take()
	var all strings.Builder
	for _, text := range []string{
		"GET /plain?a=1;b=2 HTTP/1.1\r\nHost: h\r\nAccept: x\r\nCookie: a=b\r\n\r\n",
		"GET /plain?a=1;b=2 HTTP/1.1\r\nHost: h\r\nAccept: x\r\n\r\n", // a cache would answer it
		"POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nX-Request-Timeout-Ms: 5000\r\n\r\nbody",
		"PUT /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
		"GET /fails HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD /plain HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		conn, _ := n.raw(t, strings.Replace(text, "Host: h\r\n", "Host: h\r\nConnection: close\r\n", 1))
		b, _ := io.ReadAll(conn)
		_ = conn.Close()
		all.Write(b)
		synctest.Wait()
		all.WriteString(seen.take())
		time.Sleep(15 * time.Second) // budgets and breakers are as before
	}
	return changing.ReplaceAllString(all.String(), "")
}

// spyglass notes all that is sent to the connections it is given.
type spyglass struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *spyglass) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

type spied struct {
	net.Conn
	s *spyglass
}

// Write notes what is written.
func (c *spied) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	c.s.text.Write(p)
	c.s.mu.Unlock()
	return c.Conn.Write(p)
}

// TestARollbackRestoresTheBehaviourToTheByte compares what upstreams and clients see before a candidate was staged with what
// they see after it was discarded, or promoted and undone by the file.
func TestARollbackRestoresTheBehaviourToTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Path", r.RequestURI)
			if r.URL.Path == "/fails" {
				w.WriteHeader(503)
			}
			_, _ = w.Write(append([]byte("answer "), b...))
		})
		var seen spyglass
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := n.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &spied{c, &seen}, nil
		}
		file := one("{timeout: 10s, retry: {max_attempts: 2, base_delay: 1ms}}", "http://a:1")
		g := run(t, load(t, file), Options{Dial: dial, Listen: n.listen})
		policy, err := g.Policy("all")
		if err != nil {
			t.Fatal(err)
		}
		before := conversation(t, n, &seen)
		if strings.Count(before, "GET /fails") != 2 || !strings.Contains(before, "X-Request-Timeout-Ms: 5000") {
			t.Fatalf("the conversation shows too little:\n%s", before)
		}
		candidate := longpole.Config{Timeout: time.Second, Retry: &retry.Config{Off: true}, Cache: &cache.Config{TTL: time.Hour}}
		for name, back := range map[string]func() error{
			"discarded": func() error { return g.Discard("all") },
			"promoted, then as before": func() error {
				return errors.Join(g.Promote("all"), g.Stage("all", policy), g.Weight("all", 0.5), g.Promote("all"))
			},
		} {
			if err := errors.Join(g.Stage("all", candidate), g.Weight("all", 0.5)); err != nil {
				t.Fatal(err)
			}
			during := ""
			for range 5 {
				during += conversation(t, n, &seen)
			}
			if !strings.Contains(during, "Cache-Status") {
				t.Errorf("%s: the candidate had no calls", name)
			}
			if err := back(); err != nil {
				t.Fatal(err)
			}
			if after := conversation(t, n, &seen); after != before {
				t.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
			}
		}
	})
}

// TestEightGatewaysAreNoHerd has gateways that know nothing of each other before two endpoints, of which one was slow and is
// well again: they do not all turn to the same one at the same time.
func TestEightGatewaysAreNoHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		now, most, calls := map[string]int{}, map[string]int{}, map[string]int{}
		names := []string{"a:1", "b:1", "c:1", "d:1"}
		for _, name := range names {
			n.serve(t, name, func(http.ResponseWriter, *http.Request) {
				mu.Lock()
				now[name]++
				calls[name]++
				most[name] = max(most[name], now[name])
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				now[name]--
				mu.Unlock()
			})
		}
		var run8 sync.WaitGroup
		for i := range 8 {
			at := fmt.Sprintf("gw%d:80", i)
			file := strings.Replace(one("{limit: {algorithm: none}}", "http://a:1", "http://b:1", "http://c:1", "http://d:1"), "gw:80", at, 1)
			run(t, load(t, file), Options{Dial: n.dial, Listen: n.listen})
			for range 4 {
				c := n.client(t)
				run8.Go(func() {
					for range 100 {
						if got := get(t, c, "http://"+at+"/"); got.status != 200 {
							t.Errorf("%+v", got)
						}
					}
				})
			}
		}
		run8.Wait()
		for _, name := range names { // 32 callers, 4 endpoints: 8 at once for each, if all knew all
			if most[name] > 22 || calls[name] < 500 || calls[name] > 1100 {
				t.Errorf("%s had %d of 3200 calls, %d at once", name, calls[name], most[name])
			}
		}
	})
}

// TestWeightsHoldThroughTheGatewayAfterAnEjection has a heavy endpoint fail and come back.
func TestWeightsHoldThroughTheGatewayAfterAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var sick bool
		calls := map[string]int{}
		for _, name := range []string{"a:1", "b:1", "c:1"} {
			n.serve(t, name, func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				calls[name]++
				if sick && name == "c:1" {
					w.WriteHeader(500)
				}
			})
		}
		n.start(t, one("{balance: {algorithm: weighted, eject: {}}, retry: {off: true}, breaker: {off: true}}", "{url: 'http://a:1', weight: 3}", "{url: 'http://b:1', weight: 1}", "{url: 'http://c:1', weight: 4}"), nil)
		c := n.client(t)
		share := func(rounds int) (a, b, of3 float64) {
			mu.Lock()
			clear(calls)
			mu.Unlock()
			for range rounds {
				get(t, c, "http://gw:80/")
				time.Sleep(5 * time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			return float64(calls["a:1"]) / float64(rounds), float64(calls["b:1"]) / float64(rounds), float64(calls["c:1"]) / float64(rounds)
		}
		if a, b, third := share(800); a < 0.3 || a > 0.45 || b < 0.08 || b > 0.18 || third < 0.42 || third > 0.58 {
			t.Errorf("well: %.2f %.2f %.2f", a, b, third)
		}
		mu.Lock()
		sick = true
		mu.Unlock()
		share(2000)
		if a, b, third := share(800); third > 0.1 || a < 2*b || a > 4*b {
			t.Errorf("one is ejected: %.2f %.2f %.2f", a, b, third)
		}
	})
}

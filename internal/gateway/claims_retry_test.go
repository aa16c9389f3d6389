package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/fault"
)

// generous is a policy under which all that may be repeated is.
const generous = "retry: {base_delay: 1ms, budget_ratio: 100%, min_per_second: 1000}, breaker: {off: true}"

// TestWhatWasSentIsSentAgainOnlyWhenIdempotent has the upstream drop connections after it has read a call: new ones, and
// ones that were used before, on which net/http would repeat by itself.
func TestWhatWasSentIsSentAgainOnlyWhenIdempotent(t *testing.T) {
	for _, tt := range []struct {
		method, body, policy string
		key                  bool
		attempts             int64
	}{
		{"POST", "x", generous, false, 1},
		{"POST", "", generous, false, 1},
		{"PATCH", "x", generous, false, 1},
		{"POST", "x", generous, true, 3},
		{"PUT", "x", generous, false, 3},
		{"GET", "", generous, false, 3},
		{"DELETE", "", generous, false, 3},
		{"GET", "", "retry: {off: true}, breaker: {off: true}", false, 1},
		{"PUT", "x", "retry: {off: true}, breaker: {off: true}", false, 1},
		{"POST", "x", "retry: {off: true}, breaker: {off: true}", true, 1},
	} {
		for i := range 4 {
			used, pooled := i&1 != 0, i&2 != 0
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				var calls atomic.Int64
				n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if r.URL.Path == "/" {
						return
					}
					calls.Add(1)
					panic(http.ErrAbortHandler)
				})
				g := n.start(t, one("{"+tt.policy+"}", "http://a:1"), nil)
				c := n.client(t)
				if pooled { // by the Transport of net/http, which would repeat calls by itself: a fault is for it, though it hits none
					inject(t, g, fault.Config{Abort: 500, Headers: map[string]string{"X-Nobody": "1"}})
				}
				if used {
					var warm sync.WaitGroup
					for range 5 { // a connection for each attempt
						warm.Go(func() { get(t, n.client(t), "http://gw:80/") })
					}
					warm.Wait()
				}
				var header []string
				if tt.key {
					header = []string{"Idempotency-Key", "1"}
				}
				got := do(c, request(t, tt.method, "http://gw:80/x", strings.NewReader(tt.body), header...))
				if got.status != 502 || calls.Load() != tt.attempts {
					t.Errorf("%s %q key %v used %v pooled %v under %s: %d attempts, %+v", tt.method, tt.body, tt.key, used, pooled, tt.policy, calls.Load(), got)
				}
			})
		}
	}
}

func TestNothingIsRepeatedAfterTheHeadWasPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		n.start(t, one("{"+generous+"}", "http://a:1"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.body != "begun" || got.err == nil || calls.Load() != 1 {
			t.Errorf("%+v after %d attempts", got, calls.Load())
		}
	})
}

func TestAFailureOfTheCopyDoesNotBeatALaterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1)%2 == 1 {
				time.Sleep(time.Second)
				_, _ = io.WriteString(w, "success")
				return
			}
			w.WriteHeader(500)
		})
		n.serve(t, "b:1", func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1)%2 == 1 {
				time.Sleep(time.Second)
				_, _ = io.WriteString(w, "success")
				return
			}
			w.WriteHeader(500)
		})
		g := n.start(t, one("{retry: {max_attempts: 2, budget_ratio: 100%, min_per_second: 1000, hedge: {after: 50ms, budget_ratio: 100%}}, breaker: {off: true}}", "http://a:1", "http://b:1"), nil)
		for range 10 {
			calls.Store(0)
			if got := get(t, n.client(t), "http://gw:80/"); got.body != "success" || got.took != time.Second {
				t.Errorf("got %+v", got)
			}
		}
		if s := g.Routes()[0].Tally; s.Hedges == 0 {
			t.Errorf("nothing was hedged: %+v", s)
		}
	})
}

// TestTheBudgetHoldsInAnyTenSecondsOfAnOutage makes calls from many clients at once while the upstream answers 503.
func TestTheBudgetHoldsInAnyTenSecondsOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var calls, attempts []time.Duration
		begun := time.Now()
		note := func(list *[]time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			*list = append(*list, time.Since(begun))
		}
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			note(&attempts)
			w.WriteHeader(503)
		})
		n.start(t, one("{retry: {max_attempts: 5, base_delay: 1ms, budget_ratio: 10%, min_per_second: 1}, breaker: {off: true}, limit: {algorithm: none}}", "http://a:1"), nil)
		var run sync.WaitGroup
		for i := range 20 {
			c := n.client(t)
			run.Go(func() {
				for time.Since(begun) < 30*time.Second {
					note(&calls)
					get(t, c, "http://gw:80/")
					time.Sleep(time.Duration(40+i) * time.Millisecond)
				}
			})
		}
		run.Wait()
		within := func(list []time.Duration, from time.Duration) (count int) {
			for _, at := range list {
				if at >= from && at < from+10*time.Second {
					count++
				}
			}
			return count
		}
		for from := time.Duration(0); from <= 20*time.Second; from += 500 * time.Millisecond {
			made, sent := within(calls, from), within(attempts, from)
			// A tenth of the calls, one a second, and what the reserve of ten seconds before may have left.
			if extra := sent - made; extra > 2*(made/10+10) || from >= 10*time.Second && extra > made/10+made/50+12 {
				t.Errorf("from %v: %d attempts for %d calls", from, sent, made)
			}
		}
		if len(attempts) == len(calls) {
			t.Error("nothing was tried again")
		}
	})
}

// TestThreeGatewaysInARowDoNotMultiplyTheirRetries has three tiers, each with three attempts, before an upstream that fails.
func TestThreeGatewaysInARowDoNotMultiplyTheirRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var attempts atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			attempts.Add(1)
			w.WriteHeader(503)
		})
		below := "http://a:1"
		for _, at := range []string{"third:80", "second:80", "gw:80"} {
			file := strings.Replace(one("{retry: {max_attempts: 3, base_delay: 1ms}, breaker: {off: true}, limit: {algorithm: none}}", below), "gw:80", at, 1)
			run(t, load(t, file), Options{Dial: n.dial, Listen: n.listen})
			below = "http://" + at
		}
		c := n.client(t)
		for range 200 { // the reserves are spent
			get(t, c, "http://gw:80/")
		}
		attempts.Store(0)
		const calls = 2000
		for range calls {
			get(t, c, "http://gw:80/")
		}
		if got := float64(attempts.Load()) / calls; got > 1.25 {
			t.Errorf("%.2f attempts for each call", got)
		}
	})
}

func TestAnUpstreamThatNamesATimeIsLeftInPeaceUntilThen(t *testing.T) {
	for _, tt := range []struct {
		after  func() string
		status int
		took   time.Duration
		calls  int64
	}{
		{func() string { return "2" }, 200, 2 * time.Second, 2},
		{func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) }, 200, 3 * time.Second, 2},
		{func() string { return "3600" }, 503, 0, 1},
		{func() string { return "-5" }, 200, 0, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			var calls atomic.Int64
			n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) == 1 {
					w.Header().Set("Retry-After", tt.after())
					w.WriteHeader(503)
				}
			})
			n.start(t, one("{"+generous+"}", "http://a:1"), nil)
			// The first pause is jittered.
			if got := get(t, n.client(t), "http://gw:80/"); got.status != tt.status || calls.Load() != tt.calls || got.took < tt.took || got.took > tt.took+2*time.Second {
				t.Errorf("%s: %d after %v and %d attempts", tt.after(), got.status, got.took, calls.Load())
			}
		})
	}
}

func TestAHedgedCallIsOneCallToAllThatCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(time.Second, "a", &gone))
		n.serve(t, "b:1", slow(time.Second, "b", &gone))
		const calls = 20
		g := n.start(t, one("{limit: {rate: {per_second: 0.001, burst: 20}}, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 50ms, budget_ratio: 100%}}, breaker: {min_calls: 5}}", "http://a:1", "http://b:1"), nil)
		for i := range calls {
			if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 {
				t.Errorf("call %d: %+v", i, got)
			}
		}
		synctest.Wait()
		s := g.Routes()[0]
		if s.Tally.Calls != calls || s.Tally.Hedges == 0 || s.Tally.Latency.Count() != calls || s.Tally.Failed != 0 || s.Classes["ok"] != calls || s.Tally.Attempts != calls+s.Tally.Hedges {
			t.Errorf("tally is %+v, classes %v", s.Tally, s.Classes)
		}
		for _, e := range s.Endpoints {
			if e.Breaker != "closed" || e.InFlight != 0 {
				t.Errorf("losers are held against %+v", e)
			}
		}
	})
}

func TestNothingIsHedgedWhileCallsAreShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Int64
		n.serve(t, "a:1", slow(300*time.Millisecond, "a", &gone))
		n.serve(t, "b:1", slow(300*time.Millisecond, "b", &gone))
		g := n.start(t, one("{limit: {algorithm: fixed, limit: 2}, retry: {max_attempts: 2, budget_ratio: 100%, min_per_second: 1000, hedge: {after: 50ms, budget_ratio: 100%}}, breaker: {off: true}}", "http://a:1", "http://b:1"), nil)
		var run sync.WaitGroup
		for range 2 {
			run.Go(func() { get(t, n.client(t), "http://gw:80/") })
		}
		synctest.Wait()
		var shed []int
		for range 5 {
			shed = append(shed, get(t, n.client(t), "http://gw:80/").status)
		}
		run.Wait()
		if s := g.Routes()[0].Tally; s.Hedges != 0 || !slices.Equal(shed, []int{503, 503, 503, 503, 503}) {
			t.Errorf("%d hedges; answers %v", s.Hedges, shed)
		}
	})
}

func TestAllAttemptsShareOneDeadline(t *testing.T) {
	for name, policy := range map[string]string{
		"retries": "{timeout: 1s, try_timeout: 400ms, " + generous + "}",
		"hedges":  "{timeout: 1s, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 100ms, budget_ratio: 100%}}, breaker: {off: true}}",
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			var gone atomic.Int64
			var mu sync.Mutex
			var left []string
			hang := slow(time.Hour, "", &gone)
			for _, at := range []string{"a:1", "b:1"} {
				n.serve(t, at, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					left = append(left, r.Header.Get("X-Request-Timeout-Ms"))
					mu.Unlock()
					hang(w, r)
				})
			}
			n.start(t, one(policy, "http://a:1", "http://b:1"), nil)
			got := get(t, n.client(t), "http://gw:80/")
			synctest.Wait()
			if got.status != 504 || got.took != time.Second || len(left) < 2 || int(gone.Load()) != len(left) {
				t.Errorf("%s: %+v; %d of %v were ended", name, got, gone.Load(), left)
			}
			for i := 1; i < len(left); i++ {
				var before, now int
				_, _ = fmt.Sscan(left[i-1]+" "+left[i], &before, &now)
				if now <= 0 || now >= before {
					t.Errorf("%s: attempts were told of %v", name, left)
				}
			}
		})
	}
}

// TestABodyThatIsNotKeptIsWhole has a failing first endpoint and bodies around the bound of what is kept: whatever is
// delivered is the whole body, once for each attempt.
func TestABodyThatIsNotKeptIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var bodies []string
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				bodies = append(bodies, string(b))
			}
			w.WriteHeader(503)
		})
		n.start(t, "limits: {replay_bytes: 1KiB}\n"+one("{"+generous+"}", "http://a:1"), nil)
		for size, attempts := range map[int]int{1000: 3, 1024: 3, 1025: 1, 100_000: 1} {
			var body strings.Builder
			for body.Len() < size {
				fmt.Fprintf(&body, "%d,", body.Len())
			}
			whole := body.String()[:size]
			for _, r := range []io.Reader{strings.NewReader(whole), io.MultiReader(strings.NewReader(whole))} {
				bodies = nil
				got := do(n.client(t), request(t, "PUT", "http://gw:80/", r))
				if got.status != 503 || !slices.Equal(bodies, slices.Repeat([]string{whole}, attempts)) {
					t.Errorf("%d bytes: %d attempts; want %d with the whole body: %+v", size, len(bodies), attempts, got)
				}
			}
		}
	})
}

// TestALoserIsCancelledAtOnce shows that the copy that came too late is told so, and that its connection is not reused.
func TestALoserIsCancelledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		lost := make(chan time.Duration, 1)
		var dials atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			if r.URL.Path == "/tail" {
				<-r.Context().Done()
				lost <- time.Since(start)
			}
		})
		n.serve(t, "b:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/tail" {
				time.Sleep(100 * time.Millisecond)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second) // the head decides, not the end
			}
		})
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return n.dial(ctx, network, address)
		}
		run(t, load(t, one("{balance: {algorithm: round_robin}, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 50ms, budget_ratio: 100%}}, breaker: {off: true}}", "http://a:1", "http://b:1")), Options{Dial: dial, Listen: n.listen})
		c := n.client(t)
		for range 4 {
			if got := get(t, c, "http://gw:80/tail"); got.status != 200 {
				t.Fatalf("got %+v", got)
			}
			if after := <-lost; after > 150*time.Millisecond {
				t.Errorf("the loser was told after %v", after)
			}
			get(t, c, "http://gw:80/")
		}
	})
}

// TestTheRestOfAnAnswerThatNobodyWantsReachesNobody has a client leave in the middle of an answer whose rest comes later, on
// a connection that the next call would be glad of.
func TestTheRestOfAnAnswerThatNobodyWantsReachesNobody(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/next" {
					_, _ = io.WriteString(w, "next")
					return
				}
				evil := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
				w.Header().Set("Content-Length", fmt.Sprint(4+len(evil)))
				_, _ = io.WriteString(w, "half")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
				_, _ = io.WriteString(w, evil)
			})
			g := n.start(t, one("{retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
			if pooled {
				inject(t, g, fault.Config{Abort: 500, Headers: map[string]string{"X-Nobody": "1"}})
			}
			conn, r := n.raw(t, "GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			synctest.Wait()
			if got := get(t, n.client(t), "http://gw:80/next"); got.body != "next" || got.took > 0 {
				t.Errorf("pooled %v: the next call got %+v", pooled, got)
			}
		})
	}
}

// TestTheRestOfAFailureReachesNoRetry has the body of a failure come late, when the call is being made again.
func TestTheRestOfAFailureReachesNoRetry(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			var calls atomic.Int64
			n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) > 1 {
					_, _ = io.WriteString(w, "good")
					return
				}
				rest := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" + strings.Repeat("x", drainBytes)
				w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
				w.WriteHeader(503)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
				_, _ = io.WriteString(w, rest)
			})
			g := n.start(t, one("{"+generous+"}", "http://a:1"), nil)
			if pooled {
				inject(t, g, fault.Config{Abort: 500, Headers: map[string]string{"X-Nobody": "1"}})
			}
			if got := get(t, n.client(t), "http://gw:80/"); got.body != "good" || got.took > 500*time.Millisecond {
				t.Errorf("pooled %v: got %+v", pooled, got)
			}
		})
	}
}

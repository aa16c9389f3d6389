package httppolicy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// cut takes the connection away under the request.
func cut(t *testing.T, w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_ = c.Close()
}

// Once a byte of it was sent nobody knows what a server did with a request, so that only what may be done twice is
// sent again. That holds on a connection that was used before too, where net/http makes one more attempt by itself.
func TestOnceSentOnlyTheIdempotentIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			method, key string
			least, most int64
		}{{"POST", "", 1, 1}, {"POST", "17", 3, 4}, {"PUT", "", 3, 4}, {"GET", "", 3, 4}} {
			n := newNetwork()
			var seen atomic.Int64
			n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/warm" {
					return
				}
				seen.Add(1)
				_, _ = io.ReadFull(r.Body, make([]byte, 1))
				cut(t, w)
			})
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/warm", nil))
			text(t, res, err)
			r := request(t, c.method, "http://a:80/", strings.NewReader("money"))
			if c.method == "GET" {
				r.Body, r.ContentLength, r.GetBody = nil, 0, nil
			}
			if c.key != "" {
				r.Header.Set("Idempotency-Key", c.key)
			}
			_, err = tr.RoundTrip(r)
			if longpole.Class(err) != call.Server || seen.Load() < c.least || seen.Load() > c.most {
				t.Errorf("%s %q: sent %d times, %v; want %d", c.method, c.key, seen.Load(), err, c.least)
			}
		}
	})
}

// The caller has the head by then: what follows cannot be taken back.
func TestAnAnswerThatBreaksOffIsNotAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var seen atomic.Int64
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "half of it")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
		res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if string(got) != "half of it" || !errors.Is(err, io.ErrUnexpectedEOF) || seen.Load() != 1 {
			t.Errorf("%q, %v, asked %d times", got, err, seen.Load())
		}
	})
}

func TestWhatMayNotBeDoneTwiceIsNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for key, want := range map[string]int{"": 1, "17": 2} {
			n := newNetwork()
			slow := func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				time.Sleep(time.Second)
			}
			n.serve(t, "a:80", slow)
			n.serve(t, "b:80", slow)
			rc := atOnce()
			rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
			var rec call.Record
			tr := n.transport(t, longpole.Config{Retry: rc, Balance: inTurn}, record(&rec), "a:80", "b:80")
			r := request(t, "POST", "http://orders/", strings.NewReader("money"))
			if key != "" {
				r.Header.Set("Idempotency-Key", key)
			}
			res, err := tr.RoundTrip(r)
			text(t, res, err)
			if err != nil || rec.Count != want {
				t.Errorf("%q: %d attempts, want %d; %v", key, rec.Count, want, err)
			}
			time.Sleep(time.Second) // the loser's handler
		}
	})
}

func TestRetryAfterIsReadInEveryForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			after  string
			status int
			took   time.Duration
			want   int // the status that the caller sees
		}{
			{"2", 503, 2 * time.Second, 200},
			{"2", 429, 2 * time.Second, 200},
			{"date", 503, 3 * time.Second, 200},
			{"date", 429, 3 * time.Second, 200},
			{"0", 429, 0, 200}, // at once, but it says so
			{"past", 429, 0, 200},
			{"", 429, 0, 429}, // it does not say that a second attempt would do better
			{"soon", 429, 0, 429},
			{"11", 503, 0, 503}, // longer than anybody waits: an earlier attempt would only be refused again
			{"11", 429, 0, 429},
			{"soon", 503, 0, 200},
		} {
			n := newNetwork()
			var seen atomic.Int64
			n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
				if seen.Add(1) > 1 {
					return
				}
				after := c.after
				switch after {
				case "date":
					after = time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat)
				case "past":
					after = time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
				case "":
					w.WriteHeader(c.status)
					return
				}
				w.Header().Set("Retry-After", after)
				w.WriteHeader(c.status)
			})
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
			start := time.Now()
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
			text(t, res, err)
			if d := time.Since(start).Round(ms); err != nil || d != c.took || res.StatusCode != c.want {
				t.Errorf("%d, Retry-After %q: %d after %v, want %d after %v", c.status, c.after, res.StatusCode, d, c.want, c.took)
			}
		}
	})
}

// A server that falls over, is ejected, and then says "too many requests" quickly is not well.
func TestEjectionSurvives429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		start := time.Now()
		var bad, good int
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			bad++
			if time.Since(start) < 5*time.Second {
				w.WriteHeader(503)
				return
			}
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		})
		for _, name := range []string{"b:80", "c:80"} {
			n.serve(t, name, func(http.ResponseWriter, *http.Request) { time.Sleep(10 * ms); good++ })
		}
		tr := n.transport(t, longpole.Config{Balance: &balance.Config{Eject: &balance.Eject{}}}, Options{}, "a:80", "b:80", "c:80")
		for time.Since(start) < 5*time.Minute {
			res, err := tr.RoundTrip(request(t, "POST", "http://orders/", nil))
			text(t, res, err)
			time.Sleep(90 * ms)
		}
		if bad > 12 || good < 2900 {
			t.Errorf("%d calls went to it, %d to the others", bad, good)
		}
	})
}

// The latency of an answer is that of its head: who streams for minutes is neither slow nor busy by it. Who does not
// even accept the connection is.
func TestAStreamIsNoLoadAndAPendingConnectionIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			for range 60 {
				time.Sleep(time.Second)
				fmt.Fprint(w, ".")
				_ = http.NewResponseController(w).Flush()
			}
		})
		hung := &listener{done: make(chan struct{})} // nobody accepts
		n.at["b:80"] = hung
		endpoints := balance.NewSet("a:80")
		p, err := longpole.New(longpole.Config{Timeout: 2 * time.Minute, Limit: &limit.Config{}}, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var rec call.Record
		base := &http.Transport{DialContext: n.dial}
		defer base.CloseIdleConnections()
		tr := NewTransport(p, base, record(&rec))
		res, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil))
		if err != nil {
			t.Fatal(err)
		}
		if e := endpoints.Find("a:80"); e.InFlight() != 0 || p.Limiter().InFlight() != 0 || rec.Latency != 0 {
			t.Error(e.InFlight(), p.Limiter().InFlight(), rec.Latency, "while the body streams")
		}
		if got := text(t, res, nil); len(got) != 60 {
			t.Error(got)
		}
		endpoints.Replace([]string{"b:80"})
		var run sync.WaitGroup
		run.Go(func() {
			if _, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil)); longpole.Class(err) != call.Timeout {
				t.Error(err)
			}
		})
		synctest.Wait()
		if e := endpoints.Find("b:80"); e.InFlight() != 1 {
			t.Error(e.InFlight(), "in flight while the connection is pending")
		}
		run.Wait()
	})
}

func TestAHealthCheckPassesAFullHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1, Rate: &limit.Rate{PerSecond: 0.001, Burst: 1}})
		h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				time.Sleep(time.Second)
			}
		}), HandlerOptions{Limit: l, Info: func(r *http.Request) call.Info {
			if r.URL.Path == "/healthz" {
				return call.Info{Priority: limit.Exempt}
			}
			return call.Info{Priority: call.Critical}
		}})
		var run sync.WaitGroup
		run.Go(func() { refusals(t, h, "") })
		synctest.Wait()
		for path, want := range map[string]int{"/healthz": 200, "/": 429} {
			r, w := request(t, "GET", "http://a"+path, nil), httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s: %d, want %d", path, w.Code, want)
			}
		}
		run.Wait()
	})
}

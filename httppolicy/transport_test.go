package httppolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
)

func TestTheEndpointReplacesTheHostAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Host, " ", r.URL, " ", r.Header.Get("Traceparent"))
		})
		tr := n.transport(t, longpole.Config{}, Options{}, "a:80")
		r := request(t, "GET", "http://orders.example/x%2Fy?q=1", nil)
		r.Header.Set("Traceparent", "00-1-2-01")
		res, err := tr.RoundTrip(r)
		if got := text(t, res, err); got != "orders.example /x%2Fy?q=1 00-1-2-01" {
			t.Error(got)
		}
		if res.Request != r || len(r.Header) != 1 || r.URL.Host != "orders.example" {
			t.Error("the caller's request was changed")
		}
	})
}

func TestWhereAnAttemptGoes(t *testing.T) {
	for _, c := range []struct{ url, endpoint, want string }{
		{"http://h/p", "", "http://h/p"},
		{"https://h/p", "a:1", "https://a:1/p"},
		{"http://h/p?x", "https://a:1", "https://a:1/p?x"},
		{"http://h/p%2Fq", "http://a/pre%2F/", "http://a/pre%2F/p%2Fq"},
		{"http://h/p", "http://a/pre", "http://a/pre/p"},
	} {
		got, err := locate(mustURL(t, c.url), c.endpoint)
		if err != nil || got.String() != c.want {
			t.Errorf("%s at %s: %v, %v; want %s", c.url, c.endpoint, got, err, c.want)
		}
	}
	if _, err := locate(mustURL(t, "http://h/"), "http://"); err == nil {
		t.Error("accepted")
	}
}

func TestWhatMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			method, key string
			want        int64
		}{
			{"GET", "", 3},
			{"HEAD", "", 3},
			{"OPTIONS", "", 3},
			{"PUT", "", 3},
			{"DELETE", "", 3},
			{"POST", "", 1},
			{"PATCH", "", 1},
			{"LOCK", "", 1},
			{"POST", "17", 3},
		} {
			n := newNetwork()
			var seen atomic.Int64
			n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
				seen.Add(1)
				w.WriteHeader(503)
			})
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
			r := request(t, c.method, "http://a:80/", nil)
			if c.key != "" {
				r.Header.Set("Idempotency-Key", c.key)
			}
			res, err := tr.RoundTrip(r)
			text(t, res, err)
			if err != nil || res.StatusCode != 503 || seen.Load() != c.want {
				t.Errorf("%s %q: %d attempts, %v; want %d", c.method, c.key, seen.Load(), err, c.want)
			}
		}
	})
}

func TestWhatWasNeverSentIsSentElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, body := range map[string]func() io.Reader{
			"replayable": func() io.Reader { return strings.NewReader("money") },
			"kept":       func() io.Reader { return io.MultiReader(strings.NewReader("money")) },
			"streamed":   func() io.Reader { return io.MultiReader(strings.NewReader("money")) },
		} {
			n := newNetwork()
			n.serve(t, "b:80", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
			var rec call.Record
			tr := n.transport(t, longpole.Config{Retry: atOnce(), Balance: inTurn}, record(&rec), "a:80", "b:80")
			r := request(t, "POST", "http://orders/", body())
			if name == "kept" {
				r.ContentLength = 5
			}
			res, err := tr.RoundTrip(r)
			if got := text(t, res, err); got != "money" || rec.Count != 2 || rec.Attempts[0].Class != call.Refused {
				t.Errorf("%s: %q after %d attempts, first %v: %v", name, got, rec.Count, rec.Attempts[0].Class, err)
			}
		}
	})
}

func TestBodiesAreWholeInEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", 100<<10)
		for _, c := range []struct {
			name   string
			body   string
			length int64
			get    bool
			want   int64
		}{
			{"made anew", big, int64(len(big)), true, 3},
			{"kept", big[:1000], 1000, false, 3},
			{"larger than the bound", big, int64(len(big)), false, 1},
			{"of unknown length", big[:1000], -1, false, 1},
		} {
			n := newNetwork()
			var seen atomic.Int64
			n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
				seen.Add(1)
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != c.body {
					t.Errorf("%s: %d bytes, %v", c.name, len(b), err)
				}
				w.WriteHeader(500)
			})
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
			var closed atomic.Int64
			r := request(t, "PUT", "http://a:80/", nil)
			r.Body = closing{strings.NewReader(c.body), &closed}
			r.ContentLength = c.length
			if c.get {
				r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(c.body)), nil }
			}
			res, err := tr.RoundTrip(r)
			text(t, res, err)
			synctest.Wait()
			if seen.Load() != c.want || closed.Load() != 1 {
				t.Errorf("%s: %d attempts, want %d; the caller's body was closed %d times", c.name, seen.Load(), c.want, closed.Load())
			}
		}
	})
}

type closing struct {
	io.Reader
	closed *atomic.Int64
}

func (c closing) Close() error { c.closed.Add(1); return nil }

func TestABodyThatHangsDoesNotOutliveTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(http.ResponseWriter, *http.Request) {})
		tr := n.transport(t, longpole.Config{Timeout: time.Second}, Options{})
		in, _ := io.Pipe()
		r := request(t, "PUT", "http://a:80/", in)
		r.ContentLength = 10
		start := time.Now()
		_, err := tr.RoundTrip(r)
		if longpole.Class(err) != call.Timeout || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
	})
}

func TestABrokenBodyIsTheCallersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		for _, length := range []int64{10, -1} {
			var rec call.Record
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, record(&rec))
			r := request(t, "PUT", "http://a:80/", io.MultiReader(strings.NewReader("abc"), broken{}))
			r.ContentLength = length
			_, err := tr.RoundTrip(r)
			if longpole.Class(err) != call.Client || rec.Count != 1 {
				t.Error(length, err, rec.Count)
			}
		}
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestRetryAfterIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, status := range []int{503, 429} {
			n := newNetwork()
			var seen atomic.Int64
			n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
				if seen.Add(1) == 1 {
					w.Header().Set("Retry-After", "2")
					w.WriteHeader(status)
				}
			})
			tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
			start := time.Now()
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
			text(t, res, err)
			if d := time.Since(start).Truncate(ms); d != 2*time.Second || res.StatusCode != 200 {
				t.Error(status, d, res.StatusCode)
			}
		}
	})
}

func TestOutcomesOfStatuses(t *testing.T) {
	for status, want := range map[int]call.Class{
		200: call.OK, 304: call.OK, 400: call.Client, 404: call.Client, 429: call.Client,
		500: call.Server, 501: call.Client, 502: call.Server, 503: call.Server, 505: call.Client,
	} {
		if got := Judge(status, nil, time.Now()).Class; got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}

func TestTheWinnersBodyIsIntactAndTheLosersIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		body := bytes.Repeat([]byte("0123456789"), 50_000)
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done() // the slow one
		})
		n.serve(t, "b:80", func(w http.ResponseWriter, r *http.Request) {
			w.Write(body[:1000])
			w.(http.Flusher).Flush()
			time.Sleep(time.Second) // long after the race was decided
			w.Write(body[1000:])
		})
		rc := atOnce()
		rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		var rec call.Record
		tr := n.transport(t, longpole.Config{Timeout: time.Minute, Retry: rc, Balance: inTurn}, record(&rec), "a:80", "b:80")
		w := &watched{base: tr.base}
		tr.base = w
		res, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil))
		if got := text(t, res, err); got != string(body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		if rec.Count != 2 || !rec.Attempts[1].Won || w.open.Load() != w.closed.Load() {
			t.Errorf("%+v, %d opened, %d closed", rec.Kept(), w.open.Load(), w.closed.Load())
		}
	})
}

func TestALoserThatAnswersTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		slow := func(d time.Duration) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { time.Sleep(d); fmt.Fprint(w, "answer") }
		}
		n.serve(t, "a:80", slow(60*ms))
		n.serve(t, "b:80", slow(10*ms)) // both heads at the same instant
		rc := atOnce()
		rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		tr := n.transport(t, longpole.Config{Retry: rc, Balance: inTurn}, Options{}, "a:80", "b:80")
		w := &watched{base: tr.base}
		tr.base = w
		for range 20 {
			res, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil))
			if got := text(t, res, err); got != "answer" {
				t.Error(got, err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Second)
		if w.open.Load() != w.closed.Load() {
			t.Errorf("%d opened, %d closed", w.open.Load(), w.closed.Load())
		}
	})
}

func TestConnectionsAreUsedAgainAfterARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var seen atomic.Int64
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			if seen.Add(1)%2 == 1 {
				w.WriteHeader(503)
			}
			fmt.Fprint(w, "answer")
		})
		tr := n.transport(t, longpole.Config{Retry: atOnce()}, Options{})
		for range 10 {
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
			if got := text(t, res, err); got != "answer" || res.StatusCode != 200 {
				t.Error(got, err)
			}
		}
		if n.dials.Load() != 1 {
			t.Errorf("%d connections for calls in a row", n.dials.Load())
		}
	})
}

func TestTheContextEndsWithTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "head")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		tr := n.transport(t, longpole.Config{Timeout: time.Second}, Options{})
		res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		start := time.Now()
		b, err := io.ReadAll(res.Body)
		if string(b) != "head" || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%q, %v after %v", b, err, time.Since(start))
		}
	})
}

func TestErrorsKeepTheirCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		tr := n.transport(t, longpole.Config{Breaker: &breaker.Config{MinCalls: 1}}, Options{})
		client := http.Client{Transport: tr}
		var own *longpole.Error
		if _, err := client.Get("http://a:80/"); !errors.As(err, &own) || own.Class != call.Refused {
			t.Error(err)
		}
		if _, err := client.Get("http://a:80/"); !errors.Is(err, breaker.ErrOpen) {
			t.Error(err)
		}
	})
}

func TestFallbackAsksTheOtherUpstreamThenGivesTheStaticAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var other atomic.Int64
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
		n.serve(t, "c:80", func(w http.ResponseWriter, r *http.Request) {
			if other.Add(1) > 1 {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, "other ", r.URL.Path)
		})
		var rec call.Record
		tr := n.transport(t, longpole.Config{Fallback: &longpole.Fallback{
			Upstream: "http://c:80/v2", Static: &longpole.Static{Status: 203, Body: "sorry"},
		}}, record(&rec))
		w := &watched{base: tr.base}
		tr.base = w
		for i, want := range []string{"200 other /v2/x", "203 sorry"} {
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/x", nil))
			if got := text(t, res, err); fmt.Sprint(res.StatusCode, " ", got) != want || !rec.Fallback || rec.Class != call.Server {
				t.Errorf("%d: %d %s, %v %v", i, res.StatusCode, got, rec.Fallback, rec.Class)
			}
		}
		// What is not idempotent may have been done: no other upstream does it again.
		res, err := tr.RoundTrip(request(t, "POST", "http://a:80/x", nil))
		if got := text(t, res, err); got != "sorry" || other.Load() != 2 {
			t.Error(got, other.Load())
		}
		synctest.Wait()
		if w.open.Load() != w.closed.Load() {
			t.Errorf("%d opened, %d closed", w.open.Load(), w.closed.Load())
		}
	})
}

func TestTheFallbackOfTheProgramIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		o := Options{Fallback: func(r *http.Request, name string) (*http.Response, error) {
			b, err := io.ReadAll(r.Body)
			return static(r, &longpole.Static{Status: 200, Body: name + " " + string(b)}), err
		}}
		tr := n.transport(t, longpole.Config{Fallback: &longpole.Fallback{Upstream: "replica"}}, o)
		res, err := tr.RoundTrip(request(t, "PUT", "http://a:80/", strings.NewReader("body")))
		if got := text(t, res, err); got != "replica body" {
			t.Error(got, err)
		}
	})
}

func TestADeadlineShrinksFromHopToHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var tr *Transport
		var seen []string
		n.serve(t, "b:80", func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Header.Get(HeaderTimeout))
		})
		n.serve(t, "a:80", NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Header.Get(HeaderTimeout))
			time.Sleep(300 * ms)
			res, err := tr.RoundTrip(request(t, "GET", "http://b:80/", nil).WithContext(r.Context()))
			text(t, res, err)
		}), HandlerOptions{}).ServeHTTP)
		tr = n.transport(t, longpole.Config{}, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil).WithContext(ctx))
		text(t, res, err)
		if fmt.Sprint(seen) != "[1000 700]" {
			t.Error(seen)
		}
	})
}

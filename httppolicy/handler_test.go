package httppolicy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

func TestRemainingReadsEveryForm(t *testing.T) {
	for _, c := range []struct {
		header, value string
		want          time.Duration
		ok            bool
	}{
		{HeaderTimeout, "1500", 1500 * ms, true},
		{HeaderTimeout, "0", 0, true},
		{HeaderTimeout, "99999999999999999", maxTimeout, true},
		{HeaderTimeout, "-1", 0, false},
		{HeaderTimeout, "1.5", 0, false},
		{HeaderTimeout, "", 0, false},
		{"X-Envoy-Expected-Rq-Timeout-Ms", "20", 20 * ms, true},
		{"Grpc-Timeout", "3S", 3 * time.Second, true},
		{"Grpc-Timeout", "250m", 250 * ms, true},
		{"Grpc-Timeout", "99999999H", maxTimeout, true},
		{"Grpc-Timeout", "7u", 7 * time.Microsecond, true},
		{"Grpc-Timeout", "100n", 100, true},
		{"Grpc-Timeout", "2M", 2 * time.Minute, true},
		{"Grpc-Timeout", "123456789S", 0, false},
		{"Grpc-Timeout", "S", 0, false},
		{"Grpc-Timeout", "3s", 0, false},
	} {
		got, ok := Remaining(http.Header{c.header: {c.value}})
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %q: %v, %v; want %v, %v", c.header, c.value, got, ok, c.want, c.ok)
		}
	}
	h := http.Header{HeaderTimeout: {"900"}, "Grpc-Timeout": {"1S"}, "X-Envoy-Expected-Rq-Timeout-Ms": {"800"}}
	if got, ok := Remaining(h); got != 800*ms || !ok {
		t.Error("the shortest holds:", got)
	}
}

func FuzzRemaining(f *testing.F) {
	f.Add("3S", "100")
	f.Fuzz(func(t *testing.T, a, b string) {
		left, ok := Remaining(http.Header{"Grpc-Timeout": {a}, HeaderTimeout: {b}})
		if left < 0 || left > maxTimeout || !ok && left != 0 {
			t.Error(left, ok)
		}
	})
}

// refusals sends one request with the given time left, and returns the answer.
func refusals(t *testing.T, h http.Handler, left string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	if left != "" {
		r.Header.Set(HeaderTimeout, left)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestDoomedWorkIsNotBegun(t *testing.T) {
	var served atomic.Int64
	h := NewHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }), HandlerOptions{MinLeft: 20 * ms})
	for left, want := range map[string]int{"": 200, "0": 504, "20": 504, "21000": 200} {
		if w := refusals(t, h, left); w.Code != want {
			t.Errorf("%s ms left: %d, want %d", left, w.Code, want)
		}
	}
	if served.Load() != 2 {
		t.Error(served.Load(), "requests were served")
	}
}

func TestTheLimiterDoomsWhatUsuallyTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(100 * ms) }), HandlerOptions{Limit: limit.New(limit.Config{})})
		for range 50 {
			refusals(t, h, "")
		}
		var run sync.WaitGroup
		run.Go(func() { refusals(t, h, "50") }) // one passes now and then, so that the limiter goes on learning
		synctest.Wait()
		if w := refusals(t, h, "50"); w.Code != 504 {
			t.Error(w.Code, w.Body)
		}
		run.Wait()
	})
}

func TestTheTimeoutOfTheHandlerIsTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		h := NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			d, _ := r.Context().Deadline()
			left = time.Until(d)
		}), HandlerOptions{Timeout: time.Second})
		for asked, want := range map[string]time.Duration{"": time.Second, "300": 300 * ms, "5000": time.Second} {
			if refusals(t, h, asked); left != want {
				t.Errorf("%q: %v, want %v", asked, left, want)
			}
		}
	})
}

func TestBeyondTheLimitIsShedBeforeAnyWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 2, Max: 2})
		n := newNetwork()
		var served atomic.Int64
		h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			time.Sleep(time.Second)
		}), HandlerOptions{Limit: l, Info: func(r *http.Request) call.Info {
			info := Info(r)
			if r.URL.Path == "/healthz" {
				info.Priority = limit.Exempt
			}
			return info
		}})
		n.serve(t, "a:80", h.ServeHTTP)
		tr := n.transport(t, longpole.Config{}, Options{})
		var codes [6]int
		var run sync.WaitGroup
		for i := range codes {
			run.Go(func() {
				path := "/"
				if i == 5 {
					path = "/healthz"
				}
				time.Sleep(time.Duration(i) * ms)
				res, err := tr.RoundTrip(request(t, "GET", "http://a:80"+path, nil))
				text(t, res, err)
				codes[i] = res.StatusCode
				if codes[i] == 503 && res.Header.Get("Retry-After") != "1" {
					t.Error(res.Header)
				}
			})
		}
		run.Wait()
		if fmt.Sprint(codes) != "[200 200 503 503 503 200]" || served.Load() != 3 || l.InFlight() != 0 {
			t.Error(codes, served.Load(), l.InFlight())
		}
	})
}

func TestQueuedRequestsWaitForTheirTurnAndLeaveWithTheirClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1, Queue: &limit.Queue{Length: 10, MaxAge: 10 * time.Second, Target: 5 * time.Second}})
		n := newNetwork()
		n.serve(t, "a:80", NewHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(time.Second)
		}), HandlerOptions{Limit: l}).ServeHTTP)
		tr := n.transport(t, longpole.Config{}, Options{})
		send := func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil).WithContext(ctx))
			text(t, res, err)
			return time.Since(start), err
		}
		var run sync.WaitGroup
		run.Go(func() { send(t.Context()) })
		time.Sleep(ms)
		run.Go(func() {
			if d, err := send(t.Context()); err != nil || d != 1999*ms {
				t.Error(d, err)
			}
		})
		time.Sleep(ms)
		run.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(500*ms, cancel)
			if d, err := send(ctx); longpole.Class(err) != call.Canceled || d != 500*ms {
				t.Error(d, err)
			}
		})
		run.Wait()
		synctest.Wait()
		if l.Queued() != 0 || l.InFlight() != 0 {
			t.Error(l.Queued(), l.InFlight())
		}
	})
}

func TestAPanicGivesThePermitBack(t *testing.T) {
	l, load := limit.New(limit.Config{}), new(balance.ServerLoad)
	h := NewHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("bug") }), HandlerOptions{Limit: l, Load: load})
	func() {
		defer func() { _ = recover() }()
		refusals(t, h, "")
	}()
	if l.InFlight() != 0 || load.Load(time.Now()).RIF != 0 {
		t.Error(l.InFlight(), load.Load(time.Now()))
	}
}

func TestOutcomesOfTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		expired, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		<-expired.Done()
		gone, leave := context.WithCancel(t.Context())
		leave()
		for _, c := range []struct {
			ctx  context.Context
			s    served
			want call.Class
		}{
			{t.Context(), served{finished: true}, call.OK},
			{t.Context(), served{finished: true, status: 404}, call.Client},
			{t.Context(), served{finished: true, status: 500}, call.Server},
			{t.Context(), served{}, call.Server},
			{expired, served{finished: true, status: 200}, call.OK},
			{expired, served{finished: true, status: 503}, call.Timeout},
			{gone, served{finished: true, status: 200}, call.Canceled},
		} {
			if got := c.s.outcome(c.ctx).Class; got != c.want {
				t.Errorf("%+v: %v, want %v", c.s, got, c.want)
			}
		}
	})
}

func TestTheLoadIsReportedAndProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := new(balance.ServerLoad)
		n := newNetwork()
		n.serve(t, "a:80", NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * ms)
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			time.Sleep(time.Second) // a long body is not latency
		}), HandlerOptions{Load: load}).ServeHTTP)
		tr := n.transport(t, longpole.Config{}, Options{})
		for range 3 {
			res, err := tr.RoundTrip(request(t, "GET", "http://a:80/", nil))
			if err != nil || res.Header.Get(HeaderLoad) == "" {
				t.Fatal(err, res.Header)
			}
			text(t, res, err)
		}
		synctest.Wait()
		l, err := NewProber(tr.base, "")(t.Context(), "a:80")
		if err != nil || l != (balance.Load{RIF: 0, Latency: 100 * ms}) {
			t.Error(l, err)
		}
		if _, err := NewProber(tr.base, "/")(t.Context(), "b:80"); err == nil {
			t.Error("nobody is there")
		}
	})
}

// Prequal hears of a server that other clients keep busy, which this client's own calls do not show.
func TestPrequalKeepsAwayFromAServerThatOthersLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var to [2]atomic.Int64
		for i, name := range []string{"a:80", "b:80"} {
			load := new(balance.ServerLoad)
			if i == 0 {
				for range 50 {
					load.Begin() // of other clients
				}
			}
			n.serve(t, name, NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				to[i].Add(1)
				time.Sleep(10 * ms)
			}), HandlerOptions{Load: load}).ServeHTTP)
		}
		tr := n.transport(t, longpole.Config{Balance: &balance.Config{Algorithm: balance.Prequal}}, Options{}, "a:80", "b:80")
		tr.policy.SetProber(NewProber(tr.base, ""))
		for range 100 {
			res, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil))
			text(t, res, err)
			time.Sleep(10 * ms)
		}
		if to[0].Load() > 10 {
			t.Errorf("%d calls to the loaded server, %d to the other", to[0].Load(), to[1].Load())
		}
	})
}

func TestTheHandlerKeepsWhatWritersCan(t *testing.T) {
	h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		io.WriteString(w, "x")
	}), HandlerOptions{})
	if w := refusals(t, h, ""); !w.Flushed || w.Body.String() != "x" {
		t.Error(w)
	}
}

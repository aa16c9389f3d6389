package web_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/gateway"
)

func TestRoutesShowFiguresAndEndpoints(t *testing.T) {
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{})
	f.call("/orders/1", 20)
	a := f.do(http.MethodGet, "/api/v1/routes", "").want(http.StatusOK)
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	for _, c := range []struct {
		keys []any
		want any
	}{
		{[]any{"version"}, "v1.2.3"},
		{[]any{"routes", 0, "name"}, "orders"},
		{[]any{"routes", 0, "match", "path"}, "/orders"},
		{[]any{"routes", 0, "calls"}, 20.0},
		{[]any{"routes", 0, "error_ratio"}, 0.0},
		{[]any{"routes", 0, "endpoints", 0, "healthy"}, true},
		{[]any{"routes", 0, "endpoints", 0, "breaker"}, "closed"},
		{[]any{"routes", 0, "endpoints", 0, "attempts"}, 20.0},
		{[]any{"routes", 0, "policy", "timeout"}, "30s"},
		{[]any{"routes", 1, "calls"}, 0.0},
	} {
		if got := a.json(c.keys...); got != c.want {
			t.Errorf("%v = %v, want %v", c.keys, got, c.want)
		}
	}
	if p99 := a.json("routes", 0, "latency_ms", "p99"); p99 == 0.0 {
		t.Error("a p99 of 0 after 20 calls")
	}
}

func TestFindingsKeepTheirShapeBeforeTheFirstDiagnosis(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.do(http.MethodGet, "/api/v1/findings", "").want(http.StatusOK, `"routes":[]`, `"window_ms":0`, `"traces":0`)
	f.findings = sample("orders")
	a := f.do(http.MethodGet, "/api/v1/findings", "").want(http.StatusOK, `"at":"2026-03-01T12:00:00Z"`, `"window_ms":300000`)
	for _, c := range []struct {
		keys []any
		want any
	}{
		{[]any{"input", "spans"}, 9211.0},
		{[]any{"routes", 0, "latency_ms", "p99.9"}, 240.0},
		{[]any{"routes", 0, "segments", 0, "share", "p99"}, 0.72},
		{[]any{"routes", 0, "findings", 0, "code"}, "LP103"},
		{[]any{"routes", 0, "findings", 0, "actions", 0, "change"}, nil},
		{[]any{"routes", 0, "findings", 0, "actions", 1, "change", "route"}, "orders"},
		{[]any{"routes", 0, "findings", 0, "actions", 1, "predicted_ms", "p99"}, 21.5},
	} {
		if got := a.json(c.keys...); got != c.want {
			t.Errorf("%v = %v, want %v", c.keys, got, c.want)
		}
	}
}

// refused is a network on which nobody answers.
func refused(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }

// inBubble runs check with a fixture whose controller runs, in virtual time.
func inBubble(t *testing.T, check func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{Dial: refused})
		f.findings = sample("orders")
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := f.rollouts.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		check(f)
		cancel()
		run.Wait()
	})
}

const rolloutsPath = "/api/v1/rollouts"

func TestRolloutIsStartedAndAborted(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.do(http.MethodGet, rolloutsPath, "").want(http.StatusOK, `{"rollouts":[]}`)
		a := f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {"timeout": "2s"}, "goal": "no_worse", "steps": ["10%"], "reason": "shorter"}`)
		a.want(http.StatusCreated, `"id":"r1"`, `"steps":1`, `"reason":"shorter"`, `"timeout":"2s"`)
		if got := a.header.Get("Location"); got != rolloutsPath+"/r1" {
			f.Errorf("Location %q", got)
		}
		synctest.Wait()
		f.do(http.MethodGet, rolloutsPath+"/r1", "").want(http.StatusOK, `"phase":"warmup"`, `"weight":0.1`)
		f.do(http.MethodGet, "/api/v1/routes", "").want(http.StatusOK, `"arms":{"weight":0.1`)
		f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {}}`).want(http.StatusConflict, "r1")
		f.do(http.MethodPost, rolloutsPath, `{"route": "catalogue", "to": {}}`).want(http.StatusCreated, `"id":"r2"`)
		f.do(http.MethodPost, rolloutsPath+"/r1/abort", `{"reason": "second thoughts"}`).want(http.StatusOK, `"phase":"aborted"`, "second thoughts")
		f.do(http.MethodPost, rolloutsPath+"/r1/abort", "").want(http.StatusConflict, "ended")
		f.do(http.MethodPost, rolloutsPath+"/r1/promote", "").want(http.StatusConflict, "ended")
		f.do(http.MethodGet, rolloutsPath, "").want(http.StatusOK, `"id":"r1"`, `"id":"r2"`)
	})
}

func TestRolloutIsPromotedByHand(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.do(http.MethodPost, rolloutsPath, "route: orders\nto: {timeout: 2s}\n").want(http.StatusCreated)
		synctest.Wait()
		f.do(http.MethodPost, rolloutsPath+"/r1/promote", `{"reason": "seen enough"}`).want(http.StatusOK, `"phase":"promoted"`, "seen enough")
		p, err := f.gateway.Policy("orders")
		if err != nil || p.Timeout != 2*time.Second {
			f.Errorf("timeout in force %v, %v", p.Timeout, err)
		}
	})
}

func TestRolloutOfAnAdviceCarriesItsForecast(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "advice": "lp103", "kind": "hedge"}`).
			want(http.StatusCreated, `"predicted_ms":{"p50":8.1,"p95":14.2,"p99":21.5}`, `"hedge"`)
	})
}

func TestRolloutRefusesWhatIsNoLongerTrue(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {"timeout": "2s"}}`).want(http.StatusCreated)
		synctest.Wait()
		f.do(http.MethodPost, rolloutsPath+"/r1/promote", "").want(http.StatusOK)
		f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "advice": "LP103"}`).want(http.StatusConflict, "not the one that the change starts from")
	})
}

func TestRolloutIsRefusedAtTheEnd(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {}}`).want(http.StatusCreated, `"phase":"pending"`)
	f.do(http.MethodPost, rolloutsPath+"/r1/promote", "").want(http.StatusConflict)
	f.rollouts.Close()
	f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {}}`).want(http.StatusServiceUnavailable, "closed")
}

func TestBodiesAreStrictAndFaultsNamed(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.findings = sample("orders")
	for _, c := range []struct {
		name, path, body string
		status           int
		parts            []string
	}{
		{"empty", rolloutsPath, "", 400, []string{"route", "the name of a route", "name one of to"}},
		{"unknown field", rolloutsPath, `{"route": "orders", "to": {}, "gaol": "improve"}`, 400, []string{"body:1:", "gaol: unknown field", "goal"}},
		{"bad duration", rolloutsPath, "route: orders\nto:\n  timeout: 5 parsecs\n", 400, []string{"body:3:12: to.timeout", "5 parsecs"}},
		{"bad policy", rolloutsPath, "route: orders\nto:\n  timeout: -5s\n", 400, []string{"body:3:12: to.timeout", "not negative"}},
		{"bad slice", rolloutsPath, `{"route": "orders", "to": {}, "slice": "1ms"}`, 400, []string{"slice: 1ms", "100ms..10m"}},
		{"all faults at once", rolloutsPath, `{"to": {}, "goal": "win", "target": "p42"}`, 400, []string{"route", "goal", "target"}},
		{"both", rolloutsPath, `{"route": "orders", "to": {}, "advice": "LP103"}`, 400, []string{"name one of to"}},
		{"no JSON", rolloutsPath, `{"route": `, 400, []string{"body:1"}},
		{"long reason", rolloutsPath, `{"route": "orders", "to": {}, "reason": "` + strings.Repeat("x", 1001) + `"}`, 400, []string{"reason", "at most 1000 bytes"}},
		{"bad kind", rolloutsPath, `{"route": "orders", "advice": "LP103", "kind": "magic"}`, 400, []string{"kind", "hedge"}},
		{"no such route", rolloutsPath, `{"route": "nowhere", "to": {}}`, 404, []string{"nowhere"}},
		{"no such advice", rolloutsPath, `{"route": "orders", "advice": "LP999"}`, 404, []string{"LP999", "/api/v1/findings"}},
		{"advice for people", rolloutsPath, `{"route": "orders", "advice": "LP103", "kind": "drain"}`, 404, []string{"LP103 drain"}},
		{"body too long", rolloutsPath, strings.Repeat(" ", 1<<20+1), 413, []string{"1048576 bytes"}},
		{"abort of none", rolloutsPath + "/r9/abort", "", 404, []string{"r9"}},
		{"promote of none", rolloutsPath + "/r9/promote", "{}", 404, []string{"r9"}},
		{"abort, unknown field", rolloutsPath + "/r9/abort", `{"raeson": "x"}`, 400, []string{"raeson", "reason"}},
		{"abort, long reason", rolloutsPath + "/r9/abort", `{"reason": "` + strings.Repeat("x", 1001) + `"}`, 400, []string{"at most 1000 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.do(http.MethodPost, c.path, c.body).want(c.status, c.parts...)
			if _, ok := a.json("error").(string); !ok {
				t.Errorf("no error text: %s", a.body)
			}
		})
	}
	if n := len(f.rollouts.List()); n != 0 {
		t.Errorf("%d rollouts came of faulty requests", n)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/api/v1/nothing", 404},
		{http.MethodGet, rolloutsPath + "/r9", 404},
		{http.MethodGet, "/nothing.html", 404},
		{http.MethodGet, "/../web.go", 307}, // to /web.go
		{http.MethodGet, "/web.go", 404},
		{http.MethodDelete, rolloutsPath, 405},
		{http.MethodPost, "/api/v1/routes", 405},
		{http.MethodPost, "/", 405},
		{http.MethodGet, "/", 200},
		{http.MethodHead, "/", 200},
		{http.MethodGet, "/page.js", 200},
		{http.MethodGet, "/livez", 200},
	} {
		if a := f.do(c.method, "http://127.0.0.1:9901"+c.path, ""); a.status != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, a.status, c.status)
		}
	}
	f.do(http.MethodGet, "/api/v1/nothing", "").want(404, `"error"`)
}

// switched is a network on which endpoints answer while on is set, in memory, so that time in it can be virtual.
type switched struct {
	on    atomic.Bool
	conns chan net.Conn
	done  chan struct{}
}

func (s *switched) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if !s.on.Load() {
		return nil, errors.New("refused")
	}
	near, far := net.Pipe()
	select {
	case s.conns <- far:
		return near, nil
	case <-s.done:
	case <-ctx.Done():
	}
	return nil, errors.New("refused")
}

// Accept is part of net.Listener.
func (s *switched) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close is part of net.Listener.
func (s *switched) Close() error { close(s.done); return nil }

// Addr is part of net.Listener.
func (s *switched) Addr() net.Addr { return &net.TCPAddr{} }

func newSwitched() *switched { return &switched{conns: make(chan net.Conn), done: make(chan struct{})} }

func TestReadyFollowsTheEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoint, front := newSwitched(), newSwitched()
		service := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		var run sync.WaitGroup
		run.Go(func() { _ = service.Serve(endpoint) })
		const file = `
upstreams: {shop: {endpoints: [http://10.0.0.1:80], health: {path: /ok}}}
routes: [{name: orders, upstream: shop}]
`
		f := newFixture(t, file, gateway.Options{Dial: endpoint.dial, Listen: func(string, string) (net.Listener, error) { return front, nil }})
		ctx, cancel := context.WithCancel(t.Context())
		run.Go(func() { _ = f.gateway.Run(ctx) })
		f.do(http.MethodGet, "/readyz", "").want(200, "ok") // until a check says otherwise
		for _, up := range []bool{false, true} {
			endpoint.on.Store(up)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			status, line := 503, "[-] route orders: 0 of 1 endpoints fit\nnot ready"
			if up {
				status, line = 200, "[+] route orders: 1 of 1 endpoints fit\nok"
			}
			f.do(http.MethodGet, "/readyz?verbose", "").want(status, line)
			if a := f.do(http.MethodGet, "/readyz", "").want(status); strings.Contains(a.body, "orders") {
				t.Errorf("details that were not asked for: %s", a.body)
			}
			f.do(http.MethodGet, "/livez", "").want(200, "ok")
		}
		_ = service.Close()
		cancel()
		run.Wait()
	})
}

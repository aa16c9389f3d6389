package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// service is one instance: a listener, a server, and the randomness of its working times.
type service struct {
	name, instance string
	host           string // names the clock: one machine, so the same for all
	random         *source
	faults         *board
	spans          *exporter
	gateway        *atomic.Pointer[string]
	client         *http.Client

	listener net.Listener
	server   *http.Server
}

// failure is an answer other than 200.
type failure struct {
	status int
	reason string
}

func (f *failure) Error() string { return fmt.Sprintf("lab: %d: %s", f.status, f.reason) }

// work is one operation of a service: it answers with a value that is sent as JSON.
type work func(ctx context.Context, r *http.Request, at *span) (any, error)

// listen opens the listener on a free port of loopback.
func (s *service) listen(mux *http.ServeMux) error {
	var err error
	var lc net.ListenConfig
	if s.listener, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("lab: %s: %w", s.instance, err)
	}
	mux.HandleFunc("GET "+HealthPath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	return nil
}

func (s *service) url() string { return "http://" + s.listener.Addr().String() }

func (s *service) serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("lab: %s: %w", s.instance, err)
	}
	return nil
}

// stop lets open calls end for a second, then cuts them off.
func (s *service) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close() // what is left was told off already; there is nobody to tell about it
	}
	s.client.CloseIdleConnections()
}

// handle wraps w as an HTTP handler of route ("/orders/{n}") with its SERVER span and the faults of all services.
func (s *service) handle(mux *http.ServeMux, route string, w work) {
	mux.HandleFunc("GET "+route, func(rw http.ResponseWriter, r *http.Request) {
		parent, _ := parseTraceparent(r.Header.Get("Traceparent"))
		at := s.begin(parent, trace.Server, "GET "+route)
		defer at.end()
		s.describe(at, r, route)
		answer, err := s.guarded(r, at, w)
		if r.Context().Err() != nil { // the caller went away, which is not this service's failure
			at.set("error.type", "canceled")
			return
		}
		status := http.StatusOK
		if f, ok := errors.AsType[*failure](err); ok {
			status = f.status
		} else if err != nil {
			status = http.StatusInternalServerError
		}
		at.set("http.response.status_code", strconv.Itoa(status))
		if status >= http.StatusInternalServerError {
			at.fail(strconv.Itoa(status))
		}
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(answer) // a reader that went away is no error of ours
	})
}

// describe sets the attributes of a SERVER span (OpenTelemetry semantic conventions for HTTP).
func (s *service) describe(at *span, r *http.Request, route string) {
	host, port, _ := net.SplitHostPort(s.listener.Addr().String())
	at.set("http.request.method", r.Method).set("http.route", route).set("url.path", r.URL.Path).set("url.scheme", "http").
		set("server.address", host).set("server.port", port)
	if r.URL.RawQuery != "" {
		at.set("url.query", r.URL.RawQuery)
	}
}

// guarded applies the faults that any service can have, then works.
func (s *service) guarded(r *http.Request, at *span, w work) (any, error) {
	if f, ok := s.faults.hits(s, Fail); ok {
		return nil, &failure{status: f.Status, reason: "planted fault " + f.Name}
	}
	if f, ok := s.faults.hits(s, Delay); ok {
		if err := pause(r.Context(), s.random.between(f.Min, f.Max)); err != nil {
			return nil, err
		}
	}
	return w(r.Context(), r, at)
}

// labour spends a working time as an INTERNAL span.
func (s *service) labour(ctx context.Context, at *span, name string, l Lognormal) error {
	x := s.begin(at.identity(), trace.Internal, name)
	defer x.end()
	return pause(ctx, s.random.draw(l))
}

// pause waits for d or for the end of ctx, whichever is first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// maxAnswer bounds what one service reads from another.
const maxAnswer = 1 << 20

// get calls another service through the gateway and decodes its answer into answer. template names the operation.
func (s *service) get(ctx context.Context, at *span, template, path string, answer any) error {
	x := s.begin(at.identity(), trace.Client, "GET "+template)
	defer x.end()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *s.gateway.Load()+path, nil)
	if err != nil {
		x.fail("url")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	request.Header.Set("Traceparent", x.identity().traceparent())
	x.set("http.request.method", http.MethodGet).set("url.full", request.URL.String()).set("url.path", path).
		set("url.template", template).set("server.address", request.URL.Hostname()).set("server.port", request.URL.Port())
	response, err := s.client.Do(request)
	if err != nil {
		x.fail("unanswered")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	defer response.Body.Close()
	x.set("http.response.status_code", strconv.Itoa(response.StatusCode))
	if response.StatusCode != http.StatusOK {
		x.fail(strconv.Itoa(response.StatusCode))
		return &failure{status: http.StatusBadGateway, reason: strings.TrimPrefix(path, "/") + " answered " + response.Status}
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(answer); err != nil {
		x.fail("body")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	return nil
}

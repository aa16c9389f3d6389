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

	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// service is one instance: a listener, a server, and the randomness of its working times.
type service struct {
	name, instance string
	process        *process
	random         *source
	faults         *board
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
type work func(ctx context.Context, r *http.Request) (any, error)

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
		ctx, at := s.process.begin(wire.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), trace.SpanKindServer, "GET "+route, 0)
		defer at.end()
		r = r.WithContext(ctx)
		s.describe(at, r, route)
		answer, err := s.guarded(r, w)
		if r.Context().Err() != nil { // the caller went away, which is not this service's failure
			at.set(semconv.ErrorTypeKey.String("canceled"))
			return
		}
		status := http.StatusOK
		if f, ok := errors.AsType[*failure](err); ok {
			status = f.status
		} else if err != nil {
			status = http.StatusInternalServerError
		}
		at.set(semconv.HTTPResponseStatusCode(status))
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
	at.set(semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(route), semconv.URLPath(r.URL.Path), semconv.URLScheme("http")).at(host, port)
	if r.URL.RawQuery != "" {
		at.set(semconv.URLQuery(r.URL.RawQuery))
	}
}

// guarded applies the faults that any service can have, then works.
func (s *service) guarded(r *http.Request, w work) (any, error) {
	if f, ok := s.faults.hits(s, Fail); ok {
		return nil, &failure{status: f.Status, reason: "planted fault " + f.Name}
	}
	if f, ok := s.faults.hits(s, Delay); ok {
		if err := pause(r.Context(), s.random.between(f.Min, f.Max)); err != nil {
			return nil, err
		}
	}
	return w(r.Context(), r)
}

// labour spends a working time as an INTERNAL span.
func (s *service) labour(ctx context.Context, name string, l Lognormal) error {
	ctx, x := s.process.begin(ctx, trace.SpanKindInternal, name, 0)
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
func (s *service) get(ctx context.Context, template, path string, answer any) error {
	ctx, x := s.process.begin(ctx, trace.SpanKindClient, "GET "+template, 0)
	defer x.end()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *s.gateway.Load()+path, nil)
	if err != nil {
		x.fail("url")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	wire.Inject(ctx, propagation.HeaderCarrier(request.Header))
	x.set(semconv.HTTPRequestMethodGet, semconv.URLFull(request.URL.String()), semconv.URLPath(path), semconv.URLTemplate(template)).
		at(request.URL.Hostname(), request.URL.Port())
	response, err := s.client.Do(request)
	if err != nil {
		x.fail("unanswered")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	defer response.Body.Close()
	x.set(semconv.HTTPResponseStatusCode(response.StatusCode))
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

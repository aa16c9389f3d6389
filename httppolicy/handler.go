package httppolicy

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

// HeaderLoad carries the load of the server in its answers: "rif=3, latency-us=1250", a dictionary of RFC 9651.
const HeaderLoad = "X-Server-Load"

// ProbePath is where Handler answers probes, unless told otherwise: 204 and HeaderLoad, without admission.
const ProbePath = "/.well-known/server-load"

// HandlerOptions of a Handler. The zero value means the defaults given at each field.
type HandlerOptions struct {
	// Limit admits requests; nil = all are. It may be shared by several handlers of a process.
	Limit *limit.Limiter
	// Info says what the limiter may know of a request: priority, cohort, tenant. nil = Info of this package. Give health
	// checks limit.Exempt as their priority.
	Info func(*http.Request) call.Info
	// Timeout is the longest time of a request, whatever its caller asks for; 0 = what the caller asks for.
	Timeout time.Duration
	// MinLeft refuses a request with less time left than this: nobody will wait for its answer. 0 = only when none is left.
	MinLeft time.Duration
	// RetryAfter is what a shed caller is told to wait; it is rounded up to a second. Default 1s.
	RetryAfter time.Duration
	// Load reports the load of this process in each answer and at ProbePath; nil = neither.
	Load *balance.ServerLoad
	// ProbePath replaces the constant of that name.
	ProbePath string
}

type handler struct {
	next http.Handler
	o    HandlerOptions
}

// NewHandler returns next behind admission, deadline and load report. What it refuses never reaches next: 503 with
// Retry-After when there are too many requests, 504 when too little time is left, 429 when a tenant is beyond its rate.
// The deadline lies in the context of the request: next must honour it, as a Transport does.
func NewHandler(next http.Handler, o HandlerOptions) http.Handler {
	if o.Info == nil {
		o.Info = Info
	}
	o.ProbePath = cmp.Or(o.ProbePath, ProbePath)
	o.RetryAfter = cmp.Or(o.RetryAfter, time.Second)
	return &handler{next: next, o: o}
}

// ServeHTTP answers a request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if h.o.Load != nil && r.URL.Path == h.o.ProbePath {
		w.Header().Set(HeaderLoad, h.o.Load.Load(now).String())
		w.WriteHeader(http.StatusNoContent)
		return
	}
	ctx, cancel, deadline := h.deadline(r, now)
	defer cancel()
	if !deadline.IsZero() && deadline.Sub(now) <= h.o.MinLeft {
		h.refuse(w, limit.ErrDoomed, 0)
		return
	}
	s := &served{ResponseWriter: w, load: h.o.Load, arrived: now, start: now}
	if h.o.Load != nil {
		s.rif = h.o.Load.Begin() // a queue of the application is part of its load
		defer s.report()
	}
	if h.o.Limit != nil {
		t := h.o.Limit.Admit(now, h.o.Info(r), deadline)
		if err := longpole.Await(ctx, h.o.Limit, t); err != nil {
			h.refuse(w, err, t.RetryAfter())
			s.refused = true
			return
		}
		s.start = time.Now()
		defer s.done(ctx, h.o.Limit, t)
	}
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	h.next.ServeHTTP(s, r)
	s.finished = true
}

// deadline puts the request under what its sender and Timeout leave.
func (h *handler) deadline(r *http.Request, now time.Time) (_ context.Context, cancel func(), deadline time.Time) {
	ctx := r.Context()
	deadline, _ = ctx.Deadline()
	left, ok := Remaining(r.Header)
	if t := h.o.Timeout; t > 0 && (!ok || t < left) {
		left, ok = t, true
	}
	if !ok || !deadline.IsZero() && !deadline.After(now.Add(left)) {
		return ctx, func() {}, deadline
	}
	deadline = now.Add(left)
	ctx, cancel = context.WithDeadline(ctx, deadline)
	return ctx, cancel, deadline
}

// refuse answers what is not admitted.
func (h *handler) refuse(w http.ResponseWriter, err error, after time.Duration) {
	status := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, context.Canceled):
		return // nobody reads it
	case errors.Is(err, limit.ErrDoomed), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	case errors.Is(err, limit.ErrRate):
		status = http.StatusTooManyRequests
	default:
		after = h.o.RetryAfter
	}
	if after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, err.Error(), status)
}

// served watches an answer: its status, and when its head was written.
type served struct {
	http.ResponseWriter
	load     *balance.ServerLoad
	rif      int
	arrived  time.Time
	start    time.Time     // when it was admitted
	head     time.Duration // from start; 0 = not written yet
	status   int
	refused  bool
	finished bool // the handler returned, and did not panic
}

// WriteHeader writes the head, with the load of the server in it.
func (s *served) WriteHeader(status int) {
	if status >= 200 && s.status == 0 {
		s.status, s.head = status, time.Since(s.start)
		if s.load != nil {
			s.Header().Set(HeaderLoad, s.load.Load(s.start.Add(s.head)).String())
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

// Write writes the body.
func (s *served) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	return s.ResponseWriter.Write(p)
}

// Flush sends what is written. Handlers find it by type assertion.
func (s *served) Flush() {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(s.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController, which finds the rest by it.
func (s *served) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// outcome is how the handler did.
func (s *served) outcome(ctx context.Context) call.Outcome {
	if s.finished && s.status == 0 {
		s.status, s.head = http.StatusOK, time.Since(s.start)
	}
	out := Judge(s.status, nil, time.Now())
	out.Latency = s.head
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && (out.Class.Failed() || !s.finished || s.status == 0):
		out.Class = call.Timeout
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		out.Class = call.Canceled
	case !s.finished || s.status == 0:
		out.Class = call.Server
	}
	return out
}

// done gives the permit back, also when the handler panics.
func (s *served) done(ctx context.Context, l *limit.Limiter, t limit.Ticket) {
	l.Done(time.Now(), t, s.outcome(ctx))
}

// report ends the request in the load.
func (s *served) report() {
	now := time.Now()
	took := now.Sub(s.arrived)
	if s.head > 0 {
		took = s.start.Add(s.head).Sub(s.arrived)
	}
	s.load.End(now, s.rif, took, s.finished && !s.refused && s.status < 500)
}

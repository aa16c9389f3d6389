package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/routing"
	"golang.org/x/net/http/httpguts"
)

// errGone says that an endpoint left the configuration between its pick and the attempt.
var errGone = errors.New("gateway: the endpoint is gone")

// dialError is a failure before anything was sent, so that a second attempt is safe whatever the method is.
type dialError struct{ error }

// Unwrap returns the cause.
func (e *dialError) Unwrap() error { return e.error }

// errSilent says that a stream was silent, both ways, for Limits.StreamIdle.
var errSilent = fmt.Errorf("gateway: the stream was silent for too long: %w", context.DeadlineExceeded)

// exchange is one call: the longpole.Work, and longpole.Storable, of this data plane. Attempts may run at once, and
// may outlive the handler: they touch the request's head, which nobody writes to, and the body only as inbound allows.
type exchange struct {
	g        *Gateway
	in       *http.Request
	route    *route
	up       *upstream       // that the call was drawn to; nil = none
	target   *routing.Target // nil = what the client wrote
	header   http.Header     // of every attempt
	lone     bool            // attempts follow one another, and the first may have header for itself
	heads    sync.Mutex      // guards the fields of header, and lent
	lent     bool            // it has it
	body     *inbound
	trailers []string // announced by the client, less those that no client may set
	mode     mode
	silent   time.Duration // longest silence of a stream; 0 = any
	until    time.Time     // the client's own deadline; zero = none
	active   atomic.Int64  // when a stream last moved, in nanoseconds since start
	start    time.Time
	early    early
	cached   caching
	spans    spans
	fault    atomic.Pointer[string] // the last that an attempt suffered on purpose
}

// KeepsDeadline makes it longpole.Timed: an attempt ends itself, so that the answer of a stream can outlive the time that
// is set for its head.
func (x *exchange) KeepsDeadline() {}

var _ longpole.Timed = (*exchange)(nil)

// modeOf is the kind of connection that r needs towards its endpoint.
func modeOf(r *http.Request) mode {
	switch {
	case upgrades(r):
		return tunnel
	case r.ProtoMajor == 2 && isGRPC(r.Header):
		return framed
	}
	return plain
}

// endless reports whether an answer may go on after the policy's time for it: a stream of events or messages. Only its
// silence, and the deadline of the client itself, ends it.
func (x *exchange) endless(res *http.Response) bool {
	return x.mode != plain || x.route.cfg.Stream || streams(res)
}

// touch notes that a stream moves.
func (x *exchange) touch() { x.active.Store(int64(time.Since(x.start))) }

// Try makes one attempt.
func (x *exchange) Try(ctx context.Context, a longpole.Attempt) (*http.Response, error) {
	return x.try(ctx, a, nil)
}

func (x *exchange) try(ctx context.Context, a longpole.Attempt, as *asking) (*http.Response, error) {
	if x.up == nil {
		return nil, errGone
	}
	to := x.up.cfg.Load().places[a.Endpoint]
	if to == nil {
		return nil, errGone
	}
	return x.attempt(ctx, a, x.up, to, as)
}

// attempt makes one at an endpoint of u. as changes its request; nil = it is the client's.
func (x *exchange) attempt(ctx context.Context, a longpole.Attempt, u *upstream, to *endpoint, as *asking) (*http.Response, error) {
	cfg := u.cfg.Load()
	t := &attempt{x: x, ctx: ctx, end: a.Deadline}
	t.span.begin(&x.spans, a.Number, a.Hedge, u.name, to, x.in.Method)
	t.expectHead(a)
	x.request(&t.out, &t.url, cfg, to, &t.span, a.Deadline)
	as.shape(&t.out)
	res, err := t.make(a, u, cfg, to)
	if err != nil {
		err = t.because(err)
		t.close(x.class(t.cause(), err))
		return nil, err
	}
	if err := t.answered(res); err != nil {
		_ = t.discard(res.Body)
		t.close(x.class(t.cause(), err))
		return nil, err
	}
	return res, nil
}

// make sends the request.
func (t *attempt) make(a longpole.Attempt, u *upstream, cfg *upstreamConfig, to *endpoint) (*http.Response, error) {
	if l := t.x.lane(cfg, to); l != nil {
		t.unwatch = context.AfterFunc(t.ctx, t.gone)
		return t.direct(l, to)
	}
	t.watch(cfg.Protocol == ProtocolH2C)
	t.ctx, t.stop = context.WithCancelCause(httptrace.WithClientTrace(t.ctx, &t.trace))
	t.expectTime()
	out := t.out.WithContext(t.ctx)
	if err := t.x.carry(out); err != nil {
		return nil, err
	}
	return t.x.send(t.x.g.road(u).pools[t.x.mode], a.Endpoint, out)
}

// request fills in the request of one attempt, less its body; u is for its URL. The target is put together from the escaped
// text, so that what the client wrote arrives as it was.
func (x *exchange) request(out *http.Request, u *url.URL, up *upstreamConfig, to *endpoint, span *attemptSpan, deadline time.Time) {
	out.Method, out.URL, out.Header = x.in.Method, u, x.headers(span, deadline)
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/1.1", 1, 1
	out.Host = x.place(u, to.url)
	if up.RewriteHost && (x.target == nil || x.target.Host == x.in.Host) {
		out.Host = to.url.Host
	}
}

// carry gives the request of one attempt the body of the call.
func (x *exchange) carry(out *http.Request) error {
	body, err := x.body.open()
	if err != nil {
		return err
	}
	out.Body, out.ContentLength = body, x.in.ContentLength
	if body == http.NoBody {
		out.ContentLength = 0
	} else if x.body.whole() {
		out.ContentLength = int64(len(x.body.kept))
		out.GetBody = x.body.open
	} else if x.body.replayable() {
		out.GetBody = x.body.open
	}
	if len(x.trailers) > 0 {
		out.Trailer, out.ContentLength, out.GetBody = make(http.Header, len(x.trailers)), -1, nil
		for _, name := range x.trailers {
			out.Trailer[name] = nil
		}
		out.Body = &trailed{body, x.in, out.Trailer}
	}
	return nil
}

// headers are those of one attempt. Where attempts follow one another the first one needs no copy; a lock keeps that
// right for a call that a reload has given a hedge meanwhile.
func (x *exchange) headers(span *attemptSpan, deadline time.Time) http.Header {
	x.heads.Lock()
	defer x.heads.Unlock()
	h := x.header
	if !x.lone || x.lent {
		h = make(http.Header, len(x.header)+3)
		maps.Copy(h, x.header)
	}
	x.lent = true
	span.value[0] = span.traceparent()
	h["Traceparent"] = span.value[:]
	if x.mode != plain || x.route.cfg.Stream {
		deadline = x.until // the policy's ends with the head
	}
	now := time.Now()
	httppolicy.SetRemaining(h, now, deadline)
	if x.mode == framed {
		setGRPCTimeout(h, now, deadline)
	}
	return h
}

// announced are the trailers that r will have, less those that a server might take for fields of its head.
func announced(r *http.Request) []string {
	var names []string
	for name := range r.Trailer {
		if name != "" && !ours(name) && httpguts.ValidTrailerHeader(name) {
			names = append(names, name)
		}
	}
	return names
}

// trailed gives the trailers to an attempt's request with the end of the body, before which net/http does not have them.
type trailed struct {
	io.ReadCloser
	in *http.Request
	to http.Header
}

// Read fills in the trailers at the end.
func (b *trailed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.to {
			b.to[name] = b.in.Trailer[name]
		}
	}
	return n, err
}

// Judge says how an attempt ended.
func (x *exchange) Judge(res *http.Response, err error) call.Outcome {
	var out call.Outcome
	switch {
	case err != nil:
		out.Class = x.class(nil, err)
	case x.mode == framed && res.StatusCode == http.StatusOK:
		out, _ = grpcOutcome(res.Header)
	default:
		out = httppolicy.Judge(res.StatusCode, res.Header, time.Now())
	}
	switch {
	case !out.Class.Failed():
	case res != nil && retried(res.Header):
		out.Pushback = -1 // another attempt would come to the same
	case out.Class != call.Refused && x.body.spent():
		out.Pushback = -1 // another attempt could not send the body: this answer is the best there will be
	}
	return out
}

// class is the kind of an attempt's error; cause is why we ended the attempt, where that is known and so.
func (x *exchange) class(cause, err error) call.Class {
	var dial *dialError
	var wait net.Error
	switch {
	case errors.Is(err, errRepeated):
		return call.Server
	case errors.Is(cause, context.DeadlineExceeded):
		return call.Timeout
	case cause != nil || errors.Is(err, context.Canceled):
		return call.Canceled
	case x.body.fault() != nil:
		return call.Client
	case errors.Is(err, errGone), errors.As(err, &dial) && !x.body.spent(), refusedStream(err) && !x.body.spent():
		return call.Refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return call.Timeout
	}
	return call.Server
}

// A small answer that nobody wants is read to its end, so that its connection can be used again; not for long.
const (
	drainBytes = 4 << 10
	drainTime  = 20 * time.Millisecond
)

// Discard releases an answer.
func (x *exchange) Discard(res *http.Response) {
	if res == nil || res.Body == nil {
		return
	}
	if _, fills := res.Body.(*filling); !fills && res.ContentLength > 0 && res.ContentLength <= drainBytes {
		// To close a body under its reader is allowed; the reader then gets an error.
		impatient := time.AfterFunc(drainTime, func() { _ = res.Body.Close() })
		_, _ = io.CopyN(io.Discard, res.Body, drainBytes)
		impatient.Stop()
	}
	_ = res.Body.Close()
}

// Hold ties release to the close of the body.
func (x *exchange) Hold(res *http.Response, release func()) *http.Response {
	if res.Body == nil || res.Body == http.NoBody {
		release()
		return res
	}
	if t, ok := res.Body.(*attempt); ok && t.held == nil {
		t.held = release
		return res
	}
	res.Body = &heldBody{ReadCloser: res.Body, release: release}
	return res
}

type heldBody struct {
	io.ReadCloser
	release func()
}

// Close closes the body and gives up what it held.
func (b *heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.release()
	return err
}

// refusedStream reports that an endpoint did not look at the call (RFC 9113 section 8.7).
func refusedStream(err error) bool {
	code, ok := resetCode(err)
	return ok && code == resetRefused
}

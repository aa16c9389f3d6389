package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
)

// errGone says that an endpoint left the configuration between its pick and the attempt.
var errGone = errors.New("gateway: the endpoint is gone")

// dialError is a failure before anything was sent, so that a second attempt is safe whatever the method is.
type dialError struct{ error }

// Unwrap returns the cause.
func (e *dialError) Unwrap() error { return e.error }

// exchange is one call: the longpole.Work, and longpole.Storable, of this data plane. Attempts may run at once, and
// may outlive the handler: they touch the request's head, which nobody writes to, and the body only as inbound allows.
type exchange struct {
	g      *Gateway
	in     *http.Request
	route  *route
	header http.Header // of every attempt
	body   *inbound
	spans  spans
}

var _ longpole.Storable[*http.Response] = (*exchange)(nil)

// idempotent reports whether a call may be made twice (RFC 9110 section 9.2.2), or whose client says so.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// Try makes one attempt.
func (x *exchange) Try(ctx context.Context, a longpole.Attempt) (*http.Response, error) {
	to := x.route.live.upstream.cfg.Load().places[a.Endpoint]
	if to == nil {
		return nil, errGone
	}
	return x.attempt(ctx, a, to)
}

// attempt makes one at an endpoint.
func (x *exchange) attempt(ctx context.Context, a longpole.Attempt, to *endpoint) (*http.Response, error) {
	span := x.spans.begin(a.Number, a.Hedge, to.location, a.Endpoint, x.in.Method)
	out, err := x.request(ctx, to, span, a.Deadline)
	if err != nil {
		span.end(call.Server)
		return nil, err
	}
	res, err := x.g.transport.RoundTrip(out)
	if err != nil {
		span.end(x.class(ctx, err))
		return nil, err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		_ = res.Body.Close()
		span.end(call.Server)
		return nil, errors.New("gateway: the upstream switched protocols without being asked to")
	}
	stripHopByHop(res.Header)
	span.answered(res.StatusCode)
	if res.Body == http.NoBody || res.Body == nil {
		res.Body = http.NoBody
		span.end(call.OK)
		return res, nil
	}
	res.Body = &attemptBody{ReadCloser: res.Body, x: x, ctx: ctx, span: span}
	return res, nil
}

// request builds the request of one attempt. The target is put together from the escaped text, so that what the client
// wrote arrives as it was.
func (x *exchange) request(ctx context.Context, to *endpoint, span *attemptSpan, deadline time.Time) (*http.Request, error) {
	body, err := x.body.open()
	if err != nil {
		return nil, err
	}
	u := url.URL{
		Scheme: to.url.Scheme, Host: to.url.Host, Path: to.url.Path + x.in.URL.Path,
		RawQuery: x.in.URL.RawQuery, ForceQuery: x.in.URL.ForceQuery,
	}
	if x.in.URL.RawPath != "" || to.url.RawPath != "" {
		u.RawPath = to.url.EscapedPath() + x.in.URL.EscapedPath()
	}
	h := make(http.Header, len(x.header)+1)
	maps.Copy(h, x.header)
	h["Traceparent"] = []string{span.traceparent()}
	httppolicy.SetRemaining(h, time.Now(), deadline)
	out := (&http.Request{
		Method: x.in.Method, URL: &u, Header: h, Host: x.in.Host, Body: body, ContentLength: x.in.ContentLength,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if x.route.live.upstream.cfg.Load().RewriteHost {
		out.Host = to.url.Host
	}
	if body == http.NoBody {
		out.ContentLength = 0
	} else if x.body.replayable() {
		out.ContentLength = int64(len(x.body.kept))
		out.GetBody = x.body.open
	}
	if len(x.in.Trailer) > 0 {
		out.Trailer = x.in.Trailer // filled by net/http while it reads the body to its end
		out.ContentLength = -1
	}
	return out, nil
}

// Judge says how an attempt ended.
func (x *exchange) Judge(res *http.Response, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: x.class(context.Background(), err)}
	}
	switch s := res.StatusCode; {
	case s == http.StatusNotImplemented || s == http.StatusHTTPVersionNotSupported:
		return call.Outcome{Class: call.Client} // it will not change its mind
	case s >= 500:
		return call.Outcome{Class: call.Server, Pushback: retryAfter(res.Header, time.Now())}
	case s >= 400:
		return call.Outcome{Class: call.Client}
	}
	return call.Outcome{Class: call.OK}
}

// class is the kind of an attempt's error; ctx is the attempt's, where it is at hand.
func (x *exchange) class(ctx context.Context, err error) call.Class {
	var dial *dialError
	var wait net.Error
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return call.Timeout
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		return call.Canceled
	case x.body.fault() != nil:
		return call.Client
	case errors.Is(err, errGone), errors.As(err, &dial) && !x.body.spent():
		return call.Refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return call.Timeout
	}
	return call.Server
}

// retryAfter reads the field as seconds or as a date (RFC 9110 section 10.2.3); 0 when it says nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(max(0, min(n, 86400))) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
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
	if res.ContentLength > 0 && res.ContentLength <= drainBytes {
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

// attemptBody ends the span of an attempt with its answer.
type attemptBody struct {
	io.ReadCloser
	x    *exchange
	ctx  context.Context // of the attempt; only to tell why a read failed
	span *attemptSpan
	mu   sync.Mutex // guards why
	why  call.Class
}

// Read ends the span at the end of the body.
func (b *attemptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.span.end(call.OK)
	case err != nil:
		b.mu.Lock()
		b.why = b.x.class(b.ctx, err)
		b.mu.Unlock()
		err = fmt.Errorf("gateway: reading the answer: %w", err)
	}
	return n, err
}

// Close ends the span of an answer that was not read to its end: somebody left, or something broke.
func (b *attemptBody) Close() error {
	err := b.ReadCloser.Close()
	b.mu.Lock()
	why := b.why
	b.mu.Unlock()
	if why == call.OK {
		why = call.Canceled
	}
	b.span.end(why)
	return err
}

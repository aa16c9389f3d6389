package httppolicy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
)

// exchange is one call: the longpole.Work of net/http.
type exchange struct {
	t    *Transport
	in   *http.Request
	body body
}

var _ longpole.Spare[*http.Response] = (*exchange)(nil)

// Try makes one attempt.
func (x *exchange) Try(ctx context.Context, a longpole.Attempt) (*http.Response, error) {
	out, err := x.request(ctx, a.Endpoint, a.Deadline)
	if err != nil {
		return nil, err
	}
	return x.t.base.RoundTrip(out)
}

// Judge says how an attempt ended.
func (x *exchange) Judge(res *http.Response, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: x.class(err)}
	}
	return Judge(res.StatusCode, res.Header, time.Now())
}

// Judge is how an attempt ended that was answered at now with status and the header h, by this package's rules: 5xx is the
// server's fault, less 501 and 505, which will not change; other statuses from 400 on are the caller's. 429 is the
// caller's too, unless the server says when to come again; Retry-After becomes the pushback.
func Judge(status int, h http.Header, now time.Time) call.Outcome {
	switch {
	case status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported:
		return call.Outcome{Class: call.Client} // it will not change its mind
	case status >= 500:
		return call.Outcome{Class: call.Server, Pushback: retryAfter(h, now)}
	case status == http.StatusTooManyRequests:
		if wait := retryAfter(h, now); wait > 0 {
			return call.Outcome{Class: call.Server, Pushback: wait}
		}
		return call.Outcome{Class: call.Client}
	case status >= 400:
		return call.Outcome{Class: call.Client}
	}
	return call.Outcome{Class: call.OK}
}

// class is the kind of an attempt's error.
func (x *exchange) class(err error) call.Class {
	var op *net.OpError
	var wait net.Error
	switch {
	case x.body.fault() != nil, errors.Is(err, errSpent), errors.Is(err, errEndpoint):
		return call.Client
	case errors.Is(err, context.Canceled):
		return call.Canceled
	case errors.As(err, &op) && op.Op == "dial" && !x.body.touched.Load():
		return call.Refused // nothing was sent
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return call.Timeout
	}
	return call.Server
}

// retryAfter reads the field as seconds or as a date (RFC 9110 section 10.2.3); 0 when it says nothing, 1 ns when it
// says "at once".
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.Atoi(s); err == nil {
		return max(1, time.Duration(min(n, 86400))*time.Second)
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(1, at.Sub(now))
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

// Hold ties release to the end of the answer's body.
func (x *exchange) Hold(res *http.Response, release func()) *http.Response {
	end := func() { release(); x.body.close() }
	if res.Body == nil || res.Body == http.NoBody {
		end()
		return res
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if rw, ok := res.Body.(io.ReadWriteCloser); ok {
			res.Body = &heldPipe{heldBody{ReadCloser: rw, end: end}, rw}
			return res
		}
	}
	res.Body = &heldBody{ReadCloser: res.Body, end: end}
	return res
}

// heldBody gives up what it holds when it is closed, or was read to its end.
type heldBody struct {
	io.ReadCloser
	once sync.Once
	end  func()
}

// Read reads on. Who reads to the end but forgets to close leaks nothing.
func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.once.Do(b.end)
	}
	return n, err
}

// Close closes the body.
func (b *heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.end)
	return err
}

// heldPipe is the connection of a protocol that was switched to, which is also written to.
type heldPipe struct {
	heldBody
	io.Writer
}

// Fallback asks the other upstream, then gives the static answer.
func (x *exchange) Fallback(ctx context.Context, f longpole.Fallback, _ call.Class, _ error) (*http.Response, error) {
	why := longpole.ErrNoFallback
	if f.Upstream != "" {
		res, err := x.other(ctx, f.Upstream)
		if err == nil && !Judge(res.StatusCode, res.Header, time.Now()).Class.Failed() {
			return res, nil
		}
		x.Discard(res)
		if err != nil {
			why = err
		}
	}
	if f.Static == nil {
		return nil, why
	}
	return static(x.in, f.Static), nil
}

// other makes one attempt at the other upstream. Only a request that may be repeated goes there: the first may have done its work.
func (x *exchange) other(ctx context.Context, name string) (*http.Response, error) {
	if !Idempotent(x.in) || !x.body.replayable() {
		return nil, longpole.ErrNoFallback
	}
	at := name
	if x.t.o.Fallback != nil {
		at = ""
	}
	deadline, _ := ctx.Deadline()
	out, err := x.request(ctx, at, deadline)
	if err != nil {
		return nil, err
	}
	if x.t.o.Fallback != nil {
		return x.t.o.Fallback(out, name)
	}
	return x.t.base.RoundTrip(out)
}

// static makes the answer that needs nobody.
func static(r *http.Request, s *longpole.Static) *http.Response {
	res := &http.Response{
		Status: strconv.Itoa(s.Status) + " " + http.StatusText(s.Status), StatusCode: s.Status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {s.Type}, "Content-Length": {strconv.Itoa(len(s.Body))}},
		Body:          io.NopCloser(strings.NewReader(s.Body)),
		ContentLength: int64(len(s.Body)),
		Request:       r,
	}
	if r.Method == http.MethodHead {
		res.Body = http.NoBody
	}
	return res
}

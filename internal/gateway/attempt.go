package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
)

// attempt is one request to an endpoint, and the body of its answer. It keeps its own time: until the head is there by
// Attempt.HeadBy, then by Attempt.Deadline, or, for a stream, by its silence. On a link that is the deadline of the
// connection; for the Transport, and for a silence, it is a timer.
type attempt struct {
	io.ReadCloser // of the answer

	x      *exchange
	out    http.Request
	url    url.URL
	ctx    context.Context         // for the Transport the attempt's own, else that of the call
	stop   context.CancelCauseFunc // of ctx; nil = it is the call's
	span   attemptSpan
	end    time.Time // of the call; zero = none
	headBy time.Time // zero = none
	held   func()    // what the answer holds; set before it is read

	trace httptrace.ClientTrace // for the Transport
	sent  atomic.Bool           // in full
	conns atomic.Int32

	lane    *lane       // of link
	unwatch func() bool // ends the watch on ctx; nil = it ends by itself
	last    bool        // the connection does not outlive the answer

	mu       sync.Mutex  // guards what follows
	link     *link       // nil = none, or no longer
	over     error       // why the attempt was ended without stop; nil = it was not
	timer    *time.Timer // nil = no timer ends the attempt
	why      error       // the time ends it
	whole    bool        // that time is the call's, not only the head's
	endless  bool
	informal int // informational answers so far
	class    call.Class
}

// expectHead notes the time for the head.
func (t *attempt) expectHead(a longpole.Attempt) {
	if a.HeadBy.IsZero() {
		return
	}
	t.headBy, t.why = a.HeadBy, longpole.ErrTryTimeout
	if !a.Deadline.IsZero() && !a.HeadBy.Before(a.Deadline) {
		t.why, t.whole = longpole.ErrDeadline, true
	}
}

// expectTime begins it where no connection keeps it.
func (t *attempt) expectTime() {
	if !t.headBy.IsZero() {
		t.timer = time.AfterFunc(time.Until(t.headBy), t.expire)
	}
}

// expire ends the attempt, unless it is a stream that has moved meanwhile.
func (t *attempt) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.endless {
		quiet := time.Since(t.x.start) - time.Duration(t.x.active.Load())
		if left := t.x.silent - quiet; left > 0 {
			t.timer.Reset(left)
			return
		}
	}
	t.cut(t.why)
}

// cancel ends the attempt for a reason; the first one stands.
func (t *attempt) cancel(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(why)
}

// cut is cancel under mu.
func (t *attempt) cut(why error) {
	if t.stop != nil {
		t.stop(why)
		return
	}
	if t.over == nil {
		t.over = why
	}
	if t.link != nil {
		t.link.close()
		t.link = nil
	}
}

// gone ends the attempt because the call has ended.
func (t *attempt) gone() { t.cancel(context.Cause(t.ctx)) }

// cause is why the attempt was ended; nil = it was not.
func (t *attempt) cause() error {
	t.mu.Lock()
	why := t.over
	t.mu.Unlock()
	if why != nil {
		return why
	}
	return context.Cause(t.ctx)
}

// until is the time that is set at present; zero = none.
func (t *attempt) until() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil {
		return time.Time{}
	}
	return t.link.until
}

// errNoStatus says that an answer cannot be passed on: net/http reads such a status, and panics when it is to write one.
var errNoStatus = errors.New("gateway: the upstream answers with a status below 100")

// answered takes the head of the answer over.
func (t *attempt) answered(res *http.Response) error {
	switch {
	case res.StatusCode < http.StatusContinue:
		return errNoStatus
	case res.StatusCode == http.StatusSwitchingProtocols:
		if err := switched(t.x.in, res); err != nil {
			return err
		}
	default:
		stripHopByHop(res.Header)
	}
	if !t.headed(t.x.endless(res)) {
		return t.cause()
	}
	t.span.answered(res.StatusCode)
	if res.Body == http.NoBody || res.Body == nil {
		res.Body = http.NoBody
		t.release()
		t.close(call.OK)
		return nil
	}
	t.ReadCloser, res.Body = res.Body, t
	return nil
}

// headed ends the time for the head and begins that for the body; false when it is over.
func (t *attempt) headed(endless bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop == nil {
		return t.headedOn(t.link, endless)
	}
	if !endless && t.timer != nil && t.whole {
		return t.ctx.Err() == nil // one time covers both
	}
	if t.timer != nil && !t.timer.Stop() {
		t.cut(t.why) // it may be about to
		return false
	}
	switch {
	case endless && t.x.silent > 0:
		t.listen()
	case !endless && !t.end.IsZero():
		t.why = longpole.ErrDeadline
		t.arm(time.Until(t.end))
	}
	return true
}

// headedOn is headed for a link.
func (t *attempt) headedOn(w *link, endless bool) bool {
	if w == nil {
		return false
	}
	switch {
	case !endless && t.whole:
		return true
	case !endless:
		t.why = longpole.ErrDeadline
		w.expire(t.end)
		return true
	case t.x.silent > 0:
		t.listen()
	}
	w.expire(time.Time{})
	return true
}

// listen begins the time that a stream may be silent.
func (t *attempt) listen() {
	t.endless, t.why = true, errSilent
	t.x.touch()
	t.arm(t.x.silent)
}

func (t *attempt) arm(d time.Duration) {
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.expire)
		return
	}
	t.timer.Reset(d)
}

// because adds to an error of the transport why we ended the attempt.
func (t *attempt) because(err error) error {
	if cause := t.cause(); cause != nil && !errors.Is(err, cause) {
		return errors.Join(cause, err)
	}
	return err
}

// informed is told of each informational answer.
func (t *attempt) informed(code int, header textproto.MIMEHeader) error {
	t.mu.Lock()
	t.informal++
	many := t.informal > maxInformational
	t.mu.Unlock()
	if many {
		return errTooInformative
	}
	t.x.early.pass(code, header)
	return nil
}

// errRepeated ends an attempt that net/http would make again by itself.
var errRepeated = errors.New("gateway: the connection broke off before an answer came")

// watch keeps an attempt one attempt: net/http sends an idempotent request again for each connection that was used before
// and breaks off, which may be hundreds for a request that makes its server fail. Whether anything is sent twice is for the
// policy to say, and to count. Over HTTP/2 net/http repeats what the endpoint says that it did not look at, which is safe, but
// without end or pause for an endpoint that always says so on a new connection: it may do so once.
func (t *attempt) watch(h2c bool) {
	t.trace.Got1xxResponse = t.informed
	t.trace.WroteRequest = func(info httptrace.WroteRequestInfo) { t.sent.Store(info.Err == nil) }
	t.trace.GotConn = func(info httptrace.GotConnInfo) {
		count := t.conns.Add(1)
		if c, ok := info.Conn.(*tls.Conn); h2c || t.x.mode == framed || ok && c.ConnectionState().NegotiatedProtocol == "h2" {
			if count > 2 {
				t.cancel(errRepeated)
			}
			return
		}
		if !t.sent.Load() {
			return
		}
		t.cancel(errRepeated)
		_ = info.Conn.Close() // to cancel may be too late to keep it from being sent
	}
}

// bodyError says why the body of an answer is not whole.
type bodyError struct {
	class call.Class
	err   error
}

// Error says it in words.
func (e *bodyError) Error() string { return fmt.Sprintf("gateway: reading the answer: %v", e.err) }

// Unwrap returns the cause.
func (e *bodyError) Unwrap() error { return e.err }

// Read ends the span at the end of the body.
func (t *attempt) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if t.endless { // settled before the first read
		t.x.touch()
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		t.release()
		t.span.end(call.OK)
	default:
		if t.stop == nil {
			err = t.failed(err)
		}
		err = t.because(err)
		class := t.x.class(t.cause(), err)
		t.mu.Lock()
		t.class = class
		t.mu.Unlock()
		err = &bodyError{class, err}
	}
	return n, err
}

// Close ends the span of an answer that was not read to its end: somebody left, or something broke.
func (t *attempt) Close() error {
	err := t.discard(t.ReadCloser)
	t.mu.Lock()
	class := t.class
	t.mu.Unlock()
	if class == call.OK {
		class = call.Canceled
	}
	t.close(class)
	if t.held != nil {
		t.held()
	}
	return err
}

// discard closes a body of the Transport's. One on a link would be read to its end by that: the connection is closed instead.
func (t *attempt) discard(body io.Closer) error {
	if t.stop == nil {
		t.drop()
		return nil
	}
	return body.Close()
}

// close ends all that the attempt holds.
func (t *attempt) close(class call.Class) {
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	if t.unwatch != nil {
		t.unwatch()
	}
	t.drop()
	if t.stop != nil {
		t.stop(nil)
	}
	t.span.end(class)
}

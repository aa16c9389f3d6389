package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

// What a lane may hold and send.
const (
	laneBodyBytes = 8 << 10 // of a request that goes out in one piece; no server can make its sender wait with so little
	laneBuffer    = 8 << 10 // of what comes
	laneHeadBytes = 8 << 10 // of what goes out, kept for the next call
	sweepTime     = 10 * time.Second
)

var (
	errHeadTooLong = fmt.Errorf("gateway: the answer has a head of more than %d bytes", answerHeadBytes)
	errField       = errors.New("gateway: a header field has characters that HTTP/1.1 has no place for")
)

// lane is the connections to one endpoint in the clear, over HTTP/1.1, for calls whose request is known as a whole. Such a
// call is written and its answer read by the goroutine that makes it: http.Transport has two more for each connection,
// and to pass a request and its answer between the three costs more than to send them. All other calls are the
// Transport's. The zero value is ready; it is safe for concurrent use.
type lane struct {
	mu    sync.Mutex
	idle  []*link // the one that was used last comes last
	shut  bool    // the endpoint is not in use: nothing is kept
	timer *time.Timer
}

// link is one connection of a lane. It belongs to one attempt at a time, or lies idle.
type link struct {
	conn  net.Conn
	raw   syscall.RawConn // nil = it is no socket
	in    bufio.Reader
	left  int64     // bytes that may still be read; bounds the head
	until time.Time // its deadline; zero = none
	since time.Time // it lies idle
	buf   []byte    // of a head that goes out
	names []string  // of its fields

	look  func(fd uintptr) // what Control is given
	alive bool             // what look has found
	one   [1]byte
}

func newLink(c net.Conn) *link {
	w := &link{conn: c}
	w.in = *bufio.NewReaderSize(incoming{w}, laneBuffer)
	if s, ok := c.(syscall.Conn); ok {
		w.raw, _ = s.SyscallConn()
	}
	w.look = func(fd uintptr) {
		// On a connection that lies idle nothing may come, the end included.
		_, err := syscall.Read(int(fd), w.one[:])
		w.alive = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
	}
	return w
}

// fit reports whether an idle connection can take a request.
func (w *link) fit() bool {
	if w.raw == nil {
		w.expire(time.Unix(1, 0))
		_, err := w.conn.Read(w.one[:])
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	w.alive = false
	return w.raw.Control(w.look) == nil && w.alive
}

// incoming reads from a link as far as its bound.
type incoming struct{ w *link }

// Read is used by one goroutine at a time.
func (r incoming) Read(p []byte) (int, error) {
	if r.w.left <= 0 {
		return 0, errHeadTooLong
	}
	n, err := r.w.conn.Read(p[:min(int64(len(p)), r.w.left)])
	r.w.left -= int64(n)
	return n, err
}

// expire sets the deadline of all that follows; zero = none.
func (w *link) expire(t time.Time) {
	if !t.IsZero() || !w.until.IsZero() {
		w.until = t
		_ = w.conn.SetDeadline(t)
	}
}

func (w *link) close() { _ = w.conn.Close() }

// take gives an idle connection that is fit; nil = there is none.
func (l *lane) take() *link {
	for {
		l.mu.Lock()
		n := len(l.idle) - 1
		if n < 0 {
			l.mu.Unlock()
			return nil
		}
		w := l.idle[n]
		l.idle[n] = nil
		l.idle = l.idle[:n]
		l.mu.Unlock()
		if w.fit() {
			return w
		}
		w.close()
	}
}

// put takes a connection back whose answer was read to its end.
func (l *lane) put(w *link) {
	if w.in.Buffered() > 0 {
		w.close() // what came after the answer would be taken for that to the next request
		return
	}
	w.since = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut || len(l.idle) >= idleConns {
		w.close()
		return
	}
	l.idle = append(l.idle, w)
	if l.timer == nil {
		l.timer = time.AfterFunc(sweepTime, l.sweep)
	}
}

// sweep closes what has lain idle for long, or was closed by the endpoint.
func (l *lane) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept, now := l.idle[:0], time.Now()
	for _, w := range l.idle {
		if now.Sub(w.since) < idleTime && w.fit() {
			kept = append(kept, w)
		} else {
			w.close()
		}
	}
	clear(l.idle[len(kept):])
	l.idle = kept
	if l.timer != nil && len(kept) > 0 {
		l.timer.Reset(sweepTime)
	} else {
		l.timer = nil
	}
}

// open lets connections be kept, until close.
func (l *lane) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = false
}

// close ends the idle connections, and those in use with their answers.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	for _, w := range l.idle {
		w.close()
	}
	l.idle = nil
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// lane is the one for the call to an endpoint of u; nil = its request is for the Transport.
func (x *exchange) lane(u *upstreamConfig, to *endpoint) *lane {
	if x.mode != plain || x.body.stream != nil || len(x.body.kept) > laneBodyBytes || len(x.trailers) > 0 ||
		to.url.Scheme != "http" || u.Protocol != ProtocolAuto && u.Protocol != ProtocolHTTP1 || !x.route.side.calm() {
		return nil
	}
	if _, waits := x.header["Expect"]; waits {
		return nil
	}
	return &to.lane
}

// direct makes the attempt on a connection of l.
func (t *attempt) direct(l *lane, to *endpoint) (*http.Response, error) {
	for {
		w, reused := l.take(), true
		if w == nil {
			conn, err := t.dial(to)
			if err != nil {
				return nil, t.failed(err)
			}
			w, reused = newLink(conn), false
		}
		if !t.hold(l, w) {
			w.close()
			return nil, t.cause()
		}
		w.expire(t.headBy)
		if err := w.compose(&t.out, t.x.body.kept); err != nil {
			return nil, err
		}
		n, err := w.conn.Write(w.buf)
		if cap(w.buf) > laneHeadBytes+laneBodyBytes {
			w.buf = nil
		}
		if err == nil {
			return t.receive(w)
		}
		if err = t.failed(err); !reused || n > 0 || t.cause() != nil {
			return nil, err // a time that is over must not cost the connections that are fit
		}
		t.drop() // the endpoint has closed it just now, and seen nothing of the request
	}
}

// dial opens a connection within the time for the head.
func (t *attempt) dial(to *endpoint) (net.Conn, error) {
	ctx := t.ctx
	if !t.headBy.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, t.headBy, t.why)
		defer cancel()
	}
	address := to.url.Host
	if to.url.Port() == "" {
		address = net.JoinHostPort(to.url.Hostname(), "80")
	}
	conn, err := t.x.g.options.Dial(ctx, "tcp", address)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		t.cancel(context.Cause(ctx))
	}
	return nil, &dialError{err}
}

// receive reads the head of the answer. Informational ones come before it.
func (t *attempt) receive(w *link) (*http.Response, error) {
	for {
		w.left = answerHeadBytes
		res, err := http.ReadResponse(&w.in, &t.out)
		if err != nil {
			if errors.Is(err, errHeadTooLong) {
				err = errHeadTooLong
			}
			return nil, t.failed(err)
		}
		if code := res.StatusCode; code < http.StatusContinue || code >= http.StatusOK || code == http.StatusSwitchingProtocols {
			w.left = math.MaxInt64
			t.last = res.Close || code < http.StatusOK
			return res, nil
		}
		if err := t.informed(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
			return nil, err
		}
	}
}

// hold makes w the attempt's; false = the attempt has ended.
func (t *attempt) hold(l *lane, w *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		return false
	}
	t.lane, t.link = l, w
	return true
}

// drop closes the attempt's connection, if it still has one.
func (t *attempt) drop() {
	t.mu.Lock()
	w := t.link
	t.link = nil
	t.mu.Unlock()
	if w != nil {
		w.close()
	}
}

// release gives the connection back after the end of the answer.
func (t *attempt) release() {
	t.mu.Lock()
	w := t.link
	t.link = nil
	t.mu.Unlock()
	switch {
	case w == nil:
	case t.last:
		w.close()
	default:
		t.lane.put(w)
	}
}

// failed finds out whether it was our deadline that made the connection fail.
func (t *attempt) failed(err error) error {
	var wait net.Error
	if errors.As(err, &wait) && wait.Timeout() && !t.until().IsZero() && !time.Now().Before(t.until()) {
		t.cancel(t.why)
	}
	return err
}

// compose puts into buf a request in HTTP/1.1, in the way of http.Request.Write. What only a proxy may say is the caller's.
func (w *link) compose(r *http.Request, body []byte) error {
	host, err := httpguts.PunycodeHostPort(r.Host)
	if err != nil {
		return err
	}
	if !httpguts.ValidHostHeader(host) {
		host = ""
	}
	b := append(append(w.buf[:0], r.Method...), ' ')
	from := len(b)
	b = appendTarget(b, r.URL)
	for _, c := range b[from:] {
		if c <= ' ' || c == 0x7f {
			return errField
		}
	}
	b = append(append(b, " HTTP/1.1\r\nHost: "...), withoutZone(host)...)
	b = append(b, "\r\n"...)
	w.names = w.names[:0]
	for name := range r.Header {
		w.names = append(w.names, name)
	}
	slices.Sort(w.names) // the same request is the same bytes
	for _, name := range w.names {
		if b, err = appendField(b, name, r.Header[name]); err != nil {
			return err
		}
	}
	if len(body) > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10), "\r\n"...)
	}
	w.buf = append(append(b, "\r\n"...), body...)
	clear(w.names)
	return nil
}

// appendField appends the lines of a field, less those that the transport writes itself.
func appendField(b []byte, name string, values []string) ([]byte, error) {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
		return b, nil
	case "User-Agent":
		if values = values[:min(len(values), 1)]; len(values) == 0 || values[0] == "" {
			return b, nil
		}
	}
	if !cleanField(name, values) {
		return b, errField
	}
	for _, v := range values {
		b = append(append(append(append(b, name...), ": "...), textproto.TrimString(v)...), "\r\n"...)
	}
	return b, nil
}

// appendTarget appends what u.RequestURI returns. A path that no escaping can change is taken as it is.
func appendTarget(b []byte, u *url.URL) []byte {
	if u.RawPath != "" || u.Path == "" || !unescaped(u.Path) {
		return append(b, u.RequestURI()...)
	}
	b = append(b, u.Path...)
	if u.ForceQuery || u.RawQuery != "" {
		b = append(append(b, '?'), u.RawQuery...)
	}
	return b
}

// unescaped reports whether s has only unreserved characters and slashes (RFC 3986 section 2.3).
func unescaped(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '-' || c > '9') && c != '_' && c != '~' {
			return false
		}
	}
	return true
}

// withoutZone is a host without the zone of an IPv6 address, which means something to its own host only (RFC 6874).
func withoutZone(host string) string {
	if !strings.HasPrefix(host, "[") {
		return host
	}
	end := strings.LastIndexByte(host, ']')
	if end < 0 {
		return host
	}
	zone := strings.LastIndexByte(host[:end], '%')
	if zone < 0 {
		return host
	}
	return host[:zone] + host[end:]
}

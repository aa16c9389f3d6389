package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted is a connection to an endpoint that answers the first request with text, a piece at a time, and then hangs up
// or says nothing more.
type scripted struct {
	piece  int
	hangUp bool
	asked  chan struct{} // closed by the first write
	closed chan struct{}
	writes sync.Once
	closes sync.Once

	mu   sync.Mutex
	text []byte
	hot  bool // the deadline is over
	more bool // than the answer came
}

func newScripted(text []byte, piece int, hangUp bool) *scripted {
	return &scripted{text: slices.Clone(text), piece: piece, hangUp: hangUp, asked: make(chan struct{}), closed: make(chan struct{})}
}

func (c *scripted) Read(p []byte) (int, error) {
	select {
	case <-c.asked:
	case <-c.closed:
		return 0, net.ErrClosed
	}
	c.mu.Lock()
	n, hot := copy(p[:min(len(p), c.piece)], c.text), c.hot
	c.text = c.text[n:]
	c.mu.Unlock()
	switch {
	case n > 0:
		return n, nil
	case c.hangUp:
		return 0, io.EOF
	case hot:
		return 0, os.ErrDeadlineExceeded
	}
	<-c.closed
	return 0, net.ErrClosed
}

func (c *scripted) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.text)
}

func (c *scripted) Write(p []byte) (int, error) {
	c.writes.Do(func() { close(c.asked) })
	return len(p), nil
}

func (c *scripted) Close() error { c.closes.Do(func() { close(c.closed) }); return nil }

func (c *scripted) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hot = !t.IsZero() && t.Before(time.Now())
	return nil
}

func (c *scripted) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *scripted) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *scripted) LocalAddr() net.Addr                { return pipeAddr("here") }
func (c *scripted) RemoteAddr() net.Addr               { return pipeAddr("there") }

// heard is what became of an answer.
type heard struct {
	head    string // "" = an error instead
	body    string
	broken  bool // the body is not whole
	trailer string

	untilEnd bool // of the connection, the body goes
	reused   bool // the connection is ready for another request
}

// attemptFor makes one that nothing is sent for yet.
func attemptFor(method string) *attempt {
	to := &url.URL{Scheme: "http", Host: "there:1", Path: "/"}
	in := &http.Request{Method: method, URL: to, Host: "there", Header: http.Header{}}
	x := &exchange{in: in, route: &route{}, body: nothing, start: time.Now()}
	t := &attempt{x: x, ctx: context.Background()}
	t.out = http.Request{Method: method, URL: to, Host: "there", Header: http.Header{"User-Agent": silent}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	t.span.spans = &x.spans
	return t
}

// listen takes the answer that came for t.
func (h *heard) listen(t *attempt, res *http.Response, err error) {
	if err == nil {
		if err = t.answered(res); err != nil {
			_ = t.discard(res.Body)
		}
	}
	if err == nil {
		h.untilEnd = res.ContentLength < 0 && len(res.TransferEncoding) == 0 && t.out.Method != http.MethodHead
		var fields strings.Builder
		_ = res.Header.Write(&fields)
		h.head = fmt.Sprintf("%d %s %d %v\n%s", res.StatusCode, res.Proto, res.ContentLength, res.TransferEncoding, fields.String())
		body, fault := io.ReadAll(res.Body)
		h.body, h.broken = string(body), fault != nil
		if !h.broken {
			h.trailer = fmt.Sprint(res.Trailer)
		}
		_ = res.Body.Close()
	}
	t.close(0)
}

// byLane has the answer read by a lane.
func byLane(method string, c *scripted) (h heard) {
	defer time.AfterFunc(time.Minute, func() { _ = c.Close() }).Stop()
	t, l := attemptFor(method), &lane{}
	defer l.close()
	w := newLink(c)
	w.left = math.MaxInt64
	t.hold(l, w)
	_, _ = c.Write(nil)
	res, err := t.receive(w)
	h.listen(t, res, err)
	c.more = w.in.Buffered() > 0 || c.left() > 0
	again := l.take()
	if h.reused = again != nil; h.reused {
		again.close()
	}
	return h
}

// byTransport has it read by net/http.
func byTransport(method string, c *scripted) (h heard) {
	defer time.AfterFunc(time.Minute, func() { _ = c.Close() }).Stop()
	t := attemptFor(method)
	t.watch(false)
	t.trace.PutIdleConn = func(err error) { h.reused = err == nil }
	ctx, stop := context.WithCancelCause(httptrace.WithClientTrace(context.Background(), &t.trace))
	t.ctx, t.stop = ctx, stop
	dialed := false
	tr := newTransport(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		if dialed {
			return nil, errors.New("once only")
		}
		dialed = true
		return c, nil
	}}, nil, protocolsOf(ProtocolHTTP1, plain))
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(t.out.WithContext(ctx))
	h.listen(t, res, err)
	return h
}

// FuzzLaneAgainstTransport lets a lane and net/http read the same bytes: they must come to the same answer, and the lane
// must not keep a connection that net/http would not.
func FuzzLaneAgainstTransport(f *testing.F) {
	for _, text := range []string{
		fine, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-After\r\n\r\n4;a=b\r\nfine\r\n0\r\nX-After: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX: 1\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nfine",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\nfine\n0\n\n",
		"HTTP/1.1 200 OK\r\n\r\nfine", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nfine",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine",
		"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nfine", "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nfine", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nfine",
		"HTTP/1.1 200 OK\nContent-Length: 4\n\nfine", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 4\r\n\r\nfine",
		"HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nfine", "HTTP/1.1 200 OK\r\nX\x00: a\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInformational+1) + fine, "HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\n" + fine,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 099 What\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 +12 What\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
		fine + fine, fine + "\r\n", "\r\n" + fine, "garbage\r\n\r\n", "", "HTTP/2.0 200 OK\r\n\r\nfine", "HTTP/1.1 200 OK\r\nConnection: x, close\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nfine",
		"HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		for piece := range 2 {
			f.Add([]byte(text), uint8(piece*4096/16), false)
			f.Add([]byte(text), uint8(piece*4096/16), true)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, size uint8, head bool) {
		piece, method := max(int(size)*16, 1), http.MethodGet
		if len(text) > 64<<10 {
			return // longer heads than are allowed: the two count them in another way
		}
		if head {
			method = http.MethodHead
		}
		ours, theirs := byLane(method, newScripted(text, piece, true)), byTransport(method, newScripted(text, piece, true))
		if theirs.reused = false; ours != theirs { // net/http may keep it until it sees the end
			t.Fatalf("%q is read as\n%+v\nwant\n%+v", text, ours, theirs)
		}
		if ours.head == "" || ours.broken || ours.untilEnd {
			return
		}
		quiet := newScripted(text, piece, false)
		ours, theirs = byLane(method, quiet), byTransport(method, newScripted(text, piece, false))
		theirs.reused = theirs.reused && !quiet.more // what more has come net/http sees by itself, later
		if ours != theirs {
			t.Errorf("%q is read as\n%+v\nwant\n%+v", text, ours, theirs)
		}
	})
}

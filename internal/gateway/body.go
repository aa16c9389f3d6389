package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errSpent says that a body which is not kept has been read by an earlier attempt.
var errSpent = errors.New("gateway: the request body is spent")

// inbound is the body of a client's request: none, kept for any number of attempts, or streamed to a single one.
type inbound struct {
	kept   []byte
	stream *clientBody // nil = none, or kept
}

// receive prepares the body of r. A body of a known, small length is read at once; one of unknown length only when
// idempotent says that another attempt may want it, since its sender may wait for an answer before it sends on.
func receive(w http.ResponseWriter, r *http.Request, l Limits, idempotent bool) (*inbound, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &inbound{}, nil
	}
	body := r.Body
	if l.BodyBytes > 0 {
		if r.ContentLength > l.BodyBytes {
			return nil, &http.MaxBytesError{Limit: l.BodyBytes}
		}
		body = http.MaxBytesReader(w, body, l.BodyBytes)
	}
	c := &clientBody{body: body, control: http.NewResponseController(w), stall: l.StallTimeout}
	small := r.ContentLength > 0 && r.ContentLength <= l.ReplayBytes
	if !small && (r.ContentLength > 0 || !idempotent || l.ReplayBytes == 0) {
		return c.streamed(), nil
	}
	buf, err := io.ReadAll(io.LimitReader(c, l.ReplayBytes+1))
	switch {
	case err != nil:
		c.end()
		return nil, err
	case int64(len(buf)) <= l.ReplayBytes:
		if small && int64(len(buf)) != r.ContentLength {
			return nil, io.ErrUnexpectedEOF
		}
		return &inbound{kept: buf}, nil
	}
	c.head = buf
	c.touched.Store(false)
	return c.streamed(), nil
}

// replayable reports whether a second attempt can send the body too.
func (b *inbound) replayable() bool { return b.stream == nil }

// open gives the body to an attempt.
func (b *inbound) open() (io.ReadCloser, error) {
	switch {
	case b.stream == nil && len(b.kept) == 0:
		return http.NoBody, nil
	case b.stream == nil:
		return io.NopCloser(bytes.NewReader(b.kept)), nil
	case b.stream.touched.Load():
		return nil, errSpent
	}
	return io.NopCloser(b.stream), nil
}

// spent reports whether a refused attempt has used the body up.
func (b *inbound) spent() bool { return b.stream != nil && b.stream.touched.Load() }

// fault is the client's error while it sent the body; nil when there is none.
func (b *inbound) fault() error {
	if b.stream == nil {
		return nil
	}
	if err := b.stream.err.Load(); err != nil {
		return *err
	}
	return nil
}

// close ends the reading of the body with the call.
func (b *inbound) close() {
	if b.stream != nil {
		b.stream.end()
	}
}

// clientBody reads what a client sends and gives it up when it stalls. The connection has a deadline while a read waits,
// and once the handler returns with a body that is not whole, for net/http reads the rest of it by itself and would wait
// for ever. It has none at other times: a slow upstream is no fault of the client's, and after a whole body net/http
// reads on in wait for the client to leave, to which a deadline would look alike. The transport may read while, and
// after, the handler returns; then the deadline is no longer ours.
type clientBody struct {
	head    []byte // read ahead already
	body    io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	touched atomic.Bool
	err     atomic.Pointer[error]

	mu      sync.Mutex // guards what follows, and the deadline
	reading bool
	whole   bool // all is read
	ended   bool // the handler returns
}

// streamed makes the body one for a single attempt. The answer may begin while it is still being sent; net/http would
// otherwise read it to its end before, in rivalry with the transport.
func (c *clientBody) streamed() *inbound {
	_ = c.control.EnableFullDuplex() // HTTP/2 has it anyway
	c.deadline(time.Time{})
	return &inbound{stream: c}
}

// Read is used by one goroutine at a time.
func (c *clientBody) Read(p []byte) (int, error) {
	c.touched.Store(true)
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	if !c.before() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := c.body.Read(p)
	c.after(err == io.EOF)
	if err != nil && err != io.EOF {
		c.err.Store(&err)
	}
	return n, err
}

func (c *clientBody) before() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.reading = true
	c.deadline(time.Now().Add(c.stall))
	return true
}

func (c *clientBody) after(whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	c.whole = c.whole || whole
	if !c.ended {
		c.deadline(time.Time{})
	}
}

// deadline is best effort: a recorder in a test has none.
func (c *clientBody) deadline(t time.Time) {
	if c.stall > 0 {
		_ = c.control.SetReadDeadline(t)
	}
}

func (c *clientBody) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	switch {
	case c.whole:
	case c.reading || c.err.Load() != nil:
		// Nobody wants the rest: wake the one that waits for it, or it would hold up the connection's end.
		_ = c.control.SetReadDeadline(time.Now())
	default:
		c.deadline(time.Now().Add(c.stall))
	}
}

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

// inbound is the body of a client's request: none, kept whole before the first attempt, or streamed.
type inbound struct {
	kept   []byte
	stream *clientBody // nil = none, or kept
	budget *budget     // holds the bytes of kept
}

// nothing is the body of the calls that have none.
var nothing = &inbound{}

// budget bounds the bytes that are kept for another attempt, over all calls.
type budget struct{ used atomic.Int64 }

// take reserves n bytes of most; false when they are not there.
func (b *budget) take(n, most int64) bool {
	if b.used.Add(n) <= most {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// need says what a call asks of its body.
type need struct {
	again  bool   // another attempt may want it
	copy   bool   // two attempts may want it at once
	waits  bool   // its sender may wait for an answer before it sends on: nothing may be read ahead
	stream bool   // it may pause for as long as it likes
	touch  func() // told of each read; nil = nobody asks
}

// receive prepares the body of r. A body of a known, small length is read at once. One of unknown length is read ahead
// only for a hedge, and never when its sender may wait: the others are kept while the first attempt takes them, as far as
// Limits.ReplayBytes goes, and a next attempt begins with what was kept.
func (g *Gateway) receive(w http.ResponseWriter, r *http.Request, l *Limits, n need) (*inbound, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nothing, nil
	}
	body := r.Body
	if l.BodyBytes > 0 {
		if r.ContentLength > l.BodyBytes {
			return nil, &http.MaxBytesError{Limit: l.BodyBytes}
		}
		body = http.MaxBytesReader(w, body, l.BodyBytes)
	}
	c := &clientBody{body: body, control: http.NewResponseController(w), stall: l.StallTimeout, rate: l.BodyRate, touch: n.touch}
	if n.stream {
		c.stall, c.rate = 0, 0
	}
	keep := l.ReplayBytes
	small := r.ContentLength > 0 && r.ContentLength <= keep
	if small {
		keep = r.ContentLength
	}
	switch {
	case r.ContentLength > l.ReplayBytes || keep == 0 || !g.replay.take(keep, l.ReplayTotal):
		return c.streamed(), nil // to a single attempt
	case n.waits, !small && (!n.again || !n.copy):
		c.budget, c.keep = &g.replay, keep
		return c.streamed(), nil
	}
	buf, err := c.ahead(keep, small)
	switch {
	case err != nil:
		g.replay.give(keep)
		c.end()
		return nil, err
	case int64(len(buf)) <= keep:
		if small && int64(len(buf)) != r.ContentLength {
			g.replay.give(keep)
			return nil, io.ErrUnexpectedEOF
		}
		g.replay.give(keep - int64(len(buf)))
		return &inbound{kept: buf, budget: &g.replay}, nil
	}
	g.replay.give(keep)
	c.kept, c.size = buf, int64(len(buf))
	return c.streamed(), nil
}

// none reports that there is no body: one that is not read yet is one.
func (b *inbound) none() bool { return b.stream == nil && len(b.kept) == 0 }

// replayable reports whether a second attempt can send the body too, as far as is known.
func (b *inbound) replayable() bool { return b.stream == nil || b.stream.replayable() }

// whole reports whether two attempts can send the body at once.
func (b *inbound) whole() bool { return b.stream == nil }

// open gives the body to an attempt.
func (b *inbound) open() (io.ReadCloser, error) {
	switch {
	case b.none():
		return http.NoBody, nil
	case b.stream == nil:
		return io.NopCloser(bytes.NewReader(b.kept)), nil
	case b.stream.spent():
		return nil, errSpent
	}
	return &bodyReader{b: b.stream}, nil
}

// spent reports whether a refused attempt has used the body up.
func (b *inbound) spent() bool { return b.stream != nil && b.stream.spent() }

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

// unread reports that the client may still be sending, or has sent what is no body.
func (b *inbound) unread() bool {
	if b.stream == nil {
		return false
	}
	b.stream.mu.Lock()
	defer b.stream.mu.Unlock()
	return !b.stream.whole
}

// close ends the reading of the body with the call.
func (b *inbound) close() {
	switch {
	case b.stream != nil:
		b.stream.end()
	case b.budget != nil:
		b.budget.give(int64(len(b.kept)))
	}
}

// clientBody reads what a client sends and gives it up when it stalls or trickles. The connection has a deadline while a
// read waits, and once the handler returns with a body that is not whole, for net/http reads the rest of it by itself and
// would wait for ever. It has none at other times: a slow upstream is no fault of the client's, and after a whole body
// net/http reads on in wait for the client to leave, to which a deadline would look alike. The transport may read while,
// and after, the handler returns; then the deadline is no longer ours.
type clientBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	stall   time.Duration // 0 = a stream, whose idle time is watched elsewhere
	rate    int64         // bytes a second, on average once a stall's worth of time was waited for; 0 = any
	touch   func()        // told of each read; nil = nobody asks
	budget  *budget       // from which keep was taken; nil = none was
	err     atomic.Pointer[error]

	mu      sync.Mutex    // guards what follows, and the deadline
	turn    *sync.Cond    // one read at a time
	keep    int64         // how much may be kept
	kept    []byte        // what was read so far, from the start; nil once it was too much
	size    int64         // how much was read so far
	waited  time.Duration // for it
	reading bool
	whole   bool // all is read
	ended   bool // the handler returns
}

// streamed makes the body one that is read while the call runs. The answer may begin while it is still being sent;
// net/http would otherwise read it to its end before, in rivalry with the transport.
func (c *clientBody) streamed() *inbound {
	_ = c.control.EnableFullDuplex() // HTTP/2 has it anyway
	c.turn = sync.NewCond(&c.mu)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline(time.Time{})
	return &inbound{stream: c}
}

// ahead reads a body of n bytes before any attempt; without known, n+1 bytes are the sign of a longer one.
func (c *clientBody) ahead(n int64, known bool) ([]byte, error) {
	if !known {
		return io.ReadAll(io.LimitReader(readerFunc(c.next), n+1))
	}
	buf := make([]byte, n+1)
	got, err := io.ReadFull(readerFunc(c.next), buf[:n])
	if err != nil {
		return nil, eofIsShort(err)
	}
	// The end must be seen too: it brings the trailers, and sets the connection free.
	if more, err := c.next(buf[n:]); more != 0 || !errors.Is(err, io.EOF) {
		return nil, eofIsShort(err)
	}
	return buf[:got], nil
}

func eofIsShort(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

type readerFunc func(p []byte) (int, error)

// Read calls f.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// replayable reports whether all that was read is still there.
func (c *clientBody) replayable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keep > 0 && int64(len(c.kept)) == c.size
}

// spent reports whether something was read that is gone.
func (c *clientBody) spent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.kept)) != c.size
}

// bodyReader is the body as one attempt reads it.
type bodyReader struct {
	b  *clientBody
	at int64
}

// Read is used by one goroutine at a time. It gives what was kept first, then what the client sends.
func (r *bodyReader) Read(p []byte) (int, error) {
	n, err := r.b.read(r.at, p)
	r.at += int64(n)
	return n, err
}

// Close leaves the client's body to the end of the call: another attempt may want it.
func (r *bodyReader) Close() error { return nil }

// read reads from the place at.
func (c *clientBody) read(at int64, p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.reading && at >= int64(len(c.kept)) && !c.ended {
		c.turn.Wait()
	}
	switch {
	case at < int64(len(c.kept)):
		return copy(p, c.kept[at:]), nil
	case at != c.size:
		return 0, errSpent
	case c.whole:
		return 0, io.EOF
	case c.err.Load() != nil:
		return 0, *c.err.Load()
	}
	return c.fetch(p)
}

// next reads on, for one that reads alone.
func (c *clientBody) next(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetch(p)
}

// fetch reads what the client sends next, without mu while it waits. A read that its attempt has given up goes on, and
// what it brings is kept.
func (c *clientBody) fetch(p []byte) (int, error) {
	if c.ended {
		return 0, http.ErrBodyReadAfterClose
	}
	c.reading = true
	began := time.Now()
	if c.stall > 0 {
		c.deadline(began.Add(c.patience()))
	}
	c.mu.Unlock()
	n, err := c.body.Read(p)
	if c.touch != nil {
		c.touch()
	}
	c.mu.Lock()
	c.reading = false
	c.waited += time.Since(began)
	c.whole = err == io.EOF
	if err != nil && !c.whole {
		c.err.Store(&err)
	}
	c.note(p[:n])
	if c.turn != nil {
		c.turn.Broadcast()
	}
	if c.stall > 0 && !c.ended {
		c.deadline(time.Time{})
	}
	return n, err
}

// patience is how long the next read may take: a stall, or less when the client has sent little for the time it took.
func (c *clientBody) patience() time.Duration {
	if c.rate <= 0 {
		return c.stall
	}
	earned := time.Duration(float64(c.size) / float64(c.rate) * float64(time.Second))
	return max(min(c.stall, c.stall+earned-c.waited), time.Millisecond)
}

// note counts what was read, and keeps it while all fits.
func (c *clientBody) note(p []byte) {
	fits := int64(len(c.kept)) == c.size && c.size+int64(len(p)) <= c.keep
	c.size += int64(len(p))
	switch {
	case fits:
		c.kept = append(c.kept, p...)
	case len(p) > 0:
		c.kept = nil
		c.giveBack()
	}
}

func (c *clientBody) giveBack() {
	if c.budget != nil {
		c.budget.give(c.keep)
		c.budget, c.keep = nil, 0
	}
}

// deadline is best effort: a recorder in a test has none.
func (c *clientBody) deadline(t time.Time) { _ = c.control.SetReadDeadline(t) }

// lastWord is how long the rest of a body may take that nobody reads any more.
const lastWord = time.Minute

func (c *clientBody) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.giveBack()
	switch {
	case c.whole:
	case c.reading || c.err.Load() != nil:
		// Nobody wants the rest: wake the one that waits for it, or it would hold up the connection's end.
		c.deadline(time.Now())
	case c.stall > 0:
		c.deadline(time.Now().Add(c.stall))
	default:
		c.deadline(time.Now().Add(lastWord))
	}
	if c.turn != nil {
		c.turn.Broadcast()
	}
}

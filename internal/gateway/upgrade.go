package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

var (
	errUnasked = errors.New("gateway: the upstream switched protocols without being asked to")
	errOther   = errors.New("gateway: the upstream switched to another protocol than it was asked to")
)

// upgrades reports whether the client asks for another protocol on this connection (RFC 9110 section 7.8). An offer of
// h2c is not meant: it may be ignored, and HTTP/2 in the clear works by prior knowledge.
func upgrades(r *http.Request) bool {
	wants := r.Header["Upgrade"]
	return len(wants) > 0 && r.ProtoMajor == 1 && r.ProtoMinor > 0 && hasToken(r.Header["Connection"], "upgrade") && !hasToken(wants, "h2c")
}

// switched checks a 101: an endpoint that sends one unasked, or another protocol than asked for, wants the bytes that
// follow to be taken for something that they are not.
func switched(r *http.Request, res *http.Response) error {
	if !upgrades(r) {
		return errUnasked
	}
	to := res.Header["Upgrade"]
	if len(to) != 1 || !hasToken(res.Header["Connection"], "upgrade") {
		return errOther
	}
	for name := range strings.SplitSeq(to[0], ",") {
		if !hasToken(r.Header["Upgrade"], textproto.TrimString(name)) {
			return errOther
		}
	}
	if _, ok := res.Body.(io.ReadWriteCloser); !ok {
		return errUnasked
	}
	return nil
}

// upgradeHeader puts back into h, the header of every attempt, what asks for the other protocol.
func upgradeHeader(h http.Header, r *http.Request) {
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = slices.Clone(r.Header["Upgrade"])
}

// tunnels are the connections that were switched to another protocol. net/http no longer knows of them.
type tunnels struct {
	mu     sync.Mutex
	open   map[*pipe]struct{}
	closed bool
	empty  chan struct{} // closed when none is open; nil = nobody waits for it
}

// add takes p in; false when the gateway is about to end.
func (ts *tunnels) add(p *pipe) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.open == nil {
		ts.open = make(map[*pipe]struct{})
	}
	ts.open[p] = struct{}{}
	return true
}

func (ts *tunnels) remove(p *pipe) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if delete(ts.open, p); len(ts.open) == 0 && ts.empty != nil {
		close(ts.empty)
		ts.empty = nil
	}
}

// count is how many there are.
func (ts *tunnels) count() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return len(ts.open)
}

// drain lets the tunnels end by themselves until patience is over, then breaks off those that are left. None is let in
// after that.
func (ts *tunnels) drain(patience context.Context) {
	ts.mu.Lock()
	empty := ts.empty
	if empty == nil {
		empty = make(chan struct{})
		if len(ts.open) == 0 {
			close(empty)
		} else {
			ts.empty = empty
		}
	}
	ts.mu.Unlock()
	select {
	case <-patience.Done():
	case <-empty:
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for p := range ts.open {
		p.close()
	}
}

// pipe is one tunnel: what comes on one side goes out on the other, and nothing of it is looked at.
type pipe struct {
	client, server io.ReadWriteCloser
	idle           time.Duration // longest silence, both ways; 0 = any
	start          time.Time
	active         atomic.Int64 // when something last came, in nanoseconds since start
	timer          *time.Timer
	once           sync.Once
}

// run copies until both sides have ended, one has broken off, or nothing moves any more. toClient and toServer are how
// many bytes went there.
func (p *pipe) run() (toClient, toServer int64) {
	if p.idle > 0 {
		p.timer = time.NewTimer(p.idle)
		stop := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() { p.watch(stop) })
		defer watch.Wait()
		defer close(stop)
	}
	defer p.close()
	var up sync.WaitGroup
	up.Go(func() { toServer = p.copy(p.server, p.client) })
	toClient = p.copy(p.client, p.server)
	up.Wait()
	return toClient, toServer
}

// watch closes a pipe that is silent.
func (p *pipe) watch(stop <-chan struct{}) {
	defer p.timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-p.timer.C:
		}
		quiet := time.Since(p.start) - time.Duration(p.active.Load())
		if quiet >= p.idle {
			p.close()
			return
		}
		p.timer.Reset(p.idle - quiet)
	}
}

// copy moves what from sends. When that has ended, to is told, and may go on sending; when that cannot be said, or
// something broke, both ends are closed.
func (p *pipe) copy(to io.Writer, from io.Reader) (n int64) {
	buf := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(buf)
	for {
		got, err := from.Read(buf[:])
		if got > 0 {
			p.active.Store(int64(time.Since(p.start)))
			wrote, werr := to.Write(buf[:got])
			n += int64(wrote)
			if werr != nil {
				p.close()
				return n
			}
		}
		if err == nil {
			continue
		}
		half, ok := to.(interface{ CloseWrite() error })
		if err != io.EOF || !ok || half.CloseWrite() != nil {
			p.close()
		}
		return n
	}
}

func (p *pipe) close() {
	p.once.Do(func() {
		_ = p.client.Close()
		_ = p.server.Close()
	})
}

// hijacked is the client's connection, with what it sent before the switch was answered.
type hijacked struct {
	net.Conn
	early *bufio.Reader
}

// Read gives what came early first.
func (c *hijacked) Read(p []byte) (int, error) {
	if n := c.early.Buffered(); n > 0 {
		return c.early.Read(p[:min(len(p), n)])
	}
	return c.Conn.Read(p)
}

// CloseWrite ends our side of the connection only.
func (c *hijacked) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tunnel switches the client's connection over. It returns when the tunnel has ended; the record's Latency is that of the
// head, and its Total has the whole.
func (v *visit) tunnel(res *http.Response) {
	v.status = res.StatusCode
	server, ok := res.Body.(*attempt)
	if !ok {
		v.rec.Class = call.Server
		v.send(refusal{http.StatusBadGateway, "upstream_error", "the upstream did not switch protocols", 0})
		return
	}
	defer func() { _ = server.Close() }()
	conn, buf, err := http.NewResponseController(v.w).Hijack()
	if err != nil {
		v.rec.Class = call.Server
		v.send(refusal{http.StatusBadGateway, "upstream_error", "the connection cannot change its protocol", 0})
		return
	}
	_ = conn.SetDeadline(time.Time{})
	l := v.g.table.Load().cfg.Limits
	p := &pipe{
		client: &hijacked{conn, buf.Reader}, server: server.ReadCloser.(io.ReadWriteCloser),
		idle: l.StreamIdle, start: time.Now(),
	}
	if !v.g.tunnels.add(p) {
		p.close()
		return
	}
	defer v.g.tunnels.remove(p)
	if err := writeSwitch(conn, res, l.StallTimeout); err != nil {
		v.rec.Class = call.Canceled
		p.close()
		return
	}
	v.count(time.Now()) // it may go on for days, and how long says nothing of the endpoint
	v.rec.ResponseBytes, v.rec.RequestBytes = p.run()
	v.rec.Total = time.Since(v.start)
}

// writeSwitch writes the head of a 101.
func writeSwitch(conn net.Conn, res *http.Response, patience time.Duration) error {
	if patience > 0 {
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
	}
	to := res.Header["Upgrade"]
	stripHopByHop(res.Header)
	res.Header["Connection"], res.Header["Upgrade"] = []string{"Upgrade"}, to
	w := bufio.NewWriter(conn)
	_, _ = w.WriteString("HTTP/1.1 101 " + http.StatusText(http.StatusSwitchingProtocols) + "\r\n")
	_ = res.Header.Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// smuggles reports that a request which asks for another protocol has a body, which could be taken for the first bytes
// of that protocol.
func smuggles(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

package gateway

import (
	"net"
	"sync"
	"sync/atomic"
)

// bounded is a listener with at most so many open connections. Further ones wait in the kernel's queue, where they cost
// nothing of ours.
type bounded struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
	clear bool // without TLS: what comes is HTTP itself

	open     atomic.Int64
	accepted atomic.Uint64
}

func newBounded(l net.Listener, most int, clear bool) *bounded {
	return &bounded{Listener: l, clear: clear, slots: make(chan struct{}, most), done: make(chan struct{})}
}

// Accept waits for a connection, and for room for it.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	b.open.Add(1)
	b.accepted.Add(1)
	if b.clear {
		c = &tidied{Conn: c}
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { b.open.Add(-1); <-b.slots })}, nil
}

// Close ends Accept; connections stay.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close makes room for another connection.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer before it ends the connection, so that a client that still sends can read it.
func (c *boundedConn) CloseWrite() error {
	conn := c.Conn
	if t, ok := conn.(*tidied); ok {
		conn = t.Conn
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

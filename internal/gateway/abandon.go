package gateway

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// What one HTTP/2 connection may give up in a row. To reset a stream costs a client one small frame, while the upstream
// may be at work for much longer: it need not notice that nobody waits (CVE-2023-44487; CVE-2025-8671, where the client
// makes the server reset). Over HTTP/1.1 each call that is given up costs a connection.
const (
	maxAbandoned = 1000        // more than were answered
	hasty        = time.Second // one that waits for longer is no flood
)

// client is the connection of one, as its calls see it.
type client struct {
	conn      net.Conn
	abandoned atomic.Int64
}

type clientKey struct{}

// withClient is the http.Server's ConnContext.
func withClient(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, &client{conn: c})
}

// settle counts how a call of HTTP/2 ended, and ends a connection whose calls are mostly given up before their answer.
func (v *visit) settle() {
	if v.r.ProtoMajor != 2 {
		return
	}
	c, ok := v.r.Context().Value(clientKey{}).(*client)
	if !ok {
		return
	}
	if v.status != statusClientGone {
		if c.abandoned.Load() > 0 {
			c.abandoned.Add(-1)
		}
		return
	}
	if time.Since(v.start) < hasty && c.abandoned.Add(1) == maxAbandoned {
		v.g.options.Log.Warn("a client gave up too many calls", "client", v.peer.client)
		_ = c.conn.Close()
	}
}

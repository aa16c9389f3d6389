package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// The protocols that an upstream may be spoken to in.
const (
	ProtocolAuto  = "auto"  // what the endpoint offers: HTTP/1.1, HTTP/2 where TLS agrees on it; gRPC is always HTTP/2
	ProtocolHTTP1 = "http1" // HTTP/1.1 only
	ProtocolH2    = "h2"    // HTTP/2 over TLS only
	ProtocolH2C   = "h2c"   // HTTP/2 in the clear, by prior knowledge
)

// mode is the kind of connection that a call needs.
type mode uint8

const (
	plain  mode = iota
	framed      // HTTP/2, because gRPC is nothing else
	tunnel      // HTTP/1.1, because the connection will change hands
)

// What a connection to an endpoint may cost. The rest is bounded by the policies.
const (
	idleConns       = 512 // kept for each endpoint
	idleTime        = 90 * time.Second
	handshakeTime   = 5 * time.Second
	continueTime    = time.Second // how long an endpoint may think about Expect: 100-continue
	pingAfter       = 15 * time.Second
	pingTime        = 5 * time.Second
	writeTime       = 15 * time.Second
	answerHeadBytes = 256 << 10
	streamWindow    = 1 << 20 // of an answer, before its reader has taken it
)

// road is how the endpoints of one upstream are reached: a pool of connections for each mode. It is immutable.
type road struct {
	cfg      *upstreamConfig // from which it was made
	protocol string
	tls      *tls.Config
	pools    [tunnel + 1]*http.Transport
}

// roads are those of all upstreams.
type roads struct {
	mu  sync.Mutex
	all map[*upstream]*road
}

// road is the way to u as its settings are now. It costs two loads, unless they have changed.
func (g *Gateway) road(u *upstream) *road {
	cfg := u.cfg.Load()
	if r := u.road.Load(); r != nil && r.cfg == cfg {
		return r
	}
	return g.roads.lay(g.options, u)
}

// lay makes the road of u. Connections are kept where the settings that matter for them did not change; the old ones are
// closed as they fall idle.
func (rs *roads) lay(o Options, u *upstream) *road {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	cfg, old := u.cfg.Load(), u.road.Load()
	next := &road{cfg: cfg, protocol: cfg.Protocol, tls: cfg.tls}
	if old != nil && old.protocol == next.protocol && old.tls == next.tls {
		next.pools = old.pools
	} else {
		for m := range next.pools {
			next.pools[m] = newTransport(o, cfg.tls, protocolsOf(cfg.Protocol, mode(m)))
		}
		old.close()
	}
	if rs.all == nil {
		rs.all = make(map[*upstream]*road)
	}
	rs.all[u] = next
	u.road.Store(next)
	return next
}

// keep closes what leads to upstreams that are gone.
func (rs *roads) keep(upstreams map[string]*upstream) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for u, r := range rs.all {
		if upstreams[u.name] != u {
			r.close()
			delete(rs.all, u)
		}
	}
}

// close closes all idle connections; those in use are closed as they fall idle.
func (rs *roads) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.all {
		r.close()
	}
}

func (r *road) close() {
	if r == nil {
		return
	}
	for _, t := range r.pools {
		t.CloseIdleConnections()
	}
}

// protocolsOf are those that calls of one mode may be sent in. An endpoint in the clear cannot offer HTTP/2, so that a
// gRPC call is taken to mean it.
func protocolsOf(protocol string, m mode) *http.Protocols {
	p := new(http.Protocols)
	switch {
	case m == tunnel || protocol == ProtocolHTTP1:
		p.SetHTTP1(true)
	case protocol == ProtocolH2:
		p.SetHTTP2(true)
	case protocol == ProtocolH2C:
		p.SetUnencryptedHTTP2(true)
	case m == framed:
		p.SetHTTP2(true)
		p.SetUnencryptedHTTP2(true)
	default:
		p.SetHTTP1(true)
		p.SetHTTP2(true)
	}
	return p
}

// newTransport is one pool of connections. Times are bounded by the policies, through contexts. An HTTP/2 connection on
// which nothing comes is asked for a sign of life, so that one that hangs is not used again; a connection whose streams
// are all taken gets another one beside it rather than a queue.
func newTransport(o Options, c *tls.Config, p *http.Protocols) *http.Transport {
	if c != nil {
		c = c.Clone() // the transport adds to it
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := o.Dial(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
		TLSClientConfig:        c,
		Protocols:              p,
		DisableCompression:     true, // what the client asked for is what it gets
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTime,
		TLSHandshakeTimeout:    handshakeTime,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: answerHeadBytes,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        16 << 10,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: pingTime, WriteByteTimeout: writeTime,
			MaxReceiveBufferPerStream: streamWindow,
		},
	}
}

package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// Options are what a Gateway needs from its program. The zero value works.
type Options struct {
	// Spans takes the spans of each call. It must not block, and is called from many goroutines. nil = none are made.
	Spans func([]trace.Span)
	// Log takes what an operator should know; never one line a call. nil = nothing is logged.
	Log *slog.Logger
	// Dial connects to endpoints. nil = net.Dialer with a timeout of 5s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Listen opens the addresses of Config.Listen. nil = net.Listen.
	Listen func(network, address string) (net.Listener, error)
}

// Gateway is the data plane. It is made by New and safe for concurrent use.
type Gateway struct {
	options   Options
	host      string // names our clock in spans
	transport *http.Transport
	table     atomic.Pointer[table]

	reload    sync.Mutex // serialises Reload
	upstreams map[string]*upstream
	servers   []*server
	ready     chan struct{} // closed when all addresses listen
	health    health

	calls    inFlight
	unrouted atomic.Uint64
	overload overload
	access   *accessLog
}

// New checks and compiles c, whose defaults it fills in. It opens no address and starts nothing: Handler works at once,
// Run does the rest. Errors are those of Config.Validate, and of reading certificates.
func New(c Config, o Options) (*Gateway, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	if o.Listen == nil {
		o.Listen = net.Listen
	}
	host, err := os.Hostname()
	if err != nil {
		host = service
	}
	g := &Gateway{options: o, host: host, upstreams: make(map[string]*upstream), ready: make(chan struct{})}
	g.transport = newTransport(o)
	g.access = newAccessLog()
	g.table.Store(&table{})
	c = c.WithDefaults()
	for _, l := range c.Listen {
		g.servers = append(g.servers, &server{listener: l})
	}
	if err := g.Reload(c); err != nil {
		return nil, err
	}
	return g, nil
}

// newTransport is shared by all upstreams. Times are bounded by the policies, through contexts.
func newTransport(o Options) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := o.Dial(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
		Protocols:              protocols,
		DisableCompression:     true, // what the client asked for is what it gets
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        16 << 10,
	}
}

// Handler is the data plane as a handler, for programs that listen by themselves.
func (g *Gateway) Handler() http.Handler { return http.HandlerFunc(g.serve) }

// Config is what is in force, as the last good New or Reload gave it; promoted candidates do not show.
func (g *Gateway) Config() Config { return g.table.Load().cfg }

// Unrouted is how many calls were refused before a route was found for them. They are in no other figure.
func (g *Gateway) Unrouted() uint64 { return g.unrouted.Load() }

// inFlight counts calls, so that the end of the last one can be waited for.
type inFlight struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when closed and n is 0; made by close
}

// enter counts a call in; false when no more are taken.
func (f *inFlight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.n++
	return true
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.closed {
		close(f.idle)
	}
}

// close takes no more calls, and returns what is closed when the last one has left.
func (f *inFlight) close() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed, f.idle = true, make(chan struct{})
		if f.n == 0 {
			close(f.idle)
		}
	}
	return f.idle
}

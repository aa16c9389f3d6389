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

	"github.com/longpole/longpole/internal/certs"
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
	options Options
	host    string // names our clock in spans
	roads   roads  // to the upstreams
	replay  budget // bytes of bodies that are kept for another attempt
	tunnels tunnels
	table   atomic.Pointer[table]

	reload    sync.Mutex // serialises Reload
	upstreams map[string]*upstream
	servers   []*server
	secured   secured // in force; guarded by reload
	killed    killed  // by hand; guarded by reload
	listening bool    // issuers may order; guarded by reload
	issuers   atomic.Pointer[[]*certs.Issuer]
	ready     chan struct{} // closed when all addresses listen
	health    health

	recorder recorder
	crew     crew

	calls    inFlight
	second   second // tier of the caches
	jobs     jobs
	joints   joints
	draining atomic.Bool
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
	g.access = newAccessLog()
	g.table.Store(&table{})
	g.recorder.init()
	c = c.WithDefaults()
	for _, l := range c.Listen {
		g.servers = append(g.servers, &server{listener: l})
	}
	if err := g.Reload(c); err != nil {
		return nil, err
	}
	return g, nil
}

// Handler is the data plane as a handler, for programs that listen by themselves.
func (g *Gateway) Handler() http.Handler { return http.HandlerFunc(g.serve) }

// Config is what is in force, as the last good New or Reload gave it; promoted candidates do not show.
func (g *Gateway) Config() Config { return g.table.Load().cfg }

// Draining reports whether the gateway was told to stop: it still serves for Limits.DrainDelay, and wants no more calls.
func (g *Gateway) Draining() bool { return g.draining.Load() }

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

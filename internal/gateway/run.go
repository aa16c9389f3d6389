package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/certs"
)

// server is one address.
type server struct {
	listener Listener
	tls      atomic.Pointer[certs.Server] // nil = in the clear
	addr     atomic.Pointer[net.Addr]
	fresh    fresh
	bound    atomic.Pointer[bounded] // nil before Run
}

// fresh is the connections on which nothing has come yet. Shutdown would wait five seconds for them, and browsers open
// such connections in advance.
type fresh struct {
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	closing bool
}

// track is the http.Server's ConnState.
func (f *fresh) track(c net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(f.conns, c)
	case f.closing:
		_ = c.Close()
	default:
		if f.conns == nil {
			f.conns = make(map[net.Conn]struct{})
		}
		f.conns[c] = struct{}{}
	}
}

// close ends them, and those that still come.
func (f *fresh) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closing = true
	for c := range f.conns {
		_ = c.Close()
	}
}

// Run listens on all addresses and serves until ctx is done, and for Limits.DrainDelay more. Then it takes no new calls, lets those that run end for
// up to Limits.DrainTimeout, breaks off the rest, and returns when all that it started has ended; nil after an orderly
// stop. It may be called once.
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.jobs.begin(ctx, g); err != nil {
		return err
	}
	listeners, err := g.listen()
	if err != nil {
		g.jobs.end()
		return err
	}
	limits := g.table.Load().cfg.Limits
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.health.begin(ctx, g)
	end := g.background(ctx)
	var run errgroup.Group
	for i, s := range g.servers {
		h := g.httpServer(s, limits)
		run.Go(func() error {
			defer cancel() // one that fails takes the others with it
			s.bound.Store(newBounded(listeners[i], limits.Connections, h.TLSConfig == nil))
			if err := serveOn(h, s.bound.Load()); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("gateway: %s: %w", s.listener.Address, err)
			}
			return nil
		})
		run.Go(func() error {
			<-ctx.Done()
			g.draining.Store(true)
			limits := g.table.Load().cfg.Limits
			time.Sleep(limits.DrainDelay) // a second signal ends the process
			s.fresh.close()
			// The run context is gone: the drain has its own time.
			patience, done := context.WithTimeout(context.WithoutCancel(ctx), limits.DrainTimeout)
			defer done()
			if h.Shutdown(patience) != nil {
				g.options.Log.Warn("calls were broken off at the end of the drain", "address", s.listener.Address)
				_ = h.Close() // its contexts end the calls
			}
			g.tunnels.drain(patience)
			return nil
		})
	}
	close(g.ready)
	err = run.Wait()
	<-g.calls.close()
	end()
	g.health.end()
	for _, r := range g.table.Load().byName {
		r.live.close(nil)
	}
	g.second.close()
	g.roads.close()
	for _, u := range g.table.Load().upstreams {
		u.close()
	}
	return err
}

// background starts what works beside the calls and must see the last of them out; end stops it.
func (g *Gateway) background(ctx context.Context) (end func()) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	var run sync.WaitGroup
	run.Go(func() { g.access.run(life, g.options.Log) })
	run.Go(func() { g.overload.watch(life, func() Overload { return g.table.Load().cfg.Overload }) })
	run.Go(func() { g.recorder.run(life, g.options.Log) })
	run.Go(func() { g.keepCertificates(life) })
	return func() { g.jobs.end(); g.joints.end(); stop(); run.Wait(); g.crew.end() }
}

// Ready is closed when all addresses listen.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addr is where the first address really listens, which tells the port when it was 0; nil before Ready.
func (g *Gateway) Addr() net.Addr {
	if all := g.Addrs(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Addrs is Addr for all addresses, in the order of Config.Listen; empty before Ready.
func (g *Gateway) Addrs() []net.Addr {
	var all []net.Addr
	for _, s := range g.servers {
		if a := s.addr.Load(); a != nil {
			all = append(all, *a)
		}
	}
	return all
}

func (g *Gateway) listen() ([]net.Listener, error) {
	var all []net.Listener
	for _, s := range g.servers {
		l, err := g.options.Listen("tcp", s.listener.Address)
		if err != nil {
			for _, open := range all {
				_ = open.Close()
			}
			return nil, fmt.Errorf("gateway: listening on %s: %w", s.listener.Address, err)
		}
		addr := l.Addr()
		s.addr.Store(&addr)
		all = append(all, l)
	}
	return all, nil
}

func (g *Gateway) httpServer(s *server, l Limits) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.listener.TLS == nil)
	h := &http.Server{
		Handler:           g.Handler(),
		ReadHeaderTimeout: l.HeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    int(l.HeaderBytes),
		Protocols:         protocols,
		HTTP2:             http2Config(),
		ConnState:         s.fresh.track,
		ConnContext:       withClient,
		// OPTIONS * asks about a server as a whole, which there is none of here: it is refused like any other such target.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(g.options.Log.Handler(), slog.LevelDebug),
	}
	if s.listener.TLS != nil {
		h.TLSConfig = s.tlsConfig()
	}
	return h
}

func serveOn(h *http.Server, l net.Listener) error {
	if h.TLSConfig != nil {
		if err := secureHTTP2(h); err != nil {
			return err
		}
		return h.ServeTLS(l, "", "")
	}
	return h.Serve(l)
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/balance"
)

// The errors of a lab's life.
var (
	ErrStarted    = errors.New("lab: it was started before; make a new one")
	ErrNotStarted = errors.New("lab: start it first")
)

// Upstream is a service and where its instances listen.
type Upstream struct {
	Name      string
	Endpoints []string // base URLs, replicas in order
}

// Lab is the running system. Its methods are safe for concurrent use, Start and Run excepted: first one, then the other.
type Lab struct {
	config    Config
	faults    *board
	spans     *exporter
	gateway   atomic.Pointer[string]
	services  []*service
	upstreams []Upstream
	db        *catalogue

	ctx   context.Context // ends when Close is called
	quit  context.CancelFunc
	once  sync.Once
	done  chan struct{} // closed when Run has returned, or there will be no Run
	ran   atomic.Bool
	begun atomic.Bool // Start was called
}

// New checks c. Nothing runs yet.
func New(c Config) (*Lab, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("lab: config: %w", err)
	}
	c = c.WithDefaults()
	l := &Lab{config: c, faults: newBoard(c.Faults), spans: newExporter(c.Receiver), done: make(chan struct{})}
	l.gateway.Store(&c.Gateway)
	l.ctx, l.quit = context.WithCancel(context.Background())
	return l, nil
}

// Connect tells the services where the gateway and the span receiver are, from their next call on. It exists because
// a gateway wants the addresses of the services before it has one itself. "" = none, as in Config.
func (l *Lab) Connect(gateway, receiver string) {
	l.gateway.Store(&gateway)
	l.spans.connect(receiver)
}

// Start builds the catalogue (well under a second), opens every listener, and returns where the services listen.
// Connections wait until Run serves them. After an error nothing is left behind.
func (l *Lab) Start() ([]Upstream, error) {
	if !l.begun.CompareAndSwap(false, true) {
		return nil, ErrStarted
	}
	if err := l.start(); err != nil {
		l.release()
		return nil, err
	}
	return l.upstreams, nil
}

func (l *Lab) start() (err error) {
	if l.db, err = openCatalogue(l.ctx, l.config.Rows); err != nil {
		return err
	}
	plain := func(work Lognormal) func(*service, *http.ServeMux) {
		return func(s *service, mux *http.ServeMux) { s.stock(mux, work) }
	}
	for _, u := range []struct {
		name     string
		replicas int
		routes   func(*service, *http.ServeMux)
	}{
		{"frontend", 1, (*service).frontend},
		{"orders", 3, plain(ordersWork)},
		{"pricing", 1, plain(pricingWork)},
		{"inventory", 1, plain(inventoryWork)},
		{"catalogue", 1, func(s *service, mux *http.ServeMux) { s.catalogue(mux, l.db) }},
	} {
		up := Upstream{Name: u.name}
		for i := range u.replicas {
			s := l.newService(u.name, i+1)
			mux := http.NewServeMux()
			u.routes(s, mux)
			if err := s.listen(mux); err != nil {
				return err
			}
			l.services = append(l.services, s)
			up.Endpoints = append(up.Endpoints, s.url())
		}
		l.upstreams = append(l.upstreams, up)
	}
	return nil
}

func (l *Lab) newService(name string, replica int) *service {
	s := &service{
		name: name, instance: fmt.Sprintf("%s-%d", name, replica),
		faults: l.faults, gateway: &l.gateway,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
			Timeout:   30 * time.Second, // never before the gateway's own
		},
	}
	s.random = newSource(l.config.Seed, s.instance)
	host, _ := os.Hostname() // unknown is allowed: it only names the clock
	s.process = newProcess(l.spans, name, s.instance, host)
	return s
}

// Run serves until ctx ends or Close is called, and returns after everything it started has ended and the spans that
// were queued are sent. An error is a listener's that broke; the other services are stopped then.
func (l *Lab) Run(ctx context.Context) error {
	if !l.begun.Load() || l.services == nil {
		return ErrNotStarted
	}
	if !l.ran.CompareAndSwap(false, true) {
		return ErrStarted
	}
	defer l.release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()

	l.spans.start()
	defer l.spans.finish()
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range l.services {
		group.Go(s.serve)
		group.Go(func() error {
			<-ctx.Done()
			s.stop()
			return nil
		})
	}
	return group.Wait()
}

// Close ends Run and waits for it; without a Run it gives back what Start took. Closing twice is harmless.
func (l *Lab) Close() error {
	l.quit()
	if l.ran.CompareAndSwap(false, true) {
		l.release()
	}
	<-l.done
	return nil
}

// release gives back listeners and the database. Errors of closing loopback listeners and a temporary file are of no
// use to anyone.
func (l *Lab) release() {
	l.once.Do(func() {
		for _, s := range l.services {
			s.listener.Close()
		}
		if l.db != nil {
			_ = l.db.close()
		}
		close(l.done)
	})
}

// Plant adds f from the next call on: ErrPlanted when its name is taken, ErrTooMany after 64.
func (l *Lab) Plant(f Fault) error { return l.faults.plant(f) }

// Remove takes the fault of that name away from the next call on, or returns ErrNoFault.
func (l *Lab) Remove(name string) error { return l.faults.remove(name) }

// Faults are those that are planted now. The slice is the caller's.
func (l *Lab) Faults() []Fault { return append([]Fault(nil), l.faults.list()...) }

// Spans counts the spans that the receiver took, and those that were dropped on the way to it.
func (l *Lab) Spans() (sent, dropped uint64) { return l.spans.sent.Load(), l.spans.dropped.Load() }

// Upstreams says where the services listen; empty before Start.
func (l *Lab) Upstreams() []Upstream { return l.upstreams }

// HealthPath answers 200 on every service while it serves, a failing or slow one included: its faults are grey.
const HealthPath = "/healthz"

// Route is a path prefix of the gateway and the service that answers it.
type Route struct{ Name, Path, Upstream string }

// Routes are those that a gateway in front of the lab needs: the two pages, then the calls between services.
func Routes() []Route {
	return []Route{
		{"checkout", "/checkout", "frontend"},
		{"browse", "/browse", "frontend"},
		{"orders", "/orders", "orders"},
		{"pricing", "/pricing", "pricing"},
		{"inventory", "/inventory", "inventory"},
		{"catalogue", "/catalogue", "catalogue"},
	}
}

// GatewayYAML is a whole gateway configuration for the lab: calls come in at listen, the admin API is at admin, spans are
// received over OTLP/HTTP at otlp, all of them host:port. Every policy is at its safe default, except that orders are
// spread round robin, as they are in most systems: P2C alone would hide a part of the slow replica. Call it after Start.
func (l *Lab) GatewayYAML(listen, admin, otlp string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin: %s\notlp: {grpc: off, http: %s}\nupstreams:\n", listen, admin, otlp)
	for _, u := range l.upstreams {
		fmt.Fprintf(&b, "  %s:\n    endpoints: [%s]\n    health: {path: %s}\n", u.Name, strings.Join(u.Endpoints, ", "), HealthPath)
	}
	b.WriteString("routes:\n")
	for _, r := range Routes() {
		policy := "{}"
		if r.Upstream == "orders" {
			policy = "{balance: {algorithm: " + balance.RoundRobin + "}}"
		}
		fmt.Fprintf(&b, "  - name: %s\n    match: {path: %s}\n    upstream: %s\n    policy: %s\n", r.Name, r.Path, r.Upstream, policy)
	}
	return []byte(b.String())
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/scenario"
)

// System is a scenario that runs: its services on loopback listeners of their own, its stores, caches and queues in this
// process. All its methods are safe for concurrent use, except that Start and Run come once each, in that order.
type System struct {
	spec    scenario.Scenario
	spans   *exporter
	edge    atomic.Pointer[string] // base URL of the gateway
	client  *http.Client
	conns   conns
	mu      sync.RWMutex
	nodes   map[string][]*node // guarded by mu from Start on
	stores  map[string]database
	caches  map[string]keyValue
	queues  map[string]broker
	planted *schedule
	peers   map[string][]string // base URLs of other processes' services; nil = all run in this one
	round   atomic.Uint64       // of peers
	real    *reality            // nil = all stands in this process
	grows   *growth             // nil = replicas cannot be added here

	measured atomic.Int64 // ns since the Unix epoch when the figures began
	surge    func(factor float64)
}

// NewSystem builds the system of a scenario, which must be valid and have its defaults. Spans go over OTLP/HTTP to the
// receiver's URL that Connect tells. Nothing runs yet.
func NewSystem(spec scenario.Scenario, seed uint64) *System {
	s := newSystem(spec)
	s.grows = newGrowth(seed)
	for i := range spec.Services {
		x := &spec.Services[i]
		for r := range x.Replicas {
			s.nodes[x.Name] = append(s.nodes[x.Name], newNode(s, x, r+1, seed))
		}
	}
	for _, x := range spec.Stores {
		s.stores[x.Name] = newDatastore(&spec, x, seed)
	}
	for _, x := range spec.Caches {
		s.caches[x.Name] = newCacheServer(x, seed)
	}
	for _, x := range spec.Queues {
		s.queues[x.Name] = newQueue(x, s.worker(x, seed))
	}
	return s
}

// newSystem is a system without services, stores, caches and queues.
func newSystem(spec scenario.Scenario) *System {
	s := &System{
		spec: spec, spans: newExporter(""), nodes: map[string][]*node{}, stores: map[string]database{},
		caches: map[string]keyValue{}, queues: map[string]broker{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, DisableCompression: true}},
	}
	s.planted = newSchedule(s)
	s.measured.Store(time.Now().UnixNano())
	return s
}

// Connect tells the services where the gateway and the span receiver are. It comes before Run.
func (s *System) Connect(gateway, receiver string) {
	s.edge.Store(&gateway)
	s.spans.connect(receiver)
	s.wire(gateway, receiver)
}

// Start opens the stores, caches and queues, and every listener. After an error, which the end of ctx is too, nothing is left
// behind.
func (s *System) Start(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		s.Close()
		return err
	}
	return nil
}

func (s *System) start(ctx context.Context) error {
	if err := s.startServers(ctx); err != nil {
		return err
	}
	for x := range s.servers() {
		if err := x.open(ctx); err != nil {
			return err
		}
	}
	for n := range s.allNodes() {
		if err := n.listen(); err != nil {
			return err
		}
	}
	return s.startChildren(ctx)
}

// servers is all stores, caches and queues, in the order of the scenario.
func (s *System) servers() iter.Seq[server] {
	return func(yield func(server) bool) {
		var all []server
		for _, x := range s.spec.Stores[:len(s.stores)] { // none before Start, where they are elsewhere
			all = append(all, s.stores[x.Name])
		}
		for _, x := range s.spec.Caches[:len(s.caches)] {
			all = append(all, s.caches[x.Name])
		}
		for _, x := range s.spec.Queues[:len(s.queues)] {
			all = append(all, s.queues[x.Name])
		}
		slices.Values(all)(yield)
	}
}

// Close gives back what Start took when there is to be no Run. After a Run it is not called.
func (s *System) Close() {
	s.closeListeners()
	s.stopChildren()
	for x := range s.servers() {
		_ = x.close() // there is nothing to be done about it, and nobody to tell
	}
	_ = s.stopServers()
}

func (s *System) closeListeners() {
	for n := range s.allNodes() {
		if n.listener != nil {
			_ = n.listener.Close()
		}
	}
}

// Run serves until ctx ends, and returns after everything it started has ended and the spans that were queued are sent.
func (s *System) Run(ctx context.Context) error {
	s.spans.start()
	defer s.spans.finish()
	group, ctx := errgroup.WithContext(ctx)
	for n := range s.allNodes() {
		n.run(ctx, group)
	}
	group.Go(func() error { s.grows.admit(ctx, group); return nil })
	for x := range s.servers() {
		group.Go(func() error { return x.attend(ctx) })
	}
	group.Go(func() error { return s.tend(ctx) })
	group.Go(func() error { return s.planted.run(ctx) })
	err := group.Wait()
	for x := range s.servers() {
		err = errors.Join(err, x.close())
	}
	s.client.CloseIdleConnections()
	return errors.Join(err, s.conns.close(), s.stopServers())
}

// Begin starts a phase: the time line of the faults from its beginning, and with faulty false without any fault; and all
// figures that Facts tells at zero.
func (s *System) Begin(ctx context.Context, faulty bool) error {
	if err := s.planted.restart(ctx, faulty); err != nil {
		return err
	}
	s.measured.Store(time.Now().UnixNano())
	for n := range s.allNodes() {
		n.reset()
	}
	if err := s.resetChildren(ctx); err != nil {
		return err
	}
	for x := range s.servers() {
		if err := x.reset(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are the base URLs of a service's replicas, in their order.
func (s *System) Endpoints(service string) []string {
	var all []string
	for _, n := range s.nodesOf(service) {
		all = append(all, n.url())
	}
	return append(all, s.childEndpoints(service)...)
}

// Spans counts the spans that the receiver took, and those that were dropped on the way to it.
func (s *System) Spans() (sent, dropped uint64) { return s.spans.sent.Load(), s.spans.dropped.Load() }

// Switch turns a fault of the scenario on or off by hand, until the next phase begins; ErrNoFault = there is none of that
// name.
func (s *System) Switch(ctx context.Context, name string, on bool) error {
	return s.planted.set(ctx, name, on)
}

// Active is the names of the faults that are on.
func (s *System) Active() []string {
	var names []string
	for _, f := range *s.planted.active.Load() {
		names = append(names, f.Name)
	}
	return names
}

// target is where a call of a service goes: through the gateway, or to its replicas in turn.
func (s *System) target(service string) string {
	if s.spec.Behind(service) {
		return *s.edge.Load()
	}
	if list := s.peers[service]; len(list) > 0 {
		return list[s.round.Add(1)%uint64(len(list))]
	}
	list := s.nodesOf(service)
	return list[int(list[0].turn.Add(1))%len(list)].url()
}

func instanceName(service string, replica int) string { return fmt.Sprintf("%s-%d", service, replica) }

package lab

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// System is a scenario that runs: its services on loopback listeners of their own, its stores, caches and queues in this
// process. All its methods are safe for concurrent use, except that Start and Run come once each, in that order.
type System struct {
	spec    scenario.Scenario
	spans   *exporter
	edge    atomic.Pointer[string] // base URL of the gateway
	client  *http.Client
	nodes   map[string][]*node
	stores  map[string]*datastore
	caches  map[string]*cacheServer
	queues  map[string]*queue
	planted *schedule

	measured atomic.Int64 // ns since the Unix epoch when the figures began
	surge    func(factor float64)
}

// NewSystem builds the system of a scenario, which must be valid and have its defaults. Spans go over OTLP/HTTP to the
// receiver's URL that Connect tells. Nothing runs yet.
func NewSystem(spec scenario.Scenario, seed uint64) *System {
	s := &System{
		spec: spec, spans: newExporter(""), nodes: map[string][]*node{}, stores: map[string]*datastore{},
		caches: map[string]*cacheServer{}, queues: map[string]*queue{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, DisableCompression: true}},
	}
	s.planted = newSchedule(s)
	for i := range spec.Services {
		x := &spec.Services[i]
		for r := range x.Replicas {
			s.nodes[x.Name] = append(s.nodes[x.Name], newNode(s, x, r+1, seed))
		}
	}
	for _, x := range spec.Stores {
		s.stores[x.Name] = newDatastore(x, seed)
	}
	for _, x := range spec.Caches {
		s.caches[x.Name] = newCacheServer(x, seed)
	}
	for _, x := range spec.Queues {
		s.queues[x.Name] = newQueue(s, x, seed)
	}
	s.measured.Store(time.Now().UnixNano())
	return s
}

// Connect tells the services where the gateway and the span receiver are. It comes before Run.
func (s *System) Connect(gateway, receiver string) {
	s.edge.Store(&gateway)
	s.spans.url.Store(&receiver)
}

// Start opens every listener. After an error nothing is left behind.
func (s *System) Start() error {
	for _, x := range s.spec.Services {
		for _, n := range s.nodes[x.Name] {
			if err := n.listen(); err != nil {
				s.closeListeners()
				return err
			}
		}
	}
	return nil
}

func (s *System) closeListeners() {
	for _, list := range s.nodes {
		for _, n := range list {
			if n.listener != nil {
				_ = n.listener.Close()
			}
		}
	}
}

// Run serves until ctx ends, and returns after everything it started has ended and the spans that were queued are sent.
func (s *System) Run(ctx context.Context) error {
	exporting, finish := context.WithCancel(context.WithoutCancel(ctx))
	var exports sync.WaitGroup
	exports.Go(func() { s.spans.run(exporting) })
	group, ctx := errgroup.WithContext(ctx)
	for _, list := range s.nodes {
		for _, n := range list {
			group.Go(n.serve)
			group.Go(func() error {
				<-ctx.Done()
				n.stop()
				return nil
			})
		}
	}
	for _, q := range s.queues {
		group.Go(func() error { return q.run(ctx) })
	}
	for _, d := range s.stores {
		group.Go(func() error { return d.watch(ctx) })
	}
	group.Go(func() error { return s.planted.run(ctx) })
	err := group.Wait()
	finish()
	exports.Wait()
	s.client.CloseIdleConnections()
	return err
}

// Begin starts a phase: the time line of the faults from its beginning, and with faulty false without any fault; and all
// figures that Facts tells at zero.
func (s *System) Begin(faulty bool) {
	s.planted.restart(faulty)
	s.measured.Store(time.Now().UnixNano())
	for _, list := range s.nodes {
		for _, n := range list {
			n.meter.reset()
			if n.workers != nil {
				n.workers.reset()
			}
			for _, p := range n.pools {
				p.reset()
			}
		}
	}
	for _, d := range s.stores {
		d.reset()
	}
	for _, c := range s.caches {
		c.reset()
	}
	for _, q := range s.queues {
		q.reset()
	}
}

// Endpoints are the base URLs of a service's replicas, in their order.
func (s *System) Endpoints(service string) []string {
	var all []string
	for _, n := range s.nodes[service] {
		all = append(all, n.url())
	}
	return all
}

// Spans counts the spans that the receiver took, and those that were dropped on the way to it.
func (s *System) Spans() (sent, dropped uint64) { return s.spans.sent.Load(), s.spans.dropped.Load() }

// Switch turns a fault of the scenario on or off by hand, until the next phase begins; ErrNoFault = there is none of that
// name.
func (s *System) Switch(name string, on bool) error { return s.planted.set(name, on) }

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
	list := s.nodes[service]
	return list[int(list[0].turn.Add(1))%len(list)].url()
}

// emit hands a span on, unless it belongs to somebody else's service.
func (s *System) emit(n *node) func(trace.Span) {
	if n.spec.External {
		return func(trace.Span) {}
	}
	return s.spans.add
}

func instanceName(service string, replica int) string { return fmt.Sprintf("%s-%d", service, replica) }

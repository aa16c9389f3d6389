package lab

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/scenario"
)

// Why the number of a service's replicas stays as it is.
var (
	ErrElsewhere = errors.New("lab: replicas that are processes of their own are neither added nor removed")
	ErrNoService = errors.New("lab: there is no service of that name")
	ErrReplicas  = fmt.Errorf("lab: a service has 1..%d replicas", scenario.MaxReplicas)
)

// unasked is how long no call may come to a replica that was taken off the list before it is taken for forgotten: several times
// what a reader of the list needs.
const unasked = 500 * time.Millisecond

// growth is what a system needs to add replicas and to take them away.
type growth struct {
	seed    uint64
	joining chan *node // those that were added, for Run
	told    func(service string, endpoints []string) error

	mu      sync.Mutex     // held while a list changes
	numbers map[string]int // the highest that a replica of the service had: a new one is never taken for an old one
}

func newGrowth(seed uint64) *growth {
	return &growth{
		seed: seed, joining: make(chan *node), numbers: map[string]int{},
		told: func(string, []string) error { return nil },
	}
}

// admit lets the replicas that were added work until ctx ends.
func (g *growth) admit(ctx context.Context, group *errgroup.Group) {
	if g == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-g.joining:
			n.run(ctx, group)
		}
	}
}

// Announce says who is told the base URLs of a service's replicas when their number changes: of one that was added when it
// answers, of one that is removed before it stops. An error of tell leaves the replicas as they were. It comes before Run; a
// system on real servers never tells.
func (s *System) Announce(tell func(service string, endpoints []string) error) {
	if s.grows != nil {
		s.grows.told = tell
	}
}

// AddReplica starts one more replica of a service of this process, which answers when AddReplica returns. Faults of
// all its replicas strike it too, but for a pause that has begun. Before Run it waits for it, until ctx ends.
func (s *System) AddReplica(ctx context.Context, service string) error {
	if err := s.canGrow(service); err != nil {
		return err
	}
	g := s.grows
	g.mu.Lock()
	defer g.mu.Unlock()
	list := s.nodesOf(service)
	if len(list) >= scenario.MaxReplicas {
		return fmt.Errorf("%w; %s has %d", ErrReplicas, service, len(list))
	}
	number := max(g.numbers[service], s.spec.Service(service).Replicas) + 1
	n := newNode(s, s.spec.Service(service), number, g.seed)
	if err := n.listen(); err != nil {
		return err
	}
	select {
	case g.joining <- n:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), n.listener.Close())
	}
	g.numbers[service] = number
	if err := s.replace(service, append(slices.Clip(list), n)); err != nil {
		close(n.removed)
		return err
	}
	return nil
}

// RemoveReplica takes the newest replica of a service of this process off the list, waits until no call comes to it any
// more, and lets those that are in it end. When ctx ends first, they are cut off.
func (s *System) RemoveReplica(ctx context.Context, service string) error {
	if err := s.canGrow(service); err != nil {
		return err
	}
	n, err := s.dismiss(service)
	if err != nil {
		return err
	}
	defer close(n.removed)
	for before := n.served.Load() - 1; before != n.served.Load(); {
		before = n.served.Load()
		if err := pause(ctx, unasked); err != nil {
			return fmt.Errorf("lab: %s is still called: %w", n.instance, err)
		}
	}
	if err := n.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("lab: calls in %s were cut off: %w", n.instance, err)
	}
	return nil
}

// dismiss takes the newest replica off the list.
func (s *System) dismiss(service string) (*node, error) {
	s.grows.mu.Lock()
	defer s.grows.mu.Unlock()
	list := s.nodesOf(service)
	last := len(list) - 1
	if last < 1 {
		return nil, fmt.Errorf("%w; %s has %d", ErrReplicas, service, len(list))
	}
	return list[last], s.replace(service, list[:last])
}

func (s *System) canGrow(service string) error {
	if s.grows == nil {
		return ErrElsewhere
	}
	if len(s.nodesOf(service)) == 0 {
		return fmt.Errorf("%w: %q", ErrNoService, service)
	}
	return nil
}

// replace puts another list of replicas in force, and tells it.
func (s *System) replace(service string, list []*node) error {
	var urls []string
	for _, n := range list {
		urls = append(urls, n.url())
	}
	if err := s.grows.told(service, urls); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[service] = list
	return nil
}

// nodesOf are the replicas of a service that run in this process. The list is never changed, but replaced.
func (s *System) nodesOf(service string) []*node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[service]
}

// allNodes are those of all services, in the order of the scenario.
func (s *System) allNodes() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		for i := range s.spec.Services {
			for _, n := range s.nodesOf(s.spec.Services[i].Name) {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// run lets n work until ctx ends, or until it was taken away.
func (n *node) run(ctx context.Context, group *errgroup.Group) {
	group.Go(n.serve)
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-n.removed:
		}
		n.stop()
		return nil
	})
}

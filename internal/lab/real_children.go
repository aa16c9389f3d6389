package lab

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// children are the places of the processes; none where all services run in this process.
func (s *System) children() []*child {
	if s.real == nil {
		return nil
	}
	return s.real.children
}

// allChildren does something to all of them side by side.
func (s *System) allChildren(ctx context.Context, do func(context.Context, *child) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range s.children() {
		g.Go(func() error { return do(ctx, c) })
	}
	return g.Wait()
}

func (s *System) startChildren(ctx context.Context) error {
	return s.allChildren(ctx, func(ctx context.Context, c *child) error { return c.start(ctx) })
}

func (s *System) stopChildren() {
	_ = s.allChildren(context.Background(), func(_ context.Context, c *child) error { c.stop(); return nil }) // it never fails
}

// tend connects the processes with each other and lets them work until ctx ends, or until one of them ends by itself.
func (s *System) tend(ctx context.Context) error {
	if s.real == nil {
		return nil
	}
	defer s.stopChildren()
	err := s.allChildren(ctx, func(ctx context.Context, c *child) error {
		_, err := c.ask(ctx, "Connect", s.real.wiring, new(bool))
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.real.lost:
		return err
	}
}

// wire keeps where all of them are.
func (s *System) wire(gateway, receiver string) {
	if s.real == nil {
		return
	}
	s.real.wiring = Wiring{Gateway: gateway, Receiver: receiver, Endpoints: map[string][]string{}}
	for _, x := range s.spec.Services {
		s.real.wiring.Endpoints[x.Name] = s.Endpoints(x.Name)
	}
}

// resetChildren begins a phase.
func (s *System) resetChildren(ctx context.Context) error {
	return s.allChildren(ctx, func(ctx context.Context, c *child) error {
		return c.reset(ctx)
	})
}

// tellFaults says which faults are on.
func (s *System) tellFaults(ctx context.Context, list []scenario.Fault) error {
	return s.allChildren(ctx, func(ctx context.Context, c *child) error {
		_, err := c.ask(ctx, "Faults", list, new(bool))
		return err
	})
}

// staffElsewhere sets how many workers the process of a queue has.
func (s *System) staffElsewhere(ctx context.Context, queue string, n int) error {
	return s.allChildren(ctx, func(ctx context.Context, c *child) error {
		if c.is.Queue != queue {
			return nil
		}
		_, err := c.ask(ctx, "Staff", n, new(bool))
		return err
	})
}

// turnChildren does what a fault does to a process from outside: it stops it, or kills it and starts another in its place.
func (s *System) turnChildren(ctx context.Context, f scenario.Fault, on bool) error {
	return s.allChildren(ctx, func(ctx context.Context, c *child) error {
		switch {
		case !c.struck(f):
			return nil
		case f.Kind == scenario.Pause && on:
			return c.halt()
		case f.Kind == scenario.Pause:
			return c.goOn()
		case f.Kind == scenario.Restart && on:
			c.kill()
			return nil
		case f.Kind == scenario.Restart:
			return c.again(ctx)
		}
		return nil
	})
}

// look asks all replicas what happened since a time; what does not answer is a Gap.
func (s *System) look(ctx context.Context, from time.Time, healthy map[string]evidence.Profile) (answers []Answer, gaps []evidence.Gap) {
	all := make([]Answer, len(s.children()))
	faults := make([]error, len(all))
	var g errgroup.Group
	for i, c := range s.children() {
		g.Go(func() error {
			there, err := c.ask(ctx, "Look", Question{From: from, Healthy: only(healthy, c.name())}, &all[i])
			if err == nil && !there {
				err = errAway
			}
			faults[i] = err
			return nil
		})
	}
	_ = g.Wait() // faults are kept one by one
	for i, c := range s.children() {
		switch {
		case c.is.Queue != "" || s.spec.Service(c.is.Service).External && faults[i] == nil:
		case faults[i] != nil:
			gaps = append(gaps, evidence.Gap{What: c.name(), Why: faults[i].Error()})
		default:
			answers = append(answers, all[i])
		}
	}
	return answers, gaps
}

var errAway = errors.New("lab: the process was away")

// only is the profiles of one instance.
func only(all map[string]evidence.Profile, instance string) map[string]sentProfile {
	key := instance + " cpu"
	if p, ok := all[key]; ok {
		return map[string]sentProfile{key: sent(p)}
	}
	return nil
}

// childEndpoints are the base URLs of a service's processes, in their order.
func (s *System) childEndpoints(service string) (all []string) {
	for _, c := range s.children() {
		if c.is.Service == service {
			c.mu.Lock()
			all = append(all, "http://"+c.is.Address)
			c.mu.Unlock()
		}
	}
	return all
}

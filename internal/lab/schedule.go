package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/scenario"
)

// tickTime is how exact the time line of faults is.
const tickTime = 20 * time.Millisecond

// schedule turns the faults of a scenario on and off. Reading which are on takes no lock.
type schedule struct {
	sys    *System
	active atomic.Pointer[[]scenario.Fault]

	mu     sync.Mutex
	began  time.Time
	faulty bool
	on     []bool          // by number of the fault
	hand   map[string]bool // switched by hand in this phase
}

func newSchedule(s *System) *schedule {
	t := &schedule{sys: s, on: make([]bool, len(s.spec.Faults)), hand: map[string]bool{}}
	t.active.Store(&[]scenario.Fault{})
	return t
}

// restart begins a phase. What is on stays on if it would be on at once, so that a lasting fault has no gap.
func (t *schedule) restart(ctx context.Context, faulty bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began, t.faulty, t.hand = time.Now(), faulty, map[string]bool{}
	return t.apply(ctx, 0)
}

func (t *schedule) set(ctx context.Context, name string, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.ContainsFunc(t.sys.spec.Faults, func(f scenario.Fault) bool { return f.Name == name }) {
		return fmt.Errorf("%w: %q", ErrNoFault, name)
	}
	was, before := t.hand[name]
	t.hand[name] = on
	err := t.apply(ctx, time.Since(t.began))
	if err != nil { // it is as it was, and may be tried again
		if t.hand[name] = was; !before {
			delete(t.hand, name)
		}
	}
	return err
}

// run keeps to the time line until ctx ends.
func (t *schedule) run(ctx context.Context) error {
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := t.tick(ctx); err != nil {
				return err
			}
		}
	}
}

func (t *schedule) tick(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.apply(ctx, time.Since(t.began))
	if ctx.Err() != nil {
		return nil // the run ends, and what was under way with it
	}
	return err
}

// due reports whether f is on so long after the beginning of a phase.
func due(f scenario.Fault, at time.Duration) bool {
	at -= f.At
	if at < 0 {
		return false
	}
	if f.Every > 0 {
		at %= f.Every
	}
	return f.For == 0 || at < f.For
}

// apply turns on and off what the time asks for. t.mu is held.
func (t *schedule) apply(ctx context.Context, at time.Duration) error {
	changed := false
	var fault error
	for i, f := range t.sys.spec.Faults {
		want := t.faulty && due(f, at)
		if by, ok := t.hand[f.Name]; ok {
			want = by
		}
		if want == t.on[i] {
			continue
		}
		if err := t.sys.turn(ctx, f, want); err != nil {
			fault = fmt.Errorf("lab: fault %s: %w", f.Name, err)
			break
		}
		t.on[i], changed = want, true
	}
	if !changed {
		return fault
	}
	list := []scenario.Fault{}
	for i, f := range t.sys.spec.Faults {
		if t.on[i] {
			list = append(list, f)
		}
	}
	t.active.Store(&list)
	return errors.Join(fault, t.sys.tellFaults(ctx, list))
}

// turn does what a fault needs besides being on.
func (s *System) turn(ctx context.Context, f scenario.Fault, on bool) error {
	if err := s.turnChildren(ctx, f, on); err != nil {
		return err
	}
	switch f.Kind {
	case scenario.Pause:
		if on {
			s.each(f, func(n *node) { n.halt.stop(f.For) })
		}
	case scenario.Restart:
		if !on {
			s.each(f, func(n *node) { n.served.Store(0); n.meter.began(); n.renew() })
		}
	case scenario.DropIndex:
		return s.stores[f.Store].dropIndex(ctx, f.Table, f.Column, on)
	case scenario.Stale:
		return s.stores[f.Store].age(ctx, f.Table, on)
	case scenario.LockTable:
		return s.stores[f.Store].hold(ctx, f.Table, on)
	case scenario.Flush:
		if on {
			return s.caches[f.Cache].flush(ctx)
		}
	case scenario.Workers:
		n := f.Workers
		if !on {
			n = s.spec.Queue(f.Queue).Workers
		}
		return s.queues[f.Queue].staff(ctx, n)
	case scenario.Overload:
		if s.surge != nil {
			if !on {
				f.Factor = 1
			}
			s.surge(f.Factor)
		}
	}
	return nil
}

// each does something to the replicas that a fault is about.
func (s *System) each(f scenario.Fault, do func(*node)) {
	for _, n := range s.nodesOf(f.Service) {
		if f.Replica == 0 || f.Replica == n.replica {
			do(n)
		}
	}
}

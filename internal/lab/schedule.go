package lab

import (
	"context"
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
func (t *schedule) restart(faulty bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began, t.faulty, t.hand = time.Now(), faulty, map[string]bool{}
	t.apply(0)
}

func (t *schedule) set(name string, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.ContainsFunc(t.sys.spec.Faults, func(f scenario.Fault) bool { return f.Name == name }) {
		return fmt.Errorf("%w: %q", ErrNoFault, name)
	}
	t.hand[name] = on
	t.apply(time.Since(t.began))
	return nil
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
			t.mu.Lock()
			t.apply(time.Since(t.began))
			t.mu.Unlock()
		}
	}
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
func (t *schedule) apply(at time.Duration) {
	changed := false
	for i, f := range t.sys.spec.Faults {
		want := t.faulty && due(f, at)
		if by, ok := t.hand[f.Name]; ok {
			want = by
		}
		if want != t.on[i] {
			t.on[i], changed = want, true
			t.sys.turn(f, want)
		}
	}
	if !changed {
		return
	}
	list := []scenario.Fault{}
	for i, f := range t.sys.spec.Faults {
		if t.on[i] {
			list = append(list, f)
		}
	}
	t.active.Store(&list)
}

// turn does what a fault needs besides being on.
func (s *System) turn(f scenario.Fault, on bool) {
	switch f.Kind {
	case scenario.Pause:
		if on {
			s.each(f, func(n *node) { n.halt.stop(f.For) })
		}
	case scenario.Restart:
		if !on {
			s.each(f, func(n *node) { n.served.Store(0); n.meter.began() })
		}
	case scenario.DropIndex, scenario.Stale:
		d := s.stores[f.Store]
		d.mu.Lock()
		if f.Kind == scenario.Stale {
			d.stale[f.Table] = on
		} else {
			d.dropped[f.Table+"."+f.Column] = on
		}
		d.mu.Unlock()
	case scenario.LockTable:
		s.stores[f.Store].hold(f.Table, on)
	case scenario.Flush:
		if on {
			s.caches[f.Cache].flush()
		}
	case scenario.Workers:
		q := s.queues[f.Queue]
		if on {
			q.staff(f.Workers)
		} else {
			q.staff(q.spec.Workers)
		}
	case scenario.Overload:
		if s.surge != nil {
			if !on {
				f.Factor = 1
			}
			s.surge(f.Factor)
		}
	}
}

// each does something to the replicas that a fault is about.
func (s *System) each(f scenario.Fault, do func(*node)) {
	for _, n := range s.nodes[f.Service] {
		if f.Replica == 0 || f.Replica == n.replica {
			do(n)
		}
	}
}

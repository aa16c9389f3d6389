package lab

import (
	"context"
	"sync"
	"time"
)

// halt is what stops a whole process: the collection of garbage, and pauses that are planted.
type halt struct {
	mu     sync.Mutex
	until  time.Time // the process stands still
	paused time.Duration
	heap   int64 // allocated since the last collection
}

// stop makes the process stand still for d from now on.
func (w *halt) stop(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.until.Before(now) {
		w.until = now
	}
	w.until = w.until.Add(d)
	w.paused += d
}

// stands is how long the process will stand still yet, and for how long it did in all.
func (w *halt) stands() (rest, paused time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(w.until), w.paused
}

// wait lets a pause pass.
func (w *halt) wait(ctx context.Context) error {
	for {
		rest, _ := w.stands()
		if rest <= 0 {
			return nil
		}
		if err := pause(ctx, rest); err != nil {
			return err
		}
	}
}

// sleep waits for what is not computing. What ends while the process stands still is noticed afterwards.
func (n *node) sleep(ctx context.Context, d time.Duration) error {
	if err := n.halt.wait(ctx); err != nil {
		return err
	}
	if d > 0 {
		if err := pause(ctx, d); err != nil {
			return err
		}
	}
	return n.halt.wait(ctx)
}

// compute spends d on a core. A pause meanwhile makes it take longer by as much. The core is simulated: the goroutine
// sleeps, so that a small machine can carry the whole system; what is counted is the time that went by.
func (n *node) compute(ctx context.Context, d time.Duration, function string) error {
	waited, err := n.cores.enter(ctx)
	n.meter.ready(waited)
	if err != nil {
		return err
	}
	defer n.cores.leave()
	if err = n.halt.wait(ctx); err != nil {
		return err
	}
	began := time.Now()
	_, first := n.halt.stands()
	before := first
	for left := d; left > 0; {
		if err = pause(ctx, left); err != nil {
			break
		}
		_, now := n.halt.stands()
		left, before = now-before, now
	}
	n.meter.worked(function, time.Since(began)-(before-first))
	return err
}

// allocate makes garbage, and collects it when there is enough.
func (n *node) allocate(bytes int64, function string) {
	w := n.halt
	w.mu.Lock()
	w.heap += bytes
	collect := w.heap >= n.spec.Heap
	if collect {
		w.heap = 0
	}
	w.mu.Unlock()
	n.meter.allocated(function, bytes)
	if collect {
		w.stop(n.spec.Pause)
		n.meter.collected(n.spec.Pause)
	}
}

// mutex finds a lock of the process by its name.
func (n *node) mutex(name string) gate {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.locks[name] == nil {
		n.locks[name] = newGate(1)
	}
	return n.locks[name]
}

package rollout

import (
	"fmt"
	"sync"
	"time"
)

// ledger writes entries to the journal in the order in which they were handed over, and lets nobody wait for the disk who holds
// a lock that others need: what happens under such a lock is handed over with later, and written by flush once the lock is free.
// The zero value has nothing to write.
type ledger struct {
	disk sync.Mutex // held while entries are written

	mu      sync.Mutex // never held while anything is waited for
	waiting []written
}

// written is an entry that is to be, and what follows.
type written struct {
	entry Entry
	then  func(error) // nil = nothing
}

// later hands e over. then learns whether it was written, on whichever goroutine does it.
func (c *Controller) later(e Entry, then func(error)) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	c.ledger.waiting = append(c.ledger.waiting, written{e, then})
}

// flush writes what was handed over, and returns once that is written, by whomever. It must not be called with a run's lock or
// the Controller's.
func (c *Controller) flush() {
	c.ledger.disk.Lock()
	defer c.ledger.disk.Unlock()
	c.drain()
}

// some writes what was handed over, if there is anything. Unlike flush it does not wait for what others are writing.
func (c *Controller) some() {
	c.ledger.mu.Lock()
	idle := len(c.ledger.waiting) == 0
	c.ledger.mu.Unlock()
	if !idle {
		c.flush()
	}
}

// drain is called with disk held.
func (c *Controller) drain() {
	for {
		c.ledger.mu.Lock()
		list := c.ledger.waiting
		c.ledger.waiting = nil
		c.ledger.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, w := range list {
			if err := c.append(w.entry); w.then != nil {
				w.then(err)
			}
		}
	}
}

// write writes e after all that was handed over before. It must not be called with a run's lock or the Controller's.
func (c *Controller) write(e Entry) error {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	c.ledger.disk.Lock()
	defer c.ledger.disk.Unlock()
	c.drain()
	return c.append(e)
}

// append is called with disk held.
func (c *Controller) append(e Entry) error {
	if c.o.Journal == nil {
		return nil
	}
	if err := c.o.Journal.Append(e); err != nil {
		c.unwritten.Add(1)
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

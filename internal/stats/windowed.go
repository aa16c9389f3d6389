package stats

import (
	"sync"
	"sync/atomic"
	"time"
)

// Windowed counts the durations of a sliding window, which moves on by whole
// slots: it holds the slot that runs and the ones before it.
//
// Make one with NewWindowed. All methods are safe for concurrent use; Record does not allocate and takes a lock only
// when a slot begins. A Record that races with the begin of a slot may be lost.
type Windowed struct {
	width time.Duration
	turn  sync.Mutex // held by the one that begins a slot
	slots []slot
}

type slot struct {
	number atomic.Int64 // time over width
	h      Histogram
}

// NewWindowed has n slots of the given width: 3 of 10 s hold the last 20 s to 30 s. Both are at least 1. Each is
// a Histogram.
func NewWindowed(n int, width time.Duration) *Windowed {
	return &Windowed{width: max(width, 1), slots: make([]slot, max(n, 1))}
}

// Record counts d at now. A now that lies a whole window back is counted in
// the slot that took its place.
func (w *Windowed) Record(now time.Time, d time.Duration) {
	number := w.number(now)
	s := &w.slots[w.place(number)]
	if s.number.Load() < number {
		w.begin(s, number)
	}
	s.h.Record(d)
}

// Snapshot is what lies in the window that ends at now.
func (w *Windowed) Snapshot(now time.Time) Snapshot {
	number := w.number(now)
	var dense [buckets]uint64
	var sum time.Duration
	for i := range w.slots {
		s := &w.slots[i]
		if at := s.number.Load(); at > number-int64(len(w.slots)) && at <= number {
			part := s.h.Snapshot()
			part.addTo(&dense)
			sum += part.sum
		}
	}
	return compact(&dense, sum)
}

func (w *Windowed) begin(s *slot, number int64) {
	w.turn.Lock()
	defer w.turn.Unlock()
	if s.number.Load() < number {
		s.h.reset()
		s.number.Store(number)
	}
}

// number counts slots from 1970 on; times before that share one.
func (w *Windowed) number(now time.Time) int64 { return max(now.UnixNano()/int64(w.width), 0) }

func (w *Windowed) place(number int64) int { return int(number % int64(len(w.slots))) }

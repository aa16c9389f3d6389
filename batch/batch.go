package batch

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Why a key has no value.
var (
	ErrFull     = errors.New("batch: too many keys wait")
	ErrClosed   = errors.New("batch: closed")
	ErrResults  = errors.New("batch: as many results as keys are needed") // the load function's fault
	ErrTooLate  = errors.New("batch: the deadline passed before the batch was sent")
	errNoResult = errors.New("batch: no result") // replaced before anyone can see it
)

// Result is what became of one key. The zero value is the zero V, found.
type Result[V any] struct {
	Value V
	Err   error
}

// Joiner collects keys into batches. All methods are safe for concurrent use. It fails closed: what does not fit is
// refused with ErrFull, and memory stays bounded.
//
// Sources: the size is adapted as in Clipper (NSDI 2017); to wait only while workers are busy is known as smart or
// natural batching; the window that heeds the tightest deadline is our own.
type Joiner[K comparable, V any] struct {
	mu       sync.Mutex
	cfg      Config
	closed   bool
	queue    []*Item[K, V]     // those that wait, oldest first; nil = was given up; its first is not nil
	base     int               // Item.at of queue's first
	tight    time.Time         // no deadline of those that wait is tighter; zero = none
	byKey    map[K]*Item[K, V] // of queue
	parts    int               // items of queue that are not nil
	underway int               // batches
	size     float64           // present bound of a batch
	took     time.Duration     // smoothed time of a batch
	spread   time.Duration     // and its mean deviation
}

// Item is one key that waits for its value, for any number of calls.
type Item[K comparable, V any] struct {
	key     K
	since   time.Time
	until   time.Time // the tightest deadline of its calls; zero = none
	last    time.Time // the latest one; zero = one of them has none
	at      int       // place in queue plus base
	waiters int
	batch   *Batch[K, V]
	done    chan struct{}
	result  Result[V]
}

// Done is closed when Result may be called.
func (i *Item[K, V]) Done() <-chan struct{} { return i.done }

// Result is what became of the key. It may be called only after Done was closed.
func (i *Item[K, V]) Result() (V, error) { return i.result.Value, i.result.Err }

// Batch is a set of different keys to be loaded together, oldest first.
type Batch[K comparable, V any] struct {
	Keys     []K
	Deadline time.Time // of the call that has the most time; zero = one of them has no deadline

	items   []*Item[K, V]
	sent    time.Time
	waiters int
	gone    chan struct{}
}

// Gone is closed when all who wait for the batch have left: its load may end.
func (b *Batch[K, V]) Gone() <-chan struct{} { return b.gone }

// New returns an empty Joiner. c must be valid.
func New[K comparable, V any](c Config) *Joiner[K, V] {
	j := &Joiner[K, V]{byKey: make(map[K]*Item[K, V])}
	j.Reconfigure(c)
	return j
}

// Reconfigure swaps the settings and keeps what waits and what was learned.
func (j *Joiner[K, V]) Reconfigure(c Config) {
	c = c.WithDefaults()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cfg = c
	if c.Target == 0 || j.size == 0 || j.size > float64(c.Size) {
		j.size = float64(c.Size)
	}
}

// Add lets a call with the given deadline (zero = none) wait for key from now on. A key that waits already is joined;
// one that is under way is not, as its value may be older than the call. Every Add that succeeds is followed by the
// Item's Done, or by one Leave. Afterwards Next must be asked.
func (j *Joiner[K, V]) Add(now time.Time, key K, deadline time.Time) (*Item[K, V], error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return nil, ErrClosed
	case !deadline.IsZero() && !deadline.After(now):
		return nil, ErrTooLate
	}
	j.tight = earlier(j.tight, deadline)
	if i := j.byKey[key]; i != nil {
		i.waiters++
		i.until = earlier(i.until, deadline)
		i.last = latest(i.last, deadline)
		return i, nil
	}
	if j.parts >= j.cfg.Pending {
		return nil, ErrFull
	}
	i := &Item[K, V]{key: key, since: now, until: deadline, last: deadline, at: j.base + len(j.queue), waiters: 1, done: make(chan struct{})}
	i.result.Err = errNoResult
	j.queue = append(j.queue, i)
	j.byKey[key] = i
	j.parts++
	return i, nil
}

// earlier is the tighter of two deadlines, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// latest is the looser of two deadlines, of which zero is none.
func latest(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if b.After(a) {
		return b
	}
	return a
}

// Leave takes back one Add: its call is gone. A key for which nobody waits is not loaded; a batch for which nobody
// waits is Gone. After Done it does nothing.
func (j *Joiner[K, V]) Leave(i *Item[K, V]) {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-i.done:
		return
	default:
	}
	i.waiters--
	if i.batch != nil {
		if i.batch.waiters--; i.batch.waiters == 0 {
			close(i.batch.gone)
		}
		return
	}
	if i.waiters == 0 {
		j.queue[i.at-j.base] = nil
		j.parts--
		delete(j.byKey, i.key)
		j.trim()
	}
}

// trim drops what was given up from the head of the queue, and from all of it when that is most of it.
func (j *Joiner[K, V]) trim() {
	n := 0
	for n < len(j.queue) && j.queue[n] == nil {
		n++
	}
	j.queue, j.base = j.queue[n:], j.base+n
	if len(j.queue) <= 2*j.parts+16 {
		return
	}
	kept := make([]*Item[K, V], 0, 2*j.parts)
	for _, i := range j.queue {
		if i != nil {
			i.at = j.base + len(kept)
			kept = append(kept, i)
		}
	}
	j.queue = kept
}

// Next returns a batch that shall be loaded now, or nil. Ask again until it is nil; after that, it must be asked after
// each Add and Done, and at wake (zero = not by time).
func (j *Joiner[K, V]) Next(now time.Time) (b *Batch[K, V], wake time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.parts == 0 || j.underway >= j.cfg.Parallel {
		return nil, time.Time{}
	}
	if j.underway >= j.cfg.Idle && j.parts < j.bound() {
		if wake = j.wake(); now.Before(wake) {
			return nil, wake
		}
	}
	return j.take(now), time.Time{}
}

func (j *Joiner[K, V]) bound() int { return max(1, int(j.size)) }

// wake is when the keys that wait shall wait no longer: at Age, or when the tightest deadline leaves just the time that
// nearly every batch needs.
func (j *Joiner[K, V]) wake() time.Time {
	at := j.queue[0].since.Add(j.cfg.Age)
	if !j.tight.IsZero() {
		at = earlier(at, j.tight.Add(-j.took-4*j.spread))
	}
	return at
}

// take makes a batch of the oldest keys.
func (j *Joiner[K, V]) take(now time.Time) *Batch[K, V] {
	b := &Batch[K, V]{sent: now, gone: make(chan struct{})}
	first := true
	for n, i := range j.queue {
		if i == nil {
			continue
		}
		if len(b.items) == j.bound() {
			break
		}
		j.queue[n] = nil
		delete(j.byKey, i.key)
		i.batch = b
		b.Keys, b.items = append(b.Keys, i.key), append(b.items, i)
		b.waiters += i.waiters
		if b.Deadline = latest(b.Deadline, i.last); first {
			b.Deadline, first = i.last, false
		}
	}
	j.parts -= len(b.items)
	j.trim()
	j.tight = time.Time{}
	for _, i := range j.queue {
		if i != nil {
			j.tight = earlier(j.tight, i.until)
		}
	}
	j.underway++
	return b
}

// Done ends b at now with one result for each of its keys, in their order, or with an error for all. A wrong number
// of results is ErrResults for all.
func (j *Joiner[K, V]) Done(now time.Time, b *Batch[K, V], results []Result[V], err error) {
	if err == nil && len(results) != len(b.items) {
		err = fmt.Errorf("%w: %d keys, %d results", ErrResults, len(b.items), len(results))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.underway--
	j.learn(max(now.Sub(b.sent), 0), len(b.items))
	for n, i := range b.items {
		if err != nil {
			i.result = Result[V]{Err: err}
		} else {
			i.result = results[n]
		}
		close(i.done)
	}
}

// learn smooths the time of a batch as TCP does its round trip (RFC 6298), and adapts the size: one more after a full
// batch that was in time, a tenth less after one that was not. It stays above a tenth of Size: where not the size is to
// blame for the slowness, more batches would only add to it.
func (j *Joiner[K, V]) learn(took time.Duration, n int) {
	if j.took == 0 {
		j.took, j.spread = took, took/2
	} else {
		j.spread += ((j.took - took).Abs() - j.spread) / 4
		j.took += (took - j.took) / 8
	}
	switch {
	case j.cfg.Target == 0 || n < j.bound():
	case took > j.cfg.Target:
		j.size = max(1, 0.1*float64(j.cfg.Size), 0.9*j.size)
	default:
		j.size = min(j.size+1, float64(j.cfg.Size))
	}
}

// Close refuses what waits and what comes. Batches under way end as they do.
func (j *Joiner[K, V]) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	for _, i := range j.queue {
		if i != nil {
			i.result = Result[V]{Err: ErrClosed}
			close(i.done)
		}
	}
	j.queue, j.parts = nil, 0
	clear(j.byKey)
}

// Waiting is how many keys wait.
func (j *Joiner[K, V]) Waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.parts
}

// UnderWay is how many batches are being loaded.
func (j *Joiner[K, V]) UnderWay() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.underway
}

package longpole

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

// fetchTimeout bounds a fetch for the cache that neither Config.Timeout nor the caller's deadline bounds: all calls for
// its key wait for it.
const fetchTimeout = 30 * time.Second

// Storable is a Work whose answers may be kept in a cache.
type Storable[R any] interface {
	Work[R]
	// Keep makes r, a success or the caller's own fault, into a value of at most limit bytes that is fresh for ttl (0 =
	// cache.Config.TTL); it may read r to its end and then releases it. When it may not or cannot be kept, ok is false
	// and rest is r, still readable in full.
	Keep(r R, limit int64) (v cache.Value, ttl time.Duration, rest R, ok bool)
	// Open makes a kept value into an answer of its own for one caller.
	Open(v cache.Value, state call.CacheState) R
}

// cachedCall is one call that has a key, under a policy that has a cache.
type cachedCall[R any] struct {
	p       *Policy
	parts   *parts
	info    call.Info
	rec     *call.Record
	caller  context.Context // as it was given to Do
	start   time.Time
	work    Storable[R]
	timed   bool
	until   time.Time // deadline; zero = none
	release func()
}

// do answers from the cache, from another call's fetch, or from a fetch of its own. It fails open: when the cache is
// of no help, the call is made as if there were none.
func (c *cachedCall[R]) do(ctx context.Context) (R, error) {
	found := c.parts.cache.Lookup(c.start, c.info.Key)
	switch found.State {
	case call.Stale, call.Hit:
		if found.Lead {
			c.fetch(ctx, found.Flight, true)
		}
		return c.open(found.Value, found.State) // takes no time, so it needs no deadline
	}
	// A call that waits for another goroutine's fetch needs a context even when its Work is Timed.
	ctx, c.until, c.release = c.parts.bound(ctx, c.start, false)
	if found.State == call.Coalesced {
		return c.follow(ctx, found)
	}
	return c.lead(ctx, found)
}

// open answers with a kept value.
func (c *cachedCall[R]) open(v cache.Value, state call.CacheState) (R, error) {
	c.state(state)
	return c.finish(&finished[R]{r: c.work.Open(v, state), end: time.Now(), index: -1})
}

func (c *cachedCall[R]) state(s call.CacheState) {
	if c.rec != nil {
		c.rec.Cache = s
	}
}

func (c *cachedCall[R]) finish(f *finished[R]) (R, error) {
	return finish(c.caller, c.parts, c.work, c.rec, c.start, f, c.release)
}

// alone makes the call as if there were no cache.
func (c *cachedCall[R]) alone(ctx context.Context) (R, error) {
	c.state(call.Miss)
	now := time.Now()
	x := c.execution(c.rec, c.until)
	var f finished[R]
	x.run(ctx, now, &f)
	return c.finish(&f)
}

func (c *cachedCall[R]) execution(rec *call.Record, deadline time.Time) execution[R, Storable[R]] {
	return execution[R, Storable[R]]{
		p: c.p, parts: c.parts, info: c.info, rec: rec, w: c.work, start: c.start, deadline: deadline, timed: c.timed,
	}
}

// gone ends a call whose context was done while it waited.
func (c *cachedCall[R]) gone(ctx context.Context) (R, error) {
	class, why := ended(ctx)
	return c.finish(&finished[R]{err: why, out: call.Outcome{Class: class}, end: time.Now(), index: -1})
}

// follow waits for the fetch of another call. When that brings nothing, the call uses the stale answer or makes its
// own: to wait for the next one's fetch, and the next, would put all of them in a row.
func (c *cachedCall[R]) follow(ctx context.Context, found cache.Result) (R, error) {
	c.state(call.Coalesced)
	select {
	case <-found.Flight.Done():
	case <-ctx.Done():
		return c.gone(ctx)
	}
	v, err := found.Flight.Value()
	switch {
	case err == nil:
		return c.open(v, call.Coalesced)
	case found.Value != nil && !errors.Is(err, cache.ErrNotStorable):
		return c.open(found.Value, call.Stale)
	}
	return c.alone(ctx)
}

// lead begins the fetch that all calls for the key wait for, and waits for it like them.
func (c *cachedCall[R]) lead(ctx context.Context, found cache.Result) (R, error) {
	c.state(call.Miss)
	f := c.fetch(ctx, found.Flight, false)
	if f == nil {
		return c.alone(ctx)
	}
	select {
	case <-f.landed:
	case <-ctx.Done():
		if f.leave() {
			return c.gone(ctx)
		}
		<-f.landed
	}
	if c.rec != nil {
		c.rec.Count, c.rec.Attempts, c.rec.QueueWait = f.rec.Count, f.rec.Attempts, f.rec.QueueWait
	}
	end := &f.end
	switch {
	case f.value != nil:
		return c.openFetched(f)
	case good(end):
	case found.Value != nil:
		c.work.Discard(end.r)
		end.cancel(nil)
		c.nobodyWon()
		return c.open(found.Value, call.Stale)
	case c.p.fetches.life.Err() != nil && ctx.Err() == nil:
		// The policy was closed under the fetch, not under the call.
		c.work.Discard(end.r)
		end.cancel(nil)
		c.nobodyWon()
		return c.alone(ctx)
	}
	if end.stop != nil {
		// The body is read by this caller alone, so it ends with this caller.
		inner := end.stop
		detach := context.AfterFunc(ctx, func() { inner(context.Cause(ctx)) })
		end.stop = func(cause error) { detach(); inner(cause) }
	}
	return c.finish(end)
}

func (c *cachedCall[R]) openFetched(f *fetch[R]) (R, error) {
	return c.finish(&finished[R]{r: c.work.Open(f.value, call.Miss), out: f.end.out, end: time.Now(), made: f.end.made, index: -1})
}

func (c *cachedCall[R]) nobodyWon() {
	if c.rec != nil {
		for i := range c.rec.Kept() {
			c.rec.Attempts[i].Won = false
		}
	}
}

// good reports whether an answer may be kept at all.
func good[R any](f *finished[R]) bool {
	return f.err == nil && (f.out.Class == call.OK || f.out.Class == call.Client)
}

// fetch is a call that belongs to the policy: it goes on when its caller leaves. It touches nothing of the caller's
// but the Work; what it has for the caller lies in it until landed is closed.
type fetch[R any] struct {
	all    *fetches
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	orphan bool // the caller is gone, or there was none
	landed chan struct{}

	rec   call.Record
	end   finished[R]
	value cache.Value // what was kept; nil = end.r is the answer
}

// fetch starts one in a goroutine of its own. It is nil when the policy is closed, or when nobody would wait for it
// (behind) and too many of that kind run.
func (c *cachedCall[R]) fetch(ctx context.Context, flight *cache.Flight, behind bool) *fetch[R] {
	f := &fetch[R]{all: &c.p.fetches, orphan: behind, landed: make(chan struct{})}
	own := &cachedCall[R]{p: c.p, parts: c.parts, info: c.info, start: c.start, work: c.work, timed: c.timed}
	own.until = own.fetchBy(ctx)
	if behind {
		own.info = behindTheScenes(own.info)
	}
	ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if !f.all.begin(behind, func() { own.run(ctx, flight, f) }) {
		f.cancel(errClosed)
		c.parts.cache.Refuse(c.start, flight, errClosed)
		return nil
	}
	return f
}

// fetchBy is the deadline of a fetch: Config.Timeout if there is one, as the others who wait should not suffer from the
// haste of the first.
func (c *cachedCall[R]) fetchBy(ctx context.Context) time.Time {
	if d := c.parts.cfg.Timeout; d > 0 {
		return c.start.Add(d)
	}
	if own, ok := ctx.Deadline(); ok {
		return own
	}
	return c.start.Add(fetchTimeout)
}

// run makes the call, stores its answer and hands it over.
func (c *cachedCall[R]) run(ctx context.Context, flight *cache.Flight, f *fetch[R]) {
	ctx, timer := context.WithDeadlineCause(ctx, c.until, ErrDeadline)
	attached := context.AfterFunc(f.all.life, func() { f.cancel(errClosed) })
	end := finished[R]{index: -1}
	x := c.execution(&f.rec, c.until)
	if f.value = c.fromTier(ctx, flight); f.value == nil {
		x.run(ctx, time.Now(), &end)
	}
	inner := end.stop
	end.stop = func(cause error) {
		if inner != nil {
			inner(cause)
		}
		f.cancel(cause)
		timer()
	}
	known, ttl := f.value != nil, time.Duration(0)
	if known {
		end.end = time.Now()
		end.cancel(nil)
	} else {
		ttl = c.store(&end, flight, f)
	}
	attached()
	switch orphan := f.land(end); {
	case f.value != nil && !known:
		c.toTier(f.all.life, end.end, flight.Key(), f.value, ttl)
	case orphan && f.value == nil:
		c.work.Discard(end.r)
		end.cancel(nil)
	}
}

// store ends the flight. ttl is what the Work said of an answer that was kept.
func (c *cachedCall[R]) store(end *finished[R], flight *cache.Flight, f *fetch[R]) (ttl time.Duration) {
	store := c.parts.cache
	if !good(end) {
		err := end.err
		if err == nil {
			err = &Error{Class: end.out.Class, Attempts: end.made, Err: errFailed}
		}
		store.Refuse(end.end, flight, err)
		return 0
	}
	v, ttl, rest, ok := c.work.Keep(end.r, store.MaxEntryBytes())
	now := time.Now()
	if !ok {
		end.r = rest
		store.Refuse(now, flight, cache.ErrNotStorable)
		return 0
	}
	end.cancel(nil)
	f.value = v
	store.Fill(now, flight, v, ttl)
	return ttl
}

// land hands the end over; orphan says that nobody is there to take it.
func (f *fetch[R]) land(end finished[R]) (orphan bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = end
	close(f.landed)
	if f.orphan {
		f.all.orphaned(-1)
	}
	return f.orphan
}

// leave tells a fetch that its caller goes; false when it has landed already.
func (f *fetch[R]) leave() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.landed:
		return false
	default:
	}
	f.orphan = true
	if !f.all.orphaned(1) {
		f.cancel(errOrphans)
	}
	return true
}

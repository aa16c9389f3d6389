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
	// Keep makes r, a success or the caller's own fault, into a value of at most limit bytes. It may read r to its end and
	// then releases it, or leave that to Kept.Fill. When r may not or cannot be kept, ok is false and Kept.Rest is r,
	// still readable in full.
	Keep(r R, limit int64) (k Kept[R], ok bool)
	// Open makes a kept value into an answer of its own for one caller.
	Open(v cache.Value, state call.CacheState) R
}

// Kept is what Keep makes of an answer.
type Kept[R any] struct {
	Value     cache.Value // nil = Fill brings it
	Terms     cache.Terms // from the head of the answer on
	Place     cache.Place
	Confirmed bool // Value was kept before, and the dependency says that it still holds
	Drop      bool // Value is for this one call: it is not kept, and neither is what was kept before

	// Fill reads the answer to its end and gives it to keep, once, while Rest gives it to the one caller whose call fetched
	// it: he need not wait for its end, but shall not see it before keep has returned, so that what he asks next finds it.
	// An error goes to those who wait for the end; after cache.ErrNotStorable Rest must still be readable in full. The
	// context of the attempt ends when both Fill has returned and Rest was released.
	Fill func(keep func(cache.Value)) error
	Rest R
}

// Selective is a Storable whose calls differ in what they want of the answers for one key.
type Selective[R any] interface {
	Storable[R]
	// Wish is what the call wants of a kept answer.
	Wish() cache.Wish
	// Under is the key under which the answer for the call lies, when s lies under base.
	Under(base string, s cache.Signpost) string
	// Whole returns the Work of a fetch whose answer is for all calls for the key, whatever this one asked for. old is
	// what is kept and may be confirmed instead of sent again; nil = nothing. Its Open and Keep are used for this call too.
	Whole(old cache.Value) Storable[R]
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
	choosy  Selective[R] // work, when it is that
	wish    cache.Wish
	key     string // under which it looks
	rounds  int    // looks
	timed   bool
	until   time.Time // deadline; zero = none
	release func()
	learned cache.Signpost // what the second tier has under key, and the cache has not; nil = nothing
}

// throughCache makes a call that a cache may answer. What it needs stays off the stack of all others: a call over HTTP/2 has
// a goroutine of its own, whose stack grows by copies.
func throughCache[R any](
	ctx context.Context, p *Policy, parts *parts, info call.Info, rec *call.Record, now time.Time, work Storable[R], timed bool,
) (R, error) {
	c := cachedCall[R]{p: p, parts: parts, info: info, rec: rec, caller: ctx, start: now, work: work, timed: timed, release: nothing}
	return c.do(ctx)
}

// maxRounds bounds how often a call looks into the cache: what it waited for may be of no use to it.
const maxRounds = 3

// do answers from the cache, from another call's fetch, or from a fetch of its own. It fails open: when the cache is
// of no help, the call is made as if there were none.
func (c *cachedCall[R]) do(ctx context.Context) (R, error) {
	if s, ok := any(c.work).(Selective[R]); ok {
		c.choosy, c.wish = s, s.Wish()
	}
	found := c.find(c.start)
	switch found.State {
	case call.Stale, call.Hit:
		if found.Lead {
			c.fetch(ctx, found, true)
		}
		return c.open(found.Value, found.State) // takes no time, so it needs no deadline
	}
	// A call that waits for another goroutine's fetch needs a context even when its Work is Timed.
	ctx, c.until, c.release = c.parts.bound(ctx, c.start, false)
	return c.wait(ctx, found)
}

// find looks under the call's key, and where what lies there leads to.
func (c *cachedCall[R]) find(now time.Time) cache.Result {
	c.rounds++
	c.key = c.info.Key
	found := c.parts.cache.Find(now, c.key, c.wish)
	if found.Sign == nil {
		return found
	}
	if c.choosy != nil {
		if c.key = c.choosy.Under(c.info.Key, found.Sign); c.key != c.info.Key {
			if found = c.parts.cache.Find(now, c.key, c.wish); found.Sign == nil {
				return found
			}
		}
	}
	return cache.Result{State: call.Uncached}
}

// wait is do for a call that found no answer.
func (c *cachedCall[R]) wait(ctx context.Context, found cache.Result) (R, error) {
	switch {
	case found.State == call.Coalesced:
		return c.follow(ctx, found)
	case found.Lead:
		return c.lead(ctx, found)
	case c.wish.Only:
		c.state(call.Miss)
		return c.finish(&finished[R]{err: ErrNotKept, out: call.Outcome{Class: call.Client}, end: time.Now(), index: -1})
	}
	return c.alone(ctx)
}

// again is wait after a wait for nothing.
func (c *cachedCall[R]) again(ctx context.Context) (R, error) {
	if c.rounds == maxRounds {
		return c.alone(ctx)
	}
	found := c.find(time.Now())
	if found.State != call.Hit && found.State != call.Stale {
		return c.wait(ctx, found)
	}
	if found.Lead {
		c.fetch(ctx, found, true)
	}
	return c.open(found.Value, call.Coalesced)
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
	sign, at := found.Flight.Place()
	switch {
	case err == nil && at != c.key && (sign == nil || c.choosy == nil || c.choosy.Under(c.info.Key, sign) != at):
		return c.again(ctx) // that answer is for other calls
	case err == nil && c.wish.Suits != nil && !c.wish.Suits(v):
		return c.alone(ctx)
	case err == nil:
		return c.open(v, call.Coalesced)
	case errors.Is(err, cache.ErrConfirm):
		return c.again(ctx)
	case found.Value != nil && !errors.Is(err, cache.ErrNotStorable):
		return c.open(found.Value, call.Stale)
	}
	return c.alone(ctx)
}

// lead begins the fetch that all calls for the key wait for, and waits for it like them.
func (c *cachedCall[R]) lead(ctx context.Context, found cache.Result) (R, error) {
	c.state(call.Miss)
	f := c.fetch(ctx, found, false)
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
		if c.timed {
			ctx = c.caller // the Work keeps the policy's time
		}
		detach := context.AfterFunc(ctx, func() { inner(context.Cause(ctx)) })
		end.stop = func(cause error) { detach(); inner(cause) }
	}
	return c.finish(end)
}

func (c *cachedCall[R]) openFetched(f *fetch[R]) (R, error) {
	c.state(f.state)
	return c.finish(&finished[R]{r: c.work.Open(f.value, f.state), out: f.end.out, end: time.Now(), made: f.end.made, index: -1})
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
	all     *fetches
	cancel  context.CancelCauseFunc
	mu      sync.Mutex
	orphan  bool // the caller is gone, or there was none
	filling bool // the answer is being read to its end, beside its caller
	stop    context.CancelCauseFunc
	landed  chan struct{}

	rec   call.Record
	end   finished[R]
	value cache.Value // what was kept; nil = end.r is the answer
	state call.CacheState
}

// fetch starts one in a goroutine of its own. It is nil when the policy is closed, or when nobody would wait for it
// (behind) and too many of that kind run.
func (c *cachedCall[R]) fetch(ctx context.Context, found cache.Result, behind bool) *fetch[R] {
	f := &fetch[R]{all: &c.p.fetches, orphan: behind, landed: make(chan struct{})}
	own := &cachedCall[R]{p: c.p, parts: c.parts, info: c.info, start: c.start, work: c.work, choosy: c.choosy, wish: c.wish, timed: c.timed}
	// A call that fetches for itself alone asks in its own words, unless what is kept may be confirmed for it.
	if c.choosy != nil && (!found.Flight.Alone() || found.Old != nil && !c.wish.Alone) {
		own.work = c.choosy.Whole(found.Old)
	}
	own.until = own.fetchBy(ctx)
	if behind {
		own.info = behindTheScenes(own.info)
	}
	ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if !f.all.begin(behind, func() { own.run(ctx, found.Flight, f) }) {
		f.cancel(errClosed)
		c.parts.cache.Refuse(c.start, found.Flight, errClosed)
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
	timer := context.CancelFunc(func() {})
	if !c.timed {
		ctx, timer = context.WithDeadlineCause(ctx, c.until, ErrDeadline)
	}
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
	if f.value != nil {
		end.end = time.Now()
		end.cancel(nil)
		attached()
		f.state = call.Hit
		f.land(end, false)
		return
	}
	k, ok := c.keep(&end, flight)
	switch {
	case !ok:
		attached()
		if f.land(end, false) {
			c.work.Discard(end.r)
			end.cancel(nil)
		}
	case k.Fill != nil:
		c.fill(f, end, flight, k)
		attached()
	default:
		end.cancel(nil)
		attached()
		f.value, f.state = k.Value, call.Miss
		if k.Confirmed {
			f.state = call.Revalidated
		}
		now, kept := time.Now(), false
		if !k.Drop {
			kept = c.parts.cache.Store(now, flight, k.Value, since(k.Terms, now.Sub(end.end)), k.Place)
		} else {
			c.parts.cache.Invalidate(flight.Key())
			c.parts.cache.Refuse(now, flight, cache.ErrNotStorable)
		}
		f.land(end, false)
		if kept {
			c.toTier(f.all.life, end.end, flight.Key(), k)
		}
	}
}

// keep asks the Work what is to be kept of an answer, and ends the flight when that is nothing.
func (c *cachedCall[R]) keep(end *finished[R], flight *cache.Flight) (k Kept[R], ok bool) {
	store := c.parts.cache
	if !good(end) {
		err := end.err
		if err == nil {
			err = &Error{Class: end.out.Class, Attempts: end.made, Err: errFailed}
		}
		store.Refuse(end.end, flight, err)
		return k, false
	}
	if k, ok = c.work.Keep(end.r, store.MaxEntryBytes()); !ok {
		end.r = k.Rest
		store.Refuse(time.Now(), flight, cache.ErrNotStorable)
	}
	if k.Place.Sign == nil && c.learned != nil { // what the Work has learned of the tier, the cache has to learn too
		k.Place.Base, k.Place.Sign = flight.Key(), c.learned
	}
	return k, ok
}

// fill hands an answer to its caller at its head, and reads it to its end beside him.
func (c *cachedCall[R]) fill(f *fetch[R], end finished[R], flight *cache.Flight, k Kept[R]) {
	f.stop = end.stop
	end.r, end.stop = k.Rest, f.part
	if f.land(end, true) {
		c.work.Discard(k.Rest)
	}
	kept := false
	err := k.Fill(func(v cache.Value) {
		now := time.Now()
		k.Value = v
		kept = c.parts.cache.Store(now, flight, v, since(k.Terms, now.Sub(end.end)), k.Place)
	})
	if k.Value == nil {
		if err == nil {
			err = cache.ErrNotStorable
		}
		c.parts.cache.Refuse(time.Now(), flight, err)
	}
	f.filled()
	if kept {
		c.toTier(f.all.life, end.end, flight.Key(), k)
	}
}

// since is what is left of t after d. What Keep said was about the head of the answer.
func since(t cache.Terms, d time.Duration) cache.Terms {
	t.Age += d
	if t.Fresh != 0 {
		if t.Fresh -= d; t.Fresh == 0 {
			t.Fresh = -1
		}
	}
	return t
}

// land hands the end over; orphan says that nobody is there to take it.
func (f *fetch[R]) land(end finished[R], filling bool) (orphan bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end, f.filling = end, filling
	close(f.landed)
	if f.orphan && !filling {
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

// part tells a fetch that its caller is done with the answer. It may be called more than once.
func (f *fetch[R]) part(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.orphan:
	case !f.filling:
		f.stop(cause)
	case !f.all.orphaned(1):
		f.cancel(errOrphans)
	}
	f.orphan = true
}

// filled is the end of filling.
func (f *fetch[R]) filled() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filling = false
	if f.orphan {
		f.all.orphaned(-1)
		f.stop(nil)
	}
}

package cache

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/maypok86/otter/v2"
)

// ErrNotStorable is the reason to give to Refuse for a good answer that may not be kept.
var ErrNotStorable = errors.New("cache: answer may not be stored")

// overhead is what an entry costs beside its key and its value, in bytes: node, hash table and policy.
const overhead = 160

// Value is an immutable answer that any number of calls may read at once.
type Value interface {
	Size() int64 // bytes that it holds; constant
}

// Cache is a bounded store of answers and the fetches that are under way. All methods are safe for concurrent use. A
// hit takes no lock and does not allocate.
type Cache struct {
	cfg   atomic.Pointer[Config]
	store *otter.Cache[string, *entry]

	mu      sync.Mutex // never held while anything is fetched
	flights map[string]*Flight
	private memory // keys whose answers may not be stored
}

// entry is what the store holds: when an answer expires is decided on reading, so that settings can change meanwhile
// and no clock is needed.
type entry struct {
	value Value
	until time.Time // fresh before it
}

// New returns an empty cache. c must be valid. Close it when it is no longer needed.
func New(c Config) *Cache {
	c = c.WithDefaults()
	cache := &Cache{flights: make(map[string]*Flight)}
	cache.store = otter.Must(&otter.Options[string, *entry]{
		MaximumWeight: uint64(c.MaxBytes),
		Weigher:       weigh,
		// Maintenance runs in the call that made it necessary: no goroutine, so none can be left behind.
		Executor: func(fn func()) { fn() },
	})
	cache.cfg.Store(&c)
	return cache
}

func weigh(key string, e *entry) uint32 {
	return uint32(min(int64(len(key))+e.value.Size()+overhead, math.MaxUint32))
}

// Reconfigure swaps the settings and keeps the entries. One that is fresh stays so for as long as it was meant to be;
// for how long it may be used stale is decided by the new settings.
func (c *Cache) Reconfigure(cfg Config) {
	cfg = cfg.WithDefaults()
	c.cfg.Store(&cfg)
	c.store.SetMaximum(uint64(cfg.MaxBytes))
}

// Close drops all entries. Fetches under way may still be ended with Fill or Refuse; a closed cache stays usable.
func (c *Cache) Close() {
	c.store.StopAllGoroutines()
	c.store.InvalidateAll()
}

// MaxEntryBytes is the largest answer that is kept.
func (c *Cache) MaxEntryBytes() int64 { return c.cfg.Load().MaxEntryBytes }

// Bytes is the weight of all entries: keys, values and overhead. It is at most MaxBytes but for the moment in which
// an entry comes in.
func (c *Cache) Bytes() int64 { return int64(c.store.WeightedSize()) }

// Result is what the cache has for a call.
//
//	Hit               Value answers the call.
//	Stale             Value answers the call; with Lead, the call shall also fetch behind it and end Flight.
//	Miss, Lead        The call fetches and ends Flight with Fill or Refuse, whatever happens to its caller.
//	Coalesced         Another call fetches: wait for Flight.
//
// With Miss and Coalesced a Value that is not nil may be used when the fetch fails (stale-if-error).
type Result struct {
	State  call.CacheState
	Value  Value
	Flight *Flight
	Lead   bool
}

// Lookup says what a call for key shall do at now. A Result with Lead obliges to end its Flight: until then all calls
// for key wait for it.
func (c *Cache) Lookup(now time.Time, key string) Result {
	cfg := c.cfg.Load()
	r, done := c.read(now, key, cfg)
	if done {
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, running := c.flights[key]; running {
		if r.State == call.Miss {
			r.State, r.Flight = call.Coalesced, f
		}
		return r
	}
	// A flight may have landed between the read and the lock.
	if r, done = c.read(now, key, cfg); done {
		return r
	}
	r.Lead = true
	if r.State == call.Miss && c.private.holds(now, key) {
		r.Flight = &Flight{key: key, done: make(chan struct{}), alone: true}
	} else {
		r.Flight = c.begin(key)
	}
	return r
}

// read is Lookup as far as it goes without the lock; done says that the Result is complete.
func (c *Cache) read(now time.Time, key string, cfg *Config) (r Result, done bool) {
	e, ok := c.store.GetIfPresent(key)
	if !ok {
		return Result{State: call.Miss}, false
	}
	switch age := now.Sub(e.until); {
	case age < 0:
		return Result{State: call.Hit, Value: e.value}, true
	case age < cfg.StaleWhileRevalidate:
		return Result{State: call.Stale, Value: e.value}, false
	case age < cfg.StaleIfError:
		return Result{State: call.Miss, Value: e.value}, false
	}
	return Result{State: call.Miss}, false
}

func (c *Cache) begin(key string) *Flight {
	f := &Flight{key: key, done: make(chan struct{})}
	c.flights[key] = f
	return f
}

// Fill ends f with an answer, which is fresh for ttl from now on (0 = Config.TTL). An answer larger than
// MaxEntryBytes goes to those who wait and is not kept.
func (c *Cache) Fill(now time.Time, f *Flight, v Value, ttl time.Duration) {
	cfg := c.cfg.Load()
	if ttl == 0 {
		ttl = cfg.TTL
	}
	// Stored before the flight ends, so that no call can find neither.
	if v.Size() <= cfg.MaxEntryBytes {
		c.store.Set(f.key, &entry{value: v, until: now.Add(ttl)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.private.forget(f.key)
	c.end(f, v, nil)
}

// Refuse ends f without an answer: those who wait shall fetch for themselves, or use the stale Value of their Lookup.
// After ErrNotStorable the calls for the key do not wait for each other for a while; any other error is forgotten at once.
func (c *Cache) Refuse(now time.Time, f *Flight, err error) {
	if err == nil {
		err = ErrNotStorable
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, ErrNotStorable) {
		c.private.add(now, f.key)
	}
	c.end(f, nil, err)
}

func (c *Cache) end(f *Flight, v Value, err error) {
	if !f.alone {
		delete(c.flights, f.key)
	}
	f.value, f.err = v, err
	close(f.done)
}

// Flight is one fetch that any number of calls wait for.
type Flight struct {
	key   string
	done  chan struct{}
	alone bool // known to nobody but the call that fetches
	value Value
	err   error
}

// Done is closed when the fetch has ended.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Value is the answer, or why there is none. It may be called only after Done was closed.
func (f *Flight) Value() (Value, error) { return f.value, f.err }

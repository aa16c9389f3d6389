package cache

import (
	"errors"
	"math"
	"math/rand/v2"
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

// Negative is a Value that may say that there is nothing, as a 404 does. One that does so is fresh for
// Config.NegativeTTL, unless it names a time of its own, and is never used stale: what is not there yet is often about
// to come.
type Negative interface {
	Value
	Negative() bool
}

// Cache is a bounded store of answers and the fetches that are under way. All methods are safe for concurrent use. A
// hit takes no lock and does not allocate.
type Cache struct {
	cfg   atomic.Pointer[Config]
	store *otter.Cache[string, *entry]

	rand    func() float64 // uniform in [0, 1)
	mu      sync.Mutex     // never held while anything is fetched
	flights map[string]*Flight
	private memory // keys whose answers may not be stored
	warm    warm   // keys that are fetched ahead
}

// entry is what the store holds: when an answer expires is decided on reading, so that settings can change meanwhile
// and no clock is needed.
type entry struct {
	value    Value
	until    time.Time     // fresh before it
	fresh    time.Duration // for how long it was meant to be when it came
	took     time.Duration // to fetch it
	negative bool          // never used stale
}

// New returns an empty cache. c must be valid. Close it when it is no longer needed.
func New(c Config) *Cache {
	c = c.WithDefaults()
	cache := &Cache{rand: rand.Float64, flights: make(map[string]*Flight)}
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
//	Hit               Value answers the call; with Lead, it shall also fetch behind it and end Flight (EarlyRefresh).
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
	r, done := c.read(now, key, cfg, true)
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
	early := r.State == call.Hit
	if r, done = c.read(now, key, cfg, false); done && !early {
		return r
	}
	r.Lead = true
	if r.State == call.Miss && c.private.holds(now, key) {
		r.Flight = &Flight{key: key, begun: now, done: make(chan struct{}), alone: true}
	} else {
		r.Flight = c.begin(now, key)
	}
	return r
}

// read is Lookup as far as it goes without the lock; done says that the Result is complete. With draw, chance decides
// whether a fresh entry is to be fetched anew.
func (c *Cache) read(now time.Time, key string, cfg *Config, draw bool) (r Result, done bool) {
	e, ok := c.store.GetIfPresent(key)
	if !ok {
		return Result{State: call.Miss}, false
	}
	switch age := now.Sub(e.until); {
	case age < 0:
		return Result{State: call.Hit, Value: e.value}, !draw || !c.early(cfg, -age, e.took)
	case e.negative:
	case age < cfg.StaleWhileRevalidate:
		return Result{State: call.Stale, Value: e.value}, false
	case age < cfg.StaleIfError:
		return Result{State: call.Miss, Value: e.value}, false
	}
	return Result{State: call.Miss}, false
}

// early is XFetch: an answer that expires in left and took so long to fetch is fetched anew with a probability that
// rises to 1 towards its end, so that of the many who would miss together one comes first. The exponential law is the
// best there is, and needs no word between processes.
//
// Source: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention (PVLDB 8(8), 2015).
func (c *Cache) early(cfg *Config, left, took time.Duration) bool {
	// Below 1/2^53, the least that the generator draws beside 0, it cannot happen: no need to draw.
	if cfg.EarlyRefresh <= 0 || left > time.Duration(37*cfg.EarlyRefresh*float64(took)) {
		return false
	}
	return -math.Log(1-c.rand())*cfg.EarlyRefresh*float64(took) >= float64(left)
}

func (c *Cache) begin(now time.Time, key string) *Flight {
	f := &Flight{key: key, begun: now, done: make(chan struct{})}
	c.flights[key] = f
	return f
}

// Fill ends f with an answer, which is fresh for ttl from now on, less Config.Jitter. With ttl 0 it is fresh for
// Config.TTL, or for Config.NegativeTTL when it says that there is nothing (see Negative). An answer larger than
// MaxEntryBytes goes to those who wait and is not kept.
func (c *Cache) Fill(now time.Time, f *Flight, v Value, ttl time.Duration) {
	cfg := c.cfg.Load()
	e := &entry{value: v, fresh: ttl, negative: isNegative(v), took: max(now.Sub(f.begun), 0)}
	switch {
	case ttl != 0:
	case e.negative:
		e.fresh = cfg.NegativeTTL
	default:
		e.fresh = cfg.TTL
	}
	c.fill(now, f, e)
}

// FillFrom is Fill with what a Tier had: v is made of s.Data. EarlyRefresh goes by the time of the fetch that filled the
// Tier, and not by that of the look into it.
func (c *Cache) FillFrom(now time.Time, f *Flight, v Value, s Stored) {
	c.fill(now, f, &entry{value: v, fresh: s.Until.Sub(now), negative: s.Negative || isNegative(v), took: s.Took})
}

func (c *Cache) fill(now time.Time, f *Flight, e *entry) {
	cfg := c.cfg.Load()
	e.fresh -= time.Duration(cfg.Jitter * c.rand() * float64(e.fresh))
	e.until = now.Add(e.fresh)
	// Stored before the flight ends, so that no call can find neither.
	if e.value.Size() <= cfg.MaxEntryBytes {
		c.store.Set(f.key, e)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.private.forget(f.key)
	c.warm.landed(now, f.key, true)
	c.end(f, e.value, nil)
}

func isNegative(v Value) bool {
	n, ok := v.(Negative)
	return ok && n.Negative()
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
	c.warm.landed(now, f.key, false)
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
	begun time.Time
	done  chan struct{}
	alone bool // known to nobody but the call that fetches
	value Value
	err   error
}

// Key is the key whose answer is fetched.
func (f *Flight) Key() string { return f.key }

// Done is closed when the fetch has ended.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Value is the answer, or why there is none. It may be called only after Done was closed.
func (f *Flight) Value() (Value, error) { return f.value, f.err }

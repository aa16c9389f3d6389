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

// Why a Flight brought nothing for those who waited.
var (
	// ErrNotStorable is the reason to give to Refuse for a good answer that may not be kept.
	ErrNotStorable = errors.New("cache: answer may not be stored")
	// ErrConfirm says that the answer is kept, but that each call has to ask whether it still holds: Find again.
	ErrConfirm = errors.New("cache: answer must be confirmed for each call")
)

// overhead is what an entry costs beside its key and its value, in bytes: node, hash table and policy.
const overhead = 160

// Value is an immutable answer that any number of calls may read at once. It must be comparable, as a pointer is: equal
// values are one answer.
type Value interface {
	Size() int64 // bytes that it holds; constant
}

// Aged is a Value that knows how old it is, wherever it was kept.
type Aged interface {
	Value
	AgeAt(now time.Time) time.Duration
}

// Negative is a Value that may say that there is nothing, as a 404 does. One that does so is fresh for
// Config.NegativeTTL, unless it names a time of its own, and is never used stale: what is not there yet is often about
// to come.
type Negative interface {
	Value
	Negative() bool
}

// Signpost is a Value that is no answer: it tells what of a call the answers for its key depend on, and so under which
// key each of them lies. It does not expire.
type Signpost interface {
	Value
	Signpost()
}

// Terms say for how long an answer may be used. The zero value leaves it to Config.
type Terms struct {
	Fresh      time.Duration // from now on; 0 = Config.TTL, or NegativeTTL for a Negative; negative = it expired so long ago, and is kept to be confirmed
	Age        time.Duration // how old it is already: what Wish.MaxAge goes by
	Revalidate time.Duration // in place of Config.StaleWhileRevalidate; 0 = that; negative = never
	IfError    time.Duration // in place of Config.StaleIfError; 0 = that; negative = never
}

// Place is where an answer lies when it is not under the key of its Flight. The zero value is that key.
type Place struct {
	Key  string   // "" = that of the Flight
	Base string   // where Sign lies
	Sign Signpost // leads from Base to Key; nil = Base has the right one already
	Was  Value    // what lies at Base and is replaced by Sign; if that is something else by now, Sign is not stored
}

// Wish is what a call wants of a kept answer. The zero value takes any that is fresh.
type Wish struct {
	Confirm  bool             // none that has not just been fetched or confirmed
	Only     bool             // nothing is fetched for the call
	Alone    bool             // what is fetched for the call is for it alone: nobody waits for it, and it waits for nobody
	MaxAge   time.Duration    // no older; 0 = any
	MinFresh time.Duration    // fresh for so long still
	MaxStale time.Duration    // may have expired so long ago, unless its Terms say never
	Suits    func(Value) bool // whether an answer may be given to the call; one that may not is as good as none; nil = all may
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
	born     time.Time     // when its age was 0
	negative bool          // never used stale
	sign     Signpost      // value, when it is one
	terms    Terms         // for its windows
}

// windows are for how long e may be used after its time; negative = never.
func (e *entry) windows(cfg *Config) (revalidate, ifError time.Duration) {
	if e.negative {
		return -1, -1
	}
	revalidate, ifError = e.terms.Revalidate, e.terms.IfError
	if revalidate == 0 {
		revalidate = cfg.StaleWhileRevalidate
	}
	if ifError == 0 {
		ifError = cfg.StaleIfError
	}
	return revalidate, ifError
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
//	Miss, Lead        The call fetches and ends Flight with Fill, Store or Refuse, whatever happens to its caller.
//	Miss, no Lead     There is nothing, and the call wants nothing fetched (Wish.Only).
//	Coalesced         Another call fetches: wait for Flight.
//
// With Miss and Coalesced a Value that is not nil may be used when the fetch fails (stale-if-error). Old is what there
// is, whatever its state: a fetch may ask whether it still holds. When Sign is not nil there is nothing else: it tells
// the key to look under.
type Result struct {
	State  call.CacheState
	Value  Value
	Old    Value
	Sign   Signpost
	Flight *Flight
	Lead   bool
}

// Lookup is Find for a call that wants nothing special.
func (c *Cache) Lookup(now time.Time, key string) Result { return c.Find(now, key, Wish{}) }

// Find says what a call for key shall do at now. A Result with Lead obliges to end its Flight: until then all calls
// for key wait for it.
func (c *Cache) Find(now time.Time, key string, w Wish) Result {
	cfg := c.cfg.Load()
	r, done := c.read(now, key, cfg, &w, true)
	if done || w.Only {
		return r
	}
	if w.Alone && r.State == call.Miss {
		r.Lead, r.Flight = true, alone(now, key)
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
	if r, done = c.read(now, key, cfg, &w, false); done && !early {
		return r
	}
	r.Lead = true
	if r.State == call.Miss && (w.Alone || c.private.holds(now, key)) {
		r.Flight = alone(now, key)
	} else {
		r.Flight = c.begin(now, key)
	}
	return r
}

// read is Find as far as it goes without the lock; done says that the Result is complete. With draw, chance decides
// whether a fresh entry is to be fetched anew. A call that an entry does not suit is to be alone: w is changed.
func (c *Cache) read(now time.Time, key string, cfg *Config, w *Wish, draw bool) (r Result, done bool) {
	e, ok := c.store.GetIfPresent(key)
	if !ok {
		return Result{State: call.Miss}, false
	}
	if e.sign != nil {
		return Result{State: call.Miss, Sign: e.sign}, true
	}
	if w.Suits != nil && !w.Suits(e.value) {
		w.Alone = true
		return Result{State: call.Miss}, false
	}
	r = Result{State: call.Miss, Old: e.value}
	over := now.Sub(e.until) // since its end
	revalidate, ifError := e.windows(cfg)
	if over >= 0 && over < ifError {
		r.Value = e.value
	}
	if w.Confirm || w.MaxAge > 0 && now.Sub(e.born) > w.MaxAge || w.MinFresh > 0 && -over < w.MinFresh {
		return r, false
	}
	switch {
	case over < 0:
		r.State, r.Value = call.Hit, e.value
		return r, !draw || !c.early(cfg, -over, e.took)
	case over < revalidate:
		r.State, r.Value = call.Stale, e.value
	case over < w.MaxStale && ifError >= 0:
		r.State, r.Value = call.Stale, e.value
		return r, true // as the caller wants it
	}
	return r, false
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

// alone is a flight that is known to nobody but the call that fetches.
func alone(now time.Time, key string) *Flight {
	return &Flight{key: key, begun: now, done: make(chan struct{}), alone: true}
}

// Fill ends f with an answer, which is fresh for ttl from now on, less Config.Jitter. With ttl 0 it is fresh for
// Config.TTL, or for Config.NegativeTTL when it says that there is nothing (see Negative). An answer larger than
// MaxEntryBytes goes to those who wait and is not kept.
func (c *Cache) Fill(now time.Time, f *Flight, v Value, ttl time.Duration) {
	c.Store(now, f, v, Terms{Fresh: ttl}, Place{})
}

// Store is Fill with all that can be said of an answer. One that is not fresh and may not be used stale is not given to
// those who wait: they are told ErrConfirm. It reports whether the answer is kept: one that is too large is not, and
// neither is one whose key was invalidated while it was fetched.
func (c *Cache) Store(now time.Time, f *Flight, v Value, t Terms, at Place) (kept bool) {
	e := c.entry(now, v, t)
	e.took = max(now.Sub(f.begun), 0)
	return c.fill(now, f, e, at)
}

// FillFrom is Store with what a Tier had: v is made of s.Data. EarlyRefresh goes by the time of the fetch that filled the
// Tier, and not by that of the look into it.
func (c *Cache) FillFrom(now time.Time, f *Flight, v Value, s Stored, at Place) {
	t := Terms{Fresh: s.Until.Sub(now), Age: s.Age, Revalidate: s.Revalidate, IfError: s.IfError}
	if t.Fresh == 0 {
		t.Fresh = -1
	}
	e := c.entry(now, v, t)
	e.took, e.negative = s.Took, e.negative || s.Negative
	c.fill(now, f, e, at)
}

func (c *Cache) entry(now time.Time, v Value, t Terms) *entry {
	cfg := c.cfg.Load()
	e := &entry{value: v, fresh: t.Fresh, negative: isNegative(v), terms: t, born: now.Add(-t.Age)}
	switch {
	case t.Fresh != 0:
	case e.negative:
		e.fresh = cfg.NegativeTTL
	default:
		e.fresh = cfg.TTL
	}
	if e.fresh > 0 {
		e.fresh -= time.Duration(cfg.Jitter * c.rand() * float64(e.fresh))
	}
	e.until = now.Add(e.fresh)
	return e
}

func (c *Cache) fill(now time.Time, f *Flight, e *entry, at Place) (kept bool) {
	cfg := c.cfg.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.Key == "" {
		at.Key = f.key
	}
	// Stored before the flight ends, so that no call can find neither.
	if kept = e.value.Size() <= cfg.MaxEntryBytes && !f.spoilt; kept {
		if at.Sign != nil && c.lies(at.Base, at.Was) {
			c.store.Set(at.Base, &entry{value: at.Sign, sign: at.Sign, until: now})
		}
		c.store.Set(at.Key, e)
	}
	c.warm.landed(now, f.key, true)
	if revalidate, _ := e.windows(cfg); e.fresh <= 0 && revalidate <= -e.fresh {
		c.private.add(now, at.Key)
		c.end(f, nil, ErrConfirm)
		return kept
	}
	c.private.forget(at.Key)
	f.sign, f.at = at.Sign, at.Key
	c.end(f, e.value, nil)
	return kept
}

// lies reports whether v is what is stored under key; nil = nothing is, or an answer that leads nowhere.
func (c *Cache) lies(key string, v Value) bool {
	e, ok := c.store.GetEntryQuietly(key)
	if !ok || e.Value.sign == nil {
		return v == nil || !ok
	}
	return e.Value.value == v
}

// Kept is what lies under key, whatever its state: an answer, a Signpost, or nil.
func (c *Cache) Kept(key string) Value {
	if e, ok := c.store.GetEntryQuietly(key); ok {
		return e.Value.value
	}
	return nil
}

// Replace puts v in the place of was, if that still lies under key: the dependency has said that it holds, or that it is
// a little different.
func (c *Cache) Replace(now time.Time, key string, was, v Value, t Terms) bool {
	e := c.entry(now, v, t)
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.store.GetEntryQuietly(key)
	if !ok || old.Value.value != was || v.Size() > c.cfg.Load().MaxEntryBytes {
		return false
	}
	e.took = old.Value.took
	c.store.Set(key, e)
	return true
}

// Invalidate drops what lies under key, and what is being fetched for it: those who wait get that, but nobody who comes
// later, as it may have been made before the change.
func (c *Cache) Invalidate(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store.Invalidate(key)
	if f := c.flights[key]; f != nil {
		f.spoilt = true
		delete(c.flights, key)
	}
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
	if c.flights[f.key] == f {
		delete(c.flights, f.key)
	}
	f.value, f.err = v, err
	close(f.done)
}

// Flight is one fetch that any number of calls wait for.
type Flight struct {
	key    string
	begun  time.Time
	done   chan struct{}
	alone  bool // known to nobody but the call that fetches
	spoilt bool // invalidated; guarded by the cache's lock
	value  Value
	err    error
	sign   Signpost
	at     string
}

// Key is the key whose answer is fetched.
func (f *Flight) Key() string { return f.key }

// Alone reports whether no call can wait for f.
func (f *Flight) Alone() bool { return f.alone }

// Done is closed when the fetch has ended.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Value is the answer, or why there is none. It may be called only after Done was closed.
func (f *Flight) Value() (Value, error) { return f.value, f.err }

// Place is where the answer lies; sign, if it is not nil, was learned with it, and may lead a call that waited to another
// key. It may be called only after Done was closed.
func (f *Flight) Place() (sign Signpost, key string) { return f.sign, f.at }

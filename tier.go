package longpole

import (
	"context"
	"time"

	"github.com/longpole/longpole/cache"
)

// Portable is a Storable whose kept values can leave the process, for a second tier of the cache.
type Portable[R any] interface {
	Storable[R]
	// Pack writes a kept value into bytes.
	Pack(v cache.Value) ([]byte, error)
	// Unpack reads what Pack wrote, in this process or in another one, of this version or of another.
	Unpack(data []byte) (cache.Value, error)
}

// A tier that is slow or down must not cost a call more than this.
const (
	tierGetTimeout = 50 * time.Millisecond
	tierSetTimeout = time.Second
)

// signTime is how long a tier keeps what leads to answers: longer than nearly all of them.
const signTime = 24 * time.Hour

// SetTier puts t behind the cache, for as long as cache.Config.Shared is on; nil = none. It is asked once for each fetch
// whose Work is Portable, and told of each answer that is kept and fresh, after those who wait have got it. The keys are
// those of call.Info: a tier that several routes share needs keys that tell them apart. t must be comparable, as a
// pointer is.
func (p *Policy) SetTier(t cache.Tier) {
	if t == nil {
		p.tier.Store(nil)
		return
	}
	p.tier.Store(&t)
}

// shared is the tier in use; nil = none.
func (p *Policy) shared(parts *parts) cache.Tier {
	t := p.tier.Load()
	if t == nil || parts.cfg.Cache == nil || !parts.cfg.Cache.Shared {
		return nil
	}
	return *t
}

// Kept is what the cache has under key, whatever its state: an answer, a cache.Signpost, or nil.
func (p *Policy) Kept(key string) cache.Value {
	if store := p.parts.Load().cache; store != nil {
		return store.Kept(key)
	}
	return nil
}

// Replace puts v in the place of was, if that is still what is kept under key. It reports whether it was.
func (p *Policy) Replace(key string, was, v cache.Value, t cache.Terms) bool {
	store := p.parts.Load().cache
	return store != nil && store.Replace(time.Now(), key, was, v, t)
}

// Invalidate is the function of that name for p alone.
func (p *Policy) Invalidate(ctx context.Context, keys ...string) {
	Invalidate(ctx, map[*Policy][]string{p: keys})
}

// Invalidate drops what each of several policies keeps under keys, and what leads from them to other keys; what is being
// fetched for them will not be kept. A second tier is told once, however many policies share it, and waited for no
// longer than ctx or 50 ms: one that is down may bring an old answer back for the rest of its time.
func Invalidate(ctx context.Context, drops map[*Policy][]string) {
	tiers := make(map[cache.Tier][]string)
	for p, keys := range drops {
		parts := p.parts.Load()
		if parts.cache == nil {
			continue
		}
		for _, key := range keys {
			parts.cache.Invalidate(key)
		}
		if t := p.shared(parts); t != nil {
			tiers[t] = append(tiers[t], keys...)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tierGetTimeout)
	defer cancel()
	for t, keys := range tiers {
		_ = t.Delete(ctx, keys...)
	}
}

// fromTier ends the flight with an answer of the second tier, if there is a fresh one that the call can use.
func (c *cachedCall[R]) fromTier(ctx context.Context, flight *cache.Flight) cache.Value {
	t := c.p.shared(c.parts)
	work, ok := c.work.(Portable[R])
	if t == nil || !ok || c.wish.Confirm || c.wish.MaxAge > 0 || c.wish.MinFresh > 0 {
		return nil
	}
	if flight.Alone() && !c.wish.Alone {
		return nil // its answers are known not to be kept
	}
	ctx, cancel := context.WithTimeout(ctx, tierGetTimeout)
	defer cancel()
	stored, v := c.ask(ctx, t, work, flight.Key())
	var at cache.Place
	if sign, leads := v.(cache.Signpost); leads && c.choosy != nil {
		c.learned = sign
		at = cache.Place{Key: c.choosy.Under(flight.Key(), sign), Base: flight.Key(), Sign: sign}
		stored, v = c.ask(ctx, t, work, at.Key)
	}
	if _, leads := v.(cache.Signpost); leads || v == nil || c.wish.Suits != nil && !c.wish.Suits(v) {
		return nil
	}
	now := time.Now()
	if a, ok := v.(cache.Aged); ok {
		stored.Age = a.AgeAt(now) // it went on to age in the tier
	}
	c.parts.cache.FillFrom(now, flight, v, stored, at)
	return v
}

// ask gets a value that is fresh; nil = there is none.
func (c *cachedCall[R]) ask(ctx context.Context, t cache.Tier, work Portable[R], key string) (cache.Stored, cache.Value) {
	stored, err := t.Get(ctx, key)
	if err != nil || c.parts.cache.Early(time.Now(), stored) {
		return stored, nil
	}
	v, err := work.Unpack(stored.Data)
	if err != nil {
		return stored, nil
	}
	return stored, v
}

// toTier tells the second tier of an answer that came at now.
func (c *cachedCall[R]) toTier(ctx context.Context, now time.Time, key string, k Kept[R]) {
	t := c.p.shared(c.parts)
	work, ok := c.work.(Portable[R])
	if t == nil || !ok || k.Terms.Fresh < 0 {
		return
	}
	data, err := work.Pack(k.Value)
	if err != nil {
		return
	}
	ttl := k.Terms.Fresh
	s := cache.Stored{
		Data: data, Took: now.Sub(c.start), Age: k.Terms.Age, Revalidate: k.Terms.Revalidate, IfError: k.Terms.IfError,
	}
	if n, ok := k.Value.(cache.Negative); ok {
		s.Negative = n.Negative()
	}
	if cfg := c.parts.cfg.Cache; ttl == 0 && s.Negative {
		ttl = cfg.NegativeTTL
	} else if ttl == 0 {
		ttl = cfg.TTL
	}
	s.Until = now.Add(ttl)
	ctx, cancel := context.WithTimeout(ctx, tierSetTimeout)
	defer cancel()
	// A copy that is missing costs a fetch and nothing else.
	if k.Place.Sign != nil {
		if data, err = work.Pack(k.Place.Sign); err == nil {
			_ = t.Set(ctx, k.Place.Base, cache.Stored{Data: data, Until: now.Add(signTime)})
		}
	}
	if k.Place.Key != "" {
		key = k.Place.Key
	}
	_ = t.Set(ctx, key, s)
	// What was invalidated while the tier was being told must not stay there: it may have come after the order to drop it.
	var undone []string
	if k.Place.Sign != nil && c.parts.cache.Kept(k.Place.Base) != cache.Value(k.Place.Sign) {
		undone = append(undone, k.Place.Base)
	}
	if c.parts.cache.Kept(key) != k.Value {
		undone = append(undone, key)
	}
	if len(undone) > 0 {
		_ = t.Delete(ctx, undone...)
	}
}

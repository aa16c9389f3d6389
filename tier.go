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

// SetTier puts t behind the cache; nil = none. It is asked once for each fetch whose Work is Portable, and told of each
// answer that is kept, after those who wait have got it. The keys are those of call.Info: a tier that several routes
// share needs keys that tell them apart.
func (p *Policy) SetTier(t cache.Tier) {
	if t == nil {
		p.tier.Store(nil)
		return
	}
	p.tier.Store(&t)
}

// fromTier ends the flight with an answer of the second tier, if there is a fresh one.
func (c *cachedCall[R]) fromTier(ctx context.Context, flight *cache.Flight) cache.Value {
	t := c.p.tier.Load()
	work, ok := c.work.(Portable[R])
	if t == nil || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tierGetTimeout)
	defer cancel()
	stored, err := (*t).Get(ctx, flight.Key())
	now := time.Now()
	if err != nil || c.parts.cache.Early(now, stored) {
		return nil
	}
	v, err := work.Unpack(stored.Data)
	if err != nil {
		return nil
	}
	c.parts.cache.FillFrom(now, flight, v, stored)
	return v
}

// toTier tells the second tier of an answer that came at now and is fresh for ttl (0 = as the cache has it).
func (c *cachedCall[R]) toTier(ctx context.Context, now time.Time, key string, v cache.Value, ttl time.Duration) {
	t := c.p.tier.Load()
	work, ok := c.work.(Portable[R])
	if t == nil || !ok {
		return
	}
	data, err := work.Pack(v)
	if err != nil {
		return
	}
	s := cache.Stored{Data: data, Until: now.Add(ttl), Took: now.Sub(c.start)}
	if n, ok := v.(cache.Negative); ok {
		s.Negative = n.Negative()
	}
	if cfg := c.parts.cfg.Cache; ttl == 0 && s.Negative {
		s.Until = now.Add(cfg.NegativeTTL)
	} else if ttl == 0 {
		s.Until = now.Add(cfg.TTL)
	}
	ctx, cancel := context.WithTimeout(ctx, tierSetTimeout)
	defer cancel()
	_ = (*t).Set(ctx, key, s) // a copy that is missing costs a fetch and nothing else
}

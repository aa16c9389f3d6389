package longpole

import (
	"context"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

// warmAtOnce bounds the fetches ahead of one Warm list that run at the same time.
const warmAtOnce = 8

// Warm keeps the answers of keys in the cache of p, and fetches each one anew before it expires (Config.RefreshAhead):
// for what is computed for all callers, such as a start page. work gives the Work and the Info of the fetch for a key;
// its Key is replaced. The list replaces one given before. Warm returns when ctx is done, with its cause, or at once
// with an error when p has no cache. The fetches have the lowest priority; those under way end with the policy.
func Warm[R any](ctx context.Context, p *Policy, keys []string, work func(key string) (call.Info, Storable[R])) error {
	store := p.parts.Load().cache
	if store == nil {
		return errNoCache
	}
	store.Warm(keys)
	ended := make(chan struct{}, 1)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-ended:
		}
		now := time.Now()
		parts := p.parts.Load()
		if parts.cache != store {
			return errNoCache
		}
		flights, next := store.Due(now, warmAtOnce)
		for _, f := range flights {
			info, w := work(f.Key())
			info.Key = f.Key()
			c := cachedCall[R]{p: p, parts: parts, info: info, start: now, work: w}
			_, c.timed = any(w).(Timed)
			if fetch := c.fetch(context.Background(), cache.Result{Flight: f}, true); fetch != nil {
				go func() {
					<-fetch.landed
					select {
					case ended <- struct{}{}:
					default:
					}
				}()
			}
		}
		if len(flights) > 0 {
			next = now.Add(time.Second) // the end of a fetch wakes sooner
		}
		if next.IsZero() {
			next = now.Add(time.Minute)
		}
		timer.Reset(time.Until(next))
	}
}

package gateway

import (
	"context"
	"reflect"
	"sync/atomic"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/cache/redis"
)

// second is the tier behind the caches of all routes that share. What stands behind it can change while calls run.
type second struct {
	cfg  *Redis // as it was last given; guarded by Gateway.reload
	tier atomic.Pointer[redis.Tier]

	counts tierCounts
}

var _ cache.Tier = (*second)(nil)

// configure puts valid settings in force; nil = there is no second tier. It connects with the first call.
func (s *second) configure(c *Redis) error {
	if s.cfg == c || s.cfg != nil && c != nil && reflect.DeepEqual(*s.cfg, *c) {
		return nil
	}
	var next *redis.Tier
	if c != nil {
		var err error
		if next, err = redis.New(c.config()); err != nil {
			return err
		}
	}
	s.cfg = c
	if old := s.tier.Swap(next); old != nil {
		old.Close() // calls that wait for it go on without
	}
	return nil
}

// close ends the connections.
func (s *second) close() {
	if old := s.tier.Swap(nil); old != nil {
		old.Close()
	}
}

// Get asks Redis, if there is one.
func (s *second) Get(ctx context.Context, key string) (cache.Stored, error) {
	if t := s.tier.Load(); t != nil {
		v, err := t.Get(ctx, key)
		return v, s.counts.told(err, &s.counts.found)
	}
	return cache.Stored{}, cache.ErrNotFound
}

// Set tells Redis, if there is one.
func (s *second) Set(ctx context.Context, key string, v cache.Stored) error {
	if t := s.tier.Load(); t != nil {
		return s.counts.told(t.Set(ctx, key, v), &s.counts.stored)
	}
	return nil
}

// Delete tells Redis, if there is one.
func (s *second) Delete(ctx context.Context, keys ...string) error {
	if t := s.tier.Load(); t != nil {
		return s.counts.told(t.Delete(ctx, keys...), &s.counts.stored)
	}
	return nil
}

// share puts s behind the caches of arms.
func (s *second) share(arms []*arm) {
	for _, a := range arms {
		a.policy.SetTier(s)
	}
}

package lab

import (
	"context"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// cacheServer is one simulated remote cache. Each shard works on one command at a time, as Redis does.
type cacheServer struct {
	spec   scenario.Cache
	random *dice
	shards []gate

	mu       sync.Mutex
	entries  map[string]time.Time // when they end
	order    []string             // as they came in, the oldest first
	lookups  int
	hits     int
	commands int
	evicted  int
	busy     []time.Duration
	since    time.Time
}

func newCacheServer(spec scenario.Cache, seed uint64) *cacheServer {
	c := &cacheServer{spec: spec, random: newDice(seed, spec.Name), entries: map[string]time.Time{}}
	for range spec.Shards {
		c.shards = append(c.shards, newGate(1))
	}
	_ = c.reset(context.Background()) // it has no errors
	return c
}

func (c *cacheServer) open(context.Context) error { return nil }

func (c *cacheServer) close() error { return nil }

// attend has nothing to do.
func (c *cacheServer) attend(context.Context) error { return nil }

func (c *cacheServer) address() (host, port string) { return c.spec.Name, "6379" }

func (c *cacheServer) reset(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups, c.hits, c.commands, c.evicted, c.busy, c.since = 0, 0, 0, 0, make([]time.Duration, len(c.shards)), time.Now()
	return nil
}

func (c *cacheServer) flush(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.order = nil
	return nil
}

// hotSpeed is at how many bytes a second a cache moves a large value, as Redis does over loopback.
const hotSpeed = 600 << 20

// hot reports whether a key is the one with the large value, if one has it: that of key 1 of what was asked for.
func hot(key string) bool { return strings.HasSuffix(key, ":1") }

// serve spends the time of one command on the shard of its key.
func (c *cacheServer) serve(ctx context.Context, key string) error {
	h := fnv.New32a()
	h.Write([]byte(key)) // a hash never fails to write
	i := int(h.Sum32() % uint32(len(c.shards)))
	if _, err := c.shards[i].enter(ctx); err != nil {
		return err
	}
	defer c.shards[i].leave()
	began := time.Now()
	d := c.random.draw(*c.spec.Lookup)
	if hot(key) {
		d += time.Duration(float64(c.spec.Hot) / hotSpeed * float64(time.Second))
	}
	err := pause(ctx, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands++
	c.busy[i] += time.Since(began)
	return err
}

func (c *cacheServer) get(ctx context.Context, key string) (hit bool, err error) {
	if err := c.serve(ctx, key); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	ends, ok := c.entries[key]
	if !ok || time.Now().After(ends) {
		return false, nil
	}
	c.hits++
	return true, nil
}

func (c *cacheServer) put(ctx context.Context, key string, ttl time.Duration) error {
	if err := c.serve(ctx, key); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.entries[key]; !there {
		if len(c.order) >= c.spec.Keys {
			delete(c.entries, c.order[0])
			c.order = c.order[1:]
			c.evicted++
		}
		c.order = append(c.order, key)
	}
	c.entries[key] = time.Now().Add(ttl)
	return nil
}

// facts is what INFO tells of the time since the phase began. CPU is that of the busiest shard.
func (c *cacheServer) facts(context.Context) (evidence.RedisFacts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	took := time.Since(c.since)
	s := evidence.RedisStats{
		Span: took, Version: "7.2.0", Role: "master", Commands: float64(c.commands) / took.Seconds(),
		Lookups: float64(c.lookups) / took.Seconds(), Evicted: float64(c.evicted) / took.Seconds(),
	}
	if c.lookups > 0 {
		s.HitRatio = float64(c.hits) / float64(c.lookups)
	}
	for _, b := range c.busy {
		s.CPU = max(s.CPU, b.Seconds()/took.Seconds())
	}
	return evidence.RedisFacts{Name: c.spec.Name, Stats: s}, nil
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/scenario"
)

// redis is a cache in a real Redis server, under keys with a prefix of its own.
type redis struct {
	spec   scenario.Cache
	server string
	prefix string
	owner  bool
	lent   bool // the server outlives the lab
	random *dice

	client rueidis.Client // nil = not connected
	reader *probe.Redis

	mu     sync.Mutex
	before evidence.RedisLook
}

// newRedis describes a cache at host:port. mark tells this lab's keys from those of others.
func newRedis(spec scenario.Cache, server, mark string, owner bool, seed uint64) *redis {
	return &redis{spec: spec, server: server, prefix: marked("longpole-lab", mark, spec.Name, ":") + ":", owner: owner, lent: mark != "", random: newDice(seed, spec.Name)}
}

// open connects. There is nothing to be made.
func (c *redis) open(context.Context) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{c.server}, ClientName: "longpole-lab", DisableCache: true, ForceSingleClient: true,
		DisableRetry:          true, // a command fails with its server, and does not wait for it
		DisableAutoPipelining: true, // a connection for each, as most clients do: no small value waits behind a large one
	})
	if err != nil {
		return fmt.Errorf("lab: Redis: %w", err)
	}
	c.client = client
	if c.owner {
		c.reader, err = probe.NewRedis(probe.RedisConfig{Name: c.server, Address: c.server, Budget: probe.Budget{MinInterval: 100 * time.Millisecond, PerHour: time.Hour}}, client)
	}
	return err
}

func (c *redis) attend(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (c *redis) address() (host, port string) {
	host, port, _ = net.SplitHostPort(c.server) // it was connected to
	return host, port
}

func (c *redis) reset(ctx context.Context) (err error) {
	if c.reader == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before, err = c.reader.Look(ctx)
	return err
}

func (c *redis) facts(ctx context.Context) (evidence.RedisFacts, error) {
	after, err := c.reader.Look(ctx)
	if err != nil {
		return evidence.RedisFacts{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return evidence.RedisFacts{Name: c.server, Stats: evidence.RedisBetween(c.before, after)}, nil
}

// slowly lets a command take as long as the scenario's cache does, if the server was quicker.
func (c *redis) slowly(ctx context.Context, began time.Time) error {
	return pause(ctx, c.random.draw(*c.spec.Lookup)-time.Since(began))
}

func (c *redis) get(ctx context.Context, key string) (hit bool, err error) {
	began := time.Now()
	err = c.client.Do(ctx, c.client.B().Get().Key(c.prefix+key).Build()).Error()
	if err != nil && !rueidis.IsRedisNil(err) {
		return false, fmt.Errorf("lab: Redis: %w", err)
	}
	return err == nil, c.slowly(ctx, began)
}

// value is what stands under a key.
func (c *redis) value(key string) string {
	if c.spec.Hot > 0 && hot(key) {
		return strings.Repeat("1", int(c.spec.Hot))
	}
	return "1"
}

func (c *redis) put(ctx context.Context, key string, ttl time.Duration) error {
	began := time.Now()
	if err := c.client.Do(ctx, c.client.B().Set().Key(c.prefix+key).Value(c.value(key)).Px(max(ttl, time.Millisecond)).Build()).Error(); err != nil {
		return fmt.Errorf("lab: Redis: %w", err)
	}
	return c.slowly(ctx, began)
}

// staleTries is how often a flush is tried: each connection that a server which crashed has left fails once.
const staleTries = 4

// flush takes away the keys of this cache; the server may have others.
func (c *redis) flush(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, realFaultTime)
	defer cancel()
	for range staleTries {
		if err = c.sweep(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (c *redis) sweep(ctx context.Context) error {
	for cursor := uint64(0); ; {
		found, err := c.client.Do(ctx, c.client.B().Scan().Cursor(cursor).Match(c.prefix+"*").Count(1000).Build()).AsScanEntry()
		if err == nil && len(found.Elements) > 0 {
			err = c.client.Do(ctx, c.client.B().Unlink().Key(found.Elements...).Build()).Error()
		}
		if err != nil {
			return fmt.Errorf("lab: Redis: %w", err)
		}
		if cursor = found.Cursor; cursor == 0 {
			return nil
		}
	}
}

func (c *redis) close() (err error) {
	if c.client == nil {
		return nil
	}
	defer c.client.Close()
	if c.owner && c.lent {
		err = c.flush(context.Background())
	}
	if errors.Is(err, rueidis.ErrClosing) {
		return nil
	}
	return err
}

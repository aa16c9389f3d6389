package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/redis/rueidis"
)

// Why Redis was not asked.
var (
	ErrDown   = errors.New("redis: not asked, as it failed lately")
	ErrClosed = errors.New("redis: closed")
)

// forever is longer than any answer is kept: how long one is, Redis says.
const forever = 365 * 24 * time.Hour

// Tier is a cache.Tier in Redis. Make one with New, and Close it. All methods are safe for concurrent use.
type Tier struct {
	cfg     Config
	breaker *breaker.Breaker

	client atomic.Pointer[rueidis.Client] // nil until connected
	mu     sync.Mutex                     // held while connecting, and then only tried for
	closed bool
}

var _ cache.Tier = (*Tier)(nil)

// New returns a Tier, or every fault of c; each is a *setting.Error. It does not connect yet.
func New(c Config) (*Tier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Tier{cfg: c, breaker: breaker.New(breaker.Config{MinCalls: 5, OpenFor: c.Pause, MaxOpenFor: 4 * c.Pause, Probes: 1})}, nil
}

// Get returns what is stored under key: cache.ErrNotFound when that is nothing, ErrDown when Redis is not asked.
func (t *Tier) Get(ctx context.Context, key string) (s cache.Stored, err error) {
	err = t.do(ctx, func(ctx context.Context, c rueidis.Client) error {
		r := c.DoCache(ctx, c.B().Get().Key(t.cfg.Prefix+key).Cache(), forever)
		b, err := r.AsBytes()
		if err != nil {
			return err
		}
		if s, err = cache.Unpack(b); err != nil {
			return cache.ErrNotFound // another program's, or another version's
		}
		// By our clock and not by that of who stored it.
		if ttl := time.Duration(r.CachePTTL()) * time.Millisecond; ttl > 0 && ttl < forever/2 {
			s.Until = time.Now().Add(ttl)
		}
		return nil
	})
	return s, err
}

// Set stores s under key until s.Until; what is past that is not stored.
func (t *Tier) Set(ctx context.Context, key string, s cache.Stored) error {
	ttl := time.Until(s.Until)
	if ttl < time.Millisecond {
		return nil
	}
	value := rueidis.BinaryString(s.Pack())
	return t.do(ctx, func(ctx context.Context, c rueidis.Client) error {
		return c.Do(ctx, c.B().Set().Key(t.cfg.Prefix+key).Value(value).Px(ttl).Build()).Error()
	})
}

// Delete forgets what is stored under keys. Other processes that read it lately learn of it from Redis.
func (t *Tier) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return t.do(ctx, func(ctx context.Context, c rueidis.Client) error {
		var errs []error
		commands := make(rueidis.Commands, 0, len(keys))
		for _, key := range keys {
			commands = append(commands, c.B().Del().Key(t.cfg.Prefix+key).Build())
		}
		for _, r := range c.DoMulti(ctx, commands...) {
			errs = append(errs, r.Error())
		}
		return errors.Join(errs...)
	})
}

// do asks Redis, unless it failed lately, and learns from the outcome.
func (t *Tier) do(ctx context.Context, ask func(context.Context, rueidis.Client) error) error {
	start := time.Now()
	if t.breaker.Allow(start) != nil {
		return ErrDown
	}
	within, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	c, err := t.connected()
	if err == nil {
		err = ask(within, c)
	}
	if rueidis.IsRedisNil(err) {
		err = cache.ErrNotFound
	}
	out := call.Outcome{Latency: time.Since(start)}
	switch {
	case err == nil, errors.Is(err, cache.ErrNotFound):
	case ctx.Err() != nil, errors.Is(err, errBusy), errors.Is(err, ErrClosed):
		out.Class = call.Canceled
	default:
		out.Class = call.Server
		err = fmt.Errorf("redis: %w", err)
	}
	t.breaker.Record(start.Add(out.Latency), out)
	return err
}

var errBusy = fmt.Errorf("%w: another call is connecting", ErrDown)

// connected returns the client, and makes it when there is none: rueidis reconnects by itself, but does not begin
// without a server. One call tries at a time; the others do not wait for it.
func (t *Tier) connected() (rueidis.Client, error) {
	if c := t.client.Load(); c != nil {
		return *c, nil
	}
	if !t.mu.TryLock() {
		return nil, errBusy
	}
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	if c := t.client.Load(); c != nil {
		return *c, nil
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       t.cfg.Addresses,
		Username:          t.cfg.Username,
		Password:          t.cfg.Password,
		TLSConfig:         t.cfg.TLS,
		Dialer:            net.Dialer{Timeout: t.cfg.Timeout, KeepAlive: time.Second},
		ConnWriteTimeout:  time.Second,
		CacheSizeEachConn: int(t.cfg.LocalBytes),
		ForceSingleClient: len(t.cfg.Addresses) == 1,
		DisableRetry:      true, // the dependency is the second attempt
		AlwaysPipelining:  true, // a call that gives up does not close the connection of the others
	})
	if err != nil {
		return nil, err
	}
	t.client.Store(&c)
	return c, nil
}

// Close ends the connections. Calls under way fail, those that come later return ErrClosed.
func (t *Tier) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if c := t.client.Swap(nil); c != nil {
		(*c).Close()
	}
}

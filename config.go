package longpole

import (
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"github.com/longpole/longpole/setting"
)

// Config is the one definition of a policy. A program fills it in Go, the gateway decodes it from YAML, the
// adviser proposes an edited copy, a rollout compares two of them. A nil part is off.
type Config struct {
	Timeout    time.Duration   `yaml:"timeout"`     // of the whole call, all attempts and the body; 0 = the caller's deadline only
	TryTimeout time.Duration   `yaml:"try_timeout"` // of one attempt, to the head of its answer; 0 = none
	MinTry     time.Duration   `yaml:"min_try"`     // no attempt is begun with less time left before the deadline; 0 = any time is enough
	Cache      *cache.Config   `yaml:"cache"`
	Limit      *limit.Config   `yaml:"limit"` // one permit a call, whatever its attempts
	Retry      *retry.Config   `yaml:"retry"` // hedging stands in here: the two share a budget
	Balance    *balance.Config `yaml:"balance"`
	Breaker    *breaker.Config `yaml:"breaker"`  // one for each endpoint
	Fallback   *Fallback       `yaml:"fallback"` // what answers a call that failed
}

// Safe returns c with a safe setting for each part that is nil or zero, except Cache, which nobody may turn on but
// the owner of the data: 30s timeout, up to 3 attempts of idempotent calls within a 20% budget, p2c, and a breaker
// for each endpoint that opens when half of at least 20 calls in 10s failed.
func (c Config) Safe() Config {
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Retry == nil {
		c.Retry = &retry.Config{}
	}
	if c.Balance == nil {
		c.Balance = &balance.Config{}
	}
	if c.Breaker == nil {
		c.Breaker = &breaker.Config{}
	}
	return c.WithDefaults()
}

// WithDefaults spells out the defaults of the parts that are on. It shares nothing with c.
func (c Config) WithDefaults() Config {
	if c.Cache != nil {
		part := c.Cache.WithDefaults()
		c.Cache = &part
	}
	if c.Retry != nil {
		part := c.Retry.WithDefaults()
		c.Retry = &part
	}
	if c.Balance != nil {
		part := c.Balance.WithDefaults()
		c.Balance = &part
	}
	if c.Breaker != nil {
		part := c.Breaker.WithDefaults()
		c.Breaker = &part
	}
	if c.Limit != nil {
		part := c.Limit.WithDefaults()
		c.Limit = &part
	}
	if c.Fallback != nil {
		part := c.Fallback.WithDefaults()
		c.Fallback = &part
	}
	return c
}

// clone copies c so that the two share nothing.
func (c Config) clone() Config {
	c.Cache, c.Breaker = copied(c.Cache), copied(c.Breaker)
	if c.Balance != nil {
		b := c.Balance.Clone()
		c.Balance = &b
	}
	if c.Limit = copied(c.Limit); c.Limit != nil {
		c.Limit.Queue, c.Limit.Rate = copied(c.Limit.Queue), copied(c.Limit.Rate)
	}
	if c.Retry = copied(c.Retry); c.Retry != nil {
		c.Retry.Hedge = copied(c.Retry.Hedge)
	}
	if c.Fallback = copied(c.Fallback); c.Fallback != nil {
		c.Fallback.Static = copied(c.Fallback.Static)
	}
	return c
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.Timeout >= 0, "timeout", c.Timeout, "a duration that is not negative")
	f.Check(c.TryTimeout >= 0, "try_timeout", c.TryTimeout, "a duration that is not negative")
	f.Check(c.Timeout == 0 || c.TryTimeout <= c.Timeout, "try_timeout", c.TryTimeout, "at most timeout")
	f.Check(c.MinTry >= 0, "min_try", c.MinTry, "a duration that is not negative")
	f.Check(c.Timeout <= 0 || c.MinTry < c.Timeout, "min_try", c.MinTry, "less than timeout, or no attempt is ever made")
	if c.Cache != nil {
		f.Within("cache", c.Cache.Validate())
	}
	if c.Limit != nil {
		f.Within("limit", c.Limit.Validate())
	}
	if c.Retry != nil {
		f.Within("retry", c.Retry.Validate())
	}
	if c.Balance != nil {
		f.Within("balance", c.Balance.Validate())
	}
	if c.Breaker != nil {
		f.Within("breaker", c.Breaker.Validate())
	}
	if c.Fallback != nil {
		f.Within("fallback", c.Fallback.Validate())
		f.Check(c.Fallback.Stale == 0 || c.Cache != nil, "fallback.stale", c.Fallback.Stale, "a cache that keeps the answers")
	}
	return f.Err()
}

// Change is an edit of one route's policy: what the adviser proposes and a rollout tries.
type Change struct {
	Route string `yaml:"route"`
	From  Config `yaml:"from"`
	To    Config `yaml:"to"`
}

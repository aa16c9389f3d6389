package retry

import (
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/setting"
)

// Config of a Policy. The zero value means the defaults given at each field.
type Config struct {
	Off          bool          `yaml:"off"`            // true = one attempt, whatever else stands here
	MaxAttempts  int           `yaml:"max_attempts"`   // of one call, the first and hedges included; 1..10; default 3
	BaseDelay    time.Duration `yaml:"base_delay"`     // ceiling of the first pause, which is drawn uniformly below it; default 25ms
	MaxDelay     time.Duration `yaml:"max_delay"`      // ceiling of every pause, pushback excepted; default 250ms, or BaseDelay if that is longer
	BudgetRatio  float64       `yaml:"budget_ratio"`   // retries and hedges per first attempt over the last 10 s; 0..1; default 20%
	MinPerSecond float64       `yaml:"min_per_second"` // retries always allowed per second, so that quiet routes can retry at all; default 1
	Hedge        *Hedge        `yaml:"hedge"`          // nil = never send a second copy of a call that is still running
}

// Hedge is when to send a second copy of a slow idempotent call to another endpoint.
type Hedge struct {
	After       time.Duration `yaml:"after"`        // age at which the copy is sent; 0 = derived from the measured latencies
	BudgetRatio float64       `yaml:"budget_ratio"` // copies per first attempt; 0..1; default 10%; spent from the retry budget too
	Quantile    float64       `yaml:"quantile"`     // of the calls' latency, that After 0 makes as small as it can; 50%..99.999%; default 99%; for calls that are parts of a fan-out of n: 1 - 1%/n
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.MaxAttempts == 0 {
		c.MaxAttempts = 3
	}
	if c.BaseDelay == 0 {
		c.BaseDelay = 25 * time.Millisecond
	}
	if c.MaxDelay == 0 {
		c.MaxDelay = max(250*time.Millisecond, c.BaseDelay)
	}
	if c.BudgetRatio == 0 {
		c.BudgetRatio = 0.2
	}
	if c.MinPerSecond == 0 {
		c.MinPerSecond = 1
	}
	if c.Hedge != nil {
		h := *c.Hedge
		if h.BudgetRatio == 0 {
			h.BudgetRatio = 0.1
		}
		if h.Quantile == 0 {
			h.Quantile = 0.99
		}
		c.Hedge = &h
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.MaxAttempts >= 0 && c.MaxAttempts <= call.MaxAttempts, "max_attempts", c.MaxAttempts, "1..10")
	f.Check(c.BaseDelay >= 0, "base_delay", c.BaseDelay, "a duration that is not negative")
	f.Check(c.MaxDelay >= 0 && (c.MaxDelay == 0 || c.MaxDelay >= c.BaseDelay), "max_delay", c.MaxDelay, "at least base_delay")
	f.Check(c.BudgetRatio >= 0 && c.BudgetRatio <= 1, "budget_ratio", c.BudgetRatio, "0%..100%")
	f.Check(c.MinPerSecond >= 0, "min_per_second", c.MinPerSecond, "a number that is not negative")
	if h := c.Hedge; h != nil {
		f.Check(h.After >= 0, "hedge.after", h.After, "a duration that is not negative")
		f.Check(h.BudgetRatio >= 0 && h.BudgetRatio <= 1, "hedge.budget_ratio", h.BudgetRatio, "0%..100%")
		f.Check(h.Quantile == 0 || h.Quantile >= 0.5 && h.Quantile <= 0.99999, "hedge.quantile", h.Quantile, "50%..99.999%")
	}
	return f.Err()
}

package breaker

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// Config of a Breaker. The zero value means the defaults given at each field.
type Config struct {
	Off          bool          `yaml:"off"`           // true = never open
	FailureRatio float64       `yaml:"failure_ratio"` // share of failed calls in Window that opens; above 0, up to 1; default 50%
	MinCalls     int           `yaml:"min_calls"`     // calls in Window below which it never opens; default 20
	Window       time.Duration `yaml:"window"`        // how long a call counts; default 10s
	WindowCalls  int           `yaml:"window_calls"`  // above 0, the latest so many calls count instead, however old they are; up to 10000; default 0
	SlowAfter    time.Duration `yaml:"slow_after"`    // a call that takes longer is slow, whatever its answer; default 0 = slowness does not matter
	SlowRatio    float64       `yaml:"slow_ratio"`    // share of slow calls that opens; above 0, up to 1; default 50%
	OpenFor      time.Duration `yaml:"open_for"`      // then it lets Probes calls try; doubled each time it opens again soon; default 5s
	MaxOpenFor   time.Duration `yaml:"max_open_for"`  // bound of that; default 60s, or OpenFor if that is longer
	Probes       int           `yaml:"probes"`        // calls admitted half-open; all must succeed to close; default 3
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.FailureRatio == 0 {
		c.FailureRatio = 0.5
	}
	if c.MinCalls == 0 {
		c.MinCalls = 20
		if c.WindowCalls > 0 {
			c.MinCalls = min(c.MinCalls, c.WindowCalls)
		}
	}
	if c.SlowRatio == 0 {
		c.SlowRatio = 0.5
	}
	if c.Window == 0 {
		c.Window = 10 * time.Second
	}
	if c.OpenFor == 0 {
		c.OpenFor = 5 * time.Second
	}
	if c.MaxOpenFor == 0 {
		c.MaxOpenFor = max(time.Minute, c.OpenFor)
	}
	if c.Probes == 0 {
		c.Probes = 3
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.FailureRatio >= 0 && c.FailureRatio <= 1, "failure_ratio", c.FailureRatio, "above 0%, up to 100%")
	f.Check(c.MinCalls >= 0, "min_calls", c.MinCalls, "at least 1")
	f.Check(c.Window == 0 || c.Window >= 100*time.Millisecond, "window", c.Window, "at least 100ms")
	f.Check(c.WindowCalls >= 0 && c.WindowCalls <= 10_000, "window_calls", c.WindowCalls, "0..10000")
	f.Check(c.WindowCalls <= 0 || c.MinCalls <= c.WindowCalls, "min_calls", c.MinCalls, "at most window_calls")
	f.Check(c.SlowAfter >= 0, "slow_after", c.SlowAfter, "a duration that is not negative")
	f.Check(c.SlowRatio >= 0 && c.SlowRatio <= 1, "slow_ratio", c.SlowRatio, "above 0%, up to 100%")
	f.Check(c.MaxOpenFor == 0 || c.MaxOpenFor >= c.OpenFor, "max_open_for", c.MaxOpenFor, "at least open_for")
	f.Check(c.OpenFor >= 0, "open_for", c.OpenFor, "a duration that is not negative")
	f.Check(c.Probes >= 0 && c.Probes <= 100, "probes", c.Probes, "1..100")
	return f.Err()
}

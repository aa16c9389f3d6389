package limit

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// The values of Config.Algorithm.
const (
	Adaptive  = "adaptive"  // the latency ratio, vetoed by the covariance of in-flight and goodput: the default
	Fixed     = "fixed"     // Limit
	AIMD      = "aimd"      // +1 while good, x0.9 on a drop
	Vegas     = "vegas"     // by the queue that the shortest latency lets one infer
	Gradient2 = "gradient2" // by the ratio of the long-term to the present latency
	None      = "none"      // no limit on calls in flight: for a Rate alone
)

// The values of Rate.Algorithm.
const (
	TokenBucket = "token_bucket" // the default
	GCRA        = "gcra"         // the same calls pass, and Ticket.RetryAfter is exact to the nanosecond
)

// Config of a Limiter. The zero value means the defaults given at each field.
type Config struct {
	Algorithm  string        `yaml:"algorithm"`   // how the limit is found: adaptive, fixed, aimd, vegas, gradient2, none; default adaptive
	Limit      int           `yaml:"limit"`       // calls in flight, to begin with; with fixed, always; Min..Max; default 20
	Min        int           `yaml:"min"`         // the limit never falls below; default 1
	Max        int           `yaml:"max"`         // the limit never rises above; default 1000, or Limit if that is larger
	MaxLatency time.Duration `yaml:"max_latency"` // a slower answer counts as a drop, which lowers the limit; default 0 = none does
	Tenants    int           `yaml:"tenants"`     // that wait at once with a turn of their own; further ones share one turn; 1..4096; default 64
	Queue      *Queue        `yaml:"queue"`       // nil = a call beyond the limit is refused at once
	Rate       *Rate         `yaml:"rate"`        // nil = no limit on calls per second
}

// Queue is how calls beyond the limit wait.
type Queue struct {
	Length      int           `yaml:"length"`       // calls that wait at once; default 0 = half the limit, at least 10, and as many more as permits are withheld by a probe of the adaptive limit
	Target      time.Duration `yaml:"target"`       // wait that is acceptable as a permanent state; default 0 = TargetShare of the time that calls have left
	TargetShare float64       `yaml:"target_share"` // of the time that calls have left on arrival, smoothed; above 0, up to 50%; default 5%
	MaxAge      time.Duration `yaml:"max_age"`      // longest wait of any call; default 0 = a third of the time that it has left, or 1s if it has no deadline
	LIFOAbove   int           `yaml:"lifo_above"`   // with more calls than this waiting, the newest of a tenant goes first; default 0 = half of Length
}

// Rate is how many calls may begin per second.
type Rate struct {
	PerSecond float64 `yaml:"per_second"` // sustained; above 0; required
	Burst     int     `yaml:"burst"`      // that may begin at once after a quiet time; at least 1; default one second's worth
	Algorithm string  `yaml:"algorithm"`  // token_bucket or gcra; default token_bucket
	PerTenant bool    `yaml:"per_tenant"` // PerSecond and Burst hold for each tenant by itself
	Tenants   int     `yaml:"tenants"`    // that are told apart at once; further ones share one allowance; 1..1000000; default 10000
}

// WithDefaults fills what is zero. Queue.Length, Target, MaxAge and LIFOAbove stay 0 where 0 means a value that
// follows from the limit or from the call.
func (c Config) WithDefaults() Config {
	if c.Algorithm == "" {
		c.Algorithm = Adaptive
	}
	if c.Min == 0 {
		c.Min = 1
	}
	if c.Limit == 0 {
		c.Limit = max(20, c.Min)
		if c.Max > 0 {
			c.Limit = min(c.Limit, c.Max)
		}
	}
	if c.Max == 0 {
		c.Max = max(1000, c.Limit)
	}
	if c.Tenants == 0 {
		c.Tenants = 64
	}
	if c.Queue != nil {
		q := *c.Queue
		if q.TargetShare == 0 {
			q.TargetShare = 0.05
		}
		c.Queue = &q
	}
	if c.Rate != nil {
		c.Rate = c.Rate.withDefaults()
	}
	return c
}

func (r Rate) withDefaults() *Rate {
	if r.Burst == 0 {
		r.Burst = max(1, int(r.PerSecond))
	}
	if r.Algorithm == "" {
		r.Algorithm = TokenBucket
	}
	if r.Tenants == 0 {
		r.Tenants = 10_000
	}
	return &r
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	switch c.Algorithm {
	case "", Adaptive, Fixed, AIMD, Vegas, Gradient2, None:
	default:
		f.Check(false, "algorithm", c.Algorithm, "adaptive, fixed, aimd, vegas, gradient2 or none")
	}
	f.Check(c.Min >= 0, "min", c.Min, "at least 1")
	f.Check(c.Max >= 0 && c.Max <= 1_000_000 && (c.Max == 0 || c.Max >= c.Min), "max", c.Max, "at least min, up to 1000000")
	f.Check(c.Limit >= 0 && c.Limit <= 1_000_000 && (c.Limit == 0 || c.Limit >= c.Min) && (c.Limit == 0 || c.Max == 0 || c.Limit <= c.Max), "limit", c.Limit, "min..max")
	f.Check(c.MaxLatency >= 0, "max_latency", c.MaxLatency, "a duration that is not negative")
	f.Check(c.Tenants >= 0 && c.Tenants <= 4096, "tenants", c.Tenants, "1..4096")
	if q := c.Queue; q != nil {
		f.Check(q.Length >= 0 && q.Length <= 1_000_000, "queue.length", q.Length, "0..1000000")
		f.Check(q.Target >= 0, "queue.target", q.Target, "a duration that is not negative")
		f.Check(q.TargetShare >= 0 && q.TargetShare <= 0.5, "queue.target_share", q.TargetShare, "above 0%, up to 50%")
		f.Check(q.MaxAge >= 0, "queue.max_age", q.MaxAge, "a duration that is not negative")
		f.Check(q.LIFOAbove >= 0, "queue.lifo_above", q.LIFOAbove, "a number that is not negative")
	}
	if r := c.Rate; r != nil {
		f.Check(r.PerSecond > 0 && r.PerSecond <= 1e9, "rate.per_second", r.PerSecond, "above 0, up to 1e9")
		f.Check(r.Burst >= 0, "rate.burst", r.Burst, "at least 1")
		f.Check(r.Algorithm == "" || r.Algorithm == TokenBucket || r.Algorithm == GCRA, "rate.algorithm", r.Algorithm, "token_bucket or gcra")
		f.Check(r.Tenants >= 0 && r.Tenants <= 1_000_000, "rate.tenants", r.Tenants, "1..1000000")
	}
	return f.Err()
}

package balance

import (
	"math"
	"time"

	"github.com/longpole/longpole/setting"
)

// The algorithms that choose an endpoint.
const (
	P2C        = "p2c"         // the less loaded of two drawn at random (Mitzenmacher 2001); the default
	RoundRobin = "round_robin" // each in turn, weights ignored
	Weighted   = "weighted"    // each in turn as often as its weight says, smoothly (as nginx does)
	PeakEWMA   = "peak_ewma"   // of two drawn at random the one with the lower latency times load (Finagle 2016)
	Prequal    = "prequal"     // by asking the endpoints for their load ahead of the calls (NSDI 2024)
)

// Config of a Balancer. The zero value means the defaults given at each field.
type Config struct {
	Algorithm string        `yaml:"algorithm"`  // P2C, RoundRobin, Weighted, PeakEWMA or Prequal; default P2C
	Zone      string        `yaml:"zone"`       // the caller's own; endpoints of the same zone are preferred; "" = zones do not matter
	ZoneMin   float64       `yaml:"zone_min"`   // share of the zone's capacity that must be fit to serve all calls; below it calls spill over in proportion; 0..1; default 70%
	Subset    int           `yaml:"subset"`     // how many endpoints (of the zone, and of the others) this caller uses; 0 = all
	SubsetKey string        `yaml:"subset_key"` // who the caller is, so that it always gets the same subset; "" = drawn once for each Set
	SlowStart time.Duration `yaml:"slow_start"` // how long an endpoint that is new or came back takes to get its full share; 0 = at once
	Eject     *Eject        `yaml:"eject"`      // passive health; nil = none
	Prequal   *Probing      `yaml:"prequal"`    // how endpoints are asked; nil = the defaults; used by Prequal only
}

// Eject is when an endpoint that does worse than the others is taken out for a while. An attempt that was overtaken by its
// copy counts as a failure here: hedging hides a slow endpoint from the callers, and must not hide it from this. The zero
// value means the defaults given at each field.
type Eject struct {
	Consecutive   int           `yaml:"consecutive"`    // failures in a row that eject; default 5
	FailureRatio  float64       `yaml:"failure_ratio"`  // share of failures over about 10 s, or in as many calls as are needed to tell, that ejects, if it is also twice the others' median; 0..1; default 20%
	LatencyFactor float64       `yaml:"latency_factor"` // median latency over about 10 s, as a multiple of the others' median, that ejects; above 1; default 3
	LatencyFloor  time.Duration `yaml:"latency_floor"`  // a median at or below it never ejects; default 10ms
	LatencyDelta  time.Duration `yaml:"latency_delta"`  // nor one that is less than this above the others'; default 10ms
	MinCalls      int           `yaml:"min_calls"`      // calls seen of an endpoint before a ratio or a median counts; default 20
	MaxEjected    float64       `yaml:"max_ejected"`    // share of the endpoints that may be out at once; one may always be, all never; 0..1; default 30%
	PanicBelow    float64       `yaml:"panic_below"`    // when less than this share of the endpoints would be left, all fit by active checks are used; 0..1; default 50%
	For           time.Duration `yaml:"for"`            // the first ejection; each further one is twice as long; default 10s
	MaxFor        time.Duration `yaml:"max_for"`        // the longest one; default 5m, or For if that is longer
}

// Probing is how Prequal asks and chooses. The zero value means the defaults given at each field.
type Probing struct {
	PerCall float64 `yaml:"per_call"` // endpoints asked for each call; fractions are rounded at random; above 0, at most 16; default 3
	Hot     float64 `yaml:"hot"`      // Q_RIF: endpoints above this quantile of requests in flight are taken only when all are; 0 < q <= 1; default 84%
}

// WithDefaults fills what is zero. It shares nothing with c.
func (c Config) WithDefaults() Config {
	if c.Algorithm == "" {
		c.Algorithm = P2C
	}
	if c.ZoneMin == 0 {
		c.ZoneMin = 0.7
	}
	if c.Eject != nil {
		e := c.Eject.withDefaults()
		c.Eject = &e
	}
	if c.Algorithm == Prequal && c.Prequal == nil {
		c.Prequal = &Probing{}
	}
	if c.Prequal != nil {
		p := *c.Prequal
		fill(&p.PerCall, 3)
		fill(&p.Hot, 0.84)
		c.Prequal = &p
	}
	return c
}

func (e Eject) withDefaults() Eject {
	fill(&e.Consecutive, 5)
	fill(&e.FailureRatio, 0.2)
	fill(&e.LatencyFactor, 3)
	fill(&e.LatencyFloor, 10*time.Millisecond)
	fill(&e.LatencyDelta, 10*time.Millisecond)
	fill(&e.MinCalls, 20)
	fill(&e.MaxEjected, 0.3)
	fill(&e.PanicBelow, 0.5)
	fill(&e.For, 10*time.Second)
	fill(&e.MaxFor, max(5*time.Minute, e.For))
	return e
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Clone copies c so that the two share nothing.
func (c Config) Clone() Config {
	if c.Eject != nil {
		e := *c.Eject
		c.Eject = &e
	}
	if c.Prequal != nil {
		p := *c.Prequal
		c.Prequal = &p
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	switch c.Algorithm {
	case "", P2C, RoundRobin, Weighted, PeakEWMA, Prequal:
	default:
		f.Check(false, "algorithm", c.Algorithm, "p2c, round_robin, weighted, peak_ewma or prequal")
	}
	f.Check(share(c.ZoneMin), "zone_min", c.ZoneMin, "0%..100%")
	f.Check(c.Subset >= 0, "subset", c.Subset, "a number that is not negative")
	f.Check(c.SlowStart >= 0, "slow_start", c.SlowStart, "a duration that is not negative")
	if c.Eject != nil {
		f.Within("eject", c.Eject.validate())
	}
	if p := c.Prequal; p != nil {
		f.Check(p.PerCall >= 0 && p.PerCall <= poolSize, "prequal.per_call", p.PerCall, "above 0, at most 16")
		f.Check(share(p.Hot), "prequal.hot", p.Hot, "0%..100%")
	}
	return f.Err()
}

func (e Eject) validate() error {
	var f setting.Faults
	f.Check(e.Consecutive >= 0, "consecutive", e.Consecutive, "at least 1")
	f.Check(share(e.FailureRatio), "failure_ratio", e.FailureRatio, "0%..100%")
	f.Check(e.LatencyFactor == 0 || e.LatencyFactor > 1 && !math.IsInf(e.LatencyFactor, 1), "latency_factor", e.LatencyFactor, "a number above 1")
	f.Check(e.LatencyFloor >= 0, "latency_floor", e.LatencyFloor, "a duration that is not negative")
	f.Check(e.LatencyDelta >= 0, "latency_delta", e.LatencyDelta, "a duration that is not negative")
	f.Check(e.MinCalls >= 0, "min_calls", e.MinCalls, "at least 1")
	f.Check(share(e.MaxEjected), "max_ejected", e.MaxEjected, "0%..100%")
	f.Check(share(e.PanicBelow), "panic_below", e.PanicBelow, "0%..100%")
	f.Check(e.For >= 0, "for", e.For, "a duration that is not negative")
	f.Check(e.MaxFor >= 0 && (e.MaxFor == 0 || e.MaxFor >= e.For), "max_for", e.MaxFor, "at least for")
	return f.Err()
}

func share(x float64) bool { return x >= 0 && x <= 1 }

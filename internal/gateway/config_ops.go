package gateway

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// Overload bounds what the gateway itself may use. From 80% of a bound on it refuses calls by priority, the lowest tier
// first and caller by caller within it; at the bound it refuses all.
type Overload struct {
	Off         bool    `yaml:"off"`         // true = never refuse for want of our own resources
	Memory      int64   `yaml:"memory"`      // of live objects and stacks; default 90% of GOMEMLIMIT or of the control group's limit; without either no bound
	Descriptors float64 `yaml:"descriptors"` // share of the process's limit on open files; default 90%
	Goroutines  int     `yaml:"goroutines"`  // default 500000
}

// WithDefaults fills what is zero, but Memory, whose default is found when the gateway runs.
func (o Overload) WithDefaults() Overload {
	setDefault(&o.Descriptors, 0.9)
	setDefault(&o.Goroutines, 500_000)
	return o
}

// Validate returns every fault of o, joined; each is a *setting.Error.
func (o Overload) Validate() error {
	var f setting.Faults
	f.Check(o.Memory == 0 || o.Memory >= 64<<20, "memory", o.Memory, "64MiB or more")
	f.Check(o.Descriptors >= 0 && o.Descriptors <= 1, "descriptors", o.Descriptors, "0..100%")
	f.Check(o.Goroutines == 0 || o.Goroutines >= 1000, "goroutines", o.Goroutines, "1000 or more")
	return f.Err()
}

// AccessLog writes calls as lines of JSON. Failed and slow calls always stand in it, as far as MaxPerSecond and the
// disk allow; of the others a sample does. A line that cannot be written in time is dropped and counted.
type AccessLog struct {
	File         string        `yaml:"file"`           // stderr, stdout or a path, opened anew on reload; "" = no log
	Sample       float64       `yaml:"sample"`         // share of the calls that are neither failed nor slow; 0..1; default 1%
	Slow         time.Duration `yaml:"slow"`           // a call of at least this length, its body included, is slow; default 1s
	MaxPerSecond int           `yaml:"max_per_second"` // lines; default 1000
	Query        bool          `yaml:"query"`          // true = the query string too; values of parameters that look like credentials are hashed
}

// WithDefaults fills what is zero.
func (a AccessLog) WithDefaults() AccessLog {
	setDefault(&a.Sample, 0.01)
	setDefault(&a.Slow, time.Second)
	setDefault(&a.MaxPerSecond, 1000)
	return a
}

// Validate returns every fault of a, joined; each is a *setting.Error.
func (a AccessLog) Validate() error {
	var f setting.Faults
	f.Check(a.Sample >= 0 && a.Sample <= 1, "sample", a.Sample, "0..100%")
	f.Check(a.Slow >= 0, "slow", a.Slow, "a duration that is not negative")
	f.Check(a.MaxPerSecond >= 0 && a.MaxPerSecond <= 1_000_000, "max_per_second", a.MaxPerSecond, "1..1000000")
	return f.Err()
}

// Tracing bounds the traces that begin at the gateway, and those that are kept of all. Of a route that has more calls a uniform share is kept, whatever
// became of them, so that the diagnosis still sees the quantiles as they are, and upstreams are told of it. A trace that
// comes in sampled is kept.
type Tracing struct {
	TracesPerSecond int   `yaml:"traces_per_second"` // of each route; default 100
	HeldSpans       int   `yaml:"held_spans"`        // of all services, in memory for the live diagnosis; beyond it whole traces are sampled, the slow and the failed last; 1000..10000000; default 20000
	HeldBytes       int64 `yaml:"held_bytes"`        // memory that they may take; 1MiB..64GiB; default 32MiB
	KeptPerSecond   int   `yaml:"kept_per_second"`   // traces that are written to the state folder, the slow and the failed first; 1..10000; default 20
}

// WithDefaults fills what is zero.
func (t Tracing) WithDefaults() Tracing {
	setDefault(&t.TracesPerSecond, 100)
	setDefault(&t.HeldSpans, 20_000)
	setDefault(&t.HeldBytes, 32<<20)
	setDefault(&t.KeptPerSecond, 20)
	return t
}

// Validate returns every fault of t, joined; each is a *setting.Error.
func (t Tracing) Validate() error {
	var f setting.Faults
	f.Check(t.TracesPerSecond >= 0 && t.TracesPerSecond <= 1_000_000, "traces_per_second", t.TracesPerSecond, "1..1000000")
	f.Check(t.HeldSpans == 0 || t.HeldSpans >= 1000 && t.HeldSpans <= 10_000_000, "held_spans", t.HeldSpans, "1000..10000000")
	f.Check(t.HeldBytes == 0 || t.HeldBytes >= 1<<20 && t.HeldBytes <= 64<<30, "held_bytes", t.HeldBytes, "1MiB..64GiB")
	f.Check(t.KeptPerSecond >= 0 && t.KeptPerSecond <= 10_000, "kept_per_second", t.KeptPerSecond, "1..10000")
	return f.Err()
}

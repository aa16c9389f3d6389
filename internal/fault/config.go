package fault

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// The bounds of a fault.
const (
	MaxTTL   = 24 * time.Hour
	MaxDelay = 10 * time.Minute
)

// Point is where on its way a call is hit.
type Point string

// The points.
const (
	AtCall    Point = "call"    // before the policies that could cope with it: the client feels it, unless there is a fallback; the default
	AtAttempt Point = "attempt" // in place of an endpoint: retries, hedges, breakers and ejection must cope
)

// Reset is when a connection is broken off.
type Reset string

// The moments of a reset. At the point call it is the client's connection, at the point attempt the endpoint's.
const (
	BeforeHead Reset = "before_head"
	MidBody    Reset = "mid_body" // after reset_after bytes; an answer that is shorter is broken off at its end
)

// Config is one fault. Name, Share, TTL and at least one effect are mandatory.
type Config struct {
	Name       string `yaml:"name"`       // 1..64 characters; unique among what runs
	Hypothesis string `yaml:"hypothesis"` // what is expected to hold, for those who read the record; up to 512 characters

	Share    float64           `yaml:"share"`    // of the calls that meet the conditions; more than 0, up to 100%
	Method   []string          `yaml:"method"`   // one or several; none = any
	Headers  map[string]string `yaml:"headers"`  // all must be there with this value; "*" = any value; up to 8
	Traces   *Traces           `yaml:"traces"`   // nil = whatever its trace
	At       Point             `yaml:"at"`       // default call
	Endpoint string            `yaml:"endpoint"` // at attempt: only those to this one, host:port; "" = any

	Delay          *Delay `yaml:"delay"`            // before anything else
	Abort          int    `yaml:"abort"`            // status of the answer instead of the real one; 400..599
	Reset          Reset  `yaml:"reset"`            // the connection ends with RST (HTTP/2: RST_STREAM)
	ResetAfter     int64  `yaml:"reset_after"`      // bytes of the body before mid_body; default 1KiB
	BytesPerSecond int64  `yaml:"bytes_per_second"` // of the answer's body, from 1 up
	Blackhole      bool   `yaml:"blackhole"`        // no answer until the deadline, or until the fault ends

	TTL       time.Duration `yaml:"ttl"`        // how long it runs at most; more than 0, up to 24h
	Seed      int           `yaml:"seed"`       // equal seeds hit the same calls of equal sequences; default 0, which is one as well
	MaxActive int           `yaml:"max_active"` // calls that suffer at once; others pass; 1..100000; default 1000
	Stop      *Stop         `yaml:"stop"`       // nil = only the TTL ends it
}

// Traces is a part of all traces, by a hash of the trace id: from From up to, not including, To; 0..1 both.
type Traces struct {
	From float64 `yaml:"from"`
	To   float64 `yaml:"to"`
}

// Stop ends a fault when too much goes wrong: when over the last 10 s more than ErrorRatio of all the route's calls,
// hit or not, failed in the eyes of their clients.
type Stop struct {
	ErrorRatio float64 `yaml:"error_ratio"` // more than 0, below 100%
	MinCalls   int     `yaml:"min_calls"`   // before this many there is no verdict; default 20
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.At == "" {
		c.At = AtCall
	}
	if c.Reset == MidBody && c.ResetAfter == 0 {
		c.ResetAfter = 1 << 10
	}
	if c.MaxActive == 0 {
		c.MaxActive = 1000
	}
	if c.Delay != nil {
		d := c.Delay.WithDefaults()
		c.Delay = &d
	}
	if c.Stop != nil && c.Stop.MinCalls == 0 {
		c.Stop = &Stop{ErrorRatio: c.Stop.ErrorRatio, MinCalls: 20}
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(nameOK(c.Name), "name", c.Name, "a name of 1..64 letters, digits and -_. characters")
	f.Check(len(c.Hypothesis) <= 512, "hypothesis", len(c.Hypothesis), "at most 512 characters")
	f.Check(c.Share > 0 && c.Share <= 1, "share", c.Share, "more than 0, up to 100%")
	for _, m := range c.Method {
		f.Check(m != "" && strings.ToUpper(m) == m && !strings.ContainsAny(m, " \t\r\n"), "method", m, "a method in capitals")
	}
	f.Check(len(c.Headers) <= 8, "headers", len(c.Headers), "at most 8")
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		f.Check(name != "" && !strings.ContainsAny(name, " \t\r\n:"), "headers", name, "the name of a header")
	}
	if t := c.Traces; t != nil {
		f.Check(t.From >= 0 && t.From < t.To && t.To <= 1, "traces", *t, "0% <= from < to <= 100%")
	}
	f.Check(c.At == "" || c.At == AtCall || c.At == AtAttempt, "at", c.At, "call or attempt")
	f.Check(c.Endpoint == "" || c.At == AtAttempt, "endpoint", c.Endpoint, "at: attempt, where an endpoint is known")
	c.validateEffects(&f)
	f.Check(c.TTL > 0 && c.TTL <= MaxTTL, "ttl", c.TTL, "more than 0, up to 24h")
	f.Check(c.MaxActive >= 0 && c.MaxActive <= 100_000, "max_active", c.MaxActive, "1..100000")
	if s := c.Stop; s != nil {
		f.Check(s.ErrorRatio > 0 && s.ErrorRatio < 1, "stop.error_ratio", s.ErrorRatio, "more than 0, below 100%")
		f.Check(s.MinCalls >= 0, "stop.min_calls", s.MinCalls, "a number that is not negative")
	}
	return f.Err()
}

func (c Config) validateEffects(f *setting.Faults) {
	some := c.Delay != nil || c.Abort != 0 || c.Reset != "" || c.BytesPerSecond != 0 || c.Blackhole
	f.Check(some, "", "no effect", "delay, abort, reset, bytes_per_second or blackhole")
	if c.Delay != nil {
		f.Within("delay", c.Delay.Validate())
	}
	f.Check(c.Abort == 0 || c.Abort >= 400 && c.Abort <= 599, "abort", c.Abort, "400..599")
	f.Check(c.Reset == "" || c.Reset == BeforeHead || c.Reset == MidBody, "reset", c.Reset, "before_head or mid_body")
	f.Check(c.ResetAfter == 0 || c.ResetAfter > 0 && c.Reset == MidBody, "reset_after", c.ResetAfter, "a size, with reset: mid_body")
	f.Check(c.BytesPerSecond >= 0, "bytes_per_second", c.BytesPerSecond, "a size that is not negative")
	ends := 0
	for _, set := range []bool{c.Abort != 0, c.Reset == BeforeHead, c.Blackhole} {
		if set {
			ends++
		}
	}
	f.Check(ends <= 1, "", "abort, reset: before_head and blackhole together", "one of them: each ends the call")
	f.Check(ends == 0 || c.Reset != MidBody && c.BytesPerSecond == 0, "", "an effect on the body beside one that ends the call before", "one or the other")
}

func nameOK(name string) bool {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, bad)
}

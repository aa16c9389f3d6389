package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/longpole/longpole/setting"
)

// Arrivals is the process by which calls arrive.
type Arrivals string

// The arrival processes.
const (
	Poisson Arrivals = "poisson" // independent users: exponential gaps, bursts included; the default
	Uniform Arrivals = "uniform" // equal gaps
)

// Plan is the traffic to send.
type Plan struct {
	Targets     []Target      // at least one; names differ
	Arrivals    Arrivals      // "" = Poisson
	Seed        uint64        // equal seeds give equal arrival times and URLs, target by target
	MaxInFlight int           // calls in flight to one target; arrivals beyond it are dropped; 0 = 512
	Timeout     time.Duration // of one call, from the moment of sending to the end of the body; 0 = 30s
	Drain       time.Duration // what calls in flight are given once Run's context has ended; 0 = 2s
}

// Target is one stream of calls.
type Target struct {
	Name      string // of its results
	Method    string // "" = GET
	Template  string // low-cardinality path for the span's name: "/orders/{n}"; "" = the method alone
	PerSecond float64
	// URL draws the absolute URL of the next call. It runs on one goroutine for a target and must draw from r only,
	// or the run cannot be repeated.
	URL func(r *rand.Rand) string
	// Replay sends a recording instead; then Method, PerSecond and URL are not used. nil = they are.
	Replay *Replay
}

// Choice is one URL and how often it is drawn in proportion to its siblings.
type Choice struct {
	URL    string
	Weight float64 // > 0
}

// Fixed always gives url.
func Fixed(url string) func(*rand.Rand) string { return func(*rand.Rand) string { return url } }

// Weighted draws one of choices by weight. Choices without a positive weight are never drawn; with none left, the
// result is "".
func Weighted(choices ...Choice) func(*rand.Rand) string {
	var total float64
	for _, c := range choices {
		total += max(c.Weight, 0)
	}
	return func(r *rand.Rand) string {
		x, last := r.Float64()*total, ""
		for _, c := range choices {
			if c.Weight <= 0 {
				continue
			}
			if last = c.URL; x < c.Weight {
				break
			}
			x -= c.Weight
		}
		return last
	}
}

// WithDefaults fills what is zero.
func (p Plan) WithDefaults() Plan {
	if p.Arrivals == "" {
		p.Arrivals = Poisson
	}
	if p.MaxInFlight == 0 {
		p.MaxInFlight = 512
	}
	if p.Timeout == 0 {
		p.Timeout = 30 * time.Second
	}
	if p.Drain == 0 {
		p.Drain = 2 * time.Second
	}
	targets := make([]Target, len(p.Targets))
	copy(targets, p.Targets)
	for i := range targets {
		if targets[i].Method == "" {
			targets[i].Method = "GET"
		}
	}
	p.Targets = targets
	return p
}

// maxPerSecond bounds a target's rate: beyond it one timer per arrival is the wrong tool.
const maxPerSecond = 100_000

// Validate returns every fault of p, joined; each is a *setting.Error.
func (p Plan) Validate() error {
	var f setting.Faults
	f.Check(len(p.Targets) > 0, "targets", len(p.Targets), "at least one target")
	f.Check(p.Arrivals == "" || p.Arrivals == Poisson || p.Arrivals == Uniform, "arrivals", p.Arrivals, "poisson or uniform")
	f.Check(p.MaxInFlight >= 0, "max_in_flight", p.MaxInFlight, "a number that is not negative")
	f.Check(p.Timeout >= 0, "timeout", p.Timeout, "a duration that is not negative")
	f.Check(p.Drain >= 0, "drain", p.Drain, "a duration that is not negative")
	seen := make(map[string]bool)
	for i, t := range p.Targets {
		at := fmt.Sprintf("targets[%d].", i)
		f.Check(t.Name != "" && !seen[t.Name], at+"name", t.Name, "a name that no other target has")
		seen[t.Name] = true
		if t.Replay != nil {
			f.Within(at+"replay", t.Replay.Validate())
			continue
		}
		f.Check(t.PerSecond > 0 && t.PerSecond <= maxPerSecond, at+"per_second", t.PerSecond, "more than 0, at most 100000")
		f.Check(t.URL != nil, at+"url", "nil", "a function")
	}
	return f.Err()
}

package load

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/longpole/longpole/setting"
)

// Arrivals is the process by which calls arrive.
type Arrivals string

// The arrival processes.
const (
	Poisson Arrivals = "poisson" // independent users: exponential gaps, bursts included; the default
	Uniform Arrivals = "uniform" // equal gaps
	Bursty  Arrivals = "bursty"  // Poisson arrivals whose rate goes up and down at random: Burst
)

// Burst is how Bursty arrivals come: bursts and pauses take turns, each as long as an exponential draw of its mean, and
// the mean rate is that of the plan (a Markov-modulated Poisson process of two states).
type Burst struct {
	On   time.Duration `yaml:"on"`   // mean length of a burst; 0 = 1s
	Off  time.Duration `yaml:"off"`  // mean length of a pause; 0 = 4s
	Idle float64       `yaml:"idle"` // rate within a pause, as a share of the mean rate, 0 up to 1; 0 = no call comes
}

// factor is by how much the rate differs from its mean.
func (b Burst) factor(on bool) float64 {
	if !on {
		return b.Idle
	}
	x, y := b.On.Seconds(), b.Off.Seconds()
	return (x + y - b.Idle*y) / x
}

// Stage lets the rate go on a straight line to Rate, within Over; 0 = at once. After the last stage it stays there.
type Stage struct {
	Rate float64       `yaml:"rate"` // calls a second, 0..100000
	Over time.Duration `yaml:"over"` // up to 24h
}

// Plan is the traffic to send.
type Plan struct {
	Targets []Target // at least one; names differ
	// PerSecond makes all targets share one stream of arrivals at that rate, in which each call goes to one of them, drawn
	// by Target.Weight. 0 = each target has a stream of its own, at Target.PerSecond.
	PerSecond   float64
	Stages      []Stage       // of the rate of PerSecond; up to 100
	Burst       Burst         // of Bursty arrivals
	Concurrent  int           // calls on the wire at once, as by a fixed number of connections; others wait their turn; 0 = no such bound
	Arrivals    Arrivals      // "" = Poisson
	Seed        uint64        // equal seeds give equal arrival times and URLs, target by target
	MaxInFlight int           // calls in flight to one target; arrivals beyond it are dropped; 0 = 512
	Timeout     time.Duration // of one call, from the moment of sending to the end of the body; 0 = 30s
	Drain       time.Duration // what calls in flight are given once Run's context has ended; 0 = 2s
	Length      time.Duration // calls due after it are not sent, and the run ends; 0 = when Run's context does, or the last recording
}

// Target is one stream of calls.
type Target struct {
	Name      string // of its results
	Method    string // "" = GET
	Template  string // low-cardinality path for the span's name: "/orders/{n}"; "" = the method alone
	PerSecond float64
	Weight    float64 // share of a plan's PerSecond, in proportion to its siblings; 0 = 1
	// Request makes the next call, under the conditions of URL, which is not used then, nor is Method. nil = a call to URL.
	Request func(r *rand.Rand) (*http.Request, error)
	GRPC    bool // the answers are those of gRPC, with a status of their own
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
	if p.Burst.On == 0 {
		p.Burst.On = time.Second
	}
	if p.Burst.Off == 0 {
		p.Burst.Off = 4 * time.Second
	}
	targets := make([]Target, len(p.Targets))
	copy(targets, p.Targets)
	for i := range targets {
		if targets[i].Method == "" {
			targets[i].Method = "GET"
		}
		if targets[i].Weight == 0 {
			targets[i].Weight = 1
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
	p.checkArrivals(&f)
	f.Check(p.MaxInFlight >= 0, "max_in_flight", p.MaxInFlight, "a number that is not negative")
	f.Check(p.Concurrent >= 0, "concurrent", p.Concurrent, "a number that is not negative")
	f.Check(p.Timeout >= 0, "timeout", p.Timeout, "a duration that is not negative")
	f.Check(p.Length >= 0, "length", p.Length, "a duration that is not negative")
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
		if p.PerSecond == 0 && len(p.Stages) == 0 {
			f.Check(t.PerSecond > 0 && t.PerSecond <= maxPerSecond, at+"per_second", t.PerSecond, "more than 0, at most 100000")
		}
		f.Check(t.Weight >= 0 && t.Weight <= 1e6, at+"weight", t.Weight, "0 up to 1000000")
		f.Check(t.URL != nil || t.Request != nil, at+"url", "nil", "a function")
	}
	return f.Err()
}

// maxStages bounds what a file can ask for.
const maxStages = 100

func (p Plan) checkArrivals(f *setting.Faults) {
	f.Check(p.Arrivals == "" || p.Arrivals == Poisson || p.Arrivals == Uniform || p.Arrivals == Bursty, "arrivals", p.Arrivals, "poisson, uniform or bursty")
	f.Check(p.PerSecond >= 0 && p.PerSecond <= maxPerSecond, "rate", p.PerSecond, "0 up to 100000 calls a second")
	f.Check(len(p.Stages) <= maxStages, "stages", len(p.Stages), "at most 100")
	for i, s := range p.Stages {
		at := fmt.Sprintf("stages[%d].", i)
		f.Check(s.Rate >= 0 && s.Rate <= maxPerSecond, at+"rate", s.Rate, "0 up to 100000 calls a second")
		f.Check(s.Over >= 0 && s.Over <= 24*time.Hour, at+"over", s.Over, "0 up to 24h")
	}
	f.Check(p.Burst.On == 0 || p.Burst.On >= time.Millisecond && p.Burst.On <= time.Hour, "burst.on", p.Burst.On, "1ms up to 1h")
	f.Check(p.Burst.Off == 0 || p.Burst.Off >= time.Millisecond && p.Burst.Off <= time.Hour, "burst.off", p.Burst.Off, "1ms up to 1h")
	f.Check(p.Burst.Idle >= 0 && p.Burst.Idle <= 1, "burst.idle", p.Burst.Idle, "0 up to 1")
}

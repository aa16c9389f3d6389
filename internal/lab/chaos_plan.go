package lab

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/setting"
)

// ChaosOptions is how a chaos schedule is drawn and watched. Zero fields mean the defaults given at each.
type ChaosOptions struct {
	Seed       uint64        // of the schedule, and of all times in the system; equal seeds draw equal schedules
	For        time.Duration // of the whole schedule; up to 24h; default 5m
	Every      time.Duration // from the beginning of one slot to that of the next; 6s up to For; default 20s
	AtOnce     int           // most faults on at the same time; 1..3; default 1
	StopErrors float64       // share of failed calls above which faults are taken away; above 0, up to 1; default 50%
	StopP99    time.Duration // p99 above which they are; default 5s
	StopAfter  time.Duration // how long either must last; default 3s
	Real       *Real         // servers and processes of their own, which faults may kill; nil = all in this process
	// Progress is told what is being done; nil = nobody listens.
	Progress func(string)
	// Ended is told what came of a slot as soon as it is known; nil = nobody listens.
	Ended func([]ChaosResult)
}

// WithDefaults fills what is zero.
func (o ChaosOptions) WithDefaults() ChaosOptions {
	settle(&o.For, 5*time.Minute)
	settle(&o.Every, 20*time.Second)
	settle(&o.AtOnce, 1)
	settle(&o.StopErrors, 0.5)
	settle(&o.StopP99, 5*time.Second)
	settle(&o.StopAfter, 3*time.Second)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Ended == nil {
		o.Ended = func([]ChaosResult) {}
	}
	return o
}

func settle[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns every fault of o, joined; each is a *setting.Error.
func (o ChaosOptions) Validate() error {
	o = o.WithDefaults()
	var f setting.Faults
	f.Check(o.For > 0 && o.For <= 24*time.Hour, "for", o.For, "a duration up to 24h")
	f.Check(o.Every >= 6*time.Second && o.Every <= o.For, "every", o.Every, "6s up to the length of the whole")
	f.Check(o.AtOnce >= 1 && o.AtOnce <= 3, "at-once", o.AtOnce, "1..3")
	f.Check(o.StopErrors > 0 && o.StopErrors <= 1, "stop-errors", o.StopErrors, "above 0%, up to 100%")
	f.Check(o.StopP99 > 0, "stop-p99", o.StopP99, "a duration above 0")
	f.Check(o.StopAfter > 0, "stop-after", o.StopAfter, "a duration above 0")
	return f.Err()
}

// The kinds of fault that chaos adds to those of a scenario.
const (
	Flapping = "flapping" // a replica that fails all calls, and then none, in turns
	Abort    = "abort"    // the gateway's own: it answers in place of a replica
	Severed  = "severed"  // the gateway's own: the connection to a replica ends before there is an answer
	Crash    = "crash"    // the server of a store, cache or queue is killed, and started again; real servers that the lab started
)

// flapTime is how long a flapping replica is in one of its states.
const flapTime = 1500 * time.Millisecond

// Drawn is one fault of a schedule and what is expected of it.
type Drawn struct {
	Kind       string         `json:"kind"`  // of a scenario's fault, or one of this package's
	Where      string         `json:"where"` // who suffers: service, replica, store, cache or queue
	What       string         `json:"what"`  // with its figures, in words
	Hypothesis Hypothesis     `json:"hypothesis"`
	fault      scenario.Fault // that the system suffers; no Kind = none
	own        fault.Config   // that the gateway injects between itself and a replica of fault.Service; no Name = none
	crashes    string         // what stands in the server that is killed; "" = none is
	flaps      bool
	most       time.Duration // it is on for no longer; 0 = the slot decides
}

// Hypothesis is what is expected while a fault is on, and after it. Latencies are of all calls of all clients, relative to the p99
// of the calm beginning.
type Hypothesis struct {
	Text      string        `json:"text"`
	Within    time.Duration `json:"within_ns"`        // the policies have reacted so long after the beginning; what comes before is not judged
	MaxErrors float64       `json:"max_errors"`       // share of failed calls; 1 = they may all fail
	Factor    float64       `json:"p99_factor"`       // p99 at most so many times that of the calm ...
	Plus      time.Duration `json:"p99_plus_ns"`      // ... and so much more; Factor 0 = latency is not bounded
	Recovery  time.Duration `json:"recovery_ns"`      // all is as before so long after the end
	Reacts    []string      `json:"reacts,omitempty"` // policies, one of which must be seen to act; none = not asked
}

// Slot is one piece of a schedule: calm, then its faults together, then time to recover.
type Slot struct {
	At     time.Duration `json:"at_ns"`  // since the beginning of the schedule
	On     time.Duration `json:"on_ns"`  // when the faults begin, likewise
	Off    time.Duration `json:"off_ns"` // when they end, at the latest
	End    time.Duration `json:"end_ns"`
	Faults []Drawn       `json:"faults"`
}

// shield is what a service's calls are protected by.
type shield struct {
	behind                                       bool // the gateway
	retries, hedges, ejects, breaks, sheds, kept bool
	budget                                       float64       // share of the calls that may be tried again
	try, whole                                   time.Duration // timeouts; 0 = none
	reopen                                       time.Duration // how long an open breaker stays so
}

func shieldOf(c longpole.Config) shield {
	c = c.Safe()
	s := shield{
		behind: true, retries: !c.Retry.Off && c.Retry.MaxAttempts > 1, budget: c.Retry.BudgetRatio, hedges: !c.Retry.Off && c.Retry.Hedge != nil,
		ejects: c.Balance.Eject != nil, breaks: !c.Breaker.Off, sheds: c.Limit != nil, kept: c.Cache != nil, try: c.TryTimeout, whole: c.Timeout,
	}
	if s.breaks {
		s.reopen = c.Breaker.OpenFor
	}
	return s
}

// DrawChaos draws a schedule for a system whose services have these policies, by service; one without is called directly. It is a
// pure function: equal arguments give equal schedules. No two faults of a slot are of one place.
func DrawChaos(spec *scenario.Scenario, policies map[string]longpole.Config, o ChaosOptions) []Slot {
	o = o.WithDefaults()
	d := &drawing{spec: spec, random: rand.New(rand.NewPCG(o.Seed, 0xc4a05)), shields: map[string]shield{}, mortal: o.Real.mortal()}
	for service, c := range policies {
		d.shields[service] = shieldOf(c)
	}
	var slots []Slot
	last := ""
	for at := time.Duration(0); at+o.Every <= o.For; at += o.Every {
		s := Slot{At: at, On: at + o.Every/5, End: at + o.Every}
		hold := time.Duration(float64(o.Every) * (0.45 + 0.1*d.random.Float64()))
		s.Off = s.On + hold.Round(100*time.Millisecond)
		s.Faults = d.some(1+d.random.IntN(o.AtOnce), s.Off-s.On, last, len(slots))
		for i := range s.Faults {
			last = s.Faults[i].Kind
			if most := s.Faults[i].most; most > 0 && len(s.Faults) == 1 {
				s.Off = min(s.Off, s.On+most)
			}
		}
		slots = append(slots, s)
	}
	return slots
}

// some draws up to n faults of different places and kinds, the first of another kind than the last slot's.
func (d *drawing) some(n int, hold time.Duration, last string, slot int) []Drawn {
	var all []Drawn
	used := map[string]bool{}
	if len(d.fitting()) > 1 {
		used[last] = true
	}
	for range n {
		kinds := d.fitting()
		for i := 0; i < len(kinds); {
			if used[kinds[i].kind] {
				kinds = append(kinds[:i:i], kinds[i+1:]...)
				continue
			}
			i++
		}
		if len(kinds) == 0 {
			break
		}
		k := kinds[d.random.IntN(len(kinds))]
		p := k.places[d.random.IntN(len(k.places))]
		if used["at "+p.name()] {
			continue
		}
		used[k.kind], used["at "+p.name()] = true, true
		x := k.draw(d, p)
		x.Kind = k.kind
		if x.Where == "" {
			x.Where = p.name()
		}
		x.Hypothesis.Within = max(0, min(x.Hypothesis.Within, hold-hold/4))
		x.Hypothesis.MaxErrors = min(1, x.Hypothesis.MaxErrors) // a request of many calls fails but once
		x.Hypothesis.Text = x.Hypothesis.text()
		name := fmt.Sprintf("chaos-%d-%d-%s", slot+1, len(all)+1, k.kind)
		if x.own.Share > 0 {
			x.own.Name, x.own.Hypothesis = name, x.Hypothesis.Text
		} else {
			x.fault.Name = name
		}
		all = append(all, x)
	}
	return all
}

// text says a hypothesis in words.
func (h Hypothesis) text() string {
	s := ""
	if h.Within > 0 {
		s = fmt.Sprintf("after %s ", h.Within.Round(100*time.Millisecond))
	}
	if h.MaxErrors < 1 {
		s += fmt.Sprintf("errors stay within %.3g %%", 100*h.MaxErrors)
	} else {
		s += "calls may fail"
	}
	if h.Factor > 0 {
		s += fmt.Sprintf(" and p99 within %.3g times that of the calm + %s", h.Factor, h.Plus.Round(time.Millisecond))
	}
	if len(h.Reacts) > 0 {
		s += "; " + oneOf(h.Reacts) + " is seen"
	}
	return s + fmt.Sprintf("; all is as before within %s of its end", h.Recovery)
}

func oneOf(list []string) string {
	last := len(list) - 1
	if last == 0 {
		return list[0]
	}
	return strings.Join(list[:last], ", ") + " or " + list[last]
}

// drawing is the state of a draw.
type drawing struct {
	spec    *scenario.Scenario
	random  *rand.Rand
	shields map[string]shield // by service
	mortal  map[string]bool   // what stands in servers that may be killed
}

// between is uniform, in steps of 1 %.
func (d *drawing) between(low, high time.Duration) time.Duration {
	return low + (high-low)*time.Duration(d.random.IntN(101))/100
}

// place is where a fault can strike.
type place struct {
	service *scenario.Service
	replica int // 0 = all
	store   *scenario.Store
	table   string
	column  string
	other   string // cache or queue; "" = the load
	server  string // what stands in the one that is killed; "" = none is
}

func (p place) name() string {
	switch {
	case p.service != nil && p.replica > 0:
		return instanceName(p.service.Name, p.replica)
	case p.service != nil:
		return p.service.Name
	case p.store != nil:
		return p.store.Name
	case p.other != "":
		return p.other
	}
	return "clients"
}

// kindOf is a kind of fault with the places where it fits.
type kindOf struct {
	kind   string
	places []place
	draw   func(*drawing, place) Drawn
}

package review

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/stats"
)

// Input is all that a review looks at. What is left out is not reviewed.
type Input struct {
	Now         time.Time
	Environment string // its name; "" = none
	Program     string // version
	Config      Config
	Records     []staging.Record // of all rollouts that ended
	Staging     []staging.Record // of the environment before; nil = there is none, or it does not answer
	Standings   []Standing
	Routes      []Route
	Poles       []Pole
	Advice      []Advice
	Objectives  []slo.Status
	Replicas    []scale.Recommendation
	Drift       []staging.Setting // between the environment before and this one
	Fidelity    *staging.Score    // of the environment before; nil = not known
	Killed      []Kill
	Exercised   []Exercise
	Last        *Review // nil = this is the first
}

// Route is what a route is set to and did since Since.
type Route struct {
	Name      string
	Policy    longpole.Config // in force, with its defaults
	Since     time.Time       // since when the figures count
	Did       stats.Tally
	Caches    map[string]uint64 // calls by call.CacheState
	Opened    time.Time         // when a breaker was last seen open; zero = not since Since
	Windows   int               // of 10 s that had calls
	Limited   int               // of those: in which the limiter refused calls
	BusyTurns int               // of those: in which retries and hedges used nine tenths of their budget or more
}

// Pole is a segment's share of a route's p99 critical path.
type Pole struct {
	Route   string  `json:"route"`   // "service operation"
	Segment string  `json:"segment"` // "segment service operation"
	Share   float64 `json:"share_p99"`
}

// Advice is a finding of the present diagnosis.
type Advice struct {
	Code     string
	Route    string // of the gateway that its change is for; "" = none
	ShareP99 float64
}

// Kill is what somebody switched off by hand.
type Kill struct {
	Route  string // "" = every route
	Parts  []string
	Reason string
	Since  time.Time
}

// Exercise is a fault that was injected on purpose.
type Exercise struct {
	Class   string    `json:"class"` // one of FaultClasses
	Route   string    `json:"route"`
	At      time.Time `json:"at"`
	Hits    uint64    `json:"hits"`
	Verdict string    `json:"verdict"` // why it ended
}

// Severity is how urgent a finding is.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // harms now
	Warning  Severity = "warning"  // wastes, or will fail when it is needed
	Info     Severity = "info"     // worth a look
)

// Finding is one thing that is stale or wrong.
type Finding struct {
	Code     string   `json:"code"` // LP301...
	Name     string   `json:"name"` // in one or two words
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // what it is about: a route, an objective, a workload
	Detail   string   `json:"detail"`  // with its numbers
	Mend     string   `json:"mend"`
}

// key names a finding over several reviews.
func (f Finding) key() string { return f.Code + " " + f.Subject }

// Change is one line of the ledger.
type Change struct {
	staging.Record
	Staged      *staging.Record `json:"staged,omitempty"`      // how it went in the environment before; nil = not known
	Standing    *Standing       `json:"standing,omitempty"`    // what the holdback shows; nil = there is none
	ReviewAfter time.Time       `json:"review_after,omitzero"` // zero = it is not in force
}

// PoleChange is a segment that grew or is new.
type PoleChange struct {
	Pole
	Before float64 `json:"before"` // share at the last review; 0 = it was not there
	New    bool    `json:"new"`    // it was not among the long poles
}

// Prediction scores the adviser's forecasts against what was measured.
type Prediction struct {
	Changes   int     `json:"changes"`         // with a forecast that were measured
	Intervals int     `json:"intervals"`       // percentiles with an interval
	Covered   float64 `json:"covered"`         // share of those that held the measured value; 0.9 is what is promised
	Error     float64 `json:"mean_error"`      // mean logarithm of measured over predicted: above 0 = promised too much
	AbsError  float64 `json:"mean_abs_error"`  // the same without sign
	Widen     float64 `json:"widen_intervals"` // by this factor the intervals would have covered what they promise; 1 = they do
}

// Diff is what is other than at the last review.
type Diff struct {
	Since    time.Time `json:"since,omitzero"` // of the last review; zero = this is the first
	New      []string  `json:"new"`            // findings, as "LP301 route"; never nil, as the others
	Gone     []string  `json:"gone"`
	Verdicts []string  `json:"verdicts"` // "r3 orders: STILL HELPS -> DECAYED"
}

// Review is the whole.
type Review struct {
	At          time.Time          `json:"at"`
	Environment string             `json:"environment,omitempty"`
	Program     string             `json:"version"`
	Ledger      []Change           `json:"ledger"`   // the newest first; never nil
	Findings    []Finding          `json:"findings"` // the most urgent first; never nil
	Poles       []PoleChange       `json:"long_poles"`
	Prediction  Prediction         `json:"prediction"`
	Faults      []Cell             `json:"faults"`
	Budgets     []slo.Status       `json:"budgets,omitempty"`
	Fidelity    *staging.Score     `json:"fidelity,omitempty"`
	Transfer    *staging.Transfer  `json:"transfer,omitempty"`
	Diff        Diff               `json:"diff"`
	HitRatios   map[string]float64 `json:"cache_hit_ratios,omitempty"` // by route, for the next review
	AllPoles    []Pole             `json:"all_long_poles,omitempty"`   // for the next review
}

// Run reviews.
func Run(in Input) Review {
	in.Config = in.Config.WithDefaults()
	r := Review{At: in.Now, Environment: in.Environment, Program: in.Program, Fidelity: in.Fidelity, Budgets: in.Objectives, AllPoles: in.Poles}
	r.Ledger = ledger(&in)
	r.Findings = append(standings(r.Ledger), lint(&in)...)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	r.Poles = poles(&in)
	r.Prediction = score(in.Records)
	r.Faults = coverage(&in)
	if len(in.Staging) > 0 {
		t := staging.Compare(in.Staging, inForce(in.Records))
		r.Transfer = &t
	}
	r.HitRatios = map[string]float64{}
	for _, one := range in.Routes {
		if ratio, ok := hitRatio(one); ok {
			r.HitRatios[one.Name] = ratio
		}
	}
	r.Diff = diff(in.Last, &r)
	return r
}

func rank(s Severity) int { return slices.Index([]Severity{Critical, Warning, Info}, s) }

// inForce is the records of what was promoted.
func inForce(all []staging.Record) (list []staging.Record) {
	for _, r := range all {
		if r.Phase == staging.Promoted {
			list = append(list, r)
		}
	}
	return list
}

// ledger is all changes with what is known of each.
func ledger(in *Input) []Change {
	all := []Change{}
	for _, r := range staging.Newest(in.Records, len(in.Records)) {
		c := Change{Record: r}
		c.Workload = nil // it is for the gate, and large
		if r.Phase == staging.Promoted && r.Undone.IsZero() {
			c.ReviewAfter = r.At.Add(in.Config.Every)
			for i := range in.Standings {
				if in.Standings[i].ID == r.Rollout {
					c.Standing = &in.Standings[i]
				}
			}
		}
		for _, s := range staging.Newest(in.Staging, len(in.Staging)) {
			if s.Hash == r.Hash {
				s.Workload = nil
				c.Staged = &s
				break
			}
		}
		all = append(all, c)
	}
	return all
}

// Harmful is the changes that are worse than the policy before.
func (r *Review) Harmful() (list []Change) {
	for _, c := range r.Ledger {
		if c.Standing != nil && c.Standing.Verdict == NowHarmful {
			list = append(list, c)
		}
	}
	return list
}

// standings turns what a person must do about a change into findings.
func standings(all []Change) (list []Finding) {
	for _, c := range all {
		if c.Standing == nil {
			continue
		}
		f := Finding{Subject: c.Rollout + " on route " + c.Route, Detail: c.Standing.Sentence}
		switch c.Standing.Verdict {
		case NowHarmful:
			f.Code, f.Name, f.Severity, f.Mend = "LP320", "now harmful", Critical, "longpole rollout undo "+c.Rollout
		case NoEffect:
			f.Code, f.Name, f.Severity, f.Mend = "LP321", "no effect", Warning, "take it out: `longpole rollout undo "+c.Rollout+"`, or a rollout of the policy without it"
		case Decayed:
			f.Code, f.Name, f.Severity, f.Mend = "LP322", "decayed", Info, "diagnose the route anew; what it cured may have moved"
		case StillHelps, NotJudged:
			continue
		}
		list = append(list, f)
	}
	return list
}

// leastGrowth is by how much a share of p99 must have grown to be told.
const leastGrowth = 0.05

// poles is what became of the long poles: those that are new or grew, the largest first.
func poles(in *Input) []PoleChange {
	list := []PoleChange{}
	if in.Last == nil {
		return list
	}
	before := map[Pole]float64{}
	for _, p := range in.Last.AllPoles {
		before[Pole{Route: p.Route, Segment: p.Segment}] = p.Share
	}
	for _, p := range in.Poles {
		was, known := before[Pole{Route: p.Route, Segment: p.Segment}]
		if p.Share-was >= leastGrowth {
			list = append(list, PoleChange{Pole: p, Before: was, New: !known})
		}
	}
	slices.SortStableFunc(list, func(a, b PoleChange) int { return cmp.Compare(b.Share-b.Before, a.Share-a.Before) })
	return list
}

// promised is the share of measured values that an interval is to hold.
const promised = 0.9

// score compares forecasts with what the rollouts measured.
func score(all []staging.Record) (p Prediction) {
	n := 0
	covered := 0
	var stretch []float64
	for _, r := range all {
		if r.Predicted == nil || !(r.After.P50 > 0) || r.Judgement.Slices == 0 {
			continue
		}
		p.Changes++
		for _, q := range quantiles(r) {
			if q.predicted > 0 && q.measured > 0 {
				e := math.Log(q.measured / q.predicted)
				p.Error += e
				p.AbsError += math.Abs(e)
				n++
			}
			if q.low > 0 && q.high >= q.low && q.measured > 0 {
				p.Intervals++
				if q.measured >= q.low && q.measured <= q.high {
					covered++
				}
				stretch = append(stretch, q.stretch())
			}
		}
	}
	if n > 0 {
		p.Error /= float64(n)
		p.AbsError /= float64(n)
	}
	p.Widen = 1
	if p.Intervals > 0 {
		p.Covered = float64(covered) / float64(p.Intervals)
		slices.Sort(stretch)
		p.Widen = max(1, stretch[min(int(promised*float64(len(stretch))), len(stretch)-1)])
	}
	return p
}

// quantile is one percentile, forecast and measured.
type quantile struct{ predicted, low, high, measured float64 }

func quantiles(r staging.Record) []quantile {
	var low, high staging.Latency
	if r.Low != nil && r.High != nil {
		low, high = *r.Low, *r.High
	}
	p := *r.Predicted
	return []quantile{{p.P50, low.P50, high.P50, r.After.P50}, {p.P95, low.P95, high.P95, r.After.P95}, {p.P99, low.P99, high.P99, r.After.P99}}
}

// stretch is by how much the interval must be widened, around the forecast, to hold the measured value.
func (q quantile) stretch() float64 {
	edge := q.high
	if q.measured < q.predicted {
		edge = q.low
	}
	width := math.Abs(math.Log(edge / q.predicted))
	if miss := math.Abs(math.Log(q.measured / q.predicted)); miss > width {
		return miss / max(width, 0.01)
	}
	return 1
}

func diff(last, now *Review) Diff {
	d := Diff{New: []string{}, Gone: []string{}, Verdicts: []string{}}
	if last == nil {
		return d
	}
	d.Since = last.At
	keys := func(all []Finding) map[string]bool {
		m := map[string]bool{}
		for _, f := range all {
			m[f.key()] = true
		}
		return m
	}
	before, after := keys(last.Findings), keys(now.Findings)
	for _, f := range now.Findings {
		if !before[f.key()] {
			d.New = append(d.New, f.key())
		}
	}
	for _, f := range last.Findings {
		if !after[f.key()] {
			d.Gone = append(d.Gone, f.key())
		}
	}
	was := map[string]Verdict{}
	for _, c := range last.Ledger {
		was[c.Rollout] = c.verdict()
	}
	for _, c := range slices.Backward(now.Ledger) {
		if v := c.verdict(); v != was[c.Rollout] && was[c.Rollout] != "" {
			d.Verdicts = append(d.Verdicts, fmt.Sprintf("%s %s: %s -> %s", c.Rollout, c.Route, was[c.Rollout], v))
		}
	}
	return d
}

// verdict is what is to be said of a change in two words.
func (c *Change) verdict() Verdict {
	switch {
	case !c.Undone.IsZero():
		return "UNDONE"
	case c.Standing != nil:
		return c.Standing.Verdict
	case c.Phase != staging.Promoted:
		return Verdict(c.Phase)
	}
	return "NO HOLDBACK"
}

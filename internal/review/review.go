package review

import (
	"cmp"
	"fmt"
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
	Unheld      map[string]string // why a promoted change that is in force holds no calls back, by rollout
	Routes      []Route
	Poles       []Pole
	Advice      []Advice
	Running     []Running        // rollouts that are under way
	Dismissals  []Dismissal      // that are in force
	Systems     Systems          // behind the routes
	Days        map[string][]Day // busiest minutes, by route and WorkloadDays
	Objectives  []slo.Status
	Replicas    []scale.Recommendation
	Drift       []staging.Setting // between the environment before and this one
	Fidelity    *staging.Score    // of the environment before; nil = not known
	Killed      []Kill
	Exercised   []Exercise // here and, with its name, in the environment before
	Last        *Review    // nil = this is the first
}

// Route is what a route is set to and did since Since.
type Route struct {
	Name      string
	Upstream  string          // behind it; "" = several, or none
	Limit     int             // calls that the policy lets run at once now; 0 = no limit
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

// Kill is what somebody switched off by hand.
type Kill struct {
	Route  string // "" = every route
	Parts  []string
	Reason string
	Since  time.Time
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
	Size     float64  `json:"size,omitempty"`  // in a measure of its own; 0 = it has none
	Basis    string   `json:"basis,omitempty"` // what it stands on beside its numbers, as the setting that it is about: another one is other evidence
}

// key names a finding over several reviews.
func (f Finding) key() string { return f.Code + " " + f.Subject }

// Change is one line of the ledger.
type Change struct {
	staging.Record
	Staged      *staging.Record `json:"staged,omitempty"`      // how it went in the environment before; nil = not known
	Standing    *Standing       `json:"standing,omitempty"`    // what the holdback shows; nil = there is none
	Unheld      string          `json:"no_holdback,omitempty"` // why a change that is in force keeps none, as "superseded by r7"
	ReviewAfter time.Time       `json:"review_after,omitzero"` // zero = it is not in force
}

// PoleChange is a segment that grew or is new.
type PoleChange struct {
	Pole
	Before float64 `json:"before"` // share at the last review; 0 = it was not there
	New    bool    `json:"new"`    // it was not among the long poles
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
	At          time.Time         `json:"at"`
	Environment string            `json:"environment,omitempty"`
	Program     string            `json:"version"`
	Ledger      []Change          `json:"ledger"`   // the newest first; never nil
	Findings    []Finding         `json:"findings"` // the most urgent first; never nil; without those that are dismissed
	Dismissed   []Shelved         `json:"dismissed,omitempty"`
	Lapsed      []Lapsed          `json:"lapsed,omitempty"` // dismissals that hold no longer
	Advice      []Advised         `json:"advice"`           // of the present diagnosis, the largest first; never nil
	Poles       []PoleChange      `json:"long_poles"`
	Headroom    []Headroom        `json:"headroom"` // the fullest first; never nil
	Prediction  Prediction        `json:"prediction"`
	Faults      []Cell            `json:"faults"`
	Budgets     []slo.Status      `json:"budgets,omitempty"`
	Fidelity    *staging.Score    `json:"fidelity,omitempty"`
	Transfer    *staging.Transfer `json:"transfer,omitempty"`
	Diff        Diff              `json:"diff"`
	Figures     Figures           `json:"figures"`                 // for the next review
	Prices      Prices            `json:"prices,omitzero"`         // of the costs in Figures
	Baseline    *Figures          `json:"baseline,omitempty"`      // that this review compared with; nil = there was none
	Next        *Figures          `json:"next_baseline,omitempty"` // that a later one will compare with; nil = this review's
}

// Run reviews.
func Run(in Input) Review {
	in.Config = in.Config.WithDefaults()
	countedSince(&in)
	r := Review{At: in.Now, Environment: in.Environment, Program: in.Program, Fidelity: in.Fidelity, Budgets: in.Objectives, Figures: figures(&in), Prices: in.Config.Prices, Baseline: in.baseline(), Next: in.next()}
	r.Ledger = ledger(&in)
	r.Findings = append(standings(r.Ledger), lint(&in)...)
	r.shelve(&in)
	r.advised(&in)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	r.Poles = poles(&in)
	r.Headroom = headroom(&in)
	r.Prediction = score(in.Records)
	r.Faults = coverage(&in)
	if len(in.Staging) > 0 {
		t := staging.Compare(in.Staging, inForce(in.Records))
		r.Transfer = &t
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
			c.ReviewAfter, c.Unheld = r.At.Add(in.Config.Every), in.Unheld[r.Rollout]
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
	base := in.baseline()
	if base == nil {
		return list
	}
	before := map[Pole]float64{}
	for _, p := range base.Poles {
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
	for _, f := range now.Dismissed {
		after[f.key()] = true // it is not gone
	}
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
	if c.Unheld != "" {
		return NoHoldback + Verdict(" ("+c.Unheld+")")
	}
	return NoHoldback
}

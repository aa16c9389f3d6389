package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
)

// Outcome is what came of one scenario. Times are in milliseconds, shares 0..1.
type Outcome struct {
	Scenario string         `json:"scenario"`
	Seed     uint64         `json:"seed"` // of the run
	Truth    scenario.Truth `json:"truth"`
	Traces   int            `json:"traces"`
	Named    []Naming       `json:"named"`  // what the diagnosis names, in its order, at most ten; LP105, which says that nothing is known, is left out
	Rank     int            `json:"rank"`   // of the truth among them, counted from 1; 0 = it is not there
	Action   string         `json:"action"` // kind of the first action of the first finding that has one; "" = none has
	Before   Measure        `json:"before"`
	Cure     *Cure          `json:"cure,omitempty"`      // the change of ours that was tried; nil = none was proposed
	Forecast *Quantile      `json:"predicted,omitempty"` // for the first route of the load, once the cure is in force
	Interval *Interval      `json:"interval,omitempty"`  // where After should lie with 90 % confidence; nil = there is no Forecast
	After    *Measure       `json:"after,omitempty"`     // nil = nothing was changed
	Verdict  string         `json:"verdict"`             // "pass" or "fail"
	Why      []string       `json:"why"`                 // what does not hold; never nil
	Doubts   []string       `json:"doubts,omitempty"`    // of the load generator about its figures
	Seconds  float64        `json:"seconds"`             // that the run took
}

// Naming is a finding in short.
type Naming struct {
	Code       string   `json:"code"`
	Class      string   `json:"class"`
	Segment    string   `json:"segment"`
	Service    string   `json:"service"`
	Operation  string   `json:"operation"`
	Verdict    string   `json:"verdict"`
	Confidence float64  `json:"confidence"`
	Share      float64  `json:"share_p99"`
	Actions    []string `json:"actions"` // kinds, best first
	Summary    string   `json:"summary"`
}

// Quantile is a latency at three quantiles in milliseconds.
type Quantile struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Interval is the lower and the upper end of where quantiles should lie, in milliseconds.
type Interval struct {
	P50 [2]float64 `json:"p50"`
	P95 [2]float64 `json:"p95"`
	P99 [2]float64 `json:"p99"`
}

// Measure is what clients of the first route saw in one phase.
type Measure struct {
	Quantile
	Served  float64 `json:"served_p99"` // p99 of the calls that did not fail, at most, in milliseconds
	Errors  float64 `json:"errors"`
	Calls   uint64  `json:"calls"`
	Cost    float64 `json:"cost"`           // calls that the gateway sent to services for each call of a client, of all routes
	Late    float64 `json:"late_p99_ms"`    // how late the generator sent calls, at p99
	Doubted bool    `json:"late,omitempty"` // so late, or with so many calls dropped, that the latencies are the generator's as much as the system's
}

// Cure is a change that was tried.
type Cure struct {
	Kind    string `json:"kind"`
	Route   string `json:"route"`
	Summary string `json:"summary"`
	Phase   string `json:"phase"` // how the rollout ended: promoted, rolled_back, inconclusive, aborted
	Why     string `json:"why"`
}

// maxNamed bounds the findings of an Outcome.
const maxNamed = 10

// unknownCause is the finding that says where time goes, and that nothing is known about why.
const unknownCause = "LP105"

// namings flattens a report: routes in their order, the findings of each in theirs, each service and code once.
func namings(r advise.Report) []Naming {
	all := []Naming{}
	for _, route := range r.Routes {
		for _, f := range route.Findings {
			known := slices.ContainsFunc(all, func(n Naming) bool { return n.Code == f.Code && n.Service == f.Service })
			if f.Code == unknownCause || known || len(all) >= maxNamed {
				continue
			}
			n := Naming{
				Code: f.Code, Class: f.Class, Segment: string(f.Segment), Service: f.Service, Operation: f.Operation,
				Verdict: string(f.Verdict), Confidence: f.Confidence, Share: f.ShareP99, Actions: []string{}, Summary: f.Summary,
			}
			for _, a := range f.Actions {
				n.Actions = append(n.Actions, a.Kind)
			}
			all = append(all, n)
		}
	}
	return all
}

// matches reports whether a finding says the truth.
func matches(n Naming, t scenario.Truth) bool {
	named := slices.Contains(t.Class, n.Class) || slices.Contains(t.Code, n.Code)
	return named && slices.Contains(t.Service, n.Service) && (t.Segment == "" || t.Segment == n.Segment)
}

// cureOf is the change of ours that is tried: that of the action named first, if it is one; else the best with a forecast;
// else the best, but none for a later finding when the one named first has a cure with a forecast that is somebody else's to carry
// out: a guard against what is not the first thing to mend would prove nothing.
func cureOf(r advise.Report) (advise.Action, bool) {
	var first, predicted, other *advise.Action
	findings, named, theirs := 0, false, false
	for i := range r.Routes {
		for _, f := range r.Routes[i].Findings {
			known := f.Code != unknownCause
			if known {
				findings++
			}
			for k := range f.Actions {
				a := &f.Actions[k]
				theirs = theirs || findings == 1 && a.Change == nil && a.Predicted != nil
				if a.Change != nil {
					switch {
					case !named && known:
						first = a
					case predicted == nil && a.Predicted != nil:
						predicted = a
					case other == nil && (!theirs || findings <= 1):
						other = a
					}
				}
				named = named || known
			}
		}
	}
	if a := cmp.Or(first, predicted, other); a != nil {
		return *a, true
	}
	return advise.Action{}, false
}

// forecast is what an action promises for the clients' calls of a target, and where that will lie; nil = nothing.
func forecast(a advise.Action, path string) (*Quantile, *Interval) {
	for _, e := range slices.Backward(a.Effects) {
		if strings.HasSuffix(e.Operation, path) {
			return &Quantile{P50: e.Predicted.P50, P95: e.Predicted.P95, P99: e.Predicted.P99}, (*Interval)(&e.Interval)
		}
	}
	return nil, nil
}

// diagnosed puts down what a report names.
func (o *Outcome) diagnosed(r advise.Report) {
	o.Named = namings(r)
	for i, n := range o.Named {
		if o.Rank == 0 && matches(n, o.Truth) {
			o.Rank = i + 1
		}
		if o.Action == "" && len(n.Actions) > 0 {
			o.Action = n.Actions[0]
		}
	}
}

// judge says what of the truth holds.
func (o *Outcome) judge() {
	o.Why = []string{}
	fault := func(ok bool, format string, a ...any) {
		if !ok {
			o.Why = append(o.Why, fmt.Sprintf(format, a...))
		}
	}
	t := o.Truth
	if t.Healthy {
		fault(len(o.Named) == 0, "%d findings where nothing is wrong", len(o.Named))
	} else {
		fault(o.Rank == 1, "named at rank %d", o.Rank)
		fault(len(t.Action) == 0 || slices.Contains(t.Action, o.Action), "the first action is %q, not %s", o.Action, strings.Join(t.Action, " or "))
	}
	if t.P99After > 0 {
		switch {
		case o.Cure == nil:
			fault(false, "no change of ours was proposed")
		case o.After == nil:
			fault(false, "the change ended %s: %s", o.Cure.Phase, o.Cure.Why)
		default:
			for _, why := range o.After.beyond(&o.Before, t) {
				fault(false, "%s", why)
			}
		}
	}
	o.Verdict = "pass"
	if len(o.Why) > 0 {
		o.Verdict = "fail"
	}
}

// errorsMore is the share of calls that may fail beyond what failed before, by chance.
const errorsMore = 0.01

// beyond says which of the bounds of a truth are not kept in m, that was measured once a cure was in force.
func (m *Measure) beyond(before *Measure, t scenario.Truth) (why []string) {
	if m.Calls == 0 {
		return []string{"no call ended after the change"}
	}
	p99 := cmp.Or(m.Served, m.P99) // older results have the latter only
	if bound := t.P99After.Seconds() * 1e3; p99 > bound {
		why = append(why, fmt.Sprintf("p99 after is %.0f ms, more than %.0f ms", p99, bound))
	}
	errors := t.ErrorsAfter
	if errors == 0 {
		errors = before.Errors + errorsMore
	}
	if m.Errors > errors {
		why = append(why, fmt.Sprintf("%.1f %% of the calls fail after, more than %.1f %%", 100*m.Errors, 100*errors))
	}
	return why
}

// measureOf is what clients of one target saw.
func measureOf(r load.Result) Measure {
	at := func(q float64) float64 { return r.Response.Quantile(q).Seconds() * 1e3 }
	return Measure{
		Quantile: Quantile{P50: at(0.5), P95: at(0.95), P99: at(0.99)}, Errors: r.ErrorRatio(), Calls: r.Calls,
		Served: at(1 - 0.01*(1-r.ErrorRatio())), // beyond it lie one in a hundred of the calls that did not fail, if those that did are none of them
		Late:   r.Lag.Quantile(0.99).Seconds() * 1e3, Doubted: r.Doubt() != "",
	}
}

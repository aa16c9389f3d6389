package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
)

// Outcome is what came of one scenario. Times are in milliseconds, shares 0..1.
type Outcome struct {
	Scenario string         `json:"scenario"`
	Truth    scenario.Truth `json:"truth"`
	Traces   int            `json:"traces"`
	Named    []Naming       `json:"named"`  // what the diagnosis names, in its order, at most ten; LP105, which says that nothing is known, is left out
	Rank     int            `json:"rank"`   // of the truth among them, counted from 1; 0 = it is not there
	Action   string         `json:"action"` // kind of the first action of the first finding that has one; "" = none has
	Before   Measure        `json:"before"`
	Cure     *Cure          `json:"cure,omitempty"`      // the change of ours that was tried; nil = none was proposed
	Forecast *Quantile      `json:"predicted,omitempty"` // for the first route of the load, once the cure is in force
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

// Measure is what clients of the first route saw in one phase.
type Measure struct {
	Quantile
	Errors float64 `json:"errors"`
	Calls  uint64  `json:"calls"`
	Cost   float64 `json:"cost"` // calls that the gateway sent to services for each call of a client, of all routes
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

// cureOf is the first change of ours that the findings carry with a forecast, best first.
func cureOf(r advise.Report) (advise.Action, bool) {
	for _, route := range r.Routes {
		for _, f := range route.Findings {
			for _, a := range f.Actions {
				if a.Change != nil && a.Predicted != nil {
					return a, true
				}
			}
		}
	}
	return advise.Action{}, false
}

// forecast is what an action promises for the clients' calls of a target; nil = nothing.
func forecast(a advise.Action, path string) *Quantile {
	for _, e := range slices.Backward(a.Effects) {
		if strings.HasSuffix(e.Operation, path) {
			return &Quantile{P50: e.Predicted.P50, P95: e.Predicted.P95, P99: e.Predicted.P99}
		}
	}
	return nil
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
			fault(false, "the change ended %s", o.Cure.Phase)
		default:
			bound := t.P99After.Seconds() * 1e3
			fault(o.After.P99 <= bound, "p99 after is %.0f ms, more than %.0f ms", o.After.P99, bound)
		}
	}
	o.Verdict = "pass"
	if len(o.Why) > 0 {
		o.Verdict = "fail"
	}
}

// measureOf is what clients of one target saw.
func measureOf(r load.Result) Measure {
	at := func(q float64) float64 { return r.Response.Quantile(q).Seconds() * 1e3 }
	return Measure{Quantile: Quantile{P50: at(0.5), P95: at(0.95), P99: at(0.99)}, Errors: r.ErrorRatio(), Calls: r.Calls}
}

// Tally counts over outcomes what the promise of the lab is about.
type Tally struct {
	Scenarios int     `json:"scenarios"`
	Passed    int     `json:"passed"`
	Faulty    int     `json:"faulty"`         // those with something wrong in them
	First     int     `json:"named_first"`    // of Faulty
	Third     int     `json:"named_in_three"` // of Faulty
	Asked     int     `json:"actions_asked"`  // of Faulty: those whose truth tells an action
	Action    int     `json:"first_action"`   // of Asked
	Healthy   int     `json:"healthy"`        //
	Silent    int     `json:"silent"`         // of Healthy
	Ours      int     `json:"cures_of_ours"`  // those that promise a bound
	Cured     int     `json:"within_bound"`   // of Ours
	Forecasts int     `json:"forecasts"`      // with an outcome to compare with
	Error     float64 `json:"forecast_error"` // median of |predicted/after - 1| at p99
	Seconds   float64 `json:"seconds"`
}

// Count makes the Tally of outcomes.
func Count(all []Outcome) Tally {
	t := Tally{Scenarios: len(all)}
	var errs []float64
	one := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	for _, o := range all {
		t.Seconds += o.Seconds
		one(&t.Passed, o.Verdict == "pass")
		if o.Truth.Healthy {
			t.Healthy++
			one(&t.Silent, len(o.Named) == 0)
			continue
		}
		t.Faulty++
		one(&t.First, o.Rank == 1)
		one(&t.Third, o.Rank >= 1 && o.Rank <= 3)
		if len(o.Truth.Action) > 0 {
			t.Asked++
			one(&t.Action, slices.Contains(o.Truth.Action, o.Action))
		}
		if o.Truth.P99After > 0 {
			t.Ours++
			one(&t.Cured, o.After != nil && o.After.P99 <= float64(o.Truth.P99After)/float64(time.Millisecond))
		}
		if o.After != nil && o.Forecast != nil && o.After.P99 > 0 {
			errs = append(errs, max(o.Forecast.P99/o.After.P99-1, 1-o.Forecast.P99/o.After.P99))
		}
	}
	if t.Forecasts = len(errs); len(errs) > 0 {
		slices.Sort(errs)
		t.Error = errs[len(errs)/2]
	}
	return t
}

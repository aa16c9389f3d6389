package advise

import (
	"cmp"
	"fmt"
	"slices"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// When a forecast is good enough to act on.
const (
	minCalls = 50  // of the route, and of the calls that would change
	minGain  = 0.1 // of the p99 or the p95
)

// situation is one finding in its surroundings.
type situation struct {
	corpus  *corpus
	finding *diagnose.Finding
	route   routeKey
	current map[string]longpole.Config
}

// cures are what is tried on a finding, by its code. A cure returns an action without a kind when it has nothing to
// offer, and then may say why; with an action, what it says speaks against that.
var cures = map[string][]func(*situation) (Action, string){
	"LP101": {parallelise},
	"LP102": {batch},
	"LP103": {hedge, drain},
	"LP104": {cached},
	"LP105": {investigate},
}

// Run diagnoses traces and adds to each finding the actions that would help, each with its forecast.
//
// current is the policy in force by the gateway's route name; for a route that is not in it an action is text only.
// The answer depends on the set of traces, not on their order.
func Run(traces []trace.Trace, o diagnose.Options, current map[string]longpole.Config) Report {
	return Plan(diagnose.Run(traces, o), traces, o.Clock, current)
}

// Plan adds actions to a diagnosis of traces that was made before. See [Run].
func Plan(d diagnose.Report, traces []trace.Trace, clock diagnose.ClockOptions, current map[string]longpole.Config) Report {
	r := Report{Report: d, Routes: make([]Route, len(d.Routes))}
	var c *corpus
	for i, route := range d.Routes {
		r.Routes[i] = Route{Route: route, Findings: make([]Finding, len(route.Findings))}
		for k, f := range route.Findings {
			if c == nil {
				c = load(traces, clock)
			}
			r.Routes[i].Findings[k] = c.advise(f, routeKey{route.Service, route.Operation}, current)
		}
		preferInner(r.Routes[i].Findings, routeKey{route.Service, route.Operation})
		onceOnly(r.Routes[i].Findings)
	}
	return r
}

// Replay forecasts what a change would do to the calls of its route and to the routes that call it, innermost first.
// It knows the changes that the adviser makes, one at a time: a cache, or else a hedge, that was not there before. It
// returns nil for any other, and when the traces hold no call of the route.
func Replay(traces []trace.Trace, clock diagnose.ClockOptions, change longpole.Change) []Effect {
	c := load(traces, clock)
	keys := c.gatewayKeys(change.Route)
	if len(keys) == 0 {
		return nil
	}
	f := &diagnose.Finding{Service: keys[0].service, Operation: keys[0].operation}
	s := &situation{corpus: c, finding: f, route: keys[0]}
	from, to := change.From, change.To
	switch {
	case to.Cache != nil && from.Cache == nil:
		r, _ := c.readsOf(f)
		effects, _ := c.replayCache(r, to.Cache.WithDefaults(), s.keys(c.routes[keys[0]]))
		return effects
	case to.Retry != nil && to.Retry.Hedge != nil && (from.Retry == nil || from.Retry.Hedge == nil):
		p := c.attempts(change.Route)
		plan := hedgePlan{after: to.Retry.Hedge.After}
		if plan.after == 0 {
			plan, _ = p.planHedge(hedgeBudget(to))
		}
		return c.replayHedge(p, plan, s.keys(p.refs()))
	}
	return nil
}

// load builds the corpus: clean, with clocks corrected.
func load(traces []trace.Trace, clock diagnose.ClockOptions) *corpus {
	trees := make([]*diagnose.Tree, len(traces))
	for i := range traces {
		trees[i] = diagnose.Build(traces[i], clock)
	}
	rename(trees)
	lines := make([]*timeline, len(trees))
	for i, tree := range trees {
		lines[i] = newTimeline(tree)
	}
	return newCorpus(lines)
}

// advise tries every cure for f and keeps those that are worth it.
func (c *corpus) advise(f diagnose.Finding, route routeKey, current map[string]longpole.Config) Finding {
	out := Finding{Finding: f, Actions: []Action{}}
	out.CounterEvidence = slices.Clone(f.CounterEvidence)
	if len(c.routes[route]) == 0 {
		return out // the routes that a diagnosis sums up as one
	}
	for _, cure := range cures[f.Code] {
		a, reason := cure(&situation{corpus: c, finding: &f, route: route, current: current})
		if a.Kind != "" {
			if refused := a.judge(route); refused != "" {
				a.Kind, reason = "", refused
			}
		}
		if reason != "" {
			out.CounterEvidence = append(out.CounterEvidence, reason)
		}
		if a.Kind != "" {
			out.Actions = append(out.Actions, a)
		}
	}
	slices.SortStableFunc(out.Actions, func(a, b Action) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds(), a.Kind), slices.Index(Kinds(), b.Kind)), cmp.Compare(b.savedOn(route), a.savedOn(route)))
	})
	return out
}

// judge completes an action with what it does to route, or says why it is not worth it.
func (a *Action) judge(route routeKey) (reason string) {
	if a.Kind == KindInvestigate {
		return ""
	}
	e := a.on(route)
	switch {
	case e == nil:
		return fmt.Sprintf("no %s: the calls that it would change are not on this route", a.Kind)
	case e.Calls < minCalls:
		return fmt.Sprintf("no %s: %d recorded calls of the route are too few for a forecast; at least %d are needed", a.Kind, e.Calls, minCalls)
	case e.gain() < minGain:
		return fmt.Sprintf("no %s: the p99 of the route would go from %.1f ms to %.1f ms only", a.Kind, e.Before.P99, e.Predicted.P99)
	}
	forecast := e.Predicted
	a.Predicted = &forecast
	tail := fmt.Sprintf("p99 from %.1f ms to %.1f ms, p50 from %.1f ms to %.1f ms", e.Before.P99, e.Predicted.P99, e.Before.P50, e.Predicted.P50)
	if a.Benefit != "" {
		tail += "; " + a.Benefit
	}
	a.Benefit = tail
	return ""
}

// innerEnough is the share of an outer cache's gain that an inner one must reach to make it needless.
const innerEnough = 0.9

// preferInner takes back a cache on a route where one on a route below it gains nearly as much: the nearer an answer is to
// the data, the more callers share it and the less of it is one user's alone.
func preferInner(findings []Finding, route routeKey) {
	type place struct{ finding, action int }
	var caches []place
	for f := range findings {
		for a := range findings[f].Actions {
			if findings[f].Actions[a].Kind == KindCache && len(findings[f].Actions[a].Effects) > 0 {
				caches = append(caches, place{f, a})
			}
		}
	}
	needless := make(map[int]string) // by finding: why
	for _, x := range caches {
		outer := &findings[x.finding].Actions[x.action]
		at := outer.Effects[0]
		for _, y := range caches {
			inner := &findings[y.finding].Actions[y.action]
			first := inner.Effects[0]
			below := first != at && inner.on(routeKey{at.Service, at.Operation}) != nil && outer.on(routeKey{first.Service, first.Operation}) == nil
			if below && inner.savedOn(route) >= innerEnough*outer.savedOn(route) {
				needless[x.finding] = fmt.Sprintf("no cache here: one at %s %s, nearer to the data, gains %.0f%% of what this one would, and more callers share it",
					first.Service, first.Operation, 100*share(inner.savedOn(route), outer.savedOn(route)))
			}
		}
	}
	for f, why := range needless {
		findings[f].Actions = slices.DeleteFunc(findings[f].Actions, func(a Action) bool { return a.Kind == KindCache })
		findings[f].CounterEvidence = append(findings[f].CounterEvidence, why)
	}
}

// onceOnly keeps a change where it is first proposed: several findings may see one read, each from its side.
func onceOnly(findings []Finding) {
	type change struct{ kind, route string }
	first := make(map[change]*Finding)
	for i := range findings {
		f := &findings[i]
		f.Actions = slices.DeleteFunc(f.Actions, func(a Action) bool {
			if a.Change == nil {
				return false
			}
			key := change{a.Kind, a.Change.Route}
			if before := first[key]; before != nil {
				f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("its %s is the same change of route %s as that of %s %s",
					a.Kind, a.Change.Route, before.Service, before.Operation))
				return true
			}
			first[key] = f
			return false
		})
	}
}

// on is the effect on one route; nil when there is none.
func (a *Action) on(route routeKey) *Effect {
	for i := range a.Effects {
		if e := &a.Effects[i]; e.Service == route.service && e.Operation == route.operation {
			return e
		}
	}
	return nil
}

// savedOn is the milliseconds that a saves at the p99 of route.
func (a *Action) savedOn(route routeKey) float64 {
	if e := a.on(route); e != nil {
		return e.saved()
	}
	return 0
}

// keys are the routes above spans, and the route of the finding in any case.
func (s *situation) keys(spans []ref) []routeKey {
	keys := s.corpus.above(spans)
	if !slices.Contains(keys, s.route) {
		keys = append(keys, s.route)
	}
	return keys
}

// edit is the change of a route's policy by how; ok is false when the gateway has no such route.
func (s *situation) edit(route string, how func(longpole.Config) longpole.Config) (*longpole.Change, bool) {
	from, ok := s.current[route]
	if !ok || route == "" {
		return nil, false
	}
	return &longpole.Change{Route: route, From: from, To: how(from)}, true
}

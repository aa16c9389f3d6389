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
			if clock.Yield != nil {
				clock.Yield()
			}
			r.Routes[i].Findings[k] = c.advise(f, routeKey{route.Service, route.Operation}, current)
		}
		preferInner(r.Routes[i].Findings, routeKey{route.Service, route.Operation})
		onceOnly(r.Routes[i].Findings)
	}
	return r
}

// Replay forecasts what a change would do to the calls of its route and to the routes that call it, innermost first.
// It knows one at a time of these: a cache, a hedge, or a breaker that was not there before, another try_timeout, fewer
// attempts. It returns nil for any other, and when the traces hold no call of the route.
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
		return c.replay(s.keys(c.routes[keys[0]]), c.kept(r, to.Cache.WithDefaults()))
	case to.Retry != nil && to.Retry.Hedge != nil && (from.Retry == nil || from.Retry.Hedge == nil):
		p := c.attempts(change.Route)
		h := hedgePlan{after: to.Retry.Hedge.After}
		if h.after == 0 {
			h, _ = p.planHedge(hedgeBudget(to))
		}
		return s.forecast(c.hedged(p, h))
	case to.TryTimeout > 0 && to.TryTimeout != from.TryTimeout:
		to = to.WithDefaults()
		p, _ := c.bounded(c.attempts(change.Route).refs(), to.TryTimeout, attempts(&to))
		return s.forecast(p)
	case to.Retry != nil && fewer(&to, &from):
		to = to.WithDefaults()
		p, _ := c.attempted(c.attempts(change.Route).refs(), attempts(&to))
		return s.forecast(p)
	case to.Breaker != nil && !to.Breaker.Off && from.Breaker == nil:
		p, _ := c.broken(c.attempts(change.Route).refs(), to.Breaker.WithDefaults())
		return s.forecast(p)
	}
	return nil
}

// forecast is the effect of p on every route that it reaches.
func (s *situation) forecast(p plan) []Effect { return s.corpus.replay(s.keys(p.spans), p) }

// fewer reports whether a call gets fewer attempts under to than under from.
func fewer(to, from *longpole.Config) bool {
	a, b := to.WithDefaults(), from.WithDefaults()
	return from.Retry != nil && attempts(&a) < attempts(&b)
}

// load builds the corpus: clean, with clocks corrected.
func load(traces []trace.Trace, clock diagnose.ClockOptions) *corpus {
	trees := diagnose.Trees(traces, clock)
	rename(trees)
	lines := make([]*timeline, len(trees))
	for i, tree := range trees {
		if clock.Yield != nil {
			clock.Yield()
		}
		lines[i] = newTimeline(tree)
		if w := traces[i].Weight; w > 0 {
			lines[i].weight = w
		}
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
	for _, entry := range answersTo(&f) {
		a, reason := entry.cure(&situation{corpus: c, finding: &f, route: route, current: current})
		if a.Kind != "" {
			entry.complete(&a)
			if refused := a.judge(route, entry); refused != "" {
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
	rank(out.Actions, route)
	return out
}

// rank puts actions in the playbook's order, and those of one step by what they save at p99.
func rank(actions []Action, route routeKey) {
	slices.SortStableFunc(actions, func(a, b Action) int {
		return cmp.Or(cmp.Compare(a.Step.place(), b.Step.place()), cmp.Compare(b.savedOn(route), a.savedOn(route)),
			cmp.Compare(slices.Index(Kinds(), a.Kind), slices.Index(Kinds(), b.Kind)))
	})
}

// tooLittle says that an action of that kind would not be worth it.
func (e *Effect) tooLittle(kind string) string {
	return fmt.Sprintf("no %s: it would leave the p99 of the route at %.1f ms, which is %.1f ms now", kind, e.Predicted.P99, e.Before.P99)
}

// judge completes an action with what it does to route, or says why it is not worth it.
func (a *Action) judge(route routeKey, by entry) (reason string) {
	plain := by.plain || a.plain
	if plain && len(a.Effects) == 0 {
		return ""
	}
	e := a.on(route)
	if a.Observe != "" {
		e = a.Effect(a.Observe)
	}
	switch {
	case e == nil:
		return fmt.Sprintf("no %s: the calls that it would change are not on this route", a.Kind)
	case e.Calls < minCalls:
		return fmt.Sprintf("no %s: %d recorded calls of the route are too few for a forecast; at least %d are needed", a.Kind, e.Calls, minCalls)
	case e.gain() < minGain && plain:
		a.Effects = nil // it guards all the same, and promises nothing
		return ""
	case e.gain() < minGain:
		return e.tooLittle(a.Kind)
	}
	forecast, interval := e.Predicted, e.Interval
	a.Predicted, a.Interval = &forecast, &interval
	at := ""
	if a.Observe != "" {
		at = "on " + a.Observe + " "
	}
	tail := at + fmt.Sprintf("p99 from %.1f ms to %.1f ms, p50 from %.1f ms to %.1f ms", e.Before.P99, e.Predicted.P99, e.Before.P50, e.Predicted.P50)
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

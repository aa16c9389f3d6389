package advise

import (
	"fmt"
	"math"
	"slices"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/retry"
)

// What a hedge may cost and how finely its effect is known.
const (
	maxExtraLoad  = 0.10 // copies per call that an adviser may propose
	maxBudget     = 0.15 // copies per call that the proposed policy may ever allow
	hedgeHeadroom = 1.5  // budget over forecast: a budget that runs dry loses the benefit
	hedgeRoom     = 0.6  // of the load that leaves room for slower days
	enoughOfHedge = 0.95 // share of the best gain at p99 that such a plan must keep to be preferred
	hedgeRounds   = 8    // draws of the second copy for each recorded call
	nearlyBest    = 1.03 // a later copy that costs less wins while its p99 is within this of the best
)

// hedgePlan is when to send a copy, and what that costs.
type hedgePlan struct {
	after time.Duration
	extra float64 // copies per call
}

// planHedge chooses the age at which to send a copy by its effect, not by a fixed quantile. Calls get slower under load,
// so that more of them reach a given age than were recorded; of the plans within budget, one with room to spare is
// preferred where it gains nearly as much. ok is false when none helps at all.
//
// Source: Dean and Barroso, The Tail at Scale (2013), for hedging; the choice by predicted effect is ours.
func (p *pool) planHedge(budget float64) (plan hedgePlan, ok bool) {
	if p.total == 0 || len(p.names) < 2 {
		return hedgePlan{}, false
	}
	all := &dist{}
	for _, name := range p.names {
		all.list = append(all.list, p.took[name].list...)
	}
	all.sort()
	was := all.quantile(0.99)
	plan, p99 := p.planWithin(all, budget)
	if roomy, at := p.planWithin(all, budget*hedgeRoom); float64(was-at) >= enoughOfHedge*float64(was-p99) {
		plan, p99 = roomy, at
	}
	return plan, p99 < was
}

// planWithin is the latest age, of those that at most a share of the attempts in all reach, whose p99 is nearly the
// best, and that p99 in ns.
//
// With F the latencies of the endpoint that was asked first and G those of all the others, the answer takes longer
// than t with probability (1-F(t))(1-G(t-after)).
func (p *pool) planWithin(all *dist, budget float64) (plan hedgePlan, p99 int64) {
	type option struct{ after, p99 int64 }
	var options []option
	best := int64(math.MaxInt64)
	const steps = 60
	for step := range steps {
		after := int64(roundUp(all.quantile(1 - budget + budget*float64(step)/steps)))
		if p.aboveAll(after) > budget*p.total || len(options) > 0 && after <= options[len(options)-1].after {
			continue
		}
		o := option{after, p.hedgedQuantile(after, 0.99)}
		options = append(options, o)
		best = min(best, o.p99)
	}
	for _, o := range slices.Backward(options) {
		if float64(o.p99) <= nearlyBest*float64(best) {
			return hedgePlan{time.Duration(o.after), share(p.aboveAll(o.after), p.total)}, o.p99
		}
	}
	return hedgePlan{}, math.MaxInt64
}

// roundUp makes a setting of d ns that a person can read, never an earlier one.
func roundUp(d int64) time.Duration {
	unit := int64(time.Millisecond)
	switch {
	case d < int64(2*time.Millisecond):
		unit = int64(50 * time.Microsecond)
	case d < int64(20*time.Millisecond):
		unit = int64(500 * time.Microsecond)
	}
	return time.Duration((d + unit - 1) / unit * unit)
}

// hedgedQuantile is the latency in ns at quantile q when a copy is sent after after ns.
func (p *pool) hedgedQuantile(after int64, q float64) int64 {
	var high int64
	for _, name := range p.names {
		high = max(high, p.took[name].quantile(1))
	}
	low := int64(0)
	for low < high {
		mid := low + (high-low)/2
		if p.hedgedTail(after, mid) <= 1-q {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// hedgedTail is the probability that an answer takes longer than t ns when a copy is sent after after ns.
func (p *pool) hedgedTail(after, t int64) float64 {
	tail, all := 0.0, 0.0
	if t > after {
		all = p.aboveAll(t - after)
	}
	for _, name := range p.names {
		first := p.took[name].above(t) / p.total
		if others := p.others(name); t > after && others > 0 {
			first *= (all - p.took[name].above(t-after)) / others
		}
		tail += first
	}
	return tail
}

// hedged is what a plan does to the attempts.
func (c *corpus) hedged(p *pool, h hedgePlan) plan {
	tries := p.byTrace()
	return plan{spans: p.refs(), rounds: hedgeRounds, doubt: drawDoubt, extra: h.extra, apply: func(round, n int, e *edit) {
		for _, a := range tries[n] {
			if !a.again || a.took <= int64(h.after) || p.others(a.endpoint) == 0 {
				continue
			}
			second := p.elsewhere(&a, random(&c.traces[n].spans[a.span], round))
			e.set(a.span, min(a.took, int64(h.after)+second))
		}
	}}
}

var hedgeEntry = entry{
	kind: KindHedge, step: StepTune, answers: []string{"LP103", "LP106", "LP113", "LP116", "LP117", "LP118"}, cure: hedge,
	needs: []string{"calls that may be sent twice: idempotent", "a second endpoint with room for the copies"},
	watch: []string{"longpole_hedges_total over longpole_calls_total: below the budget", "copies that win: above 2 %, or the delay is wrong", "CPU of the upstream"},
}

// hedge cures one slow endpoint of several by asking another when an answer is late.
func hedge(s *situation) (Action, string) {
	switch s.finding.Code {
	case "LP113":
		return hedgeLater(s)
	case "LP118":
		return hedgeLost(s)
	case "LP106":
		return hedgeUnknown(s)
	}
	p, route := s.corpus.callsOf(s.finding)
	if reason := hedgeable(p, s.current[route]); reason != "" {
		return Action{}, reason
	}
	plan, ok := p.planHedge(hedgeBudget(s.current[route]))
	return s.hedgeBy(p, route, plan, ok)
}

// hedgeUnknown cures calls of which some take long for a reason that nobody knows: where nothing shows that the time is computed, and
// there is another endpoint, a copy may be spared it. What is known to be computed would be computed twice.
func hedgeUnknown(s *situation) (Action, string) {
	if s.finding.Verdict != diagnose.Suspected {
		return Action{}, ""
	}
	p, route := s.corpus.callsOf(s.finding)
	plan, ok := p.planHedge(hedgeBudget(s.current[route]))
	if !ok || hedgeable(p, s.current[route]) != "" {
		return Action{}, ""
	}
	return s.hedgeBy(p, route, plan, true)
}

// lostHedge is the quantile of the answers after which a call is likely to be lost rather than slow.
const lostHedge = 0.99

// hedgeLost cures calls that hang now and then: another endpoint is asked when nearly every answer would have come. Nothing is
// given up for that, so that a limit set too low costs a copy and no call.
func hedgeLost(s *situation) (Action, string) {
	route := s.corpus.routeOf(s.calls())
	if route == "" {
		return Action{}, ""
	}
	p := s.corpus.attemptsAndLost(route)
	if reason := hedgeable(p, s.current[route]); reason != "" {
		return Action{}, reason
	}
	answers := s.corpus.answered(p.refs()).took[anyEndpoint]
	if answers == nil {
		return Action{}, "no hedge: there is no answer that tells how long one takes"
	}
	plan := hedgePlan{after: roundUp(answers.quantile(lostHedge))}
	plan.extra = share(p.aboveAll(int64(plan.after)), p.total)
	return s.hedgeBy(p, route, plan, plan.extra <= hedgeBudget(s.current[route]))
}

// hedgeBy is the action of a plan for the attempts of a route; ok is false when there is none that pays.
func (s *situation) hedgeBy(p *pool, route string, plan hedgePlan, ok bool) (Action, string) {
	if !ok {
		return Action{}, "no hedge: no delay within 10% more load makes the p99 of these calls better"
	}
	a := Action{Kind: KindHedge, Effects: s.forecast(s.corpus.hedged(p, plan)), ExtraLoad: plan.extra}
	a.Summary = fmt.Sprintf("ask a second endpoint when an answer of %s has not come after %s", name(route, s.finding), plan.after)
	a.Cost = fmt.Sprintf("%.1f%% more calls to the upstream; a budget stops it at %.0f%%", 100*plan.extra, 100*plan.budget(s.current[route]))
	a.Risk = "the slowness must lie in the endpoint, not in the call: a call that is slow everywhere only costs twice. Only idempotent calls may be sent twice"
	if change, ok := s.edit(route, plan.config); ok {
		a.Change = change
	} else {
		a.Summary += fmt.Sprintf("; in a Longpole policy: retry: {hedge: {after: %s}}", plan.after)
		a.Snippets = snippets(s.finding.Service, longpole.Config{}, plan.config(longpole.Config{}))
	}
	return a, ""
}

// lateHedge is the quantile of the first attempts after which a copy is worth its cost by the usual rule (Dean and Barroso).
const lateHedge = 0.95

// hedgeLater cures copies that are sent for nothing: they are sent later. It saves calls, and promises nothing else.
func hedgeLater(s *situation) (Action, string) {
	all := s.calls()
	route := s.corpus.routeOf(all)
	var first dist
	for _, r := range all {
		if t := s.corpus.traces[r.trace]; t.spans[r.span].Attr("longpole.hedge") != "true" && !t.failed(r.span) {
			first.add(t.recorded(r.span), t.weight)
		}
	}
	first.sort()
	if len(first.list) < minCalls {
		return Action{}, fmt.Sprintf("no later hedge: %d first attempts are too few to choose its delay; at least %d are needed", len(first.list), minCalls)
	}
	h := hedgePlan{after: roundUp(first.quantile(lateHedge))}
	h.extra = share(first.above(int64(h.after)), first.total())
	a := Action{
		Kind: KindHedge, plain: true,
		Summary: fmt.Sprintf("send the second copy of a call of %s later: after %s, which %.0f%% of the calls reach", s.callee(route), h.after, 100*h.extra),
		Benefit: fmt.Sprintf("%.0f%% of the calls get a copy, in place of %.0f%%", 100*h.extra, 100*max(0, s.finding.Detail.Attempts-1)),
		Cost:    "none to the typical call",
		Risk:    "the p99 gets worse by what the delay grows, for calls that a copy saves today",
	}
	if change, ok := s.edit(route, h.config); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.callee(""), longpole.Config{}, h.config(longpole.Config{}))
	}
	return a, ""
}

// config is the policy with the hedge in it.
func (h hedgePlan) config(c longpole.Config) longpole.Config {
	part := retry.Config{}
	if c.Retry != nil {
		part = *c.Retry
	}
	part.Hedge = &retry.Hedge{After: h.after, BudgetRatio: h.budget(c)}
	if part.MaxAttempts == 1 {
		part.MaxAttempts = 2
	}
	c.Retry = &part
	return c
}

// budget is the share of calls that the policy may send twice: what the plan needs with headroom, in whole percent, but
// never more than the retry budget, from which hedges spend too.
func (h hedgePlan) budget(c longpole.Config) float64 {
	wanted := math.Ceil(100*hedgeHeadroom*h.extra) / 100
	return min(max(wanted, maxExtraLoad), maxBudget, retryBudget(c))
}

// hedgeBudget is the share of calls that a plan may send twice.
func hedgeBudget(c longpole.Config) float64 { return min(maxExtraLoad, retryBudget(c)/hedgeHeadroom) }

func retryBudget(c longpole.Config) float64 {
	if c.Retry == nil {
		return retry.Config{}.WithDefaults().BudgetRatio
	}
	return c.Retry.WithDefaults().BudgetRatio
}

// hedgeable says why there is no point in hedging, or "".
func hedgeable(p *pool, current longpole.Config) string {
	again := 0
	for _, t := range p.tries {
		if t.again {
			again++
		}
	}
	switch {
	case p.hedged || current.Retry != nil && current.Retry.Hedge != nil:
		return "no hedge: the route has one already"
	case current.Retry != nil && current.Retry.Off:
		return "no hedge: its owner has turned second attempts off on this route"
	case len(p.names) < 2:
		return "no hedge: the spans show one endpoint only, and the copy needs another"
	case len(p.tries) < minCalls:
		return fmt.Sprintf("no hedge: %d calls are too few to choose its delay; at least %d are needed", len(p.tries), minCalls)
	case 2*again < len(p.tries):
		return "no hedge: most of the calls may not be sent twice (not idempotent, or they failed)"
	}
	return ""
}

// name is what people call the calls of a finding.
func name(route string, f *diagnose.Finding) string {
	if route != "" {
		return "route " + route
	}
	return f.Service + " " + f.Operation
}

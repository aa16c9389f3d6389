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
	all := make([]int64, 0, p.total)
	for _, name := range p.names {
		all = append(all, p.took[name]...)
	}
	slices.Sort(all)
	was := quantile(all, 0.99)
	plan, p99 := p.planWithin(all, int(budget*float64(len(all))))
	if roomy, at := p.planWithin(all, int(budget*hedgeRoom*float64(len(all)))); float64(was-at) >= enoughOfHedge*float64(was-p99) {
		plan, p99 = roomy, at
	}
	return plan, p99 < was
}

// planWithin is the latest age, of those that at most allowed of the attempts in all reach, whose p99 is nearly the
// best, and that p99 in ns.
//
// With F the latencies of the endpoint that was asked first and G those of all the others, the answer takes longer
// than t with probability (1-F(t))(1-G(t-after)).
func (p *pool) planWithin(all []int64, allowed int) (plan hedgePlan, p99 int64) {
	type option struct{ after, p99 int64 }
	var options []option
	best := int64(math.MaxInt64)
	const steps = 60
	for step := range steps {
		rank := len(all) - 1 - allowed + allowed*step/steps
		after := int64(roundUp(all[max(rank, 0)]))
		if p.aboveAll(after) > allowed || len(options) > 0 && after <= options[len(options)-1].after {
			continue
		}
		o := option{after, p.hedgedQuantile(after, 0.99)}
		options = append(options, o)
		best = min(best, o.p99)
	}
	for _, o := range slices.Backward(options) {
		if float64(o.p99) <= nearlyBest*float64(best) {
			return hedgePlan{time.Duration(o.after), float64(p.aboveAll(o.after)) / float64(len(all))}, o.p99
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
		high = max(high, p.took[name][len(p.took[name])-1])
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
	tail := 0.0
	all := 0
	if t > after {
		all = p.aboveAll(t - after)
	}
	for _, name := range p.names {
		first := float64(above(p.took[name], t)) / float64(p.total)
		if others := p.others(name); t > after && others > 0 {
			first *= float64(all-above(p.took[name], t-after)) / float64(others)
		}
		tail += first
	}
	return tail
}

// replayHedge is the effect of a plan on the routes above the attempts.
func (c *corpus) replayHedge(p *pool, plan hedgePlan, keys []routeKey) []Effect {
	tries := p.byTrace()
	return c.replay(keys, hedgeRounds, func(round, n int, e *edit) {
		for _, a := range tries[n] {
			t := c.traces[n]
			took := t.recorded(a.span)
			others := p.others(a.endpoint)
			if !a.again || took <= int64(plan.after) || others == 0 {
				continue
			}
			second := p.elsewhere(a.endpoint, random(&t.spans[a.span], round).IntN(others))
			e.set(a.span, min(took, int64(plan.after)+second))
		}
	})
}

// hedge cures one slow endpoint of several by asking another when an answer is late.
func hedge(s *situation) (Action, string) {
	p, route := s.corpus.callsOf(s.finding)
	if reason := hedgeable(p, s.current[route]); reason != "" {
		return Action{}, reason
	}
	plan, ok := p.planHedge(hedgeBudget(s.current[route]))
	if !ok {
		return Action{}, "no hedge: no delay within 10% more load makes the p99 of these calls better"
	}
	a := Action{
		Kind:      KindHedge,
		Effects:   s.corpus.replayHedge(p, plan, s.keys(p.refs())),
		ExtraLoad: plan.extra,
	}
	a.Summary = fmt.Sprintf("ask a second endpoint when an answer of %s has not come after %s", name(route, s.finding), plan.after)
	a.Cost = fmt.Sprintf("%.1f%% more calls to the upstream; a budget stops it at %.0f%%", 100*plan.extra, 100*plan.budget(s.current[route]))
	a.Risk = "the slowness must lie in the endpoint, not in the call: a call that is slow everywhere only costs twice. Only idempotent calls may be sent twice"
	if change, ok := s.edit(route, plan.config); ok {
		a.Change = change
	} else {
		a.Summary += fmt.Sprintf("; in a Longpole policy: retry: {hedge: {after: %s}}", plan.after)
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
	case p.total < minCalls:
		return fmt.Sprintf("no hedge: %d calls are too few to choose its delay; at least %d are needed", p.total, minCalls)
	case 2*again < len(p.tries):
		return "no hedge: most of the calls may not be sent twice (not idempotent, or they failed)"
	}
	return ""
}

// drain cures a slow endpoint by taking it away. It is for the owner of the machines to do.
func drain(s *situation) (Action, string) {
	p, route := s.corpus.callsOf(s.finding)
	slow := s.finding.Detail.Endpoint
	if p.total < minCalls || len(p.names) < 2 || len(p.took[slow]) == 0 {
		return Action{}, ""
	}
	tries := p.byTrace()
	effects := s.corpus.replay(s.keys(p.refs()), hedgeRounds, func(round, n int, e *edit) {
		for _, a := range tries[n] {
			if a.endpoint == slow && p.others(slow) > 0 {
				e.set(a.span, p.elsewhere(slow, random(&s.corpus.traces[n].spans[a.span], round).IntN(p.others(slow))))
			}
		}
	})
	more := float64(len(p.took[slow])) / float64(p.others(slow))
	return Action{
		Kind:    KindDrain,
		Effects: effects,
		Summary: fmt.Sprintf("take %s out of the rotation of %s and repair or replace it", slow, name(route, s.finding)),
		Cost:    fmt.Sprintf("each other endpoint carries %.0f%% more calls", 100*more),
		Risk:    "the others must have that much room; the forecast takes their latency as it is today",
	}, ""
}

// name is what people call the calls of a finding.
func name(route string, f *diagnose.Finding) string {
	if route != "" {
		return "route " + route
	}
	return f.Service + " " + f.Operation
}

package advise

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/retry"
)

var timeoutEntry = entry{
	kind: KindTimeout, step: StepTune, answers: []string{"LP118", "LP119", "LP120"}, cure: timeouts, plain: true,
	needs: []string{"the caller's own deadline is longer than all attempts together"},
	watch: []string{"share of calls that end by time-out: below 0.1 % on a good day", "attempts for each call", "p99.9 of the callee"},
}

// pauseBetween is the mean pause before a second attempt, of a policy with the defaults.
var pauseBetween = int64(retry.Config{}.WithDefaults().BaseDelay / 2)

// How long an attempt may take at least: twice what the slowest thousandth of the answers take. Giving up sooner costs attempts
// that would have been answered, and their callee work that nobody takes.
const (
	lastAnswer = 0.999 // quantile of the answers
	answerRoom = 2.0   // over it
)

// anyEndpoint is the name under which a pool holds attempts whose endpoints are not told apart.
const anyEndpoint = "any"

// answered is the attempts all, whatever their endpoints.
func (c *corpus) answered(all []ref) *pool {
	p := &pool{took: make(map[string]*dist)}
	for _, r := range all {
		p.add(c, r, anyEndpoint)
	}
	p.sort(c)
	return p
}

// patience is after how long an attempt is given up whose answers took as long as those of the pool, and the callers of which
// now wait for today ns. A limit within which two attempts do not fit into today's wait would help nobody: then reason says so.
func (p *pool) patience(today time.Duration) (limit time.Duration, reason string) {
	took := p.took[anyEndpoint]
	if took == nil || len(took.list) < minCalls {
		return 0, fmt.Sprintf("no timeout: fewer than %d answers are too few to know how long they take", minCalls)
	}
	limit = roundUp(int64(answerRoom * float64(took.quantile(lastAnswer))))
	if today > 0 && 2*limit > today {
		return 0, fmt.Sprintf("no timeout: answers take up to %s, and two attempts of twice that do not fit into the %s after which callers give up today",
			short(took.quantile(lastAnswer)), short(int64(today)))
	}
	return limit, ""
}

// bounded is the plan in which one of the attempts is given up after limit, and tried again up to tries attempts in all.
// lost is the share of calls that then fail, extra attempts are in the plan.
func (c *corpus) bounded(all []ref, limit time.Duration, tries int) (p plan, lost float64) {
	pool := c.answered(all)
	here := pool.byTrace()
	late, sent := 0.0, 0.0
	for i := range pool.tries {
		a := &pool.tries[i]
		sent += a.weight
		if a.took > int64(limit) {
			late += a.weight
		}
	}
	late = share(late, sent)
	p = plan{spans: pool.refs(), rounds: 4, doubt: drawDoubt, apply: func(round, n int, e *edit) {
		for _, a := range here[n] {
			if a.took <= int64(limit) {
				continue
			}
			if k := c.traces[n].repeated(a.span); k >= 0 && tries > 1 {
				e.set(k, int64(limit)) // what was tried again is recorded
				continue
			}
			e.set(a.span, pool.again(&a, int64(limit), tries, random(&c.traces[n].spans[a.span], round)))
		}
	}}
	lost, p.extra = 1, 0
	for k := range tries {
		if k > 0 {
			p.extra += lost
		}
		lost *= late
	}
	p.notes = []string{fmt.Sprintf("%.2f%% of the calls would be given up at %s, and %.3f%% fail in the end", 100*late, limit, 100*lost)}
	return p, lost
}

// repeated is the outermost attempt that failed with the failed attempt of span i in it, or span i itself, and that was made again;
// -1 = none was. One that is given up sooner is made again sooner, nearer to it, and what came of that is what the later one shows.
func (t *timeline) repeated(i int) (outermost int) {
	outermost = -1
	for ; t.failed(i) && t.hasParent(i); i = t.parent[i] {
		s := &t.spans[i]
		if slices.ContainsFunc(t.blocking(t.parent[i]), func(k int) bool {
			x := &t.spans[k]
			return t.calls[i] && x.Start >= s.End && x.Kind == s.Kind && x.Service == s.Service && x.Name == s.Name
		}) {
			outermost = i
		}
	}
	return outermost
}

// again is how long a call of attempt a lasts whose attempts are cut off at limit ns.
func (p *pool) again(a *try, limit int64, tries int, r *rand.Rand) int64 {
	total := limit
	for range tries - 1 {
		total += pauseBetween
		next := p.anywhere(a, r)
		if next <= limit {
			return total + next
		}
		total += limit
	}
	return total
}

// patient is the plan in which none of the attempts is given up: the first lasts as long as its callee did, and those
// that came after it are gone.
func (c *corpus) patient(all []ref) plan {
	lists, spans, attempts, _ := c.series(all)
	gone := 0
	for _, series := range lists {
		for _, one := range series {
			gone += len(one) - 1
		}
	}
	return plan{spans: spans, doubt: modelDoubt, extra: -share(float64(gone), float64(max(1, attempts))), apply: func(_, n int, e *edit) {
		line := c.traces[n]
		for _, one := range lists[n] {
			if len(one) < 2 {
				continue
			}
			first := one[0]
			e.set(first, max(line.recorded(first), line.recorded(line.servedBy(first))))
			for _, i := range one[1:] {
				e.set(i, 0)
			}
		}
	}}
}

// timeouts cures callers that wait for longer than an answer can take, or not long enough for one that comes.
func timeouts(s *situation) (Action, string) {
	all, d := s.calls(), s.finding.Detail
	route := s.corpus.routeOf(all)
	a := Action{Kind: KindTimeout}
	var p plan
	var limit time.Duration
	if s.finding.Code == "LP119" {
		if d.Latency <= 0 {
			return Action{}, "no advice on the time-out: how long a call that succeeds takes is not known"
		}
		const room = 1.5 // over the p99 of what the callee needs, since the callers' own record ends at the time-out
		limit = roundUp(int64(room * float64(d.Latency)))
		p = s.corpus.patient(all)
		a.Summary = fmt.Sprintf("wait %s for an attempt of %s in place of %s: what is given up now would mostly have come", limit, s.callee(route), d.Timeout)
		a.Cost, a.Risk = "a call that is really lost holds its caller for longer", "the forecast needs the callee's own spans to know how long its answers take"
	} else {
		if route != "" { // whose attempts are what the limit is for
			all = s.corpus.attempts(route).refs()
		}
		var reason string
		if limit, reason = s.corpus.answered(all).patience(d.Timeout); reason != "" {
			return Action{}, reason
		}
		var lost float64
		p, lost = s.corpus.bounded(all, limit, 2)
		a.Summary = fmt.Sprintf("give up an attempt of %s after %s, and try once more elsewhere", s.callee(route), limit)
		a.Cost = fmt.Sprintf("%.1f%% more attempts; %.3f%% of the calls fail that now are late", 100*p.extra, 100*lost)
		a.Risk = "a callee that is slow as a whole gets more load by the second attempts: the retry budget bounds it"
	}
	a.Effects, a.ExtraLoad = s.forecast(p), p.extra
	switch e := a.on(s.route); {
	case e == nil || e.gain() >= minGain:
	case s.finding.Code == "LP119": // it is for the calls that fail, not for the time
		a.Cost += fmt.Sprintf("; the p99 of the route would go from %.1f ms to %.1f ms", e.Before.P99, e.Predicted.P99)
		a.Effects = nil
		a.Benefit = fmt.Sprintf("%.0f%% fewer attempts, and answers in place of failures", -100*p.extra)
	default:
		return Action{}, e.tooLittle(KindTimeout)
	}
	how := func(c longpole.Config) longpole.Config {
		c.TryTimeout = limit
		if c.Timeout > 0 && c.Timeout < 2*limit {
			c.Timeout = 2*limit + time.Duration(pauseBetween)*2
		}
		return c
	}
	if change, ok := s.edit(route, how); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.callee(""), longpole.Config{}, how(longpole.Config{Timeout: 2*limit + time.Duration(pauseBetween)*2, Retry: &retry.Config{MaxAttempts: 2, BudgetRatio: 0.1}}))
	}
	return a, ""
}

package advise

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
)

var breakerEntry = entry{
	kind: KindBreaker, step: StepGuard, answers: []string{"LP120", "LP118", "LP122"}, cure: protect, plain: true,
	needs: []string{"an answer for the caller while it is open: a stale one, a static one, or an honest error"},
	watch: []string{"longpole_breaker_open by endpoint", "share of calls answered by a fallback", "time that it is open"},
}

// broken is the plan in which a breaker under config stands before calls: those that it would have refused
// take no time. It is our real breaker, that is shown the recorded outcomes in their order. refused is their share.
func (c *corpus) broken(calls []ref, config breaker.Config) (p plan, refused float64) {
	type event struct {
		at   int64
		call int
		end  bool
	}
	events := make([]event, 0, 2*len(calls))
	for k, r := range calls {
		s := c.span(r)
		events = append(events, event{s.Start, k, false}, event{s.End, k, true})
	}
	slices.SortFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.call, b.call), boolean(a.end)-boolean(b.end))
	})
	b := breaker.New(config)
	allowed := make([]bool, len(calls))
	var out []ref
	for _, e := range events {
		r := calls[e.call]
		switch {
		case !e.end:
			if allowed[e.call] = b.Allow(time.Unix(0, e.at)) == nil; !allowed[e.call] {
				out = append(out, r)
			}
		case allowed[e.call]:
			class := call.OK
			if c.traces[r.trace].failed(r.span) {
				class = call.Server
			}
			b.Record(time.Unix(0, e.at), call.Outcome{Class: class, Latency: time.Duration(c.traces[r.trace].recorded(r.span))})
		}
	}
	p = each(out, func(_, i int, e *edit) { e.set(i, 0) })
	p.spans = calls
	p.doubt = modelDoubt
	return p, share(float64(len(out)), float64(len(calls)))
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// protect guards callers against a callee that keeps failing: they are told at once, and it is left to recover.
func protect(s *situation) (Action, string) {
	calls := s.calls()
	route := s.corpus.routeOf(calls)
	if current := s.current[route]; current.Breaker != nil && !current.Breaker.Off {
		return Action{}, "no breaker: the route has one already"
	}
	config := breaker.Config{}
	if d := s.finding.Detail; d.Latency > 0 {
		config.SlowAfter = roundUp(int64(3 * d.Latency))
	}
	p, refused := s.corpus.broken(calls, config)
	a := Action{
		Kind: KindBreaker, Effects: s.forecast(p), ExtraLoad: -refused,
		Summary: fmt.Sprintf("stop calling %s while half of its calls fail or are late, and answer from a fallback", s.callee(route)),
		Benefit: fmt.Sprintf("on the recorded calls it would have refused %.1f%% of them at once", 100*refused),
		Cost:    "calls that would have succeeded are refused while it is open",
		Risk:    "what is refused fails, or is answered by the fallback: the forecast counts it as answered at once",
	}
	how := func(c longpole.Config) longpole.Config {
		c.Breaker = &config
		if c.Fallback == nil && c.Cache != nil {
			c.Fallback = &longpole.Fallback{Stale: time.Minute}
		}
		return c
	}
	if change, ok := s.edit(route, how); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.callee(""), longpole.Config{}, how(longpole.Config{}))
	}
	return a, ""
}

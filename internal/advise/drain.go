package advise

import "fmt"

var drainEntry = entry{
	kind: KindDrain, step: StepScale, answers: []string{"LP103", "LP116", "LP122"}, cure: drain,
	needs: []string{"the other endpoints have room for its calls"},
	watch: []string{"CPU and in-flight calls of the other endpoints", "p99 by endpoint"},
}

// drained is the plan in which no call goes to one endpoint.
func (c *corpus) drained(p *pool, slow string) plan {
	tries := p.byTrace()
	return plan{spans: p.refs(), rounds: hedgeRounds, doubt: drawDoubt, apply: func(round, n int, e *edit) {
		for _, a := range tries[n] {
			if a.endpoint == slow {
				e.set(a.span, p.elsewhere(&a, random(&c.traces[n].spans[a.span], round)))
			}
		}
	}}
}

// drain cures a slow endpoint by taking it away. It is for the owner of the machines to do.
func drain(s *situation) (Action, string) {
	p, route := s.corpus.callsOf(s.finding)
	slow := s.finding.Detail.Endpoint
	if len(p.tries) < minCalls || len(p.names) < 2 || p.took[slow] == nil || p.others(slow) == 0 {
		return Action{}, ""
	}
	more := share(p.took[slow].total(), p.others(slow))
	return Action{
		Kind:    KindDrain,
		Effects: s.forecast(s.corpus.drained(p, slow)),
		Summary: fmt.Sprintf("take %s out of the rotation of %s and repair or replace it", slow, name(route, s.finding)),
		Cost:    fmt.Sprintf("each other endpoint carries %.0f%% more calls", 100*more),
		Risk:    "the others must have that much room; the forecast takes their latency as it is today",
	}, ""
}

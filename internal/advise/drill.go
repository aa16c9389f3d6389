package advise

import "fmt"

var drillEntry = entry{
	kind: KindDrill, step: StepGuard, answers: []string{"LP120", "LP122"}, cure: drill, plain: true,
	needs: []string{"the guards are in place: time-outs, breaker, fallback", "somebody watches; staging first"},
	watch: []string{"the route's error rate and p99: the stop condition ends the drill", "state of the breaker and share of fallbacks"},
}

// drill guards against the next time: what happened is provoked on purpose, on a small share, and must do no harm.
func drill(s *situation) (Action, string) {
	d := s.finding.Detail
	route := s.corpus.routeOf(s.calls())
	effect, expect := "delay: {distribution: lognormal, median: 500ms, p99: 2s}", "is slow"
	if d.Failed > 0.05 {
		effect, expect = "abort: 503", "fails"
	}
	where := s.callee(route)
	return Action{
		Kind:    KindDrill,
		Summary: fmt.Sprintf("provoke it on purpose once the guards are in: a twentieth of the calls of %s, with a hypothesis and a stop condition", where),
		Benefit: "proof that the guards work, on a quiet day in place of a bad night",
		Cost:    "ten minutes of somebody's attention, and some slow or failed calls",
		Risk:    "real users are hit if the guards do not work: the stop condition ends it",
		Text: fmt.Sprintf(`faults:
  - name: drill
    hypothesis: callers stay within their objective when %s %s
    share: 5%%
    at: attempt
    %s
    ttl: 10m
    stop: {error_ratio: 2%%}`, where, expect, effect),
	}, ""
}

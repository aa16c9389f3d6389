package advise

import (
	"fmt"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/limit"
)

var limitEntry = entry{
	kind: KindLimit, step: StepGuard, answers: []string{"LP123", "LP107", "LP112"}, cure: shed, plain: true,
	needs: []string{"calls say how important they are, or all are alike", "callers treat 503 with Retry-After as an answer"},
	watch: []string{"longpole_calls_total of class shed, by route", "goodput of the callee: it must not fall", "p99 of the calls that are served"},
}

// shed guards a service that is asked for more than it can do: no more calls in flight than help, the important first.
func shed(s *situation) (Action, string) {
	t := targetOf(s.finding)
	route := s.corpus.routeOf(s.calls())
	if s.current[route].Limit != nil {
		return Action{}, "no limit: the route has one already"
	}
	a := Action{
		Kind:    KindLimit,
		Summary: fmt.Sprintf("let no more calls of %s run at once than it can use, with a short queue in which the important ones go first", s.callee(route)),
		Benefit: "under overload what is served stays fast, and nothing is worked on that nobody waits for any more",
		Cost:    "calls beyond the limit are refused",
		Risk:    "a client that tries refused calls again at once makes it worse: the answer carries Retry-After",
	}
	if st := s.corpus.station(t); st != nil && st.busy() > healthyBusy {
		refused := 1 - healthyBusy/st.busy()
		if p, reason := s.corpus.relieved(t, refused); reason == "" {
			a.Effects, a.ExtraLoad = s.forecast(p), -refused
			a.Cost = fmt.Sprintf("%.0f%% of the calls are refused until there is more capacity; the forecast is for the others", 100*refused)
			a.Risk += "; " + p.notes[0]
		}
	}
	how := func(c longpole.Config) longpole.Config {
		c.Limit = &limit.Config{Queue: &limit.Queue{}}
		if st := s.corpus.station(t); st != nil {
			c.Limit.Limit = max(1, st.servers*st.endpoints)
			c.Limit.Max = max(1000, 4*c.Limit.Limit)
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

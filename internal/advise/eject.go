package advise

import (
	"fmt"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
)

var ejectEntry = entry{
	kind: KindEject, step: StepGuard, answers: []string{"LP103", "LP116", "LP122", "LP120"}, cure: eject, plain: true,
	needs: []string{"three endpoints or more, that are meant to be alike"},
	watch: []string{"longpole_endpoint_healthy and longpole_endpoint_in_flight by endpoint", "calls at the endpoints that are left", "time that an endpoint stays out"},
}

// eject guards against an endpoint that does worse than the others: it is left out until it is well.
func eject(s *situation) (Action, string) {
	p, route := s.corpus.callsOf(s.finding)
	if len(p.names) < 3 {
		return Action{}, ""
	}
	current := s.current[route]
	if current.Balance != nil && current.Balance.Eject != nil {
		return Action{}, "no ejection: the route has one already"
	}
	slow := s.finding.Detail.Endpoint
	sick := p.took[slow] != nil && p.others(slow) > 0 && s.outlier(p, slow)
	if s.finding.Code == "LP103" && !sick {
		return Action{}, "" // slow now and then, which its rule does not see
	}
	a := Action{
		Kind:    KindEject,
		Summary: fmt.Sprintf("leave an endpoint of %s out of the rotation while it fails or is three times as slow as the others", name(route, s.finding)),
		Benefit: "the next slow endpoint is out within seconds, before anybody looks",
		Cost:    "the others carry its calls; one call in each trial goes to a sick endpoint",
		Risk:    "endpoints that are meant to differ: give them an upstream each",
	}
	if sick {
		a.Effects = s.forecast(s.corpus.drained(p, slow))
	}
	how := func(c longpole.Config) longpole.Config {
		b := balance.Config{}
		if c.Balance != nil {
			b = c.Balance.Clone()
		}
		b.Eject = &balance.Eject{}
		c.Balance = &b
		return c
	}
	if change, ok := s.edit(route, how); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.finding.Service, longpole.Config{}, how(longpole.Config{}))
	}
	return a, ""
}

// outlier reports whether the ejection's own rule for latency would see an endpoint: its median against the others'.
func (s *situation) outlier(p *pool, slow string) bool {
	rule := balance.Config{Eject: &balance.Eject{}}.WithDefaults().Eject
	var medians []int64
	for _, other := range p.names {
		if other != slow {
			medians = append(medians, p.took[other].quantile(0.5))
		}
	}
	var sum int64
	for _, m := range medians {
		sum += m
	}
	usual := float64(sum) / float64(len(medians))
	own := float64(p.took[slow].quantile(0.5))
	return own > rule.LatencyFactor*usual && own-usual > float64(rule.LatencyDelta)
}

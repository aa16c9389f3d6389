package advise

import (
	"fmt"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
)

var warmEntry = entry{
	kind: KindWarm, step: StepTune, answers: []string{"LP116"}, cure: warm, plain: true,
	needs: []string{"a readiness check that is false until the instance is warm"},
	watch: []string{"p99 by age of the instance", "time until an instance is ready", "calls at the older instances during a deployment"},
}

// warm cures first calls that pay for what later ones find ready. The forecast is for calls of cold instances answered
// as those of warm ones are.
func warm(s *situation) (Action, string) {
	p, route := s.corpus.callsOf(s.finding)
	d := s.finding.Detail
	a := Action{
		Kind:    KindWarm,
		Summary: fmt.Sprintf("give a new instance of %s its traffic slowly, and none before it is warm", s.finding.Service),
		Cost:    "deployments take a little longer",
		Risk:    "the older instances carry more until the new one is warm",
		Text: `before ready: open the connection pool, load what every call needs, run some typical requests against itself
Kubernetes:   startupProbe and readinessProbe on a path that is 200 only then; minReadySeconds: 10
functions:    provisioned concurrency, or a minimum of instances above 0`,
	}
	how := func(c longpole.Config) longpole.Config {
		b := balance.Config{}
		if c.Balance != nil {
			b = c.Balance.Clone()
		}
		b.SlowStart = 30 * time.Second
		c.Balance = &b
		return c
	}
	if change, ok := s.edit(route, how); ok && (change.From.Balance == nil || change.From.Balance.SlowStart == 0) {
		a.Change = change
	}
	if p.took[d.Endpoint] != nil && p.others(d.Endpoint) > 0 {
		a.Effects = s.forecast(s.corpus.drained(p, d.Endpoint))
	}
	return a, ""
}

package rollout

import (
	"errors"
	"fmt"
	"slices"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
)

// observed is a Target for a change whose effect shows on another route. That route takes turns in step with the change's, under
// its own policy in both, so that its calls are told apart by whose turn it is.
//
// What goes wrong there ends the rollout as what goes wrong on the change's route does: the change is never left in force half-way.
type observed struct {
	Target
	route string
}

// observable is the policy of a route that can be observed.
func observable(t Target, route string) (longpole.Config, error) {
	policy, err := t.Policy(route)
	switch {
	case err != nil:
		return policy, fmt.Errorf("rollout: route %q, to observe: %w", route, err)
	case policy.Cache != nil:
		return policy, fmt.Errorf("rollout: route %q cannot be observed: each turn would have a cache of its own there", route)
	}
	return policy, nil
}

// Stage stages the candidate, and the route that is observed beside itself.
func (o observed) Stage(route string, candidate longpole.Config) error {
	policy, err := observable(o.Target, o.route)
	if err != nil {
		return err
	}
	if err = o.Target.Stage(o.route, policy); err != nil {
		return err
	}
	if err = o.Target.Stage(route, candidate); err != nil {
		err = errors.Join(err, o.Target.Discard(o.route))
	}
	return err
}

// Weight sets that of both: 0, as while a person has paused it.
func (o observed) Weight(route string, ratio float64) error {
	return errors.Join(o.Target.Weight(route, ratio), o.Target.Weight(o.route, ratio))
}

// Turn is that of both.
func (o observed) Turn(route string, candidate, counted bool) error {
	return errors.Join(o.Target.Turn(route, candidate, counted), o.Target.Turn(o.route, candidate, counted))
}

// Tallies are those of the route that is observed.
func (o observed) Tallies(string) (baseline, candidate stats.Tally, err error) {
	return o.Target.Tallies(o.route)
}

// Promote leaves the route that is observed as it was.
func (o observed) Promote(route string) error {
	if err := o.Target.Discard(o.route); err != nil {
		return err
	}
	return o.Target.Promote(route)
}

// Discard leaves both as they were.
func (o observed) Discard(route string) error {
	return errors.Join(o.Target.Discard(route), o.Target.Discard(o.route))
}

// target is what the rollout works on.
func (r *run) target() Target {
	return r.c.targetOf(r.spec)
}

func (c *Controller) targetOf(spec Spec) Target {
	if spec.Observe == "" {
		return c.o.Target
	}
	return observed{c.o.Target, spec.Observe}
}

// Judged is the route by whose calls the candidate is judged.
func (s Spec) Judged() string {
	if s.Observe != "" {
		return s.Observe
	}
	return s.Change.Route
}

// shedJudged is the price that the judge knows of. It is paid on the change's own route: where another one is observed, that
// must not refuse a call more.
func (s Spec) shedJudged() float64 {
	if s.Observe != "" {
		return 0
	}
	return s.Shed
}

// routes are those whose calls a rollout moves.
func (s Spec) routes() []string {
	if s.Observe == "" {
		return []string{s.Change.Route}
	}
	return []string{s.Change.Route, s.Observe}
}

// meets reports whether two rollouts would move the calls of one route.
func (s Spec) meets(other Spec) bool {
	return slices.ContainsFunc(s.routes(), func(route string) bool { return slices.Contains(other.routes(), route) })
}

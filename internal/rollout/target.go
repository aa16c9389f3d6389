package rollout

import (
	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
)

// Target moves the traffic of routes between the policy in force and a candidate. Its methods do not block, and may be
// called for several routes at once. All but Tallies, Held, Policy and Weights are pointer swaps.
type Target interface {
	// Policy is the policy in force; an error for a route that does not exist.
	Policy(route string) (longpole.Config, error)
	// Stage compiles the candidate, which gets no traffic yet. After an error nothing is staged.
	Stage(route string, candidate longpole.Config) error
	// StageVersion makes another version of the upstream the candidate.
	StageVersion(route, upstream string) error
	// Weight sets the share of the calls, at most 0.5, that the candidate gets, drawn at random for each call. An
	// equal share, drawn alike, is the baseline cohort, with the policy in force.
	Weight(route string, ratio float64) error
	// Turn gives all calls to the candidate, or none. Without counted they are in no tally.
	Turn(route string, candidate, counted bool) error
	// Tallies is what the two cohorts did since Stage.
	Tallies(route string) (baseline, candidate stats.Tally, err error)
	// Promote makes the candidate the policy in force, or gives the version all calls.
	Promote(route string) error
	// Discard drops the candidate. It should return nil when there is none, as after the route was changed or
	// removed by other means: an error is taken as a candidate that is still there.
	Discard(route string) error
	// Adopt puts a policy in force at once, without a trial.
	Adopt(route string, c longpole.Config) error
	// Weights are those of the route's versions by upstream; Split sets them.
	Weights(route string) (map[string]int, error)
	Split(route string, weights map[string]int) error
	// Hold keeps a share of the calls on a policy that is the one in force without one change, under a name, with an equal
	// cohort on the one in force. One of that name that is the same goes on; another is replaced. Whatever changes the policy in
	// force ends all. Held is what the two cohorts did since; Release ends one, if there is one.
	Hold(route, name string, without longpole.Config, ratio float64) error
	Held(route, name string) (promoted, heldBack stats.Tally, err error)
	Release(route, name string) error
	// Kill switches the named parts of a route's policy off, and all others on again; route "" is every route.
	Kill(route string, parts ...string) error
}

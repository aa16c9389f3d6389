package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/internal/httpcache"
	"github.com/longpole/longpole/internal/stats"
)

// Why a rollout's step was refused.
var (
	ErrNoRoute     = errors.New("gateway: no such route")
	ErrNoCandidate = errors.New("gateway: the route has no candidate")
	ErrStaged      = errors.New("gateway: the route has a candidate already")
	ErrNoPolicy    = errors.New("gateway: the route answers by itself, without a policy")
)

// MaxWeight is the largest share of calls for a candidate: the paired baseline takes as many.
const MaxWeight = 0.5

// The arms, as they stand in records and spans. A call outside of both cohorts has none.
const (
	armBaseline  = "baseline"
	armCandidate = "candidate"
)

// live is what a route has learned. It outlives reloads for as long as the route's name and versions stay.
type live struct {
	versions []*version // none = the route answers by itself; they do not change
	figures  *figures

	mu         sync.Mutex // serialises changes of what follows
	arms       atomic.Pointer[arms]
	shares     atomic.Pointer[shares]
	filed      longpole.Config // what the file says; a promoted candidate differs from it
	filedSplit []int           // what the file says; Split may differ from it
}

// arms are immutable: a change stores new ones. Each version has its own arm of each kind; a rollout is of all at once.
type arms struct {
	baseline  []*arm    // by version
	candidate []*arm    // by version; nil = no rollout
	weight    float64   // share of the calls for the candidate; an equal one for the paired baseline
	control   *counters // of the paired baseline, since Stage
	trial     *counters // of the candidate, since Stage
}

// arm is one policy, with what the exchange asks of its settings on every call.
type arm struct {
	policy  *longpole.Policy
	caches  bool
	rules   httpcache.Rules // of its cache
	hedges  bool
	retries bool
	reopen  time.Duration // how long an open breaker stays so
}

func newArm(c longpole.Config, u *upstream) (*arm, error) {
	var set *balance.Set
	if u != nil {
		set = u.set
	}
	p, err := longpole.New(c, set)
	if err != nil {
		return nil, err
	}
	if u != nil {
		p.SetProber(u.ask)
	}
	return armOf(p), nil
}

// newArms makes one arm for each version.
func newArms(c longpole.Config, versions []*version) ([]*arm, error) {
	all := make([]*arm, 0, len(versions))
	for _, v := range versions {
		a, err := newArm(c, v.upstream)
		if err != nil {
			closeArms(all)
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

func armOf(p *longpole.Policy) *arm {
	c := p.Config().WithDefaults()
	a := &arm{policy: p, caches: c.Cache != nil, rules: rulesOf(c.Cache), hedges: c.Retry != nil && !c.Retry.Off && c.Retry.Hedge != nil, retries: c.Retry == nil || !c.Retry.Off}
	if c.Breaker != nil {
		a.reopen = c.Breaker.OpenFor
	}
	return a
}

// draw chooses the arm of one call to a version. cohort is nil for a call that takes no part in a comparison.
func (a *arms) draw(version int) (chosen *arm, name string, cohort *counters) {
	if a.candidate == nil || a.weight == 0 {
		return a.baseline[version], "", nil
	}
	switch u := rand.Float64(); {
	case u < a.weight:
		return a.candidate[version], armCandidate, a.trial
	case u < 2*a.weight:
		return a.baseline[version], armBaseline, a.control
	}
	return a.baseline[version], "", nil
}

// refile takes in what a reload says. The settings of a policy that did not change in the file stay as they are,
// promoted or not; those of one that did are replaced, and its candidate is dropped, because it was compared with
// something else. Weights are treated alike.
func (l *live) refile(r Route) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if weights := weightsOf(r); !slices.Equal(l.filedSplit, weights) {
		l.filedSplit = weights
		l.shares.Store(newShares(weights))
	}
	if reflect.DeepEqual(l.filed, r.Policy) {
		return nil
	}
	old := l.arms.Load()
	next := &arms{}
	for _, a := range old.baseline {
		if err := a.policy.Reconfigure(r.Policy); err != nil {
			return err
		}
		next.baseline = append(next.baseline, armOf(a.policy))
	}
	l.filed = r.Policy
	l.arms.Store(next)
	closeArms(old.candidate)
	return nil
}

func weightsOf(r Route) []int {
	var weights []int
	for _, v := range r.versions() {
		weights = append(weights, v.Weight)
	}
	return weights
}

// close ends what the policies run by themselves, except those that kept has taken over. Calls that still use one do not
// fail for it.
func (l *live) close(kept map[*longpole.Policy]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.arms.Load()
	for _, b := range a.baseline {
		if !kept[b.policy] {
			b.policy.Close()
		}
	}
	closeArms(a.candidate)
}

func closeArms(all []*arm) {
	for _, a := range all {
		a.policy.Close()
	}
}

// change runs edit on the arms of a route, one at a time. What edit returns is put in force.
func (g *Gateway) change(name string, edit func(l *live, now *arms) (*arms, error)) error {
	g.reload.Lock() // a reload may be about to carry the arms over
	defer g.reload.Unlock()
	r := g.table.Load().byName[name]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrNoRoute, name)
	}
	if len(r.live.versions) == 0 {
		return fmt.Errorf("%w: %q", ErrNoPolicy, name)
	}
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	next, err := edit(r.live, r.live.arms.Load())
	if err == nil {
		r.live.arms.Store(next)
	}
	return err
}

// Policy is the route's policy in force, the same for all its versions. It returns ErrNoRoute and ErrNoPolicy.
func (g *Gateway) Policy(route string) (longpole.Config, error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return longpole.Config{}, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if len(r.live.versions) == 0 {
		return longpole.Config{}, fmt.Errorf("%w: %q", ErrNoPolicy, route)
	}
	return r.live.arms.Load().baseline[0].policy.Config(), nil
}

// Stage compiles candidate, completed by longpole.Config.Safe, as the route's second arm, without traffic. It returns
// ErrNoRoute, ErrNoPolicy, ErrStaged, or the faults of candidate.
func (g *Gateway) Stage(route string, candidate longpole.Config) error {
	return g.change(route, func(l *live, now *arms) (*arms, error) {
		if now.candidate != nil {
			return nil, fmt.Errorf("%w: %q", ErrStaged, route)
		}
		candidate = candidate.Safe()
		if err := errors.Join(candidate.Validate(), contradictions(candidate)); err != nil {
			return nil, fmt.Errorf("gateway: candidate of %q: %w", route, err)
		}
		all, err := newArms(candidate, l.versions)
		if err != nil {
			return nil, fmt.Errorf("gateway: candidate of %q: %w", route, err)
		}
		g.second.share(all)
		return &arms{baseline: now.baseline, candidate: all, control: new(counters), trial: new(counters)}, nil
	})
}

// Weight sends the share ratio (0..MaxWeight) of the calls to the candidate, and an equal share to the paired baseline
// cohort; each call draws anew. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Weight(route string, ratio float64) error {
	return g.change(route, func(_ *live, now *arms) (*arms, error) {
		if now.candidate == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoCandidate, route)
		}
		if !(ratio >= 0 && ratio <= MaxWeight) {
			return nil, fmt.Errorf("gateway: weight %v of the candidate of %q is not allowed; want 0..%v", ratio, route, MaxWeight)
		}
		next := *now
		next.weight = ratio
		return &next, nil
	})
}

// Tallies are what the two cohorts did since Stage. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Tallies(route string) (baseline, candidate stats.Tally, err error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return baseline, candidate, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	a := r.live.arms.Load()
	if a.candidate == nil {
		return baseline, candidate, fmt.Errorf("%w: %q", ErrNoCandidate, route)
	}
	return a.control.tally(), a.trial.tally(), nil
}

// Promote makes the candidate the route's policy, with what it has learned. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Promote(route string) error {
	return g.settle(route, func(now *arms) (stays, goes []*arm) { return now.candidate, now.baseline })
}

// Discard drops the candidate; from the next call on the route is as it was before Stage. When the candidate, or its
// route, is gone already, as after a reload, there is nothing to do and nothing to report.
func (g *Gateway) Discard(route string) error {
	err := g.settle(route, func(now *arms) (stays, goes []*arm) { return now.baseline, now.candidate })
	if errors.Is(err, ErrNoCandidate) || errors.Is(err, ErrNoRoute) || errors.Is(err, ErrNoPolicy) {
		return nil
	}
	return err
}

func (g *Gateway) settle(route string, choose func(*arms) (stays, goes []*arm)) error {
	var goes []*arm
	err := g.change(route, func(_ *live, now *arms) (*arms, error) {
		if now.candidate == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoCandidate, route)
		}
		var stays []*arm
		stays, goes = choose(now)
		return &arms{baseline: stays}, nil
	})
	if err == nil {
		closeArms(goes)
	}
	return err
}

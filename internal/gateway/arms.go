package gateway

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/internal/httpcache"
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

// The arms, as they stand in records and spans. A call outside of all cohorts has none.
const (
	armBaseline  = "baseline"
	armCandidate = "candidate"
	armPromoted  = "promoted" // beside the holdback
	armHoldback  = "holdback"
)

// live is what a route has learned. It outlives reloads for as long as the route's name and versions stay.
type live struct {
	versions []*version // none = the route answers by itself; they do not change
	figures  *figures

	mu         sync.Mutex // serialises changes of what follows
	arms       atomic.Pointer[arms]
	shares     atomic.Pointer[shares]
	filed      longpole.Config // what the file says; a promoted candidate differs from it
	killed     parts           // switched off by hand, in all arms
	filedSplit []int           // what the file says; Split may differ from it
}

// arms are immutable: a change stores new ones. Each version has its own arm of each kind; a rollout is of all at once.
type arms struct {
	baseline  []*arm   // by version
	candidate *trial   // nil = no rollout
	holdbacks []*trial // the policy in force less one promoted change each, on a few calls; nil = none
	halves    *trial   // the baseline against itself; nil = none. Whatever changes the baseline or stages a candidate ends it
}

// each calls with for the arms of every kind, by version.
func (a *arms) each(with func([]*arm)) {
	with(a.baseline)
	if a.candidate != nil {
		with(a.candidate.arms)
		with(a.candidate.twins)
	}
	for _, t := range a.holdbacks {
		with(t.arms)
		with(t.twins)
	}
}

// closeTrials ends the policies that are compared with the baseline.
func (a *arms) closeTrials() {
	a.candidate.close()
	for _, t := range a.holdbacks {
		t.close()
	}
}

// arm is one policy, with what the exchange asks of its settings on every call.
type arm struct {
	policy  *longpole.Policy
	wanted  longpole.Config // the policy's settings but for what is switched off by hand
	caches  bool
	rules   httpcache.Rules // of its cache
	hedges  bool
	retries bool
	reopen  time.Duration // how long an open breaker stays so
}

func newArm(c longpole.Config, off parts, u *upstream) (*arm, error) {
	var set *balance.Set
	if u != nil {
		set = u.set
	}
	p, err := longpole.New(off.without(c), set)
	if err != nil {
		return nil, err
	}
	if u != nil {
		p.SetProber(u.ask)
	}
	return armOf(p, c), nil
}

// newArms makes one arm for each version.
func newArms(c longpole.Config, off parts, versions []*version) ([]*arm, error) {
	all := make([]*arm, 0, len(versions))
	for _, v := range versions {
		a, err := newArm(c, off, v.upstream)
		if err != nil {
			closeArms(all)
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// armOf is the arm of a policy whose settings are wanted, or wanted less what is switched off.
func armOf(p *longpole.Policy, wanted longpole.Config) *arm {
	c := p.Config().WithDefaults()
	a := &arm{policy: p, wanted: wanted, caches: c.Cache != nil, rules: rulesOf(c.Cache), hedges: c.Retry != nil && !c.Retry.Off && c.Retry.Hedge != nil, retries: c.Retry == nil || !c.Retry.Off}
	if c.Breaker != nil {
		a.reopen = c.Breaker.OpenFor
	}
	return a
}

// set gives the policies of old the settings c, less what is switched off, and returns their arms.
func set(old []*arm, c longpole.Config, off parts) ([]*arm, error) {
	next := make([]*arm, 0, len(old))
	for _, a := range old {
		if err := a.policy.Reconfigure(off.without(c)); err != nil {
			return nil, err
		}
		next = append(next, armOf(a.policy, c))
	}
	return next, nil
}

// refile takes in what a reload says. The settings of a policy that did not change in the file stay as they are,
// promoted or not; those of one that did are replaced, and its candidate is dropped, because it was compared with
// something else. Weights are treated alike. A file that has caught up with what was promoted changes nothing: what is
// compared with that, as holdbacks are, goes on.
func (l *live) refile(r Route) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.arms.Load()
	if weights := weightsOf(r); !slices.Equal(l.filedSplit, weights) {
		l.filedSplit = weights
		same := slices.Equal(l.shares.Load().weights, weights)
		l.shares.Store(newShares(weights))
		if t := old.candidate; t != nil && t.version >= 0 && !same {
			next := *old
			next.candidate, next.halves = nil, nil
			l.arms.Store(&next)
			old = &next
		}
	}
	if reflect.DeepEqual(l.filed, r.Policy) {
		return nil
	}
	if len(old.baseline) > 0 && reflect.DeepEqual(old.baseline[0].wanted, r.Policy) {
		l.filed = r.Policy
		return nil
	}
	next, err := set(old.baseline, r.Policy, l.killed)
	if err != nil {
		return err
	}
	l.filed = r.Policy
	l.arms.Store(&arms{baseline: next})
	old.closeTrials()
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
	a.closeTrials()
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

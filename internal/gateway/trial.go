package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
)

// trial compares another way to treat a route's calls with the one in force. It is immutable but for its counters.
type trial struct {
	name    string  // of a holdback
	arms    []*arm  // by version; nil = the policy in force
	twins   []*arm  // of the paired baseline, by version: the policy in force, with a cache that as few calls fill; nil = what is in force
	version int     // that gets the trial's calls; -1 = as the weights say
	weight  float64 // share of the calls; an equal one is the paired baseline
	block   block   // all calls take part instead, by turns
	salt    uint64  // keeps those whom a sticky key chose once from being chosen every time
	names   [2]string
	control *cohort // of the paired baseline
	tried   *cohort
}

// block is the turn that a switchback is at.
type block uint8

const (
	paired   block = iota // no switchback: a share of the calls each
	washOn                // the trial's turn; what the other turn left behind is still felt, and not counted
	countOn               // the trial's turn
	washOff               // the baseline's turn, not counted
	countOff              // the baseline's turn
)

// notDrawn is no point of 0..1.
const notDrawn = -1.0

func newTrial(all []*arm, version int, names [2]string) *trial {
	t := &trial{arms: all, version: version, salt: rand.Uint64(), names: names, control: new(cohort), tried: new(cohort)}
	if version >= 0 { // what the versions are called is no difference: the new one's calls would be calls to a downstream that the old one never made
		t.control.upstream, t.tried.upstream = anyVersion, anyVersion
	}
	return t
}

// anyVersion is what the versions that are compared are both called among the downstreams.
const anyVersion = "upstream"

func (t *trial) close() {
	if t != nil {
		closeArms(t.arms)
		closeArms(t.twins)
	}
}

// side says whether the call at a point of 0..1 is treated by the trial, and where it counts; nil = nowhere.
func (t *trial) side(point float64) (tried bool, to *cohort) {
	switch t.block {
	case washOn:
		return true, nil
	case countOn:
		return true, t.tried
	case washOff:
		return false, nil
	case countOff:
		return false, t.control
	}
	switch {
	case point < t.weight:
		return true, t.tried
	case point < 2*t.weight:
		return false, t.control
	}
	return false, nil
}

// live reports whether some calls take part.
func (t *trial) live() bool { return t != nil && (t.weight > 0 || t.block != paired) }

// draw chooses the version and the arm of the call, and the cohort that it counts for. A route that answers by itself has
// neither.
func (v *visit) draw() {
	l := v.route.live
	if len(l.versions) == 0 {
		return
	}
	i := 0
	if len(l.versions) > 1 {
		i = l.shares.Load().pick(v.point(0))
	}
	a := l.arms.Load()
	v.arm = a.baseline[i]
	if a.candidate != nil || len(a.holdbacks) > 0 || a.halves != nil {
		i = v.compare(a, i)
	}
	v.version = l.versions[i]
}

// compare lets the call take part in one trial at most, the rollout's first.
func (v *visit) compare(a *arms, i int) (version int) {
	if i, took := v.join(a, a.candidate, i); took {
		return i
	}
	for _, t := range a.holdbacks {
		if i, took := v.join(a, t, i); took {
			return i
		}
	}
	i, _ = v.join(a, a.halves, i)
	return i
}

// join lets the call take part in t, if it is drawn.
func (v *visit) join(a *arms, t *trial, i int) (version int, took bool) {
	if !t.live() {
		return i, false
	}
	point := notDrawn
	if t.block == paired {
		point = v.point(t.salt)
	}
	tried, to := t.side(point)
	if !tried && to == nil {
		return i, false
	}
	v.cohort = to
	if !tried {
		v.rec.Arm = t.names[0]
		if t.twins != nil && t.block == paired { // in turns each arm has all calls
			v.arm = t.twins[i]
		}
		return i, true
	}
	v.rec.Arm = t.names[1]
	if t.version >= 0 {
		i = t.version
		v.arm = a.baseline[i]
	}
	if t.arms != nil {
		v.arm = t.arms[i]
	}
	return i, true
}

// Policy is the route's policy in force, the same for all its versions, with what is switched off by hand still in it. It
// returns ErrNoRoute and ErrNoPolicy.
func (g *Gateway) Policy(route string) (longpole.Config, error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return longpole.Config{}, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if len(r.live.versions) == 0 {
		return longpole.Config{}, fmt.Errorf("%w: %q", ErrNoPolicy, route)
	}
	return r.live.arms.Load().baseline[0].wanted, nil
}

// Stage compiles candidate, completed by longpole.Config.Safe, as the route's second arm, without traffic. A cache that few
// calls fill is no match for one that all fill: where both policies have one, the paired baseline cohort has its own, too. It
// returns ErrNoRoute, ErrNoPolicy, ErrStaged, or the faults of candidate.
func (g *Gateway) Stage(route string, candidate longpole.Config) error {
	return g.change(route, func(l *live, now *arms) (*arms, error) {
		if now.candidate != nil {
			return nil, fmt.Errorf("%w: %q", ErrStaged, route)
		}
		t, err := g.trialOf(route, candidate, l, now, [2]string{armBaseline, armCandidate})
		if err != nil {
			return nil, err
		}
		return &arms{baseline: now.baseline, candidate: t, holdbacks: now.holdbacks}, nil
	})
}

// trialOf compares c with what is in force.
func (g *Gateway) trialOf(route string, c longpole.Config, l *live, now *arms, names [2]string) (*trial, error) {
	all, err := g.armsFor(route, c, l)
	if err != nil {
		return nil, err
	}
	t := newTrial(all, -1, names)
	if inForce := now.baseline[0].wanted; c.Cache != nil && inForce.Cache != nil {
		if t.twins, err = g.armsFor(route, inForce, l); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

// armsFor compiles the settings that somebody asks for by hand.
func (g *Gateway) armsFor(route string, c longpole.Config, l *live) ([]*arm, error) {
	c = c.Safe()
	err := errors.Join(c.Validate(), contradictions(c))
	var all []*arm
	if err == nil {
		all, err = newArms(c, l.killed, l.versions)
	}
	if err != nil {
		return nil, fmt.Errorf("gateway: policy for %q: %w", route, err)
	}
	g.second.share(all)
	return all, nil
}

// StageVersion makes the version of the route's split whose upstream has that name the candidate, without traffic beyond
// what its weight gives it. It returns ErrNoRoute, ErrNoSplit and ErrStaged.
func (g *Gateway) StageVersion(route, upstream string) error {
	return g.change(route, func(l *live, now *arms) (*arms, error) {
		if now.candidate != nil {
			return nil, fmt.Errorf("%w: %q", ErrStaged, route)
		}
		i, weights := l.find(upstream), l.shares.Load()
		if i < 0 || len(l.versions) < 2 {
			return nil, fmt.Errorf("%w: %q has no version %q", ErrNoSplit, route, upstream)
		}
		if weights.weights[i] > 0 {
			return nil, fmt.Errorf("gateway: version %q of %q has a weight already; set it to 0 first, so that the baseline is without it", upstream, route)
		}
		return &arms{baseline: now.baseline, candidate: newTrial(nil, i, [2]string{armBaseline, armCandidate}), holdbacks: now.holdbacks}, nil
	})
}

// find is the place of the version with that upstream, or -1.
func (l *live) find(upstream string) int {
	for i, v := range l.versions {
		if v.name() == upstream && upstream != "" {
			return i
		}
	}
	return -1
}

// Weight sends the share ratio (0..MaxWeight) of the calls to the candidate, and an equal share to the paired baseline
// cohort. Each call draws anew, or by the route's sticky key. It ends a switchback. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Weight(route string, ratio float64) error {
	if !(ratio >= 0 && ratio <= MaxWeight) {
		return fmt.Errorf("gateway: weight %v of the candidate of %q is not allowed; want 0..%v", ratio, route, MaxWeight)
	}
	return g.onCandidate(route, func(t *trial) { t.weight, t.block = ratio, paired })
}

// Turn sends all calls to the candidate, or none, until the next Turn: the blocks of a switchback, for policies whose arms
// would feel each other through what they share. Without counted the calls count for neither cohort, as at the beginning
// of a block. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Turn(route string, candidate, counted bool) error {
	turn := map[[2]bool]block{{true, true}: countOn, {true, false}: washOn, {false, true}: countOff, {false, false}: washOff}[[2]bool{candidate, counted}]
	return g.onCandidate(route, func(t *trial) { t.weight, t.block = 0, turn })
}

func (g *Gateway) onCandidate(route string, edit func(*trial)) error {
	return g.change(route, func(_ *live, now *arms) (*arms, error) {
		if now.candidate == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoCandidate, route)
		}
		next := *now
		t := *now.candidate
		edit(&t)
		next.candidate = &t
		return &next, nil
	})
}

// Tallies are what the two cohorts did since Stage. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Tallies(route string) (baseline, candidate stats.Tally, err error) {
	return g.tallies(route, func(a *arms) *trial { return a.candidate })
}

// Held are what the two cohorts of the holdback of that name did since Hold: calls under the policy in force, and as many
// under the one held back. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Held(route, name string) (promoted, heldBack stats.Tally, err error) {
	return g.tallies(route, func(a *arms) *trial {
		if i := a.held(name); i >= 0 {
			return a.holdbacks[i]
		}
		return nil
	})
}

// held is the place of the holdback of that name, or -1.
func (a *arms) held(name string) int {
	return slices.IndexFunc(a.holdbacks, func(t *trial) bool { return t.name == name })
}

func (g *Gateway) tallies(route string, which func(*arms) *trial) (control, tried stats.Tally, err error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return control, tried, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	t := which(r.live.arms.Load())
	if t == nil {
		return control, tried, fmt.Errorf("%w: %q", ErrNoCandidate, route)
	}
	return t.control.tally(), t.tried.tally(), nil
}

// Promote makes the candidate the route's policy, with what it has learned, or gives a version all calls. All holdbacks end:
// they are policies less one change, and the policy is another one now. It returns ErrNoRoute and ErrNoCandidate.
func (g *Gateway) Promote(route string) error {
	var goes []*arm
	var holdbacks []*trial
	err := g.change(route, func(l *live, now *arms) (*arms, error) {
		t := now.candidate
		if t == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoCandidate, route)
		}
		next := &arms{baseline: now.baseline}
		if t.arms != nil {
			next.baseline, goes = t.arms, slices.Concat(now.baseline, t.twins)
		}
		if t.version >= 0 {
			weights := make([]int, len(l.versions))
			weights[t.version] = 1
			l.shares.Store(newShares(weights))
		}
		holdbacks = now.holdbacks
		return next, nil
	})
	if err == nil {
		closeArms(goes)
		for _, h := range holdbacks {
			h.close()
		}
	}
	return err
}

// Discard drops the candidate; from the next call on the route is as it was before Stage. When the candidate, or its
// route, is gone already, as after a reload, there is nothing to do and nothing to report.
func (g *Gateway) Discard(route string) error {
	return g.drop(route, func(a *arms) (old *trial) {
		old, a.candidate = a.candidate, nil
		return old
	})
}

// What the holdbacks of a route may come to.
const (
	mostHoldbacks = 10
	mostHeldBack  = 0.1 // of the calls, all together
)

// Hold keeps the share ratio of a route's calls under the policy without, and compares them with as many under the one in
// force, so that it is known for as long as it lasts what the difference is worth. Caches are as with Stage. It takes the place of
// a holdback of that name, which goes on undisturbed when it is the same. A route has at most 10, with 10% of the calls together. It
// returns ErrNoRoute, ErrNoPolicy, or the faults of without.
func (g *Gateway) Hold(route, name string, without longpole.Config, ratio float64) error {
	var old *trial
	err := g.change(route, func(l *live, now *arms) (*arms, error) {
		at, sum := now.held(name), ratio
		for i, t := range now.holdbacks {
			if i != at {
				sum += t.weight
			}
		}
		switch {
		case !(ratio > 0 && sum <= mostHeldBack+1e-9) || at < 0 && len(now.holdbacks) == mostHoldbacks:
			return nil, fmt.Errorf("gateway: a holdback of %v on %q is not allowed; want above 0, up to %v and %d with all others", ratio, route, mostHeldBack, mostHoldbacks)
		case at >= 0 && now.holdbacks[at].weight == ratio && reflect.DeepEqual(now.holdbacks[at].arms[0].wanted, without.Safe()):
			return now, nil
		}
		t, err := g.trialOf(route, without, l, now, [2]string{armPromoted, armHoldback})
		if err != nil {
			return nil, err
		}
		t.name, t.weight = name, ratio
		next := *now
		next.holdbacks = slices.Clone(now.holdbacks)
		if at >= 0 {
			old, next.holdbacks[at] = now.holdbacks[at], t
		} else {
			next.holdbacks = append(next.holdbacks, t)
		}
		return &next, nil
	})
	if err == nil {
		old.close()
	}
	return err
}

// Release ends the holdback of that name. Without one there is nothing to do and nothing to report.
func (g *Gateway) Release(route, name string) error {
	return g.drop(route, func(a *arms) (old *trial) {
		if i := a.held(name); i >= 0 {
			old, a.holdbacks = a.holdbacks[i], slices.Delete(slices.Clone(a.holdbacks), i, i+1)
		}
		return old
	})
}

// drop takes a trial out of the arms.
func (g *Gateway) drop(route string, take func(*arms) *trial) error {
	var old *trial
	err := g.change(route, func(_ *live, now *arms) (*arms, error) {
		next := *now
		old = take(&next)
		return &next, nil
	})
	if errors.Is(err, ErrNoRoute) || errors.Is(err, ErrNoPolicy) {
		return nil
	}
	if err == nil {
		old.close()
	}
	return err
}

// Adopt puts c, completed by longpole.Config.Safe, in force on a route at once, without a trial: to undo a promotion, or to
// restore one after a restart. Candidate and holdbacks, which were compared with something else, are dropped. It returns
// ErrNoRoute, ErrNoPolicy, or the faults of c.
func (g *Gateway) Adopt(route string, c longpole.Config) error {
	var old *arms
	err := g.change(route, func(l *live, now *arms) (*arms, error) {
		c := c.Safe()
		if err := errors.Join(c.Validate(), contradictions(c)); err != nil {
			return nil, fmt.Errorf("gateway: policy for %q: %w", route, err)
		}
		all, err := set(now.baseline, c, l.killed)
		if err != nil {
			return nil, err
		}
		old = now
		g.second.share(all)
		return &arms{baseline: all}, nil
	})
	if err == nil {
		old.closeTrials()
	}
	return err
}

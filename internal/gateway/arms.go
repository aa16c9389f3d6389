package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
)

// Why a rollout's step was refused.
var (
	ErrNoRoute     = errors.New("gateway: no such route")
	ErrNoCandidate = errors.New("gateway: the route has no candidate")
	ErrStaged      = errors.New("gateway: the route has a candidate already")
)

// MaxWeight is the largest share of calls for a candidate: the paired baseline takes as many.
const MaxWeight = 0.5

// The arms, as they stand in records and spans. A call outside of both cohorts has none.
const (
	armBaseline  = "baseline"
	armCandidate = "candidate"
)

// live is what a route has learned. It outlives reloads for as long as the route's name and upstream stay.
type live struct {
	upstream *upstream
	figures  *figures

	mu    sync.Mutex // serialises changes of arms and filed
	arms  atomic.Pointer[arms]
	filed longpole.Config // what the file says; a promoted candidate differs from it
}

// arms are immutable: a change stores new ones.
type arms struct {
	baseline  *arm
	candidate *arm      // nil = no rollout
	weight    float64   // share of the calls for the candidate; an equal one for the paired baseline
	control   *counters // of the paired baseline, since Stage
	trial     *counters // of the candidate, since Stage
}

// arm is one policy, with what the exchange asks of its settings on every call.
type arm struct {
	policy *longpole.Policy
	caches bool
	reopen time.Duration // how long an open breaker stays so
}

func newArm(c longpole.Config, u *upstream) (*arm, error) {
	p, err := longpole.New(c, u.set)
	if err != nil {
		return nil, err
	}
	return armOf(p), nil
}

func armOf(p *longpole.Policy) *arm {
	c := p.Config().WithDefaults()
	a := &arm{policy: p, caches: c.Cache != nil}
	if c.Breaker != nil {
		a.reopen = c.Breaker.OpenFor
	}
	return a
}

// draw chooses the arm of one call. cohort is nil for a call that takes no part in a comparison.
func (a *arms) draw() (chosen *arm, name string, cohort *counters) {
	if a.candidate == nil || a.weight == 0 {
		return a.baseline, "", nil
	}
	switch u := rand.Float64(); {
	case u < a.weight:
		return a.candidate, armCandidate, a.trial
	case u < 2*a.weight:
		return a.baseline, armBaseline, a.control
	}
	return a.baseline, "", nil
}

// refile takes in what a reload says. The settings of a policy that did not change in the file stay as they are,
// promoted or not; those of one that did are replaced, and its candidate is dropped, because it was compared with
// something else.
func (l *live) refile(c longpole.Config) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(l.filed, c) {
		return nil
	}
	old := l.arms.Load()
	if err := old.baseline.policy.Reconfigure(c); err != nil {
		return err
	}
	l.filed = c
	l.arms.Store(&arms{baseline: armOf(old.baseline.policy)})
	old.candidate.close()
	return nil
}

func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.arms.Load()
	a.baseline.close()
	a.candidate.close()
}

// close ends what the policy runs by itself. Calls that still use it do not fail for it.
func (a *arm) close() {
	if a != nil {
		a.policy.Close()
	}
}

// change runs edit on the arms of a route, one at a time. What edit returns is put in force.
func (g *Gateway) change(name string, edit func(l *live, now *arms) (*arms, error)) error {
	r := g.table.Load().byName[name]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrNoRoute, name)
	}
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	next, err := edit(r.live, r.live.arms.Load())
	if err == nil {
		r.live.arms.Store(next)
	}
	return err
}

// Policy is the route's policy in force. It returns ErrNoRoute.
func (g *Gateway) Policy(route string) (longpole.Config, error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return longpole.Config{}, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	return r.live.arms.Load().baseline.policy.Config(), nil
}

// Stage compiles candidate, completed by longpole.Config.Safe, as the route's second arm, without traffic. It returns
// ErrNoRoute, ErrStaged, or the faults of candidate.
func (g *Gateway) Stage(route string, candidate longpole.Config) error {
	return g.change(route, func(l *live, now *arms) (*arms, error) {
		if now.candidate != nil {
			return nil, fmt.Errorf("%w: %q", ErrStaged, route)
		}
		candidate = candidate.Safe()
		if err := errors.Join(candidate.Validate(), contradictions(candidate)); err != nil {
			return nil, fmt.Errorf("gateway: candidate of %q: %w", route, err)
		}
		a, err := newArm(candidate, l.upstream)
		if err != nil {
			return nil, fmt.Errorf("gateway: candidate of %q: %w", route, err)
		}
		return &arms{baseline: now.baseline, candidate: a, control: new(counters), trial: new(counters)}, nil
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
	return g.settle(route, func(now *arms) (stays, goes *arm) { return now.candidate, now.baseline })
}

// Discard drops the candidate; from the next call on the route is as it was before Stage. When the candidate, or its
// route, is gone already, as after a reload, there is nothing to do and nothing to report.
func (g *Gateway) Discard(route string) error {
	err := g.settle(route, func(now *arms) (stays, goes *arm) { return now.baseline, now.candidate })
	if errors.Is(err, ErrNoCandidate) || errors.Is(err, ErrNoRoute) {
		return nil
	}
	return err
}

func (g *Gateway) settle(route string, choose func(*arms) (stays, goes *arm)) error {
	var goes *arm
	err := g.change(route, func(_ *live, now *arms) (*arms, error) {
		if now.candidate == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoCandidate, route)
		}
		var stays *arm
		stays, goes = choose(now)
		return &arms{baseline: stays}, nil
	})
	if err == nil {
		goes.close()
	}
	return err
}

// table is the routes in force. It is immutable.
type table struct {
	cfg    Config
	routes []*route
	byName map[string]*route
	hosts  bool // some route asks for one

	upstreams map[string]*upstream // for the fallbacks
}

// route is one line of the table.
type route struct {
	cfg   Route
	match Match // host in lower case
	live  *live
}

// find returns the route of a call; nil when none takes it.
func (t *table) find(r *http.Request) *route {
	host := ""
	if t.hosts {
		host = hostOf(r)
	}
	for _, c := range t.routes {
		if c.match.takes(r.Method, host, r.URL.Path) {
			return c
		}
	}
	return nil
}

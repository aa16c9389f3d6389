package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/internal/stats"
)

// ErrNoSplit says that a route's calls all go one way.
var ErrNoSplit = errors.New("gateway: the route has no versions to split calls between")

// The bounds on Route.Split.
const (
	maxVersions = 16
	maxWeight   = 1_000_000
)

// version is one of the upstreams that a route's calls are split between, or its only one.
type version struct {
	upstream *upstream // nil = the route makes its calls without one of its own
	figures  *figures  // nil = it is the only one, and the route's figures are its own
}

func (v *version) name() string {
	if v.upstream == nil {
		return ""
	}
	return v.upstream.name
}

// shares are the weights in force. They are immutable.
type shares struct {
	weights []int
	sum     int
}

func newShares(weights []int) *shares {
	s := &shares{weights: weights}
	for _, w := range weights {
		s.sum += w
	}
	return s
}

// pick is the version at a point of 0..1. The versions lie side by side in their order, so that a change of weights moves
// only the callers at the borders between them.
func (s *shares) pick(point float64) int {
	at := point * float64(s.sum)
	last := 0
	for i, w := range s.weights {
		if w == 0 {
			continue
		}
		if at -= float64(w); at < 0 {
			return i
		}
		last = i
	}
	return last // a rounding error beyond the end
}

// point is where the call lies between 0 and 1: by its key, where the route has one and the call too, else by chance. salt
// tells apart what is drawn.
func (v *visit) point(salt uint64) float64 {
	if k := v.route.cfg.Sticky; k != nil {
		if key := k.value(v); key != "" {
			// The route's name keeps the same callers from being the first to try every new version.
			return float64(mix(hashOf(key)^hashOf(v.route.cfg.Name)^mix(salt))>>11) / (1 << 53)
		}
	}
	return rand.Float64()
}

// Split changes the weights (0..1000000, their sum above 0) of a route's versions by the names of their upstreams; those
// that weights does not name keep theirs. It holds until a reload changes the route's split, and takes effect with the next
// call. Policies, candidates and what the versions have learned stay. It returns ErrNoRoute, ErrNoSplit, and ErrStaged while
// a version is tried: its baseline must not change under it.
func (g *Gateway) Split(route string, weights map[string]int) error {
	g.reload.Lock() // a reload may be about to carry the weights over
	defer g.reload.Unlock()
	r := g.table.Load().byName[route]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	l := r.live
	if len(l.versions) < 2 {
		return fmt.Errorf("%w: %q", ErrNoSplit, route)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.arms.Load().candidate; t != nil && t.version >= 0 {
		return fmt.Errorf("%w: %q tries version %q", ErrStaged, route, l.versions[t.version].name())
	}
	next, named := slices.Clone(l.shares.Load().weights), 0
	for i, v := range l.versions {
		w, ok := weights[v.name()]
		if !ok {
			continue
		}
		named++
		if w < 0 || w > maxWeight {
			return fmt.Errorf("gateway: weight %d of %q is not allowed; want 0..%d", w, v.name(), maxWeight)
		}
		next[i] = w
	}
	s := newShares(next)
	switch {
	case named < len(weights):
		return fmt.Errorf("gateway: route %q: weights name an upstream that is none of its versions", route)
	case s.sum == 0:
		return fmt.Errorf("gateway: route %q: no version would have a weight above 0", route)
	}
	l.shares.Store(s)
	return nil
}

// Weights are those of a route's versions that are in force, by the names of their upstreams. It returns ErrNoRoute and
// ErrNoSplit.
func (g *Gateway) Weights(route string) (map[string]int, error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if len(r.live.versions) < 2 {
		return nil, fmt.Errorf("%w: %q", ErrNoSplit, route)
	}
	all := make(map[string]int, len(r.live.versions))
	weights := r.live.shares.Load().weights
	for i, v := range r.live.versions {
		all[v.name()] = weights[i]
	}
	return all, nil
}

// Versions are what each version of a route has done since it began, by the names of their upstreams. It returns
// ErrNoRoute and ErrNoSplit.
func (g *Gateway) Versions(route string) (map[string]stats.Tally, error) {
	r := g.table.Load().byName[route]
	if r == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if len(r.live.versions) < 2 {
		return nil, fmt.Errorf("%w: %q", ErrNoSplit, route)
	}
	all := make(map[string]stats.Tally, len(r.live.versions))
	for _, v := range r.live.versions {
		all[v.name()] = v.figures.tally()
	}
	return all, nil
}

// upstream is that of the version the call was drawn to; nil = none.
func (v *visit) upstream() *upstream {
	if v.version == nil {
		return nil
	}
	return v.version.upstream
}

// health is how the endpoints of the call are checked.
func (v *visit) health() balance.HealthConfig {
	if u := v.upstream(); u != nil {
		return u.cfg.Load().Health
	}
	return balance.HealthConfig{}
}

// observe tells the version and the endpoints what they did for the call.
func (v *visit) observe(now time.Time) {
	if v.version == nil {
		return
	}
	if f := v.version.figures; f != nil {
		f.add(now, &v.rec)
	}
	u := v.upstream()
	if u == nil {
		return
	}
	places := u.cfg.Load().places
	for i := range v.rec.Kept() {
		a := &v.rec.Attempts[i]
		if e := places[a.Endpoint]; e != nil {
			e.observe(now, a)
		}
	}
}

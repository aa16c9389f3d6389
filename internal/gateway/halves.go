package gateway

import (
	"fmt"

	"github.com/longpole/longpole/internal/stats"
)

// Halve compares the policy of a route with itself, so that it is known how often a judge sees a difference where there is
// none: two equal shares ratio (above 0, up to MaxWeight) of the calls are counted apart, and treated as all others are. It
// ends when a candidate is staged or the policy changes. It returns ErrNoRoute, ErrNoPolicy, and ErrStaged while there is a
// candidate.
func (g *Gateway) Halve(route string, ratio float64) error {
	if !(ratio > 0 && ratio <= MaxWeight) {
		return fmt.Errorf("gateway: halves of %v of %q are not allowed; want above 0, up to %v", ratio, route, MaxWeight)
	}
	return g.change(route, func(_ *live, now *arms) (*arms, error) {
		if now.candidate != nil {
			return nil, fmt.Errorf("%w: %q", ErrStaged, route)
		}
		next := *now
		next.halves = newTrial(nil, -1, [2]string{})
		next.halves.weight = ratio
		return &next, nil
	})
}

// Halves are what the two halves did since Halve. It returns ErrNoRoute, and ErrNoCandidate when there are none or no more.
func (g *Gateway) Halves(route string) (one, other stats.Tally, err error) {
	return g.tallies(route, func(a *arms) *trial { return a.halves })
}

// Unhalve ends Halve. Without halves there is nothing to do and nothing to report.
func (g *Gateway) Unhalve(route string) error {
	return g.drop(route, func(a *arms) (old *trial) {
		old, a.halves = a.halves, nil
		return old
	})
}

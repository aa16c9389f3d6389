package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/retry"
)

// parts is a set of the parts of a policy that a kill switch reaches.
type parts uint8

// partNames are the parts in the order of their bits.
var partNames = []string{"cache", "limit", "retry", "hedge", "breaker", "eject", "fallback"}

// allParts is every part that can be switched off. Timeouts and the choice of an endpoint stay.
const allParts parts = 1<<7 - 1

// PartNames are the names that Kill takes, besides "all".
func PartNames() []string { return slices.Clone(partNames) }

// parseParts reads names; "all" is every part.
func parseParts(names ...string) (parts, error) {
	var p parts
	for _, name := range names {
		switch i := slices.Index(partNames, name); {
		case name == "all":
			p = allParts
		case i < 0:
			return 0, fmt.Errorf("gateway: %q is no part of a policy; want all, %s", name, strings.Join(partNames, ", "))
		default:
			p |= 1 << i
		}
	}
	return p, nil
}

// names are those of the parts in p.
func (p parts) names() []string {
	names := []string{}
	for i, name := range partNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (p parts) has(name string) bool { return p&(1<<slices.Index(partNames, name)) != 0 }

// without is c with the parts in p switched off. It shares nothing with c that it changes.
func (p parts) without(c longpole.Config) longpole.Config {
	if p == 0 {
		return c
	}
	if p.has("cache") {
		c.Cache = nil
		if c.Fallback != nil && c.Fallback.Stale > 0 { // there is nothing stale without a cache
			f := *c.Fallback
			f.Stale, c.Fallback = 0, &f
		}
	}
	if p.has("limit") {
		c.Limit = nil
	}
	if p.has("retry") {
		c.Retry = &retry.Config{Off: true}
	} else if p.has("hedge") && c.Retry != nil {
		r := *c.Retry
		r.Hedge, c.Retry = nil, &r
	}
	if p.has("breaker") {
		c.Breaker = &breaker.Config{Off: true}
	}
	if p.has("eject") && c.Balance != nil {
		b := *c.Balance
		b.Eject, c.Balance = (*balance.Eject)(nil), &b
	}
	if p.has("fallback") {
		c.Fallback = nil
	}
	return c
}

// Kill switches the named parts of the policy of a route off, in all its arms, and all other parts on again; route "" is
// every route, those that a reload brings later included. It takes effect with the next call, and what a policy has learned
// stays. It returns ErrNoRoute, ErrNoPolicy, or what is wrong with names.
func (g *Gateway) Kill(route string, names ...string) error {
	off, err := parseParts(names...)
	if err != nil {
		return err
	}
	g.reload.Lock()
	defer g.reload.Unlock()
	t := g.table.Load()
	if route == "" {
		g.killed.everywhere = off
		var errs []error // one route that refuses keeps no other from it
		for _, r := range t.byName {
			errs = append(errs, g.enforce(r))
		}
		return errors.Join(errs...)
	}
	r := t.byName[route]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if len(r.live.versions) == 0 {
		return fmt.Errorf("%w: %q", ErrNoPolicy, route)
	}
	if g.killed.routes == nil {
		g.killed.routes = map[string]parts{}
	}
	g.killed.routes[route] = off
	var errs []error
	for _, p := range append([]part{{route: r}}, r.ways.parts...) { // parts of an aggregate are part of their route
		errs = append(errs, g.enforce(p.route))
	}
	return errors.Join(errs...)
}

// enforce tells the policies of a route what is switched off.
func (g *Gateway) enforce(r *route) error {
	if err := r.live.kill(g.killed.on(r.cfg.Name)); err != nil {
		return fmt.Errorf("gateway: route %q: %w", r.cfg.Name, err)
	}
	return nil
}

// Killed is what is switched off by hand, by route; "" is every route.
func (g *Gateway) Killed() map[string][]string {
	g.reload.Lock()
	defer g.reload.Unlock()
	all := map[string][]string{}
	for name, p := range g.killed.routes {
		if p != 0 {
			all[name] = p.names()
		}
	}
	if p := g.killed.everywhere; p != 0 {
		all[""] = p.names()
	}
	return all
}

// killed is guarded by Gateway.reload.
type killed struct {
	everywhere parts
	routes     map[string]parts
}

// on is what is switched off on a route, or on a part of it, whose name has a # behind the route's.
func (k *killed) on(route string) parts {
	name, _, _ := strings.Cut(route, "#")
	return k.everywhere | k.routes[name]
}

// kill gives every arm its settings less the parts.
func (l *live) kill(off parts) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed == off {
		return nil
	}
	old := l.arms.Load()
	if old == nil || len(old.baseline) == 0 {
		l.killed = off
		return nil
	}
	next := *old
	var err error
	if next.baseline, err = set(old.baseline, old.baseline[0].wanted, off); err != nil {
		return err
	}
	if next.candidate, err = old.candidate.without(off); err != nil {
		return err
	}
	next.holdbacks = slices.Clone(old.holdbacks)
	for i, t := range old.holdbacks {
		if next.holdbacks[i], err = t.without(off); err != nil {
			return err
		}
	}
	l.killed = off
	l.arms.Store(&next)
	return nil
}

// without is the trial with the parts of its policies switched off, and all others on.
func (t *trial) without(off parts) (*trial, error) {
	if t == nil || len(t.arms) == 0 {
		return t, nil
	}
	next := *t
	var err error
	if next.arms, err = set(t.arms, t.arms[0].wanted, off); err == nil && t.twins != nil {
		next.twins, err = set(t.twins, t.twins[0].wanted, off)
	}
	return &next, err
}

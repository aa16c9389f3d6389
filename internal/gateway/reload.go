package gateway

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/routing"
	"github.com/longpole/longpole/setting"
)

// Reload puts c in force while calls run; none is dropped, and those under way end as they began. What keeps its name
// keeps what it learned: an upstream its endpoints' load and health, a route its figures and, while its upstream is the
// same, its policy and a running candidate. On error nothing changes. Addresses cannot change while the gateway runs.
func (g *Gateway) Reload(c Config) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return err
	}
	old := g.table.Load()
	if err := sameAddresses(old, &c); err != nil {
		return err
	}
	tls, err := g.secure(&c)
	if err != nil {
		return err
	}
	next, fresh, err := g.compile(old, &c, tls)
	if err != nil {
		return err
	}
	g.commit(old, next, fresh, tls)
	g.show(tls)
	return nil
}

// sameAddresses refuses what would need a restart: addresses, and what they were opened with. Certificates may change.
func sameAddresses(old *table, c *Config) error {
	if old.byName == nil {
		return nil
	}
	var f setting.Faults
	addresses := func(c *Config) string {
		var all []string
		for _, l := range c.Listen {
			all = append(all, fmt.Sprintf("%s tls=%t", l.Address, l.TLS != nil))
		}
		return strings.Join(all, ", ")
	}
	f.Check(addresses(&old.cfg) == addresses(c), "listen", addresses(c), "the addresses that the gateway was started with; restart it to change them")
	f.Check(old.cfg.Admin == c.Admin, "admin", c.Admin, old.cfg.Admin+"; restart to change it")
	f.Check(old.cfg.Offload == c.Offload, "offload", c.Offload.Dir+c.Offload.URL, "the store that the gateway was started with; restart it to change it")
	f.Check(reflect.DeepEqual(old.cfg.State, c.State), "state", c.State, "the store that the gateway was started with; restart it to change it")
	f.Check(old.cfg.OTLP == c.OTLP, "otlp", c.OTLP, "the addresses that the gateway was started with; restart it to change them")
	f.Check(old.cfg.Zipkin == c.Zipkin, "zipkin", c.Zipkin, old.cfg.Zipkin+"; restart to change it")
	f.Check(old.cfg.Jaeger == c.Jaeger, "jaeger", c.Jaeger, old.cfg.Jaeger+"; restart to change it")
	f.Check(old.cfg.KEDA == c.KEDA, "keda", c.KEDA, old.cfg.KEDA+"; restart to change it")
	const fixed = "the value that the gateway was started with; restart it to change it"
	f.Check(old.cfg.Tracing.HeldSpans == c.Tracing.HeldSpans, "tracing.held_spans", c.Tracing.HeldSpans, fixed)
	f.Check(old.cfg.Tracing.HeldBytes == c.Tracing.HeldBytes, "tracing.held_bytes", c.Tracing.HeldBytes, fixed)
	was, is := &old.cfg.Limits, &c.Limits
	f.Check(was.HeaderBytes == is.HeaderBytes, "limits.header_bytes", is.HeaderBytes, fixed)
	f.Check(was.Connections == is.Connections, "limits.connections", is.Connections, fixed)
	f.Check(was.HeaderTimeout == is.HeaderTimeout, "limits.header_timeout", is.HeaderTimeout, fixed)
	f.Check(was.IdleTimeout == is.IdleTimeout, "limits.idle_timeout", is.IdleTimeout, fixed)
	return f.Err()
}

// compile makes all that is new, and changes nothing that is in force. fresh are the upstreams by name.
func (g *Gateway) compile(old *table, c *Config, tls secured) (next *table, fresh map[string]*upstream, err error) {
	next = &table{cfg: *c, trusted: trustedOf(c.Trust), byName: make(map[string]*route, len(c.Routes))}
	fresh = make(map[string]*upstream, len(c.Upstreams))
	for name, u := range c.Upstreams {
		if fresh[name] = g.upstreams[name]; fresh[name] == nil {
			fresh[name] = g.newUpstream(name)
			fresh[name].update(u, tls.clients[name])
		}
	}
	next.upstreams = fresh
	matches := make([]Match, 0, len(c.Routes))
	for _, r := range c.Routes {
		compiled := &route{cfg: r, index: len(next.routes), names: r.Match.Names(), traces: c.Tracing.TracesPerSecond}
		if compiled.actions, err = newActions(r); err != nil {
			return nil, nil, fmt.Errorf("gateway: route %q: %w", r.Name, err)
		}
		if compiled.live, err = keepLive(old.byName[r.Name], r, fresh, g.killed.on(r.Name)); err != nil {
			return nil, nil, fmt.Errorf("gateway: route %q: %w", r.Name, err)
		}
		compiled.side = keepSide(g, old.byName[r.Name], r, fresh)
		next.routes = append(next.routes, compiled)
		next.byName[r.Name] = compiled
		if err = g.compileParts(old, next, compiled, fresh); err != nil {
			return nil, nil, err
		}
		matches = append(matches, r.Match)
	}
	next.index, err = routing.NewTable(matches)
	return next, fresh, err
}

// keepLive carries over what a route of the same name has learned: all of it while its versions are the same upstreams in
// the same order, else its figures and those versions that stay.
func keepLive(old *route, r Route, upstreams map[string]*upstream, off parts) (*live, error) {
	l := &live{filed: r.Policy, filedSplit: weightsOf(r), killed: off}
	for _, v := range r.versions() {
		l.versions = append(l.versions, &version{upstream: upstreams[v.Upstream]})
	}
	if len(l.versions) == 0 && !r.local() {
		l.versions = []*version{{}} // its calls go through a policy, but each part of it finds its own way
	}
	if old != nil && sameVersions(old.live.versions, l.versions) {
		return old.live, nil
	}
	now := time.Now()
	if old != nil {
		l.figures = old.live.figures
	} else {
		l.figures = newFigures(now)
	}
	l.shares.Store(newShares(l.filedSplit))
	next, policy := &arms{}, old.inForce(r)
	var made []*arm
	for _, v := range l.versions {
		if len(l.versions) > 1 {
			v.figures = newFigures(now)
		}
		a := old.inherit(v, r)
		if a == nil {
			var err error
			if a, err = newArm(policy, l.killed, v.upstream); err != nil {
				closeArms(made)
				return nil, err
			}
			made = append(made, a)
		}
		next.baseline = append(next.baseline, a)
	}
	l.arms.Store(next)
	return l, nil
}

func sameVersions(a, b []*version) bool {
	return slices.EqualFunc(a, b, func(a, b *version) bool { return a.upstream == b.upstream })
}

// inForce is the policy for a version that is new to the route: that of the others, promoted or not, unless the file has
// changed it.
func (r *route) inForce(now Route) longpole.Config {
	if r == nil || !reflect.DeepEqual(r.live.filed, now.Policy) {
		return now.Policy
	}
	if all := r.live.arms.Load().baseline; len(all) > 0 {
		return all[0].wanted
	}
	return now.Policy
}

// inherit is what the version of the same upstream has learned, when its policy is still that of the file. Figures go with
// it; nil when there is none.
func (r *route) inherit(v *version, now Route) *arm {
	if r == nil || v.upstream == nil || !reflect.DeepEqual(r.live.filed, now.Policy) {
		return nil
	}
	for i, was := range r.live.versions {
		if was.upstream == v.upstream {
			if was.figures != nil && v.figures != nil {
				v.figures = was.figures
			}
			return r.live.arms.Load().baseline[i]
		}
	}
	return nil
}

// commit puts next in force. All of it was validated, so nothing here fails.
func (g *Gateway) commit(old, next *table, fresh map[string]*upstream, tls secured) {
	checks := g.upstreams == nil || len(g.upstreams) != len(fresh)
	for name, u := range fresh {
		c := next.cfg.Upstreams[name]
		if g.upstreams[name] != u || !reflect.DeepEqual(u.cfg.Load().Upstream, c) || u.cfg.Load().client != tls.clients[name] {
			checks = true
			u.update(c, tls.clients[name])
		}
	}
	for _, r := range next.routes {
		if err := r.live.refile(r.cfg); err != nil {
			g.options.Log.Error("a policy stays as it was", "route", r.cfg.Name, "error", err)
		}
	}
	if err := g.second.configure(next.cfg.Redis); err != nil {
		g.options.Log.Error("the second tier of the caches stays as it was", "error", err)
	}
	for _, r := range next.routes {
		g.second.share(r.live.arms.Load().baseline)
	}
	g.refileParts(next)
	g.upstreams = fresh
	g.recommit(next)
	g.table.Store(next)
	g.joints.retain(next)
	if err := g.jobs.restart(g, next); err != nil {
		g.options.Log.Error("calls are not put off", "error", err)
	}
	g.roads.keep(fresh)
	for name, u := range old.upstreams {
		if fresh[name] != u {
			u.close()
		}
	}
	g.access.configure(next.cfg.AccessLog)
	for name, r := range old.byName {
		if now := next.byName[name]; now == nil || now.live != r.live {
			r.live.close(policiesOf(now))
		}
	}
	if checks {
		g.health.restart(g, fresh)
	}
}

// policiesOf are those that a route has in force; none of a route that is gone.
func policiesOf(r *route) map[*longpole.Policy]bool {
	all := make(map[*longpole.Policy]bool)
	if r != nil {
		for _, a := range r.live.arms.Load().baseline {
			all[a.policy] = true
		}
	}
	return all
}

// health runs the active checks of all upstreams while Run does.
type health struct {
	mu   sync.Mutex
	life context.Context // of Run; nil = not running
	stop context.CancelFunc
	run  sync.WaitGroup
}

// begin starts the checks; they end with ctx.
func (h *health) begin(ctx context.Context, g *Gateway) {
	g.reload.Lock()
	defer g.reload.Unlock()
	h.mu.Lock()
	h.life = ctx
	h.mu.Unlock()
	h.restart(g, g.upstreams)
}

// restart ends the checks of the old settings and begins those of the new ones.
func (h *health) restart(g *Gateway, upstreams map[string]*upstream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life == nil {
		return
	}
	if h.stop != nil {
		h.stop()
		h.run.Wait()
	}
	ctx, stop := context.WithCancel(h.life)
	h.stop = stop
	for _, u := range upstreams {
		h.run.Go(func() { u.tend(ctx, g.options.Log) })
	}
}

// end stops the checks and waits for them.
func (h *health) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		h.stop()
	}
	h.run.Wait()
	h.life, h.stop = nil, nil
}

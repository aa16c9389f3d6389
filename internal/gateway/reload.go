package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

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
	certificates, err := loadCertificates(c.Listen)
	if err != nil {
		return err
	}
	next, fresh, err := g.compile(old, &c)
	if err != nil {
		return err
	}
	g.commit(old, next, fresh)
	for i, cert := range certificates {
		g.servers[i].certificate.Store(cert)
	}
	return nil
}

// sameAddresses refuses what would need a restart. Certificates may change.
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
	f.Check(old.cfg.OTLP == c.OTLP, "otlp", c.OTLP, "the addresses that the gateway was started with; restart it to change them")
	return f.Err()
}

func loadCertificates(listen []Listener) ([]*tls.Certificate, error) {
	list := make([]*tls.Certificate, len(listen))
	for i, l := range listen {
		if l.TLS == nil {
			continue
		}
		cert, err := tls.LoadX509KeyPair(l.TLS.Cert, l.TLS.Key)
		if err != nil {
			return nil, &setting.Error{Path: fmt.Sprintf("listen[%d].tls", i), Value: l.TLS.Cert, Want: "a PEM certificate with its key: " + err.Error()}
		}
		list[i] = &cert
	}
	return list, nil
}

// compile makes all that is new, and changes nothing that is in force. fresh are the upstreams by name.
func (g *Gateway) compile(old *table, c *Config) (next *table, fresh map[string]*upstream, err error) {
	next = &table{cfg: *c, byName: make(map[string]*route, len(c.Routes))}
	fresh = make(map[string]*upstream, len(c.Upstreams))
	for name, u := range c.Upstreams {
		if fresh[name] = g.upstreams[name]; fresh[name] == nil {
			fresh[name] = newUpstream(name)
			fresh[name].update(u)
		}
	}
	next.upstreams = fresh
	for _, r := range c.Routes {
		l, err := keepLive(old.byName[r.Name], r, fresh[r.Upstream])
		if err != nil {
			return nil, nil, fmt.Errorf("gateway: route %q: %w", r.Name, err)
		}
		m := r.Match
		m.Host = strings.ToLower(m.Host)
		compiled := &route{cfg: r, match: m, live: l}
		next.routes = append(next.routes, compiled)
		next.byName[r.Name] = compiled
		next.hosts = next.hosts || m.Host != ""
	}
	return next, fresh, nil
}

// keepLive carries over what a route of the same name has learned.
func keepLive(old *route, r Route, u *upstream) (*live, error) {
	if old != nil && old.live.upstream == u {
		return old.live, nil
	}
	l := &live{upstream: u, filed: r.Policy}
	if old != nil {
		l.figures = old.live.figures
	} else {
		l.figures = newFigures(time.Now())
	}
	baseline, err := newArm(r.Policy, u)
	if err != nil {
		return nil, err
	}
	l.arms.Store(&arms{baseline: baseline})
	return l, nil
}

// commit puts next in force. All of it was validated, so nothing here fails.
func (g *Gateway) commit(old, next *table, fresh map[string]*upstream) {
	checks := g.upstreams == nil || len(g.upstreams) != len(fresh)
	for name, u := range fresh {
		c := next.cfg.Upstreams[name]
		if g.upstreams[name] != u || !reflect.DeepEqual(u.cfg.Load().Upstream, c) {
			checks = true
			u.update(c)
		}
	}
	for _, r := range next.routes {
		if err := r.live.refile(r.cfg.Policy); err != nil {
			g.options.Log.Error("a policy stays as it was", "route", r.cfg.Name, "error", err)
		}
	}
	g.upstreams = fresh
	g.table.Store(next)
	g.access.configure(next.cfg.AccessLog)
	for name, r := range old.byName {
		if now := next.byName[name]; now == nil || now.live != r.live {
			r.live.close()
		}
	}
	if checks {
		g.health.restart(g, fresh)
	}
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
		h.run.Go(func() { u.check(ctx, g.transport) })
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

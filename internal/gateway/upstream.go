package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/discover"
	"github.com/longpole/longpole/internal/stats"
)

// upstream is the endpoints of one name. It lives as long as the name is in the configuration, so that load, health and
// figures survive a reload.
type upstream struct {
	name string
	set  *balance.Set
	cfg  atomic.Pointer[upstreamConfig]
	road atomic.Pointer[road]     // of an earlier cfg when they differ
	way  func() http.RoundTripper // to the endpoints, as the settings are now; nil before the gateway has it

	mu    sync.Mutex    // serialises what follows, and writers of cfg
	found []Endpoint    // by discovery; nil = nothing yet
	moved chan struct{} // holds a token after endpoints came or went

	source atomic.Pointer[discover.Source] // that discovers now; nil = none does
}

// upstreamConfig is immutable.
type upstreamConfig struct {
	Upstream
	client *certs.Client // nil = the defaults
	tls    *tls.Config   // towards the endpoints; nil = the system's roots. One that stays the same keeps its connections
	names  []string
	places map[string]*endpoint // those that left with the last reload included: calls may still be on their way to them
}

// endpoint is one place, with what was measured of it.
type endpoint struct {
	location
	latency stats.Histogram
	recent  *stats.Windowed
	classes [call.Shed + 1]atomic.Uint64
	lane    lane // in the clear
}

func newUpstream(name string) *upstream {
	u := &upstream{name: name, set: balance.NewSet(), moved: make(chan struct{}, 1)}
	u.cfg.Store(&upstreamConfig{})
	return u
}

// newUpstream makes one that knows the way.
func (g *Gateway) newUpstream(name string) *upstream {
	u := newUpstream(name)
	u.way = func() http.RoundTripper { return g.road(u).pools[plain] }
	return u
}

// update puts valid settings in force. What was discovered stays while the way to discover it does.
func (u *upstream) update(c Upstream, client *certs.Client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.cfg.Load()
	if !reflect.DeepEqual(old.Discover, c.Discover) {
		u.found = nil
	}
	next := &upstreamConfig{Upstream: c, client: client, tls: old.tls}
	if client != old.client {
		next.tls = nil
		if client != nil {
			next.tls = client.Config()
		}
	}
	u.place(next)
}

// discovered puts a set that was found for from in force; one for settings of before is dropped.
func (u *upstream) discovered(from *discover.Config, set []Endpoint) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := *u.cfg.Load()
	if next.Discover != from {
		return
	}
	if set == nil {
		set = []Endpoint{}
	}
	u.found = set
	u.place(&next)
}

// secure puts other TLS in force.
func (u *upstream) secure(client *certs.Client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := *u.cfg.Load()
	next.client, next.tls = client, client.Config()
	u.cfg.Store(&next)
}

// inForce is the endpoints that are used: those that were found, or those to begin with.
func (u *upstream) inForce(c *Upstream) []Endpoint {
	if u.found != nil {
		return u.found
	}
	return c.Endpoints
}

// place gives next its endpoints and puts it in force. Those that stay keep what was measured of them; those that go end
// their calls; those that come start slowly, if the policies say so.
func (u *upstream) place(next *upstreamConfig) {
	old := u.cfg.Load()
	next.names, next.places = nil, make(map[string]*endpoint)
	for _, name := range old.names {
		next.places[name] = old.places[name]
	}
	var targets []balance.Target
	seen := make(map[string]bool)
	for _, one := range u.inForce(&next.Upstream) {
		at, err := parseEndpoint(one.URL)
		if err != nil || seen[at.name] {
			continue // Validate has refused it, or who found it
		}
		seen[at.name] = true
		e := next.places[at.name]
		if e == nil || *e.url != *at.url {
			e = &endpoint{location: at, recent: stats.NewWindowed(windowSlots, windowWidth)}
			next.places[at.name] = e
		}
		next.names = append(next.names, at.name)
		targets = append(targets, balance.Target{Name: at.name, Weight: one.Weight, Zone: one.Zone})
	}
	for name, e := range next.places {
		if seen[name] {
			e.lane.open()
		} else {
			e.lane.close()
		}
	}
	for name, e := range old.places {
		if next.places[name] != e {
			e.lane.close() // a call that is still on its way keeps nothing
		}
	}
	// First the places, then the names: a call never draws a name that it cannot find.
	u.cfg.Store(next)
	u.set.Configure(targets)
	select {
	case u.moved <- struct{}{}:
	default:
	}
}

// close ends the connections to all endpoints. Calls that are still on their way end as they may.
func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.cfg.Load().places {
		e.lane.close()
	}
}

// observe counts one attempt.
func (e *endpoint) observe(now time.Time, a *call.Attempt) {
	e.classes[min(a.Class, call.Shed)].Add(1)
	if a.Class == call.Canceled {
		return // how long it would have taken is not known
	}
	e.latency.Record(a.Latency)
	e.recent.Record(now, a.Latency)
}

// tend discovers the endpoints of u, and runs their active checks, until ctx is done.
func (u *upstream) tend(ctx context.Context, log *slog.Logger) {
	var run sync.WaitGroup
	defer run.Wait()
	cfg := u.cfg.Load()
	if d := cfg.Discover; d != nil {
		u.mu.Lock()
		have := u.inForce(&cfg.Upstream)
		u.mu.Unlock()
		run.Go(func() {
			source := discover.New(*d, log.With("upstream", u.name))
			u.source.Store(&source)
			source.Run(ctx, have, func(set []Endpoint) {
				u.discovered(d, set)
				log.Info("endpoints discovered", "upstream", u.name, "endpoints", len(set))
			})
		})
	}
	if cfg.Health.Path == "" {
		for _, e := range u.set.Endpoints() {
			e.SetHealthy(true) // a check that was removed must not leave its verdict behind
		}
		return
	}
	u.check(ctx, cfg.Health)
}

// check runs the active checks of all endpoints that come and go.
func (u *upstream) check(ctx context.Context, h balance.HealthConfig) {
	var run sync.WaitGroup
	defer run.Wait()
	checked := make(map[*balance.Endpoint]context.CancelFunc)
	for {
		cfg, present := u.cfg.Load(), make(map[*balance.Endpoint]bool)
		for _, e := range u.set.Endpoints() {
			at := cfg.places[e.Name()]
			if at == nil {
				continue // it came just now: moved has a token again
			}
			present[e] = true
			if checked[e] == nil {
				one, stop := context.WithCancel(ctx)
				checked[e] = stop
				run.Go(func() { watch(one, u.way, h, at, e) })
			}
		}
		for e, stop := range checked {
			if !present[e] {
				stop()
				delete(checked, e)
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range checked {
				stop()
			}
			return
		case <-u.moved:
		}
	}
}

// watch checks one endpoint again and again.
func watch(ctx context.Context, way func() http.RoundTripper, h balance.HealthConfig, at *endpoint, e *balance.Endpoint) {
	decide := balance.NewCheck(h)
	if !e.Healthy() {
		// It was found unfit before a reload: the decider begins where that one stopped.
		for range h.WithDefaults().Unhealthy {
			decide.Result(false)
		}
	}
	// The first check comes soon, and not at the same moment for all.
	timer := time.NewTimer(rand.N(h.Interval/10 + 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		ok := probe(ctx, way(), h, at)
		if ctx.Err() != nil {
			return
		}
		healthy, _ := decide.Result(ok)
		e.SetHealthy(healthy)
		timer.Reset(h.Interval)
	}
}

// probe makes one check: a status below 400 is good.
func probe(ctx context.Context, client http.RoundTripper, h balance.HealthConfig, at *endpoint) bool {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url.Scheme+"://"+at.url.Host+at.url.EscapedPath()+h.Path, nil)
	if err != nil {
		return false
	}
	r.Header.Set("User-Agent", "longpole-health")
	res, err := client.RoundTrip(r)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	return res.StatusCode < 400
}

var errNoLoad = errors.New("gateway: the endpoint does not tell its load")

// ask is the longpole.Prober of the policies that balance over u.
func (u *upstream) ask(ctx context.Context, name string) (balance.Load, error) {
	cfg := u.cfg.Load()
	at := cfg.places[name]
	if at == nil || u.way == nil {
		return balance.Load{}, errGone
	}
	path := cmp.Or(cfg.Probe.Path, httppolicy.ProbePath)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url.Scheme+"://"+at.url.Host+at.url.EscapedPath()+path, nil)
	if err != nil {
		return balance.Load{}, err
	}
	r.Header.Set("User-Agent", "longpole-probe")
	res, err := u.way().RoundTrip(r)
	if err != nil {
		return balance.Load{}, err
	}
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	_ = res.Body.Close()
	l, ok := balance.ParseLoad(res.Header.Get(httppolicy.HeaderLoad))
	if !ok {
		return balance.Load{}, errNoLoad
	}
	return l, nil
}

// Load implements longpole.Reporter: it reads what a server says about itself in an answer.
func (x *exchange) Load(res *http.Response) (balance.Load, bool) {
	return balance.ParseLoad(res.Header.Get(httppolicy.HeaderLoad))
}

var _ longpole.Reporter[*http.Response] = (*exchange)(nil)

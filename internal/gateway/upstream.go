package gateway

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
)

// upstream is the endpoints of one name. It lives as long as the name is in the configuration, so that load, health and
// figures survive a reload.
type upstream struct {
	name string
	set  *balance.Set
	cfg  atomic.Pointer[upstreamConfig]
}

// upstreamConfig is immutable.
type upstreamConfig struct {
	Upstream
	names  []string
	places map[string]*endpoint // those that left with the last reload included: calls may still be on their way to them
}

// endpoint is one place, with what was measured of it.
type endpoint struct {
	location
	latency stats.Histogram
	recent  *stats.Windowed
	classes [call.Shed + 1]atomic.Uint64
}

func newUpstream(name string) *upstream {
	u := &upstream{name: name, set: balance.NewSet()}
	u.cfg.Store(&upstreamConfig{})
	return u
}

// update puts valid settings in force.
func (u *upstream) update(c Upstream) {
	old := u.cfg.Load()
	next := &upstreamConfig{Upstream: c, places: make(map[string]*endpoint)}
	for _, name := range old.names {
		next.places[name] = old.places[name]
	}
	for _, raw := range c.Endpoints {
		at, err := parseEndpoint(raw)
		if err != nil {
			continue // Validate has refused it
		}
		e := next.places[at.name]
		if e == nil || *e.url != *at.url {
			e = &endpoint{location: at, recent: stats.NewWindowed(windowSlots, windowWidth)}
			next.places[at.name] = e
		}
		next.names = append(next.names, at.name)
	}
	// First the places, then the names: a call never draws a name that it cannot find.
	u.cfg.Store(next)
	u.set.Replace(next.names)
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

// check runs the active checks of u until ctx is done.
func (u *upstream) check(ctx context.Context, client http.RoundTripper) {
	cfg := u.cfg.Load()
	if cfg.Health.Path == "" {
		for _, e := range u.set.Endpoints() {
			e.SetHealthy(true) // a check that was removed must not leave its verdict behind
		}
		return
	}
	var run sync.WaitGroup
	for _, name := range cfg.names {
		e := u.set.Find(name)
		if e == nil {
			continue
		}
		run.Go(func() { watch(ctx, client, cfg.Health, cfg.places[name], e) })
	}
	run.Wait()
}

// watch checks one endpoint again and again.
func watch(ctx context.Context, client http.RoundTripper, h balance.HealthConfig, at *endpoint, e *balance.Endpoint) {
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
		ok := probe(ctx, client, h, at)
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

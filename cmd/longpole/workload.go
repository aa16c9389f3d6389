package main

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/payload"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/web"
)

// workloadOf is the profile of a gateway, to be compared with that of another environment.
func workloadOf(now time.Time, cfg gateway.Config, routes []gateway.RouteStatus, found web.Findings, arrivals staging.Arrivals) staging.Workload {
	w := staging.Workload{
		Environment: cfg.Environment.Name, At: now, Version: version, Arrivals: arrivals, Edges: []string{},
		Routes: map[string]staging.RouteLoad{}, Segments: map[string]staging.Latency{}, Endpoints: map[string]int{}, Settings: outerSettings(cfg),
	}
	edges := map[string]bool{}
	places := map[[2]string]bool{}
	for _, r := range routes {
		w.Calls += r.Calls
		for _, e := range r.Endpoints {
			edges["route "+r.Name+" > "+e.Upstream] = true
			if place := [2]string{e.Upstream, e.Name}; !places[place] {
				places[place] = true
				w.Endpoints[e.Upstream]++
			}
		}
		if len(w.Routes) == staging.MaxRoutes {
			w.Cut++
			continue
		}
		w.Routes[r.Name] = routeLoad(r)
	}
	for _, r := range found.Report.Routes {
		for _, s := range r.Segments {
			if len(w.Segments) == staging.MaxSegments {
				w.Cut++
				continue
			}
			from, to := r.Service+" "+r.Operation, string(s.Segment)+" "+s.Service+" "+s.Operation
			edges[from+" > "+string(s.Segment)+" "+s.Service] = true
			w.Segments[from+" > "+to] = staging.Latency{P50: s.CriticalMS.P50, P99: s.CriticalMS.P99}
		}
	}
	w.Edges = slices.Sorted(maps.Keys(edges))
	return w
}

// routeLoad is the part of one route.
func routeLoad(r gateway.RouteStatus) staging.RouteLoad {
	calls := max(float64(r.Tally.Calls), 1)
	load := staging.RouteLoad{
		Calls: r.Tally.Calls, Latency: staging.LatencyOf(r.Tally.Latency), FailedRatio: float64(r.Tally.Failed) / calls,
		RequestBytes: sizeMix(r.RequestSizes), ResponseBytes: sizeMix(r.ResponseSizes),
		FanOut:        map[string]float64{"": float64(r.Tally.Attempts) / calls},
		CacheHitRatio: float64(r.Tally.CacheHits) / calls, RetriesPerCall: float64(r.Tally.Retries) / calls, Settings: staging.Settings(r.Policy),
	}
	for _, d := range r.Tally.Downstreams {
		load.FanOut[d.Name] = float64(d.Calls) / calls
	}
	return load
}

func sizeMix(s payload.SizeSnapshot) staging.Mix { return staging.Sizes(s.Buckets(), s.Count()) }

// outerSettings are the pools, limits and timeouts outside of policies. Addresses differ between environments by their
// nature, and are left out.
func outerSettings(cfg gateway.Config) map[string]string {
	all := map[string]string{}
	add := func(prefix string, v any, without ...string) {
		text, err := conf.MarshalJSON(v)
		var parts map[string]json.RawMessage
		if err != nil || json.Unmarshal(text, &parts) != nil {
			return // every part of a configuration can be written
		}
		for _, name := range without {
			delete(parts, name)
		}
		text, _ = json.Marshal(parts) // raw JSON is JSON
		for path, value := range staging.Settings(text) {
			all[prefix+path] = value
		}
	}
	add("limits.", cfg.Limits)
	add("overload.", cfg.Overload)
	for name, u := range cfg.Upstreams {
		add("upstreams."+name+".", u, "endpoints", "discover", "tls")
	}
	return all
}

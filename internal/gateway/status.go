package gateway

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/stats"
)

// RouteStatus is what a route is and does. Its cumulative parts only grow while the route exists; the others are of the
// last 20 s to 30 s. It is a copy.
type RouteStatus struct {
	Name     string          `json:"name"`
	Match    Match           `json:"match"`
	Action   string          `json:"action"`             // what answers: upstream, split, redirect, static, offload, aggregate or batch
	Upstream string          `json:"upstream,omitempty"` // "" = several, or none
	Versions []VersionStatus `json:"versions,omitempty"` // of a split, in the order of the file
	Priority string          `json:"priority"`           // of calls that say nothing else; exempt for those that are never shed
	Tenant   string          `json:"tenant,omitempty"`   // what tells callers apart, as "header X-Tenant"; "" = nothing does
	Policy   json.RawMessage `json:"policy"`             // in force, in the form of a file; null for a route that answers by itself
	Calls    uint64          `json:"calls"`              // since the route began

	AttemptsPerCall float64 `json:"attempts_per_call"` // since the route began; above 1 = retries and hedges

	RPS        float64          `json:"rps"` // calls per second, in the window
	ErrorRatio float64          `json:"error_ratio"`
	LatencyMS  Quantiles        `json:"latency_ms"` // to the head of the answer, in the window
	Endpoints  []EndpointStatus `json:"endpoints"`
	Arms       *ArmsStatus      `json:"arms,omitempty"`      // nil = no rollout
	Holdbacks  []HoldbackStatus `json:"holdbacks,omitempty"` // the policy less one promoted change each, on a few calls
	Limit      int              `json:"limit,omitempty"`     // calls that the policy in force lets run at once now, of all versions together; 0 = no limit
	Off        []string         `json:"off,omitempty"`       // parts of the policy that are switched off by hand
	SideStatus

	Tally   stats.Tally               `json:"-"` // cumulative
	Classes map[string]uint64         `json:"-"` // cumulative calls by call.Class
	Caches  map[string]stats.Snapshot `json:"-"` // cumulative latency by call.CacheState; without those never seen

	RetriesRefused uint64 `json:"-"` // by the budget of the policy in force, cumulative
}

// VersionStatus is one of the upstreams that share a route's calls.
type VersionStatus struct {
	Upstream   string    `json:"upstream"`
	Weight     int       `json:"weight"` // in force
	Calls      uint64    `json:"calls"`  // since the version began
	RPS        float64   `json:"rps"`    // calls per second, in the window
	ErrorRatio float64   `json:"error_ratio"`
	LatencyMS  Quantiles `json:"latency_ms"` // in the window

	Tally stats.Tally `json:"-"` // cumulative
}

// EndpointStatus is one endpoint as attempts of all routes see it; its breaker is this route's.
type EndpointStatus struct {
	Name      string    `json:"name"`
	Upstream  string    `json:"upstream"`
	Healthy   bool      `json:"healthy"`
	InFlight  int64     `json:"in_flight"`
	Breaker   string    `json:"breaker"`
	Ejected   bool      `json:"ejected"`    // by the balancer of this route, for what its calls did
	Attempts  uint64    `json:"attempts"`   // cumulative
	LatencyMS Quantiles `json:"latency_ms"` // in the window

	Latency stats.Snapshot    `json:"-"` // cumulative; without attempts that were given up
	Classes map[string]uint64 `json:"-"` // cumulative attempts by call.Class
}

// ArmsStatus is a running comparison.
type ArmsStatus struct {
	Weight    float64   `json:"weight"`
	Baseline  ArmStatus `json:"baseline"`
	Candidate ArmStatus `json:"candidate"`
}

// HoldbackStatus is a comparison of the policy in force with the same less one promoted change.
type HoldbackStatus struct {
	Name string `json:"name"` // of the rollout that promoted it
	ArmsStatus
}

// status is that of a comparison; nil for none.
func (t *trial) status(baseline []*arm) *ArmsStatus {
	if t == nil {
		return nil
	}
	at := max(t.version, 0)
	tried := baseline[at]
	if t.arms != nil {
		tried = t.arms[at]
	}
	return &ArmsStatus{Weight: t.weight, Baseline: baseline[0].status(t.control.tally()), Candidate: tried.status(t.tried.tally())}
}

// off names what is switched off by hand.
func (l *live) off() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed.names()
}

// ArmStatus is one cohort since Stage.
type ArmStatus struct {
	Policy     json.RawMessage `json:"policy"`
	Calls      uint64          `json:"calls"`
	ErrorRatio float64         `json:"error_ratio"`
	LatencyMS  Quantiles       `json:"latency_ms"`
}

// Quantiles of latency, in milliseconds; all 0 without calls.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
}

// QuantilesOf reads them from a histogram.
func QuantilesOf(s stats.Snapshot) Quantiles {
	ms := func(q float64) float64 { return float64(s.Quantile(q)) / float64(time.Millisecond) }
	return Quantiles{P50: ms(0.5), P90: ms(0.9), P95: ms(0.95), P99: ms(0.99), P999: ms(0.999)}
}

// Target is where the calls of the route go, in a few words: its upstream, its versions with their weights, or what else answers.
func (s *RouteStatus) Target() string {
	if s.Upstream != "" {
		return s.Upstream
	}
	if len(s.Versions) == 0 {
		return s.Action
	}
	var all []string
	for _, v := range s.Versions {
		all = append(all, v.Upstream+":"+strconv.Itoa(v.Weight))
	}
	return strings.Join(all, " ")
}

// Routes is the state of all routes, in the order of the file.
func (g *Gateway) Routes() []RouteStatus {
	now := time.Now()
	t := g.table.Load()
	all := make([]RouteStatus, 0, len(t.routes))
	for _, r := range t.routes {
		all = append(all, r.status(now))
	}
	return all
}

func (r *route) status(now time.Time) RouteStatus {
	f := r.live.figures
	recent, failed := f.recent.Snapshot(now), f.recentFailed.Snapshot(now)
	s := RouteStatus{
		SideStatus: r.sideStatus(now), Name: r.cfg.Name, Match: r.cfg.Match, Action: r.cfg.action(), Upstream: r.cfg.Upstream, Priority: r.cfg.Priority.label(), Tenant: r.cfg.Tenant.label(),
		Policy: json.RawMessage("null"), RPS: float64(recent.Count()) / f.span(now).Seconds(), ErrorRatio: ratio(failed.Count(), recent.Count()), LatencyMS: QuantilesOf(recent),
		Tally: f.tally(), Classes: make(map[string]uint64), Caches: make(map[string]stats.Snapshot),
	}
	s.Calls = s.Tally.Calls
	s.AttemptsPerCall = ratio(s.Tally.Attempts, s.Tally.Calls)
	for c := range f.classes {
		s.Classes[call.Class(c).String()] = f.classes[c].Load()
	}
	for c := range f.caches {
		if h := f.caches[c].Snapshot(); h.Count() > 0 {
			s.Caches[call.CacheState(c).String()] = h
		}
	}
	a := r.live.arms.Load()
	if len(a.baseline) > 0 {
		s.Policy = a.baseline[0].json()
	}
	weights := r.live.shares.Load().weights
	for i, v := range r.live.versions {
		if v.figures != nil {
			s.Versions = append(s.Versions, v.status(now, weights[i]))
		}
		s.Endpoints = append(s.Endpoints, v.endpoints(now, a.baseline[i].policy)...)
		if l := a.baseline[i].policy.Limiter(); l != nil {
			s.Limit += l.Limit()
		}
		s.RetriesRefused += a.baseline[i].policy.RetriesRefused()
	}
	s.Arms = a.candidate.status(a.baseline)
	for _, t := range a.holdbacks {
		s.Holdbacks = append(s.Holdbacks, HoldbackStatus{Name: t.name, ArmsStatus: *t.status(a.baseline)})
	}
	s.Off = r.live.off()
	return s
}

func (v *version) status(now time.Time, weight int) VersionStatus {
	recent, failed := v.figures.recent.Snapshot(now), v.figures.recentFailed.Snapshot(now)
	s := VersionStatus{
		Upstream: v.name(), Weight: weight, Tally: v.figures.tally(), LatencyMS: QuantilesOf(recent),
		RPS: float64(recent.Count()) / v.figures.span(now).Seconds(), ErrorRatio: ratio(failed.Count(), recent.Count()),
	}
	s.Calls = s.Tally.Calls
	return s
}

// endpoints are those of the version, with the breakers of its policy.
func (v *version) endpoints(now time.Time, p *longpole.Policy) []EndpointStatus {
	if v.upstream == nil {
		return nil
	}
	var all []EndpointStatus
	places := v.upstream.cfg.Load().places
	for _, e := range v.upstream.set.Endpoints() {
		place := places[e.Name()]
		if place == nil {
			continue // it came or went just now
		}
		one := place.status(now)
		one.Upstream, one.Healthy, one.InFlight, one.Breaker = v.name(), e.Healthy(), e.InFlight(), p.Breaker(now, e.Name()).String()
		one.Ejected = p.Ejected(e.Name())
		all = append(all, one)
	}
	return all
}

func (e *endpoint) status(now time.Time) EndpointStatus {
	s := EndpointStatus{Name: e.name, Breaker: breaker.Closed.String(), LatencyMS: QuantilesOf(e.recent.Snapshot(now)), Latency: e.latency.Snapshot(), Classes: make(map[string]uint64)}
	for c := range e.classes {
		n := e.classes[c].Load()
		s.Classes[call.Class(c).String()] = n
		s.Attempts += n
	}
	return s
}

func (a *arm) status(t stats.Tally) ArmStatus {
	return ArmStatus{Policy: a.json(), Calls: t.Calls, ErrorRatio: ratio(t.Failed+t.Shed, t.Calls), LatencyMS: QuantilesOf(t.Latency)}
}

// json is the policy in the form of a file.
func (a *arm) json() json.RawMessage {
	text, err := conf.MarshalJSON(a.policy.Config())
	if err != nil {
		return json.RawMessage("null") // every part of a Config can be written
	}
	return text
}

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

package web

import (
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/stats"
)

// The metrics. All are read from snapshots when they are scraped; nothing is counted twice. Endpoints belong to their
// upstream, whatever the number of routes to it; only breakers are each route's own.
var (
	buildDesc    = prometheus.NewDesc("longpole_build_info", "1, with the version.", []string{"version"}, nil)
	callsDesc    = prometheus.NewDesc("longpole_calls_total", "Calls that ended, by route and class.", []string{"route", "class"}, nil)
	attemptsDesc = prometheus.NewDesc("longpole_attempts_total", "Attempts sent upstream: first ones, retries and hedges.", []string{"route"}, nil)
	retriesDesc  = prometheus.NewDesc("longpole_retries_total", "Attempts that followed a failed one.", []string{"route"}, nil)
	hedgesDesc   = prometheus.NewDesc("longpole_hedges_total", "Attempts sent beside one that was late.", []string{"route"}, nil)
	latencyDesc  = prometheus.NewDesc("longpole_call_duration_seconds", "Time to the head of the answer, by route and what the cache did.", []string{"route", "cache"}, nil)
	breakerDesc  = prometheus.NewDesc("longpole_breaker_open", "1 when the route's breaker of the endpoint is not closed.", []string{"route", "endpoint"}, nil)

	endpointAttemptsDesc = prometheus.NewDesc("longpole_endpoint_attempts_total", "Attempts that ended, by endpoint and class.", []string{"upstream", "endpoint", "class"}, nil)
	endpointLatencyDesc  = prometheus.NewDesc("longpole_endpoint_attempt_duration_seconds", "Time of one attempt to the head of its answer, without attempts that were given up.", []string{"upstream", "endpoint"}, nil)
	inFlightDesc         = prometheus.NewDesc("longpole_endpoint_in_flight", "Attempts that run now.", []string{"upstream", "endpoint"}, nil)
	healthyDesc          = prometheus.NewDesc("longpole_endpoint_healthy", "1 when the endpoint is in the rotation.", []string{"upstream", "endpoint"}, nil)

	weightDesc              = prometheus.NewDesc("longpole_rollout_weight_ratio", "Share of the calls that the candidate gets.", []string{"rollout", "route"}, nil)
	phaseDesc               = prometheus.NewDesc("longpole_rollout_phase_info", "1 for the phase of a rollout that has not ended.", []string{"rollout", "route", "phase"}, nil)
	evidenceDesc            = prometheus.NewDesc("longpole_rollout_evidence_log10", "Evidence for a claim about the candidate; 1 means ten times.", []string{"rollout", "route", "metric", "claim"}, nil)
	unwrittenDesc           = prometheus.NewDesc("longpole_rollout_unwritten_total", "Entries that the journal of rollouts refused, as with a full disk: what they say is forgotten with the process.", nil, nil)
	rememberedDesc          = prometheus.NewDesc("longpole_rollouts_remembered", "Rollouts that are remembered, by phase.", []string{"phase"}, nil)
	unroutedDesc            = prometheus.NewDesc("longpole_unrouted_total", "Calls refused before a route was found for them.", nil, nil)
	unloggedDesc            = prometheus.NewDesc("longpole_access_log_dropped_total", "Lines of the access log that were not written.", nil, nil)
	pressureDesc            = prometheus.NewDesc("longpole_overload_pressure_ratio", "How close the gateway is to its own bounds: 0 = below 80% of all, 1 = at one.", nil, nil)
	overloadMemoryDesc      = prometheus.NewDesc("longpole_overload_memory_bytes", "Memory of live objects and stacks, as overload counts it.", nil, nil)
	overloadMemoryBoundDesc = prometheus.NewDesc("longpole_overload_memory_bound_bytes", "The bound on it; 0 = none.", nil, nil)
	overloadDesc            = prometheus.NewDesc("longpole_overload_shed_total", "Calls refused because the gateway ran short itself, by priority.", []string{"priority"}, nil)
	drainingDesc            = prometheus.NewDesc("longpole_draining", "1 when the gateway was told to stop.", nil, nil)

	droppedDesc = prometheus.NewDesc("longpole_spans_dropped_total", "Spans that did not reach the diagnosis, by reason.", []string{"reason"}, nil)
)

// metrics is the /metrics handler with a registry of its own. What one series has wrong costs that series only.
func (a *admin) metrics() http.Handler {
	r := prometheus.NewRegistry()
	if a.Live.Metrics != nil {
		r.MustRegister(a.Live.Metrics)
	}
	r.MustRegister(a, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(a.Log.Handler(), slog.LevelWarn),
	})
}

// Describe sends nothing: which series exist depends on the configuration.
func (a *admin) Describe(chan<- *prometheus.Desc) {}

// Collect reads the gateway, the rollouts and the analysis.
func (a *admin) Collect(out chan<- prometheus.Metric) {
	s := series(out)
	s.gauge(buildDesc, 1, a.Version)
	type place struct{ upstream, endpoint string }
	told := map[place]bool{}
	for _, r := range a.Gateway.Routes() {
		s.route(r)
		for _, e := range r.Endpoints {
			if p := (place{e.Upstream, e.Name}); !told[p] {
				told[p] = true
				s.endpoint(e)
			}
		}
	}
	endpoints := map[string]float64{}
	for p := range told {
		endpoints[p.upstream]++
	}
	for upstream, n := range endpoints {
		s.gauge(endpointsDesc, n, upstream)
	}
	phases := map[rollout.Phase]float64{}
	for _, r := range a.Rollouts.List() {
		phases[r.Phase]++
		if !r.Phase.Final() {
			s.rollout(r)
		}
	}
	for _, p := range []rollout.Phase{rollout.Pending, rollout.Warmup, rollout.Step, rollout.Promoted, rollout.RolledBack, rollout.Aborted, rollout.InconclusiveEnd} {
		s.gauge(rememberedDesc, phases[p], string(p))
	}
	s.process(a.Gateway)
	s.beside(a.Gateway)
	s.review(a.Reviews)
	s.live(a.Live)
	s.evidence(a.Live)
	if a.Store != nil {
		d := a.Store.Dropped()
		s.counter(storeDroppedDesc, d.Series, "series")
		s.counter(storeDroppedDesc, d.Traces, "traces")
		s.counter(storeDroppedDesc, d.Damaged, "damaged")
	}
	s.counter(unwrittenDesc, a.Rollouts.Unwritten())
	for reason, n := range a.Dropped() {
		s.counter(droppedDesc, n, reason)
	}
}

// series is where a scrape sends what it reads.
type series chan<- prometheus.Metric

func (s series) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels)
}

func (s series) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(n), labels)
}

func (s series) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	s.gauge(d, v, labels...)
}

// send must not panic, whatever text a label holds: the data plane runs in the same process.
func (s series) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s <- m
}

func (s series) route(r gateway.RouteStatus) {
	for class, n := range r.Classes {
		s.counter(callsDesc, n, r.Name, class)
	}
	s.counter(attemptsDesc, r.Tally.Attempts, r.Name)
	s.counter(retriesDesc, r.Tally.Retries, r.Name)
	s.counter(hedgesDesc, r.Tally.Hedges, r.Name)
	for state, latency := range r.Caches {
		s <- histogram{latencyDesc, latency, []string{"cache", state, "route", r.Name}}
	}
	s.side(r)
	open := map[string]bool{} // versions of a route may share an endpoint
	for _, e := range r.Endpoints {
		open[e.Name] = open[e.Name] || e.Breaker != breaker.Closed.String()
	}
	for endpoint, is := range open {
		s.flag(breakerDesc, is, r.Name, endpoint)
	}
}

// process is what the gateway says of itself.
func (s series) process(g *gateway.Gateway) {
	o := g.Overload()
	s.gauge(pressureDesc, o.Pressure)
	s.gauge(overloadMemoryDesc, float64(o.Memory))
	s.gauge(overloadMemoryBoundDesc, float64(o.MemoryBound))
	for priority, n := range o.Shed {
		s.counter(overloadDesc, n, priority)
	}
	s.counter(unroutedDesc, g.Unrouted())
	s.counter(unloggedDesc, g.Unlogged())
	s.flag(drainingDesc, g.Draining())
}

func (s series) endpoint(e gateway.EndpointStatus) {
	for class, n := range e.Classes {
		s.counter(endpointAttemptsDesc, n, e.Upstream, e.Name, class)
	}
	s <- histogram{endpointLatencyDesc, e.Latency, []string{"endpoint", e.Name, "upstream", e.Upstream}}
	s.gauge(inFlightDesc, float64(e.InFlight), e.Upstream, e.Name)
	s.flag(healthyDesc, e.Healthy, e.Upstream, e.Name)
}

func (s series) rollout(r rollout.Status) {
	s.gauge(weightDesc, r.Weight, r.ID, r.Route)
	s.gauge(phaseDesc, 1, r.ID, r.Route, string(r.Phase))
	for _, m := range r.Judgement.Metrics {
		s.gauge(evidenceDesc, m.Worse.Log10E, r.ID, r.Route, m.Metric, "worse")
		s.gauge(evidenceDesc, m.NoWorse.Log10E, r.ID, r.Route, m.Metric, "no_worse")
		s.gauge(evidenceDesc, m.Improved.Log10E, r.ID, r.Route, m.Metric, "improved")
	}
}

// histogram is a snapshot in both of Prometheus's forms: native, at the full resolution of 0.55 %, and classic.
type histogram struct {
	desc     *prometheus.Desc
	snapshot stats.Snapshot
	labels   []string // name, value, name, value; names in ascending order
}

// Desc is part of prometheus.Metric.
func (h histogram) Desc() *prometheus.Desc { return h.desc }

// classicBounds are those of the OpenTelemetry conventions, with finer steps where gateways live.
var classicBounds = []time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, 750 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	7500 * time.Millisecond, 10 * time.Second,
}

// Write is part of prometheus.Metric. A classic bucket ends where the native one around its bound does, up to 1.1 % later.
func (h histogram) Write(m *dto.Metric) error {
	for i := 0; i+1 < len(h.labels); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &h.labels[i], Value: &h.labels[i+1]})
	}
	count, sum := h.snapshot.Count(), h.snapshot.Sum().Seconds()
	out := &dto.Histogram{SampleCount: &count, SampleSum: &sum}
	for _, bound := range classicBounds {
		upper, below := bound.Seconds(), count-h.snapshot.Above(bound)
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: &upper, CumulativeCount: &below})
	}
	h.native(out)
	m.Histogram = out
	return nil
}

// native fills the sparse form: spans of consecutive buckets, counts as differences to the one before.
func (h histogram) native(out *dto.Histogram) {
	schema, zero, positive := h.snapshot.Native()
	threshold := stats.ZeroThreshold
	out.Schema, out.ZeroThreshold, out.ZeroCount = &schema, &threshold, &zero
	last, before := 0, int64(0)
	for n, index := range slices.Sorted(maps.Keys(positive)) {
		if gap := int32(index - last - 1); n == 0 || gap > 0 {
			offset, length := gap, uint32(0)
			if n == 0 {
				offset = int32(index)
			}
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*out.PositiveSpan[len(out.PositiveSpan)-1].Length++
		out.PositiveDelta = append(out.PositiveDelta, positive[index]-before)
		last, before = index, positive[index]
	}
	if len(positive) == 0 { // tells an empty native histogram from a classic one
		offset, length := int32(0), uint32(0)
		out.PositiveSpan = []*dto.BucketSpan{{Offset: &offset, Length: &length}}
	}
}

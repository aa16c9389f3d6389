package web

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/stats"
)

// The metrics. All are read from snapshots when they are scraped; nothing is counted twice.
var (
	callsDesc    = prometheus.NewDesc("longpole_calls_total", "Calls that ended, by route and class.", []string{"route", "class"}, nil)
	attemptsDesc = prometheus.NewDesc("longpole_attempts_total", "Attempts sent upstream, by route and kind: first, retry or hedge.", []string{"route", "kind"}, nil)
	latencyDesc  = prometheus.NewDesc("longpole_call_duration_seconds", "Time to the head of the answer, by route and what the cache did.", []string{"route", "cache"}, nil)
	endpointDesc = prometheus.NewDesc("longpole_attempt_duration_seconds", "Time of one attempt to the head of its answer, by route and endpoint.", []string{"route", "endpoint"}, nil)
	inFlightDesc = prometheus.NewDesc("longpole_endpoint_in_flight", "Attempts that run now.", []string{"route", "endpoint"}, nil)
	healthyDesc  = prometheus.NewDesc("longpole_endpoint_healthy", "1 when the endpoint is in the rotation.", []string{"route", "endpoint"}, nil)
	breakerDesc  = prometheus.NewDesc("longpole_breaker_open", "1 when the breaker of the endpoint is not closed.", []string{"route", "endpoint"}, nil)
	weightDesc   = prometheus.NewDesc("longpole_rollout_weight_ratio", "Share of the calls that the candidate gets.", []string{"rollout", "route"}, nil)
	phaseDesc    = prometheus.NewDesc("longpole_rollout_phase_info", "1 for the phase of a rollout.", []string{"rollout", "route", "phase"}, nil)
	evidenceDesc = prometheus.NewDesc("longpole_rollout_evidence_log10", "Evidence for a claim about the candidate; 1 means ten times.", []string{"rollout", "route", "metric", "claim"}, nil)
	droppedDesc  = prometheus.NewDesc("longpole_spans_dropped_total", "Spans that did not reach the diagnosis, by reason.", []string{"reason"}, nil)
	buildDesc    = prometheus.NewDesc("longpole_build_info", "1, with the version.", []string{"version"}, nil)
)

// metrics is the /metrics handler with a registry of its own.
func (a *admin) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(a, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Describe sends nothing: which series exist depends on the configuration.
func (a *admin) Describe(chan<- *prometheus.Desc) {}

// Collect reads the gateway, the rollouts and the analysis.
func (a *admin) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildDesc, 1, a.Version)
	for _, r := range a.Gateway.Routes() {
		collectRoute(out, r)
	}
	for _, s := range a.Rollouts.List() {
		if !s.Phase.Final() {
			collectRollout(gauge, s)
		}
	}
	for reason, n := range a.Dropped() {
		out <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(n), reason)
	}
}

func collectRoute(out chan<- prometheus.Metric, r gateway.RouteStatus) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for class, n := range r.Classes {
		counter(callsDesc, n, r.Name, class)
	}
	counter(attemptsDesc, r.Tally.Attempts-min(r.Tally.Attempts, r.Tally.Hedges+r.Tally.Retries), r.Name, "first")
	counter(attemptsDesc, r.Tally.Retries, r.Name, "retry")
	counter(attemptsDesc, r.Tally.Hedges, r.Name, "hedge")
	for state, s := range r.Caches {
		out <- histogram{latencyDesc, s, []string{"route", r.Name, "cache", state}}
	}
	for _, e := range r.Endpoints {
		out <- histogram{endpointDesc, e.Latency, []string{"route", r.Name, "endpoint", e.Name}}
		flag := func(d *prometheus.Desc, on bool) {
			v := 0.0
			if on {
				v = 1
			}
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, r.Name, e.Name)
		}
		out <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(e.InFlight), r.Name, e.Name)
		flag(healthyDesc, e.Healthy)
		flag(breakerDesc, e.Breaker != "closed")
	}
}

func collectRollout(gauge func(*prometheus.Desc, float64, ...string), s rollout.Status) {
	gauge(weightDesc, s.Weight, s.ID, s.Route)
	gauge(phaseDesc, 1, s.ID, s.Route, string(s.Phase))
	for _, m := range s.Judgement.Metrics {
		gauge(evidenceDesc, m.Worse.Log10E, s.ID, s.Route, m.Metric, "worse")
		gauge(evidenceDesc, m.NoWorse.Log10E, s.ID, s.Route, m.Metric, "no_worse")
		gauge(evidenceDesc, m.Improved.Log10E, s.ID, s.Route, m.Metric, "improved")
	}
}

// histogram is a snapshot in both of Prometheus's forms: native, at the full resolution of 0.55 %, and classic.
type histogram struct {
	desc     *prometheus.Desc
	snapshot stats.Snapshot
	labels   []string // name, value, name, value
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

// Write is part of prometheus.Metric.
func (h histogram) Write(m *dto.Metric) error {
	for i := 0; i+1 < len(h.labels); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &h.labels[i], Value: &h.labels[i+1]})
	}
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int {
		if a.GetName() < b.GetName() {
			return -1
		}
		return 1
	})
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

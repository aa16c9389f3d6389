package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
)

var (
	receivedDesc     = prometheus.NewDesc("longpole_received_total", "Spans, log records and points that were taken from others.", []string{"protocol"}, nil)
	requestsDesc     = prometheus.NewDesc("longpole_received_requests_total", "Requests of telemetry that were taken, at least in part.", []string{"protocol"}, nil)
	receiveDropDesc  = prometheus.NewDesc("longpole_received_dropped_total", "Spans, log records and points that came and were not taken.", []string{"protocol", "reason"}, nil)
	refusedDesc      = prometheus.NewDesc("longpole_received_refused_total", "Requests of telemetry that were refused: full = the client shall come again.", []string{"protocol", "reason"}, nil)
	receiveCutDesc   = prometheus.NewDesc("longpole_received_cut_total", "Texts that were shortened and attributes that were left out.", []string{"protocol"}, nil)
	keptDesc         = prometheus.NewDesc("longpole_traces_kept_total", "Traces that were whole: written to the state folder, sampled_out = others stand for them, lost = the folder refused.", []string{"result"}, nil)
	storeDroppedDesc = prometheus.NewDesc("longpole_store_dropped_total", "What the bounds of the state folder cost: series counted together as other, traces dropped before their time, traces left out because their file is damaged.", []string{"what"}, nil)
	falseAlarmDesc   = prometheus.NewDesc("longpole_judge_aa_false_alarm_ratio", "Share of the comparisons of a policy with itself that the judge called worse; more than 0.02 is too much.", []string{"route"}, nil)
	calibratedDesc   = prometheus.NewDesc("longpole_judge_aa_comparisons_total", "Comparisons of a policy with itself.", []string{"route"}, nil)
)

// Calibration is how often the judge saw a difference on a route where there was none.
type Calibration struct {
	Route string `json:"route"`
	judge.CalibrationStatus
}

// Live is what a server knows beside its gateway. A nil part means that it knows nothing of it.
type Live struct {
	SLOs         func() []slo.Status           // objectives, by what is left of their error budget
	Scale        func() []scale.Recommendation // wanted replicas, by workload
	Calibrations func() []Calibration          // by route
	Received     func() []ingest.Received      // telemetry of others
	Kept         func() map[string]uint64      // what became of whole traces
	Sources      func() []probe.Status         // of evidence for the diagnosis
	Compare      Compare                       // diagnoses kept traces beside those of an earlier time
	Metrics      prometheus.Collector          // of what is not named here
}

// list answers with what all gives under a name; nil is an empty list.
func list[T any](name string, all func() []T) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		items := []T{}
		if all != nil {
			if found := all(); found != nil {
				items = found
			}
		}
		writeJSON(w, http.StatusOK, map[string]any{name: items})
	}
}

// signals adds what the server knows beside its gateway.
func (a *admin) signals(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/slos", list("slos", a.Live.SLOs))
	mux.HandleFunc("GET /api/v1/scale", list("workloads", a.Live.Scale))
	mux.HandleFunc("GET /api/v1/calibration", list("routes", a.Live.Calibrations))
	mux.HandleFunc("GET /api/v1/received", list("protocols", a.Live.Received))
	mux.HandleFunc("GET /api/v1/evidence", list("sources", a.Live.Sources))
	mux.HandleFunc("GET /api/v1/traces", a.traces)
	mux.HandleFunc("GET /api/v1/traces/{id}", a.trace)
}

// live is what a Live knows.
func (s series) live(l Live) {
	if l.Received != nil {
		for _, r := range l.Received() {
			s.counter(receivedDesc, r.Accepted, r.Protocol)
			s.counter(requestsDesc, r.Requests, r.Protocol)
			s.counter(receiveCutDesc, r.Cut, r.Protocol)
			for reason, n := range r.Dropped {
				s.counter(receiveDropDesc, n, r.Protocol, reason)
			}
			for reason, n := range r.Refused {
				s.counter(refusedDesc, n, r.Protocol, reason)
			}
		}
	}
	if l.Kept != nil {
		for result, n := range l.Kept() {
			s.counter(keptDesc, n, result)
		}
	}
	if l.Calibrations != nil {
		for _, c := range l.Calibrations() {
			s.gauge(falseAlarmDesc, c.FalseAlarmRatio, c.Route)
			s.counter(calibratedDesc, c.Total, c.Route)
		}
	}
}

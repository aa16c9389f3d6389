package web

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/staging"
)

var findingsDesc = prometheus.NewDesc("longpole_review_findings", "Findings of the newest review; missing before the first.", []string{"severity", "code"}, nil)

// Reviews is what keeps the records of changes and reviews them. Its methods are safe for concurrent use.
type Reviews interface {
	// Records are those of the changes that are in force by promotion, the newest first.
	Records() []staging.Record
	Workload() staging.Workload
	// Newest is the last review; false before the first.
	Newest() (review.Review, bool)
	// Review makes one now, which is the newest from then on.
	Review(ctx context.Context) (review.Review, error)
}

// reviewing adds what is known of changes, where somebody keeps it.
func (a *admin) reviewing(mux *http.ServeMux) {
	if a.Reviews == nil {
		return
	}
	mux.HandleFunc("GET /api/v1/records", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"records": a.Reviews.Records()})
	})
	mux.HandleFunc("GET /api/v1/workload", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, a.Reviews.Workload())
	})
	mux.HandleFunc("GET /api/v1/review", func(w http.ResponseWriter, _ *http.Request) {
		newest, ok := a.Reviews.Newest()
		if !ok {
			writeError(w, http.StatusNotFound, "there was no review yet; POST /api/v1/review makes one")
			return
		}
		writeJSON(w, http.StatusOK, newest)
	})
	mux.HandleFunc("POST /api/v1/review", func(w http.ResponseWriter, r *http.Request) {
		made, err := a.Reviews.Review(r.Context())
		if err != nil {
			writeError(w, http.StatusInternalServerError, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, made)
	})
}

// review is the newest review's findings.
func (s series) review(all Reviews) {
	if all == nil {
		return
	}
	newest, ok := all.Newest()
	if !ok {
		return
	}
	type kind struct{ severity, code string }
	counts := map[kind]float64{}
	for _, f := range newest.Findings {
		counts[kind{string(f.Severity), f.Code}]++
	}
	for k, n := range counts {
		s.gauge(findingsDesc, n, k.severity, k.code)
	}
}

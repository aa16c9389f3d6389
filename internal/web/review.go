package web

import (
	"context"
	"errors"
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
	// Dismissals are those in force.
	Dismissals() []review.Dismissal
	// Dismiss leaves findings of the newest review, or of the present diagnosis, as they are for a while; Reopen takes that
	// back. Errors wrap review.ErrDismissal, ErrNothing and ErrHarmful.
	Dismiss(ctx context.Context, o review.Order) ([]review.Dismissal, error)
	Reopen(ctx context.Context, o review.Order) ([]review.Dismissal, error)
	// Stretches are what the intervals of forecasts are widened by.
	Stretches() staging.Stretches
	// Exercised are the faults that were injected here.
	Exercised() []review.Exercise
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
	mux.HandleFunc("GET /api/v1/predictions", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"kinds": a.Reviews.Stretches()})
	})
	mux.HandleFunc("GET /api/v1/exercised", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"exercised": a.Reviews.Exercised()})
	})
	mux.HandleFunc("GET /api/v1/dismissals", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"dismissals": a.Reviews.Dismissals()})
	})
	mux.HandleFunc("POST /api/v1/dismissals", dismissals(a.Reviews.Dismiss))
	mux.HandleFunc("POST /api/v1/dismissals/reopen", dismissals(a.Reviews.Reopen))
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

// dismissals does what an order asks for, and answers which dismissals it was about.
func dismissals(do func(context.Context, review.Order) ([]review.Dismissal, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var o review.Order
		if !decode(w, r, &o, func(*review.Order) error { return nil }) {
			return
		}
		list, err := do(r.Context(), o)
		switch {
		case errors.Is(err, review.ErrDismissal):
			writeError(w, http.StatusBadRequest, err.Error())
		case errors.Is(err, review.ErrNothing):
			writeError(w, http.StatusNotFound, err.Error())
		case errors.Is(err, review.ErrHarmful):
			writeError(w, http.StatusConflict, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, err.Error())
		default:
			writeJSON(w, http.StatusOK, map[string]any{"dismissals": list})
		}
	}
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

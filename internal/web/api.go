package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/setting"
)

const maxBody = 1 << 20 // bytes of a request that changes something

func (a *admin) routes(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"version": a.Version, "routes": a.Gateway.Routes()})
}

// liveReport is a diagnosis with the time it speaks of.
type liveReport struct {
	At       time.Time `json:"at,omitzero"`
	WindowMS int64     `json:"window_ms"`
	advise.Report
}

func (a *admin) findings(w http.ResponseWriter, _ *http.Request) {
	f := a.Findings()
	if f.Report.Routes == nil {
		f.Report.Routes = []advise.Route{}
	}
	writeJSON(w, http.StatusOK, liveReport{f.At, f.Window.Milliseconds(), f.Report})
}

func (a *admin) rollouts(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"rollouts": a.Rollouts.List()})
}

func (a *admin) rollout(w http.ResponseWriter, r *http.Request) {
	s, ok := a.Rollouts.Get(r.PathValue("id"))
	if !ok {
		writeError(w, http.StatusNotFound, "no rollout "+r.PathValue("id"))
		return
	}
	writeJSON(w, http.StatusOK, s)
}

// Request asks for a rollout: of the policy To, or of the change that a finding with the code Advice carries.
// Zero fields mean the defaults of rollout.Spec.
type Request struct {
	Route          string           `yaml:"route"`
	To             *longpole.Config `yaml:"to"`
	Advice         string           `yaml:"advice"` // code of a finding, as LP103
	Goal           string           `yaml:"goal"`
	Target         string           `yaml:"target"`
	Steps          []float64        `yaml:"steps"`
	Slice          time.Duration    `yaml:"slice"`
	Warmup         time.Duration    `yaml:"warmup"`
	MaxDuration    time.Duration    `yaml:"max_duration"`
	OnInconclusive string           `yaml:"on_inconclusive"`
	Reason         string           `yaml:"reason"`
}

// spec is the rollout that q asks for; report is where its advice is looked up.
func (q Request) spec(report advise.Report) (rollout.Spec, error) {
	s := rollout.Spec{
		Goal: q.Goal, Target: q.Target, Steps: q.Steps, Slice: q.Slice, Warmup: q.Warmup,
		MaxDuration: q.MaxDuration, OnInconclusive: q.OnInconclusive, Reason: q.Reason,
	}
	switch {
	case q.Route == "":
		return s, &setting.Error{Path: "route", Value: q.Route, Want: "the name of a route"}
	case (q.To == nil) == (q.Advice == ""):
		return s, errors.New("name either to (a policy) or advice (the code of a finding), not both")
	case q.To != nil:
		s.Change = longpole.Change{Route: q.Route, To: q.To.Safe()}
		return s, nil
	}
	action, ok := FindAdvice(report, q.Route, q.Advice)
	if !ok {
		return s, fmt.Errorf("no finding %s carries a change for route %s now; GET /api/v1/findings shows what there is", q.Advice, q.Route)
	}
	s.Change = *action.Change
	for _, e := range action.Effects {
		if e.Route == q.Route {
			s.Predicted = rollout.Quantiles{P50: millis(e.Predicted.P50), P95: millis(e.Predicted.P95), P99: millis(e.Predicted.P99)}
			break
		}
	}
	return s, nil
}

func millis(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// FindAdvice is the first action with a change of that route among the findings with that code; code "" = any.
func FindAdvice(r advise.Report, route, code string) (advise.Action, bool) {
	for _, rt := range r.Routes {
		for _, f := range rt.Findings {
			for _, action := range f.Actions {
				if action.Change != nil && action.Change.Route == route && (code == "" || strings.EqualFold(f.Code, code)) {
					return action, true
				}
			}
		}
	}
	return advise.Action{}, false
}

func (a *admin) startRollout(w http.ResponseWriter, r *http.Request) {
	var q Request
	if !decode(w, r, &q) {
		return
	}
	spec, err := q.spec(a.Findings().Report)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	id, err := a.Rollouts.Start(spec)
	if err != nil {
		writeError(w, startStatus(err), err.Error())
		return
	}
	status, _ := a.Rollouts.Get(id)
	w.Header().Set("Location", "/api/v1/rollouts/"+id)
	writeJSON(w, http.StatusCreated, status)
}

func startStatus(err error) int {
	switch {
	case errors.Is(err, rollout.ErrBusy), errors.Is(err, rollout.ErrStale):
		return http.StatusConflict
	case errors.Is(err, rollout.ErrClosed):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// steer promotes or aborts a rollout.
func (a *admin) steer(do func(id, reason string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Reason string `yaml:"reason"`
		}
		if !decode(w, r, &q) {
			return
		}
		id := r.PathValue("id")
		switch err := do(id, q.Reason); {
		case errors.Is(err, rollout.ErrUnknown):
			writeError(w, http.StatusNotFound, err.Error())
		case errors.Is(err, rollout.ErrEnded):
			writeError(w, http.StatusConflict, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, err.Error())
		default:
			status, _ := a.Rollouts.Get(id)
			writeJSON(w, http.StatusOK, status)
		}
	}
}

// decode reads a body of JSON or YAML; an empty one leaves v as it is. It answers the faults itself.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body could not be read (at most %d bytes): %v", maxBody, err))
		return false
	}
	if err := conf.Decode("body", data, v); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

// ready says whether calls are served: some endpoint of every upstream is fit. With ?verbose it names each route.
func (a *admin) ready(w http.ResponseWriter, r *http.Request) {
	status, text := http.StatusOK, &strings.Builder{}
	for _, route := range a.Gateway.Routes() {
		fit := 0
		for _, e := range route.Endpoints {
			if e.Healthy {
				fit++
			}
		}
		mark := "[+]"
		if fit == 0 && len(route.Endpoints) > 0 {
			mark, status = "[-]", http.StatusServiceUnavailable
		}
		fmt.Fprintf(text, "%s route %s: %d of %d endpoints fit\n", mark, route.Name, fit, len(route.Endpoints))
	}
	if !r.URL.Query().Has("verbose") {
		text.Reset()
	}
	if status == http.StatusOK {
		text.WriteString("ok\n")
	} else {
		text.WriteString("not ready\n")
	}
	writeText(w, status, text.String())
}

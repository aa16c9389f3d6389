package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/setting"
)

const (
	maxBody   = 1 << 20 // bytes of a request that changes something
	maxReason = 1000    // bytes of the text that explains it

	defaultHoldback = 0.01

	// Of advice whose arms would feel each other: long enough for a queue to drain and for slow calls to end.
	advisedTurn    = 30 * time.Second
	advisedWashout = 5 * time.Second
)

func (a *admin) routes(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"version": a.Version, "routes": a.Gateway.Routes(), "history": a.Store != nil, "lab": a.Lab != nil})
}

// liveReport is a diagnosis with the time it speaks of.
type liveReport struct {
	At       time.Time `json:"at,omitzero"`
	WindowMS int64     `json:"window_ms"`
	advise.Report
	Dropped map[string]uint64 `json:"dropped"` // spans that did not reach the diagnosis since the start, by reason
}

// findings is the newest diagnosis of live traffic; with ?baseline= one of kept traces beside those of an earlier time.
func (a *admin) findings(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("baseline") {
		a.against(w, r)
		return
	}
	f := a.Findings()
	if f.Report.Routes == nil {
		f.Report.Routes = []advise.Route{}
	}
	writeJSON(w, http.StatusOK, liveReport{f.At, f.Window.Milliseconds(), f.Report, a.Dropped()})
}

func (a *admin) rollouts(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"rollouts": a.Rollouts.List()})
}

func (a *admin) rollout(w http.ResponseWriter, r *http.Request) {
	s, ok := a.Rollouts.Get(r.PathValue("id"))
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Sprintf("%v: %s", rollout.ErrUnknown, r.PathValue("id")))
		return
	}
	writeJSON(w, http.StatusOK, s)
}

// Request asks for a rollout: of the policy To, or of the change that a finding with the code Advice carries.
// Zero fields mean the defaults of rollout.Spec.
type Request struct {
	Route          string           `yaml:"route"`
	To             *longpole.Config `yaml:"to"`
	Advice         string           `yaml:"advice"`  // code of a finding, as LP103
	Kind           string           `yaml:"kind"`    // of its action, as hedge; "" = the best that carries a change
	Version        string           `yaml:"version"` // or an upstream of the route's split that is tried in place of a policy
	Goal           string           `yaml:"goal"`
	Target         string           `yaml:"target"`
	Steps          []float64        `yaml:"steps"`
	Slice          time.Duration    `yaml:"slice"`
	Warmup         time.Duration    `yaml:"warmup"`
	MaxDuration    time.Duration    `yaml:"max_duration"`
	OnInconclusive string           `yaml:"on_inconclusive"`
	Risk           float64          `yaml:"risk"`
	Switchback     time.Duration    `yaml:"switchback"`
	Washout        time.Duration    `yaml:"washout"`
	Observe        string           `yaml:"observe"`  // default that of the advice, or the route itself
	Shed           *float64         `yaml:"shed"`     // default that of the advice, or 0
	Holdback       *float64         `yaml:"holdback"` // default 1%; with a switchback none, and a share of the time
	Restart        string           `yaml:"restart"`
	Reason         string           `yaml:"reason"`   // up to 1000 bytes
	Override       bool             `yaml:"override"` // true = although the environment that must have verified the change has not; takes a reason
}

// Validate returns every fault of q, joined; each but one is a *setting.Error.
func (q *Request) Validate() error {
	var f setting.Faults
	given := 0
	for _, is := range []bool{q.To != nil, q.Advice != "", q.Version != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		f.Within("", errors.New("name one of to (a policy), advice (the code of a finding) and version (an upstream of the split)"))
	}
	f.Check(q.Kind == "" || slices.Contains(advise.Kinds(), q.Kind), "kind", q.Kind, strings.Join(advise.Kinds(), ", "))
	checkReason(&f, q.Reason)
	for _, err := range setting.List(q.spec().Validate()) {
		if fault, ok := errors.AsType[*setting.Error](err); ok {
			fault.Path = strings.TrimPrefix(fault.Path, "change.") // a request has its change at the top
		}
		f.Within("", err)
	}
	return f.Err()
}

// checkReason bounds what the journals of a hundred rollouts can hold.
func checkReason(f *setting.Faults, reason string) {
	f.Check(len(reason) <= maxReason, "reason", len(reason), fmt.Sprintf("at most %d bytes", maxReason))
}

// spec is the rollout that q asks for, without the change of an advice.
func (q *Request) spec() rollout.Spec {
	s := rollout.Spec{
		Change: longpole.Change{Route: q.Route}, Goal: q.Goal, Target: q.Target, Steps: q.Steps, Slice: q.Slice,
		Warmup: q.Warmup, MaxDuration: q.MaxDuration, OnInconclusive: q.OnInconclusive, Reason: q.Reason,
		Version: q.Version, Risk: q.Risk, Switchback: q.Switchback, Washout: q.Washout, Observe: q.Observe, Holdback: q.Holdback, Restart: q.Restart, Override: q.Override,
	}
	if q.Shed != nil {
		s.Shed = *q.Shed
	}
	if s.Holdback == nil && s.Version == "" && s.Switchback == 0 {
		share := defaultHoldback
		s.Holdback = &share
	}
	if q.To != nil {
		s.Change.To = q.To.Safe()
	}
	return s
}

// advised is spec with the change, and its forecast, that report advises.
func (q *Request) advised(report advise.Report) (rollout.Spec, error) {
	s := q.spec()
	finding, action, ok := findAction(report, q)
	if !ok {
		return s, fmt.Errorf("no finding %s%s carries a change for route %s now; GET /api/v1/findings shows what there is",
			q.Advice, strings.TrimRight(" "+q.Kind, " "), q.Route)
	}
	s.Change = *action.Change
	if q.Shed == nil {
		s.Shed = action.Shed
	}
	if action.Turns && s.Switchback == 0 {
		s.Switchback, s.Holdback = advisedTurn, q.Holdback
		if s.Washout == 0 {
			s.Washout = advisedWashout
		}
	}
	if s.Observe == "" {
		s.Observe = action.Observe
	}
	if e := action.Effect(q.Route); e != nil {
		s.Predicted = rollout.Quantiles{P50: millis(e.Predicted.P50), P95: millis(e.Predicted.P95), P99: millis(e.Predicted.P99)}
	}
	s.Hypothesis = hypothesis(finding, action, q.Route)
	return s, nil
}

// unverifiedHint is what to do about a change that nobody has verified.
const unverifiedHint = "run the same rollout there until it is promoted, or say override (--override --reason WHY), which stands in the journal"

// mostHypothesis bounds each text of a hypothesis, in bytes.
const mostHypothesis = 300

// hypothesis is why the change of an advice is tried, for reviews.
func hypothesis(f advise.Finding, a advise.Action, route string) rollout.Hypothesis {
	h := rollout.Hypothesis{
		Code: f.Code, Kind: a.Kind, Segment: string(f.Segment), Summary: shortened(f.Summary), Cost: shortened(a.Cost), Share: f.ShareP99,
	}
	if e := a.Effect(route); e != nil && e.Interval.P50[1] > 0 {
		h.Low = rollout.Quantiles{P50: millis(e.Interval.P50[0]), P95: millis(e.Interval.P95[0]), P99: millis(e.Interval.P99[0])}
		h.High = rollout.Quantiles{P50: millis(e.Interval.P50[1]), P95: millis(e.Interval.P95[1]), P99: millis(e.Interval.P99[1])}
		if a.Widened != nil {
			h.Widened = a.Widened.Factor
		}
	}
	return h
}

func shortened(text string) string {
	if len(text) <= mostHypothesis {
		return text
	}
	return strings.ToValidUTF8(text[:mostHypothesis], "") + "..."
}

func millis(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// findAction is the first action that q asks for.
func findAction(r advise.Report, q *Request) (advise.Finding, advise.Action, bool) {
	for _, rt := range r.Routes {
		for _, f := range rt.Findings {
			for _, a := range f.Actions {
				if a.Change != nil && a.Change.Route == q.Route && strings.EqualFold(f.Code, q.Advice) && (q.Kind == "" || a.Kind == q.Kind) {
					return f, a, true
				}
			}
		}
	}
	return advise.Finding{}, advise.Action{}, false
}

func (a *admin) startRollout(w http.ResponseWriter, r *http.Request) {
	var q Request
	if !decode(w, r, &q, (*Request).Validate) {
		return
	}
	spec := q.spec()
	if q.Advice != "" {
		var err error
		if spec, err = q.advised(a.Findings().Report); err != nil {
			writeError(w, http.StatusNotFound, err.Error())
			return
		}
	}
	id, err := a.Rollouts.Start(spec)
	if errors.Is(err, rollout.ErrUnverified) {
		writeJSON(w, http.StatusConflict, problem{Error: err.Error(), Hint: unverifiedHint})
		return
	}
	if err != nil {
		writeError(w, startStatus(err), err.Error())
		return
	}
	status, _ := a.Rollouts.Get(id)
	if status.Plan == "" {
		status.Plan = a.plan(spec.WithDefaults())
	}
	w.Header().Set("Location", "/api/v1/rollouts/"+id)
	writeJSON(w, http.StatusCreated, status)
}

// plan says what a rollout will be able to see at the traffic of now. It is said anew, of its own cohorts, after the warm-up.
func (a *admin) plan(s rollout.Spec) string {
	for _, r := range a.Gateway.Routes() {
		if r.Name == s.Judged() {
			return s.Plan(r.RPS, s.MaxDuration-s.Warmup, a.Rollouts.Calibration(r.Name))
		}
	}
	return ""
}

func startStatus(err error) int {
	switch {
	case errors.Is(err, rollout.ErrBusy), errors.Is(err, rollout.ErrStale), errors.Is(err, rollout.ErrBlocked):
		return http.StatusConflict
	case errors.Is(err, rollout.ErrClosed), errors.Is(err, rollout.ErrJournal):
		return http.StatusServiceUnavailable
	case errors.Is(err, gateway.ErrNoRoute):
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// order is the body of what steers a rollout.
type order struct {
	Reason string `yaml:"reason"` // up to 1000 bytes
}

// Validate returns a *setting.Error.
func (o *order) Validate() error {
	var f setting.Faults
	checkReason(&f, o.Reason)
	return f.Err()
}

// steer promotes, aborts, pauses, resumes or undoes a rollout, or releases its holdback.
func (a *admin) steer(do func(id, reason string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var o order
		if !decode(w, r, &o, (*order).Validate) {
			return
		}
		id := r.PathValue("id")
		switch err := do(id, o.Reason); {
		case errors.Is(err, rollout.ErrUnknown):
			writeError(w, http.StatusNotFound, err.Error())
		case errors.Is(err, rollout.ErrEnded), errors.Is(err, rollout.ErrState), errors.Is(err, rollout.ErrStale), errors.Is(err, rollout.ErrBusy):
			writeError(w, http.StatusConflict, err.Error())
		case errors.Is(err, rollout.ErrJournal):
			writeError(w, http.StatusServiceUnavailable, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, err.Error())
		default:
			status, _ := a.Rollouts.Get(id)
			writeJSON(w, http.StatusOK, status)
		}
	}
}

// decode reads a body of JSON or YAML; an empty one leaves v as it is. It answers the faults itself, all at once.
func decode[T any](w http.ResponseWriter, r *http.Request, v *T, validate func(*T) error) bool {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is too long; at most %d bytes are read", maxBody))
		return false
	}
	if err == nil {
		err = conf.Load("body", data, v, validate)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

// ready says whether calls are wanted and served: the gateway does not drain, and some endpoint of every upstream is
// fit. With ?verbose it names each route.
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
	a.Live.readySources(text)
	if n := a.Rollouts.Unwritten(); n > 0 {
		fmt.Fprintf(text, "[+] rollouts: degraded: the journal refused %d entries\n", n)
	}
	if a.Gateway.Draining() {
		status = http.StatusServiceUnavailable
		fmt.Fprintln(text, "[-] the gateway drains")
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

// config is what is in force, every default spelt out and promoted candidates in their place, as JSON or with
// ?format=yaml as a file; secrets are hidden.
func (a *admin) config(w http.ResponseWriter, r *http.Request) {
	marshal, kind := conf.MarshalJSON, "application/json"
	if r.URL.Query().Get("format") == "yaml" {
		marshal, kind = conf.Marshal, "application/yaml"
	}
	text, err := marshal(withoutSecrets(a.Gateway.Effective()))
	if err != nil {
		writeError(w, http.StatusInternalServerError, "the configuration could not be written: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(append(text, '\n')) // a client that went away needs no answer
}

// certificates are those that the gateway shows, with the days that they have left.
func (a *admin) certificates(w http.ResponseWriter, _ *http.Request) {
	type certificate struct {
		certs.Status
		DaysLeft float64 `json:"days_left"`
		Expiring bool    `json:"expiring"` // somebody should look
	}
	all, now := []certificate{}, time.Now()
	for _, s := range a.Gateway.Certificates() {
		all = append(all, certificate{s, s.DaysLeft(now), s.Expiring(now)})
	}
	writeJSON(w, http.StatusOK, map[string]any{"certificates": all})
}

// discovery is how endpoints are found that are not in the file.
func (a *admin) discovery(w http.ResponseWriter, _ *http.Request) {
	all := a.Gateway.Discovery()
	if all == nil {
		all = []gateway.DiscoveryStatus{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"upstreams": all})
}

// overload is how close the gateway is to its own bounds.
func (a *admin) overload(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"overload": a.Gateway.Overload(), "unrouted": a.Gateway.Unrouted(), "unlogged": a.Gateway.Unlogged(), "draining": a.Gateway.Draining(),
	})
}

// reload reads the configuration anew; the old one stays in force when the new one has faults.
func (a *admin) reload(w http.ResponseWriter, _ *http.Request) {
	if err := a.Reload(); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"reloaded": true})
}

// profile adds the profiles of the Go runtime.
func profile(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

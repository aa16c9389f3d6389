package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/setting"
)

// FaultRequest asks that a fault run on the calls of a route.
type FaultRequest struct {
	Route        string `yaml:"route"`
	fault.Config `yaml:",inline"`
}

// Validate returns every fault of q, joined; each is a *setting.Error.
func (q *FaultRequest) Validate() error {
	var f setting.Faults
	f.Check(q.Route != "", "route", q.Route, "the name of a route")
	f.Within("", q.Config.Validate())
	return f.Err()
}

// FaultStatus is the record of one fault, with its settings in the form of a file.
type FaultStatus struct {
	fault.Status
	Config json.RawMessage `json:"config"`
}

func faultStatus(s fault.Status) FaultStatus {
	text, err := conf.MarshalJSON(s.Config)
	if err != nil {
		text = []byte("null") // every part of a Config can be written
	}
	return FaultStatus{s, text}
}

func (a *admin) faults(w http.ResponseWriter, _ *http.Request) {
	all := []FaultStatus{}
	for _, s := range a.Gateway.Faults() {
		all = append(all, faultStatus(s))
	}
	writeJSON(w, http.StatusOK, map[string]any{"faults": all})
}

func (a *admin) startFault(w http.ResponseWriter, r *http.Request) {
	var q FaultRequest
	if !decode(w, r, &q, (*FaultRequest).Validate) {
		return
	}
	switch err := a.Gateway.StartFault(q.Route, q.Config); {
	case errors.Is(err, gateway.ErrNoRoute):
		writeError(w, http.StatusNotFound, err.Error())
	case errors.Is(err, fault.ErrRunning), errors.Is(err, fault.ErrTooMany):
		writeError(w, http.StatusConflict, err.Error())
	case err != nil:
		writeError(w, http.StatusBadRequest, err.Error())
	default:
		w.Header().Set("Location", "/api/v1/faults/"+q.Name)
		a.tellFault(w, http.StatusCreated, q.Name)
	}
}

func (a *admin) oneFault(w http.ResponseWriter, r *http.Request) {
	a.tellFault(w, http.StatusOK, r.PathValue("name"))
}

// stopFault ends a fault before its time; ?reason= is kept in its record.
func (a *admin) stopFault(w http.ResponseWriter, r *http.Request) {
	reason := r.URL.Query().Get("reason")
	if len(reason) > maxReason {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("the reason is too long; at most %d bytes", maxReason))
		return
	}
	if err := a.Gateway.StopFault(r.PathValue("name"), reason); err != nil {
		writeError(w, http.StatusNotFound, err.Error())
		return
	}
	a.tellFault(w, http.StatusOK, r.PathValue("name"))
}

// tellFault answers with the newest fault of a name.
func (a *admin) tellFault(w http.ResponseWriter, status int, name string) {
	all := a.Gateway.Faults()
	newest := -1
	for i, s := range all {
		if s.Name == name && (newest < 0 || !s.Began.Before(all[newest].Began)) {
			newest = i
		}
	}
	if newest < 0 {
		writeError(w, http.StatusNotFound, fmt.Sprintf("%v: %q", fault.ErrUnknown, name))
		return
	}
	writeJSON(w, status, faultStatus(all[newest]))
}

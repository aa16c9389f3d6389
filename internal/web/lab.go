package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/longpole/longpole/setting"
)

// Lab is a system to try Longpole on, whose faults are switched by hand. All its methods are safe for concurrent use.
type Lab interface {
	// Status is what it is and which of its faults are on.
	Status() LabStatus
	// Switch turns the fault of that name on or off.
	Switch(ctx context.Context, name string, on bool) error
}

// LabStatus is a running lab.
type LabStatus struct {
	Scenario string     `json:"scenario"`
	About    string     `json:"about"`  // what is wrong in it, in one sentence
	Faults   []LabFault `json:"faults"` // never nil; empty = its problem lies in its design
}

// LabFault is one of its faults.
type LabFault struct {
	Name string `json:"name"`
	What string `json:"what"` // its kind, and who suffers
	On   bool   `json:"on"`
}

// LabSwitch asks to turn a fault on or off.
type LabSwitch struct {
	On *bool `yaml:"on"` // required
}

// Validate returns what is wrong with s; a *setting.Error.
func (s *LabSwitch) Validate() error {
	var f setting.Faults
	f.Check(s.On != nil, "on", nil, "true or false")
	return f.Err()
}

// laboratory adds the handlers, which are there only while a lab runs.
func (a *admin) laboratory(mux *http.ServeMux) {
	if a.Lab == nil {
		return
	}
	mux.HandleFunc("GET /api/v1/lab", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, a.Lab.Status()) })
	mux.HandleFunc("POST /api/v1/lab/faults/{name}", a.switchFault)
}

func (a *admin) switchFault(w http.ResponseWriter, r *http.Request) {
	var s LabSwitch
	if !decode(w, r, &s, (*LabSwitch).Validate) {
		return
	}
	name := r.PathValue("name")
	if !slices.ContainsFunc(a.Lab.Status().Faults, func(f LabFault) bool { return f.Name == name }) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("the lab has no fault %q", name))
		return
	}
	if err := a.Lab.Switch(r.Context(), name, *s.On); err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, a.Lab.Status())
}

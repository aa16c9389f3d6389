package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/setting"
)

// KillRequest asks to switch parts of policies off by hand. What it does not name is switched on again.
type KillRequest struct {
	Route  string   `yaml:"route"`  // "" = every route
	Parts  []string `yaml:"parts"`  // cache, limit, retry, hedge, breaker, eject, fallback, rollouts, or all; none = everything is on again
	Reason string   `yaml:"reason"` // required; for the journal
}

// Validate returns every fault of k, joined; each is a *setting.Error.
func (k *KillRequest) Validate() error {
	var f setting.Faults
	known := append(gateway.PartNames(), rollout.Rollouts, "all")
	for i, name := range k.Parts {
		f.Check(slices.Contains(known, name), fmt.Sprintf("parts[%d]", i), name, strings.Join(known, ", "))
	}
	f.Check(k.Reason != "", "reason", k.Reason, "why: whoever finds it off will want to know")
	checkReason(&f, k.Reason)
	return f.Err()
}

// killed is what is switched off by hand, by route; "" is every route.
func (a *admin) killed(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"killed": a.Gateway.Killed(), "no_rollouts": a.Rollouts.Frozen()})
}

func (a *admin) kill(w http.ResponseWriter, r *http.Request) {
	var k KillRequest
	if !decode(w, r, &k, (*KillRequest).Validate) {
		return
	}
	switch err := a.Rollouts.Kill(k.Route, k.Parts, k.Reason); {
	case errors.Is(err, gateway.ErrNoRoute), errors.Is(err, gateway.ErrNoPolicy):
		writeError(w, http.StatusNotFound, err.Error())
	case err != nil:
		writeError(w, http.StatusInternalServerError, err.Error())
	default:
		a.killed(w, r)
	}
}

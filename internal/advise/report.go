package advise

import (
	"encoding/json"
	"errors"
	"fmt"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/staging"
)

// Report is a diagnosis whose findings carry actions. In JSON it is the diagnosis with an "actions" list in each finding.
type Report struct {
	diagnose.Report
	Routes []Route `json:"routes"` // in place of the diagnosis's own, in the same order; never nil
}

// Route is a diagnosed route whose findings carry actions.
type Route struct {
	diagnose.Route
	Findings []Finding `json:"findings"` // in place of the diagnosis's own, in the same order; never nil
}

// Finding is a finding with what can be done about it.
type Finding struct {
	diagnose.Finding
	Actions []Action `json:"actions"` // best first; never nil, empty when nothing is worth doing, and CounterEvidence then says why
}

// Action is one thing that can be done about a finding, and what it would do.
type Action struct {
	Kind      string     `json:"kind"`
	Step      Step       `json:"step"` // of the playbook
	Summary   string     `json:"summary"`
	Predicted *Predicted `json:"predicted_ms"` // of the finding's route; nil = no honest forecast is possible
	// Interval is where the quantiles of the finding's route will lie with 90 % confidence; nil = there is no forecast.
	Interval *Interval `json:"interval_ms,omitempty"`
	// Widened says by how much Interval, and those of Effects, are wider than the model alone draws them; nil = they are not.
	Widened *staging.Stretch `json:"widened,omitempty"`
	// Canary is what the candidate arm of a canary with half of the calls will see on Change's route, where that differs
	// from the effect there: an arm's cache is fed by its own calls only. nil = as in Effects.
	Canary    *Predicted `json:"canary_ms,omitempty"`
	Benefit   string     `json:"benefit"`
	Cost      string     `json:"cost"`
	Risk      string     `json:"risk"`
	ExtraLoad float64    `json:"extra_load"` // upstream calls added per call; negative = saved; 0 also when unknown
	// Shed is the share of Change's calls that it may refuse, its price, with headroom over what is predicted; a rollout must
	// be told (rollout.Spec.Shed). 0 = it refuses none, or nobody can tell.
	Shed float64 `json:"shed,omitempty"`
	// Turns says that both arms of a canary would feel the change, as that of a queue that they share: they must take turns.
	Turns bool `json:"turns,omitempty"`
	// Observe is the route whose calls show what the change does, where these are not its own; a rollout must be told
	// (rollout.Spec.Observe). It takes Turns. "" = those of Change's route do.
	Observe string `json:"observe,omitempty"`
	// Prerequisites must hold before it is done; Watch is the metrics that say whether it does harm. Never nil after a run.
	Prerequisites []string `json:"prerequisites"`
	Watch         []string `json:"watch"`
	// Text is what to run or to write, exactly: a statement, the shape of the code before and after. "" = the summary says it all.
	Text string `json:"text,omitempty"`
	// Snippets are the same settings for proxies and libraries that are not ours; nil where they do not map.
	Snippets []Snippet `json:"snippets,omitempty"`
	// Effects are the forecasts for every route that the change reaches, innermost first: the one that it applies to
	// and those that call it.
	Effects []Effect `json:"effects,omitempty"`
	// Change is the edit of a route's policy that does it; nil = it is not for the gateway to do, and Summary says what is.
	Change *longpole.Change `json:"change"`

	plain bool // proposed without a forecast, whatever the rule of its kind
}

// Effect is the forecast for a route of the gateway by its name; nil when the action does not reach it.
func (a *Action) Effect(route string) *Effect {
	for i := range a.Effects {
		if a.Effects[i].Route == route && route != "" {
			return &a.Effects[i]
		}
	}
	return nil
}

// MarshalJSON writes the change as a configuration writes it: durations and sizes as text, zero values left out.
func (a Action) MarshalJSON() ([]byte, error) {
	type plain Action // without this method
	outer := struct {
		plain
		Change json.RawMessage `json:"change"`
	}{plain: plain(a), Change: json.RawMessage("null")}
	if a.Change != nil {
		// From and To one by one: an empty policy is {}, where a field of a larger value would be left out.
		from, err1 := conf.MarshalJSON(a.Change.From)
		to, err2 := conf.MarshalJSON(a.Change.To)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("advise: change of route %s: %w", a.Change.Route, err)
		}
		change, err := json.Marshal(map[string]any{"route": a.Change.Route, "from": json.RawMessage(from), "to": json.RawMessage(to)})
		if err != nil {
			return nil, err
		}
		outer.Change = change
	}
	return json.Marshal(outer)
}

package slo

import "time"

// State is how far an alert is.
type State string

// The states. An alert goes from inactive to firing when one of the windows of its severity holds, to resolved when none does
// any more, and from there back to firing, or to inactive after resolvedFor.
const (
	Inactive State = "inactive"
	Firing   State = "firing"
	Resolved State = "resolved"
)

// resolvedFor is how long an alert that has ended is still shown as such.
const resolvedFor = 15 * time.Minute

// Alert is the state of one severity of one objective.
type Alert struct {
	Severity Severity  `json:"severity"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`   // when it came into this state; zero for an alert that never fired
	Started  time.Time `json:"started"` // when it fired last; zero = never
}

// step moves a on, and reports whether that is news: it began to fire, or it ended.
func (a *Alert) step(now time.Time, holds bool) (news bool) {
	switch {
	case holds && a.State != Firing:
		a.State, a.Since, a.Started = Firing, now, now
		return true
	case !holds && a.State == Firing:
		a.State, a.Since = Resolved, now
		return true
	case a.State == Resolved && now.Sub(a.Since) >= resolvedFor:
		a.State, a.Since = Inactive, now
	}
	return false
}

// Event is the news that an alert began or ended, with what is known of its objective then.
type Event struct {
	At     time.Time
	Alert  Alert
	Status Status
}

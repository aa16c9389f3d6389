package review

import (
	"time"

	"github.com/longpole/longpole/internal/fault"
)

// FaultClasses are the classes that a route should have been exercised with.
func FaultClasses() []string { return []string{"delay", "abort", "reset", "bandwidth", "blackhole"} }

// Cell is one class of fault on one route.
type Cell struct {
	Class   string    `json:"class"`
	Route   string    `json:"route"`
	Last    time.Time `json:"last,omitzero"` // zero = never
	Verdict string    `json:"verdict,omitempty"`
	Overdue bool      `json:"overdue"`
}

// ClassesOf is what a fault does, in the words of FaultClasses.
func ClassesOf(c fault.Config) (list []string) {
	for i, does := range []bool{c.Delay != nil, c.Abort != 0, c.Reset != "", c.BytesPerSecond != 0, c.Blackhole} {
		if does {
			list = append(list, FaultClasses()[i])
		}
	}
	return list
}

// VerdictOf is how a fault that has ended went. One that was stopped because too many calls failed has refuted its
// hypothesis; one that hit nothing has shown nothing.
func VerdictOf(s fault.Status) string {
	switch {
	case s.Running():
		return "runs"
	case s.Hits == 0:
		return "hit nothing"
	case s.Stopped == "ttl":
		return "held"
	}
	return "ended early: " + s.Stopped
}

// coverage is every class on every route, with the newest exercise that hit something.
func coverage(in *Input) []Cell {
	cells := []Cell{}
	for _, r := range in.Routes {
		for _, class := range FaultClasses() {
			c := Cell{Class: class, Route: r.Name}
			for _, e := range in.Exercised {
				if e.Route == r.Name && e.Class == class && e.Hits > 0 && e.At.After(c.Last) {
					c.Last, c.Verdict = e.At, e.Verdict
				}
			}
			c.Overdue = in.Now.Sub(c.Last) > in.Config.Exercise
			cells = append(cells, c)
		}
	}
	return cells
}

package review

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/fault"
)

// Exercise is a fault that was injected on purpose.
type Exercise struct {
	Class       string    `json:"class"` // one of FaultClasses
	Route       string    `json:"route"`
	At          time.Time `json:"at"`
	Hits        uint64    `json:"hits"`
	Verdict     string    `json:"verdict"` // of VerdictOf
	Point       string    `json:"point,omitempty"`
	Hypothesis  string    `json:"hypothesis,omitempty"`
	Environment string    `json:"environment,omitempty"` // where, when that was not here
}

// FaultClasses are the classes that a route should have been exercised with.
func FaultClasses() []string { return []string{"delay", "abort", "reset", "bandwidth", "blackhole"} }

// Cell is one class of fault on one route.
type Cell struct {
	Class       string    `json:"class"`
	Route       string    `json:"route"`
	Upstream    string    `json:"upstream,omitempty"` // behind the route; "" = several, or none
	Last        time.Time `json:"last,omitzero"`      // zero = never, here or in the environment before
	Environment string    `json:"environment,omitempty"`
	Verdict     string    `json:"verdict,omitempty"`
	Hypothesis  string    `json:"hypothesis,omitempty"`
	Overdue     bool      `json:"overdue"`
	Command     string    `json:"command,omitempty"` // that exercises it; "" = it is not overdue
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

// coverage is every class on every route, with the newest exercise that hit something, here or in the environment before.
func coverage(in *Input) []Cell {
	cells := []Cell{}
	for _, r := range in.Routes {
		for _, class := range FaultClasses() {
			c := Cell{Class: class, Route: r.Name, Upstream: r.Upstream}
			for _, e := range in.Exercised {
				if e.Route == r.Name && e.Class == class && e.Hits > 0 && e.At.After(c.Last) {
					c.Last, c.Verdict, c.Environment, c.Hypothesis = e.At, e.Verdict, e.Environment, e.Hypothesis
				}
			}
			if c.Overdue = in.Now.Sub(c.Last) > in.Config.Exercise; c.Overdue {
				c.Command = exerciseCommand(r, class)
			}
			cells = append(cells, c)
		}
	}
	return cells
}

// exerciseCommand is a small fault of a class in place of the route's endpoints, to be read before it is run.
func exerciseCommand(r Route, class string) string {
	slow := 2 * r.Did.Latency.Quantile(0.99)
	if slow == 0 {
		slow = 500 * time.Millisecond
	}
	effect := map[string]string{
		"delay": "--delay " + plain(slow), "abort": "--abort 503", "reset": "--reset before_head", "bandwidth": "--bandwidth 10KiB", "blackhole": "--blackhole",
	}[class]
	return fmt.Sprintf("longpole fault start %s --route %s --at attempt --share 5%% --ttl 5m --stop-errors 5%% %s", shell(class+"-"+r.Name), shell(r.Name), effect)
}

// plain is a duration as a flag takes it, to the millisecond.
func plain(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}

// shell quotes a word where a shell would not take it as it is.
func shell(word string) string {
	safe := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./:@", c)
	}
	if word != "" && strings.TrimFunc(word, safe) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

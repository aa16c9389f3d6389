package fault

import (
	"slices"
	"time"
)

// Status is the record of one fault: what was expected, what was done, how it ended.
type Status struct {
	Name       string    `json:"name"`
	Route      string    `json:"route,omitempty"` // filled by who holds the Set
	Hypothesis string    `json:"hypothesis,omitempty"`
	Began      time.Time `json:"began"`
	Ends       time.Time `json:"ends"`              // at the latest
	Stopped    string    `json:"stopped,omitempty"` // why it ended; "" = it runs
	Eligible   uint64    `json:"eligible"`          // calls, or attempts, that met the conditions
	Hits       uint64    `json:"hits"`              // of those: hit
	Passed     uint64    `json:"passed"`            // of those: drawn, but max_active suffered already
	Active     int64     `json:"active"`            // suffer now
	Calls      int       `json:"calls"`             // of the route, in the window of the stop condition
	Failed     int       `json:"failed"`            // of those

	Config Config `json:"-"` // with its defaults
}

// Running reports whether a fault has not ended.
func (s Status) Running() bool { return s.Stopped == "" }

func (r *running) status(now time.Time) Status {
	why := r.over(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, bad := r.window.sum(now)
	return Status{
		Name: r.cfg.Name, Hypothesis: r.cfg.Hypothesis, Began: r.began, Ends: r.ends, Stopped: why,
		Eligible: r.draws.Load(), Hits: r.hits.Load(), Passed: r.passed.Load(), Active: r.active.Load(), Calls: calls, Failed: bad, Config: r.cfg,
	}
}

// List is what runs, in the order of its start, after the last 32 that have ended, the oldest first. It is a copy.
func (s *Set) List(now time.Time) []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	all := slices.Clone(s.past)
	for _, r := range s.list() {
		all = append(all, r.status(now))
	}
	return all
}

package review

import (
	"maps"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
)

// Meter is one look at a route; its figures only grow.
type Meter struct {
	Route    string
	Upstream string // behind it; "" = several, or none
	Did      stats.Tally
	Caches   map[string]uint64 // calls by call.CacheState
	Open     bool              // a breaker is open
	Limit    int               // calls that run at once at most, now; 0 = no limit
	Policy   longpole.Config   // in force, with its defaults
}

// Meters adds up what the lints need of each route, from looks every 10 s. Its figures reach back one to two periods, so
// that a review soon after another one still stands on something. Make one with NewMeters. Not for concurrent use; told
// the time.
type Meters struct{ routes map[string]*meter }

// meter is one route: its figures now, at the last turn, and at the turn before that.
type meter struct {
	now, turned, first reading
	opened             time.Time
}

// reading is the figures at one time. The counts are of windows of 10 s.
type reading struct {
	at                     time.Time
	look                   Meter
	windows, limited, busy int
}

// maxMetered bounds the routes that are counted.
const maxMetered = 10_000

// NewMeters counts from the beginning of each route on.
func NewMeters() *Meters { return &Meters{routes: map[string]*meter{}} }

// Observe takes one look.
func (m *Meters) Observe(now time.Time, look Meter) {
	t := m.routes[look.Route]
	if t == nil && len(m.routes) >= maxMetered {
		return
	}
	if t == nil || look.Did.Calls < t.now.look.Did.Calls {
		start := reading{at: now}
		m.routes[look.Route] = &meter{now: reading{at: now, look: look}, turned: start, first: start}
		return
	}
	if look.Open {
		t.opened = now
	}
	if d := look.Did.Sub(t.now.look.Did); d.Calls > 0 {
		t.now.windows++
		if d.Shed > 0 {
			t.now.limited++
		}
		if spent(d, look.Policy, now.Sub(t.now.at)) {
			t.now.busy++
		}
	}
	t.now.at, t.now.look = now, look
}

// nearly is the share of a budget from which on it counts as spent.
const nearly = 0.9

// spent reports whether retries and hedges used what their budget allows.
func spent(d stats.Tally, p longpole.Config, span time.Duration) bool {
	if p.Retry == nil || p.Retry.Off {
		return false
	}
	extra := d.Retries + d.Hedges
	firsts := d.Attempts - min(d.Attempts, extra)
	allowed := p.Retry.BudgetRatio*float64(firsts) + p.Retry.MinPerSecond*span.Seconds()
	return extra > 0 && float64(extra) >= nearly*allowed
}

// Turn begins a new period; the one before it still counts.
func (m *Meters) Turn() {
	for _, t := range m.routes {
		t.first, t.turned = t.turned, t.now
	}
}

// Routes is what is known of those routes, in their order.
func (m *Meters) Routes(looks []Meter) []Route {
	all := make([]Route, 0, len(looks))
	for _, look := range looks {
		r := Route{Name: look.Route, Upstream: look.Upstream, Limit: look.Limit, Policy: look.Policy}
		if t := m.routes[look.Route]; t != nil {
			first := &t.first
			r.Since, r.Did, r.Opened = first.at, look.Did.Sub(first.look.Did), t.opened
			r.Windows, r.Limited, r.BusyTurns = t.now.windows-first.windows, t.now.limited-first.limited, t.now.busy-first.busy
			r.Caches = maps.Clone(look.Caches)
			for state, n := range first.look.Caches {
				r.Caches[state] -= min(n, r.Caches[state])
			}
		}
		all = append(all, r)
	}
	return all
}

package balance

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is one address that serves an upstream, with its load and its health. It is safe for concurrent use.
type Endpoint struct {
	name     string
	sick     atomic.Bool
	inFlight atomic.Int64
	streak   atomic.Int64 // failures in a row
	failed   atomic.Int64 // when the latest one ended, in ns since 1970
}

// Name is the address, as it was given to the Set.
func (e *Endpoint) Name() string { return e.name }

// Healthy is what SetHealthy said last; true before.
func (e *Endpoint) Healthy() bool { return !e.sick.Load() }

// SetHealthy takes the endpoint out of the rotation (false) or back. Calls that run are not touched.
func (e *Endpoint) SetHealthy(healthy bool) { e.sick.Store(!healthy) }

// InFlight is how many attempts run on the endpoint now, from Pick to Done.
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// A failure counts like a call in flight for this long, up to so many: an endpoint that fails fast always has the
// least in flight, and would draw all calls onto itself.
const (
	failureWeighs = time.Second
	maxStreak     = 16
)

// load is what P2C compares.
func (e *Endpoint) load(now time.Time) int64 {
	n := e.inFlight.Load()
	if streak := e.streak.Load(); streak > 0 && now.UnixNano()-e.failed.Load() < int64(failureWeighs) {
		n += min(streak, maxStreak)
	}
	return n
}

// Set is the endpoints of one upstream. It is safe for concurrent use; readers take no lock.
type Set struct {
	mu   sync.Mutex // serialises Replace
	list atomic.Pointer[[]*Endpoint]
}

// NewSet returns a Set of healthy endpoints in the given order; a name given twice counts once.
func NewSet(names ...string) *Set {
	s := new(Set)
	s.list.Store(&[]*Endpoint{})
	s.Replace(names)
	return s
}

// Replace makes names the endpoints. Those that stay keep their identity, load and health; calls that run on one that
// goes are not touched.
func (s *Set) Replace(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Endpoint, 0, len(names))
	for _, name := range names {
		if slices.ContainsFunc(list, func(e *Endpoint) bool { return e.name == name }) {
			continue
		}
		e := s.Find(name)
		if e == nil {
			e = &Endpoint{name: name}
		}
		list = append(list, e)
	}
	s.list.Store(&list)
}

// Endpoints is the present list. It is shared: do not write to it. A later Replace does not change it.
func (s *Set) Endpoints() []*Endpoint { return *s.list.Load() }

// Find returns the endpoint of that name, or nil.
func (s *Set) Find(name string) *Endpoint {
	for _, e := range s.Endpoints() {
		if e.name == name {
			return e
		}
	}
	return nil
}

// Healthy is how many endpoints are healthy.
func (s *Set) Healthy() int {
	n := 0
	for _, e := range s.Endpoints() {
		if e.Healthy() {
			n++
		}
	}
	return n
}

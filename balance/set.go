package balance

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// Target describes an endpoint.
type Target struct {
	Name   string  // the address; unique within a Set
	Weight float64 // its capacity relative to the others'; what is not above 0 counts as 1
	Zone   string  // where it runs; "" = unknown
}

// Endpoint is one address that serves an upstream, with its load and its health. It is safe for concurrent use.
type Endpoint struct {
	name     string
	about    atomic.Pointer[Target]
	sick     atomic.Bool
	returns  atomic.Uint32 // how often it became healthy again
	inFlight atomic.Int64
}

// Name is the address, as it was given to the Set.
func (e *Endpoint) Name() string { return e.name }

// Weight is its capacity relative to the others'; above 0.
func (e *Endpoint) Weight() float64 { return e.about.Load().Weight }

// Zone is where it runs; "" = unknown.
func (e *Endpoint) Zone() string { return e.about.Load().Zone }

// Healthy is what SetHealthy said last; true before. It is the verdict of active checks: see Balancer.Usable for the
// rest.
func (e *Endpoint) Healthy() bool { return !e.sick.Load() }

// SetHealthy takes the endpoint out of the rotation (false) or back. Calls that run are not touched.
func (e *Endpoint) SetHealthy(healthy bool) {
	if e.sick.Swap(!healthy) && healthy {
		e.returns.Add(1)
	}
}

// InFlight is how many attempts run on the endpoint now, from Pick to Done: those that still connect included, bodies
// that stream after Done not.
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// Set is the endpoints of one upstream. It is safe for concurrent use; readers take no lock.
type Set struct {
	mu   sync.Mutex // serialises writers
	list atomic.Pointer[[]*Endpoint]
	seed string // stands for a SubsetKey that is not given
}

// NewSet returns a Set of healthy endpoints of weight 1 in the given order; a name given twice counts once.
func NewSet(names ...string) *Set {
	s := &Set{seed: strconv.FormatUint(rand.Uint64(), 16)}
	s.list.Store(&[]*Endpoint{})
	s.Replace(names)
	return s
}

// Replace makes names the endpoints. Those that stay keep their identity, weight, zone, load and health; calls that run
// on one that goes are not touched.
func (s *Set) Replace(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	targets := make([]Target, len(names))
	for i, name := range names {
		targets[i] = Target{Name: name, Weight: 1}
		if e := s.Find(name); e != nil {
			targets[i] = *e.about.Load()
		}
	}
	s.replace(targets)
}

// Configure is Replace with weights and zones, which are those of targets from now on.
func (s *Set) Configure(targets []Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(targets)
}

func (s *Set) replace(targets []Target) {
	list := make([]*Endpoint, 0, len(targets))
	for _, t := range targets {
		if slices.ContainsFunc(list, func(e *Endpoint) bool { return e.name == t.Name }) {
			continue
		}
		if !(t.Weight > 0) {
			t.Weight = 1
		}
		e := s.Find(t.Name)
		if e == nil {
			e = &Endpoint{name: t.Name}
		}
		e.about.Store(&t)
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

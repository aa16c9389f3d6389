package lab

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/setting"
)

// The errors of faults.
var (
	ErrPlanted  = errors.New("lab: a fault of that name is planted already")
	ErrNoFault  = errors.New("lab: no fault of that name is planted")
	ErrTooMany  = errors.New("lab: too many faults; at most 64")
	errRejected = errors.New("lab: the fault is not valid")
)

const maxFaults = 64

// Kind is what a fault does to the calls that it hits.
type Kind string

// The kinds of fault.
const (
	Delay     Kind = "delay"     // waits Min..Max, uniformly drawn, before the work
	Fail      Kind = "fail"      // answers with Status instead of working
	FullScan  Kind = "full_scan" // catalogue: scans its table, then waits for the simulated disk: lognormal, p50 Min, p99 Max
	kindNames      = "delay, fail or full_scan"
)

// Fault is one problem of one service. It is a value: plant a copy, remove it by its name.
type Fault struct {
	Name     string // unique
	Service  string // whose calls it hits
	Instance string // only those of this instance: "orders-3"; "" = all
	Kind     Kind
	Ratio    float64       // share of the calls that are hit; 0 = all
	Min, Max time.Duration // of Delay and FullScan
	Status   int           // of Fail; 400..599
}

// Validate returns every fault of f, joined; each is a *setting.Error.
func (f Fault) Validate() error {
	var faults setting.Faults
	faults.Check(f.Name != "", "name", f.Name, "a name")
	faults.Check(f.Service != "", "service", f.Service, "a service")
	faults.Check(f.Ratio >= 0 && f.Ratio <= 1, "ratio", f.Ratio, "0..1")
	switch f.Kind {
	case Delay, FullScan:
		faults.Check(f.Min > 0 && f.Max >= f.Min, "min", f.Min, "more than 0 and at most max")
	case Fail:
		faults.Check(f.Status >= 400 && f.Status <= 599, "status", f.Status, "400..599")
	default:
		faults.Check(false, "kind", f.Kind, kindNames)
	}
	return faults.Err()
}

// Names of the faults that a lab starts with.
const (
	SlowReplica   = "slow-replica"
	ExpensiveRead = "expensive-read"
)

// Afflictions are the problems that a lab starts with: every fifth call to the third replica of orders takes a
// quarter of a second and more; and the catalogue scans its table where it could read a summary.
func Afflictions() []Fault {
	return []Fault{
		{Name: SlowReplica, Service: "orders", Instance: "orders-3", Kind: Delay, Ratio: 0.2, Min: 250 * time.Millisecond, Max: 400 * time.Millisecond},
		{Name: ExpensiveRead, Service: "catalogue", Kind: FullScan, Min: 80 * time.Millisecond, Max: 170 * time.Millisecond},
	}
}

// board holds the planted faults. Reading it takes no lock; a change swaps the whole list.
type board struct {
	mu      sync.Mutex
	planted atomic.Pointer[[]Fault]
}

func newBoard(faults []Fault) *board {
	b := &board{}
	list := slices.Clone(faults)
	b.planted.Store(&list)
	return b
}

func (b *board) list() []Fault { return *b.planted.Load() }

func (b *board) plant(f Fault) error {
	if err := f.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errRejected, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.list()
	if slices.ContainsFunc(now, func(o Fault) bool { return o.Name == f.Name }) {
		return fmt.Errorf("%w: %q", ErrPlanted, f.Name)
	}
	if len(now) >= maxFaults {
		return ErrTooMany
	}
	next := append(slices.Clone(now), f)
	b.planted.Store(&next)
	return nil
}

func (b *board) remove(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(b.list()), func(o Fault) bool { return o.Name == name })
	if len(next) == len(b.list()) {
		return fmt.Errorf("%w: %q", ErrNoFault, name)
	}
	b.planted.Store(&next)
	return nil
}

// hits returns the first planted fault of that kind that hits this call of s, drawing its chance.
func (b *board) hits(s *service, kind Kind) (Fault, bool) {
	for _, f := range b.list() {
		if f.Kind != kind || f.Service != s.name || (f.Instance != "" && f.Instance != s.instance) {
			continue
		}
		if f.Ratio == 0 || s.random.chance(f.Ratio) {
			return f, true
		}
	}
	return Fault{}, false
}

package balance

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

// ErrNoEndpoint is returned when no endpoint is healthy. The balancer fails closed: active checks have said that a call
// would be in vain.
var ErrNoEndpoint = errors.New("balance: no healthy endpoint")

// Balancer chooses endpoints of one Set. All methods are safe for concurrent use and do not allocate.
type Balancer struct {
	cfg  atomic.Pointer[Config]
	set  *Set
	turn atomic.Uint64 // of round robin
	rand func() uint64
}

// New returns a balancer over s. c must be valid.
func New(c Config, s *Set) *Balancer {
	b := &Balancer{set: s, rand: rand.Uint64}
	b.Reconfigure(c)
	return b
}

// Reconfigure swaps the settings. The load and the health stay: they are the Set's.
func (b *Balancer) Reconfigure(c Config) {
	c = c.WithDefaults()
	b.cfg.Store(&c)
}

// Pick chooses the endpoint of a call that starts at now and counts it as in flight until Done. Among the healthy
// endpoints, one that avoid refuses is chosen only when avoid refuses all of them. avoid may be nil; it must not block.
//
// P2C draws two different endpoints and takes the one with fewer calls in flight (recent failures in a row count as
// such), the first drawn when they are level. Source: Mitzenmacher, The Power of Two Choices (2001).
func (b *Balancer) Pick(now time.Time, avoid func(*Endpoint) bool) (*Endpoint, error) {
	list := b.set.Endpoints()
	e := b.choose(now, list, avoid)
	if e == nil && avoid != nil {
		e = b.choose(now, list, nil)
	}
	if e == nil {
		return nil, ErrNoEndpoint
	}
	e.inFlight.Add(1)
	return e, nil
}

func (b *Balancer) choose(now time.Time, list []*Endpoint, avoid func(*Endpoint) bool) *Endpoint {
	if b.cfg.Load().Algorithm == RoundRobin {
		return b.next(list, avoid)
	}
	return b.two(now, list, avoid)
}

// Done tells that a call on e ended. It must follow each Pick once.
func (b *Balancer) Done(e *Endpoint, now time.Time, out call.Outcome) {
	e.inFlight.Add(-1)
	switch {
	case out.Class.Failed():
		e.failed.Store(now.UnixNano())
		e.streak.Add(1)
	case out.Class == call.OK || out.Class == call.Client:
		if e.streak.Load() != 0 {
			e.streak.Store(0)
		}
	}
}

func fit(e *Endpoint, avoid func(*Endpoint) bool) bool {
	return e.Healthy() && (avoid == nil || !avoid(e))
}

// two is P2C; nil when none is fit.
func (b *Balancer) two(now time.Time, list []*Endpoint, avoid func(*Endpoint) bool) *Endpoint {
	if n := uint64(len(list)); n >= 2 {
		// Two that differ by construction. When both are fit, as nearly always, no other needs a look.
		r := b.rand()
		i, j := r>>32%n, r&(1<<32-1)%(n-1)
		if j >= i {
			j++
		}
		if fit(list[i], avoid) && fit(list[j], avoid) {
			return lighter(now, list[i], list[j])
		}
	}
	return b.sample(now, list, avoid)
}

// sample draws the two from the fit ones alone, in one pass (reservoir sampling).
func (b *Balancer) sample(now time.Time, list []*Endpoint, avoid func(*Endpoint) bool) *Endpoint {
	var drawn [2]*Endpoint
	seen := uint64(0)
	for _, e := range list {
		if !fit(e, avoid) {
			continue
		}
		if seen < 2 {
			drawn[seen] = e
		} else if k := b.rand() % (seen + 1); k < 2 {
			drawn[k] = e
		}
		seen++
	}
	if seen < 2 {
		return drawn[0]
	}
	if b.rand()&1 == 1 { // the reservoir keeps the order of the list, which must not break ties
		drawn[0], drawn[1] = drawn[1], drawn[0]
	}
	return lighter(now, drawn[0], drawn[1])
}

func lighter(now time.Time, a, b *Endpoint) *Endpoint {
	if b.load(now) < a.load(now) {
		return b
	}
	return a
}

// next is round robin over the fit ones, so that the neighbour of an unfit one gets no double share; nil when none is fit.
func (b *Balancer) next(list []*Endpoint, avoid func(*Endpoint) bool) *Endpoint {
	n := uint64(0)
	for _, e := range list {
		if fit(e, avoid) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	skip := (b.turn.Add(1) - 1) % n
	var last *Endpoint // in case one became unfit since it was counted
	for _, e := range list {
		if !fit(e, avoid) {
			continue
		}
		if last = e; skip == 0 {
			break
		}
		skip--
	}
	return last
}

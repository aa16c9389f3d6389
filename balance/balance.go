package balance

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

// ErrNoEndpoint is returned when no endpoint is healthy. The balancer fails closed: active checks have said that a call
// would be in vain.
var ErrNoEndpoint = errors.New("balance: no healthy endpoint")

// Balancer chooses endpoints of one Set. What it learns of them (latency, failures, ejections, load reports) is its own:
// routes of different latency do not disturb each other. All methods are safe for concurrent use and do not allocate,
// those apart that say so; a change of the settings or of the Set costs the next call some allocations.
type Balancer struct {
	cfg    atomic.Pointer[Config]
	set    *Set
	view   atomic.Pointer[view]
	latest atomic.Int64 // about the latest instant that was seen
	warmTo atomic.Int64 // no slow start lasts longer than this instant
	rand   func() uint64

	turns sync.Mutex // guards node.turn
	turn  atomic.Uint64
	gate  sync.Mutex // serialises new views and decisions about ejection
	eject ejection
	pool  pool
}

// New returns a balancer over s. c must be valid.
func New(c Config, s *Set) *Balancer {
	b := &Balancer{set: s, rand: rand.Uint64}
	b.warmTo.Store(never)
	b.Reconfigure(c)
	return b
}

// Reconfigure swaps the settings. What was learned stays; the load and the health are the Set's.
func (b *Balancer) Reconfigure(c Config) {
	c = c.WithDefaults()
	if c.SubsetKey == "" {
		c.SubsetKey = b.set.seed
	}
	b.cfg.Store(&c)
}

// Pick chooses the endpoint of a call that starts at now and counts it as in flight until Done. The order of
// preference, each step only when nothing is left in the one before:
//
//  1. fit and not refused by avoid
//  2. fit
//  3. ejected, but healthy by active checks
//
// and within each: the caller's zone and subset, then other zones, then outside of the subset. An endpoint whose
// ejection is over gets one call as a trial before all this. avoid may be nil; it must not block.
func (b *Balancer) Pick(now time.Time, avoid func(*Endpoint) bool) (*Endpoint, error) {
	v, t := b.look(now)
	q := query{b: b, v: v, t: t}
	n := q.choose(avoid)
	if n == nil {
		return nil, ErrNoEndpoint
	}
	n.e.inFlight.Add(1)
	return n.e, nil
}

// Done tells that a call on e ended. It must follow each Pick once. out.Latency must be the time since the Pick, or 0
// when it is not known.
func (b *Balancer) Done(e *Endpoint, now time.Time, out call.Outcome) {
	e.inFlight.Add(-1)
	v, t := b.look(now)
	n := v.by[e]
	if n == nil {
		return // the endpoint is gone
	}
	bad := refused(out) || out.Overtaken
	gap := n.fail(t, out, bad)
	if v.cfg.Algorithm == PeakEWMA {
		n.mu.Lock()
		n.price(t, out, refused(out)) // what was overtaken took that long, no longer
		n.mu.Unlock()
	}
	if v.cfg.Eject != nil {
		b.judge(v, n, t, out, n.learn(t, gap, out, bad, v.cfg.Eject.FailureRatio))
	}
}

// refused reports an outcome that speaks against the endpoint. An answer that says when to come again is one, whatever
// its class: who sheds at once must not look fast, nor well.
func refused(out call.Outcome) bool {
	return out.Class.Failed() || out.Pushback > 0 && out.Class == call.Client
}

// fail notes failures in a row, and returns the time since the one before.
func (n *node) fail(t instant, out call.Outcome, bad bool) (gap time.Duration) {
	if bad {
		n.streak.Add(1)
		return t - instant(n.failed.Swap(int64(t)))
	}
	if out.Class == call.OK && n.streak.Load() != 0 {
		n.streak.Store(0)
	}
	return 0
}

// A failure counts like a call in flight for this long, up to so many: an endpoint that fails fast always has the
// least in flight, and would draw all calls onto itself.
const (
	failureWeighs = time.Second
	maxStreak     = 16
)

// penalty is how many calls in flight the recent failures count for.
func (n *node) penalty(t instant) int64 {
	streak := n.streak.Load()
	if streak > 0 && t-instant(n.failed.Load()) < failureWeighs {
		return int64(min(streak, maxStreak))
	}
	return 0
}

// pending is the calls in flight, failures counted in.
func (n *node) pending(t instant) float64 {
	return float64(max(n.e.inFlight.Load(), 0) + n.penalty(t))
}

// Usable is how many endpoints a Pick at now would choose from: healthy and not ejected.
func (b *Balancer) Usable(now time.Time) int {
	v, t := b.look(now)
	q := query{b: b, v: v, t: t}
	q.failOpen()
	count := 0
	for _, n := range v.used {
		if q.fit(n, nil) {
			count++
		}
	}
	return count
}

// Ejected reports whether e is out of the rotation for what its calls did, a trial included.
func (b *Balancer) Ejected(e *Endpoint) bool {
	v := b.view.Load()
	return v != nil && v.by[e] != nil && v.by[e].out.Load() != 0
}

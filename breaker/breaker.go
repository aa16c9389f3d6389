package breaker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

// ErrOpen is returned for a call that may not be made.
var ErrOpen = errors.New("breaker: open")

// State is what a breaker does with calls.
type State uint8

// The states.
const (
	Closed   State = iota // all calls pass
	HalfOpen              // Config.Probes calls pass, to find out
	Open                  // no call passes
	states
)

// String is the lower-case name used in metrics and logs.
func (s State) String() string {
	if s >= states {
		return "unknown"
	}
	return [states]string{"closed", "half_open", "open"}[s]
}

// Breaker refuses calls while too many of the latest ones failed or were slow. It fails open: what it knows nothing
// about passes.
//
// All methods are safe for concurrent use and do not allocate. Allow and Ready take no lock while it is closed.
//
// Source: Nygard, Release It! (2007); the windows, the share of slow calls and the counted probes as in resilience4j; the
// growing time as in Envoy's outlier ejection.
type Breaker struct {
	cfg     atomic.Pointer[Config]
	guarded atomic.Bool // false = closed, and nothing needs to be asked under the lock

	mu      sync.Mutex
	state   State
	until   time.Time     // Open: when to let probes pass
	openFor time.Duration // Open: the length of that
	since   time.Time     // HalfOpen: when it began
	room    time.Time     // HalfOpen: since when there is no other room than that of probes that ended
	made    int           // HalfOpen: probes that run or have ended well
	good    int           // HalfOpen: probes that ended well, slow ones included
	slow    int           // HalfOpen: those that were slow
	closed  time.Time     // Closed: since when; zero = never was anything else
	again   int           // times it opened without a quiet Window between them, less one
	window  window
}

// New returns a closed breaker. c must be valid.
func New(c Config) *Breaker {
	b := new(Breaker)
	b.Reconfigure(c)
	return b
}

// Reconfigure swaps the settings and keeps the state and what was counted; a new Window begins to count anew.
func (b *Breaker) Reconfigure(c Config) {
	c = c.WithDefaults()
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.cfg.Swap(&c); old == nil || old.Window != c.Window || old.WindowCalls != c.WindowCalls {
		b.window.reset(&c)
	}
	if c.Off {
		b.state, b.closed, b.again = Closed, time.Time{}, 0
		b.window.reset(&c)
		b.guarded.Store(false)
	}
}

// Allow admits a call that starts at now, or returns ErrOpen. An admitted call must be followed by one Record or one
// Cancel. Half-open it admits Probes calls and no more, whatever the concurrency, until one of them is given up; or as
// many again each time that OpenFor passes without a verdict, lest probes that hang keep it shut.
func (b *Breaker) Allow(now time.Time) error {
	if !b.guarded.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready(now) {
		return ErrOpen
	}
	switch {
	case b.state == Closed:
		return nil
	case b.state == Open:
		b.state, b.since, b.room, b.made, b.good, b.slow = HalfOpen, now, now, 0, 0, 0
	case now.Before(b.since):
		b.since = now // it read the clock before the first probe did, and came for the lock after it
	}
	if b.made >= b.cfg.Load().Probes {
		b.made, b.room = 0, now
	}
	b.made++
	return nil
}

// Ready reports whether Allow would admit a call, without admitting one.
func (b *Breaker) Ready(now time.Time) bool {
	if !b.guarded.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready(now)
}

func (b *Breaker) ready(now time.Time) bool {
	if b.state == Closed {
		return true
	}
	if b.until.Sub(now) > 2*b.openFor {
		// The clock was set back: not shut for as long as that, and probes from before are not known by their time.
		b.state, b.until = Open, now.Add(b.openFor)
	}
	if now.Before(b.until) {
		return false
	}
	return b.state == Open || b.made < b.cfg.Load().Probes || now.Sub(b.room) >= b.openFor
}

// Record tells how an admitted call ended at now. Its start, now less out.Latency, tells a probe from a call that was
// still running when the breaker opened: the latter no longer counts. Canceled and Shed say nothing about the
// endpoint, but that a call which was given up after SlowAfter was slow; a probe that ends so makes room for another.
func (b *Breaker) Record(now time.Time, out call.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.cfg.Load()
	if c.Off {
		return
	}
	one := counted
	if out.Class.Failed() {
		one |= failed
	}
	if c.SlowAfter > 0 && out.Latency > c.SlowAfter && out.Class != call.Shed {
		one |= slow
	}
	silent := one == counted && (out.Class == call.Canceled || out.Class == call.Shed)
	switch {
	case b.state == HalfOpen && !now.Add(-out.Latency).Before(b.since):
		b.probed(now, c, one, silent)
	case b.state == Closed && !silent:
		if sum := b.window.add(now, c, one); sum.calls >= c.MinCalls && sum.bad(c) {
			b.open(now, c)
		}
	}
}

// Cancel takes back an admission at now: the call was never made.
func (b *Breaker) Cancel(now time.Time) { b.Record(now, call.Outcome{Class: call.Canceled}) }

// State is what the breaker would do with a call at now. An open breaker whose time is up is half-open.
func (b *Breaker) State(now time.Time) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Open && !now.Before(b.until) {
		return HalfOpen
	}
	return b.state
}

func (b *Breaker) probed(now time.Time, c *Config, one flags, silent bool) {
	if silent {
		b.made = max(b.made-1, 0)
		return
	}
	b.good++
	b.slow += one.count().slow
	switch all := (count{calls: c.Probes, slow: b.slow}); {
	case one&failed != 0, all.bad(c):
		b.open(now, c)
	case b.good >= c.Probes:
		b.close(now, c)
	}
}

// open lets nothing pass for OpenFor, and twice as long each time it happens again soon: what fails as soon as it is
// asked is asked less and less often.
func (b *Breaker) open(now time.Time, c *Config) {
	switch {
	case b.state == HalfOpen, !b.closed.IsZero() && now.Sub(b.closed) < c.Window:
		b.again++
	default:
		b.again = 0
	}
	b.openFor = c.MaxOpenFor
	if b.again < 32 && c.OpenFor <= c.MaxOpenFor>>b.again {
		b.openFor = c.OpenFor << b.again
	}
	b.state, b.until = Open, now.Add(b.openFor)
	b.guarded.Store(true)
}

// close forgets the failures that led here, which would open the breaker again at the next one.
func (b *Breaker) close(now time.Time, c *Config) {
	b.state, b.closed = Closed, now
	b.window.reset(c)
	b.guarded.Store(false)
}

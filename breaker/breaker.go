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

// slots is how many parts a window moves on by.
const slots = 10

// Breaker refuses calls while too many of the latest ones failed. It fails open: what it knows nothing about passes.
//
// All methods are safe for concurrent use and do not allocate. Allow and Ready take no lock while it is closed.
//
// Source: Nygard, Release It! (2007); the ratio over a window and the counted probes as in resilience4j.
type Breaker struct {
	cfg     atomic.Pointer[Config]
	guarded atomic.Bool // false = closed, and nothing needs to be asked under the lock

	mu    sync.Mutex
	state State
	until time.Time // Open: when to let probes pass
	since time.Time // HalfOpen: when it began
	made  int       // HalfOpen: probes that run or were good
	good  int       // HalfOpen: probes that were good

	epoch time.Time // begin of slot 0; monotonic when now is, so a step of the wall clock changes nothing
	head  int64     // slot of the latest now
	ring  [slots]count
	sum   count
}

type count struct{ calls, failed int }

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
	if old := b.cfg.Swap(&c); old != nil && old.Window != c.Window {
		b.forget()
	}
	if c.Off {
		b.close()
	}
}

// Allow admits a call that starts at now, or returns ErrOpen. An admitted call must be followed by one Record or one
// Cancel. Half-open it admits Probes calls and no more, whatever the concurrency, until one of them is given up.
func (b *Breaker) Allow(now time.Time) error {
	if !b.guarded.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready(now) {
		return ErrOpen
	}
	if b.state == Open {
		b.state, b.since, b.made, b.good = HalfOpen, now, 0, 0
	}
	if b.state == HalfOpen {
		b.made++
	}
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
	switch b.state {
	case Open:
		return !now.Before(b.until)
	case HalfOpen:
		return b.made < b.cfg.Load().Probes
	}
	return true
}

// Record tells how an admitted call ended at now. Its start, now less out.Latency, tells a probe from a call that was
// still running when the breaker opened: the latter no longer counts. Canceled and Shed say nothing about the
// endpoint; a probe that ends so makes room for another.
func (b *Breaker) Record(now time.Time, out call.Outcome) {
	c := b.cfg.Load()
	if c.Off {
		return
	}
	silent := out.Class == call.Canceled || out.Class == call.Shed
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == HalfOpen && !now.Add(-out.Latency).Before(b.since):
		b.probed(now, c, out.Class.Failed(), silent)
	case b.state == Closed && !silent:
		b.count(now, c, out.Class.Failed())
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

func (b *Breaker) probed(now time.Time, c *Config, failed, silent bool) {
	switch {
	case failed:
		b.open(now, c)
	case silent:
		b.made--
	default:
		b.good++
		if b.good >= c.Probes {
			b.close()
		}
	}
}

func (b *Breaker) count(now time.Time, c *Config, failed bool) {
	b.advance(now, c)
	at := &b.ring[b.head%slots]
	at.calls++
	b.sum.calls++
	if !failed {
		return
	}
	at.failed++
	b.sum.failed++
	if b.sum.calls >= c.MinCalls && float64(b.sum.failed) >= c.FailureRatio*float64(b.sum.calls) {
		b.open(now, c)
	}
}

func (b *Breaker) open(now time.Time, c *Config) {
	b.state, b.until = Open, now.Add(c.OpenFor)
	b.guarded.Store(true)
}

// close forgets the failures that led here, which would open the breaker again at the next one.
func (b *Breaker) close() {
	b.state = Closed
	b.forget()
	b.guarded.Store(false)
}

func (b *Breaker) forget() { b.ring, b.sum = [slots]count{}, count{} }

// advance moves the window so that it ends at now. A now before the latest one counts as the latest.
func (b *Breaker) advance(now time.Time, c *Config) {
	if b.epoch.IsZero() {
		b.epoch = now
	}
	to := int64(now.Sub(b.epoch) / (c.Window / slots))
	if to-b.head >= slots {
		b.forget()
		b.head = to
	}
	for b.head < to {
		b.head++
		gone := &b.ring[b.head%slots]
		b.sum.calls -= gone.calls
		b.sum.failed -= gone.failed
		*gone = count{}
	}
}

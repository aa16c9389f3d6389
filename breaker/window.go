package breaker

import "time"

// slots is how many parts a window of time moves on by.
const slots = 10

// count is how some calls ended. A call may be both failed and slow.
type count struct{ calls, failed, slow int }

func (n *count) add(o count) {
	n.calls += o.calls
	n.failed += o.failed
	n.slow += o.slow
}

func (n *count) sub(o count) {
	n.calls -= o.calls
	n.failed -= o.failed
	n.slow -= o.slow
}

// bad reports whether so many of the calls failed or were slow that the breaker should open.
func (n count) bad(c *Config) bool {
	return n.failed > 0 && float64(n.failed) >= c.FailureRatio*float64(n.calls) ||
		n.slow > 0 && float64(n.slow) >= c.SlowRatio*float64(n.calls)
}

// window holds the calls of the last Config.Window, or the latest Config.WindowCalls. The breaker's lock guards it.
type window struct {
	sum count

	epoch time.Time // begin of slot 0; monotonic when now is, so a step of the wall clock changes nothing
	head  int64     // slot of the latest now
	ring  [slots]count

	last []flags // the latest WindowCalls; nil = by time
	at   int     // in last, of the oldest one
}

// flags are one call in a byte.
type flags uint8

const (
	counted flags = 1 << iota
	failed
	slow
)

func (f flags) count() (n count) {
	if f&counted != 0 {
		n.calls = 1
	}
	if f&failed != 0 {
		n.failed = 1
	}
	if f&slow != 0 {
		n.slow = 1
	}
	return n
}

// reset forgets all calls.
func (w *window) reset(c *Config) {
	*w = window{last: w.last}
	if len(w.last) != c.WindowCalls {
		w.last = make([]flags, c.WindowCalls)
	}
	clear(w.last)
}

// add counts one call that ended at now, and returns what the window holds.
func (w *window) add(now time.Time, c *Config, one flags) count {
	if c.WindowCalls > 0 {
		oldest := &w.last[w.at]
		w.at = (w.at + 1) % len(w.last)
		w.sum.sub(oldest.count())
		*oldest = one
	} else {
		w.advance(now, c)
		w.ring[w.head%slots].add(one.count())
	}
	w.sum.add(one.count())
	return w.sum
}

// advance moves the window so that it ends at now. A now before the latest one counts as the latest.
func (w *window) advance(now time.Time, c *Config) {
	if w.epoch.IsZero() {
		w.epoch = now
	}
	to := int64(now.Sub(w.epoch) / (c.Window / slots))
	if to-w.head >= slots {
		w.ring, w.sum, w.head = [slots]count{}, count{}, to
	}
	for w.head < to {
		w.head++
		gone := &w.ring[w.head%slots]
		w.sum.sub(*gone)
		*gone = count{}
	}
}

package discover

import (
	"slices"
	"time"
)

// hold decides which set is in force. It is told the time and is not safe for concurrent use.
type hold struct {
	keep  time.Duration // how long an empty set is not believed
	set   []Endpoint    // in force
	known bool          // a set was taken before
	empty time.Time     // since when the source says that there is nothing; zero = it does not
}

// take puts a settled set in force at now. changed tells that the set in force is another one than before. wait is when to
// call again without news, by expire; 0 = not.
func (h *hold) take(now time.Time, set []Endpoint) (changed bool, wait time.Duration) {
	if len(set) > 0 || len(h.set) == 0 {
		h.empty = time.Time{}
		changed = !h.known || !slices.Equal(h.set, set)
		h.set, h.known = set, true
		return changed, 0
	}
	if h.empty.IsZero() {
		h.empty = now
	}
	return h.expire(now)
}

// expire believes an empty set that has been there for long enough.
func (h *hold) expire(now time.Time) (changed bool, wait time.Duration) {
	if h.empty.IsZero() {
		return false, 0
	}
	if left := h.keep - now.Sub(h.empty); left > 0 {
		return false, left
	}
	h.set, h.empty = nil, time.Time{}
	return true, 0
}

// backoff is the pause before the next try after failures in a row: it doubles from first up to most, and is spread over
// its upper half, so that those who failed together do not come back together.
type backoff struct {
	first, most time.Duration
	failures    int
}

// next counts a failure. chance is in [0, 1).
func (b *backoff) next(chance float64) time.Duration {
	pause := b.most
	if b.failures < 30 {
		pause = min(b.most, b.first<<b.failures)
	}
	b.failures++
	return pause/2 + time.Duration(chance*float64(pause/2))
}

// reset forgets the failures.
func (b *backoff) reset() { b.failures = 0 }

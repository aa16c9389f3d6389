package retry

import (
	"sync"
	"time"
)

// The budget's window, and the slots it moves on by.
const (
	window    = 10 * time.Second
	slotWidth = 100 * time.Millisecond
	whole     = int(window / slotWidth) // slots that make up the window
	slots     = whole + 1               // and the one that the window's begin cuts
)

// budget limits extra attempts to a share of the first attempts of the last 10 s, plus a reserve.
//
// It is exact under concurrency, and it errs to the safe side by at most one slot: first attempts are counted over
// the slots that lie wholly in the window, extra ones also over the slot that its begin cuts. So in any 10 s that end
// with an extra attempt, ratio*firsts + reserve is kept.
//
// Source: Finagle RetryBudget (ttl 10 s, a second balance for backups), as a window instead of a leaky bucket: a
// bucket may pay out twice its size within ten seconds.
type budget struct {
	mu    sync.Mutex
	epoch time.Time // begin of slot 0; monotonic when now is, so a step of the wall clock changes nothing
	head  int64     // slot of the latest now
	ring  [slots]count
	sum   count // firsts over whole slots, extras over slots
}

// count is what one slot saw. hedges are part of extras.
type count struct{ firsts, extras, hedges int }

// first counts a first attempt.
func (b *budget) first(now time.Time) {
	b.mu.Lock()
	b.advance(now)
	b.ring[b.head%int64(slots)].firsts++
	b.sum.firsts++
	b.mu.Unlock()
}

// spend takes one extra attempt when c allows it.
func (b *budget) spend(now time.Time, c *Config, hedge bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	firsts := float64(b.sum.firsts)
	if float64(b.sum.extras+1) > c.BudgetRatio*firsts+c.MinPerSecond*window.Seconds() {
		return false
	}
	at := &b.ring[b.head%int64(slots)]
	if hedge {
		if float64(b.sum.hedges+1) > c.Hedge.BudgetRatio*firsts {
			return false
		}
		at.hedges++
		b.sum.hedges++
	}
	at.extras++
	b.sum.extras++
	return true
}

// advance moves the window so that it ends at now. A now before the latest one counts as the latest.
func (b *budget) advance(now time.Time) {
	if b.epoch.IsZero() {
		b.epoch = now
	}
	to := int64(now.Sub(b.epoch) / slotWidth)
	if to <= b.head {
		return
	}
	if to-b.head >= int64(slots) {
		b.ring, b.sum, b.head = [slots]count{}, count{}, to
		return
	}
	for b.head < to {
		b.head++
		// The oldest slot leaves; the one after it is now cut by the window's begin and no longer pays.
		gone := &b.ring[b.head%int64(slots)]
		b.sum.extras -= gone.extras
		b.sum.hedges -= gone.hedges
		*gone = count{}
		b.sum.firsts -= b.ring[(b.head+1)%int64(slots)].firsts
	}
}

package scale

import (
	"time"

	"github.com/longpole/longpole/internal/stats"
)

const (
	slots     = 6
	slotWidth = memory / slots
)

// window is what was added to a cumulative Snapshot in the last minute, by slots of ten seconds.
type window struct {
	last  stats.Snapshot
	begun bool
	slots [slots]struct {
		number int64
		stats.Snapshot
	}
}

func (w *window) observe(now time.Time, cumulative stats.Snapshot) {
	added := cumulative.Sub(w.last)
	first := !w.begun
	w.last, w.begun = cumulative, true
	if first {
		return
	}
	number := now.UnixNano() / int64(slotWidth)
	s := &w.slots[number%slots]
	if s.number != number {
		s.number, s.Snapshot = number, stats.Snapshot{}
	}
	s.Snapshot = s.Merge(added)
}

// snapshot is what lies in the last 50 s to 60 s.
func (w *window) snapshot(now time.Time) (all stats.Snapshot) {
	number := now.UnixNano() / int64(slotWidth)
	for i := range w.slots {
		if s := &w.slots[i]; s.number > number-slots && s.number <= number {
			all = all.Merge(s.Snapshot)
		}
	}
	return all
}

package load

import (
	"context"
	"time"
)

// alarm waits for the moments at which calls are due. It is used by one goroutine.
type alarm struct {
	timer   *time.Timer
	precise bool
}

func newAlarm(precise bool) *alarm {
	a := &alarm{timer: time.NewTimer(0), precise: precise && canNap}
	<-a.timer.C
	return a
}

func (a *alarm) stop() { a.timer.Stop() }

// coarse is how long before the moment a precise alarm stops trusting the timer, and nap how long it sleeps at once.
const (
	coarse  = 2 * time.Millisecond
	longNap = time.Millisecond
)

// wait returns true at due, or at once when that has passed, and false when ctx has ended.
func (a *alarm) wait(ctx context.Context, due time.Time) bool {
	rest := time.Until(due)
	if a.precise && rest <= coarse {
		for ; rest > 0; rest = time.Until(due) {
			nap(min(rest, longNap))
		}
		return ctx.Err() == nil
	}
	if rest <= 0 {
		return ctx.Err() == nil
	}
	if a.precise {
		rest -= coarse / 2
	}
	a.timer.Reset(rest)
	select {
	case <-ctx.Done():
		return false
	case <-a.timer.C:
	}
	if a.precise {
		return a.wait(ctx, due)
	}
	return true
}

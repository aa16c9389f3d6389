package longpole

import (
	"context"
	"sync"
	"time"

	"github.com/longpole/longpole/call"
)

// race is one attempt and its copy. The first success wins; a failure waits for the other.
//
// Each half runs in its own goroutine under its own context, because the winner's context must outlive the loser's:
// it belongs to the answer's body. A half that ends after the race was decided discards its answer itself, so nobody
// waits for it.
type race[R any, W Work[R]] struct {
	mu   sync.Mutex
	over bool
	ends chan finished[R] // holds both, so that no half ever waits
}

func (x *execution[R, W]) race(ctx context.Context, now time.Time, after time.Duration, end *finished[R]) {
	to, err := x.first(now)
	if err != nil {
		x.shed(now, err, end)
		return
	}
	rc := &race[R, W]{ends: make(chan finished[R], 2)}
	halves := [2]*try[R, W]{x.half(ctx, rc, to, now, false)}
	timer := time.NewTimer(after)
	defer timer.Stop()
	fire := timer.C
	var failed *finished[R]
	for running := 1; running > 0; {
		select {
		case f := <-rc.ends:
			running--
			x.note(&f)
			if !f.out.Class.Failed() {
				x.decide(rc, halves, f.number, f.end, call.Canceled, errLost)
				x.drop(failed)
				*end = f
				return
			}
			if failed != nil {
				f.out.Pushback = later(f.out.Pushback, failed.out.Pushback)
			}
			x.drop(failed)
			failed = &f
		case <-fire:
			fire = nil
			if second := x.copy(ctx, rc); second != nil {
				halves[1] = second
				running++
			}
		case <-ctx.Done():
			x.cut(ctx, end)
			// Those that run end for the reason for which the call does: the deadline is held against their endpoint.
			x.decide(rc, halves, 0, end.end, end.out.Class, context.Cause(ctx))
			x.drop(failed)
			return
		}
	}
	*end = *failed
}

// half starts one half of a race.
func (x *execution[R, W]) half(ctx context.Context, rc *race[R, W], to target, now time.Time, hedge bool) *try[R, W] {
	t := &try[R, W]{parts: x.parts, w: x.w, to: to, start: now, ctx: ctx, timed: x.timed}
	x.sent(&t.attempt, &t.index, to, now, hedge)
	t.own()
	t.begin()
	go rc.run(t)
	return t
}

// copy sends the second half, if there is another endpoint and the budget allows it.
func (x *execution[R, W]) copy(ctx context.Context, rc *race[R, W]) *try[R, W] {
	now := time.Now()
	if x.late(now) || x.shedding(now) {
		return nil
	}
	to, err := x.pick(now, true)
	if err != nil {
		return nil
	}
	if !x.parts.retry.Hedge(now) {
		to.drop(x.parts, now)
		return nil
	}
	return x.half(ctx, rc, to, now, true)
}

// decide ends the race at now, for winner or for nobody: what still runs is cancelled, what has just ended is dropped.
func (x *execution[R, W]) decide(rc *race[R, W], halves [2]*try[R, W], winner int, now time.Time, class call.Class, cause error) {
	rc.mu.Lock()
	rc.over = true
	rc.mu.Unlock()
	for len(rc.ends) > 0 {
		f := <-rc.ends
		x.note(&f)
		x.drop(&f)
	}
	for _, t := range halves {
		if t == nil || t.attempt.Number == winner {
			continue
		}
		if winner > t.attempt.Number {
			t.stop(errPassed)
		} else {
			t.stop(cause)
		}
		if x.rec == nil || t.index < 0 {
			continue
		}
		if a := &x.rec.Attempts[t.index]; a.Class == call.Canceled && a.Latency == 0 {
			a.Class, a.Latency = class, now.Sub(t.start)
		}
	}
}

// drop releases an answer that lost; nil is none.
func (x *execution[R, W]) drop(f *finished[R]) {
	if f != nil {
		x.w.Discard(f.r)
		f.cancel(errLost)
	}
}

// run makes one half and hands it over, or cleans up after it when the race is over.
func (rc *race[R, W]) run(t *try[R, W]) {
	var f finished[R]
	t.make(&f)
	rc.mu.Lock()
	over := rc.over
	if !over {
		rc.ends <- f
	}
	rc.mu.Unlock()
	if over {
		t.w.Discard(f.r)
		f.cancel(errLost)
	}
}

// later is the stronger of two servers' wishes: never (negative), then the longer pause.
func later(a, b time.Duration) time.Duration {
	if a < 0 || b < 0 {
		return min(a, b)
	}
	return max(a, b)
}

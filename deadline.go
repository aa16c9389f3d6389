package longpole

import (
	"context"
	"time"
)

// Timed marks a Work that ends its attempts by Attempt.HeadBy, and its answers' bodies by Attempt.Deadline, on its own,
// as one with socket deadlines or a loop of events does. Do then makes neither a context nor a timer for Timeout and
// TryTimeout: the deadline is a value that is passed down and compared with the clock where a step begins or ends, so
// that a call which blocks nowhere allocates nothing. An attempt still gets a context that is cancelled when it loses.
type Timed interface {
	// KeepsDeadline is never called.
	KeepsDeadline()
}

// bound puts a call that began at now under Timeout; release ends it. deadline is zero when the call has none.
func (p *parts) bound(ctx context.Context, now time.Time, timed bool) (_ context.Context, deadline time.Time, release func()) {
	deadline, _ = ctx.Deadline()
	d := p.cfg.Timeout
	if d <= 0 || !deadline.IsZero() && !deadline.After(now.Add(d)) {
		return ctx, deadline, nothing
	}
	deadline = now.Add(d)
	if timed {
		return ctx, deadline, nothing
	}
	ctx, release = context.WithDeadlineCause(ctx, deadline, ErrDeadline)
	return ctx, deadline, release
}

func nothing() {}

// late reports whether no attempt may begin at now: less than MinTry is left.
func (x *execution[R, W]) late(now time.Time) bool {
	return !x.deadline.IsZero() && x.deadline.Sub(now) <= x.parts.cfg.MinTry
}

// headBy is when the head of an attempt that begins at now must be there; zero = no such time.
func (x *execution[R, W]) headBy(now time.Time) time.Time {
	if d := x.parts.cfg.TryTimeout; d > 0 {
		if t := now.Add(d); x.deadline.IsZero() || t.Before(x.deadline) {
			return t
		}
	}
	return x.deadline
}

// hopeless is the end of a call whose deadline is too near for the first attempt.
func (x *execution[R, W]) hopeless(now time.Time, f *finished[R]) {
	why := ErrTooLate
	if !now.Before(x.deadline) {
		why = ErrDeadline
	}
	x.timeout(now, why, f)
}

// endsBefore reports whether the context's own deadline makes another one at t superfluous.
func endsBefore(ctx context.Context, t time.Time) bool {
	own, ok := ctx.Deadline()
	return ok && !own.After(t)
}

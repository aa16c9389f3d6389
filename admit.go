package longpole

import (
	"context"
	"errors"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

// admit gets the call its permit at now, and waits for it if it must; at is when it has it. x.permit is to be given back
// when err is nil.
func (x *execution[R, W]) admit(ctx context.Context, now time.Time) (at time.Time, err error) {
	l := x.parts.limit
	deadline := x.deadline
	if !deadline.IsZero() {
		deadline = deadline.Add(-x.parts.cfg.MinTry) // a permit that comes later is of no use
	}
	x.permit = l.Admit(now, x.info, deadline)
	if !x.permit.Waiting() {
		return now, x.permit.Refused()
	}
	if err = Await(ctx, l, x.permit); err != nil && ctx.Err() != nil {
		_, err = ended(ctx)
	}
	at = time.Now()
	if x.rec != nil {
		x.rec.QueueWait = at.Sub(now)
	}
	return at, err
}

// Await blocks until t, a ticket of l, is decided: nil is admitted, an error of package limit refused. When ctx is done
// before, t is given up, and the error is the context's. It is what a server does between Admit and Done.
func Await(ctx context.Context, l *limit.Limiter, t limit.Ticket) error {
	if !t.Waiting() {
		return t.Refused()
	}
	timer := time.NewTimer(time.Until(t.Expiry()))
	defer timer.Stop()
	for {
		select {
		case <-t.Decided():
			return t.Refused()
		case <-ctx.Done():
			l.Cancel(time.Now(), t)
			return ctx.Err()
		case now := <-timer.C:
			l.Expire(now, t)
			timer.Reset(time.Millisecond) // for a clock that fires early
		}
	}
}

// unadmitted is the end of a call that got no permit.
func (x *execution[R, W]) unadmitted(ctx context.Context, now time.Time, err error, f *finished[R]) {
	if ctx.Err() != nil {
		x.cut(ctx, f)
		return
	}
	x.shed(now, err, f)
	f.out.Pushback = x.permit.RetryAfter()
}

// done gives the permit back. What the limiter learns from is the call as a whole from its permit on: it is the call
// that holds the permit, retries and hedges included.
func (x *execution[R, W]) done(now time.Time, f *finished[R]) {
	out := f.out
	out.Latency = f.end.Sub(now)
	x.parts.limit.Done(f.end, x.permit, out)
}

// ownRefusal reports whether a policy of ours refused the call before or instead of an attempt.
func ownRefusal(err error) bool {
	return errors.Is(err, limit.ErrShed) || errors.Is(err, limit.ErrRate) ||
		errors.Is(err, limit.ErrDoomed) || errors.Is(err, limit.ErrAge)
}

// shedding reports whether there is no room for copies.
func (x *execution[R, W]) shedding(now time.Time) bool {
	return x.parts.limit != nil && x.parts.limit.Shedding(now)
}

// Limiter is the policy's; nil when Config.Limit is. It is replaced when Limit is turned off and on again.
func (p *Policy) Limiter() *limit.Limiter { return p.parts.Load().limit }

// behindTheScenes is the info of a fetch that nobody waits for: it is made only where there is room.
func behindTheScenes(info call.Info) call.Info {
	info.Priority = min(info.Priority, call.Speculative)
	return info
}

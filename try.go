package longpole

import (
	"context"
	"errors"
	"time"

	"github.com/longpole/longpole/call"
)

// try is one attempt from the pick of its endpoint to the head of its answer.
type try[R any, W Work[R]] struct {
	parts   *parts
	w       W
	to      target
	attempt Attempt
	index   int // in the record
	start   time.Time
	ctx     context.Context
	stop    context.CancelCauseFunc // nil = ctx is the call's
	timer   *time.Timer             // TryTimeout; nil = none
	timed   bool                    // the Work keeps the deadlines itself
}

// begin starts TryTimeout, for which the attempt needs a context of its own.
func (t *try[R, W]) begin() {
	if d := t.parts.cfg.TryTimeout; d > 0 && !t.timed {
		t.own()
		stop := t.stop
		t.timer = time.AfterFunc(d, func() { stop(ErrTryTimeout) })
	}
}

// own gives the attempt a context that can be cancelled without the call's.
func (t *try[R, W]) own() {
	if t.stop == nil {
		t.ctx, t.stop = context.WithCancelCause(t.ctx)
	}
}

// make performs the attempt and tells everyone who learns from it.
func (t *try[R, W]) make(f *finished[R]) {
	r, err := t.w.Try(t.ctx, t.attempt)
	if t.timer != nil && !t.timer.Stop() && err == nil {
		// Too late by a hair: the context is gone, and the body with it.
		t.w.Discard(r)
		var none R
		r, err = none, ErrTryTimeout
	}
	took := time.Since(t.start) // reads one clock, where time.Now reads two
	f.r, f.err, f.end, f.stop, f.index, f.number = r, err, t.start.Add(took), t.stop, t.index, t.attempt.Number
	f.out = t.judge(r, err)
	f.out.Latency = took
	switch {
	case err == nil:
	case t.timed && t.ctx.Err() == nil && t.expired(f.end):
		f.out.Class = call.Timeout
		f.err = t.overdue(f.end, err)
	case f.out.Class == call.Timeout:
		f.err = named(t.ctx, err)
	}
	t.tell(f.end, f.out)
	if t.parts.prequal && err == nil {
		if s, ok := any(t.w).(Reporter[R]); ok {
			if l, ok := s.Load(r); ok {
				t.parts.balance.Report(t.to.endpoint, f.end, l)
			}
		}
	}
}

func (t *try[R, W]) judge(r R, err error) call.Outcome {
	out := t.w.Judge(r, err)
	if err != nil && t.ctx.Err() != nil {
		out.Class, _ = ended(t.ctx)
		out.Overtaken = errors.Is(context.Cause(t.ctx), errPassed)
	}
	return out
}

// expired reports whether the time of a Timed attempt is over.
func (t *try[R, W]) expired(now time.Time) bool {
	return !t.attempt.HeadBy.IsZero() && !now.Before(t.attempt.HeadBy)
}

// overdue adds to the error of a Timed attempt which of its times is over.
func (t *try[R, W]) overdue(now time.Time, err error) error {
	why := ErrTryTimeout
	if d := t.attempt.Deadline; !d.IsZero() && !now.Before(d) {
		why = ErrDeadline
	}
	return errors.Join(why, err)
}

// named adds our reason to an error that only says that a context ended.
func named(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if _, why := ended(ctx); !errors.Is(err, why) {
		return errors.Join(why, err)
	}
	return err
}

func (t *try[R, W]) tell(now time.Time, out call.Outcome) {
	if t.to.endpoint != nil {
		t.parts.balance.Done(t.to.endpoint, now, out)
	}
	if t.to.breaker != nil {
		t.to.breaker.Record(now, out)
	}
	if t.parts.retry != nil {
		t.parts.retry.Observe(now, out)
	}
}

// drop takes back an attempt that was never made.
func (t target) drop(p *parts, now time.Time) {
	if t.endpoint != nil {
		p.balance.Done(t.endpoint, now, call.Outcome{Class: call.Shed})
	}
	if t.breaker != nil {
		t.breaker.Cancel(now)
	}
}

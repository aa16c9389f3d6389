package longpole

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// Attempt says which try of a call this is, and where it goes.
type Attempt struct {
	Number   int       // counted from 1, hedges included
	Hedge    bool      // an earlier attempt is still running
	Endpoint string    // "" when the policy has no endpoints
	Deadline time.Time // of the call, its body included; zero = none. What is left of it is what a transport tells its server
	HeadBy   time.Time // of this attempt's head: the end of TryTimeout, or Deadline if that is earlier; zero = none
}

// Work performs and judges one call whose answer has type R. A transport implements it once.
//
// Do may leave before all attempts have ended: the loser of a hedge and a fetch for the cache run on. So what Try and
// Discard use must not die with the caller, and all methods must be safe for concurrent use. None of them may panic.
type Work[R any] interface {
	// Try makes an attempt and returns at the head of the answer. It must be safe to run twice at once when the call
	// is idempotent, and must return soon after ctx is done. ctx lives as long as the answer.
	Try(ctx context.Context, a Attempt) (R, error)
	// Judge says how an attempt ended. Do fills in Latency, and replaces Class where it knows better: an error after
	// the attempt's context was done is a Timeout or Canceled.
	Judge(r R, err error) call.Outcome
	// Discard releases an answer that nobody will read, head or body. It is also given the R that came with an error.
	Discard(r R)
	// Hold ties release to the end of r's life, such as the close of its body, and returns the R to give to the caller.
	// Do calls it once, on the answer that it returns without error; the attempt's context and the call's Timeout end
	// with release. It may be called more than once. An answer that needs nothing more calls it at once.
	Hold(r R, release func()) R
}

// Do runs one call under p. The order is fixed:
//
//	deadline                 no work for a call that is already too late; Timeout covers all that follows, and the body
//	  fault                  an injected delay or error (Policy.Inject), before everything that should cope with it
//	    cache, coalesce      a fresh answer, another call's fetch, a stale answer
//	      admit              one permit of the limiter for the call, or for the fetch; the wait for it
//	        retry            attempts, pauses, budget
//	          hedge          a copy of a slow attempt; none while the limiter sheds
//	            pick         another endpoint than before
//	              breaker    of that endpoint; an open one is not picked while there is another
//	                try      the only step that knows the answer; none is begun with less than MinTry left
//	fallback                 another answer in place of a failure
//
// The permit is given back at the head of the answer: a reader that takes its time over the body holds none. The
// answer of the last attempt is returned as it is, also when it is a failure: R and the Work's own view of it are not
// replaced by an error. An error is always an *Error.
//
// info is what the policy may know of the call. rec is filled in when it is not nil: Route, Start, Latency, Total
// (equal to Latency: who reads a body adds its time), Class, Cache, QueueWait, Fallback, Attempts. It must be zero in
// these, and is written by the caller's goroutine only, before Do returns.
//
// Nothing is allocated with limit, retry, breaker and balance armed as long as nothing fails, the call need not queue,
// and no hedge or cache asks for it. Timeout and TryTimeout cost a context, unless the Work is Timed.
func Do[R any, W Work[R]](ctx context.Context, p *Policy, info call.Info, rec *call.Record, w W) (R, error) {
	now := time.Now()
	parts := p.parts.Load()
	if rec != nil {
		rec.Start = now
		rec.Route = info.Route
	}
	if ctx.Err() != nil {
		return refuse[R](ctx, rec)
	}
	_, timed := any(w).(Timed)
	var f finished[R]
	at := now
	if inject := p.fault.Load(); inject != nil {
		if !suffer(ctx, parts, *inject, now, info, &f) {
			return finish(ctx, parts, w, rec, now, &f, nothing)
		}
		at, f = f.end, finished[R]{}
	}
	if parts.cache != nil && info.Key != "" {
		if s, ok := any(w).(Storable[R]); ok {
			return throughCache(ctx, p, parts, info, rec, now, s, timed)
		}
	}
	bounded, deadline, release := parts.bound(ctx, now, timed)
	var x execution[R, W] // filled in place: a literal would be built elsewhere and copied
	x.p, x.parts, x.info, x.rec, x.w, x.start, x.deadline, x.timed = p, parts, info, rec, w, now, deadline, timed
	x.run(bounded, at, &f)
	return finish(ctx, parts, w, rec, now, &f, release)
}

// refuse ends a call whose context was done before it began.
func refuse[R any](ctx context.Context, rec *call.Record) (r R, err error) {
	class, why := ended(ctx)
	if rec != nil {
		rec.Class = class
	}
	return r, &Error{Class: class, Err: why}
}

// finish gives the result of a call to its caller, whose context is ctx.
func finish[R any, W Work[R]](
	ctx context.Context, parts *parts, w W, rec *call.Record, start time.Time, f *finished[R], release func(),
) (R, error) {
	if f.out.Class != call.OK && parts.cfg.Fallback != nil {
		if r, ok := spare(ctx, parts, w, f); ok {
			w.Discard(f.r)
			f.cancel(nil)
			release()
			fellBack(rec, start, f.out.Class)
			return r, nil
		}
		f.end = time.Now()
	}
	if rec != nil {
		rec.Latency = f.end.Sub(start)
		rec.Total = rec.Latency
		rec.Class = f.out.Class
	}
	if f.err != nil {
		f.cancel(nil)
		release()
		return f.r, &Error{Class: f.out.Class, Attempts: f.made, Pushback: f.out.Pushback, Err: f.err}
	}
	if cancel := f.stop; cancel != nil {
		outer := release
		release = func() { cancel(nil); outer() }
	}
	return w.Hold(f.r, release), nil
}

// finished is how an attempt, or the call, ended. Its context lives until cancel.
type finished[R any] struct {
	r      R
	err    error
	out    call.Outcome
	end    time.Time
	made   int                     // attempts of the call so far
	stop   context.CancelCauseFunc // nil = no context of its own
	index  int                     // in the record; -1 = not there
	number int                     // Attempt.Number; 0 = none
}

func (f *finished[R]) cancel(cause error) {
	if f.stop != nil {
		f.stop(cause)
	}
}

// execution is the state of one call while its attempts are made. It belongs to one goroutine and stays on its stack:
// what other goroutines need is copied.
type execution[R any, W Work[R]] struct {
	p        *Policy
	parts    *parts
	info     call.Info
	rec      *call.Record
	w        W
	start    time.Time
	deadline time.Time // zero = none
	timed    bool      // the Work is Timed
	permit   limit.Ticket
	made     int // attempts sent
	tried    [call.MaxAttempts]*balance.Endpoint
}

// run makes the call once it has its permit. How it ended goes to f, which is too large to be handed up step by step.
func (x *execution[R, W]) run(ctx context.Context, now time.Time, f *finished[R]) {
	if x.late(now) {
		x.hopeless(now, f)
		return
	}
	if x.parts.limit == nil {
		x.attempts(ctx, now, f)
		return
	}
	now, err := x.admit(ctx, now)
	if err != nil {
		x.unadmitted(ctx, now, err, f)
		return
	}
	if x.late(now) {
		x.parts.limit.Cancel(now, x.permit)
		x.hopeless(now, f)
		return
	}
	x.attempts(ctx, now, f)
	x.done(now, f)
}

// attempts makes attempts until one succeeds or the policy has had enough.
func (x *execution[R, W]) attempts(ctx context.Context, now time.Time, f *finished[R]) {
	policy := x.parts.retry
	if policy == nil {
		x.once(ctx, now, f)
		x.won(f)
		return
	}
	policy.Begin(now)
	for {
		x.round(ctx, now, f)
		if !f.out.Class.Failed() || ctx.Err() != nil {
			x.won(f)
			return
		}
		pause, why := policy.Next(f.end, x.made, x.info, f.out)
		if next := f.end.Add(pause); why == nil && (x.late(next) || !x.canTry(next)) {
			why = retry.ErrNoMore // nothing would be tried, and the answer that is there would be lost
		}
		if why != nil {
			if f.err != nil && errors.Is(why, retry.ErrBudget) {
				f.err = errors.Join(f.err, why)
			}
			x.won(f)
			return
		}
		x.w.Discard(f.r)
		f.cancel(nil)
		if now = f.end; pause > 0 {
			if !sleep(ctx, pause) {
				x.cut(ctx, f)
				return
			}
			now = time.Now()
		}
	}
}

// round makes one attempt, or one and its copy.
func (x *execution[R, W]) round(ctx context.Context, now time.Time, f *finished[R]) {
	after, hedge := x.parts.retry.HedgeAfter(now, x.made+1, x.info)
	if hedge && (x.parts.balance == nil || x.parts.balance.Usable(now) >= 2) && !x.shedding(now) {
		x.race(ctx, now, after, f)
		return
	}
	x.once(ctx, now, f)
}

// once makes one attempt in the caller's goroutine.
func (x *execution[R, W]) once(ctx context.Context, now time.Time, f *finished[R]) {
	to, err := x.first(now)
	if err != nil {
		x.shed(now, err, f)
		return
	}
	var t try[R, W]
	t.parts, t.w, t.to, t.start, t.ctx, t.timed = x.parts, x.w, to, now, ctx, x.timed
	x.sent(&t.attempt, &t.index, to, now, false)
	t.begin()
	t.make(f)
	x.note(f)
}

// sent counts an attempt that is about to be made.
func (x *execution[R, W]) sent(a *Attempt, index *int, to target, now time.Time, hedge bool) {
	if x.made < len(x.tried) {
		x.tried[x.made] = to.endpoint
	}
	x.made++
	*a = Attempt{Number: x.made, Hedge: hedge, Endpoint: to.name(), Deadline: x.deadline, HeadBy: x.headBy(now)}
	*index = -1
	if x.rec != nil {
		// Canceled until it is known to have ended otherwise.
		*index = x.rec.Add(call.Attempt{Endpoint: a.Endpoint, Hedge: hedge, Start: now.Sub(x.start), Class: call.Canceled})
	}
}

// note writes an ended attempt into the record.
func (x *execution[R, W]) note(f *finished[R]) {
	if x.rec != nil && f.index >= 0 {
		a := &x.rec.Attempts[f.index]
		a.Class, a.Latency = f.out.Class, f.out.Latency
	}
}

// won marks the attempt whose answer is the call's; an error is no answer.
func (x *execution[R, W]) won(f *finished[R]) {
	f.made = x.made
	if x.rec != nil && f.index >= 0 && f.err == nil {
		x.rec.Attempts[f.index].Won = true
	}
}

// shed is the end of a call for which no attempt can be made.
func (x *execution[R, W]) shed(now time.Time, err error, f *finished[R]) {
	*f = finished[R]{err: err, out: call.Outcome{Class: call.Shed}, end: now, made: x.made, index: -1}
}

// cut is the end of a call whose context is done while no attempt runs, or without waiting for one.
func (x *execution[R, W]) cut(ctx context.Context, f *finished[R]) {
	class, why := ended(ctx)
	*f = finished[R]{err: why, out: call.Outcome{Class: class}, end: time.Now(), made: x.made, index: -1}
}

// timeout is the end of a call at now for which no attempt is begun, because of the time.
func (x *execution[R, W]) timeout(now time.Time, why error, f *finished[R]) {
	*f = finished[R]{err: why, out: call.Outcome{Class: call.Timeout}, end: now, made: x.made, index: -1}
}

// target is where an attempt goes. Both are nil when there is no such policy.
type target struct {
	endpoint *balance.Endpoint
	breaker  *breaker.Breaker
}

func (t target) name() string {
	if t.endpoint == nil {
		return ""
	}
	return t.endpoint.Name()
}

// first picks for an attempt that is no copy.
func (x *execution[R, W]) first(now time.Time) (target, error) {
	if x.parts.prequal {
		x.p.probe(x.parts.balance, now)
	}
	return x.pick(now, false)
}

// pick chooses where the next attempt goes and takes the breaker's leave. With fresh it must be an endpoint that this
// call has not tried.
func (x *execution[R, W]) pick(now time.Time, fresh bool) (to target, err error) {
	b := x.parts.balance
	if b == nil {
		to.breaker = x.breaker(nil)
		if to.breaker != nil {
			err = to.breaker.Allow(now)
		}
		return to, err
	}
	to.endpoint, err = b.Pick(now, func(e *balance.Endpoint) bool { return x.hasTried(e) || !x.ready(now, e) })
	if err != nil {
		return target{}, err
	}
	if fresh && x.hasTried(to.endpoint) {
		b.Done(to.endpoint, now, call.Outcome{Class: call.Shed})
		return target{}, balance.ErrNoEndpoint
	}
	if to.breaker = x.breaker(to.endpoint); to.breaker == nil || to.breaker.Allow(now) == nil {
		return to, nil
	}
	b.Done(to.endpoint, now, call.Outcome{Class: call.Shed})
	if fresh {
		return target{}, breaker.ErrOpen
	}
	// None is both new and ready. One that was tried before is better than none.
	to.endpoint, err = b.Pick(now, func(e *balance.Endpoint) bool { return !x.ready(now, e) })
	if err != nil {
		return target{}, err
	}
	to.breaker = x.breaker(to.endpoint)
	if err = to.breaker.Allow(now); err != nil {
		b.Done(to.endpoint, now, call.Outcome{Class: call.Shed})
		return target{}, err
	}
	return to, nil
}

func (x *execution[R, W]) hasTried(e *balance.Endpoint) bool {
	return slices.Contains(x.tried[:min(x.made, len(x.tried))], e)
}

// canTry reports whether any endpoint would take an attempt at now.
func (x *execution[R, W]) canTry(now time.Time) bool {
	if x.parts.balance == nil {
		return x.ready(now, nil)
	}
	for _, e := range x.p.endpoints.Endpoints() {
		if e.Healthy() && x.ready(now, e) {
			return true
		}
	}
	return false
}

func (x *execution[R, W]) ready(now time.Time, e *balance.Endpoint) bool {
	b := x.breaker(e)
	return b == nil || b.Ready(now)
}

func (x *execution[R, W]) breaker(e *balance.Endpoint) *breaker.Breaker {
	if x.parts.breakers == nil {
		return nil
	}
	return x.parts.breakers.of(e, x.p.endpoints)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

package longpole

import (
	"context"
	"sync"
	"time"

	"github.com/longpole/longpole/call"
)

// Begun is a call whose single attempt its owner makes: a stream, which cannot be repeated once it has begun, or a call
// in a loop of events. All methods are safe for concurrent use.
type Begun struct {
	attempt Attempt
	ctx     context.Context
	try     try[struct{}, ownWork]
	x       execution[struct{}, ownWork]
	release func()
	head    sync.Once
}

// Begin takes a call through all steps of Do up to the try: deadline, permit, endpoint, breaker. There is no cache, no
// retry, no hedge, no fallback and no TryTimeout. It blocks only while the call waits for its permit. rec may be nil.
//
// Head must follow when the head of the answer is there or will not come, and Close at the end of the call.
func Begin(ctx context.Context, p *Policy, info call.Info, rec *call.Record) (*Begun, error) {
	now := time.Now()
	parts := p.parts.Load()
	if rec != nil {
		rec.Start, rec.Route = now, info.Route
	}
	if ctx.Err() != nil {
		_, err := refuse[struct{}](ctx, rec)
		return nil, err
	}
	bounded, deadline, release := parts.bound(ctx, now, false)
	b := &Begun{ctx: bounded, release: release}
	b.x = execution[struct{}, ownWork]{p: p, parts: parts, info: info, rec: rec, start: now, deadline: deadline, timed: true}
	var f finished[struct{}]
	if !b.x.begin(bounded, now, &b.try, &f) {
		_, err := finish(ctx, parts, ownWork{}, rec, now, &f, release)
		return nil, err
	}
	b.attempt = b.try.attempt
	b.attempt.HeadBy = deadline
	return b, nil
}

// begin is run without its end; !ok = there is no attempt, and f says why.
func (x *execution[R, W]) begin(ctx context.Context, now time.Time, t *try[R, W], f *finished[R]) (ok bool) {
	if x.late(now) {
		x.hopeless(now, f)
		return false
	}
	if x.parts.limit != nil {
		at, err := x.admit(ctx, now)
		if err != nil {
			x.unadmitted(ctx, at, err, f)
			return false
		}
		if now = at; x.late(now) {
			x.parts.limit.Cancel(now, x.permit)
			x.hopeless(now, f)
			return false
		}
	}
	to, err := x.first(now)
	if err != nil {
		if x.parts.limit != nil {
			x.parts.limit.Cancel(now, x.permit)
		}
		x.shed(now, err, f)
		return false
	}
	*t = try[R, W]{parts: x.parts, w: x.w, to: to, start: now, ctx: ctx, timed: true}
	x.sent(&t.attempt, &t.index, to, now, false)
	return true
}

// Attempt says where the call goes, and until when.
func (b *Begun) Attempt() Attempt { return b.attempt }

// Context is the caller's, under the policy's Timeout. It ends with Close.
func (b *Begun) Context() context.Context { return b.ctx }

// Head tells how the attempt began, and gives back the permit. Only the first of several counts. The Latency of out is
// filled in, and the record written, unless Close came before.
func (b *Begun) Head(out call.Outcome) {
	b.head.Do(func() {
		out.Latency = time.Since(b.try.start)
		f := finished[struct{}]{out: out, end: b.try.start.Add(out.Latency), index: b.try.index, made: 1}
		b.try.tell(f.end, out)
		if b.x.parts.limit != nil {
			b.x.parts.limit.Done(f.end, b.x.permit, out)
		}
		b.x.note(&f)
		if rec := b.x.rec; rec != nil {
			rec.Latency = f.end.Sub(b.x.start)
			rec.Total, rec.Class = rec.Latency, out.Class
			if f.index >= 0 {
				rec.Attempts[f.index].Won = !out.Class.Failed() && out.Class != call.Canceled
			}
		}
	})
}

// Close ends the call. One without a head was given up.
func (b *Begun) Close() {
	b.Head(call.Outcome{Class: call.Canceled})
	b.release()
}

// ownWork is the Work of a call that its owner makes.
type ownWork struct{}

func (ownWork) Try(context.Context, Attempt) (struct{}, error) { return struct{}{}, nil }
func (ownWork) Judge(struct{}, error) call.Outcome             { return call.Outcome{} }
func (ownWork) Discard(struct{})                               {}
func (ownWork) Hold(struct{}, func()) struct{}                 { return struct{}{} }

package longpole

import (
	"context"
	"errors"
	"time"

	"github.com/longpole/longpole/call"
)

// Fault decides at now whether a call suffers a delay, then an error, on purpose; 0 and nil are none. It must not block.
// ctx is the caller's, which may carry what a transport knows of the call. An err that is an *Error ends the call with its
// class; another one ends it as Server.
type Fault func(ctx context.Context, now time.Time, info call.Info) (delay time.Duration, err error)

// Inject makes each call that begins from now on pass f; nil ends that. The delay counts against the deadline.
func (p *Policy) Inject(f Fault) {
	if f == nil {
		p.fault.Store(nil)
		return
	}
	p.fault.Store(&f)
}

// suffer does what inject decides; !ok = the call has ended as f says. Else f holds the time.
func suffer[R any](ctx context.Context, parts *parts, inject Fault, now time.Time, info call.Info, f *finished[R]) (ok bool) {
	delay, err := inject(ctx, now, info)
	f.end, f.index = now, -1
	if delay > 0 {
		bounded, _, release := parts.bound(ctx, now, false)
		defer release()
		awake := sleep(bounded, delay)
		f.end = time.Now()
		if !awake {
			f.out.Class, f.err = ended(bounded)
			return false
		}
	}
	if err != nil {
		var known *Error
		if f.out.Class = call.Server; errors.As(err, &known) {
			f.out.Class = known.Class
		}
		f.err = errors.Join(ErrInjected, err)
		return false
	}
	return true
}

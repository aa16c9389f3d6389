package longpole

import (
	"context"
	"errors"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/setting"
)

// Fallback is what answers a call that failed (server, refused, timeout) or that a policy of ours refused (shed); a
// call that is canceled, or whose caller's own deadline has passed, has nobody left to answer. The first that there is,
// in the order of the fields, is taken. The zero value answers nothing.
type Fallback struct {
	Stale    time.Duration `yaml:"stale"`    // a cached answer that expired up to this long ago; raises cache.stale_if_error to it
	Upstream string        `yaml:"upstream"` // asked once when the call failed; what it names is the transport's matter
	Timeout  time.Duration `yaml:"timeout"`  // of Upstream, on top of the call's and within the caller's own deadline; default 1s
	Static   *Static       `yaml:"static"`   // an answer that is always there
}

// Static is an answer that needs nobody. The zero value is empty and successful.
type Static struct {
	Status int    `yaml:"status"` // of HTTP; 200..599; default 200
	Type   string `yaml:"type"`   // media type of Body; default text/plain; charset=utf-8
	Body   string `yaml:"body"`   // up to 64 KiB
}

const maxStatic = 64 << 10

// WithDefaults fills what is zero.
func (f Fallback) WithDefaults() Fallback {
	if f.Timeout == 0 {
		f.Timeout = time.Second
	}
	if f.Static != nil {
		s := *f.Static
		if s.Status == 0 {
			s.Status = 200
		}
		if s.Type == "" {
			s.Type = "text/plain; charset=utf-8"
		}
		f.Static = &s
	}
	return f
}

// Validate returns every fault of f, joined; each is a *setting.Error.
func (f Fallback) Validate() error {
	var faults setting.Faults
	faults.Check(f.Stale >= 0, "stale", f.Stale, "a duration that is not negative")
	faults.Check(f.Timeout >= 0, "timeout", f.Timeout, "a duration that is not negative")
	if s := f.Static; s != nil {
		faults.Check(s.Status == 0 || s.Status >= 200 && s.Status <= 599, "static.status", s.Status, "200..599")
		faults.Check(len(s.Body) <= maxStatic, "static.body", len(s.Body), "at most 64 KiB")
	}
	return faults.Err()
}

// Spare is a Work that has another answer for a call that failed: another upstream's, or a static one.
type Spare[R any] interface {
	Work[R]
	// Fallback gives it, or an error: then the call ends as it would have. class and err say how it ended; err is nil
	// when there is an answer, and that answer is a failure. ctx lives as long as the new answer, at most f.Timeout.
	Fallback(ctx context.Context, f Fallback, class call.Class, err error) (R, error)
}

// spare gives the answer of a fallback in place of f, if there is one. ctx is the caller's.
func spare[R any, W Work[R]](ctx context.Context, parts *parts, w W, f *finished[R]) (r R, ok bool) {
	cfg := parts.cfg.Fallback
	if cfg == nil || !f.out.Class.Failed() && f.out.Class != call.Shed || ctx.Err() != nil {
		return r, false
	}
	s, is := any(w).(Spare[R])
	if !is {
		return r, false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, ErrDeadline)
	r, err := s.Fallback(ctx, *cfg, f.out.Class, f.err)
	if err != nil {
		s.Discard(r)
		cancel()
		if f.err != nil && !errors.Is(err, ErrNoFallback) {
			f.err = errors.Join(f.err, err)
		}
		var none R
		return none, false
	}
	return s.Hold(r, cancel), true
}

// fellBack notes that a call which ended as class was answered by a fallback: no attempt's answer was the call's.
func fellBack(rec *call.Record, start time.Time, class call.Class) {
	if rec == nil {
		return
	}
	rec.Fallback, rec.Class = true, class
	rec.Latency = time.Since(start)
	rec.Total = rec.Latency
	for i := range rec.Kept() {
		rec.Attempts[i].Won = false
	}
}

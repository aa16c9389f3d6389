package longpole

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
)

// Why a call ended without an answer, beside what the Work itself returned.
var (
	// ErrDeadline says that Config.Timeout or the caller's deadline passed. It is a context.DeadlineExceeded.
	ErrDeadline = fmt.Errorf("longpole: deadline passed: %w", context.DeadlineExceeded)
	// ErrTryTimeout says that Config.TryTimeout passed before the head of an attempt's answer. It is a context.DeadlineExceeded.
	ErrTryTimeout = fmt.Errorf("longpole: try timeout passed: %w", context.DeadlineExceeded)
	// ErrTooLate says that less than Config.MinTry was left, so that no attempt was begun. It is a context.DeadlineExceeded.
	ErrTooLate = fmt.Errorf("longpole: too little time left for a try: %w", context.DeadlineExceeded)
	// ErrNoFallback is for a Spare to return when it has no other answer after all.
	ErrNoFallback = errors.New("longpole: no fallback")
	// ErrNotKept says that a call wanted a kept answer or none, and that there is none.
	ErrNotKept = errors.New("longpole: not in the cache, and nothing else was wanted")
	// ErrInjected is the cause of a call that Policy.Inject ended.
	ErrInjected = errors.New("longpole: injected fault")
)

// Why we cancel what a call still runs, and why a failed answer is not kept.
var (
	errLost    = errors.New("longpole: the other attempt was faster")
	errPassed  = errors.New("longpole: the copy was faster")
	errFailed  = errors.New("longpole: the answer is a failure")
	errOrphans = errors.New("longpole: too many fetches without a caller")
	errNoCache = errors.New("longpole: the policy has no cache")
	errClosed  = errors.New("longpole: policy closed")
)

// Error is what Do returns when a call ends in an error: its class, and the cause. The cause is reachable with
// errors.Is and errors.As: the Work's own error, ErrDeadline, ErrTryTimeout, ErrTooLate, breaker.ErrOpen,
// balance.ErrNoEndpoint, retry.ErrBudget, limit.ErrShed, limit.ErrRate, limit.ErrDoomed, limit.ErrAge.
type Error struct {
	Class    call.Class
	Attempts int           // made for this call; 0 = none was tried
	Pushback time.Duration // how long the dependency, or our rate limit, wants to be left in peace; negative = never ask again; 0 = not said
	Err      error
}

// Error gives the class, the number of attempts and the cause in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("longpole: call ended as %s after %d attempts: %v", e.Class, e.Attempts, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Class tells how a call ended from the error that Do returned. nil is OK; an error that says nothing else is Server.
func Class(err error) call.Class {
	var e *Error
	switch {
	case err == nil:
		return call.OK
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.DeadlineExceeded):
		return call.Timeout
	case errors.Is(err, context.Canceled):
		return call.Canceled
	case errors.Is(err, breaker.ErrOpen), errors.Is(err, balance.ErrNoEndpoint), ownRefusal(err):
		return call.Shed
	}
	return call.Server
}

// Pushback is how long the dependency, or our rate limit, wants to be left in peace according to an error that Do
// returned; negative = never ask again; 0 = not said.
func Pushback(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Pushback
	}
	return 0
}

// ended is the class of an attempt or a call whose context is done, and the reason in our words.
func ended(ctx context.Context) (call.Class, error) {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrTryTimeout), errors.Is(cause, ErrDeadline):
		return call.Timeout, cause
	case errors.Is(cause, context.DeadlineExceeded):
		return call.Timeout, ErrDeadline
	}
	return call.Canceled, cause
}

package longpole

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// FanMode says what a failed item of a fan-out means for the others.
type FanMode uint8

// The modes.
const (
	FirstError FanMode = iota // the first failure ends all; for answers that are of use only when complete
	BestEffort                // the others go on; for answers that are of use in part
)

// FanConfig bounds a fan-out. The zero value runs up to 16 items at once and stops at the first failure.
type FanConfig struct {
	Limit   int           `yaml:"limit"`   // items under way at once; default 16
	Timeout time.Duration `yaml:"timeout"` // of all items together; what is not there by then is given up; 0 = the caller's deadline only
	Mode    FanMode       `yaml:"-"`
}

// Fan runs do for every item, up to Limit at once and in their order, and returns their results in the same order.
//
// With FirstError, the first item that fails cancels the others and its error is returned; results has what was there
// by then. With BestEffort the error is nil as long as one item succeeded, else the errors of all, joined. An item that
// was not begun, or that ended because the others were cancelled, has the reason as its Err: ErrDeadline, the cause of
// ctx, or the first error.
//
// Fan returns when every do it began has returned, so do must return soon after its context is done. A panic in do
// cancels the others and goes on in the caller's goroutine, as a *Panic.
func Fan[T, R any](ctx context.Context, c FanConfig, items []T, do func(ctx context.Context, item T) (R, error)) ([]Result[R], error) {
	f := fan[R]{mode: c.Mode, results: make([]Result[R], len(items))}
	for i := range f.results {
		f.results[i].Err = errExited // until it is known better
	}
	if c.Timeout > 0 && !endsBefore(ctx, time.Now().Add(c.Timeout)) {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.Timeout, ErrDeadline)
		defer stop()
	}
	ctx, f.cancel = context.WithCancelCause(ctx)
	defer f.cancel(nil)
	limit := c.Limit
	if limit <= 0 {
		limit = 16
	}
	var run sync.WaitGroup
	for range min(limit, len(items)) {
		run.Go(func() {
			for n := f.take(); n < len(items); n = f.take() {
				f.end(n, one(ctx, items[n], do))
			}
		})
	}
	run.Wait()
	if f.panic != nil {
		panic(f.panic)
	}
	return f.results, f.err()
}

// ForEach is Fan for what has no result. It returns the errors of the items that failed, joined; with FirstError only
// the first.
func ForEach[T any](ctx context.Context, c FanConfig, items []T, do func(ctx context.Context, item T) error) error {
	results, err := Fan(ctx, c, items, func(ctx context.Context, item T) (struct{}, error) { return struct{}{}, do(ctx, item) })
	if c.Mode == FirstError {
		return err
	}
	return failures(results)
}

// fan is the state of one fan-out.
type fan[R any] struct {
	mode    FanMode
	cancel  context.CancelCauseFunc
	mu      sync.Mutex
	next    int
	first   error
	panic   *Panic
	results []Result[R] // each written by the goroutine that took its index
}

// take gives out the indices in turn.
func (f *fan[R]) take() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return f.next - 1
}

// one runs do for an item, unless it is too late for that.
func one[T, R any](ctx context.Context, item T, do func(context.Context, T) (R, error)) (r Result[R]) {
	if ctx.Err() != nil {
		_, r.Err = ended(ctx)
		return r
	}
	defer recovered(&r.Err)
	r.Value, r.Err = do(ctx, item)
	if r.Err != nil {
		r.Err = named(ctx, r.Err)
	}
	return r
}

func (f *fan[R]) end(n int, r Result[R]) {
	f.results[n] = r
	if r.Err == nil {
		return
	}
	p, broke := errors.AsType[*Panic](r.Err)
	f.mu.Lock()
	defer f.mu.Unlock()
	if broke && f.panic == nil {
		f.panic = p
	}
	if f.first == nil {
		f.first = r.Err
	}
	if broke || f.mode == FirstError {
		f.cancel(r.Err)
	}
}

func (f *fan[R]) err() error {
	if f.mode == FirstError && f.first != nil {
		return f.first
	}
	if f.mode == BestEffort && slices.ContainsFunc(f.results, func(r Result[R]) bool { return r.Err == nil }) {
		return nil
	}
	return failures(f.results)
}

func failures[R any](results []Result[R]) error {
	var all []error
	for i := range results {
		if results[i].Err != nil {
			all = append(all, results[i].Err)
		}
	}
	return errors.Join(all...)
}

package longpole

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/longpole/longpole/batch"
)

// Result is what became of one of many: of a key of a batch, or of an item of a fan-out.
type Result[V any] = batch.Result[V]

// Batcher joins calls for single keys into calls for many. Make one with NewBatcher and share it: all methods are safe
// for concurrent use. It has no goroutine of its own: one runs for each batch, as long as anybody waits for it.
type Batcher[K comparable, V any] struct {
	joiner *batch.Joiner[K, V]
	load   func(context.Context, []K) ([]Result[V], error)
	mu     sync.Mutex // orders the begin of batches before Close
	closed bool
	timer  *time.Timer // nil until one is needed; set to when a batch is due
	run    sync.WaitGroup
	life   context.Context
	end    context.CancelCauseFunc
}

// NewBatcher returns a Batcher, or every fault of c; each is a *setting.Error. load gets different keys, oldest first,
// and returns one Result for each in the same order, or an error for all of them. Its context ends at the latest
// deadline of those who wait, when all of them have left, or with Close; it carries no values, as it belongs to many.
// load must return soon after that, and must be safe for concurrent use. When it panics, so does every Get that waits
// for it, with a *Panic.
func NewBatcher[K comparable, V any](c batch.Config, load func(ctx context.Context, keys []K) ([]Result[V], error)) (*Batcher[K, V], error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &Batcher[K, V]{joiner: batch.New[K, V](c), load: load}
	b.life, b.end = context.WithCancelCause(context.Background())
	return b, nil
}

// Get loads the value of key, together with others where that costs no time. The error is the key's own or its
// batch's; batch.ErrFull when too many wait, batch.ErrClosed after Close; for a context that is done, its cause.
func (b *Batcher[K, V]) Get(ctx context.Context, key K) (v V, err error) {
	if ctx.Err() != nil {
		_, why := ended(ctx)
		return v, why
	}
	deadline, _ := ctx.Deadline()
	item, err := b.joiner.Add(time.Now(), key, deadline)
	switch {
	case errors.Is(err, batch.ErrTooLate):
		return v, ErrDeadline
	case err != nil:
		return v, err
	}
	b.pump()
	select {
	case <-item.Done():
	case <-ctx.Done():
		b.joiner.Leave(item)
		_, why := ended(ctx)
		return v, why
	}
	v, err = item.Result()
	if p, ok := errors.AsType[*Panic](err); ok {
		panic(p)
	}
	return v, err
}

// pump starts every batch that is due, and sets the timer to when the next one is.
func (b *Batcher[K, V]) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed {
		now := time.Now()
		next, wake := b.joiner.Next(now)
		switch {
		case next != nil:
			b.run.Go(func() { b.make(next) })
			continue
		case wake.IsZero():
		case b.timer == nil:
			b.timer = time.AfterFunc(wake.Sub(now), b.pump)
		default:
			b.timer.Reset(wake.Sub(now))
		}
		return
	}
}

// make loads one batch, and sends off those that waited for its end.
func (b *Batcher[K, V]) make(next *batch.Batch[K, V]) {
	ctx, cancel := context.WithCancelCause(b.life)
	stop := func() {}
	if !next.Deadline.IsZero() {
		ctx, stop = context.WithDeadlineCause(ctx, next.Deadline, ErrDeadline)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-next.Gone():
			cancel(errLeft)
		case <-ctx.Done():
		}
	}()
	var results []Result[V]
	err := errExited
	defer func() {
		cancel(nil)
		stop()
		<-gone
		b.joiner.Done(time.Now(), next, results, err)
		b.pump()
	}()
	results, err = b.call(ctx, next.Keys)
}

func (b *Batcher[K, V]) call(ctx context.Context, keys []K) (r []Result[V], err error) {
	defer recovered(&err)
	return b.load(ctx, keys)
}

// Close refuses all calls that wait or come later with batch.ErrClosed, ends the loads and waits for them.
func (b *Batcher[K, V]) Close() {
	b.joiner.Close()
	b.mu.Lock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.end(batch.ErrClosed)
	b.run.Wait()
}

// Why nobody has a use for what still runs, and why there is nothing where something was to be.
var (
	errLeft   = errors.New("longpole: all who waited have left")
	errExited = errors.New("longpole: the function ended its goroutine instead of returning")
)

// Panic is what a panic in a function given to NewBatcher, Fan or ForEach becomes: it goes on, as a *Panic, in the
// goroutines of those who wait for the function.
type Panic struct {
	Value any    // of the panic
	Stack []byte // of the goroutine in which it happened
}

// Error gives the value of the panic and where it happened.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns Value when it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// recovered, deferred, turns a panic into an error.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = &Panic{Value: v, Stack: debug.Stack()}
	}
}

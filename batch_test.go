package longpole_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/batch"
	"go.uber.org/goleak"
)

// store is a dependency with a bulk method that takes 10 ms.
type store struct {
	mu      sync.Mutex
	batches [][]int
	fail    error
}

func (s *store) load(ctx context.Context, keys []int) ([]longpole.Result[string], error) {
	s.mu.Lock()
	s.batches = append(s.batches, slices.Clone(keys))
	s.mu.Unlock()
	select {
	case <-time.After(10 * ms):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.fail != nil {
		return nil, s.fail
	}
	var r []longpole.Result[string]
	for _, k := range keys {
		if k < 0 {
			r = append(r, longpole.Result[string]{Err: errNegative})
			continue
		}
		r = append(r, longpole.Result[string]{Value: fmt.Sprint(k)})
	}
	return r, nil
}

var errNegative = errors.New("negative")

func batcher[K comparable, V any](t *testing.T, c batch.Config, load func(context.Context, []K) ([]longpole.Result[V], error)) *longpole.Batcher[K, V] {
	t.Helper()
	b, err := longpole.NewBatcher(c, load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestASingleGetIsNoSlowerThanWithoutBatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(store)
		b := batcher(t, batch.Config{Age: time.Hour}, s.load)
		d := took(func() {
			if v, err := b.Get(t.Context(), 7); v != "7" || err != nil {
				t.Error(v, err)
			}
		})
		if d != 10*ms {
			t.Error(d)
		}
	})
}

func TestGetsThatComeTogetherTravelTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(store)
		b := batcher(t, batch.Config{Size: 50, Age: 4 * ms, Parallel: 100}, s.load)
		var wg sync.WaitGroup
		for k := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(k) * 100 * time.Microsecond) // 10 ms from first to last
				key := k / 2                                          // each asked for twice
				if k == 99 {
					key = -1
				}
				v, err := b.Get(t.Context(), key)
				if key < 0 && !errors.Is(err, errNegative) || key >= 0 && (err != nil || v != fmt.Sprint(key)) {
					t.Errorf("%d: %q, %v", key, v, err)
				}
			})
		}
		wg.Wait()
		if n := len(s.batches); n != 4 { // the first at once, one after 4 ms, another after 8 ms, the rest when the first is back
			t.Errorf("%d batches: %v", n, s.batches)
		}
	})
}

func TestAFailedBatchFailsAllItsGets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{fail: errors.New("down")}
		b := batcher(t, batch.Config{}, s.load)
		var wg sync.WaitGroup
		for k := range 10 {
			wg.Go(func() {
				if _, err := b.Get(t.Context(), k); !errors.Is(err, s.fail) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestABatchEndsWhenAllHaveLeftAndNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Pointer[string]
		b := batcher(t, batch.Config{}, func(ctx context.Context, keys []int) ([]longpole.Result[int], error) {
			<-ctx.Done()
			why := context.Cause(ctx).Error()
			ended.Store(&why)
			return nil, ctx.Err()
		})
		var wg sync.WaitGroup
		for _, stay := range []time.Duration{time.Second, 2 * time.Second} {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(stay, cancel)
				if _, err := b.Get(ctx, 1); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		time.Sleep(1500 * ms)
		if ended.Load() == nil { // the second waits in the queue for a batch of its own
			t.Error("the first batch goes on though nobody waits for it")
		}
		wg.Wait()
	})
}

func TestAGetEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left atomic.Int64
		b := batcher(t, batch.Config{}, func(ctx context.Context, keys []int) ([]longpole.Result[int], error) {
			end, _ := ctx.Deadline()
			left.Store(int64(time.Until(end)))
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
		defer cancel()
		if d := took(func() {
			if _, err := b.Get(ctx, 1); !errors.Is(err, longpole.ErrDeadline) {
				t.Error(err)
			}
		}); d != 300*ms || time.Duration(left.Load()) != 300*ms {
			t.Error(d, left.Load())
		}
		if _, err := b.Get(ctx, 1); !errors.Is(err, longpole.ErrDeadline) {
			t.Error("a call that is over:", err)
		}
	})
}

func TestCloseEndsEveryLoadAndEveryGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := batcher(t, batch.Config{Age: time.Hour}, func(ctx context.Context, keys []int) ([]longpole.Result[int], error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		var wg sync.WaitGroup
		for k := range 5 {
			wg.Go(func() {
				if _, err := b.Get(t.Context(), k); !errors.Is(err, batch.ErrClosed) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		b.Close()
		wg.Wait()
		if _, err := b.Get(t.Context(), 1); !errors.Is(err, batch.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestAPanicOfTheLoadGoesOnInEveryGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		b := batcher(t, batch.Config{}, func(context.Context, []int) ([]longpole.Result[int], error) { panic(boom) })
		var wg sync.WaitGroup
		for k := range 3 {
			wg.Go(func() {
				p := panics(func() { b.Get(t.Context(), k) })
				if p == nil || !errors.Is(p, boom) || !strings.Contains(p.Error(), "batch_test.go") {
					t.Errorf("%v: want the panic, with its place", p)
				}
			})
		}
		wg.Wait()
		quits := batcher(t, batch.Config{}, func(context.Context, []int) ([]longpole.Result[int], error) {
			runtime.Goexit()
			return nil, nil
		})
		if _, err := quits.Get(t.Context(), 1); err == nil {
			t.Error("no error though nothing was loaded")
		}
	})
}

// panics is what f panics with.
func panics(f func()) (p *longpole.Panic) {
	defer func() { p, _ = recover().(*longpole.Panic) }()
	f()
	return nil
}

func TestABatcherRefusesAFaultyConfig(t *testing.T) {
	if _, err := longpole.NewBatcher(batch.Config{Size: -1}, new(store).load); err == nil {
		t.Error("taken")
	}
}

// With real time and real goroutines: nothing is lost, and nothing is left behind.
func TestABatcherLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	b, err := longpole.NewBatcher(batch.Config{Size: 20, Age: 100 * time.Microsecond}, func(_ context.Context, keys []int) ([]longpole.Result[int], error) {
		r := make([]longpole.Result[int], len(keys))
		for i, k := range keys {
			r[i].Value = 10 * k
		}
		return r, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if (w+i)%7 == 0 {
					cancel()
				}
				if v, err := b.Get(ctx, i%31); err == nil && v != 10*(i%31) || err != nil && !errors.Is(err, context.Canceled) {
					t.Error(v, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

func ExampleBatcher() {
	names, err := longpole.NewBatcher(batch.Config{Size: 50}, func(_ context.Context, ids []int) ([]longpole.Result[string], error) {
		results := make([]longpole.Result[string], len(ids)) // SELECT id, name FROM users WHERE id IN (...)
		for i, id := range ids {
			results[i].Value = fmt.Sprint("user ", id)
		}
		return results, nil
	})
	if err != nil {
		panic(err)
	}
	defer names.Close()
	fmt.Println(names.Get(context.Background(), 7))
	// Output: user 7 <nil>
}

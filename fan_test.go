package longpole_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"go.uber.org/goleak"
)

var errOdd = errors.New("odd")

func numbers(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// wait takes d, or as long as ctx lives.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestFanRunsAsManyAtOnceAsItMayAndKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			limit, most int
			want        time.Duration
		}{{1, 1, 100 * ms}, {3, 3, 40 * ms}, {100, 10, 10 * ms}, {0, 10, 10 * ms}, {-1, 10, 10 * ms}} {
			var now, most atomic.Int64
			d := took(func() {
				r, err := longpole.Fan(t.Context(), longpole.FanConfig{Limit: tt.limit}, numbers(10), func(ctx context.Context, i int) (string, error) {
					n := now.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					defer now.Add(-1)
					return fmt.Sprint(i), wait(ctx, 10*ms)
				})
				if err != nil {
					t.Error(err)
				}
				for i := range r {
					if r[i].Value != fmt.Sprint(i) || r[i].Err != nil {
						t.Errorf("%d: %+v", i, r[i])
					}
				}
			})
			if d != tt.want || most.Load() != int64(tt.most) {
				t.Errorf("limit %d: %v with %d at once, want %v with %d", tt.limit, d, most.Load(), tt.want, tt.most)
			}
		}
		if r, err := longpole.Fan(t.Context(), longpole.FanConfig{}, nil, func(context.Context, int) (int, error) { return 0, errOdd }); len(r) != 0 || err != nil {
			t.Error("nothing to do:", r, err)
		}
	})
}

func TestTheFirstErrorEndsTheFan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := atomic.Int64{}
		d := took(func() {
			r, err := longpole.Fan(t.Context(), longpole.FanConfig{Limit: 4}, numbers(100), func(ctx context.Context, i int) (int, error) {
				began.Add(1)
				if i == 5 {
					return 0, errOdd
				}
				return i, wait(ctx, time.Duration(10+i)*ms)
			})
			if !errors.Is(err, errOdd) {
				t.Error(err)
			}
			if r[0].Err != nil || r[0].Value != 0 || !errors.Is(r[5].Err, errOdd) || r[4].Err == nil || !errors.Is(r[99].Err, errOdd) {
				t.Error("results of the first, the failed, one under way and the last:", r[0], r[5], r[4], r[99])
			}
		})
		if d != 11*ms || began.Load() != 6 {
			t.Errorf("%v, %d begun; want 11ms and 6", d, began.Load())
		}
	})
}

func TestBestEffortGivesWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := longpole.FanConfig{Mode: longpole.BestEffort, Limit: 3, Timeout: 25 * ms}
		odd := func(ctx context.Context, i int) (int, error) {
			if i%2 == 1 {
				return 0, errOdd
			}
			return i, wait(ctx, 10*ms)
		}
		var r []longpole.Result[int]
		d := took(func() {
			var err error
			if r, err = longpole.Fan(t.Context(), c, numbers(30), odd); err != nil {
				t.Error(err)
			}
		})
		if d != 25*ms {
			t.Error("took", d, "with a timeout of 25 ms")
		}
		good, failed, late := 0, 0, 0
		for i := range r {
			switch {
			case r[i].Err == nil && r[i].Value == i:
				good++
			case errors.Is(r[i].Err, errOdd):
				failed++
			case errors.Is(r[i].Err, longpole.ErrDeadline):
				late++
			}
		}
		if good != 6 || failed+late != 24 || failed < 6 {
			t.Errorf("%d good, %d failed, %d late", good, failed, late)
		}
		if _, err := longpole.Fan(t.Context(), c, []int{1, 3}, odd); !errors.Is(err, errOdd) {
			t.Error("all failed:", err)
		}
	})
}

func TestTheCallersEndIsTheFansEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		time.AfterFunc(15*ms, func() { cancel(enough) })
		r, err := longpole.Fan(ctx, longpole.FanConfig{Limit: 1, Mode: longpole.BestEffort, Timeout: time.Hour}, numbers(5), func(ctx context.Context, i int) (int, error) {
			return i, wait(ctx, 10*ms)
		})
		if err != nil || r[0].Err != nil || !errors.Is(r[1].Err, enough) || !errors.Is(r[4].Err, enough) {
			t.Error(r, err)
		}
	})
}

func TestForEachTellsWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		each := func(_ context.Context, i int) error {
			if i%2 == 1 {
				return fmt.Errorf("%d: %w", i, errOdd)
			}
			return nil
		}
		if err := longpole.ForEach(t.Context(), longpole.FanConfig{}, []int{0, 2, 4}, each); err != nil {
			t.Error(err)
		}
		err := longpole.ForEach(t.Context(), longpole.FanConfig{Mode: longpole.BestEffort}, numbers(6), each)
		if err == nil || err.Error() != "1: odd\n3: odd\n5: odd" {
			t.Error(err)
		}
		if err := longpole.ForEach(t.Context(), longpole.FanConfig{Limit: 1}, numbers(6), each); err == nil || err.Error() != "1: odd" {
			t.Error(err)
		}
	})
}

func TestAPanicInAFanGoesOnInItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []longpole.FanMode{longpole.FirstError, longpole.BestEffort} {
			var others atomic.Int64
			p := panics(func() {
				longpole.Fan(t.Context(), longpole.FanConfig{Mode: mode}, numbers(4), func(ctx context.Context, i int) (int, error) {
					if i == 2 {
						time.Sleep(ms) // let the others begin
						panic("boom")
					}
					err := wait(ctx, time.Hour)
					others.Add(1)
					return 0, err
				})
			})
			if p == nil || p.Value != "boom" || !strings.Contains(p.Error(), "fan_test.go") || others.Load() != 3 {
				t.Errorf("mode %d: %.80v, %d others ended; want the panic, after all others", mode, p, others.Load())
			}
		}
		if _, err := longpole.Fan(t.Context(), longpole.FanConfig{}, numbers(2), func(_ context.Context, i int) (int, error) {
			if i == 1 {
				runtime.Goexit()
			}
			return i, nil
		}); err == nil {
			t.Error("an item ended its goroutine, and nobody says so")
		}
	})
}

func TestAFanLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for i := range 50 {
		longpole.ForEach(t.Context(), longpole.FanConfig{Limit: 8}, numbers(50), func(_ context.Context, k int) error {
			if k == i {
				return errOdd
			}
			return nil
		})
	}
}

// A page that shows what is there within 50 ms, and leaves out the rest.
func ExampleFan() {
	parts := []string{"prices", "reviews", "stock"}
	c := longpole.FanConfig{Mode: longpole.BestEffort, Timeout: 50 * time.Millisecond}
	results, err := longpole.Fan(context.Background(), c, parts, func(ctx context.Context, part string) (string, error) {
		if part == "reviews" {
			<-ctx.Done() // it hangs
			return "", ctx.Err()
		}
		return part + " are here", nil
	})
	for i, r := range results {
		if r.Err != nil {
			fmt.Println(parts[i], "are left out")
			continue
		}
		fmt.Println(r.Value)
	}
	fmt.Println(err)
	// Output:
	// prices are here
	// reviews are left out
	// stock are here
	// <nil>
}

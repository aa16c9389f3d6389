package longpole_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
	"github.com/longpole/longpole/setting"
)

func full() longpole.Config {
	return longpole.Config{
		Timeout:    time.Second,
		TryTimeout: 500 * ms,
		Cache:      &cache.Config{TTL: time.Minute},
		Retry:      &retry.Config{MaxAttempts: 2, Hedge: &retry.Hedge{After: 50 * ms}},
		Balance:    &balance.Config{Algorithm: balance.RoundRobin},
		Breaker:    &breaker.Config{MinCalls: 5},
	}
}

func TestConfigGoesInAndComesOut(t *testing.T) {
	given := full()
	p := policy(t, given, "a")
	if diff := cmp.Diff(full(), p.Config()); diff != "" {
		t.Error(diff)
	}
	// Nothing is shared, in neither direction.
	given.Retry.Hedge.After = 0
	got := p.Config()
	got.Retry.Hedge.After, got.Cache.TTL, got.Balance.Algorithm, got.Breaker.MinCalls = 0, 0, "", 0
	if diff := cmp.Diff(full(), p.Config()); diff != "" {
		t.Error(diff)
	}
	if err := p.Reconfigure(p.Config()); err != nil {
		t.Error(err)
	}
}

func TestAllFaultsAtOnceWithTheirPaths(t *testing.T) {
	bad := longpole.Config{
		Timeout: -1, TryTimeout: -1,
		Cache:   &cache.Config{TTL: -1},
		Retry:   &retry.Config{MaxAttempts: 11, Hedge: &retry.Hedge{After: -1}},
		Balance: &balance.Config{Algorithm: "best"},
		Breaker: &breaker.Config{Probes: -1},
	}
	_, err := longpole.New(bad, nil)
	var got []string
	for _, e := range setting.List(err) {
		var fault *setting.Error
		if !errors.As(e, &fault) {
			t.Fatal(e)
		}
		got = append(got, fault.Path)
	}
	want := []string{"timeout", "try_timeout", "cache.ttl", "retry.max_attempts", "retry.hedge.after", "balance.algorithm", "breaker.probes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	p := policy(t, full(), "a")
	if p.Reconfigure(bad) == nil {
		t.Error("accepted")
	}
	if diff := cmp.Diff(full(), p.Config()); diff != "" {
		t.Error("a refused Config changed something:", diff)
	}
}

func TestSafeTurnsOnEverythingButTheCache(t *testing.T) {
	c := longpole.Config{}.Safe()
	if c.Timeout != 30*time.Second || c.Retry.MaxAttempts != 3 || c.Balance.Algorithm != balance.P2C || c.Breaker.MinCalls != 20 || c.Cache != nil || c.Retry.Hedge != nil {
		t.Errorf("%+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	kept := longpole.Config{Timeout: time.Second, Retry: &retry.Config{Off: true}}.Safe()
	if kept.Timeout != time.Second || !kept.Retry.Off {
		t.Errorf("%+v", kept)
	}
}

// Every setting has a name in the file, and the parts stay pointers: nil is off.
func TestConfigIsAFileFormat(t *testing.T) {
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for f := range typ.Fields() {
			if f.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no yaml tag", typ, f.Name)
			}
			if f.Type.Kind() == reflect.Pointer {
				check(f.Type.Elem())
			}
		}
	}
	check(reflect.TypeFor[longpole.Config]())
}

func TestReconfigureKeepsWhatWasLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := longpole.Config{
			Cache:   &cache.Config{},
			Retry:   &retry.Config{BaseDelay: 1, MaxDelay: 1, MinPerSecond: 0.1},
			Breaker: &breaker.Config{MinCalls: 5},
		}
		p := policy(t, c, "a", "b")
		wantAnswer(t, t.Context(), p, &script{storable: true, steps: []step{{}}}, "answer 1", call.Miss)
		w := &byPlace{bad: "ab"}
		for range 20 {
			longpole.Do(t.Context(), p, idem, nil, w)
		}
		c.Timeout = time.Second
		c.Cache, c.Retry, c.Breaker = &cache.Config{MaxBytes: 1 << 20}, &retry.Config{MaxAttempts: 5}, &breaker.Config{MinCalls: 6}
		if err := p.Reconfigure(c); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, t.Context(), p, &script{}, "answer 1", call.Hit)
		if p.Breaker(time.Now(), "a") != breaker.Open || p.Breaker(time.Now(), "b") != breaker.Open {
			t.Error("the breakers forgot")
		}
		c.Breaker, c.Cache = nil, nil
		if err := p.Reconfigure(c); err != nil {
			t.Fatal(err)
		}
		if p.Breaker(time.Now(), "a") != breaker.Closed || p.Breaker(time.Now(), "x") != breaker.Closed {
			t.Error("a breaker that is off is open")
		}
		if r, err := longpole.Do(t.Context(), p, idem, nil, &byPlace{}); err != nil || r == "" {
			t.Error(r, err)
		}
	})
}

func TestReconfigureWhileCallsRun(t *testing.T) {
	endpoints := balance.NewSet("a", "b", "c")
	p, err := longpole.New(full(), endpoints)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				for _, info := range []call.Info{idem, keyed, {}} {
					r, err := longpole.Do(context.Background(), p, info, nil, storing{&script{storable: true, steps: []step{{}}}})
					if err != nil {
						t.Error(err)
						return
					}
					r.close()
				}
			}
		})
	}
	for i := range 200 {
		c := full()
		if i%2 == 0 {
			c.Cache, c.Breaker, c.Balance = nil, nil, nil
		}
		if i%3 == 0 {
			c.Retry = nil
		}
		if err := p.Reconfigure(c); err != nil {
			t.Error(err)
		}
		endpoints.Replace([]string{"a", "b", "c", "d"}[i%2 : 2+i%3])
	}
	p.Close()
	wg.Wait()
}

func TestClassOfAnError(t *testing.T) {
	for err, want := range map[error]call.Class{
		nil:                      call.OK,
		errFake:                  call.Server,
		longpole.ErrDeadline:     call.Timeout,
		longpole.ErrTryTimeout:   call.Timeout,
		context.DeadlineExceeded: call.Timeout,
		context.Canceled:         call.Canceled,
		breaker.ErrOpen:          call.Shed,
		balance.ErrNoEndpoint:    call.Shed,
		&longpole.Error{Class: call.Refused, Err: errFake}: call.Refused,
	} {
		if got := longpole.Class(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// instant answers at once and allocates nothing.
type instant struct{ n int }

func (i *instant) Try(context.Context, longpole.Attempt) (*int, error) { return &i.n, nil }
func (i *instant) Judge(*int, error) call.Outcome                      { return call.Outcome{} }
func (i *instant) Discard(*int)                                        {}
func (i *instant) Hold(r *int, release func()) *int                    { release(); return r }

func armed(t testing.TB) *longpole.Policy {
	return policy(t, longpole.Config{Retry: &retry.Config{}, Balance: &balance.Config{}, Breaker: &breaker.Config{}}, "a", "b", "c")
}

func TestDoAllocatesNothing(t *testing.T) {
	p, w, ctx := armed(t), &instant{}, context.Background()
	var rec call.Record
	if n := testing.AllocsPerRun(1000, func() {
		rec = call.Record{}
		if _, err := longpole.Do(ctx, p, idem, &rec, w); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// kept is an instant that can be stored.
type kept struct{ instant }

func (k *kept) Keep(*int, int64) (longpole.Kept[*int], bool) {
	return longpole.Kept[*int]{Value: value("v")}, true
}
func (k *kept) Open(cache.Value, call.CacheState) *int { return &k.n }

func TestAHitAllocatesNothing(t *testing.T) {
	p, w, ctx := policy(t, full(), "a"), &kept{}, context.Background()
	var rec call.Record
	if n := testing.AllocsPerRun(1000, func() {
		rec = call.Record{}
		if _, err := longpole.Do(ctx, p, keyed, &rec, w); err != nil {
			t.Error(err)
		}
	}); n != 0 || rec.Cache != call.Hit {
		t.Errorf("%v allocations for a %v", n, rec.Cache)
	}
}

func BenchmarkDoHit(b *testing.B) {
	p, w, ctx := policy(b, full(), "a"), &kept{}, context.Background()
	b.ReportAllocs()
	for b.Loop() {
		longpole.Do(ctx, p, keyed, nil, w)
	}
}

func BenchmarkDo(b *testing.B) {
	p, w, ctx := armed(b), &instant{}, context.Background()
	b.ReportAllocs()
	for b.Loop() {
		longpole.Do(ctx, p, idem, nil, w)
	}
}

func BenchmarkDoParallel(b *testing.B) {
	p, ctx := armed(b), context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &instant{}
		for pb.Next() {
			longpole.Do(ctx, p, idem, nil, w)
		}
	})
}

func BenchmarkDoTimeout(b *testing.B) {
	c := longpole.Config{}.Safe()
	p, w, ctx := policy(b, c, "a", "b", "c"), &instant{}, context.Background()
	b.ReportAllocs()
	for b.Loop() {
		longpole.Do(ctx, p, idem, nil, w)
	}
}

package batch

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

var (
	t0   = time.Unix(1_700_000_000, 0)
	none time.Time
)

func at(d time.Duration) time.Time { return t0.Add(d) }

func add(t *testing.T, j *Joiner[int, string], now time.Time, key int, deadline time.Time) *Item[int, string] {
	t.Helper()
	i, err := j.Add(now, key, deadline)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// next asks for a batch and wants these keys; none = no batch.
func next(t *testing.T, j *Joiner[int, string], now time.Time, keys ...int) *Batch[int, string] {
	t.Helper()
	b, _ := j.Next(now)
	var got []int
	if b != nil {
		got = b.Keys
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("%v after: batch %v, want %v", now.Sub(t0), got, keys)
	}
	return b
}

func wakes(t *testing.T, j *Joiner[int, string], now, want time.Time) {
	t.Helper()
	if b, wake := j.Next(now); b != nil || !wake.Equal(want) {
		t.Fatalf("%v after: batch %v, wake %v; want %v", now.Sub(t0), b, wake.Sub(t0), want.Sub(t0))
	}
}

// values are the results that say the key.
func values(b *Batch[int, string]) (r []Result[string]) {
	for _, k := range b.Keys {
		r = append(r, Result[string]{Value: fmt.Sprint(k)})
	}
	return r
}

func ended[K comparable, V any](i *Item[K, V]) bool {
	select {
	case <-i.Done():
		return true
	default:
		return false
	}
}

func TestNothingWaitsWhileNothingIsUnderWay(t *testing.T) {
	j := New[int, string](Config{})
	i := add(t, j, t0, 1, none)
	b := next(t, j, t0, 1)
	if ended(i) {
		t.Fatal("done before it was loaded")
	}
	j.Done(t0, b, values(b), nil)
	if v, err := i.Result(); !ended(i) || v != "1" || err != nil {
		t.Error(v, err)
	}
	next(t, j, t0)
}

func TestWhatComesMeanwhileMakesUpTheNextBatch(t *testing.T) {
	j := New[int, string](Config{Size: 3, Age: 10 * ms})
	add(t, j, t0, 0, none)
	first := next(t, j, t0, 0)
	for k := 1; k <= 2; k++ {
		add(t, j, at(time.Duration(k)*ms), k, none)
	}
	wakes(t, j, at(2*ms), at(11*ms))
	j.Done(at(5*ms), first, values(first), nil) // idle again: they need not wait
	second := next(t, j, at(5*ms), 1, 2)
	for k := 3; k <= 6; k++ {
		add(t, j, at(6*ms), k, none)
	}
	third := next(t, j, at(6*ms), 3, 4, 5) // a full one does not wait
	wakes(t, j, at(6*ms), at(16*ms))
	next(t, j, at(16*ms), 6) // nor does one that is old enough
	j.Done(at(20*ms), third, values(third), nil)
	j.Done(at(20*ms), second, values(second), nil)
	if j.Waiting() != 0 || j.UnderWay() != 1 {
		t.Error(j.Waiting(), "wait,", j.UnderWay(), "under way")
	}
}

func TestTheTightestDeadlineShortensTheWait(t *testing.T) {
	j := New[int, string](Config{Age: 100 * ms, Size: 10})
	add(t, j, t0, 0, none)
	b := next(t, j, t0, 0)
	j.Done(at(20*ms), b, values(b), nil) // so a batch takes 20 ms, give or take 10
	now := at(30 * ms)
	add(t, j, now, 1, none)
	busy := next(t, j, now, 1)
	add(t, j, now, 2, none)
	wakes(t, j, now, now.Add(100*ms))
	add(t, j, now, 3, now.Add(90*ms))
	wakes(t, j, now, now.Add(30*ms)) // 90 ms, less 20 ms and four times 10 ms
	add(t, j, now, 2, now.Add(70*ms))
	wakes(t, j, now, now.Add(10*ms))
	add(t, j, now, 4, now.Add(5*ms)) // no time to lose, all go together
	next(t, j, now, 2, 3, 4)
	j.Done(now, busy, values(busy), nil)
	if _, err := j.Add(now, 5, now); !errors.Is(err, ErrTooLate) {
		t.Error(err)
	}
}

func TestEqualKeysAreLoadedOnce(t *testing.T) {
	j := New[int, string](Config{})
	add(t, j, t0, 0, none)
	busy := next(t, j, t0, 0)
	a, b := add(t, j, t0, 7, none), add(t, j, t0, 7, at(time.Second))
	again := add(t, j, t0, 0, none) // under way, but its value may be older than this call
	if a != b {
		t.Error("two items for one key")
	}
	j.Done(t0, busy, values(busy), nil)
	if ended(again) {
		t.Error("a call got a value from before it began")
	}
	next(t, j, t0, 7, 0)
}

func TestEachKeyHasItsOwnError(t *testing.T) {
	missing, down := errors.New("missing"), errors.New("down")
	j := New[int, string](Config{Idle: 10, Parallel: 10})
	for _, tt := range []struct {
		name    string
		results []Result[string]
		err     error
		want    [2]error
	}{
		{"one of two", []Result[string]{{Value: "a"}, {Err: missing}}, nil, [2]error{nil, missing}},
		{"all", nil, down, [2]error{down, down}},
		{"too few results", []Result[string]{{Value: "a"}}, nil, [2]error{ErrResults, ErrResults}},
		{"too many results", make([]Result[string], 3), nil, [2]error{ErrResults, ErrResults}},
	} {
		items := []*Item[int, string]{add(t, j, t0, 1, none), add(t, j, t0, 2, none)}
		j.Done(t0, next(t, j, t0, 1, 2), tt.results, tt.err)
		for n, i := range items {
			if _, err := i.Result(); !errors.Is(err, tt.want[n]) {
				t.Errorf("%s: key %d: %v, want %v", tt.name, n+1, err, tt.want[n])
			}
		}
	}
}

func TestWhoLeavesIsNotWaitedFor(t *testing.T) {
	j := New[int, string](Config{Age: 10 * ms})
	add(t, j, t0, 0, none)
	busy := next(t, j, t0, 0)
	one, two, twoToo := add(t, j, t0, 1, none), add(t, j, t0, 2, none), add(t, j, at(ms), 2, none)
	j.Leave(one)
	j.Leave(two)
	b := next(t, j, at(10*ms), 2)
	select {
	case <-b.Gone():
		t.Fatal("gone, and one waits")
	default:
	}
	j.Leave(twoToo)
	<-b.Gone()
	j.Done(at(11*ms), b, values(b), nil)
	j.Leave(twoToo) // too late, and no harm
	j.Done(at(11*ms), busy, values(busy), nil)
	if j.Waiting() != 0 || j.UnderWay() != 0 {
		t.Error(j.Waiting(), "wait,", j.UnderWay(), "under way")
	}
}

func TestTheBatchHasTheTimeOfWhoHasMost(t *testing.T) {
	j := New[int, string](Config{})
	add(t, j, t0, 1, at(time.Second))
	add(t, j, t0, 2, at(3*time.Second))
	add(t, j, t0, 1, at(2*time.Second))
	if b := next(t, j, t0, 1, 2); !b.Deadline.Equal(at(3 * time.Second)) {
		t.Error(b.Deadline)
	}
	j = New[int, string](Config{})
	add(t, j, t0, 1, at(time.Second))
	add(t, j, t0, 2, none)
	if b := next(t, j, t0, 1, 2); !b.Deadline.IsZero() {
		t.Error(b.Deadline, "though one has all the time")
	}
}

func TestWhatWaitsAndWhatIsUnderWayIsBounded(t *testing.T) {
	j := New[int, string](Config{Size: 2, Parallel: 2, Pending: 3})
	add(t, j, t0, 0, none)
	next(t, j, t0, 0)
	add(t, j, t0, 1, none)
	add(t, j, t0, 2, none)
	next(t, j, t0, 1, 2)
	add(t, j, t0, 3, none)
	// Under way: 0; 1 and 2. That is all of Parallel.
	add(t, j, t0, 4, none)
	add(t, j, t0, 5, none)
	if _, err := j.Add(t0, 6, none); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	add(t, j, t0, 5, none) // one that waits already needs no room
	wakes(t, j, at(time.Hour), none)
}

func TestClosedRefusesAll(t *testing.T) {
	j := New[int, string](Config{})
	add(t, j, t0, 0, none)
	b := next(t, j, t0, 0)
	i := add(t, j, t0, 1, none)
	j.Close()
	if _, err := i.Result(); !ended(i) || !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := j.Add(t0, 2, none); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	j.Leave(i)
	j.Done(t0, b, values(b), nil)
	next(t, j, t0)
	j.Close()
}

// A load of a + b*n has a best size under a target; the size finds it and stays near it.
func TestTheSizeFollowsTheTarget(t *testing.T) {
	j := New[int, string](Config{Size: 500, Target: 10 * ms, Pending: 100_000})
	r := rand.New(rand.NewPCG(1, 2))
	now, key, worst, best := t0, 0, 0, math.MaxInt
	for round := range 400 {
		for range 600 {
			add(t, j, now, key, none)
			key++
		}
		b, _ := j.Next(now)
		took := time.Duration((2 + 0.04*float64(len(b.Keys)) + 0.2*r.Float64()) * float64(ms)) // 10 ms at 195 to 200
		if round > 100 {
			worst, best = max(worst, len(b.Keys)), min(best, len(b.Keys))
		}
		now = now.Add(took)
		j.Done(now, b, values(b), nil)
		for j.Waiting() > 0 {
			b, _ := j.Next(now)
			for _, i := range b.items {
				j.Leave(i)
			}
			j.mu.Lock()
			j.underway--
			j.mu.Unlock()
		}
	}
	t.Logf("size %d to %d", best, worst)
	if best < 160 || worst > 205 {
		t.Errorf("size %d to %d, want near 195", best, worst)
	}
}

func TestSlownessThatIsNotOfTheSizeLeavesATenthOfIt(t *testing.T) {
	j := New[int, string](Config{Size: 100, Target: ms})
	for range 100 {
		for k := range 100 {
			add(t, j, t0, k, none)
		}
		b, _ := j.Next(t0)
		j.Done(at(time.Second), b, values(b), nil)
		for _, i := range slices.Clone(j.queue) {
			if i != nil {
				j.Leave(i)
			}
		}
	}
	if n := j.bound(); n != 10 {
		t.Error(n)
	}
	j.Reconfigure(Config{Size: 50})
	if n := j.bound(); n != 50 {
		t.Error(n, "without a target")
	}
}

// Whatever comes in whatever order: every key that is waited for is loaded once or refused, no batch is larger than it
// may be or holds a key twice, none waits beyond its age while there is room, and nothing is left behind.
func TestEveryKeyIsServedWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Size: rapid.IntRange(1, 5).Draw(t, "size"), Age: 10 * ms, Idle: rapid.IntRange(1, 2).Draw(t, "idle"),
			Parallel: rapid.IntRange(2, 4).Draw(t, "parallel"), Pending: rapid.IntRange(1, 20).Draw(t, "pending"),
		}
		j := New[int, int](c)
		now := t0
		var running []*Batch[int, int]
		var items []*Item[int, int]
		pump := func() {
			for b, _ := j.Next(now); b != nil; b, _ = j.Next(now) {
				if seen := slices.Clone(b.Keys); len(b.Keys) > c.Size || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != len(seen) {
					t.Fatalf("batch %v", b.Keys)
				}
				running = append(running, b)
			}
			if len(running) > c.Parallel {
				t.Fatal(len(running), "under way")
			}
			for _, i := range j.queue {
				if i != nil && len(running) < c.Parallel && now.Sub(i.since) >= c.Age {
					t.Fatal("waits for", now.Sub(i.since))
				}
			}
		}
		finish := func(n int) {
			b := running[n]
			running = slices.Delete(running, n, n+1)
			var r []Result[int]
			for _, k := range b.Keys {
				r = append(r, Result[int]{Value: 10 * k})
			}
			j.Done(now, b, r, nil)
		}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pass")) * ms)
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what < 6:
				if i, err := j.Add(now, rapid.IntRange(0, 9).Draw(t, "key"), none); err == nil {
					items = append(items, i)
				} else if !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
			case what < 8 && len(running) > 0:
				finish(rapid.IntRange(0, len(running)-1).Draw(t, "which"))
			case len(items) > 0:
				n := rapid.IntRange(0, len(items)-1).Draw(t, "who")
				j.Leave(items[n])
				items = slices.Delete(items, n, n+1)
			}
			pump()
		}
		for now = now.Add(c.Age); len(running) > 0 || j.Waiting() > 0; pump() {
			if len(running) > 0 {
				finish(0)
			}
		}
		for _, i := range items {
			if v, err := i.Result(); !ended(i) || err != nil || v != 10*i.key {
				t.Fatalf("key %d: %d, %v", i.key, v, err)
			}
		}
		if len(j.byKey) != 0 || j.underway != 0 || len(j.queue) != 0 {
			t.Fatalf("%d keys, %d batches, %d places left behind", len(j.byKey), j.underway, len(j.queue))
		}
	})
}

func TestJoinersAreSafeForConcurrentUse(t *testing.T) {
	j := New[int, int](Config{Size: 10})
	var served atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for k := range 300 {
				i, err := j.Add(t0, k%17, none)
				if err != nil {
					t.Error(err)
					return
				}
				if (w+k)%5 == 0 {
					j.Leave(i)
				}
				for b, _ := j.Next(at(time.Hour)); b != nil; b, _ = j.Next(at(time.Hour)) {
					served.Add(int64(len(b.Keys)))
					j.Done(at(time.Hour), b, make([]Result[int], len(b.Keys)), nil)
				}
			}
		})
	}
	wg.Wait()
	if j.Waiting() != 0 || j.UnderWay() != 0 || served.Load() == 0 {
		t.Error(j.Waiting(), "wait,", j.UnderWay(), "under way,", served.Load(), "served")
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Size: -1, Age: -1, Idle: -1, Parallel: -1, Pending: -1, Target: -1}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 6 {
		t.Errorf("%v: want 6 faults", err)
	}
	if err := (Config{Idle: 20}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

// How many calls a dependency gets, and how long a key takes, when many ask for single keys.
func TestBatchingUnderLoadSparesCalls(t *testing.T) {
	run := func(perSecond int) (keysPerCall float64, p50, p99 time.Duration) {
		j := New[int, string](Config{})
		r := rand.New(rand.NewPCG(1, uint64(perSecond)))
		type running struct {
			ends time.Time
			b    *Batch[int, string]
		}
		var under []running
		var took []time.Duration
		began := map[int]time.Time{}
		calls, key := 0, 0
		nextArrival := t0
		for now := t0; now.Before(at(5 * time.Second)); now = now.Add(50 * time.Microsecond) {
			for ; !nextArrival.After(now); nextArrival = nextArrival.Add(time.Duration(r.ExpFloat64() / float64(perSecond) * 1e9)) {
				add(t, j, now, key, none)
				began[key] = now
				key++
			}
			under = slices.DeleteFunc(under, func(u running) bool {
				if u.ends.After(now) {
					return false
				}
				for _, k := range u.b.Keys {
					took = append(took, now.Sub(began[k]))
					delete(began, k)
				}
				j.Done(now, u.b, values(u.b), nil)
				return true
			})
			for b, _ := j.Next(now); b != nil; b, _ = j.Next(now) {
				calls++
				under = append(under, running{now.Add(3*ms + time.Duration(len(b.Keys))*10*time.Microsecond), b})
			}
		}
		slices.Sort(took)
		return float64(len(took)) / float64(calls), took[len(took)/2], took[len(took)*99/100]
	}
	idle, p50, p99 := run(20)
	t.Logf("20/s: %.2f keys a call, p50 %v, p99 %v", idle, p50, p99)
	if p50 > 3100*time.Microsecond || p99 > 6*ms {
		t.Error("a single caller is slower than without batching")
	}
	busy, p50, p99 := run(20_000)
	t.Logf("20 000/s: %.1f keys a call, p50 %v, p99 %v", busy, p50, p99)
	if busy < 20 || p99 > 8*ms {
		t.Error("want at least 20 keys a call and a p99 of at most 8 ms")
	}
}

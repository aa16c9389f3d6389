package stats

import (
	"math"
	"math/big"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// tolerance is 0.55 %, and the half nanosecond that rounding to whole ones costs.
func tolerance(ns int64) float64 { return 0.0055*float64(ns) + 0.5 }

func duration(t *rapid.T) time.Duration {
	exp := rapid.Float64Range(math.Log(1e3), math.Log(float64(longest))).Draw(t, "log ns")
	return time.Duration(math.Exp(exp))
}

func TestQuantileIsWithinTheErrorBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := rapid.SliceOfN(rapid.Custom(duration), 1, 200).Draw(t, "durations")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		got := Of(ds...).Quantile(q)
		slices.Sort(ds)
		want := ExactQuantile(ds, q)
		if off := math.Abs(float64(got - want)); off > tolerance(int64(want)) {
			t.Fatalf("Quantile(%v) = %v, exact %v", q, got, want)
		}
	})
}

func TestEveryBoundIsWithinTheErrorBound(t *testing.T) {
	for i := 5; i < buckets; i++ { // from 1 µs on
		for _, ns := range []int64{bounds[i-1] + 1, bounds[i]} {
			if got := index(ns); got != i {
				t.Fatalf("index(%d) = %d, want %d", ns, got, i)
			}
			if math.Abs(float64(middle[i]-ns)) > tolerance(ns) {
				t.Errorf("%d ns is read as %d", ns, middle[i])
			}
		}
	}
}

// The boundary between neighbours is 2^(i/64) s, so that the 64th powers can be compared without rounding.
func TestBoundsAreThoseOfSchemaSix(t *testing.T) {
	second := big.NewInt(1e9)
	pow := func(ns int64) *big.Int { return new(big.Int).Exp(big.NewInt(ns), big.NewInt(perOctave), nil) }
	for i := range buckets {
		p := i + minExponent*perOctave
		limit := new(big.Int).Exp(second, big.NewInt(perOctave), nil)
		scale := big.NewInt(1)
		if p >= 0 {
			limit.Lsh(limit, uint(p))
		} else {
			scale.Lsh(scale, uint(-p))
		}
		if in := pow(bounds[i]); in.Mul(in, scale).Cmp(limit) > 0 {
			t.Fatalf("bound %d = %d ns lies above 2^(%d/64) s", i, bounds[i], p)
		}
		if out := pow(bounds[i] + 1); out.Mul(out, scale).Cmp(limit) <= 0 {
			t.Fatalf("bound %d = %d ns is too low for 2^(%d/64) s", i, bounds[i], p)
		}
	}
}

func TestRangeIsClamped(t *testing.T) {
	for _, c := range []struct{ in, low, high time.Duration }{
		{-time.Second, 0, time.Microsecond},
		{0, 0, time.Microsecond},
		{1, 0, time.Microsecond},
		{100 * time.Hour, 4000 * time.Second, 4200 * time.Second},
		{math.MaxInt64, 4000 * time.Second, 4200 * time.Second},
	} {
		s := Of(c.in)
		if got := s.Quantile(.5); got < c.low || got > c.high || s.Count() != 1 {
			t.Errorf("%v is read as %v, want %v..%v", c.in, got, c.low, c.high)
		}
		if s.Sum() < 0 || s.Sum() > longest {
			t.Errorf("%v adds %v to the sum", c.in, s.Sum())
		}
	}
}

func TestEmptySnapshotAnswersZero(t *testing.T) {
	var s Snapshot
	if s.Quantile(.99) != 0 || s.Count() != 0 || s.Sum() != 0 || s.Max() != 0 || s.Above(0) != 0 {
		t.Error("an empty snapshot is not all zero")
	}
	for range s.Buckets() {
		t.Error("an empty snapshot has a bucket")
	}
	if got := s.Merge(s).Sub(s).Count(); got != 0 {
		t.Errorf("empty merged with empty counts %d", got)
	}
	if got := ExactQuantile(nil, .5); got != 0 {
		t.Errorf("ExactQuantile of nothing = %v", got)
	}
}

func TestQuantileIsNearestRank(t *testing.T) {
	var ds []time.Duration
	for i := range 100 {
		ds = append(ds, time.Duration(i+1)*time.Second)
	}
	s := Of(ds...)
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {.005, 1}, {.01, 1}, {.011, 2}, {.5, 50}, {.95, 95}, {.99, 99}, {.991, 100}, {1, 100}, {2, 100}, {math.NaN(), 1}} {
		if got := ExactQuantile(ds, c.q); got != c.want*time.Second {
			t.Errorf("ExactQuantile(%v) = %v, want %vs", c.q, got, int(c.want))
		}
		if got := s.Quantile(c.q).Round(time.Second); got != c.want*time.Second {
			t.Errorf("Quantile(%v) = %v, want %vs", c.q, got, int(c.want))
		}
	}
}

func TestMergeIsTheUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOf(rapid.Custom(duration)).Draw(t, "a")
		b := rapid.SliceOf(rapid.Custom(duration)).Draw(t, "b")
		both := Of(slices.Concat(a, b)...)
		merged := Of(a...).Merge(Of(b...))
		if !equal(merged, both) {
			t.Fatalf("merge = %+v, union = %+v", merged, both)
		}
		if since := merged.Sub(Of(a...)); !equal(since, Of(b...)) {
			t.Fatalf("union less a = %+v, want b = %+v", since, Of(b...))
		}
	})
}

func equal(a, b Snapshot) bool {
	return a.offset == b.offset && slices.Equal(a.counts, b.counts) && a.count == b.count && a.sum == b.sum
}

func TestSubSurvivesARestart(t *testing.T) {
	before := Of(time.Second, time.Second, time.Minute)
	after := Of(time.Second, time.Hour)
	since := after.Sub(before)
	if since.Count() != 1 || since.Above(time.Minute) != 1 {
		t.Errorf("since = %+v, want the hour only", since)
	}
	if got := Of().Sub(before); got.Count() != 0 || got.Sum() != 0 {
		t.Errorf("nothing less something = %+v", got)
	}
}

func TestSnapshotDoesNotChangeAfterwards(t *testing.T) {
	var h Histogram
	h.Record(time.Second)
	s := h.Snapshot()
	h.Record(time.Second)
	s.Merge(Of(time.Second))
	if s.Count() != 1 || s.Above(time.Millisecond) != 1 {
		t.Errorf("a snapshot of one duration became %+v", s)
	}
}

func TestAboveSplitsNoBucket(t *testing.T) {
	s := Of(10*time.Millisecond, 20*time.Millisecond, 30*time.Millisecond)
	at := Shift(20*time.Millisecond, 0)
	for _, c := range []struct {
		x    time.Duration
		want uint64
	}{{0, 3}, {10 * time.Millisecond, 2}, {at, 1}, {20 * time.Millisecond, 1}, {Shift(at, -1), 2}, {Shift(at, 37), 1}, {Shift(at, 38), 0}, {time.Hour * 50, 0}} {
		if got := s.Above(c.x); got != c.want {
			t.Errorf("Above(%v) = %d, want %d", c.x, got, c.want)
		}
	}
}

func TestShiftMultiplies(t *testing.T) {
	base := Shift(50*time.Millisecond, 0)
	for _, n := range []int{-64, -3, 0, 3, 9, 64, 128} {
		want := float64(base) * math.Exp2(float64(n)/64)
		if got := Shift(base, n); math.Abs(float64(got)-want) > 5 { // each bound is rounded to a nanosecond
			t.Errorf("Shift(%d) = %v, want %v", n, got, time.Duration(want))
		}
	}
	if got := Shift(time.Hour, 1e6); got != longest {
		t.Errorf("Shift beyond the range = %v", got)
	}
}

func TestNativeAgreesWithTheBuckets(t *testing.T) {
	s := Of(0, time.Microsecond/2, 3*time.Millisecond, time.Second, time.Second+1, 2*time.Hour)
	schema, zero, positive := s.Native()
	if schema != Schema || zero != 2 {
		t.Errorf("schema %d, zero bucket %d", schema, zero)
	}
	// 1 s = 2^0 ends bucket 0; the least longer one begins bucket 1.
	if positive[0] != 1 || positive[1] != 1 || positive[maxExponent*perOctave] != 1 {
		t.Errorf("positive = %v", positive)
	}
	native := map[int64]int64{}
	for i, n := range positive {
		native[int64(math.Exp2(float64(i)/64)*1e9)] = n
	}
	for bound, n := range s.Buckets() {
		if bound.Seconds() > ZeroThreshold && native[int64(bound)] != int64(n) {
			t.Errorf("bucket up to %v holds %d, natively %d", bound, n, native[int64(bound)])
		}
	}
}

func TestConcurrentRecordsAllCount(t *testing.T) {
	const writers, each = 8, 5000
	var h Histogram
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				h.Record(time.Duration(w*each+i) * time.Microsecond)
				if i%1000 == 0 {
					h.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	n := time.Duration(writers * each)
	if s := h.Snapshot(); s.Count() != uint64(n) || s.Sum() != n*(n-1)/2*time.Microsecond {
		t.Errorf("count %d, sum %v", s.Count(), s.Sum())
	}
}

func TestAHistogramThatIsRecordedOftenGrowsWithinItsBoundAndStaysExact(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(maxBlocks + 4))
	const writers, each = 8, 4 * often
	var h Histogram
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				h.Record(time.Millisecond)
			}
		})
	}
	wg.Wait()
	const n = writers * each
	if s := h.Snapshot(); s.Count() != n || s.Sum() != n*time.Millisecond {
		t.Errorf("count %d, sum %v, want %d", s.Count(), s.Sum(), n)
	}
	if more := h.more.Load(); more == nil || len(*more) != maxBlocks-1 {
		t.Errorf("%v, want three more blocks", more)
	}
	if n := testing.AllocsPerRun(100, func() { h.Record(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	h.reset()
	if s := h.Snapshot(); s.Count() != 0 || s.Sum() != 0 {
		t.Errorf("after a reset: count %d, sum %v", s.Count(), s.Sum())
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var h Histogram
	w := NewWindowed(3, 10*time.Second)
	now := time.Unix(1e9, 0)
	if n := testing.AllocsPerRun(100, func() { h.Record(time.Millisecond); w.Record(now, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWindowForgets(t *testing.T) {
	w := NewWindowed(3, 10*time.Second)
	start := time.Unix(1e9, 0)
	for i := range 6 {
		w.Record(start.Add(time.Duration(i)*10*time.Second), time.Duration(i+1)*time.Second)
	}
	for _, c := range []struct {
		after time.Duration
		want  uint64
	}{{50 * time.Second, 3}, {60 * time.Second, 2}, {79 * time.Second, 1}, {80 * time.Second, 0}, {time.Hour, 0}} {
		if got := w.Snapshot(start.Add(c.after)); got.Count() != c.want {
			t.Errorf("after %v: %d, want %d", c.after, got.Count(), c.want)
		}
	}
	if got := w.Snapshot(start.Add(50 * time.Second)).Sum(); got != 15*time.Second {
		t.Errorf("sum of 4, 5 and 6 s = %v", got)
	}
}

func TestWindowTakesALateRecord(t *testing.T) {
	w := NewWindowed(2, time.Second)
	now := time.Unix(1e9, 0)
	w.Record(now, time.Second)
	w.Record(now.Add(-2*time.Second), time.Second)
	w.Record(time.Time{}, time.Second)
	if got := w.Snapshot(now).Count(); got != 2 && got != 3 {
		t.Errorf("count %d", got)
	}
}

func TestTallyCountsWhatCameSince(t *testing.T) {
	a := Tally{Latency: Of(time.Second), FailedLatency: Of(1), Calls: 1, Failed: 2, TimedOut: 3, Shed: 4, Attempts: 5, Hedges: 6, Retries: 7, CacheHits: 8}
	b := Tally{Latency: Of(time.Minute), FailedLatency: Of(time.Hour), Calls: 10, Failed: 20, TimedOut: 30, Shed: 40, Attempts: 50, Hedges: 60, Retries: 70, CacheHits: 80}
	since := a.Merge(b).Sub(a)
	if !equal(since.Latency, b.Latency) || !equal(since.FailedLatency, b.FailedLatency) {
		t.Errorf("latency = %+v, of failed calls %+v", since.Latency, since.FailedLatency)
	}
	since.Latency, b.Latency = Snapshot{}, Snapshot{}
	if since.Calls != 10 || since.Failed != 20 || since.TimedOut != 30 || since.Shed != 40 || since.Attempts != 50 ||
		since.Hedges != 60 || since.Retries != 70 || since.CacheHits != 80 {
		t.Errorf("since = %+v", since)
	}
	if got := a.Sub(b); got.Calls != 0 || got.Attempts != 0 {
		t.Errorf("after a restart: %+v", got)
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	d := 12345 * time.Microsecond
	for b.Loop() {
		h.Record(d)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	var h Histogram
	for i := range 1000 {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	for b.Loop() {
		h.Snapshot()
	}
}

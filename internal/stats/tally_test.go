package stats

import (
	"math"
	"reflect"
	"testing"
	"time"
)

func TestTalliesAddUpAndTakeApart(t *testing.T) {
	down := func(name string, calls, failed uint64, ds ...time.Duration) Downstream {
		return Downstream{Name: name, Calls: calls, Failed: failed, Latency: Of(ds...), FailedLatency: Of(ds...)}
	}
	early := Tally{Calls: 10, CPU: 3 * time.Second, Bytes: 100, Downstreams: []Downstream{down("b", 4, 1, 5e6), down("d", 1, 0)}}
	more := Tally{Calls: 5, CPU: time.Second, Bytes: 50, Downstreams: []Downstream{down("a", 2, 0, 1e6), down("b", 3, 2, 9e6), down("e", 1, 1)}}
	late := early.Merge(more)
	want := Tally{
		Calls: 15, CPU: 4 * time.Second, Bytes: 150,
		Downstreams: []Downstream{down("a", 2, 0, 1e6), down("b", 7, 3, 5e6, 9e6), down("d", 1, 0), down("e", 1, 1)},
	}
	if !reflect.DeepEqual(late, want) {
		t.Errorf("merged: %+v", late)
	}
	back := late.Sub(early)
	if want := append(more.Downstreams[:2:2], down("d", 0, 0), more.Downstreams[2]); !reflect.DeepEqual(back.Downstreams, want) || back.CPU != more.CPU || back.Bytes != more.Bytes {
		t.Errorf("the difference: %+v", back)
	}
	if begunAnew := more.Sub(late); begunAnew.CPU != 0 || begunAnew.Bytes != 0 || begunAnew.Downstreams[1].Calls != 0 {
		t.Errorf("a tally that shrank: %+v", begunAnew)
	}
	if early.Downstreams[0].Calls != 4 || more.Downstreams[1].Calls != 3 {
		t.Error("the operands changed")
	}
}

func TestBucketsGoBothWays(t *testing.T) {
	s := Of(0, time.Microsecond, 3*time.Millisecond, 3*time.Millisecond, time.Hour, 5*time.Hour)
	if back := FromBuckets(s.Buckets()); !reflect.DeepEqual(back.counts, s.counts) || back.offset != s.offset || back.Count() != 6 {
		t.Errorf("%+v became %+v", s, back)
	}
	odd := FromBuckets(func(yield func(time.Duration, uint64) bool) { _ = yield(-1, 2) && yield(math.MaxInt64, math.MaxUint32) })
	if odd.Count() != 2+math.MaxUint32 || odd.Sum() < 0 {
		t.Errorf("%d of %v", odd.Count(), odd.Sum())
	}
}

func TestNeededIsWhereLogEGetsThere(t *testing.T) {
	var s Series
	for i := range 40 {
		s.Add(1 + 3*float64(i%2))
	}
	for _, goal := range []float64{1, 5, 50} {
		n := s.Needed(goal, 0)
		if at, before := logE(n, s.Mean(), s.LongRunVariance()), logE(n-1, s.Mean(), s.LongRunVariance()); at < goal || before >= goal {
			t.Errorf("goal %v: %v of %d numbers, %v of one less", goal, at, n, before)
		}
	}
	if n := s.NeededBelow(1, 0); n != 0 {
		t.Errorf("%d numbers above 0 show a mean below", n)
	}
	if s.Needed(1, 1e12) != 0 || (&Series{}).Needed(1, 0) != 0 {
		t.Error("a number of numbers where none would do")
	}
}

func TestDetectableTIsWhereLogEGetsThere(t *testing.T) {
	for _, n := range []int{20, 60, 1000} {
		at := DetectableT(n, 6)
		if got := logE(n, at, float64(n)); math.Abs(got-6) > 1e-6 {
			t.Errorf("%d numbers, t %v: %v", n, at, got)
		}
	}
	if at := DetectableT(5, 6); !math.IsInf(at, 1) {
		t.Errorf("five numbers show it at %v", at)
	}
}

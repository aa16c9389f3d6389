package stats

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAStoredHistogramComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Histogram
		for _, d := range rapid.SliceOfN(rapid.Int64Range(0, int64(2*time.Hour)), 0, 50).Draw(t, "durations") {
			h.Record(time.Duration(d))
		}
		want := h.Snapshot()
		b, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got := Of(time.Second) // what was there before must go
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v: %+v, want %+v", err, got, want)
		}
		if n := len(b); n > 0 {
			cut := want
			if err := cut.UnmarshalBinary(b[:n-1]); !errors.Is(err, ErrBinary) || !reflect.DeepEqual(cut, want) {
				t.Fatalf("a cut one gave %v", err)
			}
			if err := cut.UnmarshalBinary(append(b, 0)); !errors.Is(err, ErrBinary) {
				t.Fatalf("a longer one gave %v", err)
			}
		}
	})
}

func TestAStoredHistogramIsSmall(t *testing.T) {
	var h Histogram
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		h.Record(time.Duration(float64(20*time.Millisecond) * (0.5 + rng.ExpFloat64())))
	}
	if b, _ := h.Snapshot().MarshalBinary(); len(b) > 600 {
		t.Errorf("%d bytes", len(b))
	}
}

func FuzzUnmarshalBinary(f *testing.F) {
	b, _ := Of(1, time.Millisecond, time.Second, time.Second).MarshalBinary()
	f.Add(b)
	f.Add([]byte{binaryVersion, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Snapshot
		if s.UnmarshalBinary(b) != nil {
			return
		}
		s.Quantile(0.5)
		again, _ := s.MarshalBinary()
		var back Snapshot
		if err := back.UnmarshalBinary(again); err != nil || !reflect.DeepEqual(s, back) {
			t.Errorf("%v: %+v, want %+v", err, back, s)
		}
	})
}

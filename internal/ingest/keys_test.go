package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// keyed is a span of that name with those keys.
func keyed(name string, keys ...string) trace.Span {
	s := trace.Span{TraceID: "00000000000000000000000000000001", ID: "0000000000000001", Service: "shop", Name: name, Start: 1, End: 2}
	for _, k := range keys {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: k, Value: "v"})
	}
	return s
}

func TestSpansOfOneNameWithTheSameAttributesShareTheirKeys(t *testing.T) {
	var got []trace.Span
	d := newDecoder(func(s trace.Span) { got = append(got, s) })
	for range 3 {
		if err := d.otlp(EncodeOTLP([]trace.Span{keyed("GET /", "a", "b")})); err != nil {
			t.Fatal(err)
		}
	}
	if got[1].Keys == nil || got[1].Keys != got[2].Keys || !got[1].Keys.Fits(got[1].Attributes) {
		t.Errorf("keys %v and %v of %v", got[1].Keys, got[2].Keys, got[1].Attributes)
	}
}

// However spans differ from those before, and however many lists of keys there are, what a span says of its keys is true.
func TestKeysAreThoseOfTheAttributes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	shared := 0
	d := newDecoder(func(s trace.Span) {
		if s.Keys == nil {
			return
		}
		shared++
		if !s.Keys.Fits(s.Attributes) {
			t.Fatalf("keys %q of %v", s.Keys.List, s.Attributes)
		}
	})
	for i := range 3 * mostKeys {
		s := keyed(fmt.Sprint("op", random.IntN(4)))
		for k := range random.IntN(3) * random.IntN(10) {
			s.Attributes = append(s.Attributes, trace.Attribute{Key: fmt.Sprint("k", k+random.IntN(2)), Value: "v"})
		}
		if random.IntN(3) == 0 {
			s.Attributes = append(s.Attributes, trace.Attribute{Key: fmt.Sprint("new", i), Value: "v"})
		}
		s.Host = []string{"", "node"}[random.IntN(2)] // one key of the resource more
		twice := []trace.Span{s, s}
		if err := d.otlp(EncodeOTLP(twice)); err != nil {
			t.Fatal(err)
		}
	}
	if shared == 0 || d.made != mostKeys {
		t.Errorf("%d spans with keys, %d lists", shared, d.made)
	}
}

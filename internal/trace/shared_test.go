package trace

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestASpanHasItsSharedAttributesAmongItsOwn(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 1000 {
		list := make([]Attribute, random.IntN(70))
		for i := range list {
			list[i] = Attribute{"k" + strconv.Itoa(i), strconv.Itoa(random.Int())}
		}
		differ := random.Uint64() & random.Uint64()
		keys := &Keys{}
		s := Span{Shared: Share(list, differ, keys)}
		for i, a := range list {
			if i < 64 && differ>>i&1 != 0 {
				s.Attributes = append(s.Attributes, a)
			}
		}
		if s.Len() != len(list) || s.Keys() != keys || !slices.Equal(slices.Collect(s.All()), list) {
			t.Fatalf("got %v, want %v", slices.Collect(s.All()), list)
		}
		for _, a := range list {
			if got := s.Attr(a.Key); got != a.Value {
				t.Fatalf("%s is %q, want %q", a.Key, got, a.Value)
			}
		}
		loud := Span{Attributes: s.Attributes, Shared: s.Shared.With(strings.ToUpper)}
		for i, a := range list {
			want := strings.ToUpper(a.Key)
			if i < 64 && differ>>i&1 != 0 {
				want = a.Key
			}
			if got := loud.At(i).Key; got != want {
				t.Fatalf("key %d is %q, want %q", i, got, want)
			}
		}
		s.Unshare()
		if s.Shared != nil || s.Keys() != nil || !slices.Equal(s.Attributes, list) {
			t.Fatalf("got %v, want %v", s.Attributes, list)
		}
	}
}

func TestReadingTheAttributesMayEndEarly(t *testing.T) {
	s := Span{Attributes: []Attribute{{"a", "1"}, {"b", "2"}}}
	for a := range s.All() {
		if a.Key == "b" {
			t.Fatal("it went on")
		}
		break
	}
}

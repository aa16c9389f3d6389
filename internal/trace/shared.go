package trace

import (
	"iter"
	"math/bits"
	"slices"
)

// Shared is what the attributes of several spans have in common: all their keys, and the values that do not differ. Most
// spans of an operation tell little that the one before them did not tell, of their resource nothing. It is not changed once it
// is made, and may be read from many goroutines.
type Shared struct {
	keys   *Keys
	common []Attribute
	at     []int16 // where each attribute is: in common, or, if it is less than 0, at -1-at among the span's own
}

// Share makes what spans with such attributes have in common: those whose bit in differ is set, counted from the first, are the
// spans' own. keys is those of all; nil = they are not known. There may be no more attributes than an int16 counts.
func Share(attributes []Attribute, differ uint64, keys *Keys) *Shared {
	x := &Shared{
		keys: keys, at: make([]int16, len(attributes)),
		common: make([]Attribute, 0, max(len(attributes)-bits.OnesCount64(differ), 0)),
	}
	own := int16(0)
	for i := range attributes {
		if i < 64 && differ>>i&1 != 0 {
			own++
			x.at[i] = -own
			continue
		}
		x.at[i] = int16(len(x.common))
		x.common = append(x.common, attributes[i])
	}
	return x
}

// With is x with other memory for its texts: each is what text returns for it.
func (x *Shared) With(text func(string) string) *Shared {
	y := *x
	y.common = slices.Clone(x.common)
	for i := range y.common {
		a := &y.common[i]
		a.Key, a.Value = text(a.Key), text(a.Value)
	}
	return &y
}

// Keys is the keys of all attributes of s, if they are known to be the same as those of other spans; nil = they were not
// compared.
func (s *Span) Keys() *Keys {
	if s.Shared == nil {
		return nil
	}
	return s.Shared.keys
}

// Len is how many attributes s has, the shared ones included.
func (s *Span) Len() int {
	if s.Shared == nil {
		return len(s.Attributes)
	}
	return len(s.Shared.at)
}

// At is the attribute of s at a place below [Span.Len]: its own and then those of its resource, in the order of the input. The
// caller must not change it.
func (s *Span) At(i int) *Attribute {
	if s.Shared == nil {
		return &s.Attributes[i]
	}
	at := s.Shared.at[i]
	if at < 0 {
		return &s.Attributes[-1-at]
	}
	return &s.Shared.common[at]
}

// Own reports whether the attribute at a place below [Span.Len] is of s alone.
func (s *Span) Own(i int) bool { return s.Shared == nil || s.Shared.at[i] < 0 }

// All is the attributes of s in their order.
func (s *Span) All() iter.Seq[Attribute] {
	return func(yield func(Attribute) bool) {
		for i := range s.Len() {
			if !yield(*s.At(i)) {
				return
			}
		}
	}
}

// Unshare gives s a list of all its attributes that is its own and may be changed.
func (s *Span) Unshare() {
	if s.Shared != nil {
		s.Attributes, s.Shared = slices.Collect(s.All()), nil
	}
}

package diagnose

import (
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// twin is what spans that share attributes have in common beyond these: what is told by shared attributes alone is read once for
// all of them.
type twin struct {
	layout *layout
	marks  marks    // of those that are not failed by themselves; 0 = they are not known: attributes of their own have a say, or the first one failed
	placed bool     // no attribute of their own tells the place
	places []placed // the places that were found
}

// placed is the place of spans in that position.
type placed struct {
	position
	number int32
}

// position is what tells the place of a span that nobody serves, besides its attributes.
type position struct {
	spot int32
	kind trace.Kind
	leaf bool
	call bool
}

// maxTwins bounds how many kinds of spans are remembered, and maxPositions in how many positions each. The others are read as they are.
const (
	maxTwins     = 1 << 12
	maxPositions = 8
)

// The attributes that marks, and places, are read from; see kindsOfPlace too.
var (
	asksOfMarks  = []ask{askQuery, askMethod, askPersonal}
	kindsOfMarks = []kind{kindStatus, kindRPC, kindResent}
	asksOfPlaces = append([]ask{askMethod, askRPC, askPeer, askAddress, askURL}, asksOfPlace...)
)

// twinOf is what spans have in common that share what span i of the tree in the making shares; nil = that is not known.
func (b *builder) twinOf(i int) *twin {
	s := &b.tree.Spans[i]
	if s.Shared == nil {
		return nil
	}
	x, known := b.twin[s.Shared]
	if known || len(b.twin) >= maxTwins {
		return x
	}
	if b.twin == nil {
		b.twin = make(map[*trace.Shared]*twin)
	}
	x = &twin{layout: b.layouts.of(s)}
	if x.layout != nil {
		x.placed = x.layout.shares(s, asksOfPlaces, kindsOfPlace)
		if !s.Failed && x.layout.shares(s, asksOfMarks, kindsOfMarks) {
			b.tree.layouts[i] = x.layout
			x.marks = b.tree.read(i)
		}
	}
	b.twin[s.Shared] = x
	return x
}

// shares reports whether all attributes of s that are asked for are shared ones.
func (l *layout) shares(s *trace.Span, asks []ask, kinds []kind) bool {
	own := func(at int16) bool { return at >= 0 && s.Own(int(at)) }
	return !slices.ContainsFunc(asks, func(a ask) bool { return own(l.at[a]) }) &&
		!slices.ContainsFunc(kinds, func(k kind) bool { return slices.ContainsFunc(l.kinds[k], own) })
}

// find is the number of the place of a span in that position; ok = it was found before.
func (x *twin) find(at position) (number int32, ok bool) {
	for i := range x.places {
		if x.places[i].position == at {
			return x.places[i].number, true
		}
	}
	return 0, false
}

// remember keeps the number of a place.
func (x *twin) remember(at position, number int32) {
	if len(x.places) < maxPositions {
		x.places = append(x.places, placed{at, number})
	}
}

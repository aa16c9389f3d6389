package diagnose

import "github.com/longpole/longpole/internal/trace"

// A roll is memory that lists are cut from, one behind the other: what trees need is short lists by the million. A piece of it is
// held as long as one of its lists is. The zero value is ready; the first list of a roll gets a piece of its own.
type roll[T any] struct {
	free []T
	size int // of the last piece
}

// rollPiece is how many values a piece has in the end.
const rollPiece = 512

// cut is n zeroes.
func (r *roll[T]) cut(n int) []T {
	if len(r.free) < n {
		r.size = max(n, min(2*r.size, rollPiece))
		r.free = make([]T, r.size)
	}
	list := r.free[:n:n]
	r.free = r.free[n:]
	return list
}

// keep is a copy of list.
func (r *roll[T]) keep(list []T) []T {
	kept := r.cut(len(list))
	copy(kept, list)
	return kept
}

// rolls is the memory of the trees that one goroutine makes.
type rolls struct {
	spans    roll[trace.Span]
	numbers  roll[int32]
	layouts  roll[*layout]
	marks    roll[marks]
	why      roll[Detached]
	clips    roll[interval]
	sections roll[Section]
}

package diagnose

import "math"

// spot is a span's service and operation: where in a program something happens.
type spot struct{ service, operation string }

// spots numbers the operations of a set of traces, so that what is learnt about them can be kept in slices.
type spots struct {
	index  map[spot]int32
	list   []spot
	recent [1 << 10]int32 // the number that was found last for a hash, plus 1
}

func newSpots() *spots { return &spots{index: make(map[spot]int32)} }

// number is the number of a service's operation. Most spans are of an operation that was there before; comparing two
// strings that share their memory costs nothing, and hashing them does.
func (o *spots) number(service, operation string) int32 {
	return o.numberUpTo(math.MaxInt32, service, operation)
}

// numberUpTo is number, but -1 for what would be more than most.
func (o *spots) numberUpTo(most int, service, operation string) int32 {
	n := o.find(service, operation)
	if n < 0 && len(o.list) < most {
		at := spot{service, operation}
		n = int32(len(o.list))
		o.index[at] = n
		o.list = append(o.list, at)
	}
	return n
}

// find is the number of an operation that has one, or -1.
func (o *spots) find(service, operation string) int32 {
	slot := &o.recent[quickHash(service, operation)]
	if n := *slot - 1; n >= 0 && o.list[n].service == service && o.list[n].operation == operation {
		return n
	}
	n, ok := o.index[spot{service, operation}]
	if !ok {
		return -1
	}
	*slot = n + 1
	return n
}

// quickHash looks at the lengths and a few bytes only: what it mixes up costs a look into the index.
func quickHash(service, operation string) uint32 {
	h := uint32(len(service))*0x9E3779B1 ^ uint32(len(operation))*0x85EBCA77
	if n := len(service); n > 0 {
		h ^= uint32(service[n-1])*0xC2B2AE3D ^ uint32(service[n/2])*0x27D4EB2F
	}
	if n := len(operation); n > 0 {
		h ^= uint32(operation[n-1])*0x165667B1 ^ uint32(operation[n/2])*0xD3A2646C ^ uint32(operation[n*3/4])*0xFD7046C5
	}
	return h >> 22
}

// mark gives every span of t the number of its operation.
func (o *spots) mark(t *Tree, r *rolls) {
	t.spots = r.numbers.cut(len(t.Spans))
	for i := range t.Spans {
		t.spots[i] = o.number(t.Spans[i].Service, t.Spans[i].Name)
	}
}

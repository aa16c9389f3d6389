package diagnose

import "hash/maphash"

// An idTable numbers the IDs of one trace's spans, from 0 as they come. It is a hash table with open addressing that is emptied and
// filled a million times a minute, which a map takes twice as long for. The zero value has no room; see [idTable.reset].
type idTable struct {
	slots []idSlot // a power of two, at most half of them in use
	ids   []string // by number
}

// idSlot is where the ID of a number was put; 0 = nowhere.
type idSlot struct {
	hash   uint32
	number int32 // plus 1
}

// idSeed makes that nobody can choose IDs that meet in one slot.
var idSeed = maphash.MakeSeed()

// reset empties the table and makes room for n IDs.
func (x *idTable) reset(n int) {
	size := 16
	for size < 2*n {
		size *= 2
	}
	if len(x.slots) < size || len(x.slots) > 16*size {
		x.slots = make([]idSlot, size)
	} else {
		clear(x.slots)
	}
	clear(x.ids)
	x.ids = x.ids[:0]
}

// slot is where id stands, or where it belongs.
func (x *idTable) slot(id string) (at *idSlot, hash uint32) {
	hash = uint32(maphash.String(idSeed, id))
	for i := int(hash); ; i++ {
		at = &x.slots[i&(len(x.slots)-1)]
		if at.number == 0 || at.hash == hash && x.ids[at.number-1] == id {
			return at, hash
		}
	}
}

// add is the number of id, and whether it had one before.
func (x *idTable) add(id string) (n int32, known bool) {
	at, hash := x.slot(id)
	if at.number > 0 {
		return at.number - 1, true
	}
	x.ids = append(x.ids, id)
	*at = idSlot{hash, int32(len(x.ids))}
	return at.number - 1, false
}

// find is the number of id; -1 = it has none.
func (x *idTable) find(id string) int32 {
	at, _ := x.slot(id)
	return at.number - 1
}

package ingest

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// A slab keeps texts one behind the other, so that a thousand of them cost one allocation. A text that is kept for long
// holds the whole slab; see compactor.
type slab struct{ b strings.Builder }

const slabBytes = 8 << 10

func (s *slab) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > slabBytes/8 {
		return string(b)
	}
	from := s.b.Len()
	if s.b.Cap()-from < len(b) {
		s.b = strings.Builder{}
		s.b.Grow(slabBytes)
		from = 0
	}
	s.b.Write(b)
	return s.b.String()[from:]
}

// An interner makes equal strings share their memory. It is a direct-mapped cache, so its size is fixed whatever the
// input holds. A text enters it the second time it comes, so that those that never come again push nothing out.
type interner struct {
	seed  maphash.Seed
	once  slab
	slots [8192]internSlot
}

type internSlot struct {
	text string
	seen uint32 // of the hash of a text that came once
}

// maxShared bounds the texts that are shared: long ones seldom come again.
const maxShared = 128

func (n *interner) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > maxShared {
		return n.once.keep(b)
	}
	return n.find(maphash.Bytes(n.seed, b), b)
}

// find is keep for a text of which the hash is known.
func (n *interner) find(hash uint64, b []byte) string {
	slot := &n.slots[hash%uint64(len(n.slots))]
	if slot.text == string(b) {
		return slot.text
	}
	if tag := uint32(hash >> 32); slot.seen != tag {
		slot.seen = tag
		return n.once.keep(b)
	}
	slot.text = string(b)
	return slot.text
}

// A shape is the attributes of the last span of some name. The next one of that name has nearly the same, at the same
// places, and comparing with them is cheaper than hashing.
type shape struct {
	attributes [shapeSize]trace.Attribute
	raw        [shapeSize]string // on the wire, of those that were the same twice; "" = not known
	own        int               // how many of its own the last span had
	of         uint64            // the number of its resource; 0 = no span can be compared with the last one
	shared     *trace.Shared     // with the next ones; nil = there was only one span since own or of changed
	keys       *trace.Keys       // of shared; nil = not known
	differ     uint64            // the attributes that shared leaves to each span, a bit each
	changed    uint64            // the same, and those whose value changed since
	rounds     int               // resources since differ was empty
}

const (
	shapeSize = 16
	maxShapes = 128
	maxRounds = 16
	maxRaw    = 256 // bytes of an attribute on the wire that is remembered so
	maxBrief  = 24  // of a value that changes again and again: to look for an equal one costs more than it takes
)

// see takes the attribute of a span at a place, which is not known by its bytes on the wire.
func (x *shape) see(d *decoder, at int, key, value, raw []byte) *trace.Attribute {
	last := &x.attributes[at]
	if last.Key == string(key) && last.Value == string(value) {
		if len(raw) <= maxRaw {
			x.raw[at] = string(raw)
		}
		return last
	}
	x.raw[at] = ""
	if last.Key != string(key) {
		last.Key = d.text(key)
		x.forget()
	}
	if last.Value != string(value) {
		if x.changed>>at&1 != 0 && len(value) <= maxBrief {
			last.Value = d.texts.once.keep(value)
		} else {
			last.Value = d.text(value)
		}
		x.changed |= 1 << at
	}
	return last
}

// forget makes that the next span shares nothing with those before it.
func (x *shape) forget() { x.of, x.shared, x.keys = 0, nil, nil }

// begin is called with the first span of a resource, and of so many attributes. What changed among the spans of the resource
// before is likely to change again.
func (x *shape) begin(own int, of uint64) {
	x.forget()
	if x.rounds++; x.own != own || x.rounds > maxRounds {
		x.differ, x.rounds = 0, 0
	}
	x.own, x.of, x.changed = own, of, x.differ
}

// The bounds of the lists of keys: how many a decoder knows, and makes. Beyond them spans have none.
const (
	maxKeys  = 256
	mostKeys = 1 << 12
)

// keysFor is the keys of attributes, the same for equal ones seen lately; nil = there are too many.
func (d *decoder) keysFor(list []trace.Attribute) *trace.Keys {
	var h maphash.Hash
	h.SetSeed(d.texts.seed)
	for i := range list {
		_, _ = h.WriteString(list[i].Key)
		_ = h.WriteByte(0)
	}
	hash := h.Sum64()
	slot := &d.keys[hash%maxKeys]
	if *slot != nil && (*slot).Fits(list) {
		return *slot
	}
	if d.made >= mostKeys {
		return nil
	}
	d.made++
	*slot = &trace.Keys{List: make([]string, len(list)), Hash: hash}
	for i := range list {
		(*slot).List[i] = strings.Clone(list[i].Key) // else it would hold a slab
	}
	return *slot
}

// keyBit is a bit that stands for a key, so that two lists without a key in common are mostly known as such at once.
func keyBit(key string) uint64 {
	n := len(key)
	if n == 0 {
		return 1
	}
	return 1 << ((uint(key[n-1])*7 + uint(key[n/2])*3 + uint(n)) & 63)
}

func keyBits(list []trace.Attribute) (bits uint64) {
	for i := range list {
		bits |= keyBit(list[i].Key)
	}
	return bits
}

// identifiers turns the binary identifiers of traces and spans into hex and remembers some: those of a trace and of a
// parent come again and again. Random bits choose the slot; a sender of others only loses the advantage.
type identifiers struct {
	once   slab
	traces [1024]traceSlot
	spans  [2048]spanSlot
}

type traceSlot struct {
	high, low uint64
	text      string
}

type spanSlot struct {
	raw  uint64
	text string
}

// trace is the hex of an identifier of 16 bytes; "" when all of them are zero.
func (d *identifiers) trace(b []byte) string {
	high, low := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if high|low == 0 {
		return ""
	}
	slot := &d.traces[(low^low>>32)%uint64(len(d.traces))]
	if slot.high != high || slot.low != low || slot.text == "" {
		var text [32]byte
		hex.Encode(text[:], b)
		*slot = traceSlot{high, low, d.once.keep(text[:])}
	}
	return slot.text
}

// span is the hex of an identifier of 8 bytes; "" when all of them are zero.
func (d *identifiers) span(b []byte) string {
	raw := binary.BigEndian.Uint64(b)
	if raw == 0 {
		return ""
	}
	slot := &d.spans[(raw^raw>>32)%uint64(len(d.spans))]
	if slot.raw != raw {
		var text [16]byte
		hex.Encode(text[:], b)
		*slot = spanSlot{raw, d.once.keep(text[:])}
	}
	return slot.text
}

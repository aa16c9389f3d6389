package ingest

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"

	"github.com/longpole/longpole/internal/trace"
)

const (
	maxAttributes = 64  // kept of a span, and as many of its resource
	maxID         = 256 // bytes of a trace or span ID; longer ones are invalid
	noService     = "unknown"
)

// hostKeys are the resource attributes that identify a clock, the best first; see trace.Span.Host.
var hostKeys = [...]string{"host.id", "host.name", "k8s.pod.uid", "k8s.pod.name", "service.instance.id", "hostname", "ip"}

// counts is what decoding had to leave out.
type counts struct {
	Invalid int // spans without IDs or readable times
	CutText int // attributes, values or links dropped or shortened
	Excess  int // spans, log records or points beyond decoder.most
}

// resource is what the spans of one process have in common.
type resource struct {
	service    string
	host       string
	attributes []trace.Attribute
	number     uint64 // tells it from the others of a decoder; 0 where spans are not decoded from OTLP protobuf
	keys       uint64 // see keyBits
	bytes      int64  // of the attributes, as spanBytes has it
}

// describe takes service and host from the attributes.
func (r *resource) describe() {
	for _, k := range hostKeys {
		if r.host = find(r.attributes, k); r.host != "" {
			break
		}
	}
	if r.service == "" {
		r.service = find(r.attributes, "service.name")
	}
	if r.service == "" {
		r.service = noService
	}
}

func find(list []trace.Attribute, key string) string {
	for i := range list {
		if list[i].Key == key {
			return list[i].Value
		}
	}
	return ""
}

// A held span waits for what comes later in its document: its resource or
// its process.
type held struct {
	span     trace.Span
	from, to int // its attributes in decoder.pool
	bad      bool
	process  string    // Jaeger: the name of its process
	own      *resource // Jaeger: its process where it stands in the span itself
}

// A decoder holds what decoding needs again and again. It is not safe for concurrent use.
type decoder struct {
	emit    func(trace.Span)
	logs    *logSink // of files; nil = log records among spans are passed over
	counts  counts
	most    int               // spans, log records or points taken of one message; 0 = all
	taken   int               // of them
	size    int64             // estimated memory of the spans emitted; see spanBytes
	arena   []trace.Attribute // of the spans emitted, and of the one being decoded
	held    []held
	pool    []trace.Attribute // attributes of the held spans
	texts   interner
	ids     identifiers
	shapes  [maxShapes]shape
	shape   *shape // of the span being decoded
	keys    [maxKeys]*trace.Keys
	made    int    // lists of keys
	number  uint64 // of the last resource
	scratch []byte // for attribute values
}

func newDecoder(emit func(trace.Span)) *decoder {
	d := &decoder{emit: emit, texts: interner{seed: maphash.MakeSeed()}}
	d.shape = &d.shapes[0]
	return d
}

// decoders spares every live message the memory of an interner.
var decoders = sync.Pool{New: func() any { return newDecoder(nil) }}

func borrow(emit func(trace.Span)) *decoder {
	d := decoders.Get().(*decoder)
	d.emit, d.counts, d.most, d.taken, d.size, d.made = emit, counts{}, 0, 0, 0, 0
	return d
}

// another reports whether one more span, record or point may be taken. A few bytes on the wire become some hundred in
// memory, so that a bound on the bytes is not enough.
func (d *decoder) another() bool {
	if d.most > 0 && d.taken >= d.most {
		d.counts.Excess++
		return false
	}
	d.taken++
	return true
}

func giveBack(d *decoder) {
	d.drop(mark{})
	d.emit = nil
	for i := range d.shapes {
		d.shapes[i].forget()
	}
	if cap(d.pool) > 1<<14 || cap(d.held) > 1<<12 {
		d.pool, d.held = nil, nil
	}
	decoders.Put(d)
}

// text keeps a string: cut to maxText, and shared with equal ones seen lately.
func (d *decoder) text(b []byte) string {
	if len(b) > maxText {
		d.counts.CutText++
		b = shortened(b)
	}
	return d.texts.keep(b)
}

// id keeps an identifier as it is spelled.
func (d *decoder) id(b []byte) string {
	if len(b) > maxID {
		return string(b[:maxID+1]) // too long; settle counts it
	}
	return d.texts.keep(b)
}

// attributeNamed adds one to the span or resource whose first attribute stands at from in pool.
func (d *decoder) attributeNamed(from int, key string, value []byte) {
	if len(d.pool)-from >= maxAttributes {
		d.counts.CutText++
		return
	}
	d.pool = append(d.pool, trace.Attribute{Key: key, Value: d.text(value)})
}

// A mark remembers how much a decoder held, so that documents may be nested.
type mark struct{ held, pool int }

func (d *decoder) mark() mark { return mark{len(d.held), len(d.pool)} }

// drop forgets what was held since m.
func (d *decoder) drop(m mark) {
	clear(d.held[m.held:])
	clear(d.pool[m.pool:])
	d.held, d.pool = d.held[:m.held], d.pool[:m.pool]
}

// flush emits what was held since m as spans of r.
func (d *decoder) flush(m mark, r *resource) {
	for i := range d.held[m.held:] {
		d.settle(&d.held[m.held+i], r)
	}
	d.drop(m)
}

// settle gives a held span its resource and emits it.
func (d *decoder) settle(h *held, r *resource) {
	s := &h.span
	if h.bad || s.TraceID == "" || s.ID == "" || max(len(s.TraceID), len(s.ID), len(s.Parent)) > maxID {
		d.counts.Invalid++
		return
	}
	s.Service, s.Host = r.service, r.host
	s.Attributes = d.join(d.pool[h.from:h.to], r.attributes)
	d.size += spanBytes(s)
	d.emit(*s)
}

// arenaSize is the attributes allocated at a time: as much as fits the allocator's largest class of small objects.
const arenaSize = 1024

// join copies own and then those of the resource whose key own has not. A span with
// no attributes of its own shares the list of its resource.
func (d *decoder) join(own, common []trace.Attribute) []trace.Attribute {
	if len(own) == 0 {
		return slices.Clip(common)
	}
	n := len(own) + len(common)
	if cap(d.arena)-len(d.arena) < n {
		d.arena = make([]trace.Attribute, 0, max(arenaSize, n))
	}
	from := len(d.arena)
	d.arena = append(d.arena, own...)
	for _, a := range common {
		if !slices.ContainsFunc(own, func(o trace.Attribute) bool { return o.Key == a.Key }) {
			d.arena = append(d.arena, a)
		}
	}
	return slices.Clip(d.arena[from:])
}

// What memory a span takes without its texts: itself and its identifiers, and an attribute's two strings. Keys of a
// usual length are taken as shared.
const (
	spanFixed      = 232
	attributeFixed = 32
	usualKey       = 40
)

// spanBytes estimates the memory of a span, at most: what it shares with others is counted as if it did not, since they may go.
func spanBytes(s *trace.Span) int64 {
	n := spanFixed + len(s.Name)
	for i := range s.Len() {
		n += attributeBytes(s.At(i))
	}
	return int64(n) + linkBytes(s)
}

func attributeBytes(a *trace.Attribute) int {
	return attributeFixed + len(a.Value) + max(len(a.Key)-usualKey, 0)
}

// takeAttributes removes and returns the attributes added since from.
func (d *decoder) takeAttributes(from int) []trace.Attribute {
	list := slices.Clone(d.pool[from:])
	d.pool = d.pool[:from]
	return list
}

// micros turns microseconds into nanoseconds; ok is false when they do not fit.
func micros(us int64) (ns int64, ok bool) {
	if us > math.MaxInt64/1000 || us < math.MinInt64/1000 {
		return 0, false
	}
	return us * 1000, true
}

// plus is a + b; ok is false when the sum does not fit.
func plus(a, b int64) (sum int64, ok bool) {
	sum = a + b
	return sum, (sum > a) == (b > 0)
}

// zeros reports whether an ID names nothing: empty, or all zeros as OTLP has it.
func zeros(id string) bool {
	for i := range len(id) {
		if id[i] != '0' {
			return false
		}
	}
	return true
}

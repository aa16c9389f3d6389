package ingest

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// DecodeOTLP decodes one TracesData or ExportTraceServiceRequest and gives each valid
// span to emit. The spans share no memory with message. On an error, spans before the fault may have
// been emitted already. Identifiers become lower-case hex.
func DecodeOTLP(message []byte, emit func(trace.Span)) error {
	d := borrow(emit)
	defer giveBack(d)
	if err := d.otlp(message); err != nil {
		return fmt.Errorf("ingest: OTLP protobuf: %w", err)
	}
	return nil
}

func (d *decoder) otlp(message []byte) error { return messages(message, 1, d.resourceSpans) }

// resourceSpans decodes one ResourceSpans.
func (d *decoder) resourceSpans(message []byte) error {
	r, err := d.resourceOf(message)
	if err != nil {
		return err
	}
	return fields(message, func(f *field) error {
		if f.number != 2 && f.number != 1000 { // 1000 was instrumentation_library_spans
			return nil
		}
		if f.kind != wireBytes {
			return errWire
		}
		return d.scopeSpans(f.data, r)
	})
}

// resourceOf decodes the resource of a ResourceSpans, ResourceLogs or ResourceMetrics. It is looked for first, since
// it may stand behind what it describes.
func (d *decoder) resourceOf(message []byte) (*resource, error) {
	m := d.mark()
	defer d.drop(m)
	err := messages(message, 1, func(data []byte) error { return d.attributesOf(data, 1) })
	if err != nil {
		return nil, err
	}
	d.number++
	r := &resource{attributes: d.takeAttributes(m.pool), number: d.number}
	r.describe()
	r.keys = keyBits(r.attributes)
	for i := range r.attributes {
		r.bytes += int64(attributeBytes(&r.attributes[i]))
	}
	return r, nil
}

func (d *decoder) scopeSpans(message []byte, r *resource) error {
	var f field
	for len(message) > 0 {
		rest, err := f.next(message)
		if err != nil {
			return err
		}
		message = rest
		if f.number != 2 {
			continue
		}
		if f.kind != wireBytes {
			return errWire
		}
		if err := d.span(f.data, r); err != nil {
			return err
		}
	}
	return nil
}

// attributesOf adds the KeyValues in the field of message with the given number to the pool.
func (d *decoder) attributesOf(message []byte, number int32) error {
	from := len(d.pool)
	return messages(message, number, func(data []byte) error {
		if len(d.pool)-from >= maxAttributes {
			d.counts.CutText++
			return nil
		}
		key, value, err := d.pair(data)
		if err != nil || len(key) == 0 {
			return err
		}
		d.attributeNamed(from, d.text(key), value)
		return nil
	})
}

// A wireSpan is a span on its way out of protobuf. Its attributes go to the end of the arena at once.
type wireSpan struct {
	trace.Span
	from int // of its attributes in the arena
	bad  bool

	strange bool // it came by attributes before its name: they are not compared with its shape
	links   links
	bytes   int // of its own attributes
}

// span decodes one span and emits it.
func (d *decoder) span(message []byte, r *resource) error {
	if !d.another() {
		return nil
	}
	s := wireSpan{from: len(d.arena)}
	var f field
	for len(message) > 0 {
		rest, err := f.next(message)
		if err != nil {
			d.arena = d.arena[:s.from]
			return err
		}
		message = rest
		if err := d.spanField(&f, &s); err != nil {
			d.arena = d.arena[:s.from]
			return err
		}
	}
	if s.bad || s.TraceID == "" || s.ID == "" || max(len(s.TraceID), len(s.ID), len(s.Parent)) > maxID {
		d.counts.Invalid++
		d.arena = d.arena[:s.from]
		return nil
	}
	if s.links.first != nil || s.links.follows != "" {
		s.links.give(&s.Span)
		d.size += linkBytes(&s.Span)
	}
	s.Service, s.Host = r.service, r.host
	d.complete(&s, r)
	d.size += spanFixed + int64(s.bytes+len(s.Name)) + r.bytes
	d.emit(s.Span)
	return nil
}

// complete gives s its attributes. From the second span of a name and a resource on, those that did not change since the first
// are kept once for all of them.
func (d *decoder) complete(s *wireSpan, r *resource) {
	x, own := d.shape, len(d.arena)-s.from
	switch {
	case s.strange || own > shapeSize:
		x.forget()
		s.Attributes = d.whole(s, r)
		return
	case x.own != own || x.of != r.number:
		x.begin(own, r.number)
		s.Attributes = d.whole(s, r)
		return
	case x.shared == nil || x.differ != x.changed&(1<<own-1):
		x.differ = x.changed & (1<<own - 1)
		x.shared = d.share(s, own, r)
	}
	s.Shared = x.shared
	to := s.from
	for differ := x.differ; differ != 0; differ &= differ - 1 {
		d.arena[to] = d.arena[s.from+bits.TrailingZeros64(differ)]
		to++
	}
	d.arena = d.arena[:to]
	if to > s.from {
		s.Attributes = d.arena[s.from:to:to]
	}
}

// share is what spans of the shape of s have in common with it, which has own attributes of its own.
func (d *decoder) share(s *wireSpan, own int, r *resource) *trace.Shared {
	all := d.whole(s, r)
	if d.shape.keys == nil {
		d.shape.keys = d.keysFor(all)
	}
	shared := trace.Share(all, d.shape.differ, d.shape.keys)
	if own > 0 { // else it is the list of the resource itself
		d.arena = d.arena[:s.from+own]
	}
	return shared
}

// whole is all attributes of s: behind its own those of the resource, where it has none of that key.
func (d *decoder) whole(s *wireSpan, r *resource) []trace.Attribute {
	if len(d.arena) == s.from {
		return slices.Clip(r.attributes)
	}
	d.reserve(s, len(r.attributes))
	own := d.arena[s.from:]
	keys := keyBits(own)
	if keys&r.keys == 0 {
		d.arena = append(d.arena, r.attributes...)
	} else {
		for i := range r.attributes {
			a := &r.attributes[i]
			if keys&keyBit(a.Key) == 0 || !has(own, a.Key) {
				d.arena = append(d.arena, *a)
			}
		}
	}
	return d.arena[s.from:len(d.arena):len(d.arena)]
}

func has(list []trace.Attribute, key string) bool {
	for i := range list {
		if list[i].Key == key {
			return true
		}
	}
	return false
}

// reserve makes room for n attributes more, behind those of s.
func (d *decoder) reserve(s *wireSpan, n int) {
	if cap(d.arena)-len(d.arena) >= n {
		return
	}
	own := d.arena[s.from:]
	d.arena = append(make([]trace.Attribute, 0, max(arenaSize, len(own)+n)), own...)
	s.from = 0
}

func (d *decoder) spanField(f *field, s *wireSpan) error {
	ok := true
	switch f.number {
	case 1:
		s.TraceID, ok = d.traceID(f)
	case 2:
		s.ID, ok = d.spanID(f)
	case 4:
		s.Parent, ok = d.spanID(f)
	case 5:
		if ok = f.kind == wireBytes; ok {
			s.strange = s.strange || len(d.arena) > s.from
			s.Name = d.name(f.data)
		}
	case 6:
		var n uint64
		if n, ok = f.varint(); n <= uint64(trace.Consumer) {
			s.Kind = trace.Kind(n)
		}
	case 7:
		s.Start, ok = s.nanos(f)
	case 8:
		s.End, ok = s.nanos(f)
	case 9:
		if ok = f.kind == wireBytes; ok {
			return d.attribute(f.data, s)
		}
	case 13:
		return d.link(f, &s.links)
	case 15:
		if ok = f.kind == wireBytes; ok {
			code, err := number(f.data, 3)
			s.Failed = code == 2
			return err
		}
	}
	if !ok {
		return errWire
	}
	return nil
}

// number finds a varint field of message; 0 when it has none.
func number(message []byte, want int32) (n uint64, err error) {
	err = fields(message, func(f *field) error {
		if f.number == want {
			if f.kind != wireVarint {
				return errWire
			}
			n = f.n
		}
		return nil
	})
	return n, err
}

// name keeps the name of a span, and finds the shape that spans of that name have.
func (d *decoder) name(b []byte) string {
	if len(b) == 0 || len(b) > maxShared {
		return d.text(b)
	}
	hash := maphash.Bytes(d.texts.seed, b)
	d.shape = &d.shapes[hash>>16%maxShapes]
	return d.texts.find(hash, b)
}

func (s *wireSpan) nanos(f *field) (int64, bool) {
	if f.n > math.MaxInt64 {
		s.bad = true
	}
	return int64(f.n), f.kind == wireFixed64
}

func (d *decoder) traceID(f *field) (string, bool) {
	if f.kind == wireBytes && len(f.data) == 16 {
		return d.ids.trace(f.data), true
	}
	return d.wireID(f)
}

func (d *decoder) spanID(f *field) (string, bool) {
	if f.kind == wireBytes && len(f.data) == 8 {
		return d.ids.span(f.data), true
	}
	return d.wireID(f)
}

// wireID returns an identifier in hex; "" when all its bytes are zero.
func (d *decoder) wireID(f *field) (string, bool) {
	b, ok := f.bytes()
	if !ok {
		return "", false
	}
	if len(b) > maxID/2 {
		b = b[:maxID/2+1] // too long; it will be counted
	}
	var text [maxID + 2]byte
	t := text[:hex.Encode(text[:], b)]
	for _, c := range b {
		if c != 0 {
			return d.id(t), true
		}
	}
	return "", true
}

// link adds one to list.
func (d *decoder) link(f *field, list *links) error {
	if f.kind != wireBytes {
		return errWire
	}
	from := len(d.pool)
	err := d.attributesOf(f.data, 4)
	follows := find(d.pool[from:], refType) == followsFrom
	d.pool = d.pool[:from]
	if err != nil {
		return err
	}
	traceID, spanID := "", ""
	err = fields(f.data, func(f *field) error {
		ok := true
		switch f.number {
		case 1:
			traceID, ok = d.traceID(f)
		case 2:
			spanID, ok = d.spanID(f)
		}
		if !ok {
			return errWire
		}
		return nil
	})
	list.add(traceID, spanID, follows, &d.counts)
	return err
}

// attribute decodes one KeyValue of s.
func (d *decoder) attribute(data []byte, s *wireSpan) error {
	at := len(d.arena) - s.from
	if at >= maxAttributes {
		d.counts.CutText++
		return nil
	}
	d.reserve(s, 1)
	var a *trace.Attribute
	if at < shapeSize && d.shape.raw[at] == string(data) && len(data) > 0 {
		a = &d.shape.attributes[at]
	} else {
		key, value, err := d.pair(data)
		switch {
		case err != nil || len(key) == 0:
			return err
		case at < shapeSize:
			a = d.shape.see(d, at, key, value, data)
		default:
			a = &trace.Attribute{Key: d.text(key), Value: d.text(value)}
		}
	}
	s.bytes += attributeBytes(a)
	d.arena = append(d.arena, *a)
	return nil
}

// pair returns the key and the text of the value of a KeyValue; no key means that there is nothing to keep. Both last
// until the next call.
func (d *decoder) pair(data []byte) (key, value []byte, err error) {
	if key, value, ok := plainPair(data); ok {
		return key, value, nil
	}
	if key, n, ok := wholePair(data); ok {
		d.scratch = strconv.AppendInt(d.scratch[:0], int64(n), 10)
		return key, d.scratch, nil
	}
	var kv field
	some := false
	value = d.scratch[:0]
	for len(data) > 0 {
		rest, err := kv.next(data)
		if err != nil {
			return nil, nil, err
		}
		data = rest
		if kv.number != 1 && kv.number != 2 {
			continue
		}
		if kv.kind != wireBytes {
			return nil, nil, errWire
		}
		if kv.number == 1 {
			key = kv.data
			continue
		}
		some = true
		if value, err = appendValue(value[:0], kv.data, 0); err != nil {
			return nil, nil, err
		}
	}
	d.scratch = value[:0]
	if !some {
		return nil, nil, nil
	}
	return key, value, nil
}

// plainPair is pair for what nearly all KeyValues are: a short key and then a short text, and nothing else.
func plainPair(b []byte) (key, value []byte, ok bool) {
	if len(b) < 6 || b[0] != 1<<3|wireBytes || b[1] >= 0x80 {
		return nil, nil, false
	}
	n := int(b[1])
	if len(b) < n+6 {
		return nil, nil, false
	}
	key, b = b[2:n+2], b[n+2:]
	if b[0] != 2<<3|wireBytes || b[2] != 1<<3|wireBytes || int(b[1]) != len(b)-2 || int(b[3]) != len(b)-4 || b[1] >= 0x80 {
		return nil, nil, false
	}
	return key, b[4:], true
}

// wholePair is the same for a short key and then a whole number.
func wholePair(b []byte) (key []byte, n uint64, ok bool) {
	if len(b) < 6 || b[0] != 1<<3|wireBytes || b[1] >= 0x80 {
		return nil, 0, false
	}
	at := int(b[1]) + 2
	if len(b) < at+4 || b[at] != 2<<3|wireBytes || int(b[at+1]) != len(b)-at-2 || b[at+2] != 3<<3|wireVarint {
		return nil, 0, false
	}
	n, size := binary.Uvarint(b[at+3:])
	return b[2:at], n, size > 0 && at+3+size == len(b)
}

// appendValue appends the text of an AnyValue; inside another value (depth > 0), strings are quoted.
func appendValue(t, value []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return t, fmt.Errorf("an attribute is nested deeper than %d", maxDepth)
	}
	var f field
	for len(value) > 0 {
		rest, err := f.next(value)
		if err != nil {
			return t, err
		}
		value = rest
		if f.number < 1 || f.number > 7 {
			continue
		}
		if f.kind != valueKinds[f.number] {
			return t, errWire
		}
		switch f.number {
		case 1:
			t = appendText(t, f.data[:min(len(f.data), maxText+8)], depth > 0)
		case 2:
			t = strconv.AppendBool(t, f.n != 0)
		case 3:
			t = strconv.AppendInt(t, int64(f.n), 10)
		case 4:
			t = strconv.AppendFloat(t, math.Float64frombits(f.n), 'g', -1, 64)
		case 5, 6:
			t, err = appendList(t, &f, depth+1)
		case 7:
			t = base64.StdEncoding.AppendEncode(t, f.data[:min(len(f.data), maxText)])
		}
		if err != nil {
			return t, err
		}
		t = bounded(t)
	}
	return t, nil
}

// valueKinds are the wire types of the fields of an AnyValue.
var valueKinds = [...]uint8{1: wireBytes, 2: wireVarint, 3: wireVarint, 4: wireFixed64, 5: wireBytes, 6: wireBytes, 7: wireBytes}

// appendList appends an ArrayValue (field 5) or a KeyValueList (field 6).
func appendList(t []byte, f *field, depth int) ([]byte, error) {
	pairs := f.number == 6
	opening, closing := byte('['), byte(']')
	if pairs {
		opening, closing = '{', '}'
	}
	t = append(t, opening)
	err := messages(f.data, 1, func(value []byte) (err error) {
		if len(t) > maxText {
			return nil
		}
		t = comma(t, opening)
		if pairs {
			key, v, err := keyAndValue(value)
			if err != nil {
				return err
			}
			t, value = append(appendText(t, key, true), ':'), v
		}
		t, err = appendValue(t, value, depth)
		return err
	})
	return append(t, closing), err
}

func keyAndValue(message []byte) (key, value []byte, err error) {
	err = fields(message, func(f *field) error {
		if f.number != 1 && f.number != 2 {
			return nil
		}
		if f.kind != wireBytes {
			return errWire
		}
		if f.number == 1 {
			key = f.data
		} else {
			value = f.data
		}
		return nil
	})
	return key, value, err
}

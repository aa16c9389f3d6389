package ingest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/longpole/longpole/internal/trace"
)

// errWire is a field that has another type than OTLP gives it.
var errWire = errors.New("a field has the wrong type")

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

func (d *decoder) otlp(message []byte) error {
	return fields(message, func(f *easyproto.FieldContext) error {
		if f.FieldNum != 1 {
			return nil
		}
		data, ok := f.MessageData()
		if !ok {
			return errWire
		}
		return d.resourceSpans(data)
	})
}

// fields gives the fields of a message to each, which must not keep f.
func fields(message []byte, each func(f *easyproto.FieldContext) error) error {
	var f easyproto.FieldContext
	for len(message) > 0 {
		rest, err := f.NextField(message)
		if err != nil {
			return err
		}
		if f.FieldNum == 0 {
			return errors.New("field number 0 is not allowed")
		}
		if err := each(&f); err != nil {
			return err
		}
		message = rest
	}
	return nil
}

// resourceSpans decodes one ResourceSpans. The resource is looked for first, since it
// may stand behind its spans.
func (d *decoder) resourceSpans(message []byte) error {
	m := d.mark()
	defer d.drop(m)
	var r resource
	err := fields(message, func(f *easyproto.FieldContext) error {
		if f.FieldNum != 1 {
			return nil
		}
		data, ok := f.MessageData()
		if !ok {
			return errWire
		}
		return d.attributesOf(data, 1)
	})
	if err != nil {
		return err
	}
	r.attributes = d.takeAttributes(m.pool)
	r.describe()
	err = fields(message, func(f *easyproto.FieldContext) error {
		if f.FieldNum != 2 && f.FieldNum != 1000 { // 1000 was instrumentation_library_spans
			return nil
		}
		data, ok := f.MessageData()
		if !ok {
			return errWire
		}
		return d.scopeSpans(data, &r)
	})
	return err
}

func (d *decoder) scopeSpans(message []byte, r *resource) error {
	var f easyproto.FieldContext
	for len(message) > 0 {
		rest, err := f.NextField(message)
		if err != nil {
			return err
		}
		message = rest
		if f.FieldNum != 2 {
			continue
		}
		data, ok := f.MessageData()
		if !ok {
			return errWire
		}
		h := held{from: len(d.pool)}
		if err := d.span(data, &h); err != nil {
			return err
		}
		h.to = len(d.pool)
		d.settle(&h, r)
		d.pool = d.pool[:h.from]
	}
	return nil
}

// attributesOf decodes the KeyValues in the field of message with the given number.
func (d *decoder) attributesOf(message []byte, number uint32) error {
	from := len(d.pool)
	return fields(message, func(f *easyproto.FieldContext) error {
		if f.FieldNum != number {
			return nil
		}
		return d.attribute(f, from)
	})
}

func (d *decoder) span(message []byte, h *held) error {
	var f easyproto.FieldContext
	link := ""
	for len(message) > 0 {
		rest, err := f.NextField(message)
		if err != nil {
			return err
		}
		message = rest
		if err := d.spanField(&f, h, &link); err != nil {
			return err
		}
	}
	h.span.FollowsFrom = link != "" && link == h.span.Parent
	return nil
}

func (d *decoder) spanField(f *easyproto.FieldContext, h *held, link *string) error {
	ok := true
	switch s := &h.span; f.FieldNum {
	case 1:
		s.TraceID, ok = d.wireID(f)
	case 2:
		s.ID, ok = d.wireID(f)
	case 4:
		s.Parent, ok = d.wireID(f)
	case 5:
		var b []byte
		b, ok = f.Bytes()
		s.Name = d.text(b)
	case 6:
		var n int32
		n, ok = f.Enum()
		if n > 0 && n <= int32(trace.Consumer) {
			s.Kind = trace.Kind(n)
		}
	case 7:
		s.Start, ok = wireNanos(f, h)
	case 8:
		s.End, ok = wireNanos(f, h)
	case 9:
		return d.attribute(f, h.from)
	case 13:
		id, err := d.link(f)
		if id != "" {
			*link = id
		}
		return err
	case 15:
		var status []byte
		if status, ok = f.MessageData(); ok {
			code, _, err := easyproto.GetEnum(status, 3)
			s.Failed = code == 2
			return err
		}
	}
	if !ok {
		return errWire
	}
	return nil
}

func wireNanos(f *easyproto.FieldContext, h *held) (int64, bool) {
	n, ok := f.Fixed64()
	if n > math.MaxInt64 {
		h.bad = true
	}
	return int64(n), ok
}

// wireID returns an identifier in hex; "" when all its bytes are zero.
func (d *decoder) wireID(f *easyproto.FieldContext) (string, bool) {
	b, ok := f.Bytes()
	if len(b) > maxID/2 {
		b = b[:maxID/2+1] // too long; settle counts it
	}
	var text [maxID + 2]byte
	t := text[:hex.Encode(text[:], b)]
	for _, c := range b {
		if c != 0 {
			return d.id(t), ok
		}
	}
	return "", ok
}

// link returns the span ID of a link that says follows_from.
func (d *decoder) link(f *easyproto.FieldContext) (string, error) {
	data, ok := f.MessageData()
	if !ok {
		return "", errWire
	}
	from := len(d.pool)
	if err := d.attributesOf(data, 4); err != nil {
		return "", err
	}
	follows := find(d.pool[from:], refType) == followsFrom
	d.pool = d.pool[:from]
	if !follows {
		return "", nil
	}
	id, _, err := easyproto.GetBytes(data, 2)
	return hex.EncodeToString(id[:min(len(id), maxID)]), err
}

// attribute decodes one KeyValue.
func (d *decoder) attribute(f *easyproto.FieldContext, from int) error {
	data, ok := f.MessageData()
	if !ok {
		return errWire
	}
	if len(d.pool)-from >= maxAttributes {
		d.counts.CutText++
		return nil
	}
	var key []byte
	d.scratch = d.scratch[:0]
	some := false
	var kv easyproto.FieldContext
	for len(data) > 0 {
		rest, err := kv.NextField(data)
		if err != nil {
			return err
		}
		data = rest
		switch kv.FieldNum {
		case 1:
			if key, ok = kv.Bytes(); !ok {
				return errWire
			}
		case 2:
			value, ok := kv.MessageData()
			if !ok {
				return errWire
			}
			some = true
			if d.scratch, err = appendValue(d.scratch[:0], value, 0); err != nil {
				return err
			}
		}
	}
	if some && len(key) > 0 {
		d.attributeNamed(from, d.text(key), d.scratch)
	}
	return nil
}

// appendValue appends the text of an AnyValue; inside another value (depth > 0), strings are quoted.
func appendValue(t, value []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return t, fmt.Errorf("an attribute is nested deeper than %d", maxDepth)
	}
	var f easyproto.FieldContext
	for len(value) > 0 {
		rest, err := f.NextField(value)
		if err != nil {
			return t, err
		}
		value = rest
		ok := true
		switch f.FieldNum {
		case 1:
			var b []byte
			b, ok = f.Bytes()
			t = appendText(t, b[:min(len(b), maxText+8)], depth > 0)
		case 2:
			var b bool
			b, ok = f.Bool()
			t = strconv.AppendBool(t, b)
		case 3:
			var n int64
			n, ok = f.Int64()
			t = strconv.AppendInt(t, n, 10)
		case 4:
			var x float64
			x, ok = f.Double()
			t = strconv.AppendFloat(t, x, 'g', -1, 64)
		case 5, 6:
			t, err = appendList(t, &f, depth+1)
		case 7:
			var b []byte
			b, ok = f.Bytes()
			t = base64.StdEncoding.AppendEncode(t, b[:min(len(b), maxText)])
		}
		if err != nil {
			return t, err
		}
		if !ok {
			return t, errWire
		}
		t = bounded(t)
	}
	return t, nil
}

// appendList appends an ArrayValue (field 5) or a KeyValueList (field 6).
func appendList(t []byte, f *easyproto.FieldContext, depth int) ([]byte, error) {
	list, ok := f.MessageData()
	if !ok {
		return t, errWire
	}
	pairs := f.FieldNum == 6
	opening, closing := byte('['), byte(']')
	if pairs {
		opening, closing = '{', '}'
	}
	t = append(t, opening)
	err := fields(list, func(e *easyproto.FieldContext) error {
		if e.FieldNum != 1 || len(t) > maxText {
			return nil
		}
		value, ok := e.MessageData()
		if !ok {
			return errWire
		}
		t = comma(t, opening)
		if pairs {
			key, v, err := keyAndValue(value)
			if err != nil {
				return err
			}
			t, value = append(appendText(t, key, true), ':'), v
		}
		var err error
		t, err = appendValue(t, value, depth)
		return err
	})
	return append(t, closing), err
}

func keyAndValue(message []byte) (key, value []byte, err error) {
	err = fields(message, func(f *easyproto.FieldContext) error {
		ok := true
		switch f.FieldNum {
		case 1:
			key, ok = f.Bytes()
		case 2:
			value, ok = f.MessageData()
		}
		if !ok {
			return errWire
		}
		return nil
	})
	return key, value, err
}

package ingest

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// jaegerBatch decodes a PostSpansRequest of Jaeger's api_v2, as its agents and clients send it.
func (d *decoder) jaegerBatch(message []byte) error {
	return messages(message, 1, func(batch []byte) error {
		common := &resource{service: noService}
		err := messages(batch, 2, func(data []byte) (err error) {
			common, err = d.jaegerProcessOf(data)
			return err
		})
		if err != nil {
			return err
		}
		return messages(batch, 1, func(span []byte) error { return d.jaegerSpanOf(span, common) })
	})
}

func (d *decoder) jaegerProcessOf(message []byte) (*resource, error) {
	var r resource
	from := len(d.pool)
	err := fields(message, func(f *field) error {
		switch f.number {
		case 1:
			r.service = d.text(f.data)
			return expect(f, wireBytes)
		case 2:
			return d.jaegerTag(f, from, nil)
		}
		return nil
	})
	r.attributes = d.takeAttributes(from)
	r.describe()
	return &r, err
}

// jaegerSpanOf decodes a span and emits it. Its own process counts before that of its batch.
func (d *decoder) jaegerSpanOf(message []byte, common *resource) error {
	if !d.another() {
		return nil
	}
	m := d.mark()
	defer d.drop(m)
	h := held{from: len(d.pool)}
	var refs []reference
	var length int64
	err := fields(message, func(f *field) (err error) {
		switch f.number {
		case 4:
			refs, err = d.jaegerReferenceOf(f, refs)
		case 7:
			length, err = d.jaegerMoment(f, &h)
		case 10:
			if err = expect(f, wireBytes); err == nil && len(f.data) > 0 {
				common, err = d.jaegerProcessOf(f.data)
			}
		default:
			err = d.jaegerField(f, &h)
		}
		return err
	})
	if err != nil {
		return err
	}
	h.to = len(d.pool)
	s := &h.span
	s.Parent, s.FollowsFrom = parentOf(s.TraceID, refs, "")
	linkAll(s, refs, &d.counts)
	end, ok := plus(s.Start, length)
	s.End = end
	h.bad = h.bad || !ok && length != 0
	d.settle(&h, common)
	return nil
}

func (d *decoder) jaegerField(f *field, h *held) (err error) {
	ok := true
	switch s := &h.span; f.number {
	case 1:
		s.TraceID, ok = d.traceID(f)
	case 2:
		s.ID, ok = d.spanID(f)
	case 3:
		if ok = f.kind == wireBytes; ok {
			s.Name = d.text(f.data)
		}
	case 6:
		s.Start, err = d.jaegerMoment(f, h)
	case 8:
		err = d.jaegerTag(f, h.from, s)
	}
	if !ok {
		return errWire
	}
	return err
}

// jaegerMoment decodes a Timestamp or a Duration.
func (d *decoder) jaegerMoment(f *field, h *held) (ns int64, err error) {
	if err := expect(f, wireBytes); err != nil {
		return 0, err
	}
	seconds, err := number(f.data, 1)
	if err != nil {
		return 0, err
	}
	nanos, err := number(f.data, 2)
	n := int64(int32(nanos))
	if s := int64(seconds); s < 0 || s >= math.MaxInt64/int64(time.Second) || n < 0 || n >= 1e9 {
		h.bad = true
		return 0, err
	}
	return int64(seconds)*1e9 + n, err
}

func (d *decoder) jaegerReferenceOf(f *field, refs []reference) ([]reference, error) {
	if f.kind != wireBytes {
		return refs, errWire
	}
	var r reference
	err := fields(f.data, func(f *field) error {
		ok := true
		switch f.number {
		case 1:
			r.trace, ok = d.traceID(f)
		case 2:
			r.span, ok = d.spanID(f)
		case 3:
			r.follows, ok = f.n == 1, f.kind == wireVarint
		}
		if !ok {
			return errWire
		}
		return nil
	})
	if len(refs) < maxReferences {
		refs = append(refs, r)
	}
	return refs, err
}

// jaegerTag adds a tag to the pool; span is nil for those of a process.
func (d *decoder) jaegerTag(f *field, from int, span *trace.Span) error {
	if f.kind != wireBytes {
		return errWire
	}
	name, value, kind := "", d.scratch[:0], uint64(0)
	err := fields(f.data, func(f *field) error {
		switch f.number {
		case 1:
			name = d.text(f.data)
			return expect(f, wireBytes)
		case 2:
			kind = f.n
			return expect(f, wireVarint)
		case 3:
			value = append(value[:0], f.data[:min(len(f.data), maxText+8)]...)
			return expect(f, wireBytes)
		case 4:
			value = strconv.AppendBool(value[:0], f.n != 0)
			return expect(f, wireVarint)
		case 5:
			value = strconv.AppendInt(value[:0], int64(f.n), 10)
			return expect(f, wireVarint)
		case 6:
			value = strconv.AppendFloat(value[:0], math.Float64frombits(f.n), 'g', -1, 64)
			return expect(f, wireFixed64)
		case 7:
			value = base64.StdEncoding.AppendEncode(value[:0], f.data[:min(len(f.data), maxText)])
			return expect(f, wireBytes)
		}
		return nil
	})
	d.scratch = value[:0]
	if err != nil || name == "" {
		return err
	}
	if len(value) == 0 && kind < uint64(len(jaegerZeros)) {
		value = append(value, jaegerZeros[kind]...) // proto3 does not send them
	}
	if span != nil {
		jaegerMeaning(span, name, value)
	}
	d.attributeNamed(from, name, value)
	return nil
}

// jaegerZeros are the values that a tag of each type has when none was sent.
var jaegerZeros = [...]string{"", "false", "0", "0", ""}

package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// DecodeOTLPJSON decodes one TracesData or ExportTraceServiceRequest in the JSON of OTLP
// and gives each valid span to emit. On an error, spans before the fault may have been
// emitted already. Names may be in camelCase or snake_case, numbers may be strings,
// enums may be numbers or names; identifiers are kept as spelled.
func DecodeOTLPJSON(document []byte, emit func(trace.Span)) error {
	d := borrow(emit)
	defer giveBack(d)
	if err := d.otlpJSON(document); err != nil {
		return fmt.Errorf("ingest: OTLP JSON: %w", err)
	}
	return nil
}

func (d *decoder) otlpJSON(data []byte) error {
	return d.document(data, func(j *document, key []byte) {
		switch string(key) {
		case "resourceSpans", "resource_spans":
			j.otlpResources()
		case "resourceLogs", "resource_logs":
			j.logResources()
		default:
			j.scan.skip()
		}
	})
}

// document decodes one JSON object, whose members each takes, and checks that nothing follows it.
func (d *decoder) document(data []byte, each func(j *document, key []byte)) error {
	j := document{decoder: d, scan: newScanner(bytes.NewReader(data))}
	defer d.drop(mark{})
	s := j.scan
	if s.token() != '{' {
		if errors.Is(s.err, io.EOF) {
			s.err = errCut
		}
		s.fault("an object with resourceSpans, resourceLogs or resourceMetrics")
	} else {
		s.object(func(key []byte) { each(&j, key) })
		if s.err == nil && s.token() != 0 {
			s.fault("the end of the document")
		}
	}
	d.counts.CutText += s.cutTexts
	if s.err != nil && !errors.Is(s.err, io.EOF) {
		return fmt.Errorf("byte %d: %w", s.offset(), s.err)
	}
	return nil
}

// resourceJSON takes an element of resourceSpans, resourceLogs or resourceMetrics. Members other than the resource go
// to member, which says whether it took them. The resource may stand behind what it describes.
func (j *document) resourceJSON(member func(key []byte) bool) *resource {
	var r resource
	j.scan.object(func(key []byte) {
		if string(key) == "resource" {
			j.scan.object(func(key []byte) {
				if string(key) == "attributes" {
					from := len(j.pool)
					j.otlpAttributes(from)
					r.attributes = j.takeAttributes(from)
					return
				}
				j.scan.skip()
			})
			return
		}
		if !member(key) {
			j.scan.skip()
		}
	})
	r.describe()
	return &r
}

// scopes takes a list of scopes, and each element of their list of that name, in either spelling.
func (j *document) scopes(camel, snake string, each func()) {
	j.scan.array(func() {
		j.scan.object(func(key []byte) {
			if string(key) == camel || string(key) == snake {
				j.scan.array(each)
				return
			}
			j.scan.skip()
		})
	})
}

// array steps into an array; null counts as an empty one.
func (s *scanner) array(each func()) {
	if s.token() == 'n' {
		s.scalar()
		return
	}
	if !s.open('[') {
		return
	}
	for s.next(']') {
		each()
	}
}

// object steps into an object; null counts as an empty one. key lasts until the next token.
func (s *scanner) object(each func(key []byte)) {
	if s.token() == 'n' {
		s.scalar()
		return
	}
	if !s.open('{') {
		return
	}
	for s.next('}') {
		each(s.key())
	}
}

func (j *document) otlpResources() { j.scan.array(j.otlpResource) }

// otlpResource takes one element of resourceSpans.
func (j *document) otlpResource() {
	m := j.mark()
	r := j.resourceJSON(func(key []byte) bool {
		switch string(key) {
		case "scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans":
			j.scopes("spans", "spans", j.otlpSpan)
			return true
		}
		return false
	})
	if j.scan.err == nil {
		j.flush(m, r)
	}
	j.drop(m)
}

func (j *document) otlpSpan() {
	if !j.another() {
		j.scan.skip()
		return
	}
	h := held{from: len(j.pool)}
	var list links
	j.scan.object(func(key []byte) { j.otlpSpanMember(&h, &list, key) })
	h.to = len(j.pool)
	list.give(&h.span)
	if zeros(h.span.TraceID) || zeros(h.span.ID) {
		h.bad = true
	}
	j.held = append(j.held, h)
}

func (j *document) otlpSpanMember(h *held, list *links, key []byte) {
	s, span := j.scan, &h.span
	switch string(key) {
	case "traceId", "trace_id":
		span.TraceID = j.idText()
	case "spanId", "span_id":
		span.ID = j.idText()
	case "parentSpanId", "parent_span_id":
		if span.Parent = j.idText(); zeros(span.Parent) {
			span.Parent = ""
		}
	case "name":
		_, t := s.scalar()
		span.Name = j.text(t)
	case "kind":
		kind, t := s.scalar()
		span.Kind = otlpKind(kind, t)
	case "startTimeUnixNano", "start_time_unix_nano":
		span.Start = j.nanos(h)
	case "endTimeUnixNano", "end_time_unix_nano":
		span.End = j.nanos(h)
	case "attributes":
		j.otlpAttributes(h.from)
	case "links":
		s.array(func() { j.otlpLink(list) })
	case "status":
		s.object(func(key []byte) {
			if string(key) != "code" {
				s.skip()
				return
			}
			_, t := s.scalar()
			span.Failed = string(t) == "2" || string(t) == "STATUS_CODE_ERROR"
		})
	default:
		s.skip()
	}
}

// idText takes an identifier, which should be a string.
func (j *document) idText() string {
	_, t := j.scan.scalar()
	return j.id(t)
}

func (j *document) nanos(h *held) int64 {
	n, ok := j.scan.integer()
	if !ok || n < 0 {
		h.bad = true
	}
	return n
}

func otlpKind(kind byte, t []byte) trace.Kind {
	if kind == isNumber || len(t) == 1 {
		n, err := strconv.ParseUint(string(t), 10, 8)
		if err != nil || n > uint64(trace.Consumer) {
			return trace.Unspecified
		}
		return trace.Kind(n)
	}
	return trace.ParseKind(string(bytes.ToLower(bytes.TrimPrefix(t, []byte("SPAN_KIND_")))))
}

// otlpLink adds one to list.
func (j *document) otlpLink(list *links) {
	traceID, spanID := "", ""
	from := len(j.pool)
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "traceId", "trace_id":
			traceID = j.idText()
		case "spanId", "span_id":
			spanID = j.idText()
		case "attributes":
			j.otlpAttributes(from)
		default:
			j.scan.skip()
		}
	})
	list.add(traceID, spanID, find(j.pool[from:], refType) == followsFrom, &j.counts)
	j.pool = j.pool[:from]
}

// The attribute that tells a link from OpenTracing's kinds of reference, as the translators write it.
const (
	refType     = "opentracing.ref_type"
	followsFrom = "follows_from"
)

// otlpAttributes takes a list of key and value; the first of them stands at from in pool.
func (j *document) otlpAttributes(from int) {
	j.scan.array(func() {
		name, some := "", false
		j.scratch = j.scratch[:0]
		j.scan.object(func(key []byte) {
			switch string(key) {
			case "key":
				_, t := j.scan.scalar()
				name = j.text(t)
			case "value":
				some = true
				j.scratch = j.anyValue(j.scratch[:0], false)
			default:
				j.scan.skip()
			}
		})
		if some && name != "" && j.scan.err == nil {
			j.attributeNamed(from, name, j.scratch)
		}
	})
}

// anyValue takes an AnyValue and appends its text; inside another value, strings are quoted.
func (j *document) anyValue(t []byte, nested bool) []byte {
	s := j.scan
	s.object(func(key []byte) {
		switch string(key) {
		case "arrayValue", "array_value":
			t = append(t, '[')
			j.values(func() { t = comma(t, '['); t = j.anyValue(t, true) })
			t = append(t, ']')
		case "kvlistValue", "kvlist_value":
			t = append(t, '{')
			j.values(func() { t = comma(t, '{'); t = j.keyValue(t) })
			t = append(t, '}')
		case "stringValue", "string_value", "bytesValue", "bytes_value":
			_, v := s.scalar()
			t = appendText(t, v, nested)
		default:
			_, v := s.scalar()
			t = bounded(append(t, v...))
		}
	})
	return t
}

// values takes the object {"values": [...]}.
func (j *document) values(each func()) {
	j.scan.object(func(key []byte) {
		if string(key) == "values" {
			j.scan.array(each)
			return
		}
		j.scan.skip()
	})
}

func (j *document) keyValue(t []byte) []byte {
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "key":
			_, v := j.scan.scalar()
			t = append(appendText(t, v, true), ':')
		case "value":
			t = j.anyValue(t, true)
		default:
			j.scan.skip()
		}
	})
	return t
}

// comma separates an element from the one before it.
func comma(t []byte, opening byte) []byte {
	if len(t) > 0 && t[len(t)-1] != opening {
		return append(t, ',')
	}
	return t
}

// appendText appends a string, quoted inside another value.
func appendText(t, v []byte, nested bool) []byte {
	if nested {
		return bounded(strconv.AppendQuote(t, string(v)))
	}
	return bounded(append(t, v...))
}

// bounded keeps a growing value a little longer than what text will keep, so that text sees the cut.
func bounded(t []byte) []byte { return t[:min(len(t), maxText+8)] }

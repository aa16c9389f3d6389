package ingest

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// EncodeOTLP returns spans as one OTLP protobuf message (TracesData, which is also an
// ExportTraceServiceRequest).
//
// Spans of one service and host share a resource, which carries only service.name and the
// attribute that identifies the host; all other attributes stand at the span. Values
// are strings. Trace IDs have 16 bytes on the wire and span IDs 8: shorter hex is padded with
// zeros in front, anything else is replaced by a hash of it, the same wherever it occurs.
func EncodeOTLP(spans []trace.Span) []byte {
	type process struct{ service, hostKey, host string }
	groups := make(map[process][]int)
	var order []process
	for i := range spans {
		s := &spans[i]
		p := process{s.Service, hostKey(s), s.Host}
		if _, ok := groups[p]; !ok {
			order = append(order, p)
		}
		groups[p] = append(groups[p], i)
	}
	var w writer
	for _, p := range order {
		w.message(1, func() {
			w.message(1, func() {
				w.attribute(1, "service.name", p.service)
				if p.host != "" {
					w.attribute(1, p.hostKey, p.host)
				}
			})
			w.message(2, func() {
				for _, i := range groups[p] {
					w.message(2, func() { w.span(&spans[i], p.hostKey) })
				}
			})
		})
	}
	return w.out
}

// logsField is where the log records stand in a message of [EncodeTraces]. TracesData has no such field, so that whoever reads
// spans passes over it.
const logsField = 15

// EncodeTraces is [EncodeOTLP] for the spans of traces, and a LogsData with their log records in field 15. [DecodeTraces]
// reads it, and whatever reads a TracesData reads the spans.
func EncodeTraces(list []trace.Trace) []byte {
	var spans []trace.Span
	logs := 0
	for i := range list {
		spans = append(spans, list[i].Spans...)
		logs += len(list[i].Logs)
	}
	w := writer{out: EncodeOTLP(spans)}
	if logs > 0 {
		w.message(logsField, func() {
			for i := range list {
				w.logs(list[i].Logs)
			}
		})
	}
	return w.out
}

// logs appends log records, those in a row of one service with one resource.
func (w *writer) logs(list []trace.Log) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Service == list[0].Service {
			n++
		}
		w.message(1, func() {
			w.message(1, func() { w.attribute(1, "service.name", list[0].Service) })
			w.message(2, func() {
				for i := range list[:n] {
					w.message(2, func() { w.log(&list[i]) })
				}
			})
		})
		list = list[n:]
	}
}

func (w *writer) log(l *trace.Log) {
	var id [16]byte
	w.fixed(1, uint64(l.Time))
	w.number(2, uint64(l.Severity))
	w.message(5, func() { w.text(1, l.Body) })
	if l.Exception != "" {
		w.attribute(6, exceptionType, l.Exception)
	}
	w.bytes(9, rawID(id[:16], l.TraceID))
	if l.SpanID != "" {
		w.bytes(10, rawID(id[:8], l.SpanID))
	}
}

// A writer appends protobuf fields. A marshaler that builds a tree before it writes keeps 11 KB a span for it; putting
// the lengths in afterwards needs nothing.
type writer struct{ out []byte }

// message appends a message that body writes. Its length is put in front once it is known.
func (w *writer) message(field int, body func()) {
	w.out = append(w.out, byte(field<<3|wireBytes), 0)
	start := len(w.out)
	body()
	n := len(w.out) - start
	if n < 0x80 {
		w.out[start-1] = byte(n)
		return
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	w.out = slices.Insert(w.out, start, length[1:size]...)
	w.out[start-1] = length[0]
}

func (w *writer) bytes(field int, b []byte) {
	w.out = append(w.out, byte(field<<3|wireBytes))
	w.out = binary.AppendUvarint(w.out, uint64(len(b)))
	w.out = append(w.out, b...)
}

// text appends s with what is no UTF-8 replaced, as protobuf demands.
func (w *writer) text(field int, s string) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	w.out = append(w.out, byte(field<<3|wireBytes))
	w.out = binary.AppendUvarint(w.out, uint64(len(s)))
	w.out = append(w.out, s...)
}

func (w *writer) number(field int, n uint64) {
	w.out = append(w.out, byte(field<<3|wireVarint))
	w.out = binary.AppendUvarint(w.out, n)
}

func (w *writer) fixed(field int, n uint64) {
	w.out = append(w.out, byte(field<<3|wireFixed64))
	w.out = binary.LittleEndian.AppendUint64(w.out, n)
}

func (w *writer) attribute(field int, key, value string) {
	w.message(field, func() {
		w.text(1, key)
		w.message(2, func() { w.text(1, value) })
	})
}

// hostKey is the attribute that the host of s came from.
func hostKey(s *trace.Span) string {
	for _, k := range hostKeys {
		if s.Host != "" && s.Attr(k) == s.Host {
			return k
		}
	}
	return "host.name"
}

func (w *writer) span(s *trace.Span, hostKey string) {
	var id [16]byte
	w.bytes(1, rawID(id[:16], s.TraceID))
	w.bytes(2, rawID(id[:8], s.ID))
	if s.Parent != "" {
		w.bytes(4, rawID(id[:8], s.Parent))
	}
	w.text(5, s.Name)
	w.number(6, uint64(s.Kind))
	w.fixed(7, uint64(s.Start))
	w.fixed(8, uint64(s.End))
	for a := range s.All() {
		if a.Key == "service.name" && a.Value == s.Service || a.Key == hostKey && a.Value == s.Host {
			continue // the resource has it
		}
		w.attribute(9, a.Key, a.Value)
	}
	if s.FollowsFrom && s.Parent != "" {
		w.message(13, func() {
			w.bytes(1, rawID(id[:16], s.TraceID))
			w.bytes(2, rawID(id[:8], s.Parent))
			w.attribute(4, refType, followsFrom)
		})
	}
	for l := s.Link; l != nil; l = l.Next {
		w.message(13, func() {
			w.bytes(1, rawID(id[:16], l.TraceID))
			w.bytes(2, rawID(id[:8], l.SpanID))
		})
	}
	if s.Failed {
		w.message(15, func() { w.number(3, 2) })
	}
}

// rawID fills b with the bytes that id stands for and returns it.
func rawID(b []byte, id string) []byte {
	if pad := 2*len(b) - len(id); pad >= 0 {
		var text [32]byte
		copy(text[:], "00000000000000000000000000000000"[:pad])
		copy(text[pad:], id)
		if _, err := hex.Decode(b, text[:2*len(b)]); err == nil {
			return b
		}
	}
	h := fnv.New128a()
	h.Write([]byte(id))
	copy(b, h.Sum(nil))
	return b
}

// WireTraceID is the identifier that a trace has after [EncodeOTLP] and [DecodeOTLP]: 32 hexadecimal digits.
func WireTraceID(id string) string {
	var b [16]byte
	return hex.EncodeToString(rawID(b[:], id))
}

package ingest

import (
	"bytes"
	"cmp"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// A jaegerTrace is an object with spans and processes. The processes stand behind the
// spans in what Jaeger answers, so the spans are held until its end.
type jaegerTrace struct {
	spans     bool
	processes map[string]*resource
}

// maxProcesses bounds the processes of one trace.
const maxProcesses = 1 << 16

// jaegerProcesses takes the object of processes by name.
func (j *document) jaegerProcesses(t *jaegerTrace) {
	if t.processes == nil {
		t.processes = make(map[string]*resource)
	}
	if j.scan.token() != '{' {
		j.scan.skip()
		return
	}
	j.scan.object(func(key []byte) {
		name := j.id(key)
		r := j.jaegerProcess()
		if len(t.processes) < maxProcesses {
			t.processes[name] = r
		}
	})
}

func (j *document) jaegerProcess() *resource {
	var r resource
	from := len(j.pool)
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "serviceName":
			_, t := j.scan.scalar()
			r.service = j.text(t)
		case "tags":
			j.jaegerTags(from, nil)
		default:
			j.scan.skip()
		}
	})
	r.attributes = j.takeAttributes(from)
	r.describe()
	return &r
}

func (j *document) jaegerSpans() {
	if j.scan.token() != '[' {
		j.scan.skip()
		return
	}
	j.scan.array(j.jaegerSpan)
}

// jaegerSpan takes one span. A reference is judged once the span's own trace ID is
// known, which may stand behind it; so those of each kind are kept until then.
func (j *document) jaegerSpan() {
	if j.scan.token() != '{' {
		j.scan.skip()
		j.counts.Invalid++
		return
	}
	h := held{from: len(j.pool)}
	var refs []reference
	var length int64
	legacy := ""
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "references":
			refs = j.jaegerReferences(refs)
		case "parentSpanID", "parentSpanId":
			legacy = j.idText()
		case "duration":
			length = j.jaegerTime(&h)
		default:
			j.jaegerSpanMember(&h, key)
		}
	})
	h.to = len(j.pool)
	s := &h.span
	s.Parent, s.FollowsFrom = parentOf(s.TraceID, refs, legacy)
	linkAll(s, refs, &j.counts)
	end, ok := plus(s.Start, length)
	s.End = end
	if !ok && length != 0 {
		h.bad = true
	}
	j.held = append(j.held, h)
}

func (j *document) jaegerSpanMember(h *held, key []byte) {
	s, span := j.scan, &h.span
	switch string(key) {
	case "traceID", "traceId":
		span.TraceID = j.idText()
	case "spanID", "spanId":
		span.ID = j.idText()
	case "operationName":
		_, t := s.scalar()
		span.Name = j.text(t)
	case "startTime":
		span.Start = j.jaegerTime(h)
	case "tags":
		j.jaegerTags(h.from, span)
	case "processID", "processId":
		h.process = j.idText()
	case "process":
		if s.token() == '{' {
			h.own = j.jaegerProcess()
			return
		}
		s.skip()
	default:
		s.skip()
	}
}

// jaegerTime takes a time or duration: microseconds, or as Jaeger's storage spells
// them, RFC 3339 and a Go duration.
func (j *document) jaegerTime(h *held) int64 {
	kind, t := j.scan.scalar()
	if ns, ok := readMicros(kind, t); ok {
		return ns
	}
	if at, err := time.Parse(time.RFC3339Nano, string(t)); err == nil {
		return at.UnixNano()
	}
	if length, err := time.ParseDuration(string(t)); err == nil {
		return int64(length)
	}
	h.bad = true
	return 0
}

// A reference names another span.
type reference struct {
	trace, span string
	follows     bool
}

const maxReferences = 64

func (j *document) jaegerReferences(refs []reference) []reference {
	j.scan.array(func() {
		var r reference
		j.scan.object(func(key []byte) {
			switch string(key) {
			case "refType":
				_, t := j.scan.scalar()
				r.follows = string(t) == "FOLLOWS_FROM"
			case "traceID", "traceId":
				r.trace = j.idText()
			case "spanID", "spanId":
				r.span = j.idText()
			default:
				j.scan.skip()
			}
		})
		if len(refs) < maxReferences {
			refs = append(refs, r)
		}
	})
	return refs
}

// parentOf chooses the parent: the first CHILD_OF of the same trace, then the old
// parentSpanID, then the first FOLLOWS_FROM of the same trace.
func parentOf(traceID string, refs []reference, legacy string) (parent string, follows bool) {
	for _, r := range refs {
		if r.trace != traceID && r.trace != "" {
			continue
		}
		if !r.follows {
			return r.span, false
		}
		if parent == "" {
			parent, follows = r.span, true
		}
	}
	if !zeros(legacy) {
		return legacy, false
	}
	return parent, follows
}

// linkAll makes links of the references that are not the parent.
func linkAll(s *trace.Span, refs []reference, c *counts) {
	var list links
	for _, r := range refs {
		list.add(cmp.Or(r.trace, s.TraceID), r.span, false, c)
	}
	if list.first != nil {
		list.give(s)
	}
}

// jaegerTags takes tags; span is nil for those of a process.
func (j *document) jaegerTags(from int, span *trace.Span) {
	j.scan.array(func() {
		name := ""
		j.scratch = j.scratch[:0]
		j.scan.object(func(key []byte) {
			switch string(key) {
			case "key":
				_, t := j.scan.scalar()
				name = j.text(t)
			case "value", "vStr", "vBool", "vInt64", "vFloat64", "vBinary":
				_, t := j.scan.scalar()
				j.scratch = append(j.scratch[:0], t...)
			default:
				j.scan.skip()
			}
		})
		if j.scan.err != nil || name == "" {
			return
		}
		if span != nil {
			jaegerMeaning(span, name, j.scratch)
		}
		j.attributeNamed(from, name, j.scratch)
	})
}

// jaegerMeaning reads the tags that say what OTLP has fields for.
func jaegerMeaning(span *trace.Span, name string, value []byte) {
	switch name {
	case "span.kind":
		span.Kind = trace.ParseKind(string(bytes.ToLower(value)))
	case "error":
		span.Failed = string(value) == "true"
	case "otel.status_code":
		if string(value) == "ERROR" {
			span.Failed = true
		}
	}
}

// jaegerSettle emits the spans held since m, each with its process.
func (j *document) jaegerSettle(m mark, t *jaegerTrace) {
	none := &resource{service: noService}
	for i := m.held; i < len(j.held); i++ {
		h := &j.held[i]
		r := h.own
		if r == nil {
			r = t.processes[h.process]
		}
		if r == nil {
			r = none
		}
		j.settle(h, r)
	}
}

package ingest

import "github.com/longpole/longpole/internal/trace"

// A document decodes JSON telemetry of every kind: which it is shows by the names of the members.
type document struct {
	*decoder
	scan   *scanner
	zipkin []zipkinSpan // of the whole input, until its end: the halves of a shared span may be far apart
	found  bool         // there was telemetry, if only a container without spans
}

// value decodes one value of any kind. What is no telemetry is skipped.
func (j *document) value() {
	s := j.scan
	switch s.token() {
	case '[':
		s.open('[')
		for s.next(']') {
			j.value()
		}
	case '{':
		j.object()
	default:
		s.scalar()
	}
}

// object decodes an OTLP or Jaeger document, a Jaeger trace or a Zipkin span.
func (j *document) object() {
	var z zipkinSpan
	var t jaegerTrace
	s := j.scan
	m := j.mark()
	s.open('{')
	for s.next('}') {
		switch key := s.key(); string(key) {
		case "resourceSpans", "resource_spans", "batches":
			j.found = true
			j.otlpResources()
		case "resourceLogs", "resource_logs":
			j.logResources()
		case "data", "trace", "result":
			j.value()
		case "spans":
			t.spans = true
			j.jaegerSpans()
		case "processes":
			j.jaegerProcesses(&t)
		default:
			j.zipkinMember(&z, m, key)
		}
	}
	switch {
	case s.err != nil:
	case t.spans:
		j.found = true
		j.jaegerSettle(m, &t)
	case z.span.TraceID != "" || z.span.ID != "" && z.span.Start != 0:
		j.found = true
		z.span.Attributes = j.takeAttributes(m.pool)
		j.zipkin = append(j.zipkin, z)
	}
	j.drop(m)
}

// flushZipkin emits the Zipkin spans once all of them are known.
func (j *document) flushZipkin() {
	for _, z := range untangle(j.zipkin) {
		if z.bad || z.untimed {
			j.counts.Invalid++
			continue
		}
		j.settleWhole(z.span)
	}
	j.zipkin = nil
}

// settleWhole emits a span that has its service, host and attributes already.
func (j *document) settleWhole(s trace.Span) {
	own := s.Attributes
	h := held{span: s}
	j.settle(&h, &resource{service: s.Service, host: s.Host, attributes: own})
}

package ingest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// maxLogBody is the bytes kept of a log record's text.
const maxLogBody = 1 << 10

// A heldLog is a log record on its way out of a document; its resource may stand behind it.
type heldLog struct {
	trace.Log
	observed int64
	level    string // severity as text
	bad      bool
}

// logSink takes the log records that are decoded.
type logSink struct {
	least   trace.Severity
	emit    func(trace.Log)
	minor   int // below least, or of unknown severity
	invalid int // with an identifier or a time that is none
}

// wants reports whether a record is to be kept: one that is important enough, or reports an exception. The others are counted.
func (k *logSink) wants(h *heldLog) bool {
	l := &h.Log
	if h.bad || max(len(l.TraceID), len(l.SpanID)) > maxID {
		k.invalid++
		return false
	}
	if l.Severity == 0 {
		l.Severity = severityNamed(h.level)
	}
	if l.Severity < k.least && l.Exception == "" {
		k.minor++
		return false
	}
	return true
}

// keep emits a record that is wanted, of a service.
func (k *logSink) keep(h *heldLog, r *resource) {
	if h.Time == 0 {
		h.Time = h.observed
	}
	h.Service = r.service
	k.emit(h.Log)
}

// severityNamed reads the level that a logging library wrote; 0 when it is none that is known.
func severityNamed(level string) trace.Severity {
	switch strings.ToLower(level) {
	case "trace":
		return trace.SeverityTrace
	case "debug":
		return trace.SeverityDebug
	case "info", "information", "notice":
		return trace.SeverityInfo
	case "warn", "warning":
		return trace.SeverityWarn
	case "error", "err", "severe":
		return trace.SeverityError
	case "fatal", "critical", "crit", "alert", "emerg", "emergency", "panic":
		return trace.SeverityFatal
	}
	return 0
}

// cutBody shortens the text of a log record to maxLogBody, in whole runes.
func (d *decoder) cutBody(b []byte) string {
	if len(b) > maxLogBody {
		d.counts.CutText++
		b = bytes.ToValidUTF8(b[:maxLogBody], nil)
	}
	return d.texts.keep(b)
}

// otlpLogs decodes a LogsData or ExportLogsServiceRequest.
func (d *decoder) otlpLogs(message []byte, k *logSink) error {
	return messages(message, 1, func(data []byte) error { return d.resourceLogs(data, k) })
}

// resourceLogs decodes one ResourceLogs.
func (d *decoder) resourceLogs(message []byte, k *logSink) error {
	r, err := d.resourceOf(message)
	if err != nil {
		return err
	}
	return messages(message, 2, func(scope []byte) error {
		return messages(scope, 2, func(record []byte) error { return d.logRecord(record, r, k) })
	})
}

// telemetry decodes one ResourceSpans, or one ResourceLogs when log records are wanted.
func (d *decoder) telemetry(message []byte) error {
	if d.logs != nil && holdsLogs(message) {
		return d.resourceLogs(message, d.logs)
	}
	return d.resourceSpans(message)
}

// holdsLogs tells a ResourceLogs from a ResourceSpans. Both are field 1 of what a file holds, with a resource and scopes in the
// same places; only the fields of the records in them tell. What is neither, or empty, counts as spans.
func holdsLogs(message []byte) bool {
	var scope, record, f field
	for len(message) > 0 {
		rest, err := scope.next(message)
		if err != nil {
			return false
		}
		message = rest
		if scope.number != 2 || scope.kind != wireBytes {
			continue
		}
		for in := scope.data; len(in) > 0; {
			if in, err = record.next(in); err != nil {
				return false
			}
			if record.number != 2 || record.kind != wireBytes {
				continue
			}
			for of := record.data; len(of) > 0; {
				if of, err = f.next(of); err != nil {
					return false
				}
				if logs, sure := f.ofLog(); sure {
					return logs
				}
			}
		}
	}
	return false
}

// ofLog reports whether a field is that of a log record; sure = of a span it would have another type, or the other way round.
func (f *field) ofLog() (logs, sure bool) {
	switch f.number {
	case 1: // the time of a log record, the trace ID of a span
		return f.kind == wireFixed64, true
	case 2: // severity, span ID
		return f.kind == wireVarint, true
	case 6: // attribute, kind
		return f.kind == wireBytes, true
	case 7: // attributes dropped, start
		return f.kind == wireVarint, true
	case 8: // flags, end
		return f.kind == wireFixed32, true
	case 10: // span ID, attributes dropped
		return f.kind == wireBytes, true
	case 11: // the time when it was seen, an event
		return f.kind == wireFixed64, true
	}
	return false, false
}

// DecodeTraces decodes what [EncodeTraces] made: the spans to emit, and the log records to log. On an error, what came before
// the fault may have been handed out already.
func DecodeTraces(message []byte, emit func(trace.Span), log func(trace.Log)) error {
	d := borrow(emit)
	defer giveBack(d)
	k := logSink{emit: log}
	err := d.otlp(message)
	if err == nil {
		err = messages(message, logsField, func(data []byte) error { return d.otlpLogs(data, &k) })
	}
	if err != nil {
		return fmt.Errorf("ingest: OTLP protobuf: %w", err)
	}
	return nil
}

func (d *decoder) logRecord(message []byte, r *resource, k *logSink) error {
	if !d.another() {
		return nil
	}
	var h heldLog
	err := fields(message, func(f *field) error { return d.logField(f, &h) })
	if err != nil {
		return err
	}
	if k.wants(&h) {
		k.keep(&h, r)
	}
	return nil
}

func (d *decoder) logField(f *field, h *heldLog) (err error) {
	ok := true
	switch f.number {
	case 1, 11:
		at := &h.Time
		if f.number == 11 {
			at = &h.observed
		}
		*at, ok = int64(f.n), f.kind == wireFixed64
		h.bad = h.bad || *at < 0
	case 2:
		var n uint64
		if n, ok = f.varint(); n <= 24 {
			h.Severity = trace.Severity(n)
		}
	case 3, 5, 6:
		if ok = f.kind == wireBytes; ok {
			err = d.logContent(f, h)
		}
	case 9:
		h.TraceID, ok = d.traceID(f)
	case 10:
		h.SpanID, ok = d.spanID(f)
	}
	if !ok {
		return errWire
	}
	return err
}

// logContent takes the text of the severity, the body or an attribute.
func (d *decoder) logContent(f *field, h *heldLog) error {
	switch f.number {
	case 3:
		h.level = d.text(f.data)
	case 5:
		text, err := appendValue(d.scratch[:0], f.data, 0)
		d.scratch = text[:0]
		if err != nil {
			return err
		}
		h.Body = d.cutBody(text)
	case 6:
		key, value, err := d.pair(f.data)
		if err != nil {
			return err
		}
		if string(key) == exceptionType {
			h.Exception = d.text(value)
		}
	}
	return nil
}

// exceptionType is the attribute that names what was thrown.
const exceptionType = "exception.type"

// otlpLogsJSON decodes the same from JSON.
func (d *decoder) otlpLogsJSON(data []byte, k *logSink) error {
	return d.document(data, func(j *document, key []byte) {
		switch string(key) {
		case "resourceLogs", "resource_logs":
			j.scan.array(func() { j.logResource(k) })
		default:
			j.scan.skip()
		}
	})
}

// logResources takes the log records that stand among spans, where they are wanted.
func (j *document) logResources() {
	if j.logs == nil {
		j.scan.skip()
		return
	}
	j.scan.array(func() { j.logResource(j.logs) })
}

func (j *document) logResource(k *logSink) {
	var logs []heldLog
	r := j.resourceJSON(func(key []byte) bool {
		if string(key) != "scopeLogs" && string(key) != "scope_logs" {
			return false
		}
		j.scopes("logRecords", "log_records", func() {
			if !j.another() {
				j.scan.skip()
				return
			}
			var h heldLog
			j.scan.object(func(key []byte) { j.logMember(&h, key) })
			if j.scan.err == nil && k.wants(&h) {
				logs = append(logs, h)
			}
		})
		return true
	})
	if j.scan.err != nil {
		return // whose they are is not known
	}
	for i := range logs {
		k.keep(&logs[i], r)
	}
}

func (j *document) logMember(h *heldLog, key []byte) {
	s := j.scan
	switch string(key) {
	case "timeUnixNano", "time_unix_nano":
		h.Time = j.logTime(h)
	case "observedTimeUnixNano", "observed_time_unix_nano":
		h.observed = j.logTime(h)
	case "severityNumber", "severity_number":
		h.Severity = j.severity()
	case "severityText", "severity_text":
		_, t := s.scalar()
		h.level = j.text(t)
	case "body":
		j.scratch = j.anyValue(j.scratch[:0], false)
		h.Body = j.cutBody(j.scratch)
	case "attributes":
		from := len(j.pool)
		j.otlpAttributes(from)
		h.Exception = find(j.pool[from:], exceptionType)
		j.pool = j.pool[:from]
	case "traceId", "trace_id":
		if h.TraceID = j.idText(); zeros(h.TraceID) {
			h.TraceID = ""
		}
	case "spanId", "span_id":
		if h.SpanID = j.idText(); zeros(h.SpanID) {
			h.SpanID = ""
		}
	default:
		s.skip()
	}
}

func (j *document) logTime(h *heldLog) int64 {
	n, ok := j.scan.integer()
	h.bad = h.bad || !ok || n < 0
	return n
}

// severity takes a SeverityNumber: a number, or a name such as SEVERITY_NUMBER_WARN2.
func (j *document) severity() trace.Severity {
	kind, t := j.scan.scalar()
	if kind == isText && len(t) > 2 {
		name := strings.TrimPrefix(string(t), "SEVERITY_NUMBER_")
		base := strings.TrimRight(name, "234")
		s := severityNamed(base)
		if s > 0 && len(name) == len(base)+1 {
			s += trace.Severity(name[len(base)] - '1')
		}
		return s
	}
	n := 0
	for _, c := range t {
		if c < '0' || c > '9' || n > 24 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	if n > 24 {
		return 0
	}
	return trace.Severity(n)
}

package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// checkSpans fails when a decoder let through what it promises not to.
func checkSpans(t *testing.T, s trace.Span) {
	t.Helper()
	if s.TraceID == "" || s.ID == "" || s.Service == "" || len(s.TraceID) > maxID || len(s.ID) > maxID || len(s.Parent) > maxID {
		t.Fatalf("invalid span %+v", s)
	}
	if len(s.Name) > maxText || len(s.Service) > maxText || s.Len() > 2*maxAttributes {
		t.Fatalf("a span of %d attributes", s.Len())
	}
	for a := range s.All() {
		if len(a.Key) > maxText || len(a.Value) > maxText {
			t.Fatalf("an attribute of %d bytes", len(a.Value))
		}
	}
	checkKeys(t, &s)
	n := 0
	for l := s.Link; l != nil; l = l.Next {
		n++
		if n > maxLinks || zeros(l.TraceID) || zeros(l.SpanID) || max(len(l.TraceID), len(l.SpanID)) > maxID || l.SpanID == s.Parent && l.TraceID == s.TraceID {
			t.Fatalf("link %d is %+v", n, *l)
		}
	}
}

// checkLog fails when a decoder let through a log record that it promises not to.
func checkLog(t *testing.T, l trace.Log) {
	t.Helper()
	if len(l.Body) > maxLogBody || len(l.Exception) > maxText || max(len(l.TraceID), len(l.SpanID)) > maxID || l.Time < 0 || l.Service == "" || l.Severity < trace.SeverityWarn && l.Exception == "" {
		t.Fatalf("%+v", l)
	}
}

func FuzzReadPaths(f *testing.F) {
	message, _ := proto.Marshal(sample())
	logs, _ := proto.Marshal(logRequest())
	for _, seed := range [][]byte{
		[]byte(otlpJSON), []byte(jaegerTraceJSON), []byte(zipkinJSON), message, prefixed(false, message), prefixed(true, message),
		gzipped(f, []byte(zipkinJSON)), zstded(f, message), prefixed(true, logs, spansOfLogs()), append(bytes.Clone(logs), message...), append(logJSON(f, false), otlpJSON...), prefixed(false, zstded(f, message)), []byte("[1e5,\"\\ud83d\\ude00\\ud83dx\",null,true]"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Limits{Spans: 1000, MessageBytes: 1 << 16}.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
		if err != nil {
			return
		}
		spans, joined := 0, 0
		for _, tr := range in.Traces {
			for _, l := range tr.Logs {
				checkLog(t, l)
			}
			if joined += len(tr.Logs); len(tr.Logs) > maxLogs {
				t.Fatalf("%d log records of a trace", len(tr.Logs))
			}
			for _, s := range tr.Spans {
				checkSpans(t, s)
				spans++
			}
		}
		if spans == 0 || spans != in.Stats.Spans {
			t.Fatalf("%d spans, %+v", spans, in.Stats)
		}
		if c := in.Stats.Logs; c.Joined != joined || c.Records != c.Joined+c.Minor+c.Alone+c.Dropped+c.Invalid {
			t.Fatalf("%d log records, %+v", joined, c)
		}
	})
}

// officialSpans counts the valid spans that the official module finds; -1 when it refuses the message.
func officialSpans(data []byte) int {
	var m tracepb.TracesData
	if proto.Unmarshal(data, &m) != nil {
		return -1
	}
	valid := func(id []byte) bool { return len(id) <= maxID/2 && len(bytes.Trim(id, "\x00")) > 0 }
	n := 0
	for _, r := range m.ResourceSpans {
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				if valid(s.TraceId) && valid(s.SpanId) && len(s.ParentSpanId) <= maxID/2 && max(s.StartTimeUnixNano, s.EndTimeUnixNano) <= math.MaxInt64 {
					n++
				}
			}
		}
	}
	return n
}

// No span that the official module finds is lost, unless the message is refused; what
// was decoded can be encoded and decoded again.
func FuzzOTLPProtobuf(f *testing.F) {
	message, _ := proto.Marshal(sample())
	f.Add(message)
	f.Add(benchmarkMessage(2))
	f.Add(EncodeOTLP(linkedSpans()))
	f.Fuzz(func(t *testing.T, data []byte) {
		var spans []trace.Span
		if DecodeOTLP(data, func(s trace.Span) { checkSpans(t, s); spans = append(spans, s) }) != nil {
			return
		}
		if want := officialSpans(data); want > len(spans) {
			t.Fatalf("%d spans of %x, the official module finds %d", len(spans), data, want)
		}
		if len(decodeOTLP(t, EncodeOTLP(spans))) != len(spans) {
			t.Fatal("spans are lost when they are encoded")
		}
	})
}

func FuzzOTLPJSON(f *testing.F) {
	f.Add([]byte(otlpJSON))
	f.Add([]byte(officialJSON(f, true, true)))
	f.Add([]byte(linkedJSON))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = DecodeOTLPJSON(data, func(s trace.Span) { checkSpans(t, s) })
	})
}

// What encoding/json takes, the scanner takes; texts come out the same.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00\n",true,null,{}]}`, `"\ud83d\u0041"`, `"\udc00\ud83d\ud83d\ude00"`, `[[],[[]],{"":""}]`, " 12 "} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newScanner(oneByte{bytes.NewReader(data)})
		s.skip()
		took := s.err == nil && s.token() == 0 && errors.Is(s.err, io.EOF)
		if json.Valid(data) && !took && !bytes.Contains(data, bytes.Repeat([]byte("["), 50)) && len(data) < 200 {
			t.Fatalf("encoding/json takes %q, the scanner says %v", data, s.err)
		}
		var text string
		if json.Unmarshal(data, &text) != nil || len(data) > maxText || !isASCII(data) || bytes.Contains(data, []byte("null")) {
			return
		}
		s = newScanner(bytes.NewReader(data))
		if kind, got := s.scalar(); kind != isText || string(got) != text {
			t.Fatalf("%q is %q, want %q", data, got, text)
		}
	})
}

func isASCII(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r >= 0x80 })
}

// oneByte gives one byte a read, so that every token meets the end of the buffer.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

// fuzzReceiver gives data to a receiver in both encodings and returns what it took.
func fuzzReceiver(t *testing.T, p protocol, data []byte) *all {
	t.Helper()
	var a all
	r := NewReceiver(a.sinks())
	for _, isJSON := range []bool{false, true} {
		if isJSON && p == jaegerTraces {
			continue
		}
		_, _ = r.accept(p, data, isJSON)
	}
	for _, s := range a.spans {
		checkSpans(t, s)
	}
	if got := r.Received()[p].Accepted; got != uint64(len(a.spans)+len(a.logs)+len(a.points)) {
		t.Fatalf("%d were counted, %d arrived", got, len(a.spans)+len(a.logs)+len(a.points))
	}
	return &a
}

func FuzzLogs(f *testing.F) {
	message, _ := proto.Marshal(logRequest())
	f.Add(message)
	f.Add(logJSON(f, false))
	f.Add(logJSON(f, true))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, l := range fuzzReceiver(t, otlpLogs, data).logs {
			checkLog(t, l)
		}
	})
}

func FuzzPoints(f *testing.F) {
	message, _ := proto.Marshal(metricRequest())
	f.Add(message)
	for _, snake := range []bool{false, true} {
		b, _ := protojson.MarshalOptions{UseProtoNames: snake}.Marshal(metricRequest())
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range fuzzReceiver(t, otlpMetrics, data).points {
			h := p.Histogram
			if p.Name == "" || p.Time < 0 || (h != nil) != (p.Kind >= Histogram) || p.Kind > ExponentialHistogram || len(p.Attributes) > 2*maxAttributes {
				t.Fatalf("%+v", p)
			}
			if h != nil && (max(len(h.Counts), len(h.Positive), len(h.Negative)) > maxBuckets+1 || len(h.Counts) > 0 && len(h.Counts) != len(h.Bounds)+1) {
				t.Fatalf("%+v", h)
			}
		}
	})
}

func FuzzJaegerBatch(f *testing.F) {
	f.Add(jaegerRequest())
	f.Fuzz(func(t *testing.T, data []byte) { fuzzReceiver(t, jaegerTraces, data) })
}

func FuzzZipkin(f *testing.F) {
	f.Add(zipkinRequest())
	f.Add([]byte(zipkinJSON))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzReceiver(t, zipkinTraces, data) })
}

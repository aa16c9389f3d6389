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
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// checkSpans fails when a decoder let through what it promises not to.
func checkSpans(t *testing.T, s trace.Span) {
	t.Helper()
	if s.TraceID == "" || s.ID == "" || s.Service == "" || len(s.TraceID) > maxID || len(s.ID) > maxID || len(s.Parent) > maxID {
		t.Fatalf("invalid span %+v", s)
	}
	if len(s.Name) > maxText || len(s.Service) > maxText || len(s.Attributes) > 2*maxAttributes {
		t.Fatalf("a span of %d attributes", len(s.Attributes))
	}
	for _, a := range s.Attributes {
		if len(a.Key) > maxText || len(a.Value) > maxText {
			t.Fatalf("an attribute of %d bytes", len(a.Value))
		}
	}
}

func FuzzReadPaths(f *testing.F) {
	message, _ := proto.Marshal(sample())
	for _, seed := range [][]byte{
		[]byte(otlpJSON), []byte(jaegerTraceJSON), []byte(zipkinJSON), message, prefixed(false, message), prefixed(true, message),
		gzipped(f, []byte(zipkinJSON)), zstded(f, message), prefixed(false, zstded(f, message)), []byte("[1e5,\"\\ud83d\\ude00\\ud83dx\",null,true]"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Limits{Spans: 1000, MessageBytes: 1 << 16}.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
		if err != nil {
			return
		}
		spans := 0
		for _, tr := range in.Traces {
			for _, s := range tr.Spans {
				checkSpans(t, s)
				spans++
			}
		}
		if spans == 0 || spans != in.Stats.Spans {
			t.Fatalf("%d spans, %+v", spans, in.Stats)
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

package ingest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/longpole/longpole/internal/trace"
)

// linked names the links of s as trace/span, in their order.
func linked(s trace.Span) (out []string) {
	for l := s.Link; l != nil; l = l.Next {
		out = append(out, l.TraceID+"/"+l.SpanID)
	}
	return out
}

func linkedSpans() []trace.Span {
	first, second := strings.Repeat("1", 32), strings.Repeat("2", 32)
	return []trace.Span{
		{TraceID: first, ID: strings.Repeat("a", 16), Kind: trace.Producer, Service: "shop", Name: "send", Start: 1, End: 2},
		{
			TraceID: second, ID: strings.Repeat("b", 16), Kind: trace.Consumer, Service: "mail", Name: "process", Start: 3, End: 4,
			Link: &trace.Link{TraceID: first, SpanID: strings.Repeat("a", 16), Next: &trace.Link{TraceID: first, SpanID: strings.Repeat("c", 16)}},
		},
	}
}

const linkedJSON = `{"resourceSpans":[{"scopeSpans":[{"spans":[
	{"traceId":"22","spanId":"b","parentSpanId":"p","startTimeUnixNano":"3","endTimeUnixNano":"4","links":[
		{"traceId":"11","spanId":"a","attributes":[{"key":"x","value":{"stringValue":"y"}}]},
		{"traceId":"22","spanId":"p","attributes":[{"key":"opentracing.ref_type","value":{"stringValue":"follows_from"}}]},
		{"traceId":"","spanId":"c"},{"traceId":"0000","spanId":"c"},{"traceId":"11"},
		{"trace_id":"22","span_id":"d"}]}]}]}]}`

func TestLinksAreDecodedFromEachFormat(t *testing.T) {
	t.Run("protobuf, encoded and decoded", func(t *testing.T) {
		want := linkedSpans()
		got := decodeOTLP(t, EncodeOTLP(want))
		if len(got) != 2 || got[0].Link != nil && got[1].Link != nil {
			t.Fatalf("got %+v", got)
		}
		for _, s := range got {
			if d := cmp.Diff(linked(want[map[string]int{"shop": 0, "mail": 1}[s.Service]]), linked(s)); d != "" {
				t.Error(d)
			}
		}
	})
	t.Run("JSON: what names no span is none, nor is the parent", func(t *testing.T) {
		var got []trace.Span
		if err := DecodeOTLPJSON([]byte(linkedJSON), func(s trace.Span) { got = append(got, s) }); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"11/a", "22/d"}, linked(got[0])); d != "" || !got[0].FollowsFrom {
			t.Errorf("follows %v; %s", got[0].FollowsFrom, d)
		}
	})
	t.Run("Jaeger: references that are not the parent", func(t *testing.T) {
		in, err := readBytes([]byte(`{"spans":[{"traceID":"t","spanID":"s","startTime":1,"duration":1,"references":[
			{"refType":"FOLLOWS_FROM","traceID":"u","spanID":"x"},{"refType":"CHILD_OF","traceID":"t","spanID":"p"},
			{"refType":"FOLLOWS_FROM","traceID":"t","spanID":"y"},{"refType":"CHILD_OF","traceID":"v","spanID":"z"}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		s := in.Traces[0].Spans[0]
		if d := cmp.Diff([]string{"u/x", "t/y", "v/z"}, linked(s)); d != "" || s.Parent != "p" || s.FollowsFrom {
			t.Errorf("parent %s; %s", s.Parent, d)
		}
	})
}

func TestLinksOfABatchAreBoundedAndCounted(t *testing.T) {
	s := linkedSpans()[1]
	s.Link = nil
	for i := range 100 {
		s.Link = &trace.Link{TraceID: strings.Repeat("1", 32), SpanID: fmt.Sprintf("%016x", i+1), Next: s.Link}
	}
	message := EncodeOTLP([]trace.Span{s})
	var got trace.Span
	d := newDecoder(func(s trace.Span) { got = s })
	if err := d.otlp(message); err != nil {
		t.Fatal(err)
	}
	if n := len(linked(got)); n != maxLinks || d.counts.CutText != 100-maxLinks {
		t.Errorf("%d links kept, %d counted as dropped", n, d.counts.CutText)
	}
	if bytes := spanBytes(&got); d.size != bytes {
		t.Errorf("the decoder accounts for %d bytes, the assembler for %d", d.size, bytes)
	}
}

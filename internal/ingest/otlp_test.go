package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

func decodeOTLP(t testing.TB, message []byte) []trace.Span {
	t.Helper()
	var spans []trace.Span
	err := DecodeOTLP(message, func(s trace.Span) {
		checkKeys(t, &s)
		s.Unshare()
		spans = append(spans, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

func decodeOTLPJSON(t testing.TB, document string) []trace.Span {
	t.Helper()
	var spans []trace.Span
	if err := DecodeOTLPJSON([]byte(document), func(s trace.Span) { spans = append(spans, s) }); err != nil {
		t.Fatal(err)
	}
	return spans
}

func text(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func pair(key string, v *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: v}
}

// sample is a message with everything that is decoded in it.
func sample() *tracepb.TracesData {
	id := bytes.Repeat([]byte{0xAB}, 16)
	list := &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{
		text("a\"b"), {Value: &commonpb.AnyValue_IntValue{IntValue: 7}}, {Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{}}},
	}}}}
	object := &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{
		pair("x", text("1")), pair("y", list),
	}}}}
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			pair("k8s.pod.name", text("pod-1")), pair("service.name", text("orders")), pair("host.name", text("node-1")),
		}},
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "lib"},
			Spans: []*tracepb.Span{
				{
					TraceId: id, SpanId: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Name: "GET /orders", Kind: tracepb.Span_SPAN_KIND_SERVER,
					StartTimeUnixNano: 1_700_000_000_000_000_001, EndTimeUnixNano: 1_700_000_000_000_000_500,
					Attributes: []*commonpb.KeyValue{
						pair("text", text("é\n\"x\"")), pair("list", list), pair("object", object),
						pair("int", &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: -5}}),
						pair("double", &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 1.5}}),
						pair("bool", &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}),
						pair("bytes", &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{1, 2}}}),
						pair("host.name", text("the span's own")),
					},
					Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "no"},
					Events: []*tracepb.Span_Event{{Name: "e", TimeUnixNano: 5, Attributes: []*commonpb.KeyValue{pair("z", list)}}},
				},
				{
					TraceId: id, SpanId: []byte{9, 9, 9, 9, 9, 9, 9, 9}, ParentSpanId: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Name: "later",
					StartTimeUnixNano: 10, EndTimeUnixNano: 5,
					Links: []*tracepb.Span_Link{{TraceId: id, SpanId: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Attributes: []*commonpb.KeyValue{pair(refType, text(followsFrom))}}},
				},
			},
		}},
		SchemaUrl: "https://opentelemetry.io/schemas/1.4.0",
	}}}
}

func wantSample() []trace.Span {
	id := strings.Repeat("ab", 16)
	common := []trace.Attribute{{Key: "k8s.pod.name", Value: "pod-1"}, {Key: "service.name", Value: "orders"}, {Key: "host.name", Value: "node-1"}}
	return []trace.Span{{
		TraceID: id, ID: "0102030405060708", Kind: trace.Server, Service: "orders", Name: "GET /orders", Host: "node-1", Failed: true,
		Start: 1_700_000_000_000_000_001, End: 1_700_000_000_000_000_500,
		Attributes: []trace.Attribute{
			{Key: "text", Value: "é\n\"x\""},
			{Key: "list", Value: `["a\"b",7,[]]`},
			{Key: "object", Value: `{"x":"1","y":["a\"b",7,[]]}`},
			{Key: "int", Value: "-5"},
			{Key: "double", Value: "1.5"},
			{Key: "bool", Value: "true"},
			{Key: "bytes", Value: "AQI="},
			{Key: "host.name", Value: "the span's own"},
			common[0], common[1],
		},
	}, {
		TraceID: id, ID: "0909090909090909", Parent: "0102030405060708", Service: "orders", Name: "later", Host: "node-1",
		Start: 10, End: 5, FollowsFrom: true, Attributes: common,
	}}
}

func TestProtobufOfTheOfficialModuleIsDecoded(t *testing.T) {
	message, err := proto.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantSample(), decodeOTLP(t, message)); d != "" {
		t.Error(d)
	}
}

// The JSON of OTLP has hex IDs, protojson writes base64: the IDs are set after it.
func officialJSON(t testing.TB, snake, numbers bool) string {
	t.Helper()
	m := sample()
	for _, s := range m.ResourceSpans[0].ScopeSpans[0].Spans {
		s.TraceId, s.SpanId, s.ParentSpanId = nil, nil, nil
		if s.Links != nil {
			s.Links[0].TraceId, s.Links[0].SpanId = nil, []byte{1}
		}
	}
	b, err := protojson.MarshalOptions{UseProtoNames: snake, UseEnumNumbers: numbers}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"traceId", "spanId", "parentSpanId"}
	if snake {
		names = []string{"trace_id", "span_id", "parent_span_id"}
	}
	id := strings.Repeat("ab", 16)
	one := fmt.Sprintf(`{"%s":"%s","%s":"0102030405060708","name":"GET`, names[0], id, names[1])
	two := fmt.Sprintf(`{"%s":"%s","%s":"0909090909090909","%s":"0102030405060708","name":"later`, names[0], id, names[1], names[2])
	out := strings.ReplaceAll(string(b), `": "`, `":"`)
	out = strings.ReplaceAll(out, `, "`, `,"`)
	out = strings.Replace(out, `{"name":"GET`, one, 1)
	out = strings.Replace(out, `{"name":"later`, two, 1)
	return strings.Replace(out, `"AQ=="`, `"0102030405060708"`, 1)
}

func TestJSONOfTheOfficialModuleIsDecoded(t *testing.T) {
	for _, snake := range []bool{false, true} {
		for _, numbers := range []bool{false, true} {
			document := officialJSON(t, snake, numbers)
			if d := cmp.Diff(wantSample(), decodeOTLPJSON(t, document)); d != "" {
				t.Errorf("snake %v, numbers %v: %s\n%s", snake, numbers, d, document)
			}
		}
	}
}

func TestResourceBehindItsSpansIsStillTheirs(t *testing.T) {
	spans := decodeOTLPJSON(t, `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"a","spanId":"b","startTimeUnixNano":1,"endTimeUnixNano":"2","kind":"2","attributes":null}]}],
		"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"late"}},{"key":"ip","value":{"stringValue":"10.0.0.1"}}]}}]}`)
	if len(spans) != 1 || spans[0].Service != "late" || spans[0].Host != "10.0.0.1" || spans[0].Kind != trace.Server {
		t.Errorf("got %+v", spans)
	}
}

func TestSpansWithoutIDsOrTimesAreInvalid(t *testing.T) {
	const good = `{"traceId":"a","spanId":"b","startTimeUnixNano":1,"endTimeUnixNano":2}`
	for _, span := range []string{
		`{"spanId":"b"}`, `{"traceId":"a"}`, `{"traceId":"0000","spanId":"b"}`, `{"traceId":"a","spanId":"` + strings.Repeat("b", 300) + `"}`,
		`{"traceId":"a","spanId":"b","startTimeUnixNano":"yesterday"}`, `{"traceId":"a","spanId":"b","endTimeUnixNano":-1}`, `{"traceId":"a","spanId":"b","endTimeUnixNano":1e300}`,
	} {
		n := 0
		d := newDecoder(func(trace.Span) { n++ })
		if err := d.otlpJSON([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[` + span + `,` + good + `]}]}]}`)); err != nil {
			t.Error(err)
		}
		if n != 1 || d.counts.Invalid != 1 {
			t.Errorf("%s: %d spans, %d invalid", span, n, d.counts.Invalid)
		}
	}
}

func TestAttributesAreBounded(t *testing.T) {
	m := sample()
	s := m.ResourceSpans[0].ScopeSpans[0].Spans[0]
	s.Attributes = []*commonpb.KeyValue{pair("long", text(strings.Repeat("é", 3000))), pair("list", &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{
		ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{text(strings.Repeat("x", 5000)), text("y")}},
	}})}
	for i := range 100 {
		s.Attributes = append(s.Attributes, pair(fmt.Sprint("k", i), text("v")))
	}
	message, _ := proto.Marshal(m)
	spans := decodeOTLP(t, message)
	got := spans[0].Attributes
	if len(got) != 64+3 || got[0].Value != strings.Repeat("é", 2048) || len(got[1].Value) != maxText {
		t.Errorf("%d attributes, values of %d and %d bytes", len(got), len(got[0].Value), len(got[1].Value))
	}
}

func TestDecodedSpansShareNoMemoryWithTheMessage(t *testing.T) {
	message, _ := proto.Marshal(sample())
	spans := decodeOTLP(t, message)
	for i := range message {
		message[i] = 'X'
	}
	if d := cmp.Diff(wantSample(), spans); d != "" {
		t.Error(d)
	}
}

func TestEncodedSpansAreReadByTheOfficialModule(t *testing.T) {
	spans := wantSample()
	var m tracepb.TracesData
	if err := proto.Unmarshal(EncodeOTLP(spans), &m); err != nil {
		t.Fatal(err)
	}
	if n := len(m.ResourceSpans); n != 1 {
		t.Fatalf("%d resources", n)
	}
	s := m.ResourceSpans[0].ScopeSpans[0].Spans[0]
	if s.Name != "GET /orders" || s.Kind != tracepb.Span_SPAN_KIND_SERVER || s.Status.Code != tracepb.Status_STATUS_CODE_ERROR ||
		s.StartTimeUnixNano != 1_700_000_000_000_000_001 || !bytes.Equal(s.TraceId, bytes.Repeat([]byte{0xAB}, 16)) {
		t.Errorf("got %v", s)
	}
}

func TestEncodingAndDecodingKeepsASpan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var spans []trace.Span
	for i := range 200 {
		s := trace.Span{
			TraceID: fmt.Sprintf("%032x", 1+random.IntN(9)), ID: fmt.Sprintf("%016x", i+1), Kind: trace.Kind(random.IntN(6)),
			Service: fmt.Sprint("s", i%3), Name: fmt.Sprint("op", i%7), Start: random.Int64(), End: random.Int64(),
			Host: []string{"", "node"}[i%2], Failed: random.IntN(2) == 0,
			Attributes: []trace.Attribute{{Key: "http.request.method", Value: "GET"}, {Key: "n", Value: fmt.Sprint(i)}},
		}
		if i%5 > 0 {
			s.Parent = fmt.Sprintf("%016x", i)
			s.FollowsFrom = i%10 == 1
		}
		spans = append(spans, s)
	}
	got := map[string]trace.Span{}
	for _, s := range decodeOTLP(t, EncodeOTLP(spans)) {
		got[s.ID] = s
	}
	for _, want := range spans {
		s := got[want.ID]
		if a := s.Attr("service.name"); a != want.Service {
			t.Errorf("service.name %q", a)
		}
		s.Attributes = s.Attributes[:2]
		if d := cmp.Diff(want, s); d != "" {
			t.Fatal(d)
		}
	}
}

func TestIDsThatAreNotHexKeepTheirReferences(t *testing.T) {
	spans := decodeOTLP(t, EncodeOTLP([]trace.Span{
		{TraceID: "trace-one", ID: "R", Name: "root", Start: 1, End: 9}, {TraceID: "trace-one", ID: "c", Parent: "R", Start: 2, End: 3},
	}))
	if len(spans) != 2 || spans[0].ID != spans[1].Parent || spans[0].TraceID != spans[1].TraceID || len(spans[0].TraceID) != 32 || spans[1].ID != "000000000000000c" {
		t.Errorf("got %+v", spans)
	}
}

func TestProtobufDecodingHardlyAllocates(t *testing.T) {
	message := benchmarkMessage(1000)
	d := newDecoder(func(trace.Span) {})
	n := testing.AllocsPerRun(5, func() {
		if err := d.otlp(message); err != nil {
			t.Fatal(err)
		}
	})
	if perSpan := n / 1000; perSpan > 4 { // the IDs of span and parent, and the values that are its own
		t.Errorf("%.1f allocations a span", perSpan)
	}
}

func TestAttributesOfJSONAreBoundedAsWell(t *testing.T) {
	attributes := `{"key":"long","value":{"stringValue":"` + strings.Repeat("\u00e9", 9000) + `"}},{"key":"\u006c","value":{"stringValue":"` + strings.Repeat(`\ud83d\ude00`, 9000) + `"}}`
	for i := range 100 {
		attributes += fmt.Sprintf(`,{"key":"k%d","value":{"intValue":"1"}}`, i)
	}
	spans := decodeOTLPJSON(t, `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"a","spanId":"b","attributes":[`+attributes+`]}]}]}]}`)
	got := spans[0].Attributes
	if len(got) != 64 || got[0].Value != strings.Repeat("é", 2048) || got[1].Key != "l" || got[1].Value != strings.Repeat("😀", 1024) {
		t.Errorf("%d attributes, values of %d and %d bytes", len(got), len(got[0].Value), len(got[1].Value))
	}
}

func TestMalformedProtobufIsRefused(t *testing.T) {
	for name, message := range map[string]string{
		"cut tag":            "\x0a\x02\x12",
		"cut length":         "\x0a",
		"length beyond":      "\x0a\x05abc",
		"number for message": "\x08\x01",
		"field 0":            "\x02\x00",
		"group":              "\x0b\x0c",
		"bad span":           "\x0a\x06\x12\x04\x12\x02\x08\x01",
		"bad resource":       "\x0a\x04\x0a\x02\x08\x01",
		"bad attribute":      "\x0a\x06\x0a\x04\x0a\x02\x10\x01",
	} {
		if err := DecodeOTLP([]byte(message), func(trace.Span) {}); err == nil || !strings.HasPrefix(err.Error(), "ingest: OTLP protobuf: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

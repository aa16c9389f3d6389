package ingest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// benchmarkSpans are spans as a shop sends them, with eight attributes each.
func benchmarkSpans(n int) []trace.Span {
	spans := make([]trace.Span, n)
	for i := range spans {
		spans[i] = trace.Span{
			TraceID: fmt.Sprintf("%032x", 1000+i/20), ID: fmt.Sprintf("%016x", 77_000_000+i), Parent: fmt.Sprintf("%016x", 77_000_000+i/20*20),
			Kind: trace.Client, Service: fmt.Sprint("service-", i%5), Name: "GET /api/orders/{id}", Host: fmt.Sprint("node-", i%5),
			Start: 1_700_000_000_000_000_000 + int64(i)*1000, End: 1_700_000_000_000_900_000 + int64(i)*1000,
			Attributes: []trace.Attribute{
				{Key: "http.request.method", Value: "GET"},
				{Key: "http.response.status_code", Value: "200"},
				{Key: "url.path", Value: fmt.Sprint("/api/orders/", i)},
				{Key: "server.address", Value: "orders.shop.svc"},
				{Key: "server.port", Value: "8080"},
				{Key: "network.protocol.version", Value: "1.1"},
				{Key: "user_agent.original", Value: "okhttp/4.9.3"},
				{Key: "thread.id", Value: fmt.Sprint(i % 16)},
			},
		}
	}
	return spans
}

// benchmarkMessage is the same in protobuf.
func benchmarkMessage(n int) []byte { return EncodeOTLP(benchmarkSpans(n)) }

// benchmarkJSON is the same spans in the JSON of OTLP.
func benchmarkJSON(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},{"key":"host.name","value":{"stringValue":"n1"}}]},"scopeSpans":[{"scope":{"name":"x"},"spans":[`)
	for i, s := range benchmarkSpans(n) {
		if i > 0 {
			b.WriteByte(',')
		}
		var attributes []string
		for _, a := range s.Attributes {
			attributes = append(attributes, fmt.Sprintf(`{"key":%q,"value":{"stringValue":%q}}`, a.Key, a.Value))
		}
		fmt.Fprintf(&b, `{"traceId":%q,"spanId":%q,"parentSpanId":%q,"name":%q,"kind":3,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[%s],"status":{}}`,
			s.TraceID, s.ID, s.Parent, s.Name, s.Start, s.End, strings.Join(attributes, ","))
	}
	b.WriteString("]}]}]}\n")
	return b.Bytes()
}

// benchmarked is so many spans that their IDs do not stay in the decoder's cache.
const benchmarked = 50_000

func benchmarkDecode(b *testing.B, data []byte, decode func(*decoder, []byte) error) {
	d := newDecoder(func(trace.Span) {})
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := decode(d, data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*benchmarked/b.Elapsed().Seconds(), "spans/s")
}

func BenchmarkOTLPProtobuf(b *testing.B) {
	benchmarkDecode(b, benchmarkMessage(benchmarked), (*decoder).otlp)
}

func BenchmarkOTLPJSON(b *testing.B) {
	benchmarkDecode(b, benchmarkJSON(benchmarked), (*decoder).otlpJSON)
}

func BenchmarkNezhaFile(b *testing.B) {
	dir := corpus(b, "nezha")
	spans := 0
	for b.Loop() {
		in, err := ReadPaths(b.Context(), []string{dir + "/onlineboutique-2022-08-23-fault30.otlp.jsonl.gz"}, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		spans += in.Stats.Spans
	}
	b.ReportMetric(float64(spans)/b.Elapsed().Seconds(), "spans/s")
}

func BenchmarkEncodeOTLP(b *testing.B) {
	spans := benchmarkSpans(1000)
	b.ReportAllocs()
	for b.Loop() {
		EncodeOTLP(spans)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "spans/s")
}

package ingest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	logscollectorpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricscollectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// all collects what a receiver takes.
type all struct {
	mu     sync.Mutex
	spans  []trace.Span
	logs   []trace.Log
	points []Point
}

func (a *all) sinks() Sinks {
	return Sinks{
		Spans:  func(s []trace.Span) int { a.mu.Lock(); defer a.mu.Unlock(); a.spans = append(a.spans, s...); return 0 },
		Logs:   func(l []trace.Log) int { a.mu.Lock(); defer a.mu.Unlock(); a.logs = append(a.logs, l...); return 0 },
		Points: func(p []Point) int { a.mu.Lock(); defer a.mu.Unlock(); a.points = append(a.points, p...); return 0 },
	}
}

func resourceFor(service string) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: []*commonpb.KeyValue{pair("service.name", text(service)), pair("host.name", text("node-1"))}}
}

func logRequest() *logscollectorpb.ExportLogsServiceRequest {
	id := bytes.Repeat([]byte{0xAB}, 16)
	record := func(severity int, level, body string, more ...*commonpb.KeyValue) *logspb.LogRecord {
		return &logspb.LogRecord{
			TimeUnixNano: 7, TraceId: id, SpanId: []byte{1, 2, 3, 4, 5, 6, 7, 8}, SeverityNumber: logspb.SeverityNumber(severity), SeverityText: level,
			Body: text(body), Attributes: more,
		}
	}
	late := record(0, "Error", "by its name")
	late.TimeUnixNano, late.ObservedTimeUnixNano, late.TraceId, late.SpanId = 0, 9, nil, nil
	return &logscollectorpb.ExportLogsServiceRequest{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: resourceFor("orders"),
		ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{
			record(17, "ERROR", "pool exhausted", pair("exception.type", text("PoolError")), pair("x", text("y"))),
			record(9, "INFO", "all is well"), record(0, "", "of unknown severity"),
			record(5, "DEBUG", "thrown", pair("exception.type", text("IOError"))),
			late, record(13, "WARN", strings.Repeat("é", 3000)),
		}}},
	}}}
}

func wantLogs() []trace.Log {
	id := strings.Repeat("ab", 16)
	l := func(s trace.Severity, body, exception string) trace.Log {
		return trace.Log{TraceID: id, SpanID: "0102030405060708", Time: 7, Severity: s, Service: "orders", Body: body, Exception: exception}
	}
	return []trace.Log{
		l(17, "pool exhausted", "PoolError"), l(5, "thrown", "IOError"),
		{Time: 9, Severity: 17, Service: "orders", Body: "by its name"},
		l(13, strings.Repeat("é", maxLogBody/2), ""),
	}
}

// logJSON is a request in OTLP's JSON, whose IDs are hex where protojson has base64.
func logJSON(t testing.TB, snake bool) []byte {
	t.Helper()
	m := logRequest()
	b, err := protojson.MarshalOptions{UseProtoNames: snake, UseEnumNumbers: !snake}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.NewReplacer("q6urq6urq6urq6urq6urqw==", strings.Repeat("ab", 16), "AQIDBAUGBwg=", "0102030405060708").Replace(string(b)))
}

func TestLogsAreTiedToTheirSpan(t *testing.T) {
	message, err := proto.Marshal(logRequest())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		media string
		body  []byte
	}{"protobuf": {mediaProto, message}, "JSON": {mediaJSON, logJSON(t, false)}, "JSON in snake case": {mediaJSON, logJSON(t, true)}} {
		var a all
		r := NewReceiver(a.sinks())
		w := postTo(r.HTTP(), "/v1/logs", c.media, c.body)
		if d := cmp.Diff(wantLogs(), a.logs); d != "" || w.Code != http.StatusOK {
			t.Errorf("%s: %d %s\n%s", name, w.Code, w.Body, d)
		}
		if got := r.Received()[otlpLogs]; got.Accepted != 4 || got.Dropped["minor"] != 2 || got.Cut == 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLeastSeverityIsASetting(t *testing.T) {
	message, _ := proto.Marshal(logRequest())
	var a all
	s := a.sinks()
	s.LeastSeverity = trace.SeverityTrace
	postTo(NewReceiver(s).HTTP(), "/v1/logs", mediaProto, message)
	if len(a.logs) != 5 {
		t.Errorf("%d logs", len(a.logs))
	}
}

func postTo(h http.Handler, path, media string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	req.Header.Set("Content-Type", media)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func metricRequest() *metricscollectorpb.ExportMetricsServiceRequest {
	at := []*commonpb.KeyValue{pair("pool", text("main"))}
	numbers := []*metricspb.NumberDataPoint{
		{Attributes: at, StartTimeUnixNano: 1, TimeUnixNano: 2, Value: &metricspb.NumberDataPoint_AsInt{AsInt: -3}},
		{TimeUnixNano: 2, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: 1.5}},
		{TimeUnixNano: 2, Flags: 1},
		{TimeUnixNano: 2, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: math.NaN()}},
	}
	histograms := []*metricspb.HistogramDataPoint{
		{Attributes: at, TimeUnixNano: 2, Count: 6, Sum: new(float64(9)), Min: new(float64(0.5)), Max: new(float64(4)), BucketCounts: []uint64{1, 2, 3}, ExplicitBounds: []float64{1, 2}},
		{TimeUnixNano: 2, Count: 7, BucketCounts: []uint64{1, 2, 3}, ExplicitBounds: []float64{1, 2}},
		{TimeUnixNano: 2, Count: 6, BucketCounts: []uint64{1, 2, 3}, ExplicitBounds: []float64{2, 1}},
		{TimeUnixNano: 2, Count: 6, BucketCounts: []uint64{1, 2, 3}, ExplicitBounds: []float64{2}},
	}
	exponential := []*metricspb.ExponentialHistogramDataPoint{
		{
			Attributes: at, TimeUnixNano: 2, Count: 10, Sum: new(float64(5)), Scale: -2, ZeroCount: 4, ZeroThreshold: 1e-6,
			Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: -7, BucketCounts: []uint64{1, 300}}, Negative: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: 3, BucketCounts: []uint64{5}},
		},
		{TimeUnixNano: 2, Count: 1, Scale: 50, ZeroCount: 1},
		{TimeUnixNano: 2, Count: 2000, Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{BucketCounts: slicesOf(1, 2000)}},
	}
	exponential[0].Count = 310
	return &metricscollectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource: resourceFor("orders"),
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{
			{Name: "g", Unit: "By", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: numbers}}},
			{Name: "s", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{DataPoints: numbers[:1], IsMonotonic: true, AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA}}},
			{Name: "h", Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{DataPoints: histograms, AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}},
			{Name: "e", Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{DataPoints: exponential}}},
			{Name: "q", Data: &metricspb.Metric_Summary{Summary: &metricspb.Summary{DataPoints: []*metricspb.SummaryDataPoint{{TimeUnixNano: 2}}}}},
		}}},
	}}}
}

func slicesOf(value uint64, n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		list[i] = value
	}
	return list
}

func wantPoints() []Point {
	common := []trace.Attribute{{Key: "service.name", Value: "orders"}, {Key: "host.name", Value: "node-1"}}
	with := append([]trace.Attribute{{Key: "pool", Value: "main"}}, common...)
	p := func(name string, kind PointKind, at []trace.Attribute) Point {
		return Point{Service: "orders", Host: "node-1", Name: name, Kind: kind, Time: 2, Attributes: at}
	}
	g, g2, s, h, e := p("g", Gauge, with), p("g", Gauge, common), p("s", Sum, with), p("h", Histogram, with), p("e", ExponentialHistogram, with)
	g.Unit, g2.Unit, g.Start, s.Start = "By", "By", 1, 1
	g.Value, g2.Value, s.Value = -3, 1.5, -3
	s.Monotonic, s.Delta = true, true
	h.Histogram = &Spread{Count: 6, Sum: 9, Min: 0.5, Max: 4, Bounds: []float64{1, 2}, Counts: []uint64{1, 2, 3}}
	e.Histogram = &Spread{
		Count: 310, Sum: 5, Min: math.NaN(), Max: math.NaN(), Scale: -2, ZeroCount: 4, ZeroThreshold: 1e-6,
		Positive: []uint64{1, 300}, PositiveOffset: -7, Negative: []uint64{5}, NegativeOffset: 3,
	}
	return []Point{g, g2, s, h, e}
}

func TestPointsOfEveryKindAreDecodedAndChecked(t *testing.T) {
	message, err := proto.Marshal(metricRequest())
	if err != nil {
		t.Fatal(err)
	}
	camel, err := protojson.Marshal(metricRequest())
	if err != nil {
		t.Fatal(err)
	}
	snake, err := protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true}.Marshal(metricRequest())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		media string
		body  []byte
	}{"protobuf": {mediaProto, message}, "JSON": {mediaJSON, camel}, "JSON in snake case": {mediaJSON, snake}} {
		var a all
		r := NewReceiver(a.sinks())
		w := postTo(r.HTTP(), "/v1/metrics", c.media, c.body)
		if d := cmp.Diff(wantPoints(), a.points, cmpopts.EquateNaNs()); d != "" || w.Code != http.StatusOK {
			t.Errorf("%s: %d\n%s", name, w.Code, d)
		}
		// NaN, three histograms, two exponential ones and the summary
		if got := r.Received()[otlpMetrics]; got.Accepted != 5 || got.Dropped["invalid"] != 7 || got.Dropped["absent"] != 1 {
			t.Errorf("%s: %+v", name, got)
		}
		var answer metricscollectorpb.ExportMetricsServiceResponse
		if unmarshal(t, w, &answer); answer.GetPartialSuccess().GetRejectedDataPoints() != 7 {
			t.Errorf("%s: %v", name, &answer)
		}
	}
}

func TestOfficialClientsSendLogsAndMetrics(t *testing.T) {
	var a all
	conn := dial(t, NewReceiver(a.sinks()))
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor("zstd")}, {grpc.UseCompressor("gzip")}} {
		if _, err := logscollectorpb.NewLogsServiceClient(conn).Export(t.Context(), logRequest(), options...); err != nil {
			t.Error(err)
		}
		answer, err := metricscollectorpb.NewMetricsServiceClient(conn).Export(t.Context(), metricRequest(), options...)
		if err != nil || answer.GetPartialSuccess().GetRejectedDataPoints() != 7 {
			t.Error(answer, err)
		}
		if _, err := collectorpb.NewTraceServiceClient(conn).Export(t.Context(), request(t), options...); err != nil {
			t.Error(err)
		}
	}
	if len(a.logs) != 12 || len(a.points) != 15 || len(a.spans) != 6 {
		t.Errorf("%d logs, %d points, %d spans", len(a.logs), len(a.points), len(a.spans))
	}
}

func TestWhatHasNoSinkIsNotOffered(t *testing.T) {
	var a all
	s := a.sinks()
	s.Logs, s.Points = nil, nil
	r := NewReceiver(s)
	if w := postTo(r.HTTP(), "/v1/logs", mediaProto, nil); w.Code != http.StatusNotFound {
		t.Errorf("HTTP: %d", w.Code)
	}
	_, err := metricscollectorpb.NewMetricsServiceClient(dial(t, r)).Export(t.Context(), metricRequest())
	if grpcstatus.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
}

func TestAFullReceiverSaysWhenToComeAgain(t *testing.T) {
	r := NewReceiver(Sinks{Spans: func([]trace.Span) int { return Full }})
	_, err := collectorpb.NewTraceServiceClient(dial(t, r)).Export(t.Context(), request(t))
	for _, d := range grpcstatus.Convert(err).Proto().GetDetails() {
		second := []byte{1<<3 | wireBytes, 2, 1 << 3, 1} // RetryInfo{retry_delay: Duration{seconds: 1}}
		if d.GetTypeUrl() == "type.googleapis.com/google.rpc.RetryInfo" && bytes.Equal(d.GetValue(), second) {
			if got := r.Received()[otlpTraces].Refused["full"]; got != 1 {
				t.Errorf("%d counted", got)
			}
			return
		}
	}
	t.Errorf("no RetryInfo in %v", err)
}

func TestAGRPCBombIsRefused(t *testing.T) {
	var a all
	bomb := logRequest()
	bomb.ResourceLogs[0].SchemaUrl = strings.Repeat("x", maxBody+1)
	for _, coding := range []string{"gzip", "zstd"} {
		r := NewReceiver(a.sinks())
		_, err := logscollectorpb.NewLogsServiceClient(dial(t, r)).Export(t.Context(), bomb, grpc.UseCompressor(coding))
		for range maxOpen {
			r.slots <- struct{}{} // gRPC answers before the call returns, which counts the refusal: wait for its slot
		}
		if got := r.Received()[otlpLogs].Refused; got["too_large"]+got["malformed"] != 1 {
			t.Errorf("%s: %v", coding, got)
		}
		if c := grpcstatus.Code(err); c != codes.ResourceExhausted && c != codes.Internal || len(a.logs) > 0 {
			t.Errorf("%s: %v", coding, err)
		}
	}
}

// A span of 8 bytes becomes hundreds: a request may hold so many only.
func TestOneRequestHoldsSoManyItems(t *testing.T) {
	var tiny, zipkin writer
	tiny.message(1, func() {
		tiny.message(2, func() {
			for range maxItems + 10 {
				tiny.message(2, func() { tiny.bytes(1, []byte{1}); tiny.bytes(2, []byte{1}) })
			}
		})
	})
	for range maxItems + 10 {
		zipkin.message(1, func() { zipkin.bytes(1, []byte{1}); zipkin.bytes(3, []byte{1}); zipkin.fixed(6, 1) })
	}
	jsons := `{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Repeat("{},", maxItems+9) + `{}]}]}]}`
	for name, c := range map[string]struct {
		h    func(*Receiver) http.Handler
		path string
		p    protocol
		m    string
		body []byte
	}{
		"protobuf": {(*Receiver).HTTP, "/v1/traces", otlpTraces, mediaProto, tiny.out},
		"JSON":     {(*Receiver).HTTP, "/v1/traces", otlpTraces, mediaJSON, []byte(jsons)},
		"Zipkin":   {(*Receiver).Zipkin, "/api/v2/spans", zipkinTraces, mediaProto, zipkin.out},
	} {
		var a all
		r := NewReceiver(a.sinks())
		postTo(c.h(r), c.path, c.m, c.body)
		if got := r.Received()[c.p]; got.Dropped["excess"] != 10 || got.Accepted+got.Dropped["invalid"] != maxItems {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func hexBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// jaegerTag writes a KeyValue of api_v2 whose value stands in the field of its type.
func (w *writer) jaegerTag(field int, key string, kind int, value func()) {
	w.message(field, func() {
		w.text(1, key)
		w.number(2, uint64(kind))
		value()
	})
}

// jaegerRequest is a PostSpansRequest with a batch of two spans, of which the second has a process of its own.
func jaegerRequest() []byte {
	var w writer
	id := strings.Repeat("ab", 16)
	moment := func(field int, seconds, nanos uint64) {
		w.message(field, func() { w.number(1, seconds); w.number(2, nanos) })
	}
	w.message(1, func() {
		w.message(1, func() {
			w.bytes(1, hexBytes(id))
			w.bytes(2, hexBytes("0102030405060708"))
			w.text(3, "GET /orders")
			moment(6, 1_700_000_000, 1000)
			moment(7, 0, 5_000_000)
			w.jaegerTag(8, "span.kind", 0, func() { w.text(3, "server") })
			w.jaegerTag(8, "error", 1, func() { w.number(4, 1) })
			w.jaegerTag(8, "sampled", 1, func() {})
			w.jaegerTag(8, "n", 2, func() { w.number(5, 7) })
			w.jaegerTag(8, "x", 3, func() { w.fixed(6, math.Float64bits(1.5)) })
			w.jaegerTag(8, "b", 4, func() { w.bytes(7, []byte{1, 2}) })
		})
		w.message(1, func() {
			w.bytes(1, hexBytes(id))
			w.bytes(2, hexBytes("0909090909090909"))
			w.message(4, func() { w.bytes(1, hexBytes(id)); w.bytes(2, hexBytes("0102030405060708")); w.number(3, 1) })
			moment(6, 1_700_000_000, 2000)
			moment(7, 1, 0)
			w.message(10, func() { w.text(1, "other") })
		})
		w.message(2, func() {
			w.text(1, "orders")
			w.jaegerTag(2, "hostname", 0, func() { w.text(3, "node-1") })
		})
	})
	return w.out
}

func wantJaeger() []trace.Span {
	id := strings.Repeat("ab", 16)
	const start = 1_700_000_000_000_001_000
	return []trace.Span{
		{
			TraceID: id, ID: "0102030405060708", Kind: trace.Server, Service: "orders", Name: "GET /orders", Start: start, End: start + 5_000_000, Host: "node-1", Failed: true,
			Attributes: []trace.Attribute{
				{Key: "span.kind", Value: "server"},
				{Key: "error", Value: "true"},
				{Key: "sampled", Value: "false"},
				{Key: "n", Value: "7"},
				{Key: "x", Value: "1.5"},
				{Key: "b", Value: "AQI="},
				{Key: "hostname", Value: "node-1"},
			},
		},
		{TraceID: id, ID: "0909090909090909", Parent: "0102030405060708", FollowsFrom: true, Service: "other", Start: start + 1000, End: start + 1000 + 1e9},
	}
}

func TestJaegerClientsPostTheirSpans(t *testing.T) {
	var a all
	conn := dial(t, NewReceiver(a.sinks()))
	var answer []byte
	err := conn.Invoke(t.Context(), "/jaeger.api_v2.CollectorService/PostSpans", jaegerRequest(), &answer, grpc.ForceCodecV2(rawCodec{}))
	if err != nil || len(answer) != 0 {
		t.Fatal(answer, err)
	}
	if d := cmp.Diff(wantJaeger(), a.spans, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// zipkinRequest is a ListOfSpans with a span and its child.
func zipkinRequest() []byte {
	var w writer
	w.message(1, func() {
		w.bytes(1, hexBytes("00000000000000ab"))
		w.bytes(3, hexBytes("0000000000000001"))
		w.number(4, 2)
		w.text(5, "get /orders")
		w.fixed(6, 1_700_000_000_000_000)
		w.number(7, 5000)
		w.message(8, func() { w.text(1, "orders"); w.bytes(2, []byte{10, 0, 0, 1}); w.number(4, 8080) })
		w.message(11, func() { w.text(1, "http.method"); w.text(2, "GET") })
	})
	w.message(1, func() {
		w.bytes(1, hexBytes("00000000000000ab"))
		w.bytes(2, hexBytes("0000000000000001"))
		w.bytes(3, hexBytes("0000000000000002"))
		w.number(4, 1)
		w.fixed(6, 1_700_000_000_001_000)
		w.number(7, 1000)
		w.message(8, func() { w.text(1, "orders") })
		w.message(9, func() { w.text(1, "db"); w.number(4, 5432) })
		w.message(11, func() { w.text(1, "error"); w.text(2, "timeout") })
	})
	return w.out
}

func TestZipkinClientsPostTheirSpans(t *testing.T) {
	const start = 1_700_000_000_000_000_000
	want := []trace.Span{
		{
			TraceID: "00000000000000ab", ID: "0000000000000001", Kind: trace.Server, Service: "orders", Host: "10.0.0.1", Name: "get /orders", Start: start, End: start + 5e6,
			Attributes: []trace.Attribute{{Key: "http.method", Value: "GET"}},
		},
		{
			TraceID: "00000000000000ab", ID: "0000000000000002", Parent: "0000000000000001", Kind: trace.Client, Service: "orders", Start: start + 1e6, End: start + 2e6, Failed: true,
			Attributes: []trace.Attribute{{Key: "peer.service", Value: "db"}, {Key: "net.peer.port", Value: "5432"}, {Key: "error", Value: "timeout"}},
		},
	}
	const jsons = `[{"traceId":"00000000000000ab","id":"0000000000000001","kind":"SERVER","name":"get /orders","timestamp":1700000000000000,"duration":5000,
		"localEndpoint":{"serviceName":"orders","ipv4":"10.0.0.1","port":8080},"tags":{"http.method":"GET"}},
		{"traceId":"00000000000000ab","id":"0000000000000002","parentId":"0000000000000001","kind":"CLIENT","timestamp":1700000000001000,"duration":1000,
		"localEndpoint":{"serviceName":"orders"},"remoteEndpoint":{"serviceName":"db","port":5432},"tags":{"error":"timeout"}}]`
	for media, body := range map[string][]byte{mediaProto: zipkinRequest(), mediaJSON: []byte(jsons), "": []byte(jsons)} {
		var a all
		w := postTo(NewReceiver(a.sinks()).Zipkin(), "/api/v2/spans", media, body)
		if d := cmp.Diff(want, a.spans); d != "" || w.Code != http.StatusAccepted {
			t.Errorf("%q: %d %s\n%s", media, w.Code, w.Body, d)
		}
	}
	for _, c := range []struct {
		body    string
		rejects int
		status  int
	}{{"{}", 0, 400}, {"[{]", 0, 400}, {"", 0, 400}, {jsons, Full, 429}} {
		r := NewReceiver(Sinks{Spans: func([]trace.Span) int { return c.rejects }})
		if w := postTo(r.Zipkin(), "/api/v2/spans", mediaJSON, []byte(c.body)); w.Code != c.status || (w.Header().Get("Retry-After") != "") != (c.status == 429) {
			t.Errorf("%q: %d %s", c.body, w.Code, w.Body)
		}
	}
}

func TestSeverityNames(t *testing.T) {
	for text, want := range map[string]trace.Severity{
		"13": 13, `"SEVERITY_NUMBER_ERROR3"`: 19, `"SEVERITY_NUMBER_INFO"`: 9, "99": 0, "null": 0, `"x"`: 0, `"SEVERITY_NUMBER_UNSPECIFIED"`: 0, "-1": 0,
	} {
		j := document{decoder: newDecoder(nil), scan: newScanner(strings.NewReader(text + " "))}
		if got := j.severity(); got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
	if got := fmt.Sprint(trace.Severity(14), trace.Severity(24), trace.Severity(0), trace.Severity(25)); got != "warn fatal unknown unknown" {
		t.Error(got)
	}
}

func TestMalformedRequestsOfEveryProtocolAreRefused(t *testing.T) {
	for p := range protocols {
		for _, body := range []string{"\x0a\xff", "\x0b", "\x0a\x02\x0a\x7f", "\x08\x01"} {
			var a all
			r := NewReceiver(a.sinks())
			if _, refused := r.accept(p, []byte(body), false); refused == nil || refused.reason != "malformed" {
				t.Errorf("%s takes %x: %v", p, body, refused)
			}
		}
	}
	_, refused := NewReceiver(new(all).sinks()).accept(otlpLogs, []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":`), true)
	if refused == nil {
		t.Error("cut JSON is taken")
	}
}

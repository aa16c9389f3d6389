package ingest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// sink collects spans and answers with rejects.
type sink struct {
	mu      sync.Mutex
	spans   []trace.Span
	rejects int
}

func (s *sink) take(spans []trace.Span) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rejects != Full {
		s.spans = append(s.spans, spans...)
	}
	return s.rejects
}

func request(t testing.TB) *collectorpb.ExportTraceServiceRequest {
	t.Helper()
	return &collectorpb.ExportTraceServiceRequest{ResourceSpans: sample().ResourceSpans}
}

func post(t *testing.T, h http.Handler, media, coding string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/v1/traces", bytes.NewReader(body))
	req.Header.Set("Content-Type", media)
	if coding != "" {
		req.Header.Set("Content-Encoding", coding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

const (
	mediaProto = "application/x-protobuf"
	mediaJSON  = "application/json"
)

func TestHTTPTakesBothEncodingsInEveryCompression(t *testing.T) {
	message, err := proto.Marshal(request(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		media, coding string
		body          []byte
	}{
		{mediaProto, "", message},
		{mediaProto, "identity", message},
		{mediaProto, "gzip", gzipped(t, message)},
		{mediaProto, "zstd", zstded(t, message)},
		{mediaJSON, "", []byte(otlpJSON)},
		{mediaJSON + "; charset=utf-8", "", []byte(otlpJSON)},
		{mediaJSON, "gzip", gzipped(t, []byte(otlpJSON))},
	} {
		var s sink
		w := post(t, NewReceiver(Sinks{Spans: s.take}).HTTP(), c.media, c.coding, c.body)
		if w.Code != http.StatusOK || len(s.spans) != 2 {
			t.Errorf("%s %s: %d %s, %d spans", c.media, c.coding, w.Code, w.Body, len(s.spans))
		}
		if got := w.Header().Get("Content-Type"); got != strings.Split(c.media, ";")[0] {
			t.Errorf("answered in %q to %q", got, c.media)
		}
		if answerOf(t, w).GetPartialSuccess() != nil {
			t.Errorf("partial success %s", w.Body)
		}
	}
}

// answerOf reads an ExportTraceServiceResponse in the encoding it came in.
func answerOf(t *testing.T, w *httptest.ResponseRecorder) *collectorpb.ExportTraceServiceResponse {
	t.Helper()
	var a collectorpb.ExportTraceServiceResponse
	unmarshal(t, w, &a)
	return &a
}

func unmarshal(t *testing.T, w *httptest.ResponseRecorder, m proto.Message) {
	t.Helper()
	read := proto.Unmarshal
	if w.Header().Get("Content-Type") == mediaJSON {
		read = protojson.Unmarshal
	}
	if err := read(w.Body.Bytes(), m); err != nil {
		t.Errorf("%q: %v", w.Body, err)
	}
}

func TestRejectedSpansAreAPartialSuccess(t *testing.T) {
	message, _ := proto.Marshal(request(t))
	for media, body := range map[string]string{
		mediaProto: string(message),
		mediaJSON:  strings.Replace(otlpJSON, `"spans":[`, `"spans":[{"traceId":"without span ID"},`, 1),
	} {
		s := sink{rejects: 1}
		w := post(t, NewReceiver(Sinks{Spans: s.take}).HTTP(), media, "", []byte(body))
		want := int64(1 + strings.Count(body, "without")) // invalid ones count too
		if got := answerOf(t, w).GetPartialSuccess(); w.Code != http.StatusOK || got.GetRejectedSpans() != want || got.GetErrorMessage() == "" {
			t.Errorf("%s: %d %v", media, w.Code, got)
		}
	}
}

func TestHTTPRefusalsCarryAStatus(t *testing.T) {
	message, _ := proto.Marshal(request(t))
	bomb := bytes.Repeat([]byte{0}, maxBody+10)
	for name, c := range map[string]struct {
		media, coding string
		body          []byte
		rejects       int
		status        int
		code          codes.Code
	}{
		"bad protobuf":   {mediaProto, "", []byte("\x0a\xff"), 0, 400, codes.InvalidArgument},
		"bad JSON":       {mediaJSON, "", []byte(`{"resourceSpans":[`), 0, 400, codes.InvalidArgument},
		"JSON array":     {mediaJSON, "", []byte(`[]`), 0, 400, codes.InvalidArgument},
		"empty JSON":     {mediaJSON, "", nil, 0, 400, codes.InvalidArgument},
		"two documents":  {mediaJSON, "", []byte(`{}{}`), 0, 400, codes.InvalidArgument},
		"no gzip":        {mediaProto, "gzip", message, 0, 400, codes.InvalidArgument},
		"cut gzip":       {mediaProto, "gzip", gzipped(t, message)[:30], 0, 400, codes.InvalidArgument},
		"no zstd":        {mediaProto, "zstd", message, 0, 400, codes.InvalidArgument},
		"unknown coding": {mediaProto, "br", message, 0, 415, codes.Unimplemented},
		"unknown media":  {"text/plain", "", message, 0, 415, codes.Unimplemented},
		"too long":       {mediaProto, "", bomb, 0, 413, codes.ResourceExhausted},
		"gzip bomb":      {mediaProto, "gzip", gzipped(t, bomb), 0, 413, codes.ResourceExhausted},
		"zstd bomb":      {mediaProto, "zstd", zstded(t, bomb), 0, 413, codes.ResourceExhausted},
		"full":           {mediaProto, "", message, Full, 429, codes.ResourceExhausted},
		"full, JSON":     {mediaJSON, "", []byte(otlpJSON), Full, 429, codes.ResourceExhausted},
	} {
		s := sink{rejects: c.rejects}
		w := post(t, NewReceiver(Sinks{Spans: s.take}).HTTP(), c.media, c.coding, c.body)
		got := grpcstatus.New(codes.OK, "").Proto()
		unmarshal(t, w, got)
		if w.Code != c.status || codes.Code(got.Code) != c.code || got.Message == "" || len(s.spans) != 0 {
			t.Errorf("%s: %d %v, %d spans", name, w.Code, got, len(s.spans))
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (c.status == 429) {
			t.Errorf("%s: Retry-After %q", name, retry)
		}
	}
	w := httptest.NewRecorder()
	NewReceiver(Sinks{Spans: new(sink).take}).HTTP().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/traces", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", w.Code, w.Header())
	}
}

func TestAReceiverWithoutFreeSlotsIsFull(t *testing.T) {
	r := NewReceiver(Sinks{Spans: new(sink).take})
	for range maxOpen {
		r.enter()
	}
	message, _ := proto.Marshal(request(t))
	if w := post(t, r.HTTP(), mediaProto, "", message); w.Code != http.StatusTooManyRequests {
		t.Errorf("HTTP: %d", w.Code)
	}
	if _, err := r.call(context.Background(), otlpTraces, "", nil, nil); grpcstatus.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC: %v", err)
	}
	r.leave()
	if w := post(t, r.HTTP(), mediaProto, "", message); w.Code != http.StatusOK {
		t.Errorf("with a slot: %d", w.Code)
	}
}

// client serves r over an in-memory connection and returns the official client.
func client(t *testing.T, r *Receiver, options ...grpc.ServerOption) collectorpb.TraceServiceClient {
	t.Helper()
	return collectorpb.NewTraceServiceClient(dial(t, r, options...))
}

// dial serves r over an in-memory connection.
func dial(t *testing.T, r *Receiver, options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := r.GRPC(options...)
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop() })
	return conn
}

func TestGRPCTakesTheOfficialClient(t *testing.T) {
	var s sink
	c := client(t, NewReceiver(Sinks{Spans: s.take}))
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		answer, err := c.Export(t.Context(), request(t), options...)
		if err != nil || answer.GetPartialSuccess() != nil {
			t.Errorf("%v %v", answer, err)
		}
	}
	if len(s.spans) != 4 || s.spans[3].Service != "orders" {
		t.Errorf("%d spans", len(s.spans))
	}
}

func TestGRPCSaysWhatItDoesNotTake(t *testing.T) {
	s := sink{rejects: 2}
	c := client(t, NewReceiver(Sinks{Spans: s.take}))
	if answer, err := c.Export(t.Context(), request(t)); err != nil || answer.GetPartialSuccess().GetRejectedSpans() != 2 {
		t.Errorf("%v %v", answer, err)
	}
	s.mu.Lock()
	s.rejects = Full
	s.mu.Unlock()
	if _, err := c.Export(t.Context(), request(t)); grpcstatus.Code(err) != codes.ResourceExhausted {
		t.Errorf("full: %v", err)
	}
	long := request(t)
	long.ResourceSpans[0].SchemaUrl = strings.Repeat("x", maxBody)
	if _, err := c.Export(t.Context(), long); grpcstatus.Code(err) != codes.ResourceExhausted {
		t.Errorf("too long: %v", err)
	}
}

func TestGRPCInterceptorsSeeTheCall(t *testing.T) {
	var s sink
	method := ""
	c := client(t, NewReceiver(Sinks{Spans: s.take}), grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		method = info.FullMethod
		return next(ctx, request)
	}))
	if _, err := c.Export(t.Context(), request(t)); err != nil || method != "/opentelemetry.proto.collector.trace.v1.TraceService/Export" || len(s.spans) != 2 {
		t.Errorf("%q %v", method, err)
	}
}

func TestTheCodecCarriesBytesOnly(t *testing.T) {
	if _, err := (rawCodec{}).Marshal("text"); err == nil {
		t.Error("sent a string")
	}
	if err := (rawCodec{}).Unmarshal(nil, io.Discard); err == nil {
		t.Error("received into a writer")
	}
}

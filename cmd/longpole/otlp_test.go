package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// export is a trace of one span of the given service that ends now.
func export(service string, id byte) *collectorpb.ExportTraceServiceRequest {
	now := uint64(time.Now().UnixNano())
	return &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: service}},
		}}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{
			TraceId: bytes.Repeat([]byte{id}, 16), SpanId: bytes.Repeat([]byte{id}, 8), Name: "GET /" + service,
			Kind: tracepb.Span_SPAN_KIND_SERVER, StartTimeUnixNano: now - 50e6, EndTimeUnixNano: now,
		}}}},
	}}}
}

func TestSpansOfEveryReceiverReachTheFindings(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	if got := get(y.url + "/through"); !got.ok() {
		t.Fatalf("got %+v", got)
	}
	post := func(media string, body []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post("http://"+y.otlpHTTP.Addr().String()+"/v1/traces", media, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s is answered with %s", media, resp.Status)
		}
	}
	body, err := proto.Marshal(export("by-protobuf", 1))
	post("application/x-protobuf", body, err)
	text := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"by-json"}}]},"scopeSpans":[{"spans":[
		{"traceId":"%032x","spanId":"%016x","name":"GET /by-json","kind":2,"startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`,
		2, 2, time.Now().UnixNano()-50e6, time.Now().UnixNano())
	if err := protojson.Unmarshal([]byte(text), new(collectorpb.ExportTraceServiceRequest)); err != nil {
		t.Fatal(err)
	}
	post("application/json", []byte(text), nil)
	conn, err := grpc.NewClient(y.otlpGRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := collectorpb.NewTraceServiceClient(conn).Export(t.Context(), export("by-grpc", 3)); err != nil {
		t.Fatal(err)
	}
	var got answer
	wanted := []string{`"by-protobuf"`, `"by-json"`, `"by-grpc"`, `"longpole-gateway"`} // the last: its own spans
	eventually(t, fmt.Sprintf("findings of %v", wanted), func() bool {
		y.analysis.Refresh(analysisWindow)
		got = get(y.adminURL() + "/api/v1/findings")
		for _, w := range wanted {
			if !strings.Contains(got.body, w) {
				return false
			}
		}
		return true
	})
}

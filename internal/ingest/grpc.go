package ingest

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress with it
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// gRPC looks compressors up in a table of its own, which may be written at the start of a program only.
func init() {
	if encoding.GetCompressor("zstd") == nil {
		encoding.RegisterCompressor(zstdCompressor{})
	}
}

// GRPC returns a new server that offers the services of OTLP for which there is a sink, and Jaeger's CollectorService,
// and nothing else; its codec would not do for other services. The caller serves it, on as many listeners as it
// likes, and stops it.
func (r *Receiver) GRPC(options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxBody),
		grpc.MaxConcurrentStreams(maxOpen),
		grpc.ForceServerCodecV2(rawCodec{}),
	}, options...)...)
	for p, s := range services {
		if r.offered(p) {
			server.RegisterService(r.describe(p, s), r)
		}
	}
	return server
}

// A service is one method that takes telemetry.
type service struct{ name, method, file string }

var services = map[protocol]service{
	otlpTraces:   {"opentelemetry.proto.collector.trace.v1.TraceService", "Export", "opentelemetry/proto/collector/trace/v1/trace_service.proto"},
	otlpLogs:     {"opentelemetry.proto.collector.logs.v1.LogsService", "Export", "opentelemetry/proto/collector/logs/v1/logs_service.proto"},
	otlpMetrics:  {"opentelemetry.proto.collector.metrics.v1.MetricsService", "Export", "opentelemetry/proto/collector/metrics/v1/metrics_service.proto"},
	jaegerTraces: {"jaeger.api_v2.CollectorService", "PostSpans", "model.proto"},
}

func (r *Receiver) describe(p protocol, s service) *grpc.ServiceDesc {
	handler := func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		return r.call(ctx, p, "/"+s.name+"/"+s.method, decode, intercept)
	}
	return &grpc.ServiceDesc{
		ServiceName: s.name, HandlerType: (*any)(nil), Metadata: s.file,
		Methods: []grpc.MethodDesc{{MethodName: s.method, Handler: handler}},
	}
}

// call answers one call.
func (r *Receiver) call(ctx context.Context, p protocol, method string, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	if !r.enter() {
		return nil, r.refused(p, errFull)
	}
	defer r.leave()
	var request []byte
	if err := decode(&request); err != nil {
		why := &refusal{reason: "malformed"}
		if status.Code(err) == codes.ResourceExhausted {
			why = tooLarge
		}
		r.tallies[p].refuse(why)
		return nil, err
	}
	handle := func(_ context.Context, request any) (any, error) {
		rejected, refused := r.accept(p, *request.(*[]byte), false)
		if refused != nil {
			return nil, r.refused(p, refused)
		}
		return answer(p, rejected), nil
	}
	if intercept == nil {
		return handle(ctx, &request)
	}
	return intercept(ctx, &request, &grpc.UnaryServerInfo{Server: r, FullMethod: method}, handle)
}

// refused counts a refusal and gives it as gRPC's error, with its details.
func (r *Receiver) refused(p protocol, why *refusal) error {
	r.tallies[p].refuse(why)
	s := status.New(codes.Code(why.code), why.text).Proto()
	if proto.Unmarshal(why.message(), s) != nil {
		return status.Error(codes.Code(why.code), why.text) // details are no reason to fail in another way
	}
	return status.ErrorProto(s)
}

// rawCodec passes messages through as bytes: ours is the only decoder they need.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("ingest: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("ingest: cannot receive into a %T", v)
	}
	*b = data.Materialize()
	return nil
}

// zstdCompressor is zstd for gRPC, which bounds what comes out of it by MaxRecvMsgSize.
type zstdCompressor struct{}

// Name is what stands in the header grpc-encoding.
func (zstdCompressor) Name() string { return "zstd" }

// Compress is there because gRPC answers in the encoding it was asked in.
func (zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstd.MinWindowSize))
}

// Decompress reads what a client sent.
func (zstdCompressor) Decompress(r io.Reader) (io.Reader, error) {
	z, err := newZstd(r)
	if err != nil {
		return nil, err
	}
	return &closing{z}, nil
}

// closing frees a decoder at its end.
type closing struct{ z *zstd.Decoder }

// Read passes through.
func (c *closing) Read(p []byte) (int, error) {
	n, err := c.z.Read(p)
	if err != nil {
		c.z.Close()
	}
	return n, err
}

package ingest

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress with it
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// GRPC returns a new server that offers OTLP's TraceService and nothing else; its
// codec would not do for other services. The caller serves and stops it.
func (r *Receiver) GRPC(options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxBody),
		grpc.MaxConcurrentStreams(maxDecoding),
		grpc.ForceServerCodecV2(rawCodec{}),
	}, options...)...)
	server.RegisterService(&traceService, r)
	return server
}

const traceServiceName = "opentelemetry.proto.collector.trace.v1.TraceService"

// traceService describes opentelemetry/proto/collector/trace/v1/trace_service.proto.
var traceService = grpc.ServiceDesc{
	ServiceName: traceServiceName,
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: export}},
	Metadata:    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
}

func export(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	r := server.(*Receiver)
	handle := func(_ context.Context, request any) (any, error) {
		rejected, refused := r.accept(*request.(*[]byte), false)
		if refused != nil {
			return nil, status.Error(codes.Code(refused.code), refused.text)
		}
		return answer(rejected), nil
	}
	if !r.enter() {
		return nil, status.Error(codes.Code(errFull.code), errFull.text)
	}
	defer r.leave()
	var request []byte
	if err := decode(&request); err != nil {
		return nil, err
	}
	if intercept == nil {
		return handle(ctx, &request)
	}
	info := &grpc.UnaryServerInfo{Server: server, FullMethod: "/" + traceServiceName + "/Export"}
	return intercept(ctx, &request, info, handle)
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

package fleet

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
)

// The messages of KEDA's externalscaler.proto. Their tags are all that the protobuf runtime needs to read and write them, so
// that no generated code has to be kept; a test talks to them with messages made from the contract itself.

type scaledObjectRef struct {
	Name           string            `protobuf:"bytes,1,opt,name=name,proto3"`
	Namespace      string            `protobuf:"bytes,2,opt,name=namespace,proto3"`
	ScalerMetadata map[string]string `protobuf:"bytes,3,rep,name=scalerMetadata,proto3" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
}

type isActiveResponse struct {
	Result bool `protobuf:"varint,1,opt,name=result,proto3"`
}

type metricSpec struct {
	MetricName      string  `protobuf:"bytes,1,opt,name=metricName,proto3"`
	TargetSize      int64   `protobuf:"varint,2,opt,name=targetSize,proto3"`
	TargetSizeFloat float64 `protobuf:"fixed64,3,opt,name=targetSizeFloat,proto3"`
}

type getMetricSpecResponse struct {
	MetricSpecs []*metricSpec `protobuf:"bytes,1,rep,name=metricSpecs,proto3"`
}

type getMetricsRequest struct {
	ScaledObjectRef *scaledObjectRef `protobuf:"bytes,1,opt,name=scaledObjectRef,proto3"`
	MetricName      string           `protobuf:"bytes,2,opt,name=metricName,proto3"`
}

type metricValue struct {
	MetricName       string  `protobuf:"bytes,1,opt,name=metricName,proto3"`
	MetricValue      int64   `protobuf:"varint,2,opt,name=metricValue,proto3"`
	MetricValueFloat float64 `protobuf:"fixed64,3,opt,name=metricValueFloat,proto3"`
}

type getMetricsResponse struct {
	MetricValues []*metricValue `protobuf:"bytes,1,rep,name=metricValues,proto3"`
}

func (m *scaledObjectRef) Reset()       { *m = scaledObjectRef{} }
func (m *isActiveResponse) Reset()      { *m = isActiveResponse{} }
func (m *metricSpec) Reset()            { *m = metricSpec{} }
func (m *getMetricSpecResponse) Reset() { *m = getMetricSpecResponse{} }
func (m *getMetricsRequest) Reset()     { *m = getMetricsRequest{} }
func (m *metricValue) Reset()           { *m = metricValue{} }
func (m *getMetricsResponse) Reset()    { *m = getMetricsResponse{} }

func (m *scaledObjectRef) String() string       { return fmt.Sprintf("%+v", *m) }
func (m *isActiveResponse) String() string      { return fmt.Sprintf("%+v", *m) }
func (m *metricSpec) String() string            { return fmt.Sprintf("%+v", *m) }
func (m *getMetricSpecResponse) String() string { return fmt.Sprintf("%+v", *m) }
func (m *getMetricsRequest) String() string     { return fmt.Sprintf("%+v", *m) }
func (m *metricValue) String() string           { return fmt.Sprintf("%+v", *m) }
func (m *getMetricsResponse) String() string    { return fmt.Sprintf("%+v", *m) }

func (*scaledObjectRef) ProtoMessage()       {}
func (*isActiveResponse) ProtoMessage()      {}
func (*metricSpec) ProtoMessage()            {}
func (*getMetricSpecResponse) ProtoMessage() {}
func (*getMetricsRequest) ProtoMessage()     {}
func (*metricValue) ProtoMessage()           {}
func (*getMetricsResponse) ProtoMessage()    {}

// externalScaler is what KEDA calls.
type externalScaler interface {
	isActive(context.Context, *scaledObjectRef) (*isActiveResponse, error)
	streamIsActive(*scaledObjectRef, grpc.ServerStream) error
	getMetricSpec(context.Context, *scaledObjectRef) (*getMetricSpecResponse, error)
	getMetrics(context.Context, *getMetricsRequest) (*getMetricsResponse, error)
}

const kedaService = "externalscaler.ExternalScaler"

var kedaDesc = grpc.ServiceDesc{
	ServiceName: kedaService,
	HandlerType: (*externalScaler)(nil),
	Methods: []grpc.MethodDesc{
		unary("IsActive", externalScaler.isActive),
		unary("GetMetricSpec", externalScaler.getMetricSpec),
		unary("GetMetrics", externalScaler.getMetrics),
	},
	Streams: []grpc.StreamDesc{{StreamName: "StreamIsActive", ServerStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		var in scaledObjectRef
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		return srv.(externalScaler).streamIsActive(&in, stream)
	}}},
	Metadata: "externalscaler.proto",
}

// unary is what a generator would write for one method.
func unary[In, Out any](name string, method func(externalScaler, context.Context, *In) (*Out, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(In)
		if err := decode(in); err != nil {
			return nil, err
		}
		serve := func(ctx context.Context, in any) (any, error) { return method(srv.(externalScaler), ctx, in.(*In)) }
		if interceptor == nil {
			return serve(ctx, in)
		}
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + kedaService + "/" + name}, serve)
	}}
}

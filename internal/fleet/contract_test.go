package fleet

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// contract is KEDA's externalscaler.proto, a message a line, so that the client of these tests shares no code with the server.
const contract = `
ScaledObjectRef: string name = 1; string namespace = 2; map scalerMetadata = 3
IsActiveResponse: bool result = 1
GetMetricSpecResponse: repeated MetricSpec metricSpecs = 1
MetricSpec: string metricName = 1; int64 targetSize = 2; double targetSizeFloat = 3
GetMetricsRequest: ScaledObjectRef scaledObjectRef = 1; string metricName = 2
GetMetricsResponse: repeated MetricValue metricValues = 1
MetricValue: string metricName = 1; int64 metricValue = 2; double metricValueFloat = 3
`

func contractFile(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{Name: new("externalscaler.proto"), Package: new("externalscaler"), Syntax: new("proto3")}
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		name, fields, _ := strings.Cut(strings.TrimSpace(line), ": ")
		m := &descriptorpb.DescriptorProto{Name: &name}
		for i, text := range strings.Split(fields, "; ") {
			m.Field = append(m.Field, contractField(m, strings.Fields(text), int32(i+1)))
		}
		file.MessageType = append(file.MessageType, m)
	}
	d, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func contractField(m *descriptorpb.DescriptorProto, words []string, number int32) *descriptorpb.FieldDescriptorProto {
	label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
	if words[0] == "repeated" {
		label, words = descriptorpb.FieldDescriptorProto_LABEL_REPEATED, words[1:]
	}
	kinds := map[string]descriptorpb.FieldDescriptorProto_Type{
		"string": descriptorpb.FieldDescriptorProto_TYPE_STRING, "bool": descriptorpb.FieldDescriptorProto_TYPE_BOOL,
		"int64": descriptorpb.FieldDescriptorProto_TYPE_INT64, "double": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
	}
	f := &descriptorpb.FieldDescriptorProto{Name: &words[1], JsonName: &words[1], Number: &number, Label: &label}
	kind, scalar := kinds[words[0]]
	switch {
	case scalar:
		f.Type = &kind
	case words[0] == "map":
		entry := "ScalerMetadataEntry"
		key := contractField(nil, []string{"string", "key"}, 1)
		value := contractField(nil, []string{"string", "value"}, 2)
		m.NestedType = append(m.NestedType, &descriptorpb.DescriptorProto{Name: &entry, Field: []*descriptorpb.FieldDescriptorProto{key, value}, Options: &descriptorpb.MessageOptions{MapEntry: new(true)}})
		repeated := descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		f.Label, f.Type, f.TypeName = &repeated, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(".externalscaler."+m.GetName()+"."+entry)
	default:
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(".externalscaler."+words[0])
	}
	return f
}

// client is a gRPC client that speaks the contract.
type client struct {
	*testing.T
	file protoreflect.FileDescriptor
	conn *grpc.ClientConn
	keda *KEDA
}

func newClient(t *testing.T, b *Board) *client {
	t.Helper()
	pipe, server := bufconn.Listen(1<<16), grpc.NewServer()
	k := NewKEDA(b)
	k.Register(server)
	go func() { _ = server.Serve(pipe) }()
	conn, err := grpc.NewClient("passthrough:///keda", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		_ = conn.Close()
		server.Stop()
	})
	return &client{T: t, file: contractFile(t), conn: conn, keda: k}
}

func (c *client) message(name, json string) *dynamicpb.Message {
	c.Helper()
	m := dynamicpb.NewMessage(c.file.Messages().ByName(protoreflect.Name(name)))
	if err := protojson.Unmarshal([]byte(json), m); err != nil {
		c.Fatal(err)
	}
	return m
}

// call makes a call with a message of the contract, and gives the answer as JSON without spaces.
func (c *client) call(method, in, json, out string) (string, error) {
	c.Helper()
	answer := c.message(out, "{}")
	if err := c.conn.Invoke(c.Context(), "/externalscaler.ExternalScaler/"+method, c.message(in, json), answer); err != nil {
		return "", err
	}
	return c.json(answer), nil
}

func (c *client) json(m proto.Message) string {
	c.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		c.Fatal(err)
	}
	return strings.ReplaceAll(string(data), " ", "")
}

// stream opens StreamIsActive; next gives its next answer.
func (c *client) stream(ctx context.Context, ref string) (next func() (string, error)) {
	c.Helper()
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/externalscaler.ExternalScaler/StreamIsActive")
	if err != nil {
		c.Fatal(err)
	}
	if err := s.SendMsg(c.message("ScaledObjectRef", ref)); err != nil {
		c.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		c.Fatal(err)
	}
	return func() (string, error) {
		m := c.message("IsActiveResponse", "{}")
		if err := s.RecvMsg(m); err != nil {
			return "", err
		}
		return c.json(m), nil
	}
}

package grpcpolicy

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// ClientOptions of the client's interceptors. The zero value means the defaults given at each field.
type ClientOptions struct {
	// Info says what the policy may know of a call. nil = Info of this package.
	Info func(ctx context.Context, method string) call.Info
	// Conn gives the connection to an endpoint of the policy, such as Pool.Conn. nil = the connection that the
	// interceptor is of; then a policy should have no endpoints, for all of them would be one.
	Conn func(endpoint string) (*grpc.ClientConn, error)
	// Fallback fills reply for a unary call that ended as err, or returns an error to let it end so.
	Fallback func(ctx context.Context, method string, request, reply any, err error) error
	// Observe is told the record of each call when it has ended. It must not keep the record.
	Observe func(*call.Record)
}

// Info is what the definition of a method says: its idempotency_level, if the generated code is linked in.
func Info(_ context.Context, method string) call.Info {
	return call.Info{Route: method, Idempotent: declaredIdempotent(method)}
}

// declared remembers what was found; it holds no more than the methods that are linked in.
var declared sync.Map

func declaredIdempotent(method string) bool {
	if v, ok := declared.Load(method); ok {
		return v.(bool)
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return false
	}
	m, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return false
	}
	o, _ := m.Options().(*descriptorpb.MethodOptions)
	is := o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	declared.Store(method, is)
	return is
}

// UnaryClient makes unary calls under p. An error keeps its gRPC status; one that no server gave has the code of its
// class, and is a *longpole.Error.
func UnaryClient(p *longpole.Policy, o ClientOptions) grpc.UnaryClientInterceptor {
	if o.Info == nil {
		o.Info = Info
	}
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		x := &exchange{o: &o, method: method, request: request, reply: reply, cc: cc, invoke: invoke, opts: opts}
		info := o.Info(ctx, method)
		message, ok := reply.(proto.Message)
		info.Idempotent = info.Idempotent && ok // the answers of two attempts need two places
		if info.Idempotent {
			x.like = message
		}
		var rec *call.Record
		if o.Observe != nil {
			rec = new(call.Record)
		}
		a, err := longpole.Do(ctx, p, info, rec, x)
		observe(&o, rec)
		if a != nil {
			x.give(a)
		}
		return statusOf(err)
	}
}

// statusOf gives an error without a status the code of its class.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	var own interface{ GRPCStatus() *status.Status }
	if errors.As(err, &own) {
		return err
	}
	code := codes.Unavailable
	switch longpole.Class(err) {
	case call.Timeout:
		code = codes.DeadlineExceeded
	case call.Canceled:
		code = codes.Canceled
	}
	return &policyError{error: err, code: code}
}

// policyError is an error of the policy with a status.
type policyError struct {
	error
	code codes.Code
}

// GRPCStatus is what status.Code reads.
func (e *policyError) GRPCStatus() *status.Status { return status.New(e.code, e.Error()) }

// Unwrap returns the policy's error.
func (e *policyError) Unwrap() error { return e.error }

// exchange is one unary call: the longpole.Work of grpc-go.
type exchange struct {
	o       *ClientOptions
	method  string
	request any
	reply   any           // the caller's; only written to while no other attempt may be
	like    proto.Message // of what reply is; nil = there is never more than one attempt at once
	cc      *grpc.ClientConn
	invoke  grpc.UnaryInvoker
	opts    []grpc.CallOption
}

// answer is what one attempt brought.
type answer struct {
	reply           any
	header, trailer metadata.MD
	peer            peer.Peer
}

var _ longpole.Spare[*answer] = (*exchange)(nil)

// Try makes one attempt.
func (x *exchange) Try(ctx context.Context, a longpole.Attempt) (*answer, error) {
	cc, err := conn(x.o, x.cc, a.Endpoint)
	if err != nil {
		return &answer{}, err
	}
	if a.Number > 1 {
		ctx = metadata.AppendToOutgoingContext(ctx, metaPrevious, strconv.Itoa(a.Number-1))
	}
	got := &answer{reply: x.reply}
	if x.like != nil {
		got.reply = x.like.ProtoReflect().New().Interface()
	}
	return got, x.invoke(ctx, x.method, x.request, got.reply, cc, x.options(got)...)
}

// options are the caller's, but none that writes to what other attempts write to.
func (x *exchange) options(a *answer) []grpc.CallOption {
	opts := make([]grpc.CallOption, 0, len(x.opts)+3)
	for _, o := range x.opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption:
		default:
			opts = append(opts, o)
		}
	}
	return append(opts, grpc.Header(&a.header), grpc.Trailer(&a.trailer), grpc.Peer(&a.peer))
}

// give hands the answer to the caller.
func (x *exchange) give(a *answer) {
	if m, ok := a.reply.(proto.Message); ok && x.like != nil {
		proto.Reset(x.like)
		proto.Merge(x.like, m)
	}
	for _, o := range x.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = a.header
		case grpc.TrailerCallOption:
			*o.TrailerAddr = a.trailer
		case grpc.PeerCallOption:
			*o.PeerAddr = a.peer
		}
	}
}

func conn(o *ClientOptions, own *grpc.ClientConn, endpoint string) (*grpc.ClientConn, error) {
	if o.Conn == nil || endpoint == "" {
		return own, nil
	}
	return o.Conn(endpoint)
}

// Judge says how an attempt ended.
func (x *exchange) Judge(a *answer, err error) call.Outcome { return judge(err, a.trailer) }

// Discard has nothing to release: a unary answer is read to its end.
func (x *exchange) Discard(*answer) {}

// Hold needs nothing more.
func (x *exchange) Hold(a *answer, release func()) *answer {
	release()
	return a
}

// Fallback asks the caller's.
func (x *exchange) Fallback(ctx context.Context, _ longpole.Fallback, _ call.Class, err error) (*answer, error) {
	if x.o.Fallback == nil {
		return nil, longpole.ErrNoFallback
	}
	a := &answer{reply: x.reply}
	if x.like != nil {
		a.reply = x.like.ProtoReflect().New().Interface()
	}
	if err := x.o.Fallback(ctx, x.method, x.request, a.reply, err); err != nil {
		return nil, err
	}
	return a, nil
}

package lab

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/longpole/longpole/internal/scenario"
)

// An operation over gRPC is the method /SERVICE/OPERATION. It takes an Int64Value, the key that the call is about, and gives
// a BytesValue of the operation's size, both of google/protobuf/wrappers.proto: any client can call it without a file of its own.

// streams is how many calls a server takes on one connection at once: those of a gateway all come on one.
const streams = 2000

// carrier carries a span's identity in a call's metadata.
type carrier metadata.MD

// Get is the first value of key; "" = there is none.
func (c carrier) Get(key string) string { return strings.Join(metadata.MD(c).Get(key), ",") }

// Set puts a value in.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys is all that have a value.
func (c carrier) Keys() []string {
	var keys []string
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// grpcServer answers the operations of n. It stands behind the server of n, which speaks HTTP/2 in the clear for it, so that
// health checks and the faults of connections are the same for all protocols.
func (n *node) grpcServer() *grpc.Server {
	return grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		name, ok := strings.CutPrefix(method, "/"+n.spec.Name+"/")
		o := n.spec.Operation(name)
		if !ok || o == nil {
			return grpcstatus.Errorf(codes.Unimplemented, "lab: there is no method %s", method)
		}
		return n.handleGRPC(s, o)
	}))
}

func (n *node) handleGRPC(s grpc.ServerStream, o *scenario.Operation) error {
	var key wrapperspb.Int64Value
	if err := s.RecvMsg(&key); err != nil {
		return err
	}
	ctx := s.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	code, size := n.answer(wire.Extract(ctx, carrier(md)), o, incoming{
		key: int(key.GetValue()), name: n.spec.Name + "/" + o.Name,
		attributes: []attribute.KeyValue{semconv.RPCSystemNameGRPC, semconv.RPCMethod(n.spec.Name + "/" + o.Name)},
		ended:      endedGRPC,
	})
	if code != http.StatusOK {
		return grpcstatus.Error(codeOf(code), "lab: the operation failed")
	}
	return s.SendMsg(wrapperspb.Bytes(make([]byte, size)))
}

// endedGRPC tells how a call ended, in its SERVER span.
func endedGRPC(at *span, code int, size int64) {
	c := codeOf(code)
	at.set(semconv.RPCResponseStatusCode(nameOf(c)))
	switch c {
	case codes.OK:
		at.set(responseSize(size))
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		at.fail(nameOf(c))
	}
}

// responseSize has no name in the conventions for spans; this is that of the metric.
func responseSize(n int64) attribute.KeyValue { return attribute.Int64("rpc.server.response.size", n) }

// codeOf is the code for a status of HTTP, as google/rpc/code.proto pairs them.
func codeOf(status int) codes.Code {
	switch status {
	case http.StatusOK:
		return codes.OK
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.Aborted
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case clientGone:
		return codes.Canceled
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// nameOf is a code as the conventions spell it.
func nameOf(c codes.Code) string { return code.Code(c).String() }

// conns are the connections of this process's clients, one for each server, as grpc-go shares them.
type conns struct {
	mu  sync.Mutex
	all map[string]*grpc.ClientConn
}

// to finds the connection to a base URL, http://HOST:PORT.
func (c *conns) to(url string) (*grpc.ClientConn, error) {
	address := strings.TrimPrefix(url, "http://")
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.all[address]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, err
	}
	if c.all == nil {
		c.all = map[string]*grpc.ClientConn{}
	}
	c.all[address] = conn
	return conn, nil
}

func (c *conns) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.all {
		errs = append(errs, conn.Close())
	}
	c.all = nil
	return errors.Join(errs...)
}

// callGRPC is one attempt over gRPC, in its CLIENT span.
func (x *walk) callGRPC(ctx context.Context, c *scenario.Call, key, try int) error {
	service, operation, _ := strings.Cut(c.To, ".")
	ctx, s := x.node.begin(ctx, trace.SpanKindClient, service+"/"+operation)
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	target := x.node.sys.target(service)
	s.set(semconv.RPCSystemNameGRPC, semconv.RPCMethod(service+"/"+operation)).at(service, target[strings.LastIndexByte(target, ':')+1:])
	if try > 0 {
		s.set(attribute.Int("grpc.previous-rpc-attempts", try))
	}
	md := metadata.MD{}
	wire.Inject(ctx, carrier(md))
	md.Set("idempotency-key", s.SpanContext().SpanID().String()) // what a GET says by its method: it may be made twice
	var answer wrapperspb.BytesValue
	conn, err := x.node.sys.conns.to(target)
	if err == nil {
		err = conn.Invoke(metadata.NewOutgoingContext(ctx, md), "/"+service+"/"+operation, wrapperspb.Int64(int64(key)), &answer)
	}
	got := grpcstatus.Code(err)
	s.set(semconv.RPCResponseStatusCode(nameOf(got)))
	if err == nil {
		s.set(responseSize(int64(len(answer.GetValue()))))
		return nil
	}
	switch {
	case ctx.Err() != nil:
		s.fail(failureOf(ctx))
		return &failure{status: statusAfter(ctx), reason: err.Error()}
	default:
		s.fail(nameOf(got))
		return &failure{status: http.StatusBadGateway, reason: c.To + " answered " + strconv.Quote(nameOf(got))}
	}
}

package grpcpolicy

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ServerOptions of the server's interceptors. The zero value means the defaults given at each field.
type ServerOptions struct {
	// Limit admits calls; nil = all are. It may be shared by several servers of a process.
	Limit *limit.Limiter
	// Info says what the limiter may know of a call. nil = Info of this package, with limit.Exempt for the health
	// service and for probes.
	Info func(ctx context.Context, method string) call.Info
	// MinLeft refuses a call with less time left than this. 0 = only when none is left.
	MinLeft time.Duration
	// Pushback is what a shed caller is told to wait; default 1s.
	Pushback time.Duration
	// Load reports the load of this process in the trailer of each answer; nil = not.
	Load *balance.ServerLoad
}

const healthService = "/grpc.health.v1.Health/"

// serverInfo is Info of a server that must answer those who watch it.
func serverInfo(ctx context.Context, method string) call.Info {
	info := Info(ctx, method)
	if len(method) > len(healthService) && method[:len(healthService)] == healthService || method == probeMethod {
		info.Priority = limit.Exempt
	}
	return info
}

func (o ServerOptions) withDefaults() *ServerOptions {
	if o.Info == nil {
		o.Info = serverInfo
	}
	if o.Pushback == 0 {
		o.Pushback = time.Second
	}
	return &o
}

// UnaryServer admits unary calls. What it refuses never reaches the handler: ResourceExhausted, with a pushback, when
// there are too many calls; DeadlineExceeded when too little time is left.
//
// A handler that returns the error of a UnaryClient as it is tells its own caller not to try again what was tried again
// here, or what the retry budget here forbade: retries do not multiply from tier to tier.
func UnaryServer(o ServerOptions) grpc.UnaryServerInterceptor {
	p := o.withDefaults()
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (reply any, err error) {
		v, err := p.admit(ctx, info.FullMethod, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
		if err != nil {
			return nil, err
		}
		defer v.end(ctx, &err)
		reply, err = handle(ctx, request)
		v.returned = true
		return reply, err
	}
}

// StreamServer admits streams as UnaryServer does calls. The permit is given back when the first message is sent: a
// stream that stays open holds none.
func StreamServer(o ServerOptions) grpc.StreamServerInterceptor {
	p := o.withDefaults()
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		ctx := stream.Context()
		v, err := p.admit(ctx, info.FullMethod, stream.SetTrailer)
		if err != nil {
			return err
		}
		defer v.end(ctx, &err)
		err = handle(srv, &serverStream{ServerStream: stream, v: v})
		v.returned = true
		return err
	}
}

type serverStream struct {
	grpc.ServerStream
	v *visit
}

// SendMsg sends; the first message is the head of the answer.
func (s *serverStream) SendMsg(m any) error {
	s.v.head(call.Outcome{Class: call.OK})
	return s.ServerStream.SendMsg(m)
}

// visit is one call at the server.
type visit struct {
	o        *ServerOptions
	trailer  func(metadata.MD)
	arrived  time.Time
	start    time.Time // when it was admitted
	permit   limit.Ticket
	rif      int
	counted  bool // in the load
	returned bool // the handler did not panic
	once     sync.Once
	took     time.Duration // from arrival to the head
}

func (o *ServerOptions) admit(ctx context.Context, method string, trailer func(metadata.MD)) (*visit, error) {
	now := time.Now()
	v := &visit{o: o, trailer: trailer, arrived: now, start: now}
	info := o.Info(ctx, method)
	deadline, ok := ctx.Deadline()
	if ok && deadline.Sub(now) <= o.MinLeft {
		return nil, status.FromContextError(context.DeadlineExceeded).Err()
	}
	if o.Load != nil && info.Priority <= call.Critical {
		v.rif, v.counted = o.Load.Begin(), true
	}
	if o.Limit == nil {
		return v, nil
	}
	v.permit = o.Limit.Admit(now, info, deadline)
	if err := longpole.Await(ctx, o.Limit, v.permit); err != nil {
		v.report(time.Now(), false)
		return nil, v.refusal(err)
	}
	v.start = time.Now()
	return v, nil
}

// refusal is the status of a call that was not admitted.
func (v *visit) refusal(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, limit.ErrDoomed):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	wait := v.o.Pushback
	if errors.Is(err, limit.ErrRate) {
		wait = v.permit.RetryAfter()
	}
	ms := int64((wait + time.Millisecond - 1) / time.Millisecond)
	v.trailer(metadata.Pairs(metaPushback, strconv.FormatInt(ms, 10)))
	return status.Error(codes.ResourceExhausted, err.Error())
}

// head ends what the limiter and the load count. Only the first of several counts.
func (v *visit) head(out call.Outcome) {
	v.once.Do(func() {
		now := time.Now()
		out.Latency, v.took = now.Sub(v.start), now.Sub(v.arrived)
		if v.o.Limit != nil {
			v.o.Limit.Done(now, v.permit, out)
		}
		v.report(now, out.Class == call.OK || out.Class == call.Client)
	})
}

func (v *visit) report(now time.Time, good bool) {
	if v.counted {
		v.o.Load.End(now, v.rif, now.Sub(v.arrived), good)
	}
}

// end is the end of the handler, a panic included.
func (v *visit) end(ctx context.Context, err *error) {
	out := judge(*err, nil)
	switch {
	case !v.returned:
		out.Class = call.Server
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		out.Class = call.Timeout
	case ctx.Err() != nil:
		out.Class = call.Canceled
	}
	v.head(out)
	if mendedBelow(*err) {
		v.trailer(metadata.Pairs(metaPushback, "-1"))
	}
	if v.counted {
		v.trailer(metadata.Pairs(metaLoad, v.o.Load.Load(time.Now()).String()))
	}
}

// mendedBelow reports an error of a policy that has tried all it may: nobody above should try again.
func mendedBelow(err error) bool {
	var e *longpole.Error
	return errors.As(err, &e) && retry.Passed(call.Outcome{Class: e.Class, Pushback: e.Pushback}, e.Attempts, err).Pushback < 0
}

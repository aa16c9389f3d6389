package grpcpolicy

import (
	"context"
	"errors"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	metaLoad    = "x-server-load" // "rif=3, latency-us=1250", as the header of httppolicy
	probeMethod = "/longpole.v1.ServerLoad/Probe"
)

var errNoLoad = errors.New("grpcpolicy: the answer tells no load")

// RegisterProbe adds to s the method that answers probes: longpole.v1.ServerLoad/Probe, of google.protobuf.Empty to
// google.protobuf.Empty, with the load in the header metadata x-server-load.
func RegisterProbe(s grpc.ServiceRegistrar, load *balance.ServerLoad) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "longpole.v1.ServerLoad",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Probe",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(emptypb.Empty)
				if err := decode(in); err != nil {
					return nil, err
				}
				err := grpc.SetHeader(ctx, metadata.Pairs(metaLoad, load.Load(time.Now()).String()))
				return in, err
			},
		}},
	}, nil)
}

// NewProber asks endpoints for their load over their connections, such as Pool.Conn gives, for longpole.Policy.SetProber.
func NewProber(conn func(endpoint string) (*grpc.ClientConn, error)) longpole.Prober {
	return func(ctx context.Context, endpoint string) (balance.Load, error) {
		cc, err := conn(endpoint)
		if err != nil {
			return balance.Load{}, err
		}
		var header metadata.MD
		var empty emptypb.Empty
		if err := cc.Invoke(ctx, probeMethod, &empty, &empty, grpc.Header(&header)); err != nil {
			return balance.Load{}, err
		}
		l, ok := parseLoad(header)
		if !ok {
			return balance.Load{}, errNoLoad
		}
		return l, nil
	}
}

// Load reads the report of a server in an answer.
func (x *exchange) Load(a *answer) (balance.Load, bool) { return parseLoad(a.trailer) }

// parseLoad reads x-server-load.
func parseLoad(md metadata.MD) (balance.Load, bool) {
	v := md.Get(metaLoad)
	if len(v) == 0 {
		return balance.Load{}, false
	}
	return balance.ParseLoad(v[0])
}

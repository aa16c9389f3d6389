package grpcpolicy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// place is one server of the health service, whose calls a test scripts.
type place struct {
	health.UnimplementedHealthServer
	check func(ctx context.Context, n int64) (*health.HealthCheckResponse, error)
	watch func(s grpc.ServerStreamingServer[health.HealthCheckResponse]) error
	calls atomic.Int64
}

func (p *place) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	return p.check(ctx, p.calls.Add(1))
}

func (p *place) Watch(_ *health.HealthCheckRequest, s grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
	p.calls.Add(1)
	return p.watch(s)
}

var serving = &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}

// network is one in memory.
type network struct {
	mu sync.Mutex
	at map[string]*bufconn.Listener
}

func newNetwork() *network { return &network{at: map[string]*bufconn.Listener{}} }

func (n *network) serve(t testing.TB, name string, p *place, more func(*grpc.Server), opts ...grpc.ServerOption) {
	l := bufconn.Listen(64 << 10)
	n.mu.Lock()
	n.at[name] = l
	n.mu.Unlock()
	s := grpc.NewServer(opts...)
	health.RegisterHealthServer(s, p)
	if more != nil {
		more(s)
	}
	var run sync.WaitGroup
	run.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); run.Wait() })
}

func (n *network) dial(ctx context.Context, name string) (net.Conn, error) {
	n.mu.Lock()
	l := n.at[name]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial"}
	}
	return l.DialContext(ctx)
}

// client calls the health service under c; all its calls are idempotent.
func (n *network) client(t testing.TB, c longpole.Config, o ClientOptions, names ...string) (health.HealthClient, *longpole.Policy) {
	t.Helper()
	p, err := longpole.New(c, balance.NewSet(names...))
	if err != nil {
		t.Fatal(err)
	}
	pool := NewPool(grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	target := make([]string, len(names))
	for i, name := range names {
		target[i] = "passthrough:///" + name
	}
	o.Conn = func(e string) (*grpc.ClientConn, error) { return pool.Conn("passthrough:///" + e) }
	if o.Info == nil {
		o.Info = func(_ context.Context, method string) call.Info { return call.Info{Route: method, Idempotent: true} }
	}
	cc, err := grpc.NewClient(target[0], grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(UnaryClient(p, o)), grpc.WithStreamInterceptor(StreamClient(p, o)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close(); _ = pool.Close(); p.Close() })
	return health.NewHealthClient(cc), p
}

func record(rec *call.Record) ClientOptions {
	return ClientOptions{Observe: func(r *call.Record) { *rec = *r }}
}

func atOnce() *retry.Config {
	return &retry.Config{BaseDelay: 1, MaxDelay: 1, MinPerSecond: 1000}
}

var inTurn = &balance.Config{Algorithm: balance.RoundRobin}

func dialer(n *network) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(insecure.NewCredentials())}
}

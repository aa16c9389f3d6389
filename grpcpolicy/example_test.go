package grpcpolicy_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/grpcpolicy"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

// A server admits what it can serve. A client calls it, and one that is down, under one policy: no call fails.
func Example() {
	listener := bufconn.Listen(1 << 16) // a real one would be net.Listen
	admission := grpcpolicy.ServerOptions{Limit: limit.New(limit.Config{Queue: &limit.Queue{}}), MinLeft: 5 * time.Millisecond}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(grpcpolicy.UnaryServer(admission)),
		grpc.StreamInterceptor(grpcpolicy.StreamServer(admission)),
	)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	policy, err := longpole.New(longpole.Config{
		Timeout: 2 * time.Second,
		Retry:   &retry.Config{BaseDelay: time.Millisecond, MinPerSecond: 10},
		Balance: &balance.Config{Algorithm: balance.RoundRobin},
		Breaker: &breaker.Config{},
	}, balance.NewSet("passthrough:///down", "passthrough:///up"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer policy.Close()
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) {
			if name == "down" {
				return nil, fmt.Errorf("connection refused")
			}
			return listener.DialContext(ctx)
		}),
	}
	pool := grpcpolicy.NewPool(dial...)
	defer pool.Close()
	conn, err := grpc.NewClient("passthrough:///up", append(dial, grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(
		grpcpolicy.UnaryClient(policy, grpcpolicy.ClientOptions{
			Conn: pool.Conn,
			// To check twice does no harm; the definition of the health service does not say so.
			Info: func(_ context.Context, method string) call.Info { return call.Info{Route: method, Idempotent: true} },
		})))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	for range 3 {
		res, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		fmt.Println(res.GetStatus(), err)
	}
	// Output:
	// SERVING <nil>
	// SERVING <nil>
	// SERVING <nil>
}

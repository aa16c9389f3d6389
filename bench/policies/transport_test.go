package policies

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/grpcpolicy"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

// nowhere answers without a network: what is measured is what stands in front of it.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
}

func BenchmarkRoundTripper(b *testing.B) {
	run := func(b *testing.B, t http.RoundTripper) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://a/", nil)
		if err != nil {
			b.Fatal(err)
		}
		both(b, func() {
			res, err := t.RoundTrip(r)
			if err != nil {
				b.Error(err)
				return
			}
			_ = res.Body.Close()
		})
	}
	b.Run("bare", func(b *testing.B) { run(b, nowhere{}) })
	b.Run("longpole-retry+breaker", func(b *testing.B) {
		p := policy(b, longpole.Config{Retry: &retry.Config{}, Breaker: &breaker.Config{}})
		run(b, httppolicy.NewTransport(p, nowhere{}, httppolicy.Options{}))
	})
	b.Run("failsafe-retry+breaker", func(b *testing.B) {
		run(b, failsafehttp.NewRoundTripper(nowhere{}, failsafehttp.NewRetryPolicyBuilder().Build(), circuitbreaker.NewWithDefaults[*http.Response]()))
	})
}

// BenchmarkGRPC makes calls of the health service over a connection in memory.
func BenchmarkGRPC(b *testing.B) {
	const withRetry = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.025s",
		"maxBackoff": "0.25s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}], "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}`
	server := func(b *testing.B, opts ...grpc.ServerOption) *bufconn.Listener {
		l := bufconn.Listen(1 << 20)
		s := grpc.NewServer(opts...)
		grpc_health_v1.RegisterHealthServer(s, health.NewServer())
		go func() { _ = s.Serve(l) }()
		b.Cleanup(s.Stop)
		return l
	}
	run := func(b *testing.B, l *bufconn.Listener, opts ...grpc.DialOption) {
		cc, err := grpc.NewClient("passthrough:///mem", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
		if err != nil {
			b.Fatal(err)
		}
		defer cc.Close()
		client, ctx := grpc_health_v1.NewHealthClient(cc), context.Background()
		both(b, func() {
			if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
				b.Error(err)
			}
		})
	}
	idempotent := grpcpolicy.ClientOptions{Info: func(_ context.Context, m string) call.Info { return call.Info{Route: m, Idempotent: true} }}
	b.Run("bare", func(b *testing.B) { run(b, server(b), grpc.WithDisableRetry()) })
	b.Run("grpc-retry", func(b *testing.B) { run(b, server(b), grpc.WithDefaultServiceConfig(withRetry)) })
	b.Run("longpole-retry+breaker", func(b *testing.B) {
		p := policy(b, longpole.Config{Retry: &retry.Config{}, Breaker: &breaker.Config{}})
		run(b, server(b), grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(grpcpolicy.UnaryClient(p, idempotent)))
	})
	b.Run("longpole-all+server", func(b *testing.B) {
		p := policy(b, longpole.Config{Timeout: time.Second, Limit: &limit.Config{}, Retry: &retry.Config{}, Breaker: &breaker.Config{}})
		o := grpcpolicy.ServerOptions{Limit: limit.New(limit.Config{}), Load: new(balance.ServerLoad), Info: grpcpolicy.Info}
		run(b, server(b, grpc.UnaryInterceptor(grpcpolicy.UnaryServer(o))), grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(grpcpolicy.UnaryClient(p, idempotent)))
	})
}

package grpcpolicy

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ResourceExhausted is gRPC's 429: worth another attempt only when the server says when.
func TestResourceExhaustedIsRetriedWhenTheServerSaysWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for push, want := range map[string]struct {
			calls int64
			took  time.Duration
		}{"": {1, 0}, "-1": {1, 0}, "0": {2, 0}, "1500": {2, 1500 * ms}, strconv.Itoa(int(retry.MaxPushback/ms) + 1): {1, 0}} {
			n := newNetwork()
			a := &place{check: func(ctx context.Context, i int64) (*health.HealthCheckResponse, error) {
				if i > 1 {
					return serving, nil
				}
				if push != "" {
					_ = grpc.SetTrailer(ctx, metadata.Pairs(metaPushback, push))
				}
				return nil, status.Error(codes.ResourceExhausted, "quota")
			}}
			n.serve(t, "a", a, nil)
			c, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{}, "a")
			start := time.Now()
			_, err := c.Check(t.Context(), nil)
			if took := time.Since(start).Truncate(ms); a.calls.Load() != want.calls || took != want.took || (err == nil) != (want.calls == 2) {
				t.Errorf("%q: %d calls in %v, %v", push, a.calls.Load(), took, err)
			}
		}
	})
}

func TestWhatIsNotIdempotentIsNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		for _, name := range []string{"a", "b"} {
			n.serve(t, name, &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
				time.Sleep(time.Second)
				return serving, nil
			}}, nil)
		}
		rc := atOnce()
		rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		for _, info := range []call.Info{{}, {Idempotent: true}} {
			var rec call.Record
			o := record(&rec)
			o.Info = func(context.Context, string) call.Info { return info }
			c, _ := n.client(t, longpole.Config{Retry: rc, Balance: inTurn}, o, "a", "b")
			want := 1
			if info.Idempotent {
				want = 2
			}
			if _, err := c.Check(t.Context(), nil); err != nil || rec.Count != want {
				t.Errorf("%+v: %d attempts, want %d; %v", info, rec.Count, want, err)
			}
		}
		time.Sleep(time.Minute) // the loser's handler
	})
}

// The health service answers while the server refuses everything else.
func TestAHealthCheckPassesAFullServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1})
		held := l.Admit(time.Now(), call.Info{}, time.Time{})
		defer l.Done(time.Now(), held, call.Outcome{})
		n := newNetwork()
		n.serve(t, "a", &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) { return serving, nil }}, nil,
			grpc.UnaryInterceptor(UnaryServer(ServerOptions{Limit: l})))
		c, _ := n.client(t, longpole.Config{}, ClientOptions{}, "a")
		if res, err := c.Check(t.Context(), nil); err != nil || res.GetStatus() != serving.Status || l.Counts().Admitted != 1 {
			t.Error(res, err, l.Counts())
		}
	})
}

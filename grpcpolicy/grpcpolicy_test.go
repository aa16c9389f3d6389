package grpcpolicy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestOutcomesOfStatuses(t *testing.T) {
	push := metadata.Pairs(metaPushback, "250")
	never := metadata.Pairs(metaPushback, "-1")
	for _, c := range []struct {
		code    codes.Code
		trailer metadata.MD
		want    call.Outcome
	}{
		{codes.OK, nil, call.Outcome{}},
		{codes.Canceled, nil, call.Outcome{Class: call.Canceled}},
		{codes.DeadlineExceeded, nil, call.Outcome{Class: call.Timeout}},
		{codes.Unavailable, push, call.Outcome{Class: call.Server, Pushback: 250 * ms}},
		{codes.Unavailable, never, call.Outcome{Class: call.Server, Pushback: -1}},
		{codes.Unavailable, metadata.Pairs(metaPushback, "x"), call.Outcome{Class: call.Server, Pushback: -1}},
		{codes.Unavailable, metadata.Pairs(metaPushback, "0"), call.Outcome{Class: call.Server, Pushback: 1}},
		{codes.Internal, nil, call.Outcome{Class: call.Server}},
		{codes.Unknown, nil, call.Outcome{Class: call.Server}},
		{codes.DataLoss, nil, call.Outcome{Class: call.Server}},
		{codes.ResourceExhausted, nil, call.Outcome{Class: call.Client}},
		{codes.ResourceExhausted, push, call.Outcome{Class: call.Server, Pushback: 250 * ms}},
		{codes.InvalidArgument, nil, call.Outcome{Class: call.Client}},
		{codes.NotFound, nil, call.Outcome{Class: call.Client}},
		{codes.Aborted, nil, call.Outcome{Class: call.Client}},
		{codes.Unimplemented, nil, call.Outcome{Class: call.Client}},
	} {
		if got := judge(status.Error(c.code, ""), c.trailer); got != c.want {
			t.Errorf("%v %v: %+v, want %+v", c.code, c.trailer, got, c.want)
		}
	}
}

func TestAFailureIsTriedElsewhereAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var previous []string
		answer := func(err error) *place {
			return &place{check: func(ctx context.Context, _ int64) (*health.HealthCheckResponse, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				previous = append(previous, fmt.Sprint(md.Get(metaPrevious)))
				return serving, err
			}}
		}
		n.serve(t, "a", answer(status.Error(codes.Unavailable, "restarting")), nil)
		n.serve(t, "b", answer(nil), nil)
		var rec call.Record
		c, _ := n.client(t, longpole.Config{Retry: atOnce(), Balance: inTurn}, record(&rec), "a", "b")
		res, err := c.Check(t.Context(), nil)
		if err != nil || res.GetStatus() != serving.Status || fmt.Sprint(previous) != "[[] [1]]" || rec.Count != 2 {
			t.Error(res, err, previous, rec.Kept())
		}
	})
}

func TestWhatIsNotIdempotentIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a := &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			return nil, status.Error(codes.Unavailable, "restarting")
		}}
		n.serve(t, "a", a, nil)
		c, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{Info: Info}, "a")
		var own *longpole.Error
		_, err := c.Check(t.Context(), nil)
		if status.Code(err) != codes.Unavailable || !errors.As(err, &own) || a.calls.Load() != 1 {
			t.Error(err, a.calls.Load())
		}
	})
}

func TestPushbackIsWaitedForAndNeverMeansNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for push, want := range map[string]struct {
			calls int64
			took  time.Duration
		}{"2000": {2, 2 * time.Second}, "-1": {1, 0}} {
			n := newNetwork()
			a := &place{check: func(ctx context.Context, i int64) (*health.HealthCheckResponse, error) {
				if i > 1 {
					return serving, nil
				}
				_ = grpc.SetTrailer(ctx, metadata.Pairs(metaPushback, push))
				return nil, status.Error(codes.Unavailable, "busy")
			}}
			n.serve(t, "a", a, nil)
			c, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{}, "a")
			start := time.Now()
			_, err := c.Check(t.Context(), nil)
			if took := time.Since(start).Truncate(ms); a.calls.Load() != want.calls || took != want.took || (err == nil) != (want.calls == 2) {
				t.Errorf("%s: %d calls in %v, %v", push, a.calls.Load(), took, err)
			}
		}
	})
}

func TestTheWinnersAnswerAndMetadataAreTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		serve := func(name string, took time.Duration) {
			n.serve(t, name, &place{check: func(ctx context.Context, _ int64) (*health.HealthCheckResponse, error) {
				_ = grpc.SetHeader(ctx, metadata.Pairs("from", name))
				_ = grpc.SetTrailer(ctx, metadata.Pairs("end", name))
				time.Sleep(took)
				return serving, nil
			}}, nil)
		}
		serve("a", time.Minute)
		serve("b", 10*ms)
		rc := atOnce()
		rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		var rec call.Record
		c, _ := n.client(t, longpole.Config{Retry: rc, Balance: inTurn}, record(&rec), "a", "b")
		var header, trailer metadata.MD
		start := time.Now()
		res, err := c.Check(t.Context(), nil, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || res.GetStatus() != serving.Status || time.Since(start) != 60*ms || !rec.Attempts[1].Hedge || !rec.Attempts[1].Won {
			t.Error(res, err, time.Since(start), rec.Kept())
		}
		if header.Get("from")[0] != "b" || trailer.Get("end")[0] != "b" {
			t.Error(header, trailer)
		}
		time.Sleep(2 * time.Minute) // the loser's handler
	})
}

func TestTheDeadlineTravelsAndDoomedWorkIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var left time.Duration
		a := &place{check: func(ctx context.Context, _ int64) (*health.HealthCheckResponse, error) {
			d, _ := ctx.Deadline()
			left = time.Until(d)
			return serving, nil
		}}
		n.serve(t, "a", a, nil, grpc.UnaryInterceptor(UnaryServer(ServerOptions{MinLeft: 100 * ms})))
		c, p := n.client(t, longpole.Config{Timeout: time.Second}, ClientOptions{}, "a")
		if _, err := c.Check(t.Context(), nil); err != nil || left <= 990*ms || left > time.Second {
			t.Error(err, left)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		if _, err := c.Check(short, nil); status.Code(err) != codes.DeadlineExceeded || a.calls.Load() != 1 {
			t.Error("by the server:", err, a.calls.Load())
		}
		if err := p.Reconfigure(longpole.Config{Timeout: time.Second, MinTry: 100 * ms}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Check(short, nil); status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, longpole.ErrTooLate) {
			t.Error("by the client:", err)
		}
	})
}

func TestErrorsOfThePolicyHaveAStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a", &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			return nil, status.Error(codes.Internal, "bug")
		}}, nil)
		c, _ := n.client(t, longpole.Config{Breaker: &breaker.Config{MinCalls: 1}}, ClientOptions{}, "a")
		_, _ = c.Check(t.Context(), nil)
		if _, err := c.Check(t.Context(), nil); status.Code(err) != codes.Unavailable || !errors.Is(err, breaker.ErrOpen) {
			t.Error(err)
		}
	})
}

func TestTheFallbackOfTheProgramIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a", &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			return nil, status.Error(codes.Internal, "bug")
		}}, nil)
		o := ClientOptions{Fallback: func(_ context.Context, method string, _, reply any, err error) error {
			reply.(*health.HealthCheckResponse).Status = health.HealthCheckResponse_UNKNOWN
			return nil
		}}
		c, _ := n.client(t, longpole.Config{Fallback: &longpole.Fallback{}}, o, "a")
		if res, err := c.Check(t.Context(), nil); err != nil || res.GetStatus() != health.HealthCheckResponse_UNKNOWN {
			t.Error(res, err)
		}
	})
}

func TestBeyondTheLimitIsShedWithAPushback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1})
		n := newNetwork()
		a := &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			time.Sleep(time.Second)
			return serving, nil
		}}
		n.serve(t, "a", a, nil, grpc.UnaryInterceptor(UnaryServer(ServerOptions{Limit: l, Info: Info})))
		c, _ := n.client(t, longpole.Config{}, ClientOptions{}, "a")
		first := make(chan error, 1)
		go func() { _, err := c.Check(t.Context(), nil); first <- err }()
		time.Sleep(ms)
		var trailer metadata.MD
		_, err := c.Check(t.Context(), nil, grpc.Trailer(&trailer))
		if status.Code(err) != codes.ResourceExhausted || trailer.Get(metaPushback)[0] != "1000" {
			t.Error(err, trailer)
		}
		if err := <-first; err != nil || a.calls.Load() != 1 || l.InFlight() != 0 {
			t.Error(err, a.calls.Load(), l.InFlight())
		}
	})
}

func TestTheHealthServiceIsNeverShed(t *testing.T) {
	if got := serverInfo(context.Background(), "/grpc.health.v1.Health/Check").Priority; got != limit.Exempt {
		t.Error(got)
	}
	if got := serverInfo(context.Background(), "/orders.v1.Orders/Get").Priority; got != call.Normal {
		t.Error(got)
	}
}

// Three tiers of three attempts make 27 calls of one; with the word passed on they make three.
func TestRetriesDoNotMultiplyFromTierToTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		bottom := &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			return nil, status.Error(codes.Unavailable, "down")
		}}
		server := grpc.UnaryInterceptor(UnaryServer(ServerOptions{}))
		n.serve(t, "c", bottom, nil, server)
		toC, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{}, "c")
		n.serve(t, "b", &place{check: func(ctx context.Context, _ int64) (*health.HealthCheckResponse, error) { return toC.Check(ctx, nil) }}, nil, server)
		toB, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{}, "b")
		n.serve(t, "a", &place{check: func(ctx context.Context, _ int64) (*health.HealthCheckResponse, error) { return toB.Check(ctx, nil) }}, nil, server)
		toA, _ := n.client(t, longpole.Config{Retry: atOnce()}, ClientOptions{}, "a")
		if _, err := toA.Check(t.Context(), nil); status.Code(err) != codes.Unavailable || bottom.calls.Load() != 3 {
			t.Error(err, bottom.calls.Load(), "calls at the bottom")
		}
	})
}

func TestTheLoadIsReportedAndProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := new(balance.ServerLoad)
		n := newNetwork()
		a := &place{check: func(context.Context, int64) (*health.HealthCheckResponse, error) {
			time.Sleep(100 * ms)
			return serving, nil
		}}
		n.serve(t, "a", a, func(s *grpc.Server) { RegisterProbe(s, load) }, grpc.UnaryInterceptor(UnaryServer(ServerOptions{Load: load, Info: Info})))
		pool := NewPool(dialer(n)...)
		defer pool.Close()
		c, p := n.client(t, longpole.Config{Balance: &balance.Config{Algorithm: balance.Prequal}}, ClientOptions{}, "a")
		prober := NewProber(func(string) (*grpc.ClientConn, error) { return pool.Conn("passthrough:///a") })
		p.SetProber(prober)
		var trailer metadata.MD
		for range 3 {
			if _, err := c.Check(t.Context(), nil, grpc.Trailer(&trailer)); err != nil {
				t.Fatal(err)
			}
		}
		want := balance.Load{Latency: 100 * ms}
		if got, ok := parseLoad(trailer); !ok || got != want {
			t.Error(got, ok)
		}
		if got, err := prober(t.Context(), "a"); err != nil || got != want {
			t.Error(got, err)
		}
	})
}

// stream sends three messages, one a second, then ends with err.
func stream(err error) *place {
	return &place{watch: func(s grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
		for range 3 {
			time.Sleep(time.Second)
			if err := s.Send(serving); err != nil {
				return err
			}
		}
		return err
	}}
}

func TestAStreamIsJudgedByItsFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		l := limit.New(limit.Config{})
		n.serve(t, "a", stream(status.Error(codes.Unavailable, "late")), nil, grpc.StreamInterceptor(StreamServer(ServerOptions{Limit: l, Info: Info})))
		var rec call.Record
		c, p := n.client(t, longpole.Config{Limit: &limit.Config{}, Retry: atOnce(), Breaker: &breaker.Config{MinCalls: 1}}, record(&rec), "a")
		s, err := c.Watch(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Limiter().InFlight() != 1 {
			t.Error("no permit before the first message")
		}
		for i := range 3 {
			if _, err := s.Recv(); err != nil {
				t.Fatal(i, err)
			}
			if p.Limiter().InFlight() != 0 || l.InFlight() != 0 {
				t.Error("a stream that is open holds a permit")
			}
		}
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		if rec.Count != 1 || rec.Class != call.OK || rec.Latency != time.Second || p.Breaker(time.Now(), "a") != breaker.Closed {
			t.Errorf("%+v", rec)
		}
	})
}

func TestAStreamThatFailsAtOnceIsNotRepeatedAndOpensTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a := &place{watch: func(grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
			return status.Error(codes.Internal, "bug")
		}}
		n.serve(t, "a", a, nil)
		c, p := n.client(t, longpole.Config{Retry: atOnce(), Breaker: &breaker.Config{MinCalls: 1}}, ClientOptions{}, "a")
		s, err := c.Watch(t.Context(), nil)
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Internal || a.calls.Load() != 1 || p.Breaker(time.Now(), "a") != breaker.Open {
			t.Error(err, a.calls.Load())
		}
		if _, err := c.Watch(t.Context(), nil); !errors.Is(err, breaker.ErrOpen) || status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

func TestAStreamEndsWithItsCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a", stream(nil), nil)
		var ended atomic.Int64
		c, p := n.client(t, longpole.Config{Limit: &limit.Config{}}, ClientOptions{Observe: func(r *call.Record) {
			if r.Class == call.Canceled {
				ended.Add(1)
			}
		}}, "a")
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := c.Watch(ctx, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if p.Limiter().InFlight() != 0 || ended.Load() != 1 {
			t.Error(p.Limiter().InFlight(), ended.Load())
		}
		time.Sleep(time.Minute)
	})
}

func TestTheWholeStreamIsUnderTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a", stream(nil), nil)
		c, _ := n.client(t, longpole.Config{Timeout: 2500 * ms}, ClientOptions{}, "a")
		s, err := c.Watch(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for err == nil {
			if _, err = s.Recv(); err == nil {
				got++
			}
		}
		if got != 2 || status.Code(err) != codes.DeadlineExceeded || errors.Is(err, io.EOF) {
			t.Error(got, err)
		}
		time.Sleep(time.Minute)
	})
}

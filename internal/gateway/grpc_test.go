package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/longpole/longpole/call"
)

// bytesCodec passes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
func (bytesCodec) Name() string { return "bytes" }

// grpcServer runs h for every stream, behind a gateway whose client side is returned.
func grpcServer(t *testing.T, policy string, h grpc.StreamHandler) (*Gateway, *grpc.ClientConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(h), grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(64<<20))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	g := run(t, load(t, strings.Replace(one(policy, "http://"+l.Addr().String()), "gw:80", "127.0.0.1:0", 1)), Options{})
	conn, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return g, conn
}

func echoStream(_ any, s grpc.ServerStream) error {
	for {
		var m []byte
		if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}

func openStream(t *testing.T, ctx context.Context, c *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/s/m")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGRPCStreamsPassInBothDirectionsMessageByMessage(t *testing.T) {
	_, c := grpcServer(t, "{}", echoStream)
	s := openStream(t, t.Context(), c)
	for i := range 100 {
		m := []byte(strconv.Itoa(i))
		if err := s.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if err := s.RecvMsg(&got); err != nil || string(got) != string(m) { // each answer before the next question
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if err := s.CloseSend(); err != nil { // half-close: the server sees the end, and its status still comes
		t.Fatal(err)
	}
	var none []byte
	if err := s.RecvMsg(&none); !errors.Is(err, io.EOF) {
		t.Errorf("after the half-close: %v", err)
	}
}

func TestGRPCLargeMessagesPass(t *testing.T) {
	_, c := grpcServer(t, "{}", echoStream)
	in, out := bytes.Repeat([]byte("longpole"), 2<<20), []byte(nil)
	if err := c.Invoke(t.Context(), "/s/m", &in, &out); err != nil || !bytes.Equal(in, out) {
		t.Errorf("%d bytes of %d, %v", len(out), len(in), err)
	}
}

func TestGRPCStatusArrivesWithMessageAndTrailers(t *testing.T) {
	for _, headed := range []bool{false, true} {
		g, c := grpcServer(t, "{retry: {off: true}, breaker: {off: true}}", func(_ any, s grpc.ServerStream) error {
			if headed {
				_ = s.SendHeader(metadata.Pairs("x-head", "1"))
			}
			s.SetTrailer(metadata.Pairs("x-end", "2"))
			return status.Error(codes.DataLoss, "ünsafe % text")
		})
		var head, end metadata.MD
		in, out := []byte("x"), []byte(nil)
		for range 50 {
			err := c.Invoke(t.Context(), "/s/m", &in, &out, grpc.Header(&head), grpc.Trailer(&end))
			if status.Code(err) != codes.DataLoss || status.Convert(err).Message() != "ünsafe % text" || len(end["x-end"]) != 1 || headed && len(head["x-head"]) != 1 {
				t.Fatalf("headed %v: %v, %v, %v", headed, err, head, end)
			}
		}
		eventually(t, func() bool { return g.Routes()[0].Classes["server"] == 50 })
	}
}

func TestGRPCUnavailableIsRetriedOnlyWithAKeyAndThePushbackHolds(t *testing.T) {
	var calls atomic.Int64
	var push atomic.Value
	push.Store("")
	_, c := grpcServer(t, "{retry: {base_delay: 1ms, budget_ratio: 100%, min_per_second: 1000}, breaker: {off: true}}", func(_ any, s grpc.ServerStream) error {
		var m []byte
		if err := s.RecvMsg(&m); err != nil || string(m) != "question" {
			return status.Error(codes.InvalidArgument, "the message did not come whole")
		}
		if calls.Add(1)%2 == 1 {
			if p := push.Load().(string); p != "" {
				s.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", p))
			}
			return status.Error(codes.Unavailable, "not now")
		}
		return s.SendMsg(&m)
	})
	in, out := []byte("question"), []byte(nil)
	if err := c.Invoke(t.Context(), "/s/m", &in, &out); status.Code(err) != codes.Unavailable || calls.Load() != 1 {
		t.Errorf("without a key: %v after %d", err, calls.Load())
	}
	calls.Store(0)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "1")
	if err := c.Invoke(ctx, "/s/m", &in, &out); err != nil || calls.Load() != 2 || string(out) != "question" {
		t.Errorf("with a key: %v after %d", err, calls.Load())
	}
	calls.Store(0)
	push.Store("-1")
	if err := c.Invoke(ctx, "/s/m", &in, &out); status.Code(err) != codes.Unavailable || calls.Load() != 1 {
		t.Errorf("against the server's wish: %v after %d", err, calls.Load())
	}
}

func TestGRPCDeadlineIsPassedOnAndKept(t *testing.T) {
	left := make(chan time.Duration, 1)
	_, c := grpcServer(t, "{timeout: 1h}", func(_ any, s grpc.ServerStream) error {
		d, ok := s.Context().Deadline()
		if !ok {
			return status.Error(codes.InvalidArgument, "no deadline came")
		}
		left <- time.Until(d)
		<-s.Context().Done()
		return s.Context().Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	in, out := []byte("x"), []byte(nil)
	if err := c.Invoke(ctx, "/s/m", &in, &out); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if d := <-left; d <= 0 || d > 300*time.Millisecond {
		t.Errorf("the server was given %v", d)
	}
}

func TestAGRPCClientThatLeavesCancelsTheServersStream(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	_, c := grpcServer(t, "{}", func(_ any, s grpc.ServerStream) error {
		close(began)
		<-s.Context().Done()
		close(gone)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	s := openStream(t, ctx, c)
	m := []byte("x")
	_ = s.SendMsg(&m)
	<-began
	cancel()
	<-gone
}

func TestAGRPCStreamOutlivesTheTimeoutOfThePolicy(t *testing.T) {
	ask := make(chan struct{})
	_, c := grpcServer(t, "{timeout: 200ms}", func(_ any, s grpc.ServerStream) error {
		m := []byte("first")
		if err := s.SendMsg(&m); err != nil {
			return err
		}
		<-ask
		return s.SendMsg(&m)
	})
	s := openStream(t, t.Context(), c)
	_ = s.CloseSend()
	var m []byte
	if err := s.RecvMsg(&m); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond) // time is the subject: twice the timeout
	close(ask)
	if err := s.RecvMsg(&m); err != nil || string(m) != "first" {
		t.Errorf("got %q, %v", m, err)
	}
	if err := s.RecvMsg(&m); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestAGRPCClientIsRefusedWithAStatus(t *testing.T) {
	file := "listen: 127.0.0.1:0\nupstreams: {up: {endpoints: ['http://127.0.0.1:1']}}\nroutes:\n- {name: all, match: {path: /s}, upstream: up, policy: {retry: {off: true}}}\n"
	g := run(t, load(t, file), Options{})
	c, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, out := []byte("x"), []byte(nil)
	err = c.Invoke(t.Context(), "/s/m", &in, &out)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
	if err = c.Invoke(t.Context(), "/other/m", &in, &out); status.Code(err) != codes.Unimplemented {
		t.Errorf("no route: %v", err)
	}
}

// h2c is a server of HTTP/2 in the clear, and a client for it.
func h2c(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func h2cClient(t *testing.T) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// grpcPost makes one call with a message.
func grpcPost(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	frame := binary.BigEndian.AppendUint32([]byte{0}, 1)
	r := request(t, "POST", url, bytes.NewReader(append(frame, 'x')), append(header, "Content-Type", "application/grpc", "Te", "trailers")...)
	res, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, b, err
}

func TestGRPCTrailersOnlyStaysTrailersOnly(t *testing.T) {
	up := h2c(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "5")
		w.Header().Set("Grpc-Message", "none")
	})
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	for range 200 {
		res, b, err := grpcPost(t, h2cClient(t), "http://"+g.Addr().String()+"/s/m")
		if err != nil || res.Header.Get("Grpc-Status") != "5" || len(b) != 0 || len(res.Trailer) != 0 {
			t.Fatalf("got %+v, %q, %v", res, b, err)
		}
	}
	if c := g.Routes()[0].Classes; c["client"] != 200 {
		t.Errorf("classes are %v", c)
	}
}

func TestAStreamThatTheUpstreamResetsEndsWithAStatus(t *testing.T) {
	up := h2c(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write([]byte{0, 0, 0, 0, 1, 'x'})
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // RST_STREAM with INTERNAL_ERROR
	})
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	res, _, err := grpcPost(t, h2cClient(t), "http://"+g.Addr().String()+"/s/m")
	if err != nil || res.Trailer.Get("Grpc-Status") != "13" || !strings.Contains(res.Trailer.Get("Grpc-Message"), "code 2") {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestResetCodesBecomeStatuses(t *testing.T) {
	for reset, want := range map[uint32]int{0x0: 13, 0x1: 13, 0x2: 13, 0x7: 14, 0x8: 1, 0xb: 8, 0xc: 7} {
		err := fmt.Errorf("read: %w", streamError{StreamID: 1, Code: reset})
		if code, _ := brokenGRPC(err, call.Server); code != want {
			t.Errorf("reset %d: status %d, want %d", reset, code, want)
		}
	}
	if code, _ := brokenGRPC(io.ErrUnexpectedEOF, call.Server); code != grpcUnavailable {
		t.Errorf("a broken connection: %d", code)
	}
	if code, _ := brokenGRPC(io.ErrUnexpectedEOF, call.Timeout); code != grpcDeadlineExceeded {
		t.Errorf("a deadline: %d", code)
	}
}

func TestGRPCStatusesHaveTheClassesOfGrpcpolicy(t *testing.T) {
	tests := []struct {
		status, pushback string
		want             call.Outcome
	}{
		{"0", "", call.Outcome{Class: call.OK}},
		{"1", "", call.Outcome{Class: call.Canceled}},
		{"3", "", call.Outcome{Class: call.Client}},
		{"4", "", call.Outcome{Class: call.Timeout}},
		{"8", "", call.Outcome{Class: call.Client}},
		{"8", "20", call.Outcome{Class: call.Server, Pushback: 20 * time.Millisecond}},
		{"14", "", call.Outcome{Class: call.Server}},
		{"14", "0", call.Outcome{Class: call.Server, Pushback: 1}},
		{"14", "-1", call.Outcome{Class: call.Server, Pushback: -1}},
		{"14", "soon", call.Outcome{Class: call.Server, Pushback: -1}},
		{"odd", "", call.Outcome{Class: call.Server}},
	}
	for _, tt := range tests {
		h := http.Header{grpcStatusField: {tt.status}}
		if tt.pushback != "" {
			h[grpcPushbackField] = []string{tt.pushback}
		}
		if got, ok := grpcOutcome(h); !ok || got != tt.want {
			t.Errorf("%s %s: %+v, %v", tt.status, tt.pushback, got, ok)
		}
	}
	if _, ok := grpcOutcome(http.Header{}); ok {
		t.Error("no status was found")
	}
}

func TestGRPCTimeoutFitsInEightDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "1u", 0: "1u", time.Millisecond: "1000u", 99 * time.Second: "99000000u", 100 * time.Second: "100000m",
		48 * time.Hour: "172800S", 1 << 62: "99999999S",
	} {
		if d == 1<<62 {
			want = strconv.FormatInt(int64(d/time.Second), 10) + "S"
			if len(want) > 9 {
				want = "99999999S"
			}
		}
		if got := grpcTimeout(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestARefusedStreamIsRepeatedWithItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &clientBody{body: io.NopCloser(strings.NewReader("whole")), control: http.NewResponseController(httptest.NewRecorder()), keep: 64, budget: &budget{}}
		in := b.streamed()
		first, _ := in.open()
		got := make([]byte, 3)
		_, _ = io.ReadFull(first, got)
		x := &exchange{body: in}
		if out := x.Judge(nil, streamError{Code: resetRefused}); out.Class != call.Refused {
			t.Errorf("class is %v", out.Class)
		}
		second, err := in.open()
		if err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(second); string(all) != "whole" || err != nil {
			t.Errorf("the second attempt reads %q, %v", all, err)
		}
		if rest, _ := io.ReadAll(first); string(rest) != "le" {
			t.Errorf("the first goes on with %q", rest)
		}
	})
}

func TestABodyThatIsTooLongToKeepIsForOneAttempt(t *testing.T) {
	b := &clientBody{body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100))), control: http.NewResponseController(httptest.NewRecorder()), keep: 64, budget: &budget{}}
	b.budget.take(64, 64)
	pool := b.budget
	in := b.streamed()
	first, _ := in.open()
	if all, err := io.ReadAll(first); len(all) != 100 || err != nil {
		t.Errorf("%d bytes, %v", len(all), err)
	}
	if _, err := in.open(); !errors.Is(err, errSpent) {
		t.Errorf("got %v", err)
	}
	x := &exchange{body: in}
	if out := x.Judge(&http.Response{StatusCode: 503}, nil); out.Class != call.Server || out.Pushback != -1 {
		t.Errorf("a failure that cannot be repeated: %+v", out)
	}
	if pool.used.Load() != 0 {
		t.Errorf("%d bytes are still reserved", pool.used.Load())
	}
}

func TestManyStreamsShareOneConnection(t *testing.T) {
	streams := 1 << 16
	if testing.Short() || raceEnabled {
		streams = 1 << 11
	}
	g, c := grpcServer(t, "{}", echoStream)
	var run sync.WaitGroup
	var failed atomic.Int64
	for range 64 {
		run.Go(func() {
			for range streams / 64 {
				in, out := []byte("x"), []byte(nil)
				if err := c.Invoke(t.Context(), "/s/m", &in, &out); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	run.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of %d failed", failed.Load(), streams)
	}
	_ = g
}

func TestGOAWAYLetsTheStreamsThatRunEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(echoStream), grpc.ForceServerCodecV2(bytesCodec{}))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	g := run(t, load(t, strings.Replace(one("{}", "http://"+l.Addr().String()), "gw:80", "127.0.0.1:0", 1)), Options{})
	c, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st := openStream(t, t.Context(), c)
	m := []byte("x")
	exchangeOne := func() {
		t.Helper()
		if err := st.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
		if err := st.RecvMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	exchangeOne()
	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }() // GOAWAY, and no new connection
	eventually(t, func() bool {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	exchangeOne()
	_ = st.CloseSend()
	if err := st.RecvMsg(&m); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	<-stopped
	<-done
}

// eventually waits for what another goroutine does after the answer.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("it never came to be")
}

package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// serve2 is an upstream of HTTP/2 that does what h says for each stream that is opened. conn counts its connections.
func (n *network) serve2(t *testing.T, address string, h func(f *frames, conn int, id uint32)) {
	t.Helper()
	l, err := n.listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for count := 1; ; count++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f := &frames{Framer: http2.NewFramer(c, c), conn: c}
				f.AllowIllegalWrites = true
				f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				f.enc = hpack.NewEncoder(&f.buf)
				if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
					return
				}
				writes := make(chan func(), 100) // a pipe holds nothing: who only writes would not read
				defer close(writes)
				go func() {
					for w := range writes {
						w()
					}
				}()
				writes <- func() { _ = f.WriteSettings() }
				for {
					fr, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch fr := fr.(type) {
					case *http2.SettingsFrame:
						if !fr.IsAck() {
							writes <- func() { _ = f.WriteSettingsAck() }
						}
					case *http2.PingFrame:
						if data := fr.Data; !fr.IsAck() {
							writes <- func() { _ = f.WritePing(true, data) }
						}
					case *http2.MetaHeadersFrame:
						id := fr.StreamID
						writes <- func() { h(f, count, id) }
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// answer2 writes a whole gRPC answer with one message.
func answer2(f *frames, id uint32) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
	_ = f.WriteData(id, false, []byte{0, 0, 0, 0, 1, 'x'})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block("grpc-status", "0"), EndHeaders: true, EndStream: true})
}

// grpcAsk makes one call over the network and returns its status, in the head or in the trailers.
func (n *network) grpcAsk(t *testing.T, header ...string) string {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{DialContext: n.dial, Protocols: p, DisableCompression: true}
	defer tr.CloseIdleConnections()
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, 1), 'x')
	res, err := (&http.Client{Transport: tr}).Do(request(t, "POST", "http://gw:80/s/m", bytes.NewReader(frame), append(header, "Content-Type", "application/grpc", "Te", "trailers")...))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err.Error()
	}
	return res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status")
}

// TestResetsOfAnUpstreamAreTheStatusesOfTheProtocol has an upstream reset streams with every code, before and after its head,
// and holds what the client gets against the table of gRPC over HTTP/2. What
// net/http takes for a stream that was not looked at is opened once more, and not again.
func TestResetsOfAnUpstreamAreTheStatusesOfTheProtocol(t *testing.T) {
	table := map[http2.ErrCode]string{
		http2.ErrCodeNo: "13", http2.ErrCodeProtocol: "13", http2.ErrCodeInternal: "13", http2.ErrCodeFlowControl: "13", http2.ErrCodeSettingsTimeout: "13",
		http2.ErrCodeFrameSize: "13", http2.ErrCodeRefusedStream: "14", http2.ErrCodeCancel: "1", http2.ErrCodeCompression: "13", http2.ErrCodeConnect: "13",
		http2.ErrCodeEnhanceYourCalm: "8", http2.ErrCodeInadequateSecurity: "7",
	}
	for code, want := range table {
		for _, headed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				var opened atomic.Int64
				n.serve2(t, "a:1", func(f *frames, _ int, id uint32) {
					if opened.Add(1) > 100 {
						answer2(f, id)
						return
					}
					if headed {
						_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
					}
					_ = f.WriteRSTStream(id, code)
				})
				n.start(t, one("{retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
				got := n.grpcAsk(t)
				if code == http2.ErrCodeProtocol && !headed && got == "14" {
					got = want // net/http does not say with what it was reset
				}
				if got != want || opened.Load() > 3 {
					t.Errorf("%v, after a head: %v: status %q, want %s, after %d streams", code, headed, got, want, opened.Load())
				}
			})
		}
	}
}

// TestACallThatAGOAWAYLeftOutIsMadeElsewhere has an upstream say that it has not looked at a stream: to make the call again
// is safe whatever it is, and a stream that it did look at ends where it began.
func TestACallThatAGOAWAYLeftOutIsMadeElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve2(t, "a:1", func(f *frames, conn int, id uint32) {
			calls.Add(1)
			if conn == 1 && id > 1 {
				_ = f.WriteGoAway(1, http2.ErrCodeNo, nil)
				answer2(f, 1)
				return
			}
			if conn > 1 {
				answer2(f, id)
			}
		})
		n.start(t, one("{retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
		first := make(chan string, 1)
		go func() { first <- n.grpcAsk(t) }()
		synctest.Wait()
		if got := n.grpcAsk(t); got != "0" {
			t.Errorf("the one that was left out: %s", got)
		}
		if got := <-first; got != "0" {
			t.Errorf("the one under way: %s", got)
		}
		if calls.Load() != 3 {
			t.Errorf("%d streams were opened", calls.Load())
		}
	})
}

// TestADrainSaysGOAWAYAndLetsStreamsEnd stops the gateway under a stream.
func TestADrainSaysGOAWAYAndLetsStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		more := make(chan struct{})
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, " ended")
		})
		g, err := New(load(t, "limits: {drain_timeout: 1m}\n"+one("{timeout: 1h}", "http://a:1")), Options{Dial: n.dial, Listen: n.listen})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		<-g.Ready()
		w := n.wire2(t, false)
		_ = w.ask(1, "GET", "/", true)
		if got := w.outcome(1); got != "200" {
			t.Fatalf("it began with %s", got)
		}
		stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		goaway := len(w.goaway) > 0 && w.goaway[0] == http2.ErrCodeNo && !w.closed
		w.mu.Unlock()
		if !goaway {
			t.Error("no GOAWAY, or the connection is closed")
		}
		close(more)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if w.mu.Lock(); !w.ended[1] || strings.Contains(w.status[1], "reset") {
			t.Errorf("the stream ended as %q", w.status[1])
		}
		w.mu.Unlock()
	})
}

// TestAMessageThatIsTooLargeIsResourceExhausted covers the bound of the server, whose word passes, and our own.
func TestAMessageThatIsTooLargeIsResourceExhausted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(echoStream), grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(1000))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Stop(); <-done }()
	file := "limits: {body_bytes: 100KiB}\n" + strings.Replace(one("{}", "http://"+l.Addr().String()), "gw:80", "127.0.0.1:0", 1)
	g := run(t, load(t, file), Options{})
	c, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for size, want := range map[int]codes.Code{900: codes.OK, 1001: codes.ResourceExhausted, 200 << 10: codes.ResourceExhausted} {
		in, out := make([]byte, size), []byte(nil)
		if err := c.Invoke(t.Context(), "/s/m", &in, &out); status.Code(err) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if s := g.Routes()[0]; s.Endpoints[0].Breaker != "closed" {
		t.Error("the upstream is blamed")
	}
}

// TestSixtyFourThousandStreamsPassOverOneConnection opens them on one connection to the gateway, many at a time, as long as
// HTTP/2 lets it.
func TestSixtyFourThousandStreamsPassOverOneConnection(t *testing.T) {
	streams := 1 << 16
	if testing.Short() || raceEnabled {
		streams = 1 << 13
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok(""))
		g := n.start(t, one("{limit: {algorithm: none}}", "http://a:1"), nil)
		w := n.wire2(t, false)
		for i := range streams {
			if err := w.ask(uint32(2*i+1), "GET", "/", true); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			if i%100 == 99 {
				synctest.Wait()
				w.mu.Lock()
				for j := i - 99; j <= i; j++ {
					if id := uint32(2*j + 1); w.status[id] != "200" || !w.ended[id] {
						t.Errorf("stream %d: %q", j, w.status[id])
					}
					delete(w.status, uint32(2*j+1))
					delete(w.fields, uint32(2*j+1))
					delete(w.ended, uint32(2*j+1))
				}
				w.mu.Unlock()
			}
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Calls != uint64(streams) || s.Endpoints[0].InFlight != 0 {
			t.Errorf("%d calls, %d in flight", s.Calls, s.Endpoints[0].InFlight)
		}
	})
}

// TestTheGRPCTimeoutShrinksFromAttemptToAttempt has an attempt take a part of the client's time: the next one is told the rest.
func TestTheGRPCTimeoutShrinksFromAttemptToAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		l, err := n.listen("tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan string, 2)
		s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			told <- r.Header.Get("Grpc-Timeout")
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "0")
			if len(told) == 1 {
				time.Sleep(2 * time.Second)
				w.Header().Set("Grpc-Status", "14")
			}
		})}
		s.Protocols.SetUnencryptedHTTP2(true)
		ended := make(chan error)
		go func() { ended <- s.Serve(l) }()
		defer func() { _ = s.Close(); <-ended }()
		n.start(t, one("{timeout: 1h, retry: {base_delay: 1ms}}", "http://a:1"), nil)
		if got := n.grpcAsk(t, "Grpc-Timeout", "10S", "Idempotency-Key", "1"); got != "0" {
			t.Errorf("status %s", got)
		}
		if first, second := <-told, <-told; first != "10000000u" || !strings.HasPrefix(second, "799") || len(second) != len("7999000u") {
			t.Errorf("told %s, then %s", first, second)
		}
	})
}

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a client of HTTP/2 on a network in memory, which writes what it is told and notes what comes back.
type wire struct {
	frames
	mu     sync.Mutex
	status map[uint32]string // by stream: the status, and then "reset" with the code
	fields map[uint32][]hpack.HeaderField
	ended  map[uint32]bool
	goaway []http2.ErrCode
	closed bool
	gone   chan struct{} // closed with the connection
}

// wire2 opens a connection to the gateway. A deaf client never reads.
func (n *network) wire2(t *testing.T, deaf bool) *wire {
	t.Helper()
	conn, err := n.dial(t.Context(), "tcp", "gw:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &wire{frames: frames{Framer: http2.NewFramer(conn, conn), conn: conn}, gone: make(chan struct{})}
	w.status, w.fields, w.ended = map[uint32]string{}, map[uint32][]hpack.HeaderField{}, map[uint32]bool{}
	w.AllowIllegalWrites = true
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.enc = hpack.NewEncoder(&w.buf)
	if !deaf {
		go w.read()
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *wire) read() {
	defer close(w.gone)
	for {
		fr, err := w.ReadFrame()
		w.mu.Lock()
		var stream http2.StreamError
		if err != nil && !errors.As(err, &stream) {
			w.closed = true
			w.mu.Unlock()
			return
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			w.status[fr.StreamID] += fr.PseudoValue("status")
			w.fields[fr.StreamID] = append(w.fields[fr.StreamID], fr.RegularFields()...)
			w.ended[fr.StreamID] = w.ended[fr.StreamID] || fr.StreamEnded()
		case *http2.DataFrame:
			w.ended[fr.StreamID] = w.ended[fr.StreamID] || fr.StreamEnded()
		case *http2.RSTStreamFrame:
			w.status[fr.StreamID] += "reset " + fr.ErrCode.String()
		case *http2.GoAwayFrame:
			w.goaway = append(w.goaway, fr.ErrCode)
		}
		w.mu.Unlock()
	}
}

// outcome is what came for a stream once all is quiet.
func (w *wire) outcome(stream uint32) string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status[stream]
}

// over reports whether the gateway has ended the connection.
func (w *wire) over() bool {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// ask opens a stream; more are further fields.
func (w *wire) ask(stream uint32, method, path string, end bool, more ...string) error {
	pairs := append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "h"}, more...)
	return w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block(pairs...), EndHeaders: true, EndStream: end})
}

// bubble runs test with a gateway in front of h. attack is how many calls have reached h but those to /.
func bubble(t *testing.T, limits, policy string, h http.HandlerFunc, test func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var attack atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				attack.Add(1)
			}
			h(w, r)
		})
		g := n.start(t, "limits: "+limits+"\n"+one(policy, "http://a:1"), nil)
		test(t, n, g, &attack)
		if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 {
			t.Errorf("others get %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Endpoints[0].InFlight != 0 {
			t.Errorf("%d calls are left in flight", s.Endpoints[0].InFlight)
		}
	})
}

// hanging answers calls to / and leaves the others without one until they are given up.
func hanging(_ http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		<-r.Context().Done()
	}
}

// TestStreamsGivenUpInARowEndTheirConnection covers rapid reset (CVE-2023-44487) and MadeYouReset (CVE-2025-8671) in the
// ways to make a server reset a stream: each call reaches the upstream before it is given up.
func TestStreamsGivenUpInARowEndTheirConnection(t *testing.T) {
	for name, reset := range map[string]func(w *wire, id uint32) error{
		"reset": func(w *wire, id uint32) error { return w.WriteRSTStream(id, http2.ErrCodeCancel) },
		"increment of 0": func(w *wire, id uint32) error {
			return w.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		},
		"window too large": func(w *wire, id uint32) error { return w.WriteWindowUpdate(id, 1<<31-1) },
		"data after end":   func(w *wire, id uint32) error { return w.WriteData(id, true, []byte("x")) },
		"head after end":   func(w *wire, id uint32) error { return w.ask(id, "GET", "/hang", true) },
	} {
		bubble(t, "{}", "{limit: {algorithm: none}}", hanging, func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
			w := n.wire2(t, false)
			for i := range uint32(3 * maxAbandoned) {
				if w.ask(2*i+1, "GET", "/hang", true) != nil {
					break
				}
				synctest.Wait()
				if reset(w, 2*i+1) != nil || w.over() {
					break
				}
			}
			if !w.over() || attack.Load() > maxAbandoned {
				t.Errorf("%s: %d calls, connection closed: %v", name, attack.Load(), w.over())
			}
		})
	}
}

func TestOnlyRapidResetsBeyondTheAnsweredAreHeldAgainstAClient(t *testing.T) {
	bubble(t, "{}", "{limit: {algorithm: none}}", hanging, func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
		w := n.wire2(t, false)
		id := uint32(1)
		call := func(path string, wait time.Duration) {
			if err := w.ask(id, "GET", path, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			synctest.Wait()
			if path != "/" {
				_ = w.WriteRSTStream(id, http2.ErrCodeCancel)
				synctest.Wait()
			}
			id += 2
		}
		for range maxAbandoned { // one answered for each that is given up
			call("/hang", 0)
			call("/", 0)
		}
		for range maxAbandoned { // given up by who has waited
			call("/hang", 2*time.Second)
		}
		if w.over() {
			t.Error("the connection is closed")
		}
	})
}

// TestAClientThatDoesNotReadCannotMakeAnswersPileUp floods with frames that each want an answer.
func TestAClientThatDoesNotReadCannotMakeAnswersPileUp(t *testing.T) {
	for name, send := range map[string]func(w *wire, i int) error{
		"ping": func(w *wire, _ int) error { return w.WritePing(false, [8]byte{}) },
		"resets that it is made to send": func(w *wire, i int) error {
			if err := w.ask(uint32(2*i+1), "GET", "/x", true); err != nil {
				return err
			}
			return w.WriteRawFrame(http2.FrameWindowUpdate, 0, uint32(2*i+1), make([]byte, 4))
		},
	} {
		bubble(t, "{}", "{}", ok("x"), func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
			w := n.wire2(t, true)
			const most = 30_000
			sent := 0
			for sent < most && send(w, sent) == nil {
				sent++
			}
			if sent == most {
				t.Errorf("%s: all %d frames were taken", name, sent)
			}
		})
	}
}

// TestOneAnswerIsOwedForAnyNumberOfSettings floods with settings that nobody reads the answers to: they do not add up.
func TestOneAnswerIsOwedForAnyNumberOfSettings(t *testing.T) {
	bubble(t, "{}", "{}", ok("x"), func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
		w := n.wire2(t, true)
		for i := range uint32(20_000) {
			if w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 + i}) != nil {
				return // cut off: that will do, too
			}
		}
		acks := atomic.Int64{}
		go func() {
			for {
				fr, err := w.ReadFrame()
				if err != nil {
					return
				}
				if s, is := fr.(*http2.SettingsFrame); is && s.IsAck() {
					acks.Add(1)
				}
			}
		}()
		synctest.Wait()
		if got := acks.Load(); got > 10 {
			t.Errorf("%d answers were waiting", got)
		}
	})
}

// TestAHeadOverHTTP2IsBoundedAsItIsOverHTTP1 covers the floods of CONTINUATION and the bombs of HPACK: what is large is
// refused before an upstream sees it, whatever it was on the wire.
func TestAHeadOverHTTP2IsBoundedAsItIsOverHTTP1(t *testing.T) {
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("x-%d", i), "1")
	}
	named := func(w *wire, count int) []byte { // one field of 3900 bytes in the table, and a byte for each time it is named
		block := w.block(":method", "GET", ":scheme", "http", ":path", "/bomb", ":authority", "h", "x", strings.Repeat("a", 3900))
		return append(block, strings.Repeat("\xbe", count)...)
	}
	for name, send := range map[string]func(w *wire) error{
		"many fields": func(w *wire) error { return w.ask(1, "GET", "/bomb", true, many...) },
		"bomb in a frame": func(w *wire) error {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: named(w, 8000), EndHeaders: true, EndStream: true})
		},
		"bomb within 64KB": func(w *wire) error {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: named(w, 20), EndHeaders: true, EndStream: true})
		},
		"table too large": func(w *wire) error {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append([]byte{0x3f, 0xff, 0xff, 0xff, 0x7f}, named(w, 1)...), EndHeaders: true, EndStream: true})
		},
		"continuation": func(w *wire) error {
			err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(":method", "GET", ":scheme", "http", ":path", "/bomb", ":authority", "h")})
			for i := 0; i < 10_000 && err == nil; i++ {
				err = w.WriteContinuation(1, i == 9_999, w.block(fmt.Sprintf("x-%d", i), strings.Repeat("a", 1000)))
				if i == 2000 {
					return errors.New("two megabytes of it were taken")
				}
			}
			return nil
		},
		"empty continuation": func(w *wire) error {
			err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(":method", "GET")})
			for i := 0; i < 100_000 && err == nil; i++ {
				if err = w.WriteContinuation(1, false, nil); err != nil {
					return nil
				}
			}
			_ = w.conn.Close()
			return nil
		},
	} {
		bubble(t, "{header_bytes: 64KiB}", "{}", ok("x"), func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
			w := n.wire2(t, false)
			if err := send(w); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got := w.outcome(1)
			if strings.HasPrefix(got, "2") || attack.Load() != 0 {
				t.Errorf("%s: answered %q, %d calls arrived", name, got, attack.Load())
			}
		})
	}
}

func TestAStreamWhoseBodyTricklesIsEnded(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	bubble(t, "{stall_timeout: 10s, body_rate: 100}", "{retry: {off: true}, breaker: {off: true}, timeout: 1h}", serve, func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
		w := n.wire2(t, false)
		for i, length := range []string{"1000", "1048576", "1000"} {
			id := uint32(2*i + 1)
			if err := w.ask(id, "POST", "/x", false, "content-length", length); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for w.outcome(id) == "" && time.Since(start) < time.Minute {
				if i < 2 { // the third says nothing at all
					_ = w.WriteData(id, false, []byte("x"))
				}
				time.Sleep(5 * time.Second)
			}
			if got := w.outcome(id); !strings.HasPrefix(got, "408") || time.Since(start) > 20*time.Second {
				t.Errorf("%s bytes: %q after %v", length, got, time.Since(start))
			}
		}
		if w.over() {
			t.Error("the other streams of the connection are lost")
		}
	})
}

func TestAnHTTP2ConnectionThatStallsInAHeadIsEnded(t *testing.T) {
	bubble(t, "{idle_timeout: 5s, header_timeout: 3s}", "{}", ok("x"), func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
		w := n.wire2(t, false)
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(":method", "GET")})
		start := time.Now()
		<-w.gone
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

func TestTrailersOverHTTP2AreHeldToTheRulesOfHTTP1(t *testing.T) {
	var mu sync.Mutex
	var trailers, head http.Header
	serve := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		trailers, head = r.Trailer.Clone(), r.Header.Clone()
	}
	for _, tt := range []struct {
		name, value string
		passes      bool
	}{
		{"x-end", "1", true},
		{"x-forwarded-for", "6.6.6.6", false},
		{"x_forwarded_for", "6.6.6.6", false},
		{"transfer-encoding", "chunked", false},
		{"content-length", "5", false},
		{"authorization", "evil", false},
		{":path", "/evil", false},
		{"x-end", "1\r\nX: y", false},
		{"host", "evil", false},
	} {
		bubble(t, "{}", "{retry: {off: true}, breaker: {off: true}}", serve, func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
			w := n.wire2(t, false)
			_ = w.ask(1, "POST", "/x", false, "trailer", tt.name)
			_ = w.WriteData(1, false, []byte("body"))
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(tt.name, tt.value), EndHeaders: true, EndStream: true})
			got := w.outcome(1)
			mu.Lock()
			defer mu.Unlock()
			if tt.passes != (trailers.Get("X-End") == "1") || tt.passes && got != "200" {
				t.Errorf("%s: answered %q with trailers %v", tt.name, got, trailers)
			}
			if !tt.passes && (fmt.Sprint(trailers.Values(tt.name)) != "[]" || strings.Contains(fmt.Sprint(head, trailers), "6.6.6.6")) {
				t.Errorf("%s passed: %v and %v", tt.name, head, trailers)
			}
			head, trailers = nil, nil
		})
	}
}

// TestADeadConnectionEndsItsCalls has a connection with open streams end: nothing of it is left.
func TestADeadConnectionEndsItsCalls(t *testing.T) {
	bubble(t, "{}", "{limit: {algorithm: none}, timeout: 1h}", hanging, func(t *testing.T, n *network, g *Gateway, attack *atomic.Int64) {
		w := n.wire2(t, false)
		for i := range uint32(2 * maxStreams) { // those beyond the bound are refused
			if w.ask(2*i+1, "GET", "/hang", true) != nil {
				break
			}
		}
		synctest.Wait()
		if got := attack.Load(); got != maxStreams {
			t.Errorf("%d calls of one connection run", got)
		}
		_ = w.conn.Close()
	})
}

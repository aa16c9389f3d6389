package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// switching answers an upgrade with 101 and gives the connection to h.
func switching(protocol string, h func(net.Conn, *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Mine: 1\r\n\r\n", protocol)
		h(conn, buf.Reader)
	}
}

// raw opens a connection to the gateway of n and sends text.
func (n *network) raw(t *testing.T, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := n.dial(t.Context(), "tcp", "gw:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

const askEcho = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo/1\r\n\r\n"

func TestAnUpgradedConnectionIsCopiedBothWaysAndCountedOnceByItsHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", switching("echo/1", func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) }))
		g := n.start(t, one("{timeout: 1s}", "http://a:1"), nil)
		conn, r := n.raw(t, askEcho)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo/1" || res.Header.Get("X-Mine") != "1" {
			t.Fatalf("got %+v, %v", res, err)
		}
		synctest.Wait()
		s := g.Routes()[0]
		if s.Calls != 1 || g.tunnels.count() != 1 {
			t.Errorf("an open tunnel: %d calls, %d tunnels", s.Calls, g.tunnels.count())
		}
		for range 3 {
			time.Sleep(time.Minute) // far beyond the policy's timeout, within the idle time
			_, _ = io.WriteString(conn, "ping")
			got := make([]byte, 4)
			if _, err := io.ReadFull(r, got); err != nil || string(got) != "ping" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		_ = conn.Close()
		synctest.Wait()
		s = g.Routes()[0]
		if s.Calls != 1 || s.Tally.Latency.Quantile(1) > time.Second || s.Tally.Failed != 0 || g.tunnels.count() != 0 {
			t.Errorf("after it: %d calls, longest %v, %d tunnels", s.Calls, s.Tally.Latency.Quantile(1), g.tunnels.count())
		}
	})
}

func TestASilentTunnelIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var gone atomic.Bool
		n.serve(t, "a:1", switching("echo/1", func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte(); gone.Store(true) }))
		n.start(t, "limits: {stream_idle: 30s}\n"+one("{}", "http://a:1"), nil)
		_, r := n.raw(t, askEcho)
		if _, err := http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := r.ReadByte(); err == nil || time.Since(start) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if !gone.Load() {
			t.Error("the upstream's side is open")
		}
	})
}

func TestTunnelsAreLeftTheDrainAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", switching("echo/1", func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) }))
		g, err := New(load(t, "limits: {drain_timeout: 7s}\n"+one("{}", "http://a:1")), Options{Dial: n.dial, Listen: n.listen})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		<-g.Ready()
		conn, r := n.raw(t, askEcho)
		if _, err := http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		stop()
		time.Sleep(5 * time.Second)
		_, _ = io.WriteString(conn, "x")
		if b, err := r.ReadByte(); b != 'x' || err != nil {
			t.Errorf("during the drain: %q, %v", b, err)
		}
		if _, err := r.ReadByte(); err == nil || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnUpgradeThatIsRefusedIsAnAnswerLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "no")
		})
		n.start(t, one("{}", "http://a:1"), nil)
		conn, r := n.raw(t, askEcho)
		for range 2 { // the connection stays one of HTTP
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != 403 {
				t.Fatalf("got %+v, %v", res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_, _ = io.WriteString(conn, askEcho)
		}
	})
}

func TestA101ThatNobodyAskedForIsNotPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		})
		g := n.start(t, one("{retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
		plainly := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
		for _, text := range []string{plainly, askEcho} {
			_, r := n.raw(t, text)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 502 {
				t.Errorf("%q: got %+v, %v", text, res, err)
			}
		}
		if g.tunnels.count() != 0 {
			t.Error("a tunnel is open")
		}
	})
}

func TestAnOfferOfH2CIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header["Upgrade"])+len(r.Header["Http2-Settings"]) != 0 {
				t.Errorf("the offer was passed on: %v", r.Header)
			}
		})
		n.start(t, one("{}", "http://a:1"), nil)
		_, r := n.raw(t, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Errorf("got %+v, %v", res, err)
		}
	})
}

func TestAnUpgradeWithABodyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("reached"))
		n.start(t, one("{}", "http://a:1"), nil)
		for _, framing := range []string{"Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
			_, r := n.raw(t, strings.TrimSuffix(askEcho, "\r\n")+framing)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 400 {
				t.Errorf("%q: got %+v, %v", framing, res, err)
			}
		}
	})
}

func TestOneSideOfATunnelMayEndFirst(t *testing.T) {
	up := httptest.NewServer(switching("echo/1", func(c net.Conn, r *bufio.Reader) {
		all, _ := io.ReadAll(r) // until the other side has ended
		_, _ = c.Write(all)
	}))
	defer up.Close()
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, askEcho+"early") // before the other side has agreed
	r := bufio.NewReader(conn)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%+v, %v", res, err)
	}
	_, _ = io.WriteString(conn, " late")
	_ = conn.(*net.TCPConn).CloseWrite()
	if all, err := io.ReadAll(r); string(all) != "early late" || err != nil {
		t.Errorf("got %q, %v", all, err)
	}
}

func TestWebSocketsPass(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"p"}})
		if err != nil {
			return
		}
		c.SetReadLimit(1 << 22)
		for {
			kind, m, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, m) != nil {
				return
			}
		}
	}))
	defer up.Close()
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	c, res, err := websocket.Dial(t.Context(), "ws://"+g.Addr().String()+"/chat", &websocket.DialOptions{Subprotocols: []string{"p"}})
	if err != nil || c.Subprotocol() != "p" || res.Header.Get("Sec-Websocket-Accept") == "" {
		t.Fatalf("%v, %v", res, err)
	}
	c.SetReadLimit(1 << 22)
	for _, m := range []string{"", "text", strings.Repeat("long ", 1<<18)} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if kind, got, err := c.Read(t.Context()); err != nil || kind != websocket.MessageText || string(got) != m {
			t.Fatalf("%d bytes of %d came back, %v", len(got), len(m), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestCONNECTAndTRACEAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("reached"))
		n.start(t, one("{}", "http://a:1"), nil)
		for text, want := range map[string]int{
			"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n": 501,
			"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n":           405,
		} {
			_, r := n.raw(t, text)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != want {
				t.Errorf("%q: got %+v, %v", text, res, err)
			}
		}
	})
}

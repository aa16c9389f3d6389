package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

func websocketSuite() suite {
	return suite{
		name:    "websocket",
		title:   "WebSocket",
		about:   "A real client and a real server (coder/websocket) through the subject: echo of small, large and fragmented messages, pings of both sides, closes of both sides, compression, many at once.",
		columns: []string{"in the clear", "over TLS"},
		run:     runWebsocket,
	}
}

// wsCase is one conversation; the server's path tells it how to behave.
type wsCase struct {
	name, path string
	talk       func(ctx context.Context, c *websocket.Conn) error
	options    websocket.DialOptions
}

func wsCases() []wsCase {
	return []wsCase{
		{name: "text of 5 bytes", path: "/echo", talk: echoes(websocket.MessageText, 5)},
		{name: "empty message", path: "/echo", talk: echoes(websocket.MessageBinary, 0)},
		{name: "125, 126, 65535 and 65536 bytes", path: "/echo", talk: echoes(websocket.MessageBinary, 125, 126, 65535, 65536)},
		{name: "16 MiB", path: "/echo", talk: echoes(websocket.MessageBinary, 16<<20)},
		{name: "a thousand messages in order", path: "/echo", talk: echoes(websocket.MessageText, thousand()...)},
		{name: "fragmented message", path: "/echo", talk: fragmented},
		{name: "compressed", path: "/echo", talk: echoes(websocket.MessageText, 10, 100_000), options: websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1}},
		{name: "subprotocol", path: "/echo", talk: subprotocol, options: websocket.DialOptions{Subprotocols: []string{"other", "chat"}}},
		{name: "ping of the client", path: "/echo", talk: func(ctx context.Context, c *websocket.Conn) error {
			ctx = c.CloseRead(ctx)
			return c.Ping(ctx)
		}},
		{name: "ping of the server, between messages", path: "/ping", talk: echoes(websocket.MessageText, 5, 5)},
		{name: "server speaks first", path: "/greet", talk: greeted},
		{name: "close of the client", path: "/echo", talk: func(_ context.Context, c *websocket.Conn) error {
			return c.Close(4001, "enough")
		}},
		{name: "close of the server", path: "/close", talk: closedByServer},
		{name: "server goes without a close", path: "/drop", talk: func(ctx context.Context, c *websocket.Conn) error {
			if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
				return fmt.Errorf("want an end of the connection, got %w", err)
			}
			return nil
		}},
		{name: "50 at once", path: "/echo"},
		{name: "quiet for 3 s, then echo", path: "/echo", talk: func(ctx context.Context, c *websocket.Conn) error {
			time.Sleep(3 * time.Second)
			return echoes(websocket.MessageText, 5)(ctx, c)
		}},
	}
}

func runWebsocket(ctx context.Context, e *env, s *subject) (result, error) {
	origin, err := serveOrigin(http.HandlerFunc(wsServe))
	if err != nil {
		return result{}, err
	}
	defer origin.Close()
	front, err := s.start(ctx, e, plain, origin.address)
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	pool := x509.NewCertPool()
	if data, err := os.ReadFile(e.cert); err != nil || !pool.AppendCertsFromPEM(data) {
		return result{}, fmt.Errorf("%s: no certificate", e.cert)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true}}
	defer client.CloseIdleConnections()
	r := result{}
	for _, over := range []struct{ name, base string }{{"in the clear", "ws://" + front.h1}, {"over TLS", "wss://" + front.tls}} {
		if strings.HasSuffix(over.base, "//") {
			r.Cells = append(r.Cells, "has no TLS")
			continue
		}
		passed := 0
		for _, c := range wsCases() {
			if err := c.run(ctx, client, over.base); err != nil {
				r.Failures = append(r.Failures, over.name+": "+c.name+": "+oneLine(err.Error()))
				r.Missed = "WebSocket"
				continue
			}
			passed++
		}
		r.Cells = append(r.Cells, fmt.Sprintf("%d/%d", passed, len(wsCases())))
	}
	return r, nil
}

func (c wsCase) run(ctx context.Context, client *http.Client, base string) error {
	if c.talk != nil {
		return c.once(ctx, client, base)
	}
	errs := make([]error, 50)
	var wg sync.WaitGroup
	c.talk = echoes(websocket.MessageBinary, 1000, 100_000)
	for i := range errs {
		wg.Go(func() { errs[i] = c.once(ctx, client, base) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c wsCase) once(ctx context.Context, client *http.Client, base string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	options := c.options
	options.HTTPClient = client
	conn, resp, err := websocket.Dial(ctx, base+c.path, &options)
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(32 << 20)
	return c.talk(ctx, conn)
}

// echoes sends a message of each size and wants it back before the next.
func echoes(kind websocket.MessageType, sizes ...int) func(context.Context, *websocket.Conn) error {
	return func(ctx context.Context, c *websocket.Conn) error {
		for i, n := range sizes {
			sent := bytes.Repeat([]byte{byte('a' + i%26)}, n)
			written := make(chan error, 1)
			go func() { written <- c.Write(ctx, kind, sent) }() // a large echo begins before the message has ended
			if err := errors.Join(want(ctx, c, kind, sent), <-written); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		return c.Close(websocket.StatusNormalClosure, "")
	}
}

func want(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, data []byte) error {
	k, got, err := c.Read(ctx)
	if err != nil {
		_ = c.CloseNow() // so that a write that waits ends too
		return err
	}
	if k != kind || !bytes.Equal(got, data) {
		return fmt.Errorf("want %v of %d bytes, got %v of %d, or other ones", kind, len(data), k, len(got))
	}
	return nil
}

func thousand() []int {
	sizes := make([]int, 1000)
	for i := range sizes {
		sizes[i] = i
	}
	return sizes
}

// fragmented writes one message in many frames.
func fragmented(ctx context.Context, c *websocket.Conn) error {
	w, err := c.Writer(ctx, websocket.MessageBinary)
	if err != nil {
		return err
	}
	piece := bytes.Repeat([]byte("fragment"), 2000)
	for range 50 {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return want(ctx, c, websocket.MessageBinary, bytes.Repeat(piece, 50))
}

func subprotocol(_ context.Context, c *websocket.Conn) error {
	if c.Subprotocol() != "chat" {
		return fmt.Errorf("want subprotocol chat, got %q", c.Subprotocol())
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func greeted(ctx context.Context, c *websocket.Conn) error {
	if err := want(ctx, c, websocket.MessageText, []byte("hello")); err != nil {
		return err
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func closedByServer(ctx context.Context, c *websocket.Conn) error {
	_, _, err := c.Read(ctx)
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != 4002 || ce.Reason != "the server ends" {
		return fmt.Errorf("want the server's close 4002, got %w", err)
	}
	return nil
}

// wsServe is the server's side of the cases.
func wsServe(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(32 << 20)
	ctx := r.Context()
	switch r.URL.Path {
	case "/greet":
		_ = c.Write(ctx, websocket.MessageText, []byte("hello")) // the client sees what went wrong
	case "/close":
		_ = c.Close(4002, "the server ends")
		return
	case "/drop":
		return
	}
	for {
		kind, in, err := c.Reader(ctx)
		if err != nil {
			return
		}
		out, err := c.Writer(ctx, kind)
		if err != nil {
			return
		}
		if _, err := io.Copy(out, in); err != nil || out.Close() != nil {
			return
		}
		if r.URL.Path == "/ping" {
			go func() { _ = c.Ping(ctx) }() // answered while the next message is read
		}
	}
}

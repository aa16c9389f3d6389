package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// calmly runs one connection at a time through serve, on real sockets, and counts those that are open.
func calmly(t *testing.T, serve func(net.Conn, *bufio.Reader)) (url string, open *atomic.Int64, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + l.Addr().String(), open, func() { _ = l.Close() }
}

// TestALaneLeavesNothingBehind has clients leave and endpoints break off; no connection and no goroutine
// outlives the gateway, and those of calls that were given up do not outlive the call.
func TestALaneLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	const half = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
	for name, tt := range map[string]struct {
		policy, answer string
		after          func(c net.Conn, in *bufio.Reader, answered <-chan struct{})
		status         int
		broken         bool
	}{
		"the client leaves before the head": {single, "", wait, 0, true},
		"the client leaves in the body":     {single, half, wait, 200, true},
		"the time ends in the body":         {"{timeout: 50ms, retry: {off: true}}", half, wait, 200, true},
		"the time ends before the head":     {"{try_timeout: 20ms, retry: {off: true}}", "", wait, 504, false},
		"it breaks off":                     {single, half, nil, 200, true},
		"it answers and resets":             {single, fine, reset, 200, false},
		"it answers and closes its side":    {single, fine, halfClose, 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			const calls = 4
			answered := make(chan struct{}, calls) // holds one for each call whose end a client has seen
			to, open, stop := calmly(t, func(c net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err != nil { //nolint:bodyclose // there is none
					return
				}
				if _, err := io.WriteString(c, tt.answer); err == nil && tt.after != nil {
					tt.after(c, in, answered)
				}
			})
			defer stop()
			c, err := Load("test", []byte(strings.Replace(one(tt.policy, to), "gw:80", "127.0.0.1:0", 1)))
			must(t, err)
			g, err := New(c, Options{})
			must(t, err)
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- g.Run(ctx) }()
			<-g.Ready()
			for range calls {
				call, leave := context.WithCancel(t.Context())
				if tt.status == 0 {
					time.AfterFunc(20*time.Millisecond, leave)
				}
				r, err := http.NewRequestWithContext(call, http.MethodGet, "http://"+g.Addr().String()+"/", nil)
				must(t, err)
				tr := &http.Transport{}
				res, err := tr.RoundTrip(r)
				if tt.status == 0 {
					if err == nil {
						t.Errorf("there is an answer: %d", res.StatusCode)
						_ = res.Body.Close()
					}
				} else {
					must(t, err)
					if tt.broken && tt.after != nil && !strings.Contains(tt.policy, "timeout") {
						time.AfterFunc(20*time.Millisecond, leave)
					}
					_, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if res.StatusCode != tt.status || (err != nil) != tt.broken {
						t.Errorf("%d, %v", res.StatusCode, err)
					}
					answered <- struct{}{}
				}
				leave()
				tr.CloseIdleConnections()
				eventually(t, func() bool { return open.Load() == 0 })
			}
			end()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	goleak.VerifyNone(t, before)
}

// wait is an endpoint that says no more until the connection ends.
func wait(_ net.Conn, in *bufio.Reader, _ <-chan struct{}) { _, _ = io.Copy(io.Discard, in) }

// reset is an endpoint that has the connection reset when its answer has arrived.
func reset(c net.Conn, _ *bufio.Reader, answered <-chan struct{}) {
	<-answered
	if s, ok := c.(*net.TCPConn); ok {
		_ = s.SetLinger(0)
	}
}

// halfClose is an endpoint that says no more, and listens until its answer has arrived.
func halfClose(c net.Conn, _ *bufio.Reader, answered <-chan struct{}) {
	if s, ok := c.(*net.TCPConn); ok {
		_ = s.CloseWrite()
	}
	<-answered
}

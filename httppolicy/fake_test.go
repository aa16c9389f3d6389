package httppolicy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
)

const ms = time.Millisecond

// network is one in memory: no sockets, so that time in it can be virtual.
type network struct {
	mu    sync.Mutex
	at    map[string]*listener
	dials atomic.Int64
}

type listener struct {
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

func newNetwork() *network { return &network{at: map[string]*listener{}} }

// serve runs h at address until the test ends.
func (n *network) serve(t testing.TB, address string, h http.HandlerFunc) {
	n.serveWith(t, address, nil, h)
}

func (n *network) serveWith(t testing.TB, address string, protocols *http.Protocols, h http.HandlerFunc) {
	l := &listener{queue: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	n.at[address] = l
	n.mu.Unlock()
	s := &http.Server{Handler: h, Protocols: protocols}
	var run sync.WaitGroup
	run.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { _ = s.Close(); run.Wait() })
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.at[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	n.dials.Add(1)
	client, server := net.Pipe()
	select {
	case l.queue <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// transport is a Transport over the network, with its base.
func (n *network) transport(t testing.TB, c longpole.Config, o Options, endpoints ...string) *Transport {
	var set *balance.Set
	if len(endpoints) > 0 {
		set = balance.NewSet(endpoints...)
	}
	p, err := longpole.New(c, set)
	if err != nil {
		t.Fatal(err)
	}
	base := &http.Transport{DialContext: n.dial, DisableCompression: true}
	t.Cleanup(func() { p.Close(); base.CloseIdleConnections() })
	return NewTransport(p, base, o)
}

// record keeps the last record.
func record(rec *call.Record) Options {
	return Options{Observe: func(r *call.Record) { *rec = *r }}
}

func atOnce() *retry.Config {
	return &retry.Config{BaseDelay: 1, MaxDelay: 1, MinPerSecond: 1000}
}

// inTurn picks a, then b.
var inTurn = &balance.Config{Algorithm: balance.RoundRobin}

func request(t testing.TB, method, to string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, to, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// text reads an answer to its end and closes it.
func text(t testing.TB, res *http.Response, err error) string {
	t.Helper()
	if err != nil {
		return "error"
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// watched is a base whose answers' bodies are counted.
type watched struct {
	base         http.RoundTripper
	open, closed atomic.Int64
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := w.base.RoundTrip(r)
	if err == nil {
		w.open.Add(1)
		res.Body = &watchedBody{ReadCloser: res.Body, w: w}
	}
	return res, err
}

type watchedBody struct {
	io.ReadCloser
	w    *watched
	once sync.Once
}

func (b *watchedBody) Close() error {
	b.once.Do(func() { b.w.closed.Add(1) })
	return b.ReadCloser.Close()
}

func mustURL(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

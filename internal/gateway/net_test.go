package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// network is one in memory: no sockets, so that time in it can be virtual.
type network struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

type pipeListener struct {
	n       *network
	address string
	queue   chan net.Conn
	done    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	conns []net.Conn
}

func newNetwork() *network { return &network{listeners: make(map[string]*pipeListener)} }

func (n *network) listen(_, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, errors.New("address in use")
	}
	l := &pipeListener{n: n, address: address, queue: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	client, server := net.Pipe()
	select {
	case l.queue <- server:
		l.mu.Lock()
		l.conns = append(l.conns, server)
		l.mu.Unlock()
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close refuses new connections; those that stand are left alone.
func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		delete(l.n.listeners, l.address)
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.address) }

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

// serve runs h at address until the test ends; kill breaks its connections too.
func (n *network) serve(t *testing.T, address string, h http.HandlerFunc) (kill func()) {
	t.Helper()
	l, err := n.listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var run sync.WaitGroup
	var calls inFlight
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !calls.enter() {
			panic(http.ErrAbortHandler)
		}
		defer calls.leave()
		h(w, r)
	})}
	run.Go(func() { _ = s.Serve(l) })
	kill = func() { _ = s.Close(); run.Wait(); <-calls.close() }
	t.Cleanup(kill)
	return kill
}

// client makes calls over the network.
func (n *network) client(t *testing.T) *http.Client {
	tr := &http.Transport{DialContext: n.dial, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// start runs a gateway at gw:80 on n until the test ends. routes is the YAML of what is under routes and upstreams.
func (n *network) start(t *testing.T, file string, spans func([]trace.Span)) *Gateway {
	t.Helper()
	return run(t, load(t, file), Options{Dial: n.dial, Listen: n.listen, Spans: spans})
}

// startMortal starts a gateway that the test itself ends, by end; ended tells how it did.
func (n *network) startMortal(t *testing.T, file string) (end context.CancelFunc, ended <-chan error) {
	t.Helper()
	g, err := New(load(t, file), Options{Dial: n.dial, Listen: n.listen})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	how := make(chan error)
	go func() { how <- g.Run(ctx) }()
	<-g.Ready()
	return end, how
}

func run(t *testing.T, c Config, o Options) *Gateway {
	t.Helper()
	g, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-g.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return g
}

func load(t *testing.T, file string) Config {
	t.Helper()
	c, err := Load("test", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// one is a file with one route, all, to the endpoints.
func one(policy string, endpoints ...string) string {
	return fmt.Sprintf("listen: gw:80\nupstreams: {up: {endpoints: [%s]}}\nroutes:\n- {name: all, upstream: up, policy: %s}\n", strings.Join(endpoints, ", "), policy)
}

// answer is what a test looks at.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
	took   time.Duration
}

func do(c *http.Client, r *http.Request) answer {
	start := time.Now()
	res, err := c.Do(r)
	if err != nil {
		return answer{err: err, took: time.Since(start)}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(b), err: err, took: time.Since(start)}
}

func get(t *testing.T, c *http.Client, url string, header ...string) answer {
	t.Helper()
	return do(c, request(t, http.MethodGet, url, nil, header...))
}

func request(t *testing.T, method, url string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// collector keeps spans.
type collector struct {
	mu   sync.Mutex
	list []trace.Span
}

func (c *collector) add(s []trace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, s...)
}

func (c *collector) all() []trace.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]trace.Span(nil), c.list...)
}

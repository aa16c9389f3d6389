package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// node is one replica of a service: a listener, processors, and all else that requests within one process share.
type node struct {
	sys      *System
	spec     *scenario.Service
	instance string
	replica  int
	turn     atomic.Uint64 // of the service's replicas; that of the first counts

	random  *dice
	cores   gate
	workers *pool // nil = no bound
	pools   map[string]*pool
	meter   *meter
	halt    *halt

	mu    sync.Mutex
	locks map[string]gate

	served   atomic.Int64 // calls since the process began
	listener net.Listener
	server   *http.Server
}

// dice is a seeded random source that many requests draw from.
type dice struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func newDice(seed uint64, name string) *dice { return &dice{rand: newSource(seed, name).rand} }

func (d *dice) draw(x scenario.Dist) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return x.Draw(d.rand)
}

// chance is true for that share of the draws.
func (d *dice) chance(share float64) bool {
	if share >= 1 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.Float64() < share
}

// gate lets so many through at once; nil lets everybody through.
type gate chan struct{}

func newGate(n int) gate {
	if n <= 0 {
		return nil
	}
	return make(gate, n)
}

// enter waits for its turn and says how long.
func (g gate) enter(ctx context.Context) (waited time.Duration, err error) {
	if g == nil {
		return 0, nil
	}
	select {
	case g <- struct{}{}:
		return 0, nil
	default:
	}
	began := time.Now()
	select {
	case g <- struct{}{}:
		return time.Since(began), nil
	case <-ctx.Done():
		return time.Since(began), context.Cause(ctx)
	}
}

func (g gate) leave() {
	if g != nil {
		<-g
	}
}

func newNode(s *System, x *scenario.Service, replica int, seed uint64) *node {
	n := &node{
		sys: s, spec: x, instance: instanceName(x.Name, replica), replica: replica,
		cores: newGate(x.Cores), pools: map[string]*pool{}, locks: map[string]gate{},
		meter: &meter{}, halt: &halt{},
	}
	n.random = newDice(seed, n.instance)
	if x.Workers > 0 {
		n.workers = newPool("workers", x.Workers)
	}
	n.meter.reset()
	n.served.Store(int64(x.ColdCalls)) // warm from the start
	for _, store := range s.spec.Stores {
		size, ok := x.Pools[store.Name]
		if !ok {
			size = 20
		}
		n.pools[store.Name] = newPool(store.Name, size)
	}
	return n
}

// listen opens the listener on a free port of loopback.
func (n *node) listen() error {
	var lc net.ListenConfig
	var err error
	if n.listener, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("lab: %s: %w", n.instance, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+HealthPath, func(w http.ResponseWriter, r *http.Request) {
		if !n.gone(w, r, "") {
			w.WriteHeader(http.StatusOK)
		}
	})
	for i := range n.spec.Operations {
		o := &n.spec.Operations[i]
		mux.HandleFunc("GET /"+n.spec.Name+"/"+o.Name, func(w http.ResponseWriter, r *http.Request) { n.handle(w, r, o) })
	}
	n.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	return nil
}

func (n *node) url() string { return "http://" + n.listener.Addr().String() }

func (n *node) serve() error {
	if err := n.server.Serve(n.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("lab: %s: %w", n.instance, err)
	}
	return nil
}

// stop lets open calls end for a moment, then cuts them off.
func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if n.server.Shutdown(ctx) != nil {
		_ = n.server.Close() // there is nobody to tell about what is cut off
	}
}

// hit is the fault of that kind that strikes this call; nil = none does.
func (n *node) hit(kind, operation string) *scenario.Fault {
	list := *n.sys.planted.active.Load()
	for i := range list {
		f := &list[i]
		if f.Kind == kind && f.Service == n.spec.Name && (f.Replica == 0 || f.Replica == n.replica) &&
			(f.Operation == "" || f.Operation == operation) && n.random.chance(f.Share) {
			return f
		}
	}
	return nil
}

// gone plays a process that is not there: it cuts the connection, or never answers.
func (n *node) gone(w http.ResponseWriter, r *http.Request, operation string) bool {
	if n.hit(scenario.Restart, operation) != nil {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close()
		}
		return true
	}
	if n.hit(scenario.Blackhole, operation) != nil {
		<-r.Context().Done()
		return true
	}
	return false
}

// begin opens a span of n. Its clock may be off.
func (n *node) begin(parent identity, kind trace.Kind, name string) *span {
	now := time.Now()
	x := &span{began: now, export: n.sys.emit(n), Span: trace.Span{
		TraceID: parent.trace, ID: fmt.Sprintf("%016x", rand.Uint64()|1), Parent: parent.span,
		Kind: kind, Service: n.spec.Name, Name: name, Start: now.UnixNano(), Host: n.instance,
	}}
	if f := n.hit(scenario.Skew, ""); f != nil {
		x.Start += int64(f.Skew)
	}
	if x.TraceID == "" {
		x.TraceID = fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()|1)
	}
	return x.set("service.instance.id", n.instance).set("host.name", n.instance)
}

// request is what the steps of one operation share.
type request struct {
	key       int
	operation string
}

// handle answers one call: the way here, the wait for a worker, the steps, the way back.
func (n *node) handle(w http.ResponseWriter, r *http.Request, o *scenario.Operation) {
	if n.gone(w, r, o.Name) {
		return
	}
	ctx := r.Context()
	way := n.spec.Link.Latency
	if f := n.hit(scenario.Region, o.Name); f != nil {
		way += n.random.draw(*f.Delay)
	}
	if pause(ctx, way/2) != nil {
		return
	}
	size := n.size(o)
	status := n.work(ctx, r, o, size)
	if ctx.Err() != nil {
		return // the caller went away, and there is nobody to answer
	}
	body := size
	if status != http.StatusOK {
		body = min(size, 1<<10)
	}
	if n.spec.Link.Bandwidth > 0 {
		way += 2 * time.Duration(float64(body)/float64(n.spec.Link.Bandwidth)*1e9)
	}
	if pause(ctx, way/2) != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(body, 10))
	w.WriteHeader(status)
	for ; body > 0; body -= int64(len(filler)) {
		if _, err := w.Write(filler[:min(int64(len(filler)), body)]); err != nil {
			return // the reader went away
		}
	}
}

// filler is what answers are made of.
var filler = make([]byte, 16<<10)

// size draws how many bytes an answer has.
func (n *node) size(o *scenario.Operation) int64 {
	if o.AnswerP99 <= o.Answer {
		return o.Answer
	}
	return min(int64(n.random.draw(scenario.Dist{Median: time.Duration(o.Answer), P99: time.Duration(o.AnswerP99)})), 4*o.AnswerP99)
}

// work does an operation within its SERVER span and returns the status of the answer. A request that waits for a worker is
// not in a span yet, as in servers with a pool of threads; one that is refused is.
func (n *node) work(ctx context.Context, r *http.Request, o *scenario.Operation, size int64) (status int) {
	parent, _ := parseTraceparent(r.Header.Get("Traceparent"))
	refused := n.workers != nil && n.spec.Backlog > 0 && n.workers.waiting() >= n.spec.Backlog
	if !refused && n.workers != nil {
		if n.workers.acquire(ctx) != nil {
			return http.StatusServiceUnavailable
		}
		defer n.workers.release()
	}
	at := n.begin(parent, trace.Server, "GET /"+n.spec.Name+"/"+o.Name)
	defer at.end()
	host, port, _ := net.SplitHostPort(n.listener.Addr().String())
	at.set("http.request.method", r.Method).set("http.route", "/"+n.spec.Name+"/"+o.Name).set("url.path", r.URL.Path).set("url.scheme", "http").
		set("server.address", host).set("server.port", port)
	if r.URL.RawQuery != "" {
		at.set("url.query", r.URL.RawQuery)
	}
	status = http.StatusOK
	if refused {
		status = http.StatusServiceUnavailable
	} else if err := n.operate(ctx, at, r, o); err != nil {
		if ctx.Err() != nil {
			at.set("error.type", "canceled")
			return 499
		}
		status = http.StatusInternalServerError
		if f, ok := errors.AsType[*failure](err); ok {
			status = f.status
		}
	}
	at.set("http.response.status_code", strconv.Itoa(status))
	if status == http.StatusOK {
		at.set("http.response.body.size", strconv.FormatInt(size, 10))
	} else if status >= 500 {
		at.fail(strconv.Itoa(status))
	}
	return status
}

func (n *node) operate(ctx context.Context, at *span, r *http.Request, o *scenario.Operation) error {
	cold := n.served.Add(1) <= int64(n.spec.ColdCalls)
	if f := n.hit(scenario.Errors, o.Name); f != nil {
		return &failure{status: f.Status, reason: "planted fault " + f.Name}
	}
	if f := n.hit(scenario.Delay, o.Name); f != nil {
		if err := n.sleep(ctx, n.random.draw(*f.Delay)); err != nil {
			return err
		}
	}
	key, _ := strconv.Atoi(r.URL.Query().Get("key")) // 0 where there is none
	x := &walk{node: n, request: request{key: key, operation: o.Name}, cold: cold}
	return x.steps(ctx, at, o.Steps)
}

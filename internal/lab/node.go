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

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/longpole/longpole/internal/scenario"
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
	lives    atomic.Int64 // processes that there were
	process  atomic.Pointer[process]
	listener net.Listener
	server   *http.Server
	rpc      *grpc.Server  // nil = it speaks HTTP
	removed  chan struct{} // closed when it was taken away
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
		meter: &meter{}, halt: &halt{}, removed: make(chan struct{}),
	}
	n.random = newDice(seed, n.instance)
	if x.Workers > 0 {
		n.workers = newPool("workers", x.Workers)
	}
	n.meter.reset()
	n.renew()
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

// reset puts all figures of n at zero.
func (n *node) reset() {
	n.meter.reset()
	if n.workers != nil {
		n.workers.reset()
	}
	for _, p := range n.pools {
		p.reset()
	}
}

// listen opens the listener on a free port of loopback.
func (n *node) listen() error {
	var lc net.ListenConfig
	var err error
	if n.listener == nil { // else it is given
		if n.listener, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return fmt.Errorf("lab: %s: %w", n.instance, err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+HealthPath, func(w http.ResponseWriter, r *http.Request) {
		if !n.gone(w, r, "") {
			w.WriteHeader(http.StatusOK)
		}
	})
	for i := range n.spec.Operations {
		o := &n.spec.Operations[i]
		path := "/" + n.spec.Name + "/" + o.Name
		if n.spec.Protocol == scenario.GRPC {
			mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
				if !n.gone(w, r, o.Name) {
					n.rpc.ServeHTTP(w, r)
				}
			})
			continue
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if !n.gone(w, r, o.Name) {
				n.handle(w, r, o)
			}
		})
	}
	n.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	if n.spec.Protocol == scenario.GRPC {
		n.rpc = n.grpcServer()
		n.server.Protocols, n.server.HTTP2 = new(http.Protocols), &http.HTTP2Config{MaxConcurrentStreams: streams}
		n.server.Protocols.SetHTTP1(true) // for health checks
		n.server.Protocols.SetUnencryptedHTTP2(true)
	}
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
	if n.rpc != nil {
		n.rpc.Stop()
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
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // HTTP/2: the stream is what can be cut
		}
		_ = c.Close()
		return true
	}
	if n.hit(scenario.Blackhole, operation) != nil {
		<-r.Context().Done()
		return true
	}
	return false
}

// renew makes the process of n a new one: nothing of what it knew of itself is left but its host.
func (n *node) renew() {
	life := n.lives.Add(1) - 1
	instance := n.instance
	if life > 0 {
		instance += "." + strconv.Itoa(int(life)) // an SDK would draw a UUID, which nobody can read
	}
	spans := n.sys.spans
	if n.spec.External {
		spans = nil
	}
	n.process.Store(newProcess(spans, n.spec.Name, instance, n.instance))
}

// begin opens a span of n. Its clock may be off.
func (n *node) begin(ctx context.Context, kind trace.SpanKind, name string) (context.Context, *span) {
	skew := time.Duration(0)
	if f := n.hit(scenario.Skew, ""); f != nil {
		skew = f.Skew
	}
	return n.process.Load().begin(ctx, kind, name, skew)
}

// request is what the steps of one operation share.
type request struct {
	key       int
	operation string
}

// incoming is a call as it came, whatever its protocol.
type incoming struct {
	key        int    // that it is about
	name       string // of its SERVER span
	attributes []attribute.KeyValue
	ended      func(at *span, status int, size int64) // sets the protocol's own attributes
}

// clientGone is the status of a call whose caller does not wait any more, as in the logs of nginx.
const clientGone = 499

// answer works on one call: the way here, the wait for a worker, the steps, the way back. It tells the status and the bytes of
// the answer. ctx carries the caller's span.
func (n *node) answer(ctx context.Context, o *scenario.Operation, in incoming) (status int, body int64) {
	way := n.spec.Link.Latency
	if f := n.hit(scenario.Region, o.Name); f != nil {
		way += n.random.draw(*f.Delay)
	}
	if pause(ctx, way/2) != nil {
		return clientGone, 0
	}
	body = n.size(o)
	status = n.work(ctx, o, in, body)
	if status != http.StatusOK {
		body = min(body, 1<<10)
	}
	if n.spec.Link.Bandwidth > 0 {
		way += 2 * time.Duration(float64(body)/float64(n.spec.Link.Bandwidth)*1e9)
	}
	if ctx.Err() != nil || pause(ctx, way/2) != nil {
		return clientGone, 0
	}
	return status, body
}

// handle answers one call over HTTP.
func (n *node) handle(w http.ResponseWriter, r *http.Request, o *scenario.Operation) {
	route := "/" + n.spec.Name + "/" + o.Name
	in := incoming{name: "GET " + route, ended: endedHTTP, attributes: []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(route), semconv.URLPath(r.URL.Path), semconv.URLScheme("http"),
	}}
	if r.URL.RawQuery != "" {
		in.attributes = append(in.attributes, semconv.URLQuery(r.URL.RawQuery))
	}
	in.key, _ = strconv.Atoi(r.URL.Query().Get("key")) // 0 where there is none
	status, body := n.answer(wire.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), o, in)
	if status == clientGone {
		return // there is nobody to answer
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

// endedHTTP tells how a call ended, in its SERVER span.
func endedHTTP(at *span, status int, size int64) {
	at.set(semconv.HTTPResponseStatusCode(status))
	if status == http.StatusOK {
		at.set(semconv.HTTPResponseBodySize(int(size)))
	} else if status >= 500 {
		at.fail(strconv.Itoa(status))
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
func (n *node) work(ctx context.Context, o *scenario.Operation, in incoming, size int64) (status int) {
	refused := n.workers != nil && n.spec.Backlog > 0 && n.workers.waiting() >= n.spec.Backlog
	if !refused && n.workers != nil {
		if n.workers.acquire(ctx) != nil {
			return clientGone
		}
		defer n.workers.release()
	}
	ctx, at := n.begin(ctx, trace.SpanKindServer, in.name)
	defer at.end()
	host, port, _ := net.SplitHostPort(n.listener.Addr().String())
	at.set(in.attributes...).at(host, port)
	status = http.StatusOK
	if refused {
		status = http.StatusServiceUnavailable
	} else if err := n.operate(ctx, o, in.key); err != nil {
		if ctx.Err() != nil {
			at.set(semconv.ErrorTypeKey.String("canceled"))
			return clientGone
		}
		status = http.StatusInternalServerError
		if f, ok := errors.AsType[*failure](err); ok {
			status = f.status
		}
	}
	in.ended(at, status, size)
	return status
}

func (n *node) operate(ctx context.Context, o *scenario.Operation, key int) error {
	cold := n.served.Add(1) <= int64(n.spec.ColdCalls)
	if f := n.hit(scenario.Errors, o.Name); f != nil {
		return &failure{status: f.Status, reason: "planted fault " + f.Name}
	}
	if f := n.hit(scenario.Delay, o.Name); f != nil {
		if err := n.sleep(ctx, n.random.draw(*f.Delay)); err != nil {
			return err
		}
	}
	x := &walk{node: n, request: request{key: key, operation: o.Name}, cold: cold}
	return x.steps(ctx, o.Steps)
}

package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/recording"
	"github.com/longpole/longpole/internal/stats"
)

// MirrorHeader marks a copy, so that nobody takes it for a person's call.
const MirrorHeader = "X-Longpole-Mirror"

// mirrorDrain is how much of a copy's answer is read, so that its time is that of the whole and its connection is used
// again; a longer one is broken off.
const mirrorDrain = 1 << 20

// heldBytes bounds the request bodies that wait to be copied, or recorded.
const heldBytes = 64 << 20

// mirror sends copies of a route's calls. Copies that cannot be sent now wait in a queue; those for which it has no room
// are dropped. Its goroutines end when the queue is empty.
type mirror struct {
	g        *Gateway
	cfg      Mirror
	to       *upstream
	balancer *balance.Balancer
	queue    chan mirrored
	running  atomic.Int64
	held     budget // bytes of bodies of the copies that wait

	sent, dropped, unfit, failed, same, differ atomic.Uint64
	original, copied                           stats.Histogram // of the calls whose copy was answered
}

// mirrored is a call that is to be copied, and what became of it.
type mirrored struct {
	x       *exchange
	status  int
	latency time.Duration
}

func (j *mirrored) size() int64 { return int64(len(j.x.body.kept)) }

// MirrorStatus is what a mirror did since it was set up. It is a copy.
type MirrorStatus struct {
	Upstream   string    `json:"upstream"`
	Share      float64   `json:"share"`
	Sent       uint64    `json:"sent"`
	Dropped    uint64    `json:"dropped"`     // for want of room
	Unfit      uint64    `json:"unfit"`       // drawn, but the body was not kept
	Failed     uint64    `json:"failed"`      // of Sent: no answer
	Same       uint64    `json:"same"`        // of Sent: the status is of the class that the call's was
	Differ     uint64    `json:"differ"`      // of Sent: of another one
	LatencyMS  Quantiles `json:"latency_ms"`  // of the copies, to the head
	OriginalMS Quantiles `json:"original_ms"` // of the calls that they are copies of

	Latency  stats.Snapshot `json:"-"` // cumulative
	Original stats.Snapshot `json:"-"`
}

// keepMirror sets a mirror up, or keeps one with the same settings, and what it has counted.
func keepMirror(g *Gateway, old *route, c *Mirror, upstreams map[string]*upstream) *mirror {
	if c == nil {
		return nil
	}
	to := upstreams[c.Upstream]
	if old != nil && old.side.mirror != nil && old.side.mirror.to == to && reflect.DeepEqual(old.side.mirror.cfg, *c) {
		return old.side.mirror
	}
	return &mirror{g: g, cfg: *c, to: to, balancer: balance.New(balance.Config{}, to.set), queue: make(chan mirrored, c.Queue)}
}

func (m *mirror) status() *MirrorStatus {
	if m == nil {
		return nil
	}
	copied, original := m.copied.Snapshot(), m.original.Snapshot()
	return &MirrorStatus{
		Upstream: m.cfg.Upstream, Share: m.cfg.Share, Sent: m.sent.Load(), Dropped: m.dropped.Load(), Unfit: m.unfit.Load(),
		Failed: m.failed.Load(), Same: m.same.Load(), Differ: m.differ.Load(),
		LatencyMS: QuantilesOf(copied), OriginalMS: QuantilesOf(original), Latency: copied, Original: original,
	}
}

// offer copies the call that has just ended, if it is drawn. It does not block.
func (m *mirror) offer(v *visit) {
	if v.status == statusClientGone || v.x.mode != plain || !slices.Contains(m.cfg.Method, v.r.Method) || m.cfg.Share < 1 && rand.Float64() >= m.cfg.Share {
		return
	}
	if v.rec.Fault != "" || len(v.r.Header[MirrorHeader]) > 0 {
		return // what was broken on purpose says nothing; and a copy is not copied again
	}
	if !v.x.body.whole() {
		m.unfit.Add(1)
		return
	}
	job := mirrored{x: v.x, status: v.status, latency: v.rec.Latency}
	if m.running.Add(1) <= int64(m.cfg.AtOnce) {
		if m.g.crew.start(func(ctx context.Context) { m.work(ctx, job) }) {
			return
		}
		m.running.Add(-1)
		m.dropped.Add(1)
		return
	}
	m.running.Add(-1)
	if !m.held.take(job.size(), heldBytes) {
		m.dropped.Add(1)
		return
	}
	select {
	case m.queue <- job:
	default:
		m.held.give(job.size())
		m.dropped.Add(1)
	}
}

// work sends a copy, then those that wait.
func (m *mirror) work(ctx context.Context, job mirrored) {
	defer m.running.Add(-1)
	for {
		m.send(ctx, job)
		select {
		case job = <-m.queue:
			m.held.give(job.size())
		default:
			return
		}
	}
}

// send makes one copy and compares its answer.
func (m *mirror) send(ctx context.Context, job mirrored) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	m.sent.Add(1)
	began := time.Now()
	status, took, err := m.exchange(ctx, job.x, began)
	if err != nil {
		m.failed.Add(1)
		return
	}
	m.original.Record(job.latency)
	m.copied.Record(took)
	if status/100 == job.status/100 {
		m.same.Add(1)
	} else {
		m.differ.Add(1)
	}
}

// exchange sends the request of x to an endpoint of the mirror, and reads its answer.
func (m *mirror) exchange(ctx context.Context, x *exchange, began time.Time) (status int, took time.Duration, err error) {
	e, err := m.balancer.Pick(began, nil)
	if err != nil {
		return 0, 0, err
	}
	out := call.Outcome{Class: call.Server}
	defer func() { m.balancer.Done(e, time.Now(), out) }()
	to := m.to.cfg.Load().places[e.Name()]
	if to == nil {
		return 0, 0, errGone
	}
	// A trace of its own: what staging does is no part of the call.
	var span attemptSpan
	own := spans{origin: parentage{trace: newID(2), flags: "00"}}
	span.begin(&own, 1, false, m.to.name, to, x.in.Method)
	deadline, _ := ctx.Deadline()
	var req http.Request
	var u url.URL
	x.request(&req, &u, m.to.cfg.Load(), to, &span, deadline)
	r := req.WithContext(ctx)
	if err := x.carry(r); err != nil {
		return 0, 0, err
	}
	delete(r.Header, "Tracestate")
	r.Header[MirrorHeader] = []string{"1"}
	if !m.cfg.KeepCredentials {
		for name := range r.Header {
			if name != "X-Forwarded-For" && recording.Credential(name) {
				delete(r.Header, name)
			}
		}
	}
	res, err := m.g.road(m.to).pools[plain].RoundTrip(r)
	out.Latency = time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	_, err = io.CopyN(io.Discard, res.Body, mirrorDrain)
	_ = res.Body.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	out.Class = x.Judge(res, nil).Class
	return res.StatusCode, out.Latency, nil
}

// crew are the goroutines that outlive calls, and end with the gateway.
type crew struct {
	mu   sync.Mutex // guards what follows, but for the wait
	life context.Context
	stop context.CancelFunc
	over bool
	run  sync.WaitGroup
}

// start runs f; false = the gateway has stopped.
func (c *crew) start(f func(ctx context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	if c.life == nil {
		c.life, c.stop = context.WithCancel(context.Background())
	}
	life := c.life
	c.run.Go(func() { f(life) })
	return true
}

// end stops them and waits.
func (c *crew) end() {
	c.mu.Lock()
	c.over = true
	if c.stop != nil {
		c.stop()
	}
	c.mu.Unlock()
	c.run.Wait()
}

package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/recording"
	"github.com/longpole/longpole/internal/trace"
)

// visit is the state of one call that belongs to its handler.
type visit struct {
	g          *Gateway
	w          http.ResponseWriter
	r          *http.Request
	route      *route
	x          *exchange
	rec        call.Record
	start      time.Time
	version    *version // nil = the route answers by itself
	arm        *arm     // nil = the route answers by itself
	cohort     *cohort
	timings    []timing // what the answer says it cost; read for a cohort only
	captures   []string // what the route's pattern captured
	caller     caller
	key        string
	peer       peer
	status     int
	armed      time.Time     // when the client was last given time to take what is written
	told       bool          // the figures have the call
	repeatable bool          // by the policy
	struck     *fault.Effect // what the call suffers on purpose; nil = nothing
}

// serve is the handler of the data plane.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	if !g.calls.enter() {
		refuse(w, "", refusal{http.StatusServiceUnavailable, "draining", "the gateway is stopping", time.Second})
		return
	}
	defer g.calls.leave()
	if r.ProtoMajor == 1 && g.draining.Load() {
		w.Header()["Connection"] = []string{"close"} // the next call on it could meet its end
	}
	if g.validates(w, r) {
		return
	}
	certify(r)
	t := g.table.Load()
	f, bad := unacceptable(r)
	if !bad && g.serveJob(w, r) {
		return
	}
	var route *route
	var captures []string
	if !bad {
		if route, captures = t.find(r); route == nil {
			f, bad = refusal{http.StatusNotFound, "no_route", "no route takes this call", 0}, true
		}
	}
	g.deadlines(w, r, &t.cfg.Limits, bad)
	if bad {
		g.unrouted.Add(1)
		refuseAs(modeOf(r), w, "", f)
		return
	}
	v := &visit{g: g, w: w, r: r, route: route, captures: captures, start: time.Now(), peer: t.trusted.peerOf(r)}
	v.rec.Start = v.start
	v.rec.Route = route.cfg.Name
	v.identify()
	v.draw()
	v.run()
	v.settle()
	if v.status == statusClientGone {
		panic(http.ErrAbortHandler) // a client that has only ended its side would get the empty 200 of a handler that wrote nothing
	}
}

// deadlines puts those of the connection right, where something is read or written before the answer: the write deadline
// of the call before may still stand, and a body that no one will read must not be waited for longer than one that is read.
func (g *Gateway) deadlines(w http.ResponseWriter, r *http.Request, l *Limits, refused bool) {
	body := r.ContentLength != 0 && r.Body != http.NoBody
	if !body && !refused {
		return
	}
	control := http.NewResponseController(w)
	until := time.Time{}
	if l.StallTimeout > 0 {
		until = time.Now().Add(l.StallTimeout)
	}
	if body {
		_ = control.SetReadDeadline(until)
	}
	if !refused {
		until = time.Time{}
	}
	_ = control.SetWriteDeadline(until)
	if refused && body && r.ProtoMajor == 1 {
		_ = control.EnableFullDuplex() // the answer does not wait for a body that nobody wants
		w.Header()["Connection"] = []string{"close"}
	}
}

// run answers the client in the way the route asks for.
func (v *visit) run() {
	origin, inherited := parentOf(v.r.Header)
	v.x = &exchange{
		g: v.g, in: v.r, route: v.route, up: v.upstream(), body: nothing, trailers: announced(v.r), mode: modeOf(v.r), start: v.start, silent: v.limits().StreamIdle,
	}
	v.x.spans.host = v.g.host
	v.x.spans.origin = origin
	v.sample(inherited)
	v.x.header = forwardHeader(v.r, &v.peer)
	if !inherited {
		delete(v.x.header, "Tracestate")
	}
	defer v.finish()
	// Ways to answer other than to forward are cases of this switch, each a nil check on the route: an answer that needs
	// no upstream (serveLocal), work that is stored for later (serveOffload), several calls merged into one answer
	// (serveAggregate), a call that waits for others like it (serveBatch). Each leaves v.rec and v.status filled in.
	switch {
	case !v.g.overload.admit(v.info(false)):
		v.rec.Class = call.Shed
		v.send(refusal{http.StatusServiceUnavailable, "overload", "the gateway is short of memory, descriptors or goroutines", time.Second})
	case v.route.actions.local():
		v.serveLocal()
	case !v.outgoing():
		v.rec.Class = call.Client
		v.send(refusal{http.StatusBadRequest, "bad_request", "the route cannot rewrite the call", 0})
	case putsOff(v.r, v.route.cfg.Offload):
		v.serveOffload()
	case v.route.cfg.Aggregate != nil:
		v.serveAggregate()
	case v.route.cfg.Batch == nil || !v.serveBatch():
		v.forward()
	}
}

// limits are those in force.
func (v *visit) limits() *Limits { return &v.g.table.Load().cfg.Limits }

// forward makes the call and streams its answer.
func (v *visit) forward() {
	same := httppolicy.Idempotent(v.r) && v.x.mode != tunnel
	body, err := v.g.receive(v.w, v.r, v.limits(), v.need(same))
	if err != nil {
		v.rec.Latency = time.Since(v.start)
		v.refuse(err, err)
		return
	}
	defer body.close()
	v.x.body = body
	v.repeatable = same && body.replayable() && (body.whole() || !v.arm.hedges)
	info := v.info(v.repeatable)
	if v.arm.caches {
		v.key = v.cacheable(body)
		info.Key = v.key
	}
	ctx, cancel := v.context()
	defer cancel()
	v.x.lone = !v.arm.hedges && !v.arm.caches
	v.x.early.begin(v.w, v.r, v.limits().StallTimeout)
	// What the caller is and how much the call matters is in info by now; faults are injected by the policy inside Do.
	res, err := longpole.Do(v.strike(ctx), v.arm.policy, info, &v.rec, v.x) //nolint:bodyclose // answer closes it
	v.x.early.end()
	if err != nil {
		v.refuse(err, body.fault())
		return
	}
	v.learn(res)
	v.answer(res)
}

// need is what the call asks of its body. A stream is not read ahead, and so not hedged.
func (v *visit) need(same bool) need {
	stream := v.x.mode != plain || v.route.cfg.Stream
	n := need{again: same, copy: v.arm.hedges, waits: stream || expects(v.r), stream: stream}
	if stream {
		n.touch = v.x.touch
	}
	return n
}

// info is what the policies may know of the call.
func (v *visit) info(idempotent bool) call.Info {
	v.rec.RequestBytes = max(0, v.r.ContentLength)
	return call.Info{Route: v.route.cfg.Name, Idempotent: idempotent, Priority: v.caller.priority, Cohort: v.caller.cohort, Tenant: v.caller.tenant}
}

// context is that of the client, with the deadline it sent. cancel must be called.
func (v *visit) context() (ctx context.Context, cancel context.CancelFunc) {
	ctx = v.r.Context()
	if left, ok := httppolicy.Remaining(v.r.Header); ok {
		v.x.until = v.start.Add(left)
		return context.WithDeadlineCause(ctx, v.x.until, longpole.ErrDeadline)
	}
	return ctx, func() {}
}

// finish feeds the one record of the call to all that learn from it.
func (v *visit) finish() {
	now := time.Now()
	v.rec.Total = max(v.rec.Total, v.rec.Latency)
	v.unstruck(now)
	v.count(now)
	// Who else learns from an ended call is told here, after the figures: the access log, the mirror, the recording. Each is
	// a nil check, none may block, and none keeps v.r or v.w.
	v.log(now)
	v.tell()
	if v.x.spans.sink != nil {
		v.x.spans.flush(v.span(now))
	}
}

// count feeds the figures, once a call: when it ends, or when it becomes a tunnel.
func (v *visit) count(now time.Time) {
	if v.told {
		return
	}
	v.told = true
	v.route.live.figures.add(now, &v.rec)
	if v.cohort != nil && v.rec.Fault == "" { // what was broken on purpose speaks for no arm
		name := ""
		if u := v.upstream(); u != nil {
			name = u.name
		}
		v.cohort.add(&v.rec, name, v.timings)
	}
	v.observe(now)
}

// span is the SERVER span of the call.
func (v *visit) span(now time.Time) trace.Span {
	s := trace.Span{
		TraceID: v.x.spans.origin.trace, ID: v.x.spans.server, Parent: v.x.spans.origin.parent, Kind: trace.Server,
		Service: service, Name: v.route.cfg.Name, Start: v.start.UnixNano(), End: now.UnixNano(), Host: v.g.host,
		Failed: v.status >= 500 || v.rec.Class.Failed(),
		Attributes: []trace.Attribute{
			{Key: "longpole.segment", Value: string(trace.SegGateway)},
			{Key: "http.request.method", Value: v.r.Method},
			{Key: "http.route", Value: v.route.cfg.Match.Target()},
			{Key: "url.path", Value: clipped(v.r.URL.Path)},
			{Key: "http.response.status_code", Value: strconv.Itoa(v.status)},
			{Key: "longpole.cache", Value: v.rec.Cache.String()},
		},
	}
	if v.r.URL.RawQuery != "" {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "url.query", Value: recording.Redact(clipped(v.r.URL.RawQuery))})
	}
	if v.rec.Arm != "" {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "longpole.arm", Value: v.rec.Arm})
	}
	if v.rec.Fault != "" {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "longpole.fault", Value: v.rec.Fault})
	}
	if s.Failed {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "error.type", Value: v.rec.Class.String()})
	}
	return s
}

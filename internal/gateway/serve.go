package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/trace"
)

// visit is the state of one call that belongs to its handler.
type visit struct {
	g      *Gateway
	w      http.ResponseWriter
	r      *http.Request
	route  *route
	x      *exchange
	rec    call.Record
	start  time.Time
	arm    *arm
	cohort *counters
	key    string
	status int
}

// serve is the handler of the data plane.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	if !g.calls.enter() {
		refuse(w, "", refusal{http.StatusServiceUnavailable, "draining", "the gateway is stopping", time.Second})
		return
	}
	defer g.calls.leave()
	g.deadlines(w, r)
	f, bad := unacceptable(r)
	var route *route
	if !bad {
		if route = g.table.Load().find(r); route == nil {
			f, bad = refusal{http.StatusNotFound, "no_route", "no route takes this call", 0}, true
		}
	}
	if bad {
		g.unrouted.Add(1)
		refuse(w, "", f)
		return
	}
	v := &visit{g: g, w: w, r: r, route: route, start: time.Now()}
	v.rec.Start = v.start
	v.rec.Route = route.cfg.Name
	v.arm, v.rec.Arm, v.cohort = route.live.arms.Load().draw()
	v.run()
}

// deadlines puts those of the connection right: the write deadline of the call before may still stand, and a body that
// no one will read must not be waited for longer than one that is read.
func (g *Gateway) deadlines(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	stall := g.table.Load().cfg.Limits.StallTimeout
	if stall > 0 && r.ContentLength != 0 && r.Body != http.NoBody {
		_ = control.SetReadDeadline(time.Now().Add(stall))
	}
}

// run answers the client in the way the route asks for.
func (v *visit) run() {
	origin, inherited := parentOf(v.r.Header)
	v.x = &exchange{g: v.g, in: v.r, route: v.route, body: &inbound{}}
	v.x.spans.sink, v.x.spans.host = v.g.options.Spans, v.g.host
	v.x.spans.origin, v.x.spans.server = origin, newID(1)
	v.x.header = forwardHeader(v.r)
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
	default:
		v.forward()
	}
}

// forward makes the call and streams its answer.
func (v *visit) forward() {
	same := idempotent(v.r)
	body, err := receive(v.w, v.r, v.g.table.Load().cfg.Limits, same)
	if err != nil {
		v.rec.Latency = time.Since(v.start)
		v.refuse(err, err)
		return
	}
	defer body.close()
	v.x.body = body
	info := v.info(same && body.replayable())
	if v.arm.caches {
		v.key = cacheKey(v.r, body)
		info.Key = v.key
	}
	ctx, cancel := v.context()
	defer cancel()
	// What the caller is and how much the call matters is in info by now; faults are injected by the policy inside Do.
	res, err := longpole.Do(ctx, v.arm.policy, info, &v.rec, v.x)
	if err != nil {
		v.refuse(err, body.fault())
		return
	}
	v.answer(res)
}

// info is what the policies may know of the call.
func (v *visit) info(idempotent bool) call.Info {
	v.rec.RequestBytes = max(0, v.r.ContentLength)
	return call.Info{Route: v.route.cfg.Name, Idempotent: idempotent}
}

// context is that of the client, with the deadline it sent. cancel must be called.
func (v *visit) context() (ctx context.Context, cancel context.CancelFunc) {
	ctx = v.r.Context()
	if left, ok := httppolicy.Remaining(v.r.Header); ok {
		return context.WithDeadlineCause(ctx, v.start.Add(left), longpole.ErrDeadline)
	}
	return ctx, func() {}
}

// finish feeds the one record of the call to all that learn from it.
func (v *visit) finish() {
	now := time.Now()
	v.rec.Total = max(v.rec.Total, v.rec.Latency)
	v.route.live.figures.add(now, &v.rec)
	if v.cohort != nil {
		v.cohort.add(&v.rec)
	}
	places := v.route.live.upstream.cfg.Load().places
	for i := range v.rec.Kept() {
		a := &v.rec.Attempts[i]
		if e := places[a.Endpoint]; e != nil {
			e.observe(now, a)
		}
	}
	// Who else learns from an ended call is told here, after the figures: the access log, the mirror, the recording. Each is
	// a nil check, none may block, and none keeps v.r or v.w.
	v.log(now)
	if v.g.options.Spans != nil {
		v.x.spans.flush(v.span(now))
	}
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
			{Key: "http.route", Value: v.route.match.path()},
			{Key: "url.path", Value: clipped(v.r.URL.Path)},
			{Key: "http.response.status_code", Value: strconv.Itoa(v.status)},
			{Key: "longpole.cache", Value: v.rec.Cache.String()},
		},
	}
	if v.r.URL.RawQuery != "" {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "url.query", Value: clipped(v.r.URL.RawQuery)})
	}
	if v.rec.Arm != "" {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "longpole.arm", Value: v.rec.Arm})
	}
	if s.Failed {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "error.type", Value: v.rec.Class.String()})
	}
	return s
}

package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/limit"
)

// statusClientGone is what nginx records for a client that did not wait. It is never sent.
const statusClientGone = 499

// refusal is an answer that the gateway makes itself.
type refusal struct {
	status     int
	reason     string
	message    string
	retryAfter time.Duration // 0 = not said
}

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

// unacceptable finds what no route may see.
func unacceptable(r *http.Request) (refusal, bool) {
	switch {
	case upgrades(r):
		return refusal{http.StatusNotImplemented, "not_supported", "protocol upgrades and CONNECT are not supported", 0}, true
	case r.URL.Path == "" || r.URL.Path[0] != '/':
		return refusal{http.StatusBadRequest, "bad_request", "want a path that starts with /", 0}, true
	case climbs(r.URL.Path):
		return refusal{http.StatusBadRequest, "bad_request", "want a path without dot segments", 0}, true
	case looping(r):
		return refusal{http.StatusLoopDetected, "loop", "the call has passed here too often", 0}, true
	}
	return refusal{}, false
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
	v.forward()
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

func bodyRefusal(err error) refusal {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refusal{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("want a body of at most %d bytes", tooLarge.Limit), 0}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal{http.StatusRequestTimeout, "body_timeout", "the body stalled", 0}
	}
	return refusal{http.StatusBadRequest, "bad_request", "the body ended early", 0}
}

// refuse answers a call that ended in err; fault is what the client's body did wrong, if anything.
func (v *visit) refuse(err, fault error) {
	// To net/http a client that stalls and one that leaves are the same: both end the context.
	if gone := v.r.Context().Err() != nil; gone && !errors.Is(fault, os.ErrDeadlineExceeded) {
		v.rec.Class = call.Canceled
		v.status = statusClientGone
		return
	}
	if fault != nil {
		v.rec.Class = call.Client
		v.send(bodyRefusal(fault))
		return
	}
	v.send(v.refusal(err))
}

func (v *visit) refusal(err error) refusal {
	unavailable, h := http.StatusServiceUnavailable, v.route.live.upstream.cfg.Load().Health
	switch class := longpole.Class(err); {
	case errors.Is(err, breaker.ErrOpen):
		return refusal{unavailable, "breaker_open", "every fit endpoint has failed too often", max(v.arm.reopen, time.Second)}
	case errors.Is(err, balance.ErrNoEndpoint):
		return refusal{unavailable, "no_endpoint", "no endpoint is fit", max(h.Interval*time.Duration(h.Healthy), time.Second)}
	case errors.Is(err, limit.ErrRate):
		return refusal{http.StatusTooManyRequests, "rate", "too many calls per second", max(longpole.Pushback(err), time.Second)}
	case errors.Is(err, limit.ErrDoomed):
		return refusal{http.StatusGatewayTimeout, "doomed", "too little time is left for an answer", 0}
	case class == call.Shed:
		return refusal{unavailable, "shed", "a policy refused the call", time.Second}
	case class == call.Timeout, class == call.Refused && timedOut(err):
		return refusal{http.StatusGatewayTimeout, "timeout", "the upstream did not answer in time", 0}
	case class == call.Refused:
		return refusal{http.StatusBadGateway, "refused", "no endpoint could be connected to", 0}
	}
	return refusal{http.StatusBadGateway, "upstream_error", "the upstream broke off", 0}
}

// timedOut reports a connection attempt that got no answer at all.
func timedOut(err error) bool {
	var wait net.Error
	return errors.As(err, &wait) && wait.Timeout()
}

func (v *visit) send(f refusal) {
	v.status = f.status
	v.deadline()
	if v.key != "" {
		addCacheStatus(v.w.Header(), v.rec.Cache)
	}
	refuse(v.w, v.route.cfg.Name, f)
	v.rec.Total = max(v.rec.Latency, time.Since(v.start))
}

// refuse writes f.
func refuse(w http.ResponseWriter, route string, f refusal) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Longpole-Error", f.reason)
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	var body struct {
		Error struct {
			Route   string `json:"route,omitempty"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"error"`
	}
	body.Error.Route, body.Error.Reason, body.Error.Message = route, f.reason, f.message
	text, _ := json.Marshal(body) // three texts cannot fail
	text = append(text, '\n')
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(f.status)
	_, _ = w.Write(text)
}

// deadline gives the client time to take what is written next.
func (v *visit) deadline() {
	if stall := v.g.table.Load().cfg.Limits.StallTimeout; stall > 0 {
		_ = http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(stall))
	}
}

// answer streams res to the client.
func (v *visit) answer(res *http.Response) {
	defer res.Body.Close()
	v.status = res.StatusCode
	h := v.w.Header()
	maps.Copy(h, res.Header)
	h["Via"] = append(append([]string(nil), h["Via"]...), via(max(res.ProtoMajor, 1), max(res.ProtoMinor, 1)))
	if v.arm.caches {
		addCacheStatus(h, v.rec.Cache)
	}
	announced := make(map[string]bool, len(res.Trailer))
	for name := range res.Trailer {
		announced[name] = true
		h.Add("Trailer", name)
		h.Del("Content-Length") // only a chunked answer has room for trailers
	}
	v.deadline()
	v.w.WriteHeader(res.StatusCode)
	fault := v.stream(res)
	v.rec.Total = time.Since(v.start)
	if fault != nil {
		// The head is sent; to break off is the only way left to say that the body is not whole.
		panic(http.ErrAbortHandler)
	}
	stripHopByHop(res.Trailer)
	for name, values := range res.Trailer {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// chunks are the buffers that bodies pass through.
var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// stream copies the body and flushes what might not be followed by more soon. Its error is one of the upstream or of
// the client, and noted in the record.
func (v *visit) stream(res *http.Response) error {
	if res.Body == http.NoBody {
		return nil
	}
	buf := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(buf)
	flusher := http.NewResponseController(v.w)
	left := res.ContentLength
	if left < 0 {
		_ = flusher.Flush()
	}
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			v.deadline()
			if _, werr := v.w.Write(buf[:n]); werr != nil {
				v.rec.Class = call.Canceled
				return werr
			}
			v.rec.ResponseBytes += int64(n)
			left -= int64(n)
			if err == nil && n < len(buf) && left != 0 {
				if werr := flusher.Flush(); werr != nil && !errors.Is(werr, http.ErrNotSupported) {
					v.rec.Class = call.Canceled
					return werr
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			v.rec.Class = call.Server
			if v.r.Context().Err() != nil {
				v.rec.Class = call.Canceled
			} else if v.x.class(v.r.Context(), err) == call.Timeout {
				v.rec.Class = call.Timeout
			}
			return err
		}
	}
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

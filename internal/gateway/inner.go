package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/trace"
)

// inner is a call that the gateway makes by itself: the delivery of a job, a part of an aggregate, a joint call. It goes
// the way of a client's, with the policy of its route; its answer is kept in memory.
type inner struct {
	route  *route
	r      *http.Request // its context bounds the call
	header http.Header   // of every attempt
	origin parentage
	name   string     // of its span
	kind   trace.Kind // of its span
	attrs  []trace.Attribute
	again  bool  // it is the call of a client, made later: what its route rewrites holds
	limit  int64 // bytes of body that are kept; an answer with more is broken off
	caller caller
}

// captured is the answer to an inner call.
type captured struct {
	head   http.Header
	status int // 0 = there was none
	body   bytes.Buffer
	over   bool // the body was too long, and broken off
	broken bool // the answer ended early
	rec    call.Record
	limit  int64
}

var errOver = errors.New("gateway: the answer is too long to be kept")

// Header is that of the answer.
func (c *captured) Header() http.Header { return c.head }

// WriteHeader keeps the status; informational ones are nobody's.
func (c *captured) WriteHeader(status int) {
	if c.status == 0 && status >= http.StatusOK {
		c.status = status
	}
}

// Write keeps p as far as there is room.
func (c *captured) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	if int64(c.body.Len()+len(p)) > c.limit {
		c.over = true
		return 0, errOver
	}
	return c.body.Write(p)
}

// Flush does nothing: whoever reads the answer waits for its end.
func (c *captured) Flush() {}

// reason is why the gateway answered by itself; "" = it did not.
func (c *captured) reason() string {
	switch {
	case c.over:
		return "answer_too_large"
	case c.broken:
		return "upstream_error"
	case c.status == 0:
		return "canceled"
	case slices.ContainsFunc(c.rec.Kept(), func(a call.Attempt) bool { return a.Won }):
		return "" // the field is that of another gateway
	}
	return c.head.Get("X-Longpole-Error")
}

// call makes it.
func (g *Gateway) call(i *inner) *captured {
	c := &captured{head: make(http.Header), limit: i.limit}
	v := &visit{g: g, w: c, r: i.r, route: i.route, start: time.Now(), caller: i.caller}
	v.rec.Start, v.rec.Route = v.start, i.route.cfg.Name
	v.draw()
	v.x = &exchange{g: g, in: i.r, route: i.route, up: v.upstream(), header: i.header, body: &inbound{}, start: v.start}
	v.x.spans.host, v.x.spans.origin, v.x.spans.server = g.host, i.origin, newID(1)
	if !i.origin.quiet {
		v.x.spans.sink = g.options.Spans
	}
	if i.again && !v.retarget() {
		v.rec.Class = call.Client
		v.send(refusal{http.StatusBadRequest, "bad_request", "the route cannot rewrite the call", 0})
	} else {
		c.broken = !completes(v.forward)
	}
	now := time.Now()
	v.rec.Total = max(v.rec.Total, v.rec.Latency)
	v.count(now)
	c.rec = v.rec
	v.flushInner(now, i, c)
	return c
}

// completes reports whether do returned; an answer that is broken off panics, for net/http to end the connection.
func completes(do func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != any(http.ErrAbortHandler) {
			panic(p)
		}
	}()
	do()
	return true
}

// flushInner sends the spans of a call that no client made.
func (v *visit) flushInner(now time.Time, i *inner, c *captured) {
	if v.g.options.Spans == nil {
		return
	}
	s := trace.Span{
		TraceID: i.origin.trace, ID: v.x.spans.server, Parent: i.origin.parent, Kind: i.kind, Service: service, Name: i.name,
		Start: v.start.UnixNano(), End: now.UnixNano(), Host: v.g.host, Failed: v.rec.Class.Failed() || c.broken,
		Attributes: append(i.attrs,
			trace.Attribute{Key: "longpole.segment", Value: string(trace.SegGateway)},
			trace.Attribute{Key: "http.response.status_code", Value: strconv.Itoa(c.status)}),
	}
	if s.Failed {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "error.type", Value: v.rec.Class.String()})
	}
	v.x.spans.flush(s)
}

// innerRequest is a request that no client sent.
func innerRequest(ctx context.Context, method string, like *http.Request) *http.Request {
	return (&http.Request{
		Method: method, Host: like.Host, TLS: like.TLS, RemoteAddr: like.RemoteAddr, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}).WithContext(ctx)
}

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/trace"
)

// ways are the compiled ways of a route to answer other than to forward.
type ways struct {
	parts []part // of an aggregate
	batch *joint
}

// part is one call of an aggregate. Its route is in the table by its own name, as any other, but takes no calls of clients.
type part struct {
	name  string
	path  template
	route *route // a call under way uses that of its own table, which a reload may have taken away since
}

// compileParts makes what a route needs to answer other than to forward. Parts keep what they learned as routes do.
func (g *Gateway) compileParts(old, next *table, r *route, upstreams map[string]*upstream) error {
	if r.cfg.Batch != nil {
		r.ways.batch = g.joints.keep(g, r)
	}
	if r.cfg.Aggregate == nil {
		return nil
	}
	for _, p := range r.cfg.Aggregate.Parts {
		path, err := parseTemplate(p.Path)
		if err != nil {
			return fmt.Errorf("gateway: route %q: part %q: %w", r.cfg.Name, p.Name, err)
		}
		c := Route{Name: r.cfg.Name + "#" + p.Name, Upstream: p.Upstream, Policy: r.cfg.Policy} // # is in no name of a file
		setDefault(&c.Upstream, r.cfg.Upstream)
		if p.Policy != nil {
			c.Policy = p.Policy.Safe()
		}
		l, err := keepLive(old.byName[c.Name], c, upstreams, g.killed.on(c.Name))
		if err != nil {
			return fmt.Errorf("gateway: route %q: part %q: %w", r.cfg.Name, p.Name, err)
		}
		sub := &route{cfg: c, live: l, actions: &actions{}, side: side{faults: r.side.faults}} // what strikes the route strikes its parts
		next.byName[c.Name] = sub
		r.ways.parts = append(r.ways.parts, part{p.Name, path, sub})
	}
	return nil
}

// refileParts puts the settings of the parts in force.
func (g *Gateway) refileParts(next *table) {
	for _, r := range next.routes {
		for _, p := range r.ways.parts {
			if err := p.route.live.refile(p.route.cfg); err != nil {
				g.options.Log.Error("a policy stays as it was", "route", p.route.cfg.Name, "error", err)
			}
			g.second.share(p.route.live.arms.Load().baseline)
		}
	}
}

// notForParts are the request fields that mean the one answer of the client, or its connection: coding, conditions, ranges,
// body, and another protocol.
var notForParts = []string{
	"Accept-Encoding", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range",
	"Content-Type", "Content-Encoding", "Content-Language", "Te", "Accept", "Expect", "Connection", "Upgrade",
}

// partError is why a part has no body to give.
type partError struct {
	part   string // route of the part: one that was cancelled for another's fault has that as its error
	status int
	reason string
	class  call.Class
}

// Error says it in a few words.
func (e *partError) Error() string {
	return fmt.Sprintf("gateway: part failed: %d %s", e.status, e.reason)
}

// partAnswer is the good answer of a part.
type partAnswer struct {
	status int
	body   json.RawMessage
}

// serveAggregate makes all parts at once and merges their answers.
func (v *visit) serveAggregate() {
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		v.rec.Class = call.Client
		v.w.Header().Set("Allow", "GET, HEAD")
		v.send(refusal{http.StatusMethodNotAllowed, "bad_request", "want GET or HEAD", 0})
		return
	}
	c := v.route.cfg.Aggregate
	calls := make([]*inner, len(v.route.ways.parts))
	for n, p := range v.route.ways.parts {
		i, err := v.part(&p, c.Bytes)
		if err != nil {
			v.rec.Class = call.Client
			v.send(refusal{http.StatusBadRequest, "bad_request", "part " + p.name + " needs a segment or a parameter that the call does not have", 0})
			return
		}
		calls[n] = i
	}
	ctx, cancel := v.context()
	defer cancel()
	mode := longpole.FirstError
	if c.Mode == modeBestEffort {
		mode = longpole.BestEffort
	}
	results, err := longpole.Fan(ctx, longpole.FanConfig{Limit: len(calls), Timeout: c.Timeout, Mode: mode}, calls,
		func(ctx context.Context, i *inner) (partAnswer, error) {
			i.r = i.r.WithContext(ctx)
			answer, err := jsonOf(v.g.call(i))
			if fault, ok := errors.AsType[*partError](err); ok {
				fault.part = i.name
			}
			return answer, err
		})
	v.rec.Latency = time.Since(v.start)
	if err != nil {
		v.refuseAggregate(err, results)
		return
	}
	v.merge(results)
}

// part is the call of one part.
func (v *visit) part(p *part, limit int64) (*inner, error) {
	target, err := p.path.fill(v.r, "")
	if err != nil {
		return nil, err
	}
	h := v.x.header.Clone()
	for _, name := range notForParts {
		delete(h, name)
	}
	h["Accept"] = []string{"application/json"}
	r := innerRequest(v.r.Context(), http.MethodGet, v.r)
	r.URL, r.Header = target, h
	return &inner{
		route: p.route, r: r, header: h, origin: v.x.spans.within(),
		name: p.route.cfg.Name, kind: trace.Internal, limit: limit, caller: v.caller,
		attrs: []trace.Attribute{{Key: "url.path", Value: clipped(target.Path)}},
	}, nil
}

// jsonOf takes the answer of a part when it is good JSON. One without a body is null.
func jsonOf(c *captured) (partAnswer, error) {
	fail := func(reason string) error {
		class := c.rec.Class
		if class == call.OK {
			class = call.Server
		}
		return &partError{"", c.status, reason, class}
	}
	own := c.reason()
	body := bytes.TrimSpace(c.body.Bytes())
	switch {
	case own != "":
		return partAnswer{}, fail(own)
	case c.status >= 300 || c.status < 200:
		return partAnswer{}, fail("status")
	case c.head.Get("Content-Encoding") != "" && c.head.Get("Content-Encoding") != "identity":
		return partAnswer{}, fail("encoded")
	case len(body) == 0 && (c.status == http.StatusNoContent || c.status == http.StatusResetContent):
		return partAnswer{c.status, json.RawMessage("null")}, nil
	case !json.Valid(body):
		return partAnswer{}, fail("not_json")
	}
	return partAnswer{c.status, body}, nil
}

// statuses says how each part ended, in a field of the answer: user=200, orders=503.
func (v *visit) statuses(results []longpole.Result[partAnswer]) {
	var all, missing []string
	for n, r := range results {
		p, status := &v.route.ways.parts[n], r.Value.status
		if r.Err != nil {
			status = partFault(p, r.Err).status
			missing = append(missing, p.name)
		}
		all = append(all, p.name+"="+strconv.Itoa(status))
	}
	v.w.Header().Set("X-Longpole-Parts", strings.Join(all, ", "))
	if len(missing) > 0 {
		v.w.Header().Set("X-Longpole-Partial", strings.Join(missing, ", "))
	}
}

// partFault names why a part failed, also when it was not begun, or given up.
func partFault(p *part, err error) *partError {
	e, ok := errors.AsType[*partError](err)
	routed := p.route.cfg.Name
	switch {
	case ok && e.part != routed:
		return &partError{routed, 0, "canceled", call.Canceled}
	case ok && e.status != 0 && e.status != statusClientGone:
		return e
	case ok, longpole.Class(err) == call.Timeout:
		return &partError{routed, http.StatusGatewayTimeout, "timeout", call.Timeout}
	}
	return &partError{routed, 0, "canceled", call.Canceled}
}

// refuseAggregate answers when there is nothing to merge, with the first part that failed by itself. What the client
// asked for and is not there stays its fault.
func (v *visit) refuseAggregate(err error, results []longpole.Result[partAnswer]) {
	if v.r.Context().Err() != nil {
		v.refuse(err, nil)
		return
	}
	v.statuses(results)
	name, fault := "a part", &partError{"", http.StatusGatewayTimeout, "timeout", call.Timeout}
	for n, r := range results {
		if r.Err == nil {
			continue
		}
		if e := partFault(&v.route.ways.parts[n], r.Err); e.reason != "canceled" {
			name, fault = "part "+v.route.ways.parts[n].name, e
			break
		}
	}
	v.rec.Class = fault.class
	status := http.StatusBadGateway
	switch {
	case fault.status >= 400 && fault.status < 500:
		status, v.rec.Class = fault.status, call.Client
	case fault.status == http.StatusServiceUnavailable, fault.status == http.StatusGatewayTimeout:
		status = fault.status
	}
	v.send(refusal{status, "part_failed", fmt.Sprintf("%s failed: %d %s", name, fault.status, fault.reason), 0})
}

// merge answers with one object. The members stand in the order of the file.
func (v *visit) merge(results []longpole.Result[partAnswer]) {
	var b bytes.Buffer
	failed := make(map[string]map[string]any)
	b.WriteByte('{')
	for n, r := range results {
		name := v.route.ways.parts[n].name
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", name)
		if r.Err != nil {
			e := partFault(&v.route.ways.parts[n], r.Err)
			failed[name] = map[string]any{"status": e.status, "reason": e.reason}
			b.WriteString("null")
			continue
		}
		b.Write(r.Value.body)
	}
	if len(failed) > 0 {
		text, _ := json.Marshal(failed) // texts and numbers cannot fail
		b.WriteString(`,"errors":`)
		b.Write(text)
	}
	b.WriteString("}\n")
	v.statuses(results)
	v.status = http.StatusOK
	h := v.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // how long it holds is known of each part, not of the whole
	v.body(b.Bytes())
}

// body sends an answer that is whole. HEAD gets its length only.
func (v *visit) body(text []byte) {
	if v.route.side.payload != nil {
		v.whole(text)
		return
	}
	v.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	v.deadline()
	v.w.WriteHeader(v.status)
	if v.r.Method != http.MethodHead {
		n, err := v.w.Write(text)
		v.rec.ResponseBytes = int64(n)
		if err != nil {
			v.rec.Class = call.Canceled
		}
	}
	v.rec.Total = time.Since(v.start)
}

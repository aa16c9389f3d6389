package advise

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// A try is one recorded attempt of a call that several endpoints can answer.
type try struct {
	ref
	endpoint string
	again    bool // may be sent twice: idempotent as far as the spans tell, and a first copy that succeeded, or was lost
	failed   bool
	took     int64 // ns
	weight   float64
}

// pool is the attempts at one upstream by endpoint, the empirical distributions that a what-if draws from.
type pool struct {
	tries  []try
	names  []string         // sorted
	took   map[string]*dist // of the attempts that ended by themselves
	total  float64          // calls of all in took
	hedged bool             // copies were sent already
	alike  *kin             // nil = how long an attempt takes has nothing to do with the trace that it is in
}

// callsOf finds the attempts that a slow-endpoint finding speaks of. route is the gateway's route that made them, or ""
// when they were not made through our gateway.
func (c *corpus) callsOf(f *diagnose.Finding) (p *pool, route string) {
	if c.pools == nil {
		c.pools = make(map[target]*poolOf)
	}
	known := c.pools[targetOf(f)]
	if known == nil {
		p, route = c.gather(f)
		known = &poolOf{p, route}
		c.pools[targetOf(f)] = known
	}
	return known.pool, known.route
}

// poolOf is the attempts at a target, and the gateway's route that made them.
type poolOf struct {
	pool  *pool
	route string
}

func (c *corpus) gather(f *diagnose.Finding) (p *pool, route string) {
	routes := make(map[string]int)
	plain := &pool{took: make(map[string]*dist)}
	c.matching(f, func(at ref) {
		t, i := c.traces[at.trace], at.span
		if gw, attempt, ok := c.gateway(at); ok && (i == gw.span || i == attempt.span || t.parent[i] == attempt.span) {
			routes[c.span(gw).Name]++
		} else {
			plain.add(c, t.caller(at.trace, i), hostOf(t, i))
		}
	})
	if len(routes) == 0 {
		plain.sort(c)
		return plain, ""
	}
	route = most(routes)
	return c.attempts(route), route
}

// most is the key with the highest count; of equals the first in alphabetical order.
func most(counts map[string]int) string {
	best := ""
	for key, n := range counts {
		if best == "" || n > counts[best] || n == counts[best] && key < best {
			best = key
		}
	}
	return best
}

// caller is the client's side of span i of trace n: the span that waited for the whole call.
func (t *timeline) caller(n, i int) ref {
	if t.hasParent(i) && t.spans[i].Kind != trace.Client && t.spans[t.parent[i]].Kind == trace.Client {
		return ref{n, t.parent[i]}
	}
	return ref{n, i}
}

// hostOf names the endpoint that answered span i, in the words of the diagnosis: what a balancer chose, then the
// instance, then the address, which may be that of a whole service.
func hostOf(t *timeline, i int) string {
	s, caller := &t.spans[i], &t.spans[t.caller(0, i).span]
	if name := caller.Attr("longpole.endpoint"); name != "" {
		return name
	}
	if s.Kind != trace.Client {
		if name := cmp.Or(s.Attr("service.instance.id", "k8s.pod.name", "host.name"), s.Host); name != "" {
			return name
		}
	}
	if caller.Kind == trace.Client {
		return address(caller)
	}
	return ""
}

// address is where a client's span went.
func address(s *trace.Span) string {
	if name := s.Attr("longpole.endpoint"); name != "" {
		return name
	}
	name := s.Attr("server.address", "net.peer.name", "network.peer.address", "net.sock.peer.addr", "net.peer.ip",
		"peer.hostname", "peer.ipv4", "peer.address")
	if port := s.Attr("server.port", "net.peer.port", "network.peer.port", "net.sock.peer.port", "peer.port"); port != "" && name != "" {
		name += ":" + port
	}
	return name
}

// attempts gathers what the gateway sent for one of its routes.
func (c *corpus) attempts(route string) *pool {
	p := c.sent(route)
	p.sort(c)
	return p
}

// attemptsAndLost is attempts with those that were given up later than any answer ever came: they last as long as they were
// waited for, and a copy of one may get lost too.
func (c *corpus) attemptsAndLost(route string) *pool {
	p := c.sent(route)
	slowest := int64(0)
	for i := range p.tries {
		if t := &p.tries[i]; !t.failed {
			slowest = max(slowest, t.took)
		}
	}
	for i := range p.tries {
		if t := &p.tries[i]; t.failed && t.took > slowest {
			t.again = idempotent(c.traces[t.trace], t.span)
			p.put(t.endpoint, t.took, t.weight)
		}
	}
	p.sort(c)
	return p
}

// sent is attempts, not sorted yet.
func (c *corpus) sent(route string) *pool {
	p := &pool{took: make(map[string]*dist)}
	for _, key := range c.gatewayKeys(route) {
		for _, r := range c.routes[key] {
			t := c.traces[r.trace]
			for _, k := range t.blocking(r.span) {
				if t.spans[k].Kind == trace.Client {
					p.add(c, ref{r.trace, k}, address(&t.spans[k]))
				}
			}
		}
	}
	return p
}

// gatewayKeys are the keys of a route of the gateway, sorted; more than one when several gateways have it.
func (c *corpus) gatewayKeys(route string) []routeKey {
	var keys []routeKey
	for key := range c.routes {
		if key.operation == route && c.routeName(key) != "" {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b routeKey) int { return cmp.Compare(a.service, b.service) })
	return keys
}

func (p *pool) add(c *corpus, r ref, endpoint string) {
	if endpoint == "" {
		return
	}
	t := c.traces[r.trace]
	s := &t.spans[r.span]
	second := s.Attr("longpole.hedge") == "true"
	failed := s.Failed || t.abandoned(r.span)
	p.hedged = p.hedged || second
	p.tries = append(p.tries, try{
		ref: r, endpoint: endpoint, again: !second && !failed && idempotent(t, r.span), failed: failed,
		took: t.recorded(r.span), weight: t.weight,
	})
	if !failed {
		p.put(endpoint, t.recorded(r.span), t.weight)
	}
}

// abandoned reports whether nobody answered span i before the call that it was made for was given up: what was waited for it is no answer's
// time. A gateway that is left by its client calls its own attempt off, which is no failure of it.
func (t *timeline) abandoned(i int) bool {
	const near = 0.02 // of its time
	if t.servedBy(i) != i {
		return false
	}
	s := &t.spans[i]
	for k, up := i, 0; up < 2 && t.hasParent(k); up++ {
		k = t.parent[k]
		if above := &t.spans[k]; above.Failed && float64(above.End-s.End) <= near*float64(s.End-s.Start) {
			return true
		}
	}
	return false
}

func (p *pool) put(endpoint string, took int64, weight float64) {
	d := p.took[endpoint]
	if d == nil {
		d = &dist{}
		p.took[endpoint] = d
	}
	d.add(took, weight)
}

// idempotent reports whether nothing speaks against sending span i, or the call that it is an attempt of, twice (RFC
// 9110 section 9.2.2). A span without a method is taken for idempotent; the advice says so.
func idempotent(t *timeline, i int) bool {
	method := t.spans[i].Attr("http.request.method", "http.method")
	if method == "" && t.hasParent(i) && isGateway(&t.spans[t.parent[i]]) {
		method = t.spans[t.parent[i]].Attr("http.request.method", "http.method")
	}
	switch strings.ToUpper(method) {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// sort makes p ready. c may be nil: then attempts are taken to be independent of their traces.
func (p *pool) sort(c *corpus) {
	for name, took := range p.took {
		took.sort()
		p.names = append(p.names, name)
		p.total += took.total()
	}
	slices.Sort(p.names)
	if c != nil {
		p.alike = c.kin(p)
	}
}

// aboveAll counts the attempts at any endpoint that took longer than x ns.
func (p *pool) aboveAll(x int64) float64 {
	n := 0.0
	for _, name := range p.names {
		n += p.took[name].above(x)
	}
	return n
}

// others is how many calls ended by themselves at any endpoint but one.
func (p *pool) others(endpoint string) float64 {
	if d := p.took[endpoint]; d != nil {
		return p.total - d.total()
	}
	return p.total
}

// elsewhere draws the latency in ns of a copy of a at any other endpoint.
func (p *pool) elsewhere(a *try, r *rand.Rand) int64 {
	if p.alike != nil {
		if took, ok := p.alike.draw(a, r, func(b *try) bool { return b.endpoint != a.endpoint }); ok {
			return took
		}
	}
	at := r.Float64() * p.others(a.endpoint)
	for _, name := range p.names {
		if name == a.endpoint {
			continue
		}
		d := p.took[name]
		if at < d.total() {
			return d.rank(at)
		}
		at -= d.total()
	}
	return 0
}

// anywhere draws the latency in ns of another attempt like a at whatever endpoint.
func (p *pool) anywhere(a *try, r *rand.Rand) int64 {
	if p.alike != nil {
		if took, ok := p.alike.draw(a, r, func(b *try) bool { return b.ref != a.ref }); ok {
			return took
		}
	}
	at := r.Float64() * p.total
	for _, name := range p.names {
		if d := p.took[name]; at < d.total() {
			return d.rank(at)
		}
		at -= p.took[name].total()
	}
	return a.took
}

// refs are the spans of all tries.
func (p *pool) refs() []ref {
	list := make([]ref, len(p.tries))
	for i := range p.tries {
		list[i] = p.tries[i].ref
	}
	return list
}

// byTrace sorts the tries of p by the trace they are in.
func (p *pool) byTrace() map[int][]try {
	m := make(map[int][]try)
	for _, t := range p.tries {
		m[t.trace] = append(m[t.trace], t)
	}
	return m
}

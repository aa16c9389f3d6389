package advise

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// A try is one recorded attempt of a call that several endpoints can answer.
type try struct {
	ref
	endpoint string
	again    bool // may be sent twice: idempotent as far as the spans tell, and a first copy that succeeded
}

// pool is the attempts at one upstream by endpoint, the empirical distributions that a what-if draws from.
type pool struct {
	tries  []try
	names  []string           // sorted
	took   map[string][]int64 // ns, sorted, of the attempts that ended by themselves
	total  int                // of all in took
	hedged bool               // copies were sent already
}

// callsOf finds the attempts that a slow-endpoint finding speaks of. route is the gateway's route that made them, or ""
// when they were not made through our gateway.
func (c *corpus) callsOf(f *diagnose.Finding) (p *pool, route string) {
	routes := make(map[string]int)
	plain := &pool{took: make(map[string][]int64)}
	c.matching(f, func(at ref) {
		t, i := c.traces[at.trace], at.span
		if gw, attempt, ok := c.gateway(at); ok && (i == gw.span || i == attempt.span || t.parent[i] == attempt.span) {
			routes[c.span(gw).Name]++
		} else {
			plain.add(t, t.caller(at.trace, i), hostOf(t, i))
		}
	})
	if len(routes) == 0 {
		plain.sort()
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
	p := &pool{took: make(map[string][]int64)}
	for _, key := range c.gatewayKeys(route) {
		for _, r := range c.routes[key] {
			t := c.traces[r.trace]
			for _, k := range t.blocking(r.span) {
				if t.spans[k].Kind == trace.Client {
					p.add(t, ref{r.trace, k}, address(&t.spans[k]))
				}
			}
		}
	}
	p.sort()
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

func (p *pool) add(t *timeline, r ref, endpoint string) {
	s := &t.spans[r.span]
	if endpoint == "" {
		return
	}
	second := s.Attr("longpole.hedge") == "true"
	p.hedged = p.hedged || second
	p.tries = append(p.tries, try{ref: r, endpoint: endpoint, again: !second && !s.Failed && idempotent(t, r.span)})
	if !s.Failed {
		p.took[endpoint] = append(p.took[endpoint], t.recorded(r.span))
	}
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

func (p *pool) sort() {
	for name, took := range p.took {
		slices.Sort(took)
		p.names = append(p.names, name)
		p.total += len(took)
	}
	slices.Sort(p.names)
}

// above counts the values of sorted that are greater than x.
func above(sorted []int64, x int64) int {
	at, _ := slices.BinarySearch(sorted, x+1)
	return len(sorted) - at
}

// aboveAll counts the attempts at any endpoint that took longer than x ns.
func (p *pool) aboveAll(x int64) int {
	n := 0
	for _, name := range p.names {
		n += above(p.took[name], x)
	}
	return n
}

// elsewhere is the latency in ns of the nth attempt, in order of endpoint and latency, at any endpoint but one.
func (p *pool) elsewhere(endpoint string, n int) int64 {
	for _, name := range p.names {
		if name == endpoint {
			continue
		}
		if n < len(p.took[name]) {
			return p.took[name][n]
		}
		n -= len(p.took[name])
	}
	return 0
}

// others is how many latencies there are at any endpoint but one.
func (p *pool) others(endpoint string) int { return p.total - len(p.took[endpoint]) }

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

package advise

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// A target is what a change speaks of: a service, or one of its operations. operation "" means all of them.
type target struct{ service, operation string }

func targetOf(f *diagnose.Finding) target { return target{f.Service, f.Operation} }

func (t target) String() string { return strings.TrimSpace(t.service + " " + t.operation) }

// find is every span of t. An operation that no span has exactly stands for those that begin with it, as GET for
// "GET /orders".
func (c *corpus) find(t target) []ref {
	if exact := c.named()[routeKey(t)]; len(exact) > 0 && t.operation != "" {
		return exact
	}
	var begun []ref
	for key, refs := range c.named() {
		if key.service == t.service && (t.operation == "" || begins(key.operation, t.operation)) {
			begun = append(begun, refs...)
		}
	}
	begun = append(begun, c.silent(t)...) // those that nobody answered are calls of it, too
	slices.SortFunc(begun, func(a, b ref) int { return cmp.Or(cmp.Compare(a.trace, b.trace), cmp.Compare(a.span, b.span)) })
	return begun
}

// named is all spans by service and operation, in their order.
func (c *corpus) named() map[routeKey][]ref {
	if c.names == nil {
		c.names = make(map[routeKey][]ref)
		for n, line := range c.traces {
			for i := range line.spans {
				key := keyOf(&line.spans[i])
				c.names[key] = append(c.names[key], ref{n, i})
			}
		}
	}
	return c.names
}

// silent is the calls that no span of a service answers, by the name that its callers have for it.
func (c *corpus) silent(t target) []ref {
	var list []ref
	for n, line := range c.traces {
		for i := range line.spans {
			if s := &line.spans[i]; s.Kind == trace.Client && line.servedBy(i) == i && peerOf(s) == t.service && (t.operation == "" || begins(s.Name, t.operation)) {
				list = append(list, ref{n, i})
			}
		}
	}
	return list
}

// peerOf is what a client's span calls the other side, or "".
func peerOf(s *trace.Span) string {
	return s.Attr("service.peer.name", "peer.service", "server.address", "net.peer.name", "db.system.name", "db.system")
}

// calls is what a finding speaks of, as the callers wait for it. Some findings name the caller and, in their detail, whom it
// calls.
func (s *situation) calls() []ref {
	f := s.finding
	if !slices.Contains([]string{"LP112", "LP113", "LP115", "LP118", "LP119", "LP125"}, f.Code) || len(f.Detail.Callees) == 0 {
		return s.corpus.callsTo(targetOf(f))
	}
	var list []ref
	seen := make(map[ref]bool)
	s.corpus.matching(f, func(at ref) {
		t := s.corpus.traces[at.trace]
		under := slices.Clone(t.blocking(at.span))
		for k := 0; k < len(under); k++ {
			i := under[k]
			if r := (ref{at.trace, i}); t.isOf(i, f.Detail.Callees) && !seen[r] {
				seen[r] = true
				list = append(list, r)
			} else if t.spans[i].Kind != trace.Client && t.spans[i].Service == f.Service {
				under = append(under, t.blocking(i)...) // it wraps the call
			}
		}
	})
	return list
}

// isOf reports whether span i calls one of services, be it the gateway that passes the call on.
func (t *timeline) isOf(i int, services []string) bool {
	return slices.Contains(services, t.called(i)) || slices.Contains(services, t.spans[t.servedBy(i)].Service)
}

// called is the service that span i calls; its own when it calls none.
func (t *timeline) called(i int) string {
	at := t.servedBy(i)
	for isGateway(&t.spans[at]) && len(t.blocking(at)) > 0 { // a gateway in between is not meant
		at = t.servedBy(t.blocking(at)[0])
	}
	if t.spans[at].Kind == trace.Client { // nobody answered
		if name := peerOf(&t.spans[at]); name != "" {
			return name
		}
	}
	return t.spans[at].Service
}

// routeOf is the gateway's route that most of the calls go through, or that makes them; "" = none.
func (c *corpus) routeOf(calls []ref) string {
	routes := make(map[string]int)
	for _, r := range calls {
		t := c.traces[r.trace]
		if k := t.servedBy(r.span); isGateway(&t.spans[k]) {
			routes[t.spans[k].Name]++
		} else if t.hasParent(r.span) && isGateway(&t.spans[t.parent[r.span]]) {
			routes[t.spans[t.parent[r.span]].Name]++
		}
	}
	return most(routes)
}

// callee is what people call the calls of a finding: the route, or the service that is called.
func (s *situation) callee(route string) string {
	if route == "" && len(s.finding.Detail.Callees) > 0 && s.finding.Detail.Callees[0] != "" {
		return s.finding.Detail.Callees[0]
	}
	return name(route, s.finding)
}

// begins reports whether name starts with the words of start, whatever their case.
func begins(name, start string) bool {
	if len(name) < len(start) || !strings.EqualFold(name[:len(start)], start) {
		return false
	}
	return len(name) == len(start) || strings.ContainsRune(" /.:({", rune(name[len(start)]))
}

// callsTo is the calls of t as their callers wait for them, each once: a call that is a part of another is left out.
func (c *corpus) callsTo(t target) []ref {
	spans := c.find(t)
	inside := make(map[ref]bool, len(spans))
	for _, r := range spans {
		inside[r] = true
	}
	var calls []ref
	for _, r := range spans {
		line := c.traces[r.trace]
		nested := false
		for i := r.span; line.hasParent(i) && !nested; {
			i = line.parent[i]
			nested = inside[ref{r.trace, i}]
		}
		if !nested {
			calls = append(calls, line.caller(r.trace, r.span))
		}
	}
	return slices.Compact(calls)
}

// servedBy is the span of the callee under the client's span i; i itself when there is none.
func (t *timeline) servedBy(i int) int {
	if t.spans[i].Kind == trace.Client {
		for _, k := range t.blocking(i) {
			if t.spans[k].Service != t.spans[i].Service || t.spans[k].Kind == trace.Server {
				return k
			}
		}
	}
	return i
}

// byTrace sorts refs by trace.
func byTrace(refs []ref) map[int][]int {
	m := make(map[int][]int)
	for _, r := range refs {
		m[r.trace] = append(m[r.trace], r.span)
	}
	return m
}

// each is a plan that does the same to every one of spans.
func each(spans []ref, do func(trace, span int, e *edit)) plan {
	here := byTrace(spans)
	return plan{spans: spans, apply: func(_, n int, e *edit) {
		for _, i := range here[n] {
			do(n, i, e)
		}
	}}
}

// together is all plans as one.
func (c *corpus) together(plans []plan) plan {
	if len(plans) == 1 {
		return plans[0]
	}
	var all plan
	for _, p := range plans {
		all.spans = append(all.spans, p.spans...)
		all.rounds = max(all.rounds, p.rounds)
		all.doubt = max(all.doubt, p.doubt)
		all.extra += p.extra
		all.notes = append(all.notes, p.notes...)
	}
	all.apply = func(round, n int, e *edit) {
		for _, p := range plans {
			p.apply(round, n, e)
		}
	}
	all.served = func(round, n, i int) bool {
		return !slices.ContainsFunc(plans, func(p plan) bool { return p.served != nil && !p.served(round, n, i) })
	}
	return all
}

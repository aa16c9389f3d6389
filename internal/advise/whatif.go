package advise

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// gatewayService names our own gateway's spans.
const gatewayService = "longpole-gateway"

// ref is one span of a corpus.
type ref struct{ trace, span int }

// routeKey names a route as a diagnosis does.
type routeKey struct{ service, operation string }

// A corpus is the recorded traces that changes are tried on.
type corpus struct {
	traces   []*timeline
	routes   map[routeKey][]ref // topmost spans, and the gateway's
	edit     edit
	order    []int               // traces by the time they began; nil = not asked for yet
	names    map[routeKey][]ref  // nil = not asked for yet, as what follows
	stations map[target]*station // by what was asked for; nil = they do not queue
	pools    map[target]*poolOf
	self     [][]int64            // own time in ns by trace and span; nil = not asked for yet
	usual    map[routeKey]float64 // logarithm of the median own time of an operation
}

func newCorpus(traces []*timeline) *corpus {
	c := &corpus{traces: traces, routes: make(map[routeKey][]ref)}
	for n, t := range traces {
		for i := range t.spans {
			if t.isRoute(i) {
				key := keyOf(&t.spans[i])
				c.routes[key] = append(c.routes[key], ref{n, i})
			}
		}
	}
	return c
}

func keyOf(s *trace.Span) routeKey { return routeKey{s.Service, s.Name} }

// isGateway reports whether s is a call as our gateway saw it.
func isGateway(s *trace.Span) bool {
	return s.Kind == trace.Server && (s.Service == gatewayService || s.Attr("longpole.segment") == string(trace.SegGateway))
}

// isRoute reports whether the effect of a change is worth telling for span i.
func (t *timeline) isRoute(i int) bool { return t.root[i] || isGateway(&t.spans[i]) }

// span is the span that r names.
func (c *corpus) span(r ref) *trace.Span { return &c.traces[r.trace].spans[r.span] }

// gateway finds the gateway's span at or above r, and the attempt of it that leads to r; ok is false when there is none.
func (c *corpus) gateway(r ref) (route, attempt ref, ok bool) {
	t := c.traces[r.trace]
	below := r.span
	for i := r.span; ; i = t.parent[i] {
		if isGateway(&t.spans[i]) {
			return ref{r.trace, i}, ref{r.trace, below}, true
		}
		if !t.hasParent(i) {
			return ref{}, ref{}, false
		}
		below = i
	}
}

// above returns the routes that the spans lie in: innermost first, each once.
func (c *corpus) above(spans []ref) []routeKey {
	depth := make(map[routeKey]int)
	seen := make(map[ref]bool)
	for _, r := range spans {
		t := c.traces[r.trace]
		for i, up := r.span, 0; !seen[ref{r.trace, i}]; i, up = t.parent[i], up+1 {
			seen[ref{r.trace, i}] = true
			if key := keyOf(&t.spans[i]); t.isRoute(i) {
				depth[key] = max(depth[key], up)
			}
			if !t.hasParent(i) {
				break
			}
		}
	}
	keys := make([]routeKey, 0, len(depth))
	for key := range depth {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b routeKey) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation))
	})
	return keys
}

// A plan is what a change does to single traces. The zero value does nothing.
type plan struct {
	spans  []ref                             // that it changes
	rounds int                               // draws for each trace where chance has a part; 0 = 1
	apply  func(round, trace int, e *edit)   // called with an edit that may hold other changes
	served func(round, trace, span int) bool // of a route's span: whether its latency counts; nil = all do
	doubt  float64                           // share of the effect that the model may be wrong by
	extra  float64                           // calls added per call
	notes  []string                          // what a reader of the forecast must know
}

// replay is the effect of a plan on each of the routes, in their order.
func (c *corpus) replay(keys []routeKey, p plan) []Effect {
	rounds := max(1, p.rounds)
	before := make([]samples, len(keys))
	after := make([]samples, len(keys))
	here := make(map[int][][2]int) // by trace: index in keys, span
	for k, key := range keys {
		for _, r := range c.routes[key] {
			t := c.traces[r.trace]
			before[k].add(t.recorded(r.span), t.weight)
			here[r.trace] = append(here[r.trace], [2]int{k, r.span})
		}
		after[k].rounds = rounds
	}
	var now []int64
	for _, n := range c.inTime() {
		t := c.traces[n]
		for round := range rounds {
			if len(here[n]) == 0 {
				break
			}
			c.edit.reset(len(t.spans))
			p.apply(round, n, &c.edit)
			now = t.retime(&c.edit, now)
			for _, call := range here[n] {
				if p.served == nil || p.served(round, n, call[1]) {
					after[call[0]].add(now[call[1]], t.weight)
				}
			}
		}
	}
	effects := make([]Effect, len(keys))
	for k, key := range keys {
		e := Effect{
			Service: key.service, Operation: key.operation, Route: c.routeName(key), Calls: len(before[k].list),
			Before: before[k].predicted(), Predicted: after[k].predicted(),
		}
		e.Interval = after[k].interval(Predicted{e.Predicted.P50 - e.Before.P50, e.Predicted.P95 - e.Before.P95, e.Predicted.P99 - e.Before.P99}, p.doubt)
		effects[k] = e
	}
	return effects
}

// inTime is the traces in the order in which they began.
func (c *corpus) inTime() []int {
	if c.order == nil {
		c.order = make([]int, len(c.traces))
		for n := range c.order {
			c.order[n] = n
		}
		began := func(n int) int64 {
			if t := c.traces[n]; len(t.order) > 0 {
				return t.spans[t.order[0]].Start
			}
			return 0
		}
		id := func(n int) string {
			if t := c.traces[n]; len(t.order) > 0 {
				return t.spans[t.order[0]].TraceID
			}
			return ""
		}
		slices.SortFunc(c.order, func(a, b int) int { return cmp.Or(cmp.Compare(began(a), began(b)), cmp.Compare(id(a), id(b))) })
	}
	return c.order
}

// routeName is the name in the gateway's configuration, or "".
func (c *corpus) routeName(key routeKey) string {
	if refs := c.routes[key]; len(refs) > 0 && isGateway(c.span(refs[0])) {
		return key.operation
	}
	return ""
}

// random is a source that depends on the span and on n only, so that no order of the input changes a prediction.
func random(s *trace.Span, n int) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.TraceID))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(s.ID))
	return rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
}

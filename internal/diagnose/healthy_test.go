package diagnose

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// wellSystem makes systems in which nothing is wrong: random trees of services with databases, caches and queues, whose work is
// log-normal, whose caches mostly hit, whose calls fail and are tried again now and then, and that run on several hosts. What can
// run at once does: calls one after the other are a finding of their own.
type wellSystem struct {
	*rand.Rand
	route int
	bare  bool // the spans tell no kind
	old   bool // attributes have the names of the older convention
}

// wellOp is one operation of a service and what it does, in order.
type wellOp struct {
	service, name string
	own           [3]float64 // ms of its own work before, between and after its calls, median
	sigma         float64
	steps         []wellStep
	hosts         int
	bytes         float64
}

// wellStep is calls that are made at once.
type wellStep struct {
	stores []wellStore // what they ask of a store
	ops    []*wellOp
	send   *wellOp // a message, which nobody waits for
}

type wellStore struct {
	name, system, text string
	took, sigma        float64
	behind             *wellStore // what a cache that misses asks
	hits               float64
}

func (h *wellSystem) op(depth int, prefix string) *wellOp {
	o := &wellOp{
		service: fmt.Sprintf("svc-%d-%s", h.route, prefix), name: "op-" + prefix, sigma: 0.15 + 0.45*h.Float64(), hosts: 1 + h.IntN(4),
		bytes: 500 * math.Exp(3*h.Float64()),
	}
	for i := range o.own {
		o.own[i] = math.Exp(h.Float64()*3 - 0.5) // 0.6 to 12 ms
	}
	if depth == 0 {
		return o
	}
	if h.IntN(3) == 0 {
		db := h.database(prefix, 0)
		o.steps = append(o.steps, wellStep{stores: []wellStore{{name: "GET", system: "redis", took: 0.2 + 0.6*h.Float64(), sigma: 0.4, behind: &db, hits: 0.7 + 0.29*h.Float64()}}})
	}
	var s wellStep
	for k := range h.IntN(3) {
		s.stores = append(s.stores, h.database(prefix, k+1))
	}
	for k := range h.IntN(4) {
		s.ops = append(s.ops, h.op(depth-1, prefix+string(rune('a'+k))))
	}
	o.steps = append(o.steps, s)
	if h.IntN(4) == 0 {
		o.steps = append(o.steps, wellStep{send: h.op(0, prefix+"m")})
		o.steps[len(o.steps)-1].send.name = "jobs process"
	}
	return o
}

func (h *wellSystem) database(prefix string, k int) wellStore {
	return wellStore{
		name: "SELECT " + prefix, system: "postgresql", text: fmt.Sprintf("SELECT * FROM t%s%d WHERE id = $1", prefix, k),
		took: math.Exp(h.Float64() * 2.5), sigma: 0.2 + 0.4*h.Float64(), // 1 to 12 ms
	}
}

func (h *wellSystem) lognormal(median, sigma float64) int64 {
	return int64(median * 1e6 * math.Exp(sigma*h.NormFloat64()))
}

// request plays one request.
type request struct {
	*wellSystem
	t  trace.Trace
	id string
}

func (r *request) span(parent int, s trace.Span) int {
	s.ID, s.TraceID = strconv.Itoa(len(r.t.Spans)+1), r.id
	if parent >= 0 {
		s.Parent = r.t.Spans[parent].ID
	}
	if r.bare {
		s.Kind = trace.Unspecified
	}
	r.t.Spans = append(r.t.Spans, s)
	return len(r.t.Spans) - 1
}

// serve plays o from start on and returns its end.
func (r *request) serve(o *wellOp, parent int, start int64, kind trace.Kind) int64 {
	host := o.service + "-" + strconv.Itoa(r.IntN(o.hosts))
	me := r.span(parent, trace.Span{Service: o.service, Name: o.name, Kind: kind, Host: host, Start: start})
	key := "http.response.body.size"
	if r.old {
		key = "http.response_content_length"
	}
	r.t.Spans[me].Attributes = []trace.Attribute{{Key: key, Value: strconv.FormatInt(r.lognormal(o.bytes, 0.7)/1e6, 10)}}
	now := start + r.lognormal(o.own[0], o.sigma)
	for i, s := range o.steps {
		if i > 0 {
			now += r.lognormal(o.own[1], o.sigma)
		}
		end := now
		for k := range s.stores {
			end = max(end, r.ask(&s.stores[k], me, now))
		}
		for _, c := range s.ops {
			end = max(end, r.call(c, me, now))
		}
		if s.send != nil {
			end = now + r.lognormal(0.5, 0.3)
			p := r.span(me, trace.Span{Service: o.service, Name: "jobs publish", Kind: trace.Producer, Host: host, Start: now, End: end})
			r.serve(s.send, p, end+r.lognormal(5, 0.8), trace.Consumer)
		}
		now = end
	}
	now += r.lognormal(o.own[2], o.sigma)
	r.t.Spans[me].End = now
	return now
}

// call plays a call of another service; one in 100 fails, and is tried again after a pause.
func (r *request) call(o *wellOp, parent int, now int64) int64 {
	for range 3 {
		c := r.span(parent, trace.Span{Service: r.t.Spans[parent].Service, Host: r.t.Spans[parent].Host, Name: "call " + o.name, Kind: trace.Client, Start: now})
		there := now + r.lognormal(0.3, 0.3)
		bad := r.Float64() < 0.01
		var end int64
		if bad {
			end = there + r.lognormal(1, 0.5)
			r.t.Spans[c].Failed = true
		} else {
			end = r.serve(o, c, there, trace.Server) + r.lognormal(0.3, 0.3)
		}
		r.t.Spans[c].End = end
		if now = end; !bad {
			break
		}
		now += r.lognormal(5, 0.5)
	}
	return now
}

func (r *request) ask(s *wellStore, parent int, now int64) int64 {
	end := now + r.lognormal(s.took, s.sigma)
	keys := [2]string{"db.system.name", "db.query.text"}
	if r.old {
		keys = [2]string{"db.system", "db.statement"}
	}
	attributes := []trace.Attribute{{Key: keys[0], Value: s.system}}
	if s.text != "" {
		attributes = append(attributes, trace.Attribute{Key: keys[1], Value: s.text})
	}
	r.span(parent, trace.Span{Service: r.t.Spans[parent].Service, Host: r.t.Spans[parent].Host, Name: s.name, Kind: trace.Client, Start: now, End: end, Attributes: attributes})
	if s.behind != nil && r.Float64() > s.hits {
		end = r.ask(s.behind, parent, end+r.lognormal(0.1, 0.3))
	}
	return end
}

// traffic is the traces of so many routes, n of each.
func traffic(seed uint64, routes, n int) (list []trace.Trace) {
	for route := range routes {
		h := &wellSystem{Rand: rand.New(rand.NewPCG(seed, uint64(route))), route: route}
		h.bare, h.old = h.IntN(4) == 0, h.IntN(2) == 0
		root := h.op(1+h.IntN(3), "r")
		now := int64(0)
		for i := range n {
			r := request{wellSystem: h, id: fmt.Sprintf("%d-%d", route, i)}
			r.t.ID = r.id
			now += int64(h.ExpFloat64() * 100e6) // ten a second
			r.serve(root, -1, now, trace.Server)
			list = append(list, r.t)
		}
	}
	return list
}

func TestHealthyRoutesGiveNoFindings(t *testing.T) {
	sizes := []struct{ routes, traces int }{{1000, 25}, {40, 300}}
	if RaceDetector {
		sizes = []struct{ routes, traces int }{{150, 25}, {5, 300}} // the whole simulation is run without it
	}
	for _, size := range sizes {
		r := Run(traffic(1, size.routes, size.traces), Options{MaxRoutes: size.routes})
		counts := make(map[string]int)
		found := 0
		for _, route := range r.Routes {
			for _, f := range route.Findings {
				found++
				if counts[f.Code]++; counts[f.Code] <= 2 {
					t.Logf("%s %s %s: %s | %v | %v", f.Code, f.Service, f.Operation, f.Summary, f.Evidence, f.CounterEvidence)
				}
			}
		}
		t.Logf("%d findings on %d routes of %d traces: %v", found, len(r.Routes), size.traces, counts)
		if found > max(1, size.routes/1000) {
			t.Errorf("%d false alarms on %d routes", found, size.routes)
		}
	}
}

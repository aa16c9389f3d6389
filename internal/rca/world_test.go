package rca_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/longpole/longpole/internal/trace"
)

// world is a random system of services. Its structure comes from one seed, its traffic from others.
type world struct {
	services []*service
	routes   []route
	style    style
}

// service has its operations' programs, and a host for each replica.
type service struct {
	name     string
	replicas int
	skew     []int64 // of each replica's clock, ns
	ops      []op
}

// op is what one operation does: its own work, cut into pieces by its steps.
type op struct {
	name  string
	own   float64 // median ms of a piece
	steps []step
}

// step is calls that are made together: one after the other when there is one, else in parallel.
type step struct {
	calls []call
	store string  // a database or cache statement instead of calls
	took  float64 // median ms of the statement
	share float64 // of the visits that take the step
}

type call struct{ service, op int }

type route struct {
	op     int // of the first service
	weight float64
}

// style is what of a trace is recorded, and how.
type style struct {
	name           string
	client, server bool
	kinds          bool
	step           int64 // of the clocks, ns
	skewed         bool
}

var styles = []style{
	{name: "grpc, all spans", client: true, server: true, kinds: true, step: 1},
	{name: "no kinds", client: true, server: true, step: 1000},
	{name: "server spans only", server: true, kinds: true, step: 1000},
	{name: "client spans only", client: true, kinds: true, step: 1000},
	{name: "millisecond clock", client: true, server: true, kinds: true, step: 1e6},
	{name: "skewed clocks", client: true, server: true, kinds: true, step: 1000, skewed: true},
}

// disorder is an injected fault:
//
//	cpu     all own work of the service takes longer, and now and then waits for a processor; on one replica, or all
//	delay   each message that leaves the service takes longer
//	loss    messages to and from it are lost now and then, and sent again after 200 ms, 400 ms, ...
//	code    one operation takes longer
//	gc      its work stops now and then
//	error   one operation fails and returns early
//	return  one operation returns early
type disorder struct {
	kind    string
	service int
	op      int
	replica int // -1 = all
	factor  float64
	chance  float64
	delay   float64 // ms
	jitter  float64 // of delay
}

// The forms of a system.
const (
	chain = iota // deep: each service calls the next
	wide         // one service calls most others, some at the same time
	mesh         // anything, without cycles
	forms
)

// newWorld makes a system. Names say nothing about places.
func newWorld(seed uint64, form int, s style) *world {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &world{style: s}
	n := 6 + r.IntN(8)
	names := r.Perm(40)
	for i := range n {
		x := &service{name: fmt.Sprintf("svc%02d", names[i]), replicas: 1 + r.IntN(3)}
		for range x.replicas {
			skew := int64(0)
			if s.skewed {
				skew = int64((r.Float64() - 0.5) * 6e6)
			}
			x.skew = append(x.skew, skew)
		}
		for j := range 1 + r.IntN(3) {
			x.ops = append(x.ops, op{name: fmt.Sprintf("op%d", j), own: 0.3 * math.Exp(2.3*r.Float64())})
		}
		w.services = append(w.services, x)
	}
	if form == chain || form == wide {
		w.services[0].ops = append(w.services[0].ops, op{name: "other", own: 0.7})
	}
	for i := n - 1; i >= 0; i-- {
		for j := range w.services[i].ops {
			w.program(r, form, i, &w.services[i].ops[j])
		}
	}
	for j := range w.services[0].ops {
		w.routes = append(w.routes, route{j, 0.2 + r.Float64()})
	}
	return w
}

// program gives an operation its steps; calls go to services with a higher number.
func (w *world) program(r *rand.Rand, form, i int, o *op) {
	n := len(w.services)
	to := func(k int) call { return call{k, r.IntN(len(w.services[k].ops))} }
	if r.Float64() < 0.5 || i == n-1 {
		kind := []string{"SELECT rows", "redis GET"}[r.IntN(2)]
		o.steps = append(o.steps, step{store: kind, took: 0.4 + 2*r.Float64(), share: 1})
	}
	switch {
	case i == n-1:
	case form == chain:
		o.steps = append(o.steps, step{calls: []call{to(i + 1)}, share: 1})
		if i+2 < n && r.Float64() < 0.3 {
			o.steps = append(o.steps, step{calls: []call{to(i + 2)}, share: 0.3})
		}
	case form == wide && i == 0:
		for k := 1; k < n; k++ {
			if r.Float64() < 0.7 {
				o.steps = append(o.steps, step{calls: []call{to(k)}, share: 1})
			}
		}
		for range 2 {
			o.steps = append(o.steps, step{calls: []call{to(1 + r.IntN(n-1)), to(1 + r.IntN(n-1))}, share: 1})
		}
	case form == wide:
		if r.Float64() < 0.4 {
			o.steps = append(o.steps, step{calls: []call{to(i + 1 + r.IntN(n-1-i))}, share: 0.7})
		}
	default:
		for range 1 + r.IntN(2) {
			o.steps = append(o.steps, step{calls: []call{to(i + 1 + r.IntN(n-1-i))}, share: 0.4 + 0.6*r.Float64()})
		}
	}
}

// run is one period of traffic.
type run struct {
	*world
	r     *rand.Rand
	fault *disorder
	speed []float64 // of each service in this period: no two days are alike
	spans []trace.Span
	next  int
	hit   bool // the trace met what is at fault
}

// traffic is n traces under a fault; nil = none. load stretches all own time, and mix changes the weights of the routes.
func (w *world) traffic(seed uint64, n int, load float64, mix bool, fault *disorder) (traces []trace.Trace, met int) {
	x := &run{world: w, r: rand.New(rand.NewPCG(seed, 11)), fault: fault}
	for range w.services {
		x.speed = append(x.speed, load*math.Exp(0.08*x.r.NormFloat64()))
	}
	weights, total := make([]float64, len(w.routes)), 0.0
	for i, route := range w.routes {
		weights[i] = route.weight
		if mix {
			weights[i] *= math.Exp(x.r.NormFloat64())
		}
		total += weights[i]
	}
	for i := range n {
		x.spans, x.hit = nil, false
		at, k := x.r.Float64()*total, 0
		for k < len(weights)-1 && at > weights[k] {
			at -= weights[k]
			k++
		}
		start := float64(i)*50 + 1e6
		x.serve(call{0, w.routes[k].op}, start, "")
		id := fmt.Sprintf("%016x%016x", seed, i+1)
		for j := range x.spans {
			x.spans[j].TraceID = id
		}
		x.r.Shuffle(len(x.spans), func(a, b int) { x.spans[a], x.spans[b] = x.spans[b], x.spans[a] })
		traces = append(traces, trace.Trace{ID: id, Spans: x.spans})
		if x.hit {
			met++
		}
	}
	return traces, met
}

// about is a time with the usual spread and, now and then, a hiccup.
func (x *run) about(median float64) float64 {
	v := median * math.Exp(0.35*x.r.NormFloat64())
	if x.r.Float64() < 0.01 {
		v += 10 * x.r.ExpFloat64()
	}
	return v
}

// on reports whether the fault hits this service; replica -1 = any of its replicas.
func (x *run) on(kind string, service, replica int) bool {
	f := x.fault
	return f != nil && f.kind == kind && f.service == service && (f.replica < 0 || replica < 0 || f.replica == replica)
}

// stall is a wait that happens with a chance.
func (x *run) stall(chance, from, to float64) float64 {
	if x.r.Float64() < chance {
		return from + (to-from)*x.r.Float64()
	}
	return 0
}

// work is a piece of own time.
func (x *run) work(c call, replica int, median float64) float64 {
	v := x.about(median * x.speed[c.service])
	if x.on("cpu", c.service, replica) {
		v = v*x.fault.factor + x.stall(x.fault.chance, 20, 95)
	}
	if x.on("gc", c.service, replica) {
		v += x.stall(x.fault.chance, 80, 400)
	}
	if x.on("code", c.service, -1) && x.fault.op == c.op {
		v += x.about(x.fault.delay)
	}
	return v
}

// way is how long a message takes in one direction; from or to is -1 for a store.
func (x *run) way(from, to int) float64 {
	v := x.about(0.4)
	for _, end := range []int{from, to} {
		if end < 0 {
			continue
		}
		if x.on("cpu", end, -1) {
			v += x.stall(x.fault.chance/3, 10, 60)
		}
		if x.on("loss", end, -1) {
			for wait := 200.0; wait < 3200 && x.r.Float64() < x.fault.chance; wait *= 2 {
				v += wait
			}
		}
	}
	if from >= 0 && x.on("delay", from, -1) { // the queue of outgoing packets is where such faults are injected
		v += x.fault.delay * (1 + x.fault.jitter*x.r.NormFloat64())
	}
	return v
}

// span records s as the clock of its host shows it.
func (x *run) span(s trace.Span, start, end float64, skew int64) string {
	if s.ID == "" {
		s.ID = x.newID()
	}
	cut := func(ms float64) int64 { v := int64(ms*1e6) + skew; return v - v%x.style.step }
	s.Start, s.End = cut(start), cut(end)
	if !x.style.kinds {
		s.Kind = trace.Unspecified
	}
	x.spans = append(x.spans, s)
	return s.ID
}

func (x *run) newID() string {
	x.next++
	return fmt.Sprintf("%016x", x.next)
}

// serve runs an operation and returns when it ended, and whether it failed. parent is the span above it. Who records no
// server spans still hands on the context; the first service always records its own.
func (x *run) serve(c call, start float64, parent string) (end float64, failed bool) {
	s := x.services[c.service]
	o := &s.ops[c.op]
	replica := x.r.IntN(s.replicas)
	if x.fault != nil && x.fault.service == c.service && (x.fault.kind != "code" && x.fault.kind != "error" && x.fault.kind != "return" || x.fault.op == c.op) {
		x.hit = true
	}
	id := x.newID()
	above := id
	if !x.style.server && c.service != 0 {
		above = parent
	}
	now := start + x.work(c, replica, o.own)
	cutShort := (x.on("return", c.service, -1) || x.on("error", c.service, -1)) && x.fault.op == c.op && x.r.Float64() < x.fault.chance
	failed = cutShort && x.fault.kind == "error"
	for _, st := range o.steps {
		if cutShort || failed {
			break
		}
		if x.r.Float64() >= st.share {
			continue
		}
		now, failed = x.step(c, replica, st, now, above)
		now += x.work(c, replica, o.own)
	}
	if x.style.server || c.service == 0 {
		x.span(trace.Span{ID: id, Parent: parent, Kind: trace.Server, Service: s.name, Name: o.name, Host: fmt.Sprint(s.name, "-", replica), Failed: failed}, start, now, s.skew[replica])
	}
	return now, failed
}

// step makes the calls of one step and returns when the last one ended.
func (x *run) step(c call, replica int, st step, now float64, above string) (end float64, failed bool) {
	s := x.services[c.service]
	host := fmt.Sprint(s.name, "-", replica)
	if st.store != "" {
		took := x.about(st.took) + x.way(c.service, -1) + x.way(-1, c.service)
		if x.on("cpu", c.service, replica) {
			took += x.stall(x.fault.chance/2, 10, 60)
		}
		system := map[string]string{"SELECT rows": "postgresql", "redis GET": "redis"}[st.store]
		x.span(trace.Span{Parent: above, Kind: trace.Client, Service: s.name, Name: st.store, Host: host, Attributes: []trace.Attribute{{Key: "db.system", Value: system}}}, now, now+took, s.skew[replica])
		return now + took, false
	}
	for _, to := range st.calls {
		callee := x.services[to.service]
		id, parent := "", above
		if x.style.client {
			id = x.newID()
			parent = id
		}
		served, bad := x.serve(to, now+x.way(c.service, to.service), parent)
		back := served + x.way(to.service, c.service)
		if x.style.client {
			x.span(trace.Span{
				ID: id, Parent: above, Kind: trace.Client, Service: s.name, Name: "call " + callee.ops[to.op].name, Host: host, Failed: bad,
				Attributes: []trace.Attribute{{Key: "server.address", Value: callee.name}},
			}, now, back, s.skew[replica])
		}
		end, failed = max(end, back), failed || bad
	}
	return end, failed
}

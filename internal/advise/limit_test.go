package advise

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/limit"
)

// errand is one call of a service with workers.
type errand struct {
	route           string
	at, took, start time.Duration
	refused         bool
}

// errands are the calls of two routes for some time, in their order.
func errands(seed uint64, window time.Duration, perSecond map[string]float64, took map[string]time.Duration) []*errand {
	r := rand.New(rand.NewPCG(seed, 9))
	var all []*errand
	for _, route := range []string{"view", "export"} {
		for at := time.Duration(0); perSecond[route] > 0; {
			at += time.Duration(r.ExpFloat64() / perSecond[route] * 1e9)
			if at > window {
				break
			}
			all = append(all, &errand{route: route, at: at, took: time.Duration(float64(took[route]) * (0.7 + 0.6*r.Float64()))})
		}
	}
	slices.SortFunc(all, func(a, b *errand) int { return int(a.at - b.at) })
	return all
}

// serve lets workers do the errands, first come, first served, but no more of a route at once than its permits say.
func serve(all []*errand, workers int, permits map[string]int) {
	running := map[string][]time.Duration{} // ends
	busy := func(route string, at time.Duration) int {
		running[route] = slices.DeleteFunc(running[route], func(end time.Duration) bool { return end <= at })
		return len(running[route])
	}
	waiting, next := []*errand{}, 0
	for at := time.Duration(0); next < len(all) || len(waiting) > 0; at += 200 * time.Microsecond {
		for ; next < len(all) && all[next].at <= at; next++ {
			waiting = append(waiting, all[next])
		}
		waiting = slices.DeleteFunc(waiting, func(e *errand) bool {
			most, bounded := permits[e.route]
			if busy("view", at)+busy("export", at) >= workers || bounded && busy(e.route, at) >= most {
				return false
			}
			e.start = at
			running[e.route] = append(running[e.route], at+e.took)
			return true
		})
	}
}

// told is the traces of errands: the gateway's span and attempt from their arrival on, the service's once a worker has taken them.
func told(all []*errand) []trace.Trace {
	traces := make([]trace.Trace, len(all))
	for i, e := range all {
		b := &builder{trace.Trace{ID: fmt.Sprintf("%06d", i)}}
		begin, end := e.at+time.Hour, e.start+e.took+time.Hour
		gw := b.span(-1, trace.Server, gatewayService, e.route, begin-gatewayLag, end+gatewayLag, "longpole.segment", "gateway", "http.request.method", "GET")
		at := b.span(gw, trace.Client, gatewayService, "attempt", begin, end, "longpole.endpoint", "r1")
		b.span(at, trace.Server, "reports", "GET /"+e.route, e.start+time.Hour, end)
		if e.refused {
			for k := range b.Spans {
				b.Spans[k].Failed = true
			}
		}
		traces[i] = b.Trace
	}
	return traces
}

var (
	viewsWait = diagnose.Finding{Code: "LP107", Service: "reports", Operation: "GET /view"}
	both      = map[string]longpole.Config{"view": {}, "export": {}}
)

func TestBulkheadLeavesWorkersToThoseWhoWait(t *testing.T) {
	rates, took := map[string]float64{"view": 40, "export": 13}, map[string]time.Duration{"view": 6 * time.Millisecond, "export": 250 * time.Millisecond}
	all := errands(1, 40*time.Second, rates, took)
	serve(all, 4, nil)
	s := situationOf(told(all), viewsWait, "view")
	s.current = both
	a, reason := shed(s)
	if a.Change == nil {
		t.Fatalf("no change: %s", reason)
	}
	if c := a.Change.To.Limit; a.Change.Route != "export" || c.Algorithm != limit.Fixed || c.Limit != 3 || a.Observe != "view" || !a.Turns || a.Shed < 0.1 || a.Shed > 0.5 {
		t.Errorf("%s: %+v, observed on %q, price %v", a.Change.Route, c, a.Observe, a.Shed)
	}
	again := errands(1, 40*time.Second, rates, took)
	serve(again, 4, map[string]int{"export": 3})
	var views []time.Duration
	for _, e := range again {
		if e.route == "view" {
			views = append(views, e.start+e.took-e.at+2*gatewayLag)
		}
	}
	e := a.Effect("view")
	if want := after(views, 0.99); e == nil || e.Before.P99 < 3*want || !near(e.Predicted.P99, want, 0.5) {
		t.Errorf("predicted %+v, the process gives p99 %.1f ms", e, want)
	}
}

func TestNoBulkheadWhereNobodyElseWaits(t *testing.T) {
	for name, rates := range map[string]map[string]float64{
		"one operation alone":         {"export": 15},
		"the others are the most":     {"view": 620, "export": 0.3},
		"there are workers to spare":  {"view": 40, "export": 6},
		"hardly anybody else is here": {"view": 0.5, "export": 15},
	} {
		all := errands(2, 30*time.Second, rates, map[string]time.Duration{"view": 6 * time.Millisecond, "export": 250 * time.Millisecond})
		serve(all, 4, nil)
		s := situationOf(told(all), viewsWait, "view")
		s.current = both
		if a, ok := s.bulkhead(); ok {
			t.Errorf("%s: %s", name, a.Summary)
		}
	}
}

// A service that takes in many calls at once and shares its processors among them answers none of them soon.
func TestLimitIsTheKneeOfWhatIsShared(t *testing.T) {
	const cores, inside, need = 2.0, 32, 40 * time.Millisecond
	all := errands(3, 20*time.Second, map[string]float64{"view": 70}, map[string]time.Duration{"view": need})
	left := map[*errand]float64{} // of those in work, ns
	done := map[*errand]time.Duration{}
	const step = 500 * time.Microsecond
	for at, next := time.Duration(0), 0; next < len(all) || len(left) > 0; at += step {
		for ; next < len(all) && all[next].at <= at; next++ {
			e := all[next]
			if e.start = at; len(left) >= inside {
				e.refused, e.took = true, 100*time.Microsecond
				continue
			}
			left[e] = float64(e.took)
		}
		share := float64(step) * min(1, cores/float64(max(len(left), 1)))
		for e := range left {
			if left[e] -= share; left[e] <= 0 {
				done[e] = at + step - e.start
				delete(left, e)
			}
		}
	}
	for e, took := range done {
		e.took = took
	}
	s := situationOf(told(all), diagnose.Finding{Code: "LP123", Service: "reports", Operation: "GET /view"}, "view")
	s.current = both
	a, reason := shed(s)
	if a.Change == nil {
		t.Fatalf("no change: %s", reason)
	}
	e := a.Effect("view")
	if c := a.Change.To.Limit; c.Limit < 2 || c.Limit > 6 || a.Shed < 0.3 || a.Shed > 0.6 {
		t.Errorf("%+v, price %v", c, a.Shed)
	}
	if e == nil || e.Before.P99 < 500 || e.Predicted.P99 < 50 || e.Predicted.P99 > 400 {
		t.Errorf("forecast %+v", e)
	}
}

func TestOverloadIsRefusedAtTheFrontDoor(t *testing.T) {
	for _, c := range []struct {
		name   string
		others int // of a hundred calls of the page, those that do not need the orders
		want   string
	}{{"the page is all about orders", 0, "page"}, {"half of the pages need none", 50, "orders"}} {
		var traces []trace.Trace
		for i := range 300 {
			b := &builder{trace.Trace{ID: fmt.Sprintf("%06d", i)}}
			start := time.Duration(i) * 20 * time.Millisecond
			front := b.through(-1, "page", "f1", "frontend", "", start, 50*time.Millisecond)
			if i%100 >= c.others {
				b.through(front, "orders", "o1", "orders", "", start+5*time.Millisecond, 40*time.Millisecond)
			}
			traces = append(traces, b.Trace)
		}
		s := situationOf(traces, diagnose.Finding{Code: "LP123", Service: "orders", Operation: "GET /orders"}, "page")
		s.current = map[string]longpole.Config{"page": {}, "orders": {}}
		if a, reason := shed(s); a.Change == nil || a.Change.Route != c.want {
			t.Errorf("%s: %+v %s, want a limit on %s", c.name, a.Change, reason, c.want)
		}
	}
}

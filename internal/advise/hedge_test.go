package advise

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/retry"
	"pgregory.net/rapid"
)

var slowOrders = diagnose.Finding{
	Code: "LP103", Class: "slow_endpoint", Service: "orders", Operation: "GET /orders",
	Detail: diagnose.Detail{Endpoint: "o2", Others: []string{"o0", "o1"}},
}

func TestHedgeForecastMatchesTheProcessItself(t *testing.T) {
	s := situationOf(shop(1, 4000), slowOrders, "checkout")
	s.current = map[string]longpole.Config{"orders": {}}
	a, reason := hedge(s)
	if a.Change == nil {
		t.Fatalf("no change: %s", reason)
	}
	plan := a.Change.To.Retry.Hedge.After
	r := rand.New(rand.NewPCG(99, 99))
	var route, root []time.Duration
	copies := 0
	const n = 40_000
	for range n {
		first := r.IntN(3)
		d := orders(r, first)
		if d > plan {
			copies++
			d = min(d, plan+orders(r, (first+1+r.IntN(2))%3))
		}
		route = append(route, d+2*gatewayLag)
		root = append(root, d+lag(r)/4+lag(r)/4+8*gatewayLag+4*time.Millisecond)
	}
	for operation, want := range map[string][]time.Duration{"orders": route, "checkout": root} {
		e := a.on(routeKey{gatewayService, operation})
		if e == nil {
			t.Fatalf("no effect on %s", operation)
		}
		for _, q := range []struct{ q, got float64 }{{0.5, e.Predicted.P50}, {0.95, e.Predicted.P95}, {0.99, e.Predicted.P99}} {
			if want := after(want, q.q); !near(q.got, want, 0.1) {
				t.Errorf("%s at %v: predicted %.1f ms, the process gives %.1f ms", operation, q.q, q.got, want)
			}
		}
		if e.Predicted.P99 > e.Before.P99/2 {
			t.Errorf("%s: p99 only from %.1f to %.1f ms", operation, e.Before.P99, e.Predicted.P99)
		}
		if e.Interval.P99[0] > e.Predicted.P99 || e.Interval.P99[1] < e.Predicted.P99 {
			t.Errorf("%s: p99 %v lies outside its interval %v", operation, e.Predicted.P99, e.Interval.P99)
		}
	}
	if got := float64(copies) / n; !near(a.ExtraLoad, got, 0.15) || a.ExtraLoad > maxExtraLoad {
		t.Errorf("extra load %.3f, the process gives %.3f", a.ExtraLoad, got)
	}
	t.Logf("after %v, extra load %.3f, effects %+v", plan, a.ExtraLoad, a.Effects)
}

func TestHedgedRootIsTheDelayAndTheOtherEndpointsLatency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		between := func(name string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Microsecond
		}
		good, slow := between("good", 5_000, 50_000), between("slow", 150_000, 500_000)
		pricing, inventory := between("pricing", 1_000, 20_000), between("inventory", 1_000, 20_000)
		every := rapid.IntRange(15, 40).Draw(t, "every") // one call in so many goes to the bad endpoint
		traces := make([]trace.Trace, 200)
		for i := range traces {
			endpoint, took := i%2, good
			if i%every == 0 {
				endpoint, took = 2, slow
			}
			traces[i] = checkout(i, endpoint, took, pricing, inventory)
		}
		s := situationOf(traces, slowOrders, "checkout")
		s.current = map[string]longpole.Config{"orders": {}}
		a, reason := hedge(s)
		if a.Change == nil {
			t.Fatalf("no change: %s", reason)
		}
		after := a.Change.To.Retry.Hedge.After
		rest := pricing + inventory + 8*gatewayLag + 4*time.Millisecond
		for operation, want := range map[string]time.Duration{"orders": after + good + 2*gatewayLag, "checkout": after + good + rest} {
			if e := a.on(routeKey{gatewayService, operation}); e.Predicted.P99 != millis(int64(want)) {
				t.Fatalf("%s: p99 %v ms, want %v: a copy after %v", operation, e.Predicted.P99, want, after)
			}
		}
		if after < good || after >= slow/2 {
			t.Fatalf("a copy after %v; good calls take %v, slow ones %v", after, good, slow)
		}
	})
}

func TestHedgeLeavesRoomInTheBudget(t *testing.T) {
	// 3% of the calls take 250 ms to 400 ms, the rest around 9 ms with a tail of its own: a copy for 8% of the calls would
	// gain a few ms more, and its budget run dry when the machine is busy.
	r := rand.New(rand.NewPCG(8, 8))
	p := &pool{took: map[string]*dist{}}
	for i := range 2400 {
		d := 9e6 * math.Exp(0.3*r.NormFloat64())
		name := []string{"a", "b", "c"}[i%3]
		if name == "c" && r.Float64() < 0.09 {
			d += 250e6 + 150e6*r.Float64()
		}
		p.put(name, int64(d), 1)
	}
	p.sort(nil)
	plan, ok := p.planHedge(maxExtraLoad)
	if p99 := p.hedgedQuantile(int64(plan.after), 0.99); !ok || plan.extra > maxExtraLoad*hedgeRoom || p99 > 40e6 {
		t.Errorf("%+v", plan)
	}
	t.Logf("after %v, %.1f%% copies, p99 %v", plan.after, 100*plan.extra, time.Duration(p.hedgedQuantile(int64(plan.after), 0.99)))
}

func TestHedgeDelayBeatsTheFixedQuantile(t *testing.T) {
	// 5% of the calls are late: at the p95 the copy goes out too late for half of them (Tail at Scale's rule).
	r := rand.New(rand.NewPCG(7, 7))
	p := &pool{took: map[string]*dist{}}
	for _, name := range []string{"a", "b", "c"} {
		for range 4000 {
			d := int64(5e6 + 1e6*r.NormFloat64())
			if r.Float64() < 0.05 {
				d *= 10
			}
			p.put(name, d, 1)
		}
	}
	p.sort(nil)
	plan, ok := p.planHedge(maxExtraLoad)
	if !ok {
		t.Fatal("no plan")
	}
	all := p.hedgedQuantile(int64(plan.after), 0.99)
	if fixed := p.hedgedQuantile(50e6, 0.99); all*2 > fixed {
		t.Errorf("p99 %v with the delay %v, %v with a delay of 50ms", time.Duration(all), plan.after, time.Duration(fixed))
	}
	if plan.extra > maxExtraLoad {
		t.Errorf("%.3f copies per call", plan.extra)
	}
}

func TestNoHedgeWithoutAReason(t *testing.T) {
	post := shop(3, 500)
	for _, tr := range post {
		for i := range tr.Spans {
			for k := range tr.Spans[i].Attributes {
				if a := &tr.Spans[i].Attributes[k]; a.Key == "http.request.method" {
					a.Value = "POST"
				}
			}
		}
	}
	one := shop(3, 500)
	for _, tr := range one {
		for i := range tr.Spans {
			for k := range tr.Spans[i].Attributes {
				if a := &tr.Spans[i].Attributes[k]; a.Key == "longpole.endpoint" {
					a.Value = "o0"
				}
			}
		}
	}
	for name, c := range map[string]struct {
		traces  []trace.Trace
		current longpole.Config
	}{
		"few traces":        {traces: shop(3, 20)},
		"calls not to twin": {traces: post},
		"one endpoint":      {traces: one},
		"hedged already":    {shop(3, 500), longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{}}}},
		"retries forbidden": {shop(3, 500), longpole.Config{Retry: &retry.Config{Off: true}}},
	} {
		s := situationOf(c.traces, slowOrders, "checkout")
		f := s.corpus.advise(slowOrders, s.route, map[string]longpole.Config{"orders": c.current})
		for _, a := range f.Actions {
			if a.Kind == KindHedge {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if len(f.CounterEvidence) == 0 {
			t.Errorf("%s: nothing says why", name)
		}
	}
}

func TestHedgeKeepsTheRestOfThePolicy(t *testing.T) {
	from := longpole.Config{Timeout: time.Second, Retry: &retry.Config{MaxAttempts: 1, BaseDelay: time.Millisecond}}
	to := hedgePlan{after: 40 * time.Millisecond}.config(from)
	if to.Timeout != from.Timeout || to.Retry.BaseDelay != from.Retry.BaseDelay || to.Retry.MaxAttempts != 2 {
		t.Errorf("%+v", to.Retry)
	}
	if from.Retry.Hedge != nil || from.Retry.MaxAttempts != 1 {
		t.Errorf("the policy in force was changed: %+v", from.Retry)
	}
	if err := to.Validate(); err != nil {
		t.Error(err)
	}
}

func TestDrainForecastsTheHealthyEndpoints(t *testing.T) {
	s := situationOf(shop(1, 4000), slowOrders, "checkout")
	a, reason := drain(s)
	if a.Kind != KindDrain {
		t.Fatal(reason)
	}
	if e := a.on(s.route); e == nil || e.Predicted.P99 > 80 {
		t.Errorf("%+v", e)
	}
}

func TestPlainTracesGetTextAdvice(t *testing.T) {
	traces := shop(1, 2000)
	for n := range traces { // as an ordinary collector has them: nobody balances, the replicas are hosts
		for i := range traces[n].Spans {
			s := &traces[n].Spans[i]
			if s.Service == "orders" {
				caller := &traces[n].Spans[i-1]
				s.Host = caller.Attr("longpole.endpoint")
			}
			if s.Service == gatewayService {
				s.Service = "edge"
			}
		}
		for i := range traces[n].Spans {
			traces[n].Spans[i].Attributes = nil
		}
	}
	f := slowOrders
	c := load(traces, diagnose.ClockOptions{})
	got := c.advise(f, routeKey{"edge", "checkout"}, nil)
	if len(got.Actions) == 0 || got.Actions[0].Kind != KindHedge {
		t.Fatalf("actions %+v, reasons %v", got.Actions, got.CounterEvidence)
	}
	if a := got.Actions[0]; a.Change != nil || a.Predicted == nil || a.Predicted.P99 > 150 {
		t.Errorf("%+v", a)
	}
}

func TestHedgeBudgetLeavesRoomAboveTheForecast(t *testing.T) {
	for _, c := range []struct {
		extra, retry, want float64
	}{
		{0.02, 0, 0.10}, // never less than a tenth
		{0.08, 0, 0.12},
		{0.10, 0, 0.15},
		{0.08, 0.11, 0.11}, // hedges spend from the retry budget too
	} {
		current := longpole.Config{Retry: &retry.Config{BudgetRatio: c.retry}}
		if got := (hedgePlan{extra: c.extra}).budget(current); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%.2f extra with a retry budget of %.2f: budget %.3f, want %.2f", c.extra, c.retry, got, c.want)
		}
	}
}

package advise

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// recorded is the traces of a system whose last call of the root is x, after how has had its way with it.
func recorded(how func(s *system, x *node)) []trace.Trace {
	r := rand.New(rand.NewPCG(5, 5))
	s := &system{rate: 30, root: &node{id: 1, service: "edge", op: "GET /page", before: 2, end: 1, sigma: 0.3, exec: 1, gone: -1, rounds: 1, endpoints: 1, tries: 1}}
	x := targetNode(r)
	x.before = 40
	how(s, x)
	if s.queued == nil {
		s.last(x)
	}
	traces, _ := s.record(3, 600)
	return traces
}

func TestEveryFindingHasItsActions(t *testing.T) {
	atTarget := diagnose.Finding{Service: "target", Operation: "GET /target", Segment: trace.SegService}
	byEdge := diagnose.Finding{Service: "edge", Operation: "GET /page", Segment: trace.SegNetwork, Detail: diagnose.Detail{Callees: []string{"target"}}}
	slow := func(_ *system, x *node) { x.stallAny, x.stall = 0.05, 400 }
	hangs := func(_ *system, x *node) { x.stallAny, x.stall, x.limit = 0.05, 60_000, 10_000 }
	queued := queuedAs
	query := func(_ *system, x *node) { x.query, x.op = true, "SELECT orders" }
	ofEdge := diagnose.Finding{Service: "edge", Operation: "SELECT orders", Segment: trace.SegDatabase}
	for _, c := range []struct {
		code   string
		of     diagnose.Finding
		detail func(d *diagnose.Detail)
		system func(s *system, x *node)
		want   []string
		text   string // of the first action
	}{
		{"LP105", atTarget, nil, slow, []string{KindInvestigate}, ""},
		{"LP106", atTarget, func(d *diagnose.Detail) { d.Functions = []string{"main.hash"} }, slow, []string{KindOptimise}, "main.hash"},
		{"LP107", atTarget, nil, queued, []string{KindReplicas, KindLimit}, "--replicas="},
		{"LP107", atTarget, func(d *diagnose.Detail) { d.Pool, d.Workers = "workers", 3 }, queued, []string{KindReplicas, KindLimit}, "more than 3 workers in each process"},
		{"LP107", diagnose.Finding{Service: "mailer", Operation: "process mail", Segment: trace.SegQueue}, func(d *diagnose.Detail) {
			d.Variant, d.Workers, d.Arrival, d.ServiceRate = "message", 1, 30, 15
		}, slow, []string{KindReplicas}, ""},
		{"LP108", atTarget, nil, slow, []string{KindInvestigate}, ""},
		{"LP109", ofEdge, func(d *diagnose.Detail) {
			d.Index, d.IndexGain, d.Tables = "CREATE INDEX CONCURRENTLY ON orders (customer_id)", 0.95, []string{"orders"}
		}, query, []string{KindIndex}, "CREATE INDEX CONCURRENTLY ON orders (customer_id);\n-- afterwards: ANALYZE orders;"},
		{"LP109", ofEdge, func(d *diagnose.Detail) { d.Variant, d.Tables = "bad_plan", []string{"orders"} }, query, []string{KindAnalyze}, "ANALYZE orders;"},
		{"LP110", ofEdge, func(d *diagnose.Detail) {
			d.Holder, d.HolderPID, d.Wait, d.Latency = "UPDATE stock", 42, 400*time.Millisecond, 40*time.Millisecond
		}, func(s *system, x *node) { query(s, x); slow(s, x) }, []string{KindUnlock}, "pg_terminate_backend(42)"},
		{"LP111", ofEdge, func(d *diagnose.Detail) { d.Pool, d.Workers, d.Wait = "main", 10, time.Millisecond }, query, []string{KindPool}, "0.7"},
		{"LP112", byEdge, nil, func(_ *system, x *node) { x.fails, x.tries = 0.4, 5 }, []string{KindRetries}, ""},
		{"LP113", byEdge, func(d *diagnose.Detail) { d.Attempts = 1.4 }, slow, []string{KindHedge}, ""},
		{"LP114", atTarget, func(d *diagnose.Detail) { d.Bytes, d.BytesUsual = 900_000, 200_000 }, func(_ *system, x *node) { x.bytes, x.perByte = 200_000, 3e-4 }, []string{KindPayload}, "compress"},
		{"LP115", byEdge, func(d *diagnose.Detail) { d.Variant = "stampede" }, slow, []string{KindPrecompute}, "coalescing"},
		{"LP116", atTarget, func(d *diagnose.Detail) { d.Endpoint = "target-2" }, func(_ *system, x *node) { x.endpoints, x.tail, x.stall = 3, 0.9, 300 }, []string{KindWarm, KindDrain, KindEject}, "readinessProbe"},
		{"LP116", atTarget, nil, func(_ *system, x *node) { x.endpoints, x.tail, x.stall = 2, 0.08, 300 }, []string{KindHedge, KindWarm}, ""},
		{"LP117", atTarget, func(d *diagnose.Detail) { d.Wait, d.Latency = 300*time.Millisecond, 40*time.Millisecond }, slow, []string{KindCollector}, "GOMEMLIMIT"},
		{"LP108", atTarget, nil, queued, []string{KindReplicas, KindInvestigate}, "kubectl"},
		{"LP118", byEdge, func(d *diagnose.Detail) { d.Latency, d.Timeout = 100*time.Millisecond, 10*time.Second }, hangs, []string{KindTimeout, KindBreaker}, ""},
		{"LP120", atTarget, func(d *diagnose.Detail) { d.Latency, d.Failed = 100*time.Millisecond, 0.2 }, hangs, []string{KindTimeout, KindBreaker, KindDrill}, ""},
		{"LP120", atTarget, func(d *diagnose.Detail) { d.Latency, d.Failed = 100*time.Millisecond, 0.2 }, slow, []string{KindBreaker, KindDrill}, ""},
		{"LP121", byEdge, nil, func(_ *system, x *node) { x.rounds, x.before = 20, 3 }, []string{KindBatch}, "one call"},
		{"LP122", atTarget, nil, func(_ *system, x *node) { x.endpoints, x.fails = 3, 0.2 }, []string{KindEject, KindBreaker, KindDrill}, ""},
		{"LP123", atTarget, nil, queued, []string{KindReplicas, KindLimit}, "HorizontalPodAutoscaler"},
		{"LP124", atTarget, nil, slow, []string{KindInvestigate}, ""},
		{"LP125", byEdge, nil, slow, []string{KindAsync}, "outbox"},
		{"LP999", atTarget, nil, slow, []string{KindInvestigate}, ""},
	} {
		t.Run(c.code, func(t *testing.T) {
			f := c.of
			f.Code = c.code
			if c.detail != nil {
				c.detail(&f.Detail)
			}
			got := load(recorded(c.system), diagnose.ClockOptions{}).advise(f, routeKey{"edge", "GET /page"}, nil)
			var kinds []string
			for _, a := range got.Actions {
				kinds = append(kinds, a.Kind)
				if a.Summary == "" || a.Cost == "" || a.Risk == "" || len(a.Prerequisites) == 0 || len(a.Watch) == 0 || a.Step == "" {
					t.Errorf("%s is not complete: %+v", a.Kind, a)
				}
				if p := a.Predicted; p != nil && (p.P99 > a.on(routeKey{"edge", "GET /page"}).Before.P99 || a.Interval.P99[0] > p.P99 || a.Interval.P99[1] < p.P99) {
					t.Errorf("%s: %+v in %+v", a.Kind, p, a.Interval)
				}
			}
			if !slices.Equal(kinds, c.want) {
				t.Fatalf("%v, want %v; %v", kinds, c.want, got.CounterEvidence)
			}
			if c.text != "" && !strings.Contains(got.Actions[0].Text, c.text) {
				t.Errorf("%q does not hold %q", got.Actions[0].Text, c.text)
			}
		})
	}
}

func TestCallsThatHoldEachOthersRowsAreToldSo(t *testing.T) {
	for holder, want := range map[string]string{"update stock set n = 9 where id = 5": "wait for each other's rows", "UPDATE prices SET n = 9": "end the transaction"} {
		f := diagnose.Finding{Code: "LP110", Service: "edge", Detail: diagnose.Detail{Variant: "database", Holder: holder, Statement: "UPDATE stock SET n = $2 WHERE id = $1"}}
		if a, _ := unlock(&situation{finding: &f}); !strings.Contains(a.Summary, want) {
			t.Errorf("%s: %q, want %q", holder, a.Summary, want)
		}
	}
}

func TestStatisticsAreRefreshedWithoutTalkOfANewIndex(t *testing.T) {
	f := diagnose.Finding{Code: "LP109", Service: "edge", Operation: "SELECT orders", Detail: diagnose.Detail{Variant: "bad_plan", Tables: []string{"orders"}}}
	traces := recorded(func(_ *system, x *node) { x.query, x.op = true, "SELECT orders" })
	got := load(traces, diagnose.ClockOptions{}).advise(f, routeKey{"edge", "GET /page"}, nil).Actions[0]
	if all := strings.Join(append(slices.Clone(got.Prerequisites), got.Watch...), " "); strings.Contains(all, "index") {
		t.Errorf("%s, and yet: %s", got.Summary, all)
	}
}

func TestLongerTimeoutMakesRetriesNeedless(t *testing.T) {
	traces := recorded(func(_ *system, x *node) { x.stallAny, x.stall, x.limit, x.tries = 0.1, 150, 130, 3 })
	f := diagnose.Finding{Code: "LP119", Service: "edge", Operation: "GET /page", Detail: diagnose.Detail{Callees: []string{"target"}, Latency: 300 * time.Millisecond, Timeout: 130 * time.Millisecond}}
	c := load(traces, diagnose.ClockOptions{})
	s := &situation{corpus: c, finding: &f, route: routeKey{"edge", "GET /page"}}
	a, _ := timeouts(s)
	if a.Kind != KindTimeout || a.ExtraLoad >= 0 || !strings.Contains(a.Summary, "wait 450ms for an attempt of target in place of 130ms") {
		t.Errorf("%+v", a)
	}
}

func TestGuardsCarryAChangeOfTheRouteThatMakesTheCalls(t *testing.T) {
	current := map[string]longpole.Config{"orders": {Timeout: 5 * time.Second}}
	for code, change := range map[string]func(c longpole.Config) bool{
		"LP112": func(c longpole.Config) bool { return c.Retry != nil && c.Retry.MaxAttempts == 2 },
		"LP118": func(c longpole.Config) bool { return c.TryTimeout > 0 && c.Timeout == 5*time.Second },
		"LP123": func(c longpole.Config) bool { return c.Limit != nil && c.Limit.Queue != nil },
		"LP120": func(c longpole.Config) bool { return c.Breaker != nil },
	} {
		f := diagnose.Finding{Code: code, Service: "frontend", Operation: "GET /checkout", Detail: diagnose.Detail{Callees: []string{"orders"}, Latency: 100 * time.Millisecond}}
		if code == "LP120" || code == "LP123" {
			f.Service, f.Operation = "orders", "GET /orders"
		}
		traces := shop(1, 400)
		if code == "LP118" {
			hang(traces, 3*time.Second)
		}
		got := load(traces, diagnose.ClockOptions{}).advise(f, routeKey{gatewayService, "checkout"}, current)
		ok := slices.ContainsFunc(got.Actions, func(a Action) bool {
			return a.Change != nil && a.Change.Route == "orders" && change(a.Change.To) && a.Change.To.Validate() == nil && len(a.Snippets) > 0
		})
		if !ok && code != "LP112" { // the shop has no retries to take away
			t.Errorf("%s: %+v, %v", code, got.Actions, got.CounterEvidence)
		}
	}
}

func TestWeightsCount(t *testing.T) {
	traces := recorded(func(_ *system, x *node) { x.stallAny, x.stall = 0.3, 400 })
	// Keep every slow trace and a tenth of the others, as a tail sampler does, and say so.
	var kept []trace.Trace
	for i, tr := range traces {
		if slow := tr.Spans[0].Duration() > 300*time.Millisecond; slow || i%10 == 0 {
			if !slow {
				tr.Weight = 10
			}
			kept = append(kept, tr)
		}
	}
	whole, err1 := WhatIf(traces, "speedup target 2x")
	part, err2 := WhatIf(kept, "speedup target 2x")
	for i := range kept {
		kept[i].Weight = 0
	}
	without, err3 := WhatIf(kept, "speedup target 2x")
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	last := func(f Forecast) Predicted { return f.Effects[len(f.Effects)-1].Predicted }
	if got, want := last(part).P50, last(whole).P50; !near(got, want, 0.15) {
		t.Errorf("p50 %.1f ms of the sample, %.1f ms of all", got, want)
	}
	if last(without).P50 < 1.5*last(whole).P50 {
		t.Errorf("the weights made no difference: %.1f ms", last(without).P50)
	}
}

func TestBurstsWidenTheInterval(t *testing.T) {
	even, bursts := samples{}, samples{}
	for i := range 2000 {
		slow := int64(10e6)
		if i%20 == 0 {
			even.add(slow*10, 1)
		} else {
			even.add(slow+int64(i%7)*1e5, 1)
		}
		if i/100%20 == 0 {
			bursts.add(slow*10, 1)
		} else {
			bursts.add(slow+int64(i%7)*1e5, 1)
		}
	}
	even.predicted()
	bursts.predicted()
	if a, b := even.burstiness(20e6), bursts.burstiness(20e6); a > 1.5 || b < 5 {
		t.Errorf("%v for single slow calls, %v for bursts", a, b)
	}
}

func TestErlangCIsAsInTheTables(t *testing.T) {
	// Of one server it is the utilisation; of two, 2u²/(1+u); and 0.5541 for five servers under a load of four.
	for _, c := range []struct {
		n          int
		load, want float64
	}{{1, 0.7, 0.7}, {2, 1.6, 2 * 0.64 / 1.8}, {5, 4, 0.5541}} {
		if got := erlangC(c.n, c.load); !near(got, c.want, 0.001) {
			t.Errorf("%d servers, load %v: %.4f, want %.4f", c.n, c.load, got, c.want)
		}
	}
}

func TestForecastsDoNotDependOnTheOrderOfTheTraces(t *testing.T) {
	for text, how := range map[string]func(s *system, x *node){
		"hedge target after=60ms":              func(_ *system, x *node) { x.endpoints, x.tail, x.stall = 3, 0.2, 200 },
		"timeout target 90ms tries=2":          func(_ *system, x *node) { x.stallAny, x.stall = 0.05, 300 },
		"payload target 50%":                   func(_ *system, x *node) { x.bytes, x.perByte = 200_000, 3e-4 },
		"shed target 20%; speedup edge -100us": func(s *system, x *node) { s.mood = 0.2; queuedAs(s, x) },
	} {
		traces := recorded(how)
		there, err1 := WhatIf(traces, text)
		slices.Reverse(traces)
		back, err2 := WhatIf(traces, text)
		if err1 != nil || err2 != nil || !reflect.DeepEqual(there, back) {
			t.Errorf("%s: %+v, %v\nand backwards %+v, %v", text, there, err1, back, err2)
		}
	}
}

// queuedAs gives x a queue.
func queuedAs(s *system, x *node) {
	x.replicas, x.workers, x.endpoints = 2, 2, 2
	s.queued = x
	s.first(x)
	s.rate = 0.88 * 4 / 0.045
}

func TestRankIsThePlaybooksThenTheGain(t *testing.T) {
	route := routeKey{"edge", "GET /page"}
	worth := func(kind string, step Step, saved float64) Action {
		return Action{Kind: kind, Step: step, Effects: []Effect{{Service: "edge", Operation: "GET /page", Before: Predicted{P99: 100}, Predicted: Predicted{P99: 100 - saved}}}}
	}
	list := []Action{worth(KindLimit, StepGuard, 90), worth(KindHedge, StepTune, 20), worth(KindTimeout, StepTune, 60), worth(KindReplicas, StepScale, 80), worth(KindReuse, StepRemove, 10)}
	rank(list, route)
	var kinds []string
	for _, a := range list {
		kinds = append(kinds, a.Kind)
	}
	if want := []string{KindReuse, KindTimeout, KindHedge, KindReplicas, KindLimit}; !slices.Equal(kinds, want) {
		t.Errorf("%v, want %v", kinds, want)
	}
	if steps := Steps(); !slices.IsSortedFunc(playbook(), func(a, b entry) int { return slices.Index(steps, a.step) - slices.Index(steps, b.step) }) {
		t.Error("the playbook is not in the order of its steps")
	}
}

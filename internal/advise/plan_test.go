package advise

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/retry"
)

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSerialCallsAreForecastAsStartedTogether(t *testing.T) {
	f := diagnose.Finding{Code: "LP101", Class: "serial_calls", Service: "frontend", Operation: "GET /checkout"}
	s := situationOf(shop(2, 1000), f, "checkout")
	a, reason := parallelise(s)
	if a.Kind != KindParallelise {
		t.Fatal(reason)
	}
	e := a.on(s.route)
	// Orders takes about 20 ms, the other two about 5 ms each and the frontend 1 ms before each: all that is hidden behind orders.
	if cut := e.Before.P50 - e.Predicted.P50; cut < 12 || cut > 15 {
		t.Errorf("p50 from %.1f to %.1f ms", e.Before.P50, e.Predicted.P50)
	}
	for _, want := range []string{"frontend GET /checkout", "orders", "pricing", "inventory"} {
		if !strings.Contains(a.Summary, want) {
			t.Errorf("%q does not name %s", a.Summary, want)
		}
	}
}

func TestOverlappingCallsAreNoChain(t *testing.T) {
	line := timelineOf(parse(t, `
		root 0ms 100ms
		  a 0ms 20ms service=a
		  b 25ms 60ms service=b
		  c 30ms 55ms service=c
		  d 61ms 70ms service=d
		  e 71ms 90ms service=e`))
	chains := line.chains(spanNamed(t, line, "root"))
	if len(chains) != 1 || len(chains[0]) != 2 || line.spans[chains[0][0]].Name != "d" {
		t.Errorf("chains %v", chains)
	}
}

func loops(n, calls int) []trace.Trace {
	traces := make([]trace.Trace, n)
	for i := range traces {
		b := &builder{trace.Trace{ID: fmt.Sprint(i)}}
		each := 2*time.Millisecond + time.Duration(i%10)*50*time.Microsecond
		root := b.span(-1, trace.Server, "shop", "GET /cart", 0, time.Duration(calls)*(each+time.Millisecond)+4*time.Millisecond)
		at := 2 * time.Millisecond
		for range calls {
			b.span(root, trace.Client, "shop", "SELECT item", at, at+each, "db.system.name", "postgresql")
			at += each + time.Millisecond
		}
		traces[i] = b.Trace
	}
	return traces
}

func TestLoopsAreForecastAsOneCall(t *testing.T) {
	for _, operation := range []string{"SELECT item", "GET /cart"} { // a finding may name the call or the caller
		f := diagnose.Finding{Code: "LP102", Class: "n_plus_one", Service: "shop", Operation: operation}
		c := load(loops(100, 30), diagnose.ClockOptions{})
		got := c.advise(f, routeKey{"shop", "GET /cart"}, nil)
		if len(got.Actions) != 1 || got.Actions[0].Kind != KindBatch {
			t.Fatalf("%s: %+v, reasons %v", operation, got.Actions, got.CounterEvidence)
		}
		a := got.Actions[0]
		// One call of 2.45 ms at most, 29 gaps of 1 ms that are the caller's own, 5 ms around.
		if !near(a.Predicted.P99, 2.45+29+5, 0.001) || !near(a.Effects[0].Predicted.P50, 2.2+29+5, 0.001) || !near(a.ExtraLoad, -29.0/30, 0.001) || a.Change != nil {
			t.Errorf("%s: %+v, %+v", operation, a, *a.Predicted)
		}
	}
}

func TestActionsComeInThePlaybooksOrder(t *testing.T) {
	s := situationOf(shop(1, 2000), slowOrders, "checkout")
	f := s.corpus.advise(slowOrders, s.route, nil)
	var kinds []string
	for _, a := range f.Actions {
		kinds = append(kinds, a.Kind)
	}
	if !slices.Equal(kinds, []string{KindHedge, KindDrain}) {
		t.Errorf("%v", kinds)
	}
}

func TestNoAdviceForASmallGain(t *testing.T) {
	traces := shop(1, 500)
	for n := range traces { // a wait of 10 s before everything: what orders does is nothing to the root
		for i := range traces[n].Spans[:3] {
			traces[n].Spans[i].Start -= 10e9
		}
	}
	s := situationOf(traces, slowOrders, "checkout")
	f := s.corpus.advise(slowOrders, s.route, nil)
	if len(f.Actions) != 0 || len(f.CounterEvidence) == 0 {
		t.Errorf("%+v, reasons %v", f.Actions, f.CounterEvidence)
	}
}

func TestInvestigationPromisesNothing(t *testing.T) {
	f := diagnose.Finding{Code: "LP105", Segment: trace.SegDatabase, Service: "catalogue", Operation: "SELECT"}
	s := situationOf(shop(1, 60), f, "checkout")
	got := s.corpus.advise(f, s.route, nil)
	if len(got.Actions) != 1 || got.Actions[0].Predicted != nil || !strings.Contains(got.Actions[0].Summary, "EXPLAIN") {
		t.Errorf("%+v", got.Actions)
	}
	if !strings.Contains(asJSON(t, got.Actions[0]), `"predicted_ms":null`) {
		t.Error(asJSON(t, got.Actions[0]))
	}
}

func TestReportIsTheDiagnosisWithActions(t *testing.T) {
	d := diagnose.Report{Routes: []diagnose.Route{
		{Service: gatewayService, Operation: "checkout", Traces: 500, Findings: []diagnose.Finding{slowOrders}},
		{Service: gatewayService, Operation: "other"},
	}}
	r := Plan(d, shop(1, 500), diagnose.ClockOptions{}, map[string]longpole.Config{"orders": {Timeout: time.Second}})
	var got struct {
		Input  map[string]any
		Routes []struct {
			Operation string
			Findings  []struct {
				Code    string
				Actions []struct {
					Kind      string
					Predicted *Predicted `json:"predicted_ms"`
					Change    *struct {
						Route    string
						From, To map[string]any
					}
				}
			}
		}
	}
	text := asJSON(t, r)
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Routes) != 2 || len(got.Routes[0].Findings) != 1 || len(got.Input) == 0 || strings.Count(text, `"routes"`) != 1 {
		t.Fatal(text)
	}
	actions := got.Routes[0].Findings[0].Actions
	if len(actions) == 0 || actions[0].Change == nil || actions[0].Change.Route != "orders" || actions[0].Predicted == nil {
		t.Fatal(text)
	}
	hedge, _ := actions[0].Change.To["retry"].(map[string]any)["hedge"].(map[string]any)
	if after, err := time.ParseDuration(fmt.Sprint(hedge["after"])); err != nil || after <= 0 {
		t.Errorf("change %+v", actions[0].Change)
	}
	if actions[0].Change.From["timeout"] != "1s" {
		t.Errorf("from %+v", actions[0].Change.From)
	}
}

// serialShop has no slow endpoint: what its checkouts wait for is three calls in a row.
func serialShop(n int) []trace.Trace {
	var even []trace.Trace
	for _, tr := range shop(4, 2*n) {
		if tr.Spans[4].Attr("longpole.endpoint") != "o2" && len(even) < n {
			even = append(even, tr)
		}
	}
	return even
}

// settings makes catalogue's answers all different, but every one of them reads the same setting.
func settings() []trace.Trace {
	traces := catalogue(arrivals(1, 40, 30*time.Second, 20))
	for n := range traces {
		for i := range traces[n].Spans {
			s := &traces[n].Spans[i]
			for k := range s.Attributes {
				switch a := &s.Attributes[k]; a.Key {
				case "url.query":
					a.Value = traces[n].ID
				case "db.query.text":
					a.Value = "SELECT * FROM settings"
				}
			}
		}
	}
	return traces
}

func TestRunAdvisesOnWhatItFinds(t *testing.T) {
	current := map[string]longpole.Config{"orders": {}, "catalogue": {}, "browse": {}, "checkout": {}}
	for name, c := range map[string]struct {
		traces      []trace.Trace
		route       string // of the report
		code, kind  string
		change      string  // its route; "" = none
		tail        float64 // the p99 in ms that is at most left
		onlyOneKind bool
	}{
		"a slow replica":        {shop(1, 800), "checkout", "LP103", KindHedge, "orders", 100, false},
		"calls in a row":        {serialShop(400), "checkout", "LP101", KindParallelise, "", 50, false},
		"a loop":                {loops(200, 30), "GET /cart", "LP102", KindBatch, "", 40, false},
		"repeated reads":        {catalogue(arrivals(1, 60, 40*time.Second, 40)), "browse", "LP104", KindCache, "catalogue", 10, true},
		"repeated reads inside": {settings(), "browse", "LP104", KindCache, "", 10, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := Run(c.traces, diagnose.Options{}, current)
			var found []Action
			for _, route := range r.Routes {
				for _, f := range route.Findings {
					for _, a := range f.Actions {
						if c.onlyOneKind && a.Kind == c.kind || route.Operation == c.route && f.Code == c.code && a.Kind == c.kind {
							found = append(found, a)
						}
					}
				}
			}
			if len(found) != 1 {
				t.Fatalf("%d such actions in %s", len(found), asJSON(t, r.Routes))
			}
			a := found[0]
			if a.Predicted == nil || a.Predicted.P99 > c.tail || (a.Change != nil) != (c.change != "") || a.Change != nil && a.Change.Route != c.change {
				t.Errorf("%s", asJSON(t, a))
			}
			if a.Change != nil && a.Effect(a.Change.Route) == nil {
				t.Errorf("no forecast for the route that changes: %+v", a.Effects)
			}
		})
	}
}

func TestReplayForecastsAChange(t *testing.T) {
	traces := shop(1, 1000)
	change := longpole.Change{Route: "orders", To: longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{After: 45 * time.Millisecond}}}}
	effects := Replay(traces, diagnose.ClockOptions{}, change)
	if len(effects) != 2 || effects[0].Route != "orders" || effects[1].Route != "checkout" || effects[1].Predicted.P99 > effects[1].Before.P99/2 {
		t.Errorf("%+v", effects)
	}
	reads := catalogue(arrivals(1, 40, 10*time.Second, 5))
	keep := longpole.Change{Route: "catalogue", To: longpole.Config{Cache: &cache.Config{TTL: time.Second}}}
	if effects = Replay(reads, diagnose.ClockOptions{}, keep); len(effects) != 2 || effects[0].Predicted.P50 > 1 {
		t.Errorf("%+v", effects)
	}
	change.To = longpole.Config{TryTimeout: 60 * time.Millisecond, Retry: &retry.Config{MaxAttempts: 2}}
	if effects = Replay(traces, diagnose.ClockOptions{}, change); len(effects) != 2 || effects[1].Predicted.P99 > effects[1].Before.P99/2 {
		t.Errorf("%+v", effects)
	}
	change.To = longpole.Config{Timeout: time.Second}
	if effects = Replay(traces, diagnose.ClockOptions{}, change); effects != nil {
		t.Errorf("%+v", effects)
	}
}

func TestEveryKindHasItsPage(t *testing.T) {
	for _, e := range playbook() {
		kind := e.kind
		page, err := os.ReadFile(filepath.Join("..", "..", "docs", "actions", kind+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		at := 0
		for _, heading := range []string{"What it does", "When to use", "When not", "Benefit", "Cost and risk", "Prediction and how it is checked", "How to undo", "Source"} {
			i := strings.Index(string(page)[at:], "\n## "+heading+"\n")
			if i < 0 {
				t.Errorf("%s.md: no heading %q at its place", kind, heading)
				continue
			}
			at += i
		}
		for _, code := range e.answers {
			if when, _, _ := strings.Cut(string(page), "\n## When not"); code != "unknown" && !strings.Contains(when, code) {
				t.Errorf("%s.md does not say that it answers %s", kind, code)
			}
		}
		for _, word := range []string{"Before: ", "Watch: "} {
			if !strings.Contains(strings.ReplaceAll(string(page), "\n", " "), word) {
				t.Errorf("%s.md has no %q", kind, word)
			}
		}
	}
}

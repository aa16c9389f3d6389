package advise

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// randomSystem makes one of two to four levels. All calls of the root stand in steps of their own or of several.
func randomSystem(r *rand.Rand) *system {
	s := &system{mood: []float64{0, 0.15, 0.3}[r.IntN(3)], drift: []float64{0, 0, 0.15}[r.IntN(3)], rate: 20 + 60*r.Float64()}
	next := 0
	var grow func(depth int) *node
	grow = func(depth int) *node {
		next++
		x := &node{
			id: next, service: fmt.Sprintf("s%d", next), op: "GET /" + strconv.Itoa(next), before: 1 + 6*r.Float64(), end: 0.5 + 3*r.Float64(),
			sigma: 0.2 + 0.5*r.Float64(), network: 0.2 + r.Float64(), exec: 1, gone: -1, rounds: 1, endpoints: 1, tries: 1,
		}
		if depth == 0 {
			return x
		}
		for range 1 + r.IntN(3) {
			step := []*node{grow(depth - 1)}
			for r.Float64() < 0.35 {
				step = append(step, grow(depth-1))
			}
			x.steps = append(x.steps, step)
		}
		return x
	}
	s.root = grow(1 + r.IntN(2))
	s.root.service, s.root.op = "edge", "GET /page"
	return s
}

// first makes x a call of the root of its own, before all others.
func (s *system) first(x *node) {
	s.root.steps = append([][]*node{{x}}, s.root.steps...)
}

// last makes x a call of the root of its own, after all others.
func (s *system) last(x *node) { s.root.steps = append(s.root.steps, []*node{x}) }

// target is a leaf that takes a good part of a trace.
func targetNode(r *rand.Rand) *node {
	return &node{
		id: 900, service: "target", op: "GET /target", before: 10 + 30*r.Float64(), sigma: 0.3 + 0.4*r.Float64(), network: 0.3 + r.Float64(),
		exec: 1, gone: -1, rounds: 1, endpoints: 1, tries: 1,
	}
}

// cases make a system, and say what is asked of the forecast and what then is done for real.
var simulated = map[string]func(r *rand.Rand, s *system) (text string, do func()){
	"speedup": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		s.last(x)
		if factor := 1.5 + 4*r.Float64(); r.IntN(2) == 0 {
			return fmt.Sprintf("speedup target %gx", factor), func() { x.exec = 1 / factor }
		}
		return "speedup target/GET -5ms", func() { x.saved = 5 }
	},
	"speedup of a queued one": func(r *rand.Rand, s *system) (string, func()) {
		x := queuedNode(r, s, 0.75+0.15*r.Float64())
		factor := 1.2 + r.Float64()
		return fmt.Sprintf("speedup target %gx", factor), func() { x.exec = 1 / factor }
	},
	"async": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		s.last(x)
		return "async target enqueue=1ms", func() { x.gone = 1 }
	},
	"remove": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		s.first(x)
		return "remove target", func() { x.gone = 0 }
	},
	"parallel": func(r *rand.Rand, s *system) (string, func()) {
		s.root.steps = nil
		var all []*node
		for k := range 3 + r.IntN(3) {
			x := targetNode(r)
			x.id, x.service, x.op = 900+k, fmt.Sprintf("part%d", k), fmt.Sprintf("GET /part%d", k)
			all = append(all, x)
			s.last(x)
		}
		s.root.before, s.root.end = 2, 2
		s.root.exec = 0.1
		return "parallel edge", func() { s.root.steps = [][]*node{all} }
	},
	"batch": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.query, x.op, x.service, x.before, x.rounds = true, "SELECT item", "edge", 2+3*r.Float64(), 5+r.IntN(20)
		s.last(x)
		return `batch "edge/SELECT item"`, func() { x.joint = true }
	},
	"reuse": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.twice, x.rounds = true, 2+r.IntN(2)
		s.last(x)
		return "reuse target", func() { x.reused = true }
	},
	"cache": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.before *= 3
		x.keys = 10 + r.IntN(60)
		s.keyed = x
		s.first(x)
		ttl := 500 * float64(1+r.IntN(6))
		return fmt.Sprintf("cache target ttl=%gms", ttl), func() { x.ttl = ttl }
	},
	"hedge": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.endpoints, x.tail, x.stall = 3, 0.1+0.2*r.Float64(), 150+100*r.Float64()
		s.last(x)
		after := math.Round(2.5 * x.before)
		return fmt.Sprintf("hedge target after=%gms", after), func() { x.hedge = after }
	},
	"drain": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.endpoints, x.tail, x.stall = 3, 0.2+0.5*r.Float64(), 150+100*r.Float64()
		s.last(x)
		return "drain target endpoint=target-2", func() { x.drained = true }
	},
	"timeout": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.stallAny, x.stall = 0.02+0.06*r.Float64(), 400
		s.last(x)
		limit := math.Round(4 * x.before)
		return fmt.Sprintf("timeout target %gms tries=2", limit), func() { x.limit, x.tries = limit, 2 }
	},
	"retries": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.fails, x.tries = 0.1+0.3*r.Float64(), 5
		s.last(x)
		return "retries target 2", func() { x.tries = 2 }
	},
	"index": func(r *rand.Rand, s *system) (string, func()) {
		x, quick := targetNode(r), targetNode(r)
		x.query, x.op = true, "SELECT orders"
		quick.id, quick.query, quick.op, quick.before = 901, true, "SELECT one", 0.2
		x.network, quick.network = 0.5, 0.5
		s.last(x)
		s.last(quick)
		factor := 3 + 20*r.Float64()
		return fmt.Sprintf(`index "edge/SELECT orders" %gx`, factor), func() { x.exec = 1 / factor }
	},
	"payload": func(r *rand.Rand, s *system) (string, func()) {
		x := targetNode(r)
		x.bytes, x.perByte = 200_000, 2e-4*(0.5+r.Float64())
		s.last(x)
		cut := 0.3 + 0.5*r.Float64()
		return fmt.Sprintf("payload target %g%%", 100*cut), func() { x.cut = cut }
	},
	"replicas": func(r *rand.Rand, s *system) (string, func()) {
		x := queuedNode(r, s, 0.75+0.15*r.Float64())
		to := x.replicas + 1 + r.IntN(2)
		return fmt.Sprintf("replicas target %d->%d", x.replicas, to), func() { x.replicas = to }
	},
	"replicas, least loaded": func(r *rand.Rand, s *system) (string, func()) {
		x := queuedNode(r, s, 0.85+0.1*r.Float64())
		s.pooled = true
		to := x.replicas + 1
		return fmt.Sprintf("replicas target %d->%d", x.replicas, to), func() { x.replicas = to }
	},
	"replicas, bursts": func(r *rand.Rand, s *system) (string, func()) {
		x := queuedNode(r, s, 0.7+0.1*r.Float64())
		s.bursts = true
		to := x.replicas + 1
		return fmt.Sprintf("replicas target %d->%d", x.replicas, to), func() { x.replicas = to }
	},
	"shed": func(r *rand.Rand, s *system) (string, func()) {
		queuedNode(r, s, 0.8+0.12*r.Float64())
		refused := 0.2 + 0.2*r.Float64()
		return fmt.Sprintf("shed target %g%%", 100*refused), func() { s.shed = refused }
	},
}

// queuedNode is a target with workers that are that busy.
func queuedNode(r *rand.Rand, s *system, busy float64) *node {
	x := targetNode(r)
	x.replicas, x.workers = 2+r.IntN(3), 2+r.IntN(4)
	x.endpoints = x.replicas
	s.mood, s.drift = min(s.mood, 0.15), 0 // a busy queue that drifts has no steady state to foretell
	s.queued = x
	s.first(x)
	mean := x.before * math.Exp((x.sigma*x.sigma+s.mood*s.mood)/2) / 1000
	s.rate = busy * float64(x.replicas*x.workers) / mean
	return x
}

// tally is how forecasts of one kind did.
type tally struct {
	cases   int
	errors  []float64
	by      [3][]float64
	covered int
	asked   int
	cut     []float64 // of the p99, that the change really made
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func quantilesOf(list []float64) [3]float64 {
	list = slices.Sorted(slices.Values(list))
	at := func(q float64) float64 { return list[int(math.Ceil(q*float64(len(list))))-1] }
	return [3]float64{at(0.5), at(0.95), at(0.99)}
}

// judge runs one case and adds it to the tally.
func (y *tally) judge(t *testing.T, kind string, seed uint64, calls int) {
	r := rand.New(rand.NewPCG(seed, 1234))
	s := randomSystem(r)
	text, do := simulated[kind](r, s)
	before, took := s.record(seed*2+1, calls)
	f, err := WhatIf(before, text)
	if err != nil {
		t.Fatalf("%s, seed %d: %v", kind, seed, err)
	}
	var e *Effect
	for i := range f.Effects {
		if f.Effects[i].Service == "edge" && f.Effects[i].Operation == "GET /page" {
			e = &f.Effects[i]
		}
	}
	if e == nil {
		t.Fatalf("%s, seed %d: no effect on the root: %+v", kind, seed, f.Effects)
	}
	do()
	_, truth := s.record(seed*2+2, 4*calls)
	was, is, sample := quantilesOf(took), quantilesOf(truth), quantilesOf(truth[:min(len(truth), calls)])
	y.cases++
	for q, got := range []float64{e.Predicted.P50, e.Predicted.P95, e.Predicted.P99} {
		y.errors = append(y.errors, math.Abs(got-is[q])/is[q])
		y.by[q] = append(y.by[q], math.Abs(got-is[q])/is[q])
		in := [][2]float64{e.Interval.P50, e.Interval.P95, e.Interval.P99}[q]
		y.asked++
		if sample[q] >= in[0] && sample[q] <= in[1] {
			y.covered++
		}
	}
	y.cut = append(y.cut, (was[2]-is[2])/was[2])
	if os.Getenv("WHATIF_VERBOSE") != "" {
		t.Logf("%s %d %q: was %.1f, is %.1f, foretold %+v in %+v %v", kind, seed, text, was, is, e.Predicted, e.Interval, f.Notes)
	}
}

// TestForecastsComeTrue records random systems, foretells a change, makes it for real and compares. WHATIF_CASES=40
// and WHATIF_CALLS=1500 give the table of docs/bench/whatif.md.
func TestForecastsComeTrue(t *testing.T) {
	number := func(name string, usual int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return usual
	}
	cases, calls := number("WHATIF_CASES", 2), number("WHATIF_CALLS", 300)
	var all tally
	var table strings.Builder
	fmt.Fprintf(&table, "\n| change | cases | p99 really cut by (median) | error p50 | error p95 | error p99 | in the 90 %% interval |\n|---|---|---|---|---|---|---|\n")
	kinds := make([]string, 0, len(simulated))
	for kind := range simulated {
		if only := os.Getenv("WHATIF_ONLY"); only == "" || only == kind {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		var y tally
		for seed := range cases {
			y.judge(t, kind, uint64(seed)+1, calls)
		}
		all.errors, all.covered, all.asked, all.cases = append(all.errors, y.errors...), all.covered+y.covered, all.asked+y.asked, all.cases+y.cases
		fmt.Fprintf(&table, "| %s | %d | %.0f %% | %.1f %% | %.1f %% | %.1f %% | %.0f %% |\n", kind, y.cases, 100*median(y.cut),
			100*median(y.by[0]), 100*median(y.by[1]), 100*median(y.by[2]), 100*share(float64(y.covered), float64(y.asked)))
		// Of few cases only all kinds together say something.
		if m := median(y.errors); m > 0.15 && cases >= 10 {
			t.Errorf("%s: median error %.1f%%", kind, 100*m)
		}
	}
	covered := share(float64(all.covered), float64(all.asked))
	fmt.Fprintf(&table, "| all | %d | | | | %.1f %% (all quantiles) | %.1f %% |\n", all.cases, 100*median(all.errors), 100*covered)
	t.Log(table.String())
	if m := median(all.errors); m > 0.15 {
		t.Errorf("median error %.1f%%", 100*m)
	}
	if covered < 0.85 {
		t.Errorf("%.1f%% of the quantiles lie in their 90%% intervals", 100*covered)
	}
}

func TestNoGainIsForetoldOffTheCriticalPath(t *testing.T) {
	var traces []trace.Trace
	for i := range 200 {
		b := &builder{}
		b.ID = strconv.Itoa(i)
		jitter := dur(float64(i % 7))
		root := b.span(-1, trace.Server, "edge", "GET /page", dur(0), dur(100)+jitter)
		for name, took := range map[string]float64{"slow": 80, "quick": 30} {
			b.span(root, trace.Client, "edge", "GET /"+name, dur(5), dur(5+took), "server.address", name)
		}
		traces = append(traces, b.Trace)
	}
	for _, text := range []string{`speedup "edge/GET /quick" 10x`, `remove "edge/GET /quick"`, `async "edge/GET /quick"`, `timeout "edge/GET /quick" 10ms`, `index "edge/GET /quick" 10x`} {
		f, err := WhatIf(traces, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range f.Effects {
			if e.Predicted != e.Before {
				t.Errorf("%s: from %+v to %+v", text, e.Before, e.Predicted)
			}
		}
	}
}

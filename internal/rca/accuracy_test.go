package rca_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/rca"
)

// seeds is how many systems of each form are simulated for each way to record them and each fault.
var seeds = flag.Int("seeds", 1, "systems of each kind that are simulated; each has half of the faults in turn")

var faultKinds = []string{"cpu", "cpu of one replica", "network delay", "network loss", "code", "gc", "error", "return"}

// inject chooses what goes wrong, where and how badly; nil = the choice makes no sense.
func inject(r *rand.Rand, w *world, kind string) *disorder {
	f := &disorder{
		kind: kind, service: r.IntN(len(w.services)), replica: -1,
		chance: 0.1 + 0.2*r.Float64(), factor: 2.5 + 3*r.Float64(), delay: 10 + 90*r.Float64(), jitter: 0.3 * r.Float64(),
	}
	s := w.services[f.service]
	f.op = r.IntN(len(s.ops))
	switch kind {
	case "cpu of one replica":
		f.kind, f.replica = "cpu", r.IntN(s.replicas)
	case "network delay":
		f.kind = "delay"
	case "network loss":
		f.kind, f.chance = "loss", 0.03+0.1*r.Float64()
	case "gc":
		f.chance = 0.05 + 0.1*r.Float64()
	case "error":
		f.chance = 0.3 + 0.7*r.Float64()
	case "return":
		f.chance = 0.3 + 0.7*r.Float64()
		if !slices.ContainsFunc(s.ops[f.op].steps, func(s step) bool { return s.share == 1 }) {
			return nil // who returns early shows only by calls that are always made
		}
	}
	return f
}

// shows reports whether a fault touched enough of the traffic to be seen at all: ten times, in thirty traces.
func (f *disorder) shows(w *world, met int) bool {
	hits := float64(met)
	switch f.kind {
	case "gc", "loss", "error", "return":
		hits *= f.chance
	}
	if f.replica >= 0 {
		hits /= float64(w.services[f.service].replicas)
	}
	return met >= 30 && hits >= 10
}

// systems calls with for every system, way to record it and seed. The ID tells them apart.
func systems(with func(id uint64, form int, s style)) {
	for form := range forms {
		for k, s := range styles {
			for seed := range uint64(*seeds) {
				with(uint64(form)*100_000+uint64(k)*10_000+seed, form, s)
			}
		}
	}
}

// faulty is the answer to a system under a fault of that kind; false when none was found that shows.
func faulty(id uint64, form int, s style, kind string) (a rca.Answer, ok bool) {
	w := newWorld(id, form, s)
	r := rand.New(rand.NewPCG(id, 99))
	baseline, _ := w.traffic(2*id+1, 100+r.IntN(200), 1, true, nil)
	n := 100 + r.IntN(200)
	for range 50 {
		f := inject(r, w, kind)
		if f == nil {
			continue
		}
		suspect, met := w.traffic(2*id+2, n, 0.95+0.15*r.Float64(), true, f)
		if !f.shows(w, met) {
			continue
		}
		a.Case = rca.Case{Name: fmt.Sprintf("%s, form %d, seed %d", s.name, form, id), System: s.name, Fault: kind, Services: []string{w.services[f.service].name}}
		switch {
		case !s.server || !s.client: // one side alone cannot tell the way from the work
		case f.kind == "cpu":
			a.Class = "cpu"
		case f.kind == "delay", f.kind == "loss":
			a.Class = "network"
		}
		got := diagnose.Compare(suspect, baseline)
		a.Culprits, a.Notes = got.Culprits, got.Notes
		return a, true
	}
	return a, false
}

// TestSimulatedFaultsAreFound judges the comparison on random systems that it was not made for: see the table of docs/bench/rca.md.
func TestSimulatedFaultsAreFound(t *testing.T) {
	t.Parallel()
	var answers []rca.Answer
	systems(func(id uint64, form int, s style) {
		for i, kind := range faultKinds {
			if (uint64(i)+uint64(form)+id)%2 != 0 {
				continue
			}
			if a, ok := faulty(id+uint64(i)*1_000_000, form, s, kind); ok {
				answers = append(answers, a)
			}
		}
	})
	r := rca.Score(answers)
	report(t, r)
	if r.Total.Cases < 65**seeds {
		t.Errorf("only %d cases", r.Total.Cases)
	}
	if r.Total.Top1 < 0.9 || r.Total.Top3 < 0.9 || r.Total.ClassRatio() < 0.75 {
		t.Errorf("top-1 %.3f, top-3 %.3f, class %.3f; want 0.9, 0.9, 0.75", r.Total.Top1, r.Total.Top3, r.Total.ClassRatio())
	}
	for _, g := range slices.Concat(r.Faults, r.Systems) {
		if g.Top1 < 0.75 { // a group has some ten cases, so that one weighs much
			t.Errorf("%s: top-1 %.3f; want 0.75", g.Group, g.Top1)
		}
	}
}

// TestHealthyPeriodsDoNotDiffer compares two healthy periods, of different load and a different mix of routes, in
// which no service is exactly as fast as before.
func TestHealthyPeriodsDoNotDiffer(t *testing.T) {
	t.Parallel()
	var answers []rca.Answer
	systems(func(id uint64, form int, s style) {
		for i := range uint64(3) {
			id := id + 50_000_000 + i*1_000_000
			w := newWorld(id, form, s)
			r := rand.New(rand.NewPCG(id, 99))
			baseline, _ := w.traffic(2*id+1, 100+r.IntN(200), 1, true, nil)
			suspect, _ := w.traffic(2*id+2, 100+r.IntN(200), 0.9+0.4*r.Float64(), true, nil)
			got := diagnose.Compare(suspect, baseline)
			answers = append(answers, rca.Answer{
				Case: rca.Case{Name: fmt.Sprintf("%s, form %d, seed %d", s.name, form, id), System: s.name, Fault: "none"}, Culprits: got.Culprits,
			})
		}
	})
	r := rca.Score(answers)
	report(t, r)
	if r.Total.QuietRatio() < 0.95 {
		t.Errorf("nothing differs in %.3f of healthy pairs; want 0.95", r.Total.QuietRatio())
	}
}

// report logs the tables of a score, for -v.
func report(t *testing.T, r rca.Report) {
	var b strings.Builder
	for _, x := range slices.Concat(r.Faults, r.Systems, []rca.Tally{r.Total}) {
		fmt.Fprintf(&b, "| %s | %d | %.1f %% | %.1f %% | %d | %d | %d of %d | %d of %d |\n", x.Group, x.Cases, 100*x.Top1, 100*x.Top3, x.Innocent, x.Silent, x.ClassRight, x.ClassJudged, x.Quiet, x.Healthy)
	}
	for _, m := range r.Misses() {
		fmt.Fprintf(&b, "%s, %s: want %v, got", m.Name, m.Fault, m.Services)
		for _, c := range m.Culprits {
			fmt.Fprintf(&b, " %s/%s/%s %.2f", c.Service, c.Segment, c.Class, c.ExcessMS)
		}
		fmt.Fprintln(&b)
	}
	t.Logf("| group | faults | top-1 | top-3 | innocent first | silent | class right | quiet |\n%s", b.String())
}

func TestComparisonDoesNotDependOnOrder(t *testing.T) {
	t.Parallel()
	for i, kind := range []string{"cpu", "network loss", "error"} {
		w := newWorld(uint64(i), mesh, styles[0])
		r := rand.New(rand.NewPCG(uint64(i), 5))
		f := inject(r, w, kind)
		f.service, f.op = 0, 0
		suspect, _ := w.traffic(1, 200, 1, false, f)
		baseline, _ := w.traffic(2, 150, 1, false, nil)
		want := diagnose.Compare(suspect, baseline)
		if len(want.Culprits) == 0 {
			t.Errorf("%s: nothing was found", kind)
		}
		for range 3 {
			for _, set := range [][]int{r.Perm(len(suspect)), r.Perm(len(baseline))} {
				traces := suspect
				if len(set) == len(baseline) {
					traces = baseline
				}
				for at, to := range set {
					traces[at], traces[to] = traces[to], traces[at]
					spans := traces[at].Spans
					r.Shuffle(len(spans), func(a, b int) { spans[a], spans[b] = spans[b], spans[a] })
				}
			}
			if diff := cmp.Diff(want, diagnose.Compare(suspect, baseline)); diff != "" {
				t.Errorf("%s: in another order: %s", kind, diff)
			}
		}
	}
}

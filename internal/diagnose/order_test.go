package diagnose_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// names is the operations on the path of the trees' roots, each once, and of every tree whether it has one.
func names(trees []*diagnose.Tree) map[string]int {
	on := map[string]int{}
	for _, tree := range trees {
		var seen []string
		for _, s := range tree.Path(tree.Roots[0]) {
			if name := tree.Spans[s.Span].Name; !slices.Contains(seen, name) {
				seen = append(seen, name)
				on[name]++
			}
		}
	}
	return on
}

func TestSiblingsThatOnlyHappenToEndAreNotOnThePath(t *testing.T) {
	var f jaegerFile
	readCorpus(t, &f, "critical-path", "adversarial", "gather-inference", "traces.jaeger.json")
	var want struct {
		On  []string `json:"expected_ops_on_path"`
		Off []string `json:"not_on_path"`
	}
	readCorpus(t, &want, "critical-path", "adversarial", "gather-inference", "expected.json")
	trees := diagnose.Trees(f.traces(), diagnose.ClockOptions{})
	on := names(trees)
	for _, name := range want.On {
		if on[name] != len(trees) {
			t.Errorf("%s is on %d of %d paths", name, on[name], len(trees))
		}
	}
	for _, name := range want.Off {
		if on[name] != 0 {
			t.Errorf("%s is on %d of %d paths", name, on[name], len(trees))
		}
	}
	for _, tree := range trees {
		checkPartition(t, tree, tree.Roots[0], tree.Path(tree.Roots[0]))
	}
}

// siblings makes n traces of a root with children, in microseconds: name, start and end each.
func siblings(n int, child func(i int) map[string][2]int) []trace.Trace {
	var traces []trace.Trace
	for i := range n {
		id := fmt.Sprint("t", i)
		end := 0
		tr := trace.Trace{ID: id, Spans: []trace.Span{{TraceID: id, ID: "r", Service: "s", Name: "root"}}}
		for name, at := range child(i) {
			end = max(end, at[1])
			tr.Spans = append(tr.Spans, trace.Span{
				TraceID: id, ID: name, Parent: "r", Service: "s", Name: name, Kind: trace.Client,
				Start: int64(at[0]) * 1000, End: int64(at[1]) * 1000,
			})
		}
		tr.Spans[0].End = int64(end+100) * 1000
		traces = append(traces, tr)
	}
	return traces
}

func TestOrdersOfSiblingsAreLearntOverManyTraces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		n     int
		child func(i int) map[string][2]int
		a     int // traces in which a is on the path, before b
	}{
		"an order that always holds": {20, func(i int) map[string][2]int {
			a := 1000 + r.IntN(2000)
			return map[string][2]int{"a": {0, a}, "b": {4000, 9000}}
		}, 20},
		"one trace falsifies it for all": {20, func(i int) map[string][2]int {
			a := 1000 + r.IntN(2000)
			if i == 7 {
				a = 5000
			}
			return map[string][2]int{"a": {0, a}, "b": {4000, 9000}}
		}, 0},
		"seven traces are too few": {7, func(i int) map[string][2]int {
			a := 1000
			if i == 5 {
				a = 5000
			}
			return map[string][2]int{"a": {0, a}, "b": {4000, 9000}}
		}, 6},
		"at once in some, one after the other in the rest": {20, func(i int) map[string][2]int {
			a := 1000 + r.IntN(2000)
			if i%2 == 0 {
				return map[string][2]int{"a": {0, a}, "b": {10, 9000}}
			}
			return map[string][2]int{"a": {0, a}, "b": {a + 20 + r.IntN(20), 9000}}
		}, 10},
		"closed a moment late": {40, func(i int) map[string][2]int {
			a := 1000 + r.IntN(2000)
			return map[string][2]int{"a": {0, a}, "b": {a - 30 + r.IntN(60), 9000}}
		}, 40},
	} {
		t.Run(name, func(t *testing.T) {
			if on := names(diagnose.Trees(siblings(c.n, c.child), diagnose.ClockOptions{})); on["a"] != c.a || on["b"] != c.n {
				t.Errorf("a is on %d paths and b on %d, want %d and %d", on["a"], on["b"], c.a, c.n)
			}
		})
	}
}

func TestTaskOfAPoolWaitsForWhicheverEndsFirst(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	first := make([]string, 60)
	trees := diagnose.Trees(siblings(60, func(i int) map[string][2]int {
		a := 1000 + r.IntN(4000)
		b := a + (1-r.IntN(2)*2)*(200+r.IntN(500))
		if first[i] = "a"; b < a {
			first[i] = "b"
		}
		return map[string][2]int{"a": {0, a}, "b": {5, b}, "c": {min(a, b) + 10, 9000}}
	}), diagnose.ClockOptions{})
	for i, tree := range trees {
		if on := names(trees[i : i+1]); on[first[i]] != 1 || on["c"] != 1 || len(on) != 3 {
			t.Errorf("trace %s: on the path %v, want %s, c and root", tree.ID, on, first[i])
		}
	}
}

func TestWhatIsLearntOfSiblingsIsBounded(t *testing.T) {
	many := siblings(20, func(i int) map[string][2]int {
		all := map[string][2]int{}
		for k := range 30 {
			all[fmt.Sprint("op", i*30+k)] = [2]int{10 * k, 10*k + 9}
		}
		return all
	})
	r := diagnose.Run(many, diagnose.Options{})
	if r.Orders.Skipped != 20 || r.Orders.Dropped != 0 {
		t.Errorf("%+v", r.Orders)
	}
	for _, tree := range diagnose.Trees(many, diagnose.ClockOptions{}) {
		if got := len(tree.Path(tree.Roots[0])); got != 60 {
			t.Fatalf("%d sections, want one of each call and what lies between", got)
		}
	}
}

// What is learnt from halves of the traces is put together. The order that only the last trace falsifies is dropped for the first ones too.
func TestOrdersOfAllTracesCountTogether(t *testing.T) {
	for _, falsified := range []int{0, 19} {
		traces := siblings(20, func(i int) map[string][2]int {
			if i == falsified {
				return map[string][2]int{"a": {0, 4000}, "b": {1000 + 10*i, 9000}}
			}
			return map[string][2]int{"a": {0, 1000 + 37*(i*i%11)}, "b": {2000 + 91*(i*7%13), 9000}}
		})
		if on := names(diagnose.Trees(traces, diagnose.ClockOptions{})); on["a"] != 0 || on["b"] != 20 {
			t.Errorf("falsified by trace %d: on the paths %v, want b and not a", falsified, on)
		}
	}
}

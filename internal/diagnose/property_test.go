package diagnose_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// drawTrace is any trace: of few names, hosts and times, so that much coincides.
func drawTrace(t *rapid.T, id string) trace.Trace {
	n := rapid.IntRange(1, 14).Draw(t, "spans")
	tr := trace.Trace{ID: id, Weight: rapid.SampledFrom([]float64{0, 0, 1, 7.5}).Draw(t, "weight")}
	for i := range n {
		s := trace.Span{
			TraceID: id, ID: fmt.Sprint(rapid.IntRange(0, n).Draw(t, "id")),
			Kind:    trace.Kind(rapid.IntRange(0, 5).Draw(t, "kind")),
			Service: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"),
			Name:    rapid.SampledFrom([]string{"x", "y", "z", "q send", "q process"}).Draw(t, "name"),
			Host:    rapid.SampledFrom([]string{"", "h", "i"}).Draw(t, "host"),
			Failed:  rapid.IntRange(0, 9).Draw(t, "failed") == 0, FollowsFrom: rapid.IntRange(0, 9).Draw(t, "follows") == 0,
			Start: int64(rapid.IntRange(0, 50).Draw(t, "start")) * rapid.SampledFrom([]int64{1, 1000, 1_000_000}).Draw(t, "unit"),
		}
		if i > 0 {
			s.Parent = fmt.Sprint(rapid.IntRange(0, n).Draw(t, "parent"))
		}
		s.End = s.Start + int64(rapid.IntRange(-1, 40).Draw(t, "length"))*rapid.SampledFrom([]int64{1, 1000, 1_000_000}).Draw(t, "unit")
		if rapid.IntRange(0, 3).Draw(t, "attributes") == 0 {
			s.Attributes = []trace.Attribute{{
				Key:   rapid.SampledFrom([]string{"error.type", "db.system", "size", "x.enqueued_time", "messaging.system"}).Draw(t, "key"),
				Value: rapid.SampledFrom([]string{"canceled", "mysql", "12", "1700000000", "NaN", "1e300"}).Draw(t, "value"),
			}}
		}
		tr.Spans = append(tr.Spans, s)
	}
	return tr
}

// drawSet is traces of one system, some of them much alike.
func drawSet(t *rapid.T) []trace.Trace {
	var traces []trace.Trace
	for i := range rapid.IntRange(1, 4).Draw(t, "kinds") {
		tr := drawTrace(t, fmt.Sprint("t", i))
		traces = append(traces, tr)
		for j := range rapid.IntRange(0, 12).Draw(t, "copies") {
			next := trace.Trace{ID: fmt.Sprint("t", i, "-", j), Spans: slices.Clone(tr.Spans)}
			for k := range next.Spans {
				next.Spans[k].TraceID = next.ID
				next.Spans[k].End += int64(rapid.IntRange(0, 5).Draw(t, "late"))
			}
			traces = append(traces, next)
		}
	}
	return traces
}

func TestEveryPathIsAPartitionWhateverWasLearnt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		traces := drawSet(t)
		trees := diagnose.Trees(traces, diagnose.ClockOptions{})
		if len(trees) != len(traces) {
			t.Fatalf("%d trees of %d traces", len(trees), len(traces))
		}
		for _, tree := range trees {
			for i := range tree.Spans {
				partition(t, tree, i)
			}
			for _, root := range tree.Roots {
				checkFloats(t, tree, root)
			}
		}
	})
}

// partition is checkPartition for rapid, which has its own way to fail.
func partition(t *rapid.T, tree *diagnose.Tree, root int) {
	at := tree.Spans[root].Start
	for _, s := range tree.Path(root) {
		if s.Start != at || s.End <= s.Start {
			t.Fatalf("the path of %d has a section [%d, %d) at %d", root, s.Start, s.End, at)
		}
		at = s.End
	}
	if at != tree.Spans[root].End {
		t.Fatalf("the path of %d ends at %d, want %d", root, at, tree.Spans[root].End)
	}
}

// checkFloats holds for slack and drag of every tree.
func checkFloats(t *rapid.T, tree *diagnose.Tree, root int) {
	floats := tree.Floats(root)
	on := make([]bool, len(tree.Spans))
	for _, s := range tree.Path(root) {
		on[s.Span] = true
	}
	for i, f := range floats {
		length := tree.Spans[i].End - tree.Spans[i].Start
		switch {
		case f.Slack < -1 || f.Drag < 0 || f.Drag > length:
			t.Fatalf("span %d: %+v", i, f)
		case on[i] && f.Slack != 0:
			t.Fatalf("span %d is on the path and has slack: %+v", i, f)
		case f.Slack != 0 && f.Drag != 0:
			t.Fatalf("span %d has slack and drag: %+v", i, f)
		case i != root && f.Slack >= 0 && f.Slack < floats[tree.Parent[i]].Slack:
			t.Fatalf("span %d has less slack than its parent: %+v, %+v", i, f, floats[tree.Parent[i]])
		case i != root && f.Slack >= 0 && f.Drag > floats[tree.Parent[i]].Drag:
			t.Fatalf("span %d has more drag than its parent: %+v, %+v", i, f, floats[tree.Parent[i]])
		}
	}
}

func TestReportDoesNotDependOnTheOrderOfTheInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		traces := drawSet(t)
		want := diagnose.Run(traces, diagnose.Options{})
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		r.Shuffle(len(traces), func(i, j int) { traces[i], traces[j] = traces[j], traces[i] })
		for _, tr := range traces {
			r.Shuffle(len(tr.Spans), func(i, j int) { tr.Spans[i], tr.Spans[j] = tr.Spans[j], tr.Spans[i] })
		}
		got := diagnose.Run(traces, diagnose.Options{})
		for _, r := range []*diagnose.Report{&got, &want} {
			for i := range r.Routes {
				r.Routes[i].Findings = nil // the rules have tests of their own
			}
		}
		if !nearlyEqual(reflect.ValueOf(got), reflect.ValueOf(want)) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// nearlyEqual lets sums differ in the last bits, which the order of their parts decides.
func nearlyEqual(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Float64:
		return math.Abs(a.Float()-b.Float()) <= 1e-9*max(1, math.Abs(a.Float()))
	case reflect.Struct:
		for i := range a.NumField() {
			if !nearlyEqual(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !nearlyEqual(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}

func TestReportsAreWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		traces := drawSet(t)
		r := diagnose.Run(traces, diagnose.Options{})
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if r.Input.Coverage < 0 || r.Input.Coverage > 1 {
			t.Fatalf("coverage %v", r.Input.Coverage)
		}
		for _, route := range r.Routes {
			var sum diagnose.Bands
			for _, s := range route.Segments {
				if s.DragMS.P50 > s.CriticalMS.P50+1e-9 || s.DragMS.P99 > s.CriticalMS.P99+1e-9 || s.SlackMS.P50 < 0 {
					t.Fatalf("%+v", s)
				}
				sum.P50, sum.P95, sum.P99 = sum.P50+s.Share.P50, sum.P95+s.Share.P95, sum.P99+s.Share.P99
			}
			for _, share := range []float64{sum.P50, sum.P95, sum.P99} {
				if share > 1+1e-9 || share != 0 && share < 1-1e-9 {
					t.Fatalf("shares of %s add up to %+v", route.Operation, sum)
				}
			}
			l := route.Latency
			if !slices.IsSorted([]float64{l.P50, l.P90, l.P95, l.P99, l.P999, l.Max}) {
				t.Fatalf("%+v", l)
			}
		}
	})
}

func FuzzTrees(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		trees := diagnose.Trees(drawSet(t), diagnose.ClockOptions{})
		for _, tree := range trees {
			for i := range tree.Spans {
				partition(t, tree, i)
			}
			for _, root := range tree.Roots {
				checkFloats(t, tree, root)
			}
		}
	}))
}

// TestLargeTracesAreLearntFrom would not end if anything were quadratic, or recursive in the depth.
func TestLargeTracesAreLearntFrom(t *testing.T) {
	t.Parallel()
	for name, tr := range large() {
		t.Run(name, func(t *testing.T) {
			tree := diagnose.Trees([]trace.Trace{tr}, diagnose.ClockOptions{})[0]
			floats := tree.Floats(tree.Roots[0])
			drag := int64(0)
			for i, f := range floats {
				if f.Slack == 0 && len(tree.Children(i)) == 0 {
					drag += f.Drag / 1000
				}
			}
			want := map[string]int64{"deep-chain": 2, "wide-sequential": 800_000, "wide-parallel": 1}[name]
			if drag != want {
				t.Errorf("the leaves have a drag of %d us, want %d", drag, want)
			}
		})
	}
}

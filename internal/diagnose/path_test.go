package diagnose_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// piece is a section as the corpus writes it: [span ID, start, end], in microseconds.
type piece struct {
	ID         string
	Start, End int64
}

func (p *piece) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&p.ID, &p.Start, &p.End})
}

// expectation is the fields of expected.json that a path has.
type expectation struct {
	Sections    *[]piece
	ExclusiveUS map[string]int64                    `json:"exclusive_us"`
	ByOp        map[string]int64                    `json:"exclusive_us_by_op"`
	Partition   map[string]int64                    `json:"exclusive_us_by_op_partition"`
	Root        struct{ Service, Operation string } `json:"root_selector"`
	Orphans     []string
	Malformed   []string
	Complete    *bool
	OtherRoots  map[string][]piece `json:"other_roots"`
	SkewUS      map[string]int64   `json:"skew_adjust_us"`
	Async       []struct {
		Producer, Consumer string
		WaitUS             int64 `json:"queue_wait_us"`
		Sections           []piece
	}
}

// pieces turns a path to the corpus's order, which is from the end.
func pieces(tree *diagnose.Tree, path []diagnose.Section) []piece {
	all := []piece{}
	for _, s := range slices.Backward(path) {
		all = append(all, piece{tree.Spans[s.Span].ID, s.Start / 1000, s.End / 1000})
	}
	return all
}

func exclusive(tree *diagnose.Tree, path []diagnose.Section, name func(*trace.Span) string) map[string]int64 {
	sum := map[string]int64{}
	for _, s := range path {
		sum[name(&tree.Spans[s.Span])] += (s.End - s.Start) / 1000
	}
	return sum
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func idOf(s *trace.Span) string { return s.ID }

func ids(tree *diagnose.Tree, spans []int) []string {
	var all []string
	for _, i := range spans {
		all = append(all, tree.Spans[i].ID)
	}
	return all
}

func TestPathsAreThoseOfJaegersOwnCases(t *testing.T) {
	for _, name := range folders(t, "critical-path", "jaeger-ui") {
		t.Run(name, func(t *testing.T) { checkCase(t, "critical-path", "jaeger-ui", name) })
	}
}

func TestPathsOfAdversarialTraces(t *testing.T) {
	for _, name := range folders(t, "critical-path", "adversarial") {
		if name == "gather-inference" {
			continue // cannot be told from one trace
		}
		t.Run(name, func(t *testing.T) { checkCase(t, "critical-path", "adversarial", name) })
	}
}

func checkCase(t *testing.T, path ...string) {
	var want expectation
	readCorpus(t, &want, append(path, "expected.json")...)
	tree := diagnose.Build(readTrace(t, path...), diagnose.ClockOptions{})
	got := tree.Path(tree.Roots[0])
	same(t, "sections", pieces(tree, got), *want.Sections)
	same(t, "exclusive", exclusive(tree, got, idOf), want.ExclusiveUS)
	same(t, "orphans", ids(tree, tree.Orphans), want.Orphans)
	same(t, "malformed", tree.Malformed, want.Malformed)
	if complete := want.Complete == nil || *want.Complete; complete == tree.Incomplete {
		t.Errorf("incomplete = %v, want %v", tree.Incomplete, !complete)
	}
	for _, root := range tree.Roots[1:] {
		same(t, "other root", pieces(tree, tree.Path(root)), want.OtherRoots[tree.Spans[root].ID])
	}
	if len(tree.Roots)-1 != len(want.OtherRoots) {
		t.Errorf("other roots: %d, want %d", len(tree.Roots)-1, len(want.OtherRoots))
	}
	skew := map[string]int64{}
	for i := range tree.Spans {
		if s := tree.Skew(i); s != 0 {
			skew[tree.Spans[i].ID] = s / 1000
		}
	}
	if want.SkewUS != nil {
		same(t, "skew", skew, want.SkewUS)
	}
	if len(skew) != tree.SkewCorrected {
		t.Errorf("%d spans corrected, want %d", tree.SkewCorrected, len(skew))
	}
	if want.Async == nil {
		return
	}
	async := tree.Async(tree.Roots[0])
	if len(async) != len(want.Async) {
		t.Fatalf("%d detached spans, want %d", len(async), len(want.Async))
	}
	for i, a := range async {
		w := want.Async[i]
		same(t, "producer and consumer", []string{tree.Spans[a.Parent].ID, tree.Spans[a.Span].ID}, []string{w.Producer, w.Consumer})
		same(t, "queue wait", a.Wait/1000, w.WaitUS)
		same(t, "detached sections", pieces(tree, a.Sections), w.Sections)
		if a.Why != diagnose.Message {
			t.Errorf("detached as %v, want message", a.Why)
		}
	}
}

func TestPathsGiveTheExclusiveTimesOfCRISP(t *testing.T) {
	for _, name := range folders(t, "critical-path", "crisp") {
		t.Run(name, func(t *testing.T) {
			var want expectation
			readCorpus(t, &want, "critical-path", "crisp", name, "expected.json")
			tree := diagnose.Build(readTrace(t, "critical-path", "crisp", name), diagnose.ClockOptions{})
			root := tree.Find(want.Root.Service, want.Root.Operation)
			got := exclusive(tree, tree.Path(root), func(s *trace.Span) string {
				return fmt.Sprintf("[%s] %s", s.Service, s.Name)
			})
			sums := want.ByOp
			if want.Partition != nil {
				sums = want.Partition // CRISP counts overlaps twice there
			}
			maps.DeleteFunc(sums, func(_ string, us int64) bool { return us == 0 })
			same(t, "exclusive by operation", got, sums)
		})
	}
}

// large returns the three traces of generated-large.json, in microseconds.
func large() map[string]trace.Trace {
	const n = 100_000
	span := func(id, parent int, start, end int64) trace.Span {
		s := trace.Span{TraceID: "t", ID: fmt.Sprint(id), Service: "svc", Name: "op", Start: start * 1000, End: end * 1000}
		if parent >= 0 {
			s.Parent = fmt.Sprint(parent)
		}
		return s
	}
	var deep []trace.Span
	for i := range n {
		deep = append(deep, span(i, i-1, int64(1000+i), int64(1000+2*n-i)))
	}
	sequential := []trace.Span{span(0, -1, 0, 1_000_000)}
	parallel := []trace.Span{span(0, -1, 0, n+101)}
	parallel[0].End = 200_001 * 1000
	for i := range n {
		sequential = append(sequential, span(i+1, 0, int64(10*i+1), int64(10*i+9)))
		parallel = append(parallel, span(i+1, 0, 1, int64(2+i)))
	}
	return map[string]trace.Trace{
		"deep-chain":      {ID: "t", Spans: deep},
		"wide-sequential": {ID: "t", Spans: sequential},
		"wide-parallel":   {ID: "t", Spans: parallel},
	}
}

func TestPathOfHundredThousandSpans(t *testing.T) {
	for name, tr := range large() {
		t.Run(name, func(t *testing.T) {
			tree := diagnose.Build(tr, diagnose.ClockOptions{})
			path := tree.Path(tree.Roots[0])
			checkPartition(t, tree, tree.Roots[0], path)
			sums := exclusive(tree, path, idOf)
			counts := map[int64]int{}
			for _, us := range sums {
				counts[us]++
			}
			last := len(tr.Spans) - 1
			switch name {
			case "deep-chain": // each span starts 1 us after and ends 1 us before its parent; so many that the innermost has 2 us too
				same(t, "spans by time", counts, map[int64]int{2: last + 1})
			case "wide-sequential":
				same(t, "spans by time", counts, map[int64]int{8: last, 200_000: 1})
			case "wide-parallel":
				same(t, "times", sums, map[string]int64{"0": 100_001, fmt.Sprint(last): 100_000})
			}
		})
	}
}

// checkPartition is what every path must be.
func checkPartition(t testing.TB, tree *diagnose.Tree, root int, path []diagnose.Section) {
	t.Helper()
	at := tree.Spans[root].Start
	for i, s := range path {
		if s.Start != at || s.End <= s.Start {
			t.Fatalf("section %d is [%d, %d), want one that starts at %d", i, s.Start, s.End, at)
		}
		if i > 0 && path[i-1].Span == s.Span {
			t.Fatalf("sections %d and %d are of one span and should be one", i-1, i)
		}
		if own := tree.Spans[s.Span]; s.Start < own.Start || s.End > own.End {
			t.Fatalf("section %d is [%d, %d), beyond its span [%d, %d)", i, s.Start, s.End, own.Start, own.End)
		}
		at = s.End
	}
	if at != tree.Spans[root].End {
		t.Fatalf("the path ends at %d, want %d", at, tree.Spans[root].End)
	}
}

// random makes a trace in which about everything occurs that can be wrong with one.
func random(r *rand.Rand) trace.Trace {
	t := trace.Trace{ID: "t"}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	for range 1 + r.IntN(25) {
		s := trace.Span{
			TraceID: "t", ID: fmt.Sprint(r.IntN(25)), Parent: fmt.Sprint(r.IntN(25)), Kind: trace.Kind(r.IntN(6)),
			Service: pick("a", "b"), Name: pick("x", "y", "q send", "q process"), Host: pick("", "h", "i"),
			Failed: r.IntN(8) == 0, FollowsFrom: r.IntN(12) == 0,
		}
		if r.IntN(4) == 0 {
			s.Parent = ""
		}
		if r.IntN(8) == 0 {
			s.Attributes = []trace.Attribute{{Key: "error.type", Value: "canceled"}}
		}
		s.Start = int64(r.IntN(60))
		s.End = s.Start + int64(r.IntN(40)) - 2
		switch r.IntN(40) {
		case 0:
			s.Start = math.MinInt64
		case 1:
			s.End = math.MaxInt64
		case 2:
			s.Start, s.End = math.MinInt64, math.MinInt64+5
		case 3:
			s.Start, s.End = math.MaxInt64-5, math.MaxInt64
		}
		t.Spans = append(t.Spans, s)
	}
	return t
}

// describe is all that a tree says, in which nothing may depend on the order of the input.
func describe(tree *diagnose.Tree) string {
	text := fmt.Sprintln(tree.ID, tree.Spans, tree.Parent, tree.Roots, tree.Orphans, tree.Malformed, tree.Duplicates,
		tree.Invalid, tree.SkewCorrected, tree.SkewIgnored, tree.Incomplete, tree.Synthetic)
	for i := range tree.Spans {
		text += fmt.Sprintln(tree.Children(i), tree.Blocking(i), tree.Why(i), tree.Skew(i), tree.Depth(i), tree.Path(i))
	}
	for _, root := range tree.Roots {
		text += fmt.Sprintln(tree.Async(root))
	}
	return text
}

func TestOrderOfSpansDoesNotMatter(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		tr := random(r)
		want := describe(diagnose.Build(tr, diagnose.ClockOptions{}))
		for range 3 {
			r.Shuffle(len(tr.Spans), func(i, j int) { tr.Spans[i], tr.Spans[j] = tr.Spans[j], tr.Spans[i] })
			if got := describe(diagnose.Build(tr, diagnose.ClockOptions{})); got != want {
				t.Fatalf("seed %d:\n%s", seed, cmp.Diff(want, got))
			}
		}
	}
}

// checkTree holds for every tree: each path is a partition, no path goes through another's detached work, and all
// spans are accounted for.
func checkTree(t testing.TB, tr trace.Trace, o diagnose.ClockOptions) {
	t.Helper()
	tree := diagnose.Build(tr, o)
	made := 0
	if tree.Synthetic {
		made = 1
	}
	if len(tree.Spans)-made+tree.Duplicates+tree.Invalid != len(tr.Spans) {
		t.Fatalf("%d spans in, %d kept, %d duplicates, %d invalid", len(tr.Spans), len(tree.Spans), tree.Duplicates, tree.Invalid)
	}
	if len(tree.Roots) == 0 && len(tree.Spans) > 0 {
		t.Fatal("spans, but no root")
	}
	for i := range tree.Spans {
		checkPartition(t, tree, i, tree.Path(i))
		if start, end := tree.Clip(i); start > end {
			t.Fatalf("span %d is clipped to [%d, %d)", i, start, end)
		}
	}
	for _, root := range tree.Roots {
		for _, a := range tree.Async(root) {
			checkPartition(t, tree, a.Span, a.Sections)
			if a.Wait < 0 {
				t.Fatalf("a wait of %d", a.Wait)
			}
		}
	}
}

func TestPathIsAPartition(t *testing.T) {
	for seed := range uint64(2000) {
		checkTree(t, random(rand.New(rand.NewPCG(seed, 2))), diagnose.ClockOptions{})
	}
}

func FuzzPath(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Add([]byte{0, 0xff, 0, 100, 0, 1, 0, 10, 20, 3, 2, 0, 15, 30, 4, 3, 1, 5, 5, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8*64 {
			data = data[:8*64] // every span's own path is taken: the square of the spans
		}
		tr := trace.Trace{ID: "t"}
		for ; len(data) >= 8; data = data[8:] {
			s := trace.Span{
				ID: string('a' + rune(data[0]%32)), Parent: string('a' + rune(data[1]%33)), Kind: trace.Kind(data[2] % 6),
				Host:    []string{"", "h", "i", "j"}[data[2]>>6],
				Service: []string{"a", "b"}[data[0]>>7], Name: []string{"x", "q send", "q process", "y"}[data[0]>>5&3],
				Failed: data[3]&1 != 0, FollowsFrom: data[3]&6 == 6,
				Start: int64(data[4]) << (data[3] >> 4 & 7 * 9), End: int64(int8(data[6])),
			}
			if data[1]%33 == 32 {
				s.Parent = ""
			}
			if data[3]&8 != 0 {
				s.Attributes = []trace.Attribute{{Key: "error.type", Value: "canceled"}}
			}
			s.End = s.Start + int64(data[5])<<(data[7]%57) - int64(data[6]%4)
			tr.Spans = append(tr.Spans, s)
		}
		checkTree(t, tr, diagnose.ClockOptions{})
		checkTree(t, tr, diagnose.ClockOptions{Rule: diagnose.OneWay, Granularity: 1000})
	})
}

func BenchmarkPath(b *testing.B) {
	for name, tr := range large() {
		tree := diagnose.Build(tr, diagnose.ClockOptions{})
		b.Run(name, func(b *testing.B) {
			var path []diagnose.Section
			for b.Loop() {
				path = tree.AppendPath(path[:0], tree.Roots[0])
			}
			b.ReportMetric(float64(b.N)*float64(len(tr.Spans))/b.Elapsed().Seconds(), "spans/s")
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for name, tr := range large() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				diagnose.Build(tr, diagnose.ClockOptions{})
			}
			b.ReportMetric(float64(b.N)*float64(len(tr.Spans))/b.Elapsed().Seconds(), "spans/s")
		})
	}
}

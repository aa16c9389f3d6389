package diagnose

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

func TestLatencyIsExact(t *testing.T) {
	traces := many(t, 1000, func(i int) string { return fmt.Sprintf("get 0ms %dms", i+1) })
	got := Run(traces, Options{}).Routes[0].Latency
	if want := (Latency{P50: 500, P90: 900, P95: 950, P99: 990, P999: 999, Max: 1000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSlowBandIsTheSlowestHundredthButNeverAFew(t *testing.T) {
	for n, want := range map[int][3]int{0: {0, 0, 0}, 1: {1, 1, 1}, 3: {1, 3, 3}, 10: {2, 5, 5}, 500: {100, 20, 5}, 1000: {200, 40, 10}} {
		b := bandsOf(make([]sample, n))
		if len(b.typical) != want[0] || len(b.high) != want[1] || len(b.slow) != want[2] {
			t.Errorf("of %d: %d typical, %d high and %d slow, want %v", n, len(b.typical), len(b.high), len(b.slow), want)
		}
	}
}

func TestSharesDifferBetweenTypicalAndSlow(t *testing.T) {
	traces := many(t, 600, func(i int) string {
		query := 10
		if i%100 == 0 {
			query = 90
		}
		return fmt.Sprintf("get 0ms %dms service=shop failed\n  SELECT 10ms %dms kind=client db.system=mysql", query+10, query+10)
	})
	r := Run(traces, Options{Files: 3}).Routes[0]
	s := r.Segments[0]
	if s.Segment != trace.SegDatabase || s.Service != "shop" || s.Share != (Bands{0.5, 0.5, 0.9}) || s.CriticalMS != (Bands{10, 10, 90}) {
		t.Errorf("%+v", s)
	}
	if r.Errors != 600 || r.Traces != 600 {
		t.Errorf("%d of %d failed", r.Errors, r.Traces)
	}
	for band, sum := range map[string]float64{"p50": r.Segments[0].Share.P50 + r.Segments[1].Share.P50, "p99": r.Segments[0].Share.P99 + r.Segments[1].Share.P99} {
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("the shares of %s add up to %v", band, sum)
		}
	}
}

func TestRoutesStandByTheirTotalTime(t *testing.T) {
	traces := many(t, 30, func(i int) string {
		if i%3 == 0 {
			return "rare 0ms 100ms"
		}
		return "often 0ms 60ms"
	})
	r := Run(traces, Options{MaxRoutes: 1})
	if len(r.Routes) != 2 || r.Routes[0].Operation != "often" || r.Routes[1].Operation != other || r.Routes[1].Traces != 10 {
		t.Errorf("%+v", r.Routes)
	}
}

func TestReportIsTheContract(t *testing.T) {
	traces := many(t, 3, same("get 0ms 10ms"))
	got, err := json.Marshal(Run(traces, Options{Files: 1}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"input":{"files":1,"traces":3,"spans":3,"incomplete_traces":0,"duplicate_spans":0,"invalid_spans":0,"skew_corrected_spans":0,"coverage":1},` +
		`"routes":[{"service":"svc","operation":"get","traces":3,"errors":0,"latency_ms":{"p50":10,"p90":10,"p95":10,"p99":10,"p99.9":10,"max":10},` +
		`"segments":[{"segment":"service","service":"svc","operation":"get","share":{"p50":1,"p95":1,"p99":1},"critical_ms":{"p50":10,"p95":10,"p99":10},"drag_ms":{"p50":10,"p95":10,"p99":10},"slack_ms":{"p50":0,"p95":0,"p99":0}}],"findings":[{"code":"LP105",`
	if !strings.HasPrefix(string(got), want) || strings.Contains(string(got), "null") || strings.Contains(string(got), "culprits") {
		t.Errorf("got  %s\nwant %s...", got, want)
	}
	empty, _ := json.Marshal(Run(nil, Options{Baseline: traces}))
	if !strings.Contains(string(empty), `"routes":[]`) || !strings.Contains(string(empty), `"culprits":[]`) {
		t.Errorf("got %s", empty)
	}
}

func TestRulesLookAtAPartThatStandsForTheWhole(t *testing.T) {
	traces := population(10_000, func(i int) (float64, []trace.Attribute) { return float64(i%100 + 1), nil })
	v := viewOf(traces)
	thin := v.thin(maxJudged)
	if n := len(thin.samples); n != maxJudged || len(thin.slow) != 100 || weigh(thin.samples) != 10_000 || weigh(thin.slow) != 100 {
		t.Errorf("%d traces that stand for %v, of them %d slow ones for %v", n, weigh(thin.samples), len(thin.slow), weigh(thin.slow))
	}
	if got, want := latency(thin.samples), latency(v.samples); math.Abs(got.P50-want.P50) > 1 || got.P99 != want.P99 {
		t.Errorf("%+v, want about %+v", got, want)
	}
	if thin.all() != v || v.all() != v || v.samples[0].weight != 1 {
		t.Error("the whole is lost or changed")
	}
	if small := viewOf(traces[:500]); small.thin(maxJudged) != small {
		t.Error("few traces are looked at all")
	}
}

func TestOrderOfTheInputHasNoSay(t *testing.T) {
	traces := many(t, 60, func(i int) string {
		return fmt.Sprintf("get 0ms %dms service=shop\n  call 1ms 9ms\n    a 2ms 8ms service=a host=h%d\n  call 10ms 18ms\n    b 11ms 17ms service=b\n  SELECT 20ms 21ms x%d kind=client db.system=mysql", 60+i%7, i%2, 3+i%9)
	})
	want := Run(traces, Options{Baseline: traces[:30]})
	r := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		shuffled := make([]trace.Trace, len(traces))
		for i, j := range r.Perm(len(traces)) {
			shuffled[i] = trace.Trace{ID: traces[j].ID, Spans: append([]trace.Span(nil), traces[j].Spans...)}
			r.Shuffle(len(shuffled[i].Spans), func(a, b int) {
				s := shuffled[i].Spans
				s[a], s[b] = s[b], s[a]
			})
		}
		if got := Run(shuffled, Options{Baseline: traces[:30]}); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestBrokenTracesAreReported(t *testing.T) {
	traces := []trace.Trace{
		{ID: "empty"},
		parsed(t, 1, "a 9ms 1ms"),
		parsed(t, 2, "a 0ms 1ms id=a parent=b\nb 0ms 1ms id=b parent=a"),
		parsed(t, 3, "a 0ms 10ms parent=gone\nb 3ms 5ms parent=gone"),
		parsed(t, 4, "a 0ms 0ms"),
	}
	r := Run(traces, Options{})
	if r.Input.Traces != 5 || r.Input.InvalidSpans == 0 || r.Input.IncompleteTraces == 0 || len(r.Notes) == 0 {
		t.Errorf("%+v %v", r.Input, r.Notes)
	}
}

// wide is traces with many calls, as many spans as asked for.
func wide(spans int) []trace.Trace {
	var traces []trace.Trace
	for n := 0; n < spans; {
		t := trace.Trace{ID: fmt.Sprint(len(traces))}
		add := func(parent, service, name string, start, end int) string {
			id := fmt.Sprint(len(t.Spans))
			t.Spans = append(t.Spans, trace.Span{
				TraceID: t.ID, ID: id, Parent: parent, Service: service, Name: name,
				Start: int64(start) * int64(time.Millisecond), End: int64(end) * int64(time.Millisecond),
				Attributes: []trace.Attribute{{Key: "http.method", Value: "GET"}, {Key: "http.target", Value: "/" + name}},
			})
			return id
		}
		root := add("", "shop", "get", 0, 1000)
		for i := range 20 {
			call := add(root, "shop", "call", 50*i, 50*i+49)
			served := add(call, fmt.Sprint("svc", i%7), "serve", 50*i+1, 50*i+48)
			add(served, fmt.Sprint("svc", i%7), "SELECT a", 50*i+2, 50*i+40)
		}
		n += len(t.Spans)
		traces = append(traces, t)
	}
	return traces
}

func BenchmarkRun(b *testing.B) {
	for _, n := range []int{100_000, 500_000} {
		traces := wide(n)
		b.Run(fmt.Sprint(n/1000, "k"), func(b *testing.B) {
			b.ReportAllocs()
			before := cpuSeconds(b)
			for b.Loop() {
				Run(traces, Options{})
			}
			b.ReportMetric(float64(b.N)*float64(n)/(cpuSeconds(b)-before), "spans/cpu-s")
		})
	}
}

// BenchmarkPaths is the path alone, of traces as services make them.
func BenchmarkPaths(b *testing.B) {
	const n = 100_000
	set := newSet(wide(n), ClockOptions{})
	var path []Section
	before := cpuSeconds(b)
	for b.Loop() {
		for _, t := range set.trees {
			path = t.AppendPath(path[:0], t.Roots[0])
		}
	}
	b.ReportMetric(float64(b.N)*n/(cpuSeconds(b)-before), "spans/cpu-s")
}

// BenchmarkTrees is what comes before the path: trees, clocks and orders.
func BenchmarkTrees(b *testing.B) {
	const n = 100_000
	traces := wide(n)
	before := cpuSeconds(b)
	for b.Loop() {
		newSet(traces, ClockOptions{})
	}
	b.ReportMetric(float64(b.N)*n/(cpuSeconds(b)-before), "spans/cpu-s")
}

// cpuSeconds is the processor time that the process has used, garbage collection included: what other programs on the
// machine do has little say in it.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func BenchmarkCompare(b *testing.B) {
	traces := wide(100_000)
	b.ReportAllocs()
	for b.Loop() {
		Compare(traces, traces)
	}
}

func TestDeepTraceIsReported(t *testing.T) {
	t.Parallel()
	const depth = 20_000
	deep := trace.Trace{ID: "deep"}
	for i := range depth {
		s := trace.Span{
			TraceID: "deep", ID: fmt.Sprint(i), Service: fmt.Sprint("s", i%3), Name: "get", Start: int64(i), End: int64(3*depth - i),
			Attributes: []trace.Attribute{{Key: "http.method", Value: "GET"}, {Key: "url.path", Value: "/"}},
		}
		if i > 0 {
			s.Parent = fmt.Sprint(i - 1)
		}
		deep.Spans = append(deep.Spans, s)
	}
	if r := Run([]trace.Trace{deep}, Options{Baseline: []trace.Trace{deep}}); r.Input.Spans != depth {
		t.Errorf("%+v", r.Input)
	}
}

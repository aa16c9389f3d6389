package ingest

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return begin.Add(d) }

func span(traceID string, id int, length time.Duration) trace.Span {
	return trace.Span{TraceID: traceID, ID: fmt.Sprint(id), Service: "svc", Name: "op", Start: 1000, End: 1000 + int64(length)}
}

func ids(traces []trace.Trace) string {
	var b strings.Builder
	for _, t := range traces {
		fmt.Fprintf(&b, "%s:%d ", t.ID, len(t.Spans))
	}
	return strings.TrimSpace(b.String())
}

func TestTracesAppearOnceTheyAreQuiet(t *testing.T) {
	a := NewAssembler(AssemblerConfig{})
	a.Add(after(0), span("one", 1, 5), span("two", 1, 5))
	a.Add(after(3*time.Second), span("one", 2, 5))
	for _, c := range []struct {
		at   time.Duration
		want string
	}{{4 * time.Second, ""}, {5 * time.Second, "two:1"}, {8 * time.Second, "one:2 two:1"}} {
		if got := ids(a.Window(after(c.at), time.Hour)); got != c.want {
			t.Errorf("after %v: %q, want %q", c.at, got, c.want)
		}
	}
}

func TestLateSpansJoinWhileTheirTraceIsKept(t *testing.T) {
	a := NewAssembler(AssemblerConfig{})
	a.Add(after(0), span("one", 1, 5))
	before := a.Window(after(10*time.Second), time.Hour)
	a.Add(after(time.Minute), span("one", 2, 5))
	if got := ids(a.Window(after(2*time.Minute), time.Hour)); got != "one:2" || ids(before) != "one:1" {
		t.Errorf("got %q, before %q", got, ids(before))
	}
	if got := ids(a.Window(after(20*time.Minute), time.Hour)); got != "" {
		t.Errorf("kept too long: %q", got)
	}
	if traces, spans := a.Held(); traces != 0 || spans != 0 || a.Dropped() != (Dropped{}) {
		t.Errorf("held %d %d, dropped %+v", traces, spans, a.Dropped())
	}
}

func TestWindowLooksBackSoFarOnly(t *testing.T) {
	a := NewAssembler(AssemblerConfig{})
	for i := range 10 {
		a.Add(after(time.Duration(i)*time.Minute), span(fmt.Sprint("t", i), 1, 5))
	}
	if got := ids(a.Window(after(9*time.Minute+10*time.Second), 3*time.Minute)); got != "t7:1 t8:1 t9:1" {
		t.Errorf("got %q", got)
	}
}

// lengthOf is a random duration whose distribution has a tail, in which the failures sit too.
func lengthOf(random *rand.Rand) (d time.Duration, failed bool) {
	d = time.Duration(math.Exp(3+0.6*random.NormFloat64()) * float64(time.Millisecond))
	return d, random.IntN(100) == 0
}

func TestTheSampleIsBoundedAndItsWeightedQuantilesAreThoseOfAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	a := NewAssembler(AssemblerConfig{MaxSpans: 4000, Keep: time.Hour})
	var all []time.Duration
	fails := 0
	for i := range 40_000 {
		d, failed := lengthOf(random)
		all = append(all, d)
		s := span(fmt.Sprint("t", i), 1, d)
		if s.Failed = failed; failed {
			fails++
		}
		now := after(time.Duration(i) * 10 * time.Millisecond)
		a.Add(now, s, trace.Span{TraceID: s.TraceID, ID: "2", Parent: "1", Service: "db", Name: "query", Start: 1100, End: 1200})
		if _, spans := a.Held(); spans > 4000 {
			t.Fatalf("%d spans are held", spans)
		}
	}
	kept := a.Window(after(time.Hour/2), time.Hour)
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.9, 0.99} {
		want, got := all[int(q*40_000)], weightedQuantile(kept, q)
		if ratio := float64(got) / float64(want); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	total, failed, keptFails := 0.0, 0.0, 0
	for _, tr := range kept {
		total += weightOf(tr)
		if tr.Spans[0].Failed {
			failed += weightOf(tr)
			keptFails++
		}
	}
	if total < 36_000 || total > 44_000 || failed < 0.8*float64(fails) || failed > 1.2*float64(fails) || keptFails < fails/4 {
		t.Errorf("the sample of %d stands for %.0f traces and %.0f failures, of which %d are in it; want 40,000 and %d", len(kept), total, failed, keptFails, fails)
	}
	d := a.Dropped()
	if _, spans := a.Held(); uint64(spans)+d.Spans+d.LateSpans != 80_000 {
		t.Errorf("%d held and %+v do not make 80,000 spans", spans, d)
	}
}

func weightOf(t trace.Trace) float64 {
	if t.Weight == 0 {
		return 1
	}
	return t.Weight
}

func weightedQuantile(traces []trace.Trace, q float64) time.Duration {
	slices.SortFunc(traces, func(a, b trace.Trace) int { return cmp.Compare(a.Spans[0].Duration(), b.Spans[0].Duration()) })
	total := 0.0
	for _, t := range traces {
		total += weightOf(t)
	}
	at := 0.0
	for _, t := range traces {
		if at += weightOf(t); at >= q*total {
			return t.Spans[0].Duration()
		}
	}
	return 0
}

func TestTheSlowAndTheFailedAreKeptLonger(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	a := NewAssembler(AssemblerConfig{MaxSpans: 2000, Keep: time.Hour})
	var rare []string
	for i := range 10_000 {
		s := span(fmt.Sprint("t", i), 1, time.Duration(10+random.IntN(10))*time.Millisecond)
		if i > 1000 && i%100 == 0 {
			s.Failed, s.TraceID = i%200 == 0, "rare-"+s.TraceID
			s.End += int64(time.Second)
			rare = append(rare, s.TraceID)
		}
		a.Add(after(time.Duration(i)*100*time.Millisecond), s)
	}
	held := map[string]bool{}
	for _, tr := range a.Window(after(time.Hour/2), time.Hour) {
		held[tr.ID] = true
	}
	for _, id := range rare {
		if !held[id] {
			t.Errorf("%s was dropped", id)
		}
	}
}

func TestASeldomRouteKeepsItsTracesBesideABusyOne(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 1000, Keep: time.Hour})
	for i := range 20_000 {
		s := span(fmt.Sprint("t", i), 1, time.Millisecond)
		if i%1000 == 0 {
			s.Name = "seldom"
		}
		a.Add(after(time.Duration(i)*50*time.Millisecond), s)
	}
	seldom := 0
	for _, tr := range a.Window(after(time.Hour/2), time.Hour) {
		if tr.Spans[0].Name == "seldom" {
			seldom++
			if tr.Weight != 0 {
				t.Errorf("weight %v", tr.Weight)
			}
		}
	}
	if seldom != 20 {
		t.Errorf("%d of 20 are kept", seldom)
	}
}

func TestTwoAssemblersOfOneSeedKeepTheSameTraces(t *testing.T) {
	sample := func(seed uint64) string {
		a := NewAssembler(AssemblerConfig{MaxSpans: 300, Keep: time.Hour, Seed: seed})
		for i := range 3000 {
			a.Add(after(time.Duration(i)*100*time.Millisecond), span(fmt.Sprint("t", i), 1, time.Millisecond))
		}
		return ids(a.Window(after(time.Hour/2), time.Hour))
	}
	if sample(1) != sample(1) {
		t.Error("one seed gave two samples")
	}
	if sample(1) == sample(2) {
		t.Error("the seed has no say")
	}
}

func TestFloodsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 4<<10)
	for name, flood := range map[string]func(i int) trace.Span{
		"a million operations": func(i int) trace.Span {
			return trace.Span{TraceID: fmt.Sprint(i), ID: "1", Service: fmt.Sprint("s", i%1000), Name: fmt.Sprint("op", i), Start: 1, End: 2}
		},
		"large attributes": func(i int) trace.Span {
			s := span(fmt.Sprint(i), 1, 5)
			for range 64 {
				s.Attributes = append(s.Attributes, trace.Attribute{Key: long, Value: long})
			}
			return s
		},
		"one trace of large spans": func(i int) trace.Span {
			s := span("one", i, 5)
			s.Attributes = []trace.Attribute{{Key: "k", Value: strings.Repeat("y", 4<<10)}}
			return s
		},
		"clocks off by a year": func(i int) trace.Span {
			s := span(fmt.Sprint(i), 1, time.Millisecond)
			s.Start += int64(i%3-1) * int64(365*24*time.Hour)
			s.End += int64(i%3-1) * int64(365*24*time.Hour)
			return s
		},
		"times without a meaning": func(i int) trace.Span {
			return trace.Span{TraceID: fmt.Sprint(i), ID: "1", Service: "s", Name: "n", Start: math.MaxInt64, End: math.MinInt64 + int64(i)}
		},
		"one instant": func(i int) trace.Span { return span(fmt.Sprint(i), 1, 0) },
	} {
		c := AssemblerConfig{MaxSpans: 5000, MaxBytes: 8 << 20}
		a := NewAssembler(c)
		n := 20_000
		if name == "a million operations" {
			n = 100_000
		}
		for i := range n {
			a.Add(after(time.Duration(i)*time.Millisecond), flood(i))
			if u := a.held(); u.spans > c.MaxSpans || u.bytes > c.MaxBytes+1<<19 {
				t.Fatalf("%s: %+v held", name, u)
			}
		}
		if len(a.sampler.all) > maxSampled+1 || len(a.traces) > c.MaxSpans {
			t.Errorf("%s: %d routes, %d traces", name, len(a.sampler.all), len(a.traces))
		}
		_, spans := a.Held()
		if d := a.Dropped(); uint64(spans)+d.Spans+d.LateSpans+d.TraceSpans != uint64(n) {
			t.Errorf("%s: %d held, %+v", name, spans, d)
		}
		if len(a.Window(after(time.Hour/10), time.Hour)) == 0 {
			t.Errorf("%s: nothing is left", name)
		}
	}
}

func TestTheSampleGrowsAgainWhenTheFloodIsOver(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 1000, Keep: time.Minute, QuietPeriod: time.Second})
	for i := range 20_000 {
		a.Add(after(time.Duration(i)*time.Millisecond), span(fmt.Sprint("flood", i), 1, time.Millisecond))
	}
	for i := range 600 {
		a.Add(after(20*time.Second+time.Duration(i)*time.Second), span(fmt.Sprint("calm", i), 1, time.Millisecond))
	}
	last := a.Window(after(621*time.Second), time.Minute)
	for _, tr := range last[len(last)-20:] {
		if tr.Weight != 0 {
			t.Fatalf("%s has weight %v", tr.ID, tr.Weight)
		}
	}
	if len(last) < 50 {
		t.Errorf("%d traces", len(last))
	}
}

func TestRoutesThatAreGoneMakeRoomForNewOnes(t *testing.T) {
	a := NewAssembler(AssemblerConfig{Keep: time.Minute, QuietPeriod: time.Second})
	for i := range maxSampled + 100 {
		s := span(fmt.Sprint(i), 1, 5)
		s.Name = fmt.Sprint("op", i)
		a.Add(after(0), s)
	}
	known := span("x", 1, 5)
	known.Name = "op1"
	a.Add(after(2*time.Second), known)
	if n := a.Dropped().JoinedRoutes; n != 100 {
		t.Errorf("%d traces of joined routes", n)
	}
	a.Add(after(2*time.Minute), span("y", 1, 5))
	a.Window(after(122*time.Second), time.Minute)
	if a.Dropped().JoinedRoutes != 100 || len(a.sampler.all) != 1 {
		t.Errorf("%+v, %d routes", a.Dropped(), len(a.sampler.all))
	}
}

func TestALateRootNamesItsRoute(t *testing.T) {
	a := NewAssembler(AssemblerConfig{})
	child := span("one", 2, time.Millisecond)
	child.Parent, child.Name = "1", "child"
	a.Add(after(0), child)
	a.Add(after(6*time.Second), span("other", 1, 1))
	a.Add(after(7*time.Second), span("one", 1, time.Second))
	if got := ids(a.Window(after(12*time.Second), time.Hour)); got != "one:2 other:1" {
		t.Errorf("got %q", got)
	}
	if r := a.traces["one"].route; r != a.sampler.routes[routeName{"svc", "op"}] {
		t.Error("the trace is of its child's route")
	}
}

func TestLogsStandBesideTheirTrace(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 100})
	a.AddLogs(after(0), trace.Log{TraceID: "one", Body: "early"}, trace.Log{Body: "of no trace"}, trace.Log{TraceID: "never", Body: "x"})
	a.Add(after(6*time.Second), span("one", 1, 5))
	for i := range 100 {
		a.AddLogs(after(7*time.Second), trace.Log{TraceID: "one", Body: fmt.Sprint(i)})
	}
	w := a.Window(after(time.Minute), time.Hour)
	if len(w) != 1 || len(w[0].Logs) != maxLogs || w[0].Logs[0].Body != "early" || a.Dropped().Logs != 37 {
		t.Errorf("%+v, %+v", w, a.Dropped())
	}
	a.Add(after(16*time.Minute), span("two", 1, 5))
	if _, ok := a.traces["never"]; ok {
		t.Error("a log waits for ever")
	}
}

func TestSpansOfDroppedTracesMakeNoNewOnes(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 100, Keep: time.Hour})
	for i := range 200 {
		a.Add(after(0), span(fmt.Sprint("t", i), 1, 5))
	}
	dropped := a.Dropped()
	for i := range 200 {
		a.Add(after(time.Second), span(fmt.Sprint("t", i), 2, 5))
	}
	if late := a.Dropped().LateSpans; late < dropped.Traces {
		t.Errorf("%d late spans after %d traces were dropped", late, dropped.Traces)
	}
}

func TestOneEndlessTraceIsCut(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 1000, MaxTraceSpans: 50})
	for i := range 5000 {
		a.Add(after(0), span("endless", i, 5))
	}
	if got := ids(a.Window(after(time.Minute), time.Hour)); got != "endless:50" || a.Dropped().TraceSpans != 4950 {
		t.Errorf("got %q, %+v", got, a.Dropped())
	}
}

func TestBytesAreBoundedToo(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxBytes: 1 << 20})
	for i := range 1000 {
		s := span(fmt.Sprint("t", i), 1, 5)
		s.Attributes = []trace.Attribute{{Key: "k", Value: strings.Repeat("x", 4000)}}
		a.Add(after(0), s)
	}
	if traces, _ := a.Held(); traces < 150 || traces > 260 {
		t.Errorf("%d traces of 4 KB are held in 1 MiB", traces)
	}
}

func TestAssemblerIsSafeForConcurrentUse(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 500})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				a.Add(after(time.Duration(i)*time.Second), span(fmt.Sprint("t", g, "-", i/2), i, 5))
				if i%100 == 0 {
					for _, tr := range a.Window(after(time.Duration(i)*time.Second), time.Hour) {
						tr.Spans[0].Name = "mine"
					}
				}
			}
		})
	}
	wg.Wait()
	if _, spans := a.Held(); spans > 500 {
		t.Errorf("%d spans", spans)
	}
}

func TestReceiverFeedsAssembler(t *testing.T) {
	a := NewAssembler(AssemblerConfig{})
	r := NewReceiver(Sinks{Spans: func(spans []trace.Span) int { a.Add(after(0), spans...); return 0 }})
	if _, refused := r.accept(otlpTraces, []byte(otlpJSON), true); refused != nil {
		t.Fatal(refused)
	}
	if got := ids(a.Window(after(time.Minute), time.Hour)); got != "t1:2" {
		t.Errorf("got %q", got)
	}
}

func TestMemoryOfDroppedTracesIsBounded(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 8000})
	for i := range maxGone + 30_000 {
		a.Add(after(0), span(fmt.Sprint(i), 1, 5))
	}
	if len(a.gone.set) != maxGone || len(a.gone.ring) != maxGone {
		t.Errorf("%d and %d dropped traces are remembered, want %d", len(a.gone.set), len(a.gone.ring), maxGone)
	}
}

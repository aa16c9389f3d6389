package ingest

import (
	"fmt"
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

func TestMemoryIsBoundedAndWhatStaysIsAFairPicture(t *testing.T) {
	a := NewAssembler(AssemblerConfig{MaxSpans: 800, Keep: time.Hour})
	for i := range 10_000 {
		kind := "fast"
		if i%10 == 7 { // one of ten is slow, and must be one of ten afterwards
			kind = "slow"
		}
		s := span(fmt.Sprint(kind, i), 1, time.Millisecond)
		if kind == "slow" {
			s.Failed, s.End = true, int64(time.Second)
		}
		a.Add(after(time.Duration(i)*time.Millisecond), s, trace.Span{TraceID: s.TraceID, ID: "2", Parent: "1", Service: "db", Name: "query", Start: 1100, End: 1200})
		if _, spans := a.Held(); spans > 800 {
			t.Fatalf("%d spans are held", spans)
		}
	}
	kinds := map[string]int{}
	kept := a.Window(after(time.Minute), time.Hour)
	for i, tr := range kept {
		kinds[strings.TrimRight(tr.ID, "0123456789")]++
		if want := 10_000 - len(kept) + i; !strings.HasSuffix(tr.ID, fmt.Sprint(want)) || len(tr.Spans) != 2 {
			t.Fatalf("trace %d is %s with %d spans, want number %d: the newest stay, whole", i, tr.ID, len(tr.Spans), want)
		}
	}
	if n := len(kept); n < 300 || kinds["slow"] < n/10-1 || kinds["slow"] > n/10+1 {
		t.Errorf("kept %v of %d", kinds, n)
	}
	d := a.Dropped()
	if _, spans := a.Held(); uint64(spans)+d.Spans+d.LateSpans != 20_000 {
		t.Errorf("%d held and %+v do not make 20,000 spans", spans, d)
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
	r := NewReceiver(func(spans []trace.Span) int { a.Add(after(0), spans...); return 0 })
	if _, refused := r.accept([]byte(otlpJSON), true); refused != nil {
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
	if len(a.gone) != maxGone || len(a.goneLog) != maxGone {
		t.Errorf("%d and %d dropped traces are remembered, want %d", len(a.gone), len(a.goneLog), maxGone)
	}
}

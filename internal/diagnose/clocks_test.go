package diagnose_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// hop is a trace in which host a calls host b, whose clock shows skew more, and b sends a message to host c. took is
// how long the call takes, and each way over the network a part of it.
func hop(i int, took, way, skew time.Duration) trace.Trace {
	id := fmt.Sprint("t", i)
	at := int64(i) * 1_000_007_919 // not on a whole millisecond, which would be a step
	span := func(name, parent string, kind trace.Kind, host string, start, end time.Duration) trace.Span {
		return trace.Span{
			TraceID: id, ID: name, Parent: parent, Kind: kind, Service: host, Name: name, Host: host,
			Start: at + int64(start), End: at + int64(end),
		}
	}
	return trace.Trace{ID: id, Spans: []trace.Span{
		span("call", "", trace.Client, "a", 0, took),
		span("serve", "call", trace.Server, "b", way+skew, took-way+skew),
	}}
}

func clockOf(t *testing.T, r diagnose.Report, host, reference string) diagnose.ClockModel {
	t.Helper()
	for _, c := range r.Clocks {
		if c.Host == host && c.Reference == reference {
			return c
		}
	}
	t.Fatalf("no clock of %s by %s in %+v", host, reference, r.Clocks)
	return diagnose.ClockModel{}
}

func TestOffsetOfTwoClocksIsFoundOverManyTraces(t *testing.T) {
	for _, skew := range []time.Duration{0, 3 * time.Millisecond, -40 * time.Millisecond, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			var traces []trace.Trace
			for i := range 200 {
				way := 100*time.Microsecond + time.Duration(r.IntN(2_000_001))
				traces = append(traces, hop(i, 2*way+time.Duration(r.IntN(10_000_001)), way, skew))
			}
			c := clockOf(t, diagnose.Run(traces, diagnose.Options{}), "b", "a")
			off := time.Duration(c.OffsetMS*1e6) - skew
			if off.Abs() > time.Duration(c.SpreadMS*1e6)+1 || c.SpreadMS > 0.5 {
				t.Errorf("%v plus or minus %v ms, want %v", c.OffsetMS, c.SpreadMS, skew)
			}
			if c.Corrected != (skew != 0) || !c.Steady || c.Samples != 200 {
				t.Errorf("%+v", c)
			}
			for _, tree := range diagnose.Trees(traces, diagnose.ClockOptions{}) {
				if skew != 0 && (time.Duration(tree.Skew(1))+skew).Abs() > 500*time.Microsecond || skew == 0 && tree.Skew(1) != 0 {
					t.Fatalf("trace %s: the server's span was moved by %v", tree.ID, time.Duration(tree.Skew(1)))
				}
			}
		})
	}
}

func TestClockThatJumpsIsNotSteady(t *testing.T) {
	var traces []trace.Trace
	for i := range 100 {
		traces = append(traces, hop(i, 10*time.Millisecond, time.Millisecond, time.Duration(i)*20*time.Millisecond))
	}
	if c := clockOf(t, diagnose.Run(traces, diagnose.Options{}), "b", "a"); c.Steady || c.Corrected {
		t.Errorf("%+v", c)
	}
	for i, tree := range diagnose.Trees(traces, diagnose.ClockOptions{}) {
		if want := -time.Duration(i) * 20 * time.Millisecond; i > 0 && time.Duration(tree.Skew(1)) != want {
			t.Errorf("trace %d: moved by %v, want %v by its own times", i, time.Duration(tree.Skew(1)), want)
		}
	}
}

func TestCallerThatGaveUpIsNoSkewWhereTheClocksAreKnown(t *testing.T) {
	var traces []trace.Trace
	for i := range 50 {
		traces = append(traces, hop(i, 10*time.Millisecond, time.Millisecond, 0))
	}
	late := hop(50, 10*time.Millisecond, time.Millisecond, 0)
	late.Spans[1].Start, late.Spans[1].End = late.Spans[1].Start+int64(6*time.Millisecond), late.Spans[1].End+int64(6*time.Millisecond)
	if alone := diagnose.Build(late, diagnose.ClockOptions{}); alone.Skew(1) == 0 {
		t.Fatal("alone it looks like skew")
	}
	trees := diagnose.Trees(append(traces, late), diagnose.ClockOptions{})
	if got := trees[50].Skew(1); got != 0 {
		t.Errorf("moved by %v", time.Duration(got))
	}
}

func TestStepOfEachClockIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var traces []trace.Trace
	for i := range 40 {
		tr := hop(i, time.Duration(20_000_000+r.IntN(10_000_000)), 2*time.Millisecond, 0)
		for j := range tr.Spans {
			s, step := &tr.Spans[j], int64(time.Microsecond)
			if s.Host == "b" {
				step = int64(time.Millisecond)
			}
			s.Start, s.End = s.Start/step*step, s.End/step*step
		}
		traces = append(traces, tr)
	}
	report := diagnose.Run(traces, diagnose.Options{})
	for host, want := range map[string]float64{"a": 0.001, "b": 1} {
		if c := clockOf(t, report, host, ""); c.GranularityMS != want || c.Samples != 40 {
			t.Errorf("%s: %+v, want a step of %v ms", host, c, want)
		}
	}
	if c := clockOf(t, report, "b", "a"); c.GranularityMS != 1 {
		t.Errorf("of both: %+v", c)
	}
}

func TestClocksAreBounded(t *testing.T) {
	var traces []trace.Trace
	for i := range 6000 {
		tr := hop(i, 10*time.Millisecond, time.Millisecond, 0)
		tr.Spans[1].Host = fmt.Sprint("host", i)
		traces = append(traces, tr)
	}
	r := diagnose.Run(traces, diagnose.Options{})
	if len(r.Clocks) > 100 || r.ClocksCut < 4000 {
		t.Errorf("%d clocks, %d cut", len(r.Clocks), r.ClocksCut)
	}
}

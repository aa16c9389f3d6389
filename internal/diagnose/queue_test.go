package diagnose

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// messages is n traces that send a message, which waits as long as wait tells, ms, and is worked on for 5 ms, 3 of them
// in a database.
func messages(t *testing.T, n int, wait func(i int) int) []trace.Trace {
	t.Helper()
	return many(t, n, func(i int) string {
		at := 10 + wait(i)
		return fmt.Sprintf(`
			order 0ms 20ms service=shop kind=server
			  "orders send" 8ms 10ms kind=producer messaging.system=kafka messaging.destination.name=orders
			    "orders process" %dms %dms service=mailer kind=consumer messaging.system=kafka messaging.destination.name=orders
			      "SELECT a" %dms %dms service=mailer kind=client db.system=mysql`, at, at+5, at+1, at+4)
	})
}

func TestQueueWaitIsListedByDestination(t *testing.T) {
	r := Run(messages(t, 100, func(i int) int { return i + 1 }), Options{}).Routes[0]
	if len(r.Queues) != 1 {
		t.Fatalf("%+v", r.Queues)
	}
	want := Queue{System: "kafka", Destination: "orders", Messages: 100, WaitMS: Spread{P50: 50, P99: 99, Max: 100}, From: "spans"}
	if r.Queues[0] != want {
		t.Errorf("got %+v, want %+v", r.Queues[0], want)
	}
}

func TestDetachedWorkHasAPathOfItsOwn(t *testing.T) {
	r := Run(messages(t, 100, func(int) int { return 30 }), Options{}).Routes[0]
	if r.Latency.Max != 20 {
		t.Errorf("the request takes %v ms, which the message is no part of", r.Latency.Max)
	}
	if len(r.Async) != 1 {
		t.Fatalf("%+v", r.Async)
	}
	a := r.Async[0]
	if a.Why != "message" || a.Service != "mailer" || a.Operation != "orders process" || a.Count != 100 || a.WaitMS.P50 != 30 || a.DurationMS.P99 != 5 {
		t.Errorf("%+v", a)
	}
	if len(a.Path) != 2 || a.Path[0].Segment != trace.SegDatabase || a.Path[0].Share != 0.6 || a.Path[0].CriticalMS != 3 || a.Path[1].Share != 0.4 {
		t.Errorf("%+v", a.Path)
	}
}

func TestQueueWaitIsCorrectedForSkew(t *testing.T) {
	// The mailer's clock is 1 s ahead, which calls from the shop show; its messages alone would not.
	traces := messages(t, 50, func(int) int { return 7 })
	for i := range traces {
		tr := &traces[i]
		for j := range tr.Spans {
			tr.Spans[j].Host = tr.Spans[j].Service
		}
		call := tr.Spans[0]
		call.ID, call.Parent, call.Name, call.Kind, call.Start, call.End = "call", tr.Spans[0].ID, "ping", trace.Client, call.Start+int64(time.Millisecond), call.Start+int64(2*time.Millisecond)
		serve := call
		serve.ID, serve.Parent, serve.Name, serve.Kind, serve.Service, serve.Host = "serve", "call", "pong", trace.Server, "mailer", "mailer"
		tr.Spans = append(tr.Spans, call, serve)
		for j := range tr.Spans {
			if s := &tr.Spans[j]; s.Host == "mailer" {
				s.Start, s.End = s.Start+int64(time.Second), s.End+int64(time.Second)
			}
		}
	}
	r := Run(traces, Options{}).Routes[0]
	if len(r.Queues) != 1 || math.Abs(r.Queues[0].WaitMS.P50-7) > 0.05 || math.Abs(r.Queues[0].WaitMS.P99-7) > 0.05 {
		t.Errorf("%+v", r.Queues)
	}
}

func TestQueueWaitOfConsumersWithoutProducersIsSinceTheyWereEnqueued(t *testing.T) {
	traces := many(t, 10, func(i int) string {
		return fmt.Sprintf(`"orders process" 500ms 600ms kind=consumer messaging.system=servicebus messaging.servicebus.message.enqueued_time=%d`, 1_700_000_000+i)
	})
	for i := range traces {
		s := &traces[i].Spans[0]
		s.Start, s.End = s.Start+1_700_000_000e9, s.End+1_700_000_000e9
	}
	q := Run(traces, Options{}).Routes[0].Queues
	if len(q) != 1 || q[0].Destination != "orders" || q[0].From != "enqueued_time" || q[0].WaitMS.P50 != 500 || q[0].Messages != 10 {
		t.Errorf("%+v", q)
	}
}

func TestInstantsAreReadInAnyUnit(t *testing.T) {
	for _, text := range []string{"1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "2023-11-14T22:13:20Z"} {
		if got, ok := instant(text); !ok || got != 1_700_000_000e9 {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "soon", "NaN", "Inf", "-5", "12", "1e300"} {
		if got, ok := instant(text); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestIncompleteTracesAreAccountedFor(t *testing.T) {
	traces := many(t, 10, func(i int) string {
		switch i {
		case 0: // its root is lost
			return "get 0ms 100ms id=r parent=lost"
		case 1: // so is the span between
			return "get 0ms 100ms id=r\nb 10ms 20ms id=b parent=lost\n  c 11ms 12ms id=c"
		case 2: // two spans miss the same root
			return "a 0ms 10ms parent=lost\nb 3ms 5ms parent=lost"
		}
		return "get 0ms 100ms\n  b 10ms 20ms"
	})
	r := Run(traces, Options{})
	in := r.Input
	if in.IncompleteTraces != 3 || in.OrphanSpans != 4 || in.SyntheticRoots != 1 || in.Spans != 21 || in.Coverage != 19.0/21 {
		t.Errorf("%+v", in)
	}
	for _, route := range r.Routes {
		want := [2]float64{2, 18.0 - 2 - 0}
		if route.Operation != "get" {
			want = [2]float64{1, 1}
		} else {
			want[1] = 16.0 / 18
		}
		if float64(route.Incomplete) != want[0] || route.Coverage != want[1] {
			t.Errorf("%s: %d incomplete, coverage %v, want %v", route.Operation, route.Incomplete, route.Coverage, want)
		}
	}
}

package diagnose

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// linkedMessages is n traces that send a message each, and as many of a mailer that works on one for 5 ms, 3 of them in a
// database, after a wait as long as wait tells, ms.
func linkedMessages(t *testing.T, n int, wait func(i int) int) []trace.Trace {
	t.Helper()
	sent := many(t, n, func(int) string {
		return `
			order 0ms 20ms service=shop kind=server
			  "orders send" 8ms 10ms id=send kind=producer messaging.system=kafka messaging.destination.name=orders`
	})
	got := many(t, n, func(i int) string {
		at := 10 + wait(i)
		return fmt.Sprintf(`
			"orders process" %dms %dms service=mailer kind=consumer link=%s/send messaging.system=kafka messaging.destination.name=orders
			  "SELECT a" %dms %dms service=mailer kind=client db.system=mysql`, at, at+5, sent[i].ID, at+1, at+4)
	})
	for i := range got {
		got[i].ID = "got" + got[i].ID
		for k := range got[i].Spans {
			got[i].Spans[k].TraceID = got[i].ID
		}
	}
	return append(sent, got...)
}

func route(t *testing.T, r Report, service string) Route {
	t.Helper()
	i := slices.IndexFunc(r.Routes, func(x Route) bool { return x.Service == service })
	if i < 0 {
		t.Fatalf("no route of %s in %+v", service, r.Routes)
	}
	return r.Routes[i]
}

func TestAConsumerInATraceOfItsOwnIsWhatHappenedAfter(t *testing.T) {
	r := Run(linkedMessages(t, 100, func(i int) int { return i + 1 }), Options{})
	shop, mailer := route(t, r, "shop"), route(t, r, "mailer")
	if shop.Latency.Max != 20 || mailer.Latency.Max != 5 {
		t.Errorf("the request takes %v ms and the mailer %v ms: neither is part of the other", shop.Latency.Max, mailer.Latency.Max)
	}
	for _, s := range shop.Segments {
		if s.Service == "mailer" {
			t.Errorf("the consumer is on the critical path of the producer: %+v", s)
		}
	}
	if len(shop.Async) != 1 {
		t.Fatalf("%+v", shop.Async)
	}
	a := shop.Async[0]
	if a.Why != "linked" || a.Service != "mailer" || a.Operation != "orders process" || a.Count != 100 || a.WaitMS.P50 != 50 || a.DurationMS.P99 != 5 ||
		len(a.Path) != 2 || a.Path[0].Segment != trace.SegDatabase || a.Path[0].CriticalMS != 3 {
		t.Errorf("%+v", a)
	}
	want := Queue{System: "kafka", Destination: "orders", Messages: 100, WaitMS: Spread{P50: 50, P99: 99, Max: 100}, From: "spans"}
	for _, x := range []Route{shop, mailer} {
		if len(x.Queues) != 1 || x.Queues[0] != want {
			t.Errorf("%s: got %+v, want %+v", x.Service, x.Queues, want)
		}
	}
}

func TestABatchWaitsOnceForEachOfItsMessages(t *testing.T) {
	sent := many(t, 4, func(i int) string {
		return `order 0ms 20ms kind=server
		          "orders publish" 8ms 10ms id=send kind=producer`
	})
	start := sent[0].Spans[0].Start
	batch := trace.Span{TraceID: "batch", ID: "1", Kind: trace.Consumer, Service: "mailer", Name: "orders process", Start: start + 60e6, End: start + 80e6}
	for i := range sent {
		for k := range sent[i].Spans {
			s := &sent[i].Spans[k]
			s.Start, s.End = s.Start-int64(i)*990e6, s.End-int64(i)*990e6 // 10 ms apart, rather than 1 s
		}
		batch.Link = &trace.Link{TraceID: sent[i].ID, SpanID: "send", Next: batch.Link}
	}
	batch.Link = &trace.Link{TraceID: "elsewhere", SpanID: "lost", Next: batch.Link}
	r := Run(append(sent, trace.Trace{ID: "batch", Spans: []trace.Span{batch}}), Options{})
	if q := route(t, r, "mailer").Queues; len(q) != 1 || q[0].Messages != 4 || q[0].WaitMS.Max != 50 || q[0].WaitMS.P50 != 30 {
		t.Errorf("%+v", q)
	}
	if a := route(t, r, "svc").Async; len(a) != 1 || a[0].Count != 4 || a[0].DurationMS.P50 != 20 {
		t.Errorf("%+v", a)
	}
}

// A request that comes in from a network that is not trusted begins a trace of its own, linked to the caller who waits for it.
func TestALinkOfWhatIsNoConsumerTellsOfNoMessage(t *testing.T) {
	traces := many(t, 10, func(i int) string { return "get 0ms 10ms kind=client id=c" })
	traces = append(traces, trace.Trace{ID: "served", Spans: []trace.Span{{
		TraceID: "served", ID: "s", Kind: trace.Server, Service: "api", Name: "get", Start: traces[0].Spans[0].Start, End: traces[0].Spans[0].End,
		Link: &trace.Link{TraceID: traces[0].ID, SpanID: "c"},
	}}})
	for _, x := range Run(traces, Options{}).Routes {
		if len(x.Async)+len(x.Queues) > 0 {
			t.Errorf("%s: %+v %+v", x.Service, x.Async, x.Queues)
		}
	}
}

func TestALinkToTheRequestThatMadeAMessageTellsNoWait(t *testing.T) {
	traces := many(t, 10, func(i int) string { return "order 0ms 10ms kind=server id=o" })
	traces = append(traces, trace.Trace{ID: "mail", Spans: []trace.Span{{
		TraceID: "mail", ID: "s", Kind: trace.Consumer, Service: "mailer", Name: "orders process", Start: traces[0].Spans[0].Start, End: traces[0].Spans[0].End,
		Link: &trace.Link{TraceID: traces[0].ID, SpanID: "o"},
	}}})
	r := Run(traces, Options{})
	if x := route(t, r, "svc"); len(x.Async) != 1 || x.Async[0].Why != "linked" || len(x.Queues) != 0 {
		t.Errorf("%+v %+v", x.Async, x.Queues)
	}
}

func TestLinkedMessagesThatWaitForLongAreFound(t *testing.T) {
	r := Run(linkedMessages(t, 50, func(i int) int { return 2000 + 100*i }), Options{})
	if f := route(t, r, "mailer").Findings; !slices.ContainsFunc(f, func(x Finding) bool { return x.Code == "LP107" && x.Detail.Variant == "message" }) {
		t.Errorf("%+v", f)
	}
}

// A batch that one span sent is linked to that span once for each message of it.
func TestABatchThatOneSpanSentIsWorkedOnOnce(t *testing.T) {
	traces := linkedMessages(t, 20, func(int) int { return 10 })
	for i := range traces[20:] {
		s := &traces[20+i].Spans[0]
		first := *s.Link
		for range 4 {
			s.Link = &trace.Link{TraceID: first.TraceID, SpanID: first.SpanID, Next: s.Link}
		}
	}
	r := Run(traces, Options{})
	shop, mailer := route(t, r, "shop"), route(t, r, "mailer")
	if len(shop.Async) != 1 || shop.Async[0].Count != 20 || shop.Queues[0].Messages != 20 || mailer.Queues[0].Messages != 20 {
		t.Errorf("%+v %+v %+v, want 20 of each", shop.Async, shop.Queues, mailer.Queues)
	}
}

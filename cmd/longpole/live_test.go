package main

import (
	"testing"
	"time"

	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

func parsed(t *testing.T, id string, weight float64, text string) trace.Trace {
	t.Helper()
	one, err := trace.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	one.ID, one.Weight = id, weight
	for i := range one.Spans {
		one.Spans[i].TraceID = id
	}
	return one
}

const throughGateway = `orders 0ms 100ms service=longpole-gateway kind=server longpole.segment=gateway
  GET 10ms 90ms kind=client service=longpole-gateway longpole.endpoint=a:1
    get 20ms 80ms service=shop kind=server host=shop-1
      db 30ms 70ms kind=client service=shop db.system=postgresql server.address=pg
`

func TestLiveTracesAreCountedByRouteSegmentAndEndpoint(t *testing.T) {
	list := []trace.Trace{
		parsed(t, "a", 4, throughGateway),
		parsed(t, "b", 0, "checkout 0ms 50ms service=web kind=server host=web-1 failed\n"),
	}
	start := time.Unix(1_800_000_000, 0)
	r := newRecorder(func(time.Time, time.Duration) []trace.Trace { return list }, time.Second, start)
	rollups, kept := r.step(start.Add(keepEvery), func() {})
	got := map[store.Series]store.Rollup{}
	for _, u := range rollups {
		got[u.Series] = u
	}
	for want, is := range map[store.Series]struct {
		calls, failed uint64
		p50           time.Duration
	}{
		{Route: "orders", Segment: "gateway"}:                               {4, 0, 20 * time.Millisecond},
		{Route: "orders", Segment: "network"}:                               {4, 0, 20 * time.Millisecond},
		{Route: "orders", Segment: "network", Endpoint: "shop a:1"}:         {4, 0, 20 * time.Millisecond},
		{Route: "orders", Segment: "service", Endpoint: "shop shop-1"}:      {4, 0, 20 * time.Millisecond},
		{Route: "orders", Segment: "database"}:                              {4, 0, 40 * time.Millisecond},
		{Route: "orders", Segment: "database", Endpoint: "shop pg"}:         {4, 0, 40 * time.Millisecond},
		{Route: "web checkout"}:                                             {1, 1, 50 * time.Millisecond},
		{Route: "web checkout", Segment: "service"}:                         {1, 1, 50 * time.Millisecond},
		{Route: "web checkout", Segment: "service", Endpoint: "web web-1"}:  {1, 1, 50 * time.Millisecond},
		{Route: "orders", Segment: "service"}:                               {4, 0, 20 * time.Millisecond},
		{Route: "orders", Segment: "gateway", Endpoint: "longpole-gateway"}: {4, 0, 20 * time.Millisecond},
	} {
		u := got[want]
		if u.Calls != is.calls || u.Failed != is.failed || u.Latency.Quantile(0.5).Round(time.Millisecond) != is.p50 {
			t.Errorf("%+v: %d calls, %d failed, p50 %v; want %+v", want, u.Calls, u.Failed, u.Latency.Quantile(0.5), is)
		}
		delete(got, want)
	}
	if len(got) != 0 {
		t.Errorf("and %v", got)
	}
	if len(kept) != 2 || kept[0].Route != "orders" || kept[0].Failed || kept[1].Route != "web checkout" || !kept[1].Failed {
		t.Errorf("kept %+v", kept)
	}
	if rollups, kept = r.step(start.Add(2*keepEvery), func() {}); len(rollups)+len(kept) != 0 {
		t.Errorf("the same traces count twice: %v", rollups)
	}
}

func TestSeriesOfLiveTracesAreBounded(t *testing.T) {
	var list []trace.Trace
	one := parsed(t, "x", 0, "op 0ms 50ms service=web kind=server\n")
	for i := range 3 * mostLive {
		next := one
		next.ID = "x" + time.Duration(i).String()
		next.Spans = []trace.Span{one.Spans[0]}
		next.Spans[0].Name = next.ID
		list = append(list, next)
	}
	start := time.Unix(1_800_000_000, 0)
	r := newRecorder(func(time.Time, time.Duration) []trace.Trace { return list }, time.Second, start)
	rollups, _ := r.step(start.Add(keepEvery), func() {})
	if len(rollups) > mostLive+10 || r.lumped == 0 {
		t.Errorf("%d series, %d lumped", len(rollups), r.lumped)
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

func TestReportIsShownInAlignedTables(t *testing.T) {
	bands := func(p50, p95, p99 float64) diagnose.Bands { return diagnose.Bands{P50: p50, P95: p95, P99: p99} }
	r := advise.Report{Report: diagnose.Report{
		Input: diagnose.Input{
			Traces: 1000, Spans: 8000, IncompleteTraces: 20, SyntheticRoots: 1, OrphanSpans: 40, Coverage: 0.9, Represented: 50_000,
		},
		Clocks: []diagnose.ClockModel{
			{Host: "b", Reference: "a", OffsetMS: -3.2, SpreadMS: 0.1, GranularityMS: 0.001, Samples: 400, Steady: true, Corrected: true},
			{Host: "d", Reference: "c", OffsetMS: 9, SpreadMS: 1, GranularityMS: 1, ToleranceMS: 1, Samples: 300},
			{Host: "fine", Reference: "a", OffsetMS: 0.01, SpreadMS: 0.1, Samples: 400, Steady: true},
			{Host: "few", Reference: "a", OffsetMS: 10, Samples: 2},
			{Host: "alone", GranularityMS: 1, Samples: 4000, Steady: true},
		},
		Orders: diagnose.Orders{Dropped: 2},
	}}
	r.Routes = []advise.Route{{Route: diagnose.Route{
		Service: "shop", Operation: "GET /cart", Traces: 1000, Errors: 3, Incomplete: 20, Coverage: 0.9,
		Segments: []diagnose.Segment{{
			Segment: trace.SegDatabase, Service: "cart", Operation: "SELECT items",
			Share: bands(0.2, 0.5, 0.9), CriticalMS: bands(2, 10, 90), DragMS: bands(1, 5, 45),
		}},
		Differences: []diagnose.Difference{{Service: "cart", Key: "tenant", Value: "t7", SlowShare: 0.9, HealthyShare: 0.05, ExcessMS: 80, P: 3e-20, Also: []string{"cart x=y"}}},
		Queues:      []diagnose.Queue{{System: "kafka", Destination: "orders", Messages: 7, WaitMS: diagnose.Spread{P50: 1, P99: 20, Max: 30}, From: "spans"}},
		Async: []diagnose.AsyncPath{{
			Why: "message", Service: "mailer", Operation: "orders process", Count: 7, DurationMS: diagnose.Spread{P50: 5, P99: 9},
			Path: []diagnose.AsyncOnPath{{Segment: trace.SegCache, Service: "mailer", Operation: "GET", Share: 0.75}},
		}},
	}}}
	var out strings.Builder
	if err := renderReport(&out, r, shown{}); err != nil {
		t.Fatal(err)
	}
	want := `1000 traces, 8000 spans, 20 incomplete traces, 1 missing root made up, 40 spans without parent, sampled: they stand for 50000 traces, 90 % of the spans hang on their trace's root, the others are in no figure

Clocks that differ
  CLOCK OF  LESS THAT OF  OFFSET MS  +- MS  STEP  CALLS
  b         a                 -3.20   0.10   1µs    400  corrected
  d         c                 +9.00   1.00   1ms    300  not steady: each trace by itself
2 orders of calls seen in one trace and falsified by others: neither waits for the other

shop  GET /cart   1000 traces (2 % incomplete), 3 errors
  p50 0.00   p90 0.00   p95 0.00   p99 0.00   p99.9 0.00   max 0.00 ms
  SEGMENT   SERVICE  OPERATION     P50 BAND           P95 BAND           P99 BAND              DRAG  SLOW-TYPICAL
  database  cart     SELECT items      20 %  2.00 ms      50 %  10.0 ms      90 %  90.0 ms  45.0 ms      +88.0 ms  ██████████████████
  SLOW TRACES HAVE        OF    SLOW  OTHERS    EXCESS  CHANCE
  tenant = t7 and 1 more  cart  90 %     5 %  +80.0 ms   3e-20
  WAIT IN QUEUE  SYSTEM  MESSAGES      P50      P99      MAX  BY
  orders         kafka          7  1.00 ms  20.0 ms  30.0 ms  spans
  NOT WAITED FOR  OPERATION       WHY      TIMES      P50      P99  MOSTLY
  mailer          orders process  message      7  5.00 ms  9.00 ms  cache mailer GET 75 %
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/trace"
)

func made(study string, forecast, after float64) result {
	interval := [2]float64{0.9 * forecast, 1.1 * forecast}
	return result{
		Study: study, Change: "batch", Rate: 5, After: advise.Predicted{P50: after, P95: after, P99: after},
		Forecast: advise.Effect{
			Before: advise.Predicted{P50: 100, P95: 100, P99: 100}, Predicted: advise.Predicted{P50: forecast, P95: forecast, P99: forecast},
			Interval: advise.Interval{P50: interval, P95: interval, P99: interval},
		},
	}
}

func TestTheReportTellsErrorsCoverageAndClaims(t *testing.T) {
	silent := made("quiet", 0, 0)
	silent.Why = "no forecast: too few calls"
	beside, claimed := made("beside", 100, 101), made("claimed", 80, 100)
	beside.Aside, claimed.Aside = true, true
	var out strings.Builder
	report(&out, []result{made("near", 50, 52), made("far", 50, 80), silent, beside, claimed}, time.Minute)
	for _, want := range []string{
		"| near | batch | 5 | 100, 50, 52 |", "| batch | 2 | 1 | 34 % |", "median error over all runs and quantiles 20.7 %", "interval 50.0 % of 6",
		"off the critical path: 2 runs, 1 with a gain claimed (wanted: 0), greatest gain forecast 20.00 %; 3 of 6",
		"no forecast: quiet at 5/s: no forecast: too few calls",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestQuantilesAreOfTheClientsSpansAlone(t *testing.T) {
	var all []trace.Trace
	for i := range int64(100) {
		all = append(all, trace.Trace{Spans: []trace.Span{
			{ID: "1", Service: "client", Name: "GET /a/get", End: (i + 1) * 1e6}, {ID: "2", Parent: "1", Service: "client", Name: "GET /a/get", End: 1},
		}})
	}
	got, calls := quantiles(all, "client", "GET /a/get")
	if want := (advise.Predicted{P50: 50, P95: 95, P99: 99}); got != want || calls != 100 {
		t.Errorf("%+v of %d calls, want %+v of 100", got, calls, want)
	}
}

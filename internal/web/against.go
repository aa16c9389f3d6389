package web

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

// The bounds of a comparison of two times, which shares its cores with the calls.
const (
	mostCompared    = 1000 // kept traces of each time, the newest
	mostSeries      = 200  // histograms in the answer, those that differ most
	comparedWindow  = 15 * time.Minute
	longestCompared = 24 * time.Hour
)

// Compare diagnoses traces beside those of an earlier time; ok is false while another comparison is under way.
type Compare func(now, before []trace.Trace) (report advise.Report, ok bool)

// times are the two windows that are compared.
type times struct {
	From           time.Time `json:"from"`
	To             time.Time `json:"to"`
	BaselineFrom   time.Time `json:"baseline_from"`
	BaselineTo     time.Time `json:"baseline_to"`
	Traces         int       `json:"traces"`          // kept ones that were compared
	BaselineTraces int       `json:"baseline_traces"` //
}

// comparedSeries is the histogram of a route, or of a segment of its critical path, in both times.
type comparedSeries struct {
	store.Series
	Before comparedSum `json:"before"`
	Now    comparedSum `json:"now"`
}

// comparedSum is what stands in a series over a time.
type comparedSum struct {
	Calls     uint64            `json:"calls"`
	Failed    uint64            `json:"failed"`
	LatencyMS gateway.Quantiles `json:"latency_ms"`
	latency   stats.Snapshot
}

// comparison is the answer: the report of the kept traces, and the histograms, which are of all calls.
type comparison struct {
	times
	Series []comparedSeries `json:"series"`
	advise.Report
}

// against compares the traces and histograms of ?from= to ?to=, default the last quarter of an hour, with those of a time as long
// that began ?baseline= earlier, or at that time.
func (a *admin) against(w http.ResponseWriter, r *http.Request) {
	if !a.keepsTraces(w) {
		return
	}
	t, err := timesOf(r, time.Now())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if a.Live.Compare == nil {
		writeError(w, http.StatusNotFound, "this server diagnoses no traces")
		return
	}
	now, err := a.Store.Traces(r.Context(), store.TraceQuery{From: t.From, To: t.To, Most: mostCompared})
	var before []trace.Trace
	if err == nil {
		before, err = a.Store.Traces(r.Context(), store.TraceQuery{From: t.BaselineFrom, To: t.BaselineTo, Most: mostCompared})
	}
	var series []comparedSeries
	if err == nil {
		series, err = a.seriesOf(r, t)
	}
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if before == nil {
		before = []trace.Trace{} // there is a baseline, and nothing in it
	}
	t.Traces, t.BaselineTraces = len(now), len(before)
	report, ok := a.Live.Compare(now, before)
	if !ok {
		w.Header().Set("Retry-After", "5")
		writeError(w, http.StatusTooManyRequests, "another comparison is under way; they share their cores with the calls")
		return
	}
	if max(t.Traces, t.BaselineTraces) == mostCompared {
		report.Notes = append(report.Notes, fmt.Sprintf("only the newest %d kept traces of a time are compared; `series` is of all calls", mostCompared))
	}
	if report.Routes == nil {
		report.Routes = []advise.Route{}
	}
	writeJSON(w, http.StatusOK, comparison{t, series, report})
}

func timesOf(r *http.Request, now time.Time) (t times, err error) {
	q := r.URL.Query()
	if t.From, err = moment(q, "from", now, now.Add(-comparedWindow)); err != nil {
		return t, err
	}
	if t.To, err = moment(q, "to", now, now); err != nil {
		return t, err
	}
	length := t.To.Sub(t.From)
	if length <= 0 || length > longestCompared {
		return t, fmt.Errorf("want from before to, and at most %s between them", longestCompared)
	}
	// A duration is before from, so that baseline=24h is the same time of yesterday.
	if t.BaselineFrom, err = moment(q, "baseline", t.From, t.From); err != nil {
		return t, err
	}
	t.BaselineTo = t.BaselineFrom.Add(length)
	if t.BaselineTo.After(t.From) {
		return t, fmt.Errorf("baseline: it would end at %s, after from; want at least %s before it", t.BaselineTo.Format(time.RFC3339), length)
	}
	return t, nil
}

// seriesOf adds up the histograms of routes and of their segments over both times.
func (a *admin) seriesOf(r *http.Request, t times) ([]comparedSeries, error) {
	place := map[store.Series]*comparedSeries{}
	var all []*comparedSeries
	for _, one := range []struct {
		from, to time.Time
		of       func(*comparedSeries) *comparedSum
	}{
		{t.From, t.To, func(s *comparedSeries) *comparedSum { return &s.Now }},
		{t.BaselineFrom, t.BaselineTo, func(s *comparedSeries) *comparedSum { return &s.Before }},
	} {
		err := a.Store.Each(r.Context(), store.Query{From: one.from, To: one.to}, func(u store.Rollup) bool {
			if u.Endpoint != "" {
				return true
			}
			s := place[u.Series]
			if s == nil {
				s = &comparedSeries{Series: u.Series}
				place[u.Series], all = s, append(all, s)
			}
			sum := one.of(s)
			sum.Calls, sum.Failed, sum.latency = sum.Calls+u.Calls, sum.Failed+u.Failed, sum.latency.Merge(u.Latency)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	by := func(s *comparedSeries) time.Duration {
		d := s.Now.latency.Quantile(0.99) - s.Before.latency.Quantile(0.99)
		return time.Duration(math.Abs(float64(d)))
	}
	slices.SortStableFunc(all, func(x, y *comparedSeries) int {
		return cmp.Or(cmp.Compare(by(y), by(x)), cmp.Compare(x.Route, y.Route), cmp.Compare(x.Segment, y.Segment))
	})
	out := []comparedSeries{}
	for _, s := range all[:min(len(all), mostSeries)] {
		s.Now.LatencyMS, s.Before.LatencyMS = gateway.QuantilesOf(s.Now.latency), gateway.QuantilesOf(s.Before.latency)
		out = append(out, *s)
	}
	return out, nil
}

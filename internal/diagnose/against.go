package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// Against is a route beside the same route of the baseline.
type Against struct {
	Traces   int             `json:"traces"`     // of the baseline
	Latency  Latency         `json:"latency_ms"` // of the baseline
	Change   Change          `json:"change"`
	P        float64         `json:"p"`        // how likely chance alone would make the two so different; 1 where they are alike
	Segments []SegmentChange `json:"segments"` // whose time changed, by how much in the p99 band; at most ten, never nil
	// Differences is what these traces have and those of the baseline do not, as far as the traces that have it are slow: SlowShare is
	// the share of these traces, HealthyShare that of the baseline's. Only of a route that is slower.
	Differences []Difference `json:"differences,omitempty"`
}

// Change says how a route fares beside its baseline.
type Change string

// The changes. What chance may have done, and what is below a tenth, is none.
const (
	Slower Change = "slower"
	Faster Change = "faster"
	Alike  Change = "alike"
)

// SegmentChange is what a segment takes of the critical path, before and now. Milliseconds, means of the bands' traces.
type SegmentChange struct {
	Segment   trace.Segment `json:"segment"`
	Service   string        `json:"service"`
	Operation string        `json:"operation"`
	BeforeMS  Bands         `json:"before_ms"`
	NowMS     Bands         `json:"now_ms"`
}

// Standing says how a finding stands to the baseline.
type Standing string

// The standings. "" = there is no baseline, or the route is not in it.
const (
	New   Standing = "new"   // the baseline has no such finding, and the place was not as slow
	Worse Standing = "worse" // it was there, and costs clearly more now
	Same  Standing = "same"  // it was there, or the place was as slow: no regression
)

const (
	changeRate    = 0.001 // of routes without a change that are said to have one, at most
	changeLeast   = 1.1   // times
	changeFew     = 10    // traces of either set, of fewer nothing is said
	worseTimes    = 1.5   // times, that a finding costs more
	worseMore     = 0.05  // and so much more, as a part of the baseline's median
	alikeTimes    = 1.25  // times, within which a place takes as long as before
	maxChanged    = 10    // segments
	slowQuantile  = 0.95  // of the baseline, above which its tail is counted
	leastTailMore = 2.0   // times as many traces above it
)

// against compares each route with that of the baseline, and tells its findings how they stand to it.
func against(routes []Route, views []*view, base *set, o Options) {
	o.Facts = evidence.Facts{} // they are about now
	was, earlier := base.routes(o, nil)
	at := make(map[[2]string]int)
	for i := range earlier {
		at[[2]string{earlier[i].Service, earlier[i].Operation}] = i
	}
	for i := range routes {
		r := &routes[i]
		n, ok := at[[2]string{r.Service, r.Operation}]
		if !ok || min(r.Traces, earlier[n].Traces) < changeFew {
			continue
		}
		before := &earlier[n]
		x := &Against{Traces: before.Traces, Latency: before.Latency, Segments: changed(r, before)}
		x.Change, x.P = changeOf(views[i].samples, was[n].samples)
		if x.Change == Slower {
			x.Differences = differencesBetween(was[n].samples, views[i].samples, o.Clock.rest)
		}
		r.Against = x
		for k := range r.Findings {
			r.Findings[k].stand(r, before)
		}
	}
}

// changeOf tests whether the durations now are others than before: by the median, and by how many are above the baseline's 95th
// percentile; each by Fisher's exact test, the two corrected together. Both lists are by duration.
func changeOf(now, before []sample) (Change, float64) {
	if p, ok := slower(now, before); ok {
		return Slower, p
	}
	if p, ok := slower(before, now); ok {
		return Faster, p
	}
	return Alike, 1
}

// slower tests whether a takes longer than b.
func slower(a, b []sample) (p float64, ok bool) {
	best := 1.0
	for _, q := range []struct {
		q, more float64
	}{{0.5, 1}, {slowQuantile, leastTailMore}} {
		bound := b[min(int(q.q*float64(len(b))), len(b)-1)].duration
		over, under := longerThan(a, bound), longerThan(b, bound)
		mine := a[min(int(q.q*float64(len(a))), len(a)-1)].duration
		if float64(mine) < changeLeast*float64(bound) || float64(over)/float64(len(a)) < q.more*float64(under)/float64(len(b)) {
			continue
		}
		best = min(best, 2*fisher(over, len(a), over+under, len(a)+len(b)))
	}
	return best, best < changeRate/2
}

// longerThan is how many samples take longer than bound.
func longerThan(list []sample, bound int64) int {
	at, _ := slices.BinarySearchFunc(list, bound, func(s sample, d int64) int {
		if s.duration <= d {
			return -1
		}
		return 1
	})
	return len(list) - at
}

// changed lists the segments whose time changed by a twentieth of the baseline's median or more.
func changed(now, before *Route) []SegmentChange {
	type key struct {
		segment            trace.Segment
		service, operation string
	}
	all := make(map[key]*SegmentChange)
	of := func(s *Segment) *SegmentChange {
		k := key{s.Segment, s.Service, s.Operation}
		if all[k] == nil {
			all[k] = &SegmentChange{Segment: s.Segment, Service: s.Service, Operation: s.Operation}
		}
		return all[k]
	}
	for i := range before.Segments {
		of(&before.Segments[i]).BeforeMS = before.Segments[i].CriticalMS
	}
	for i := range now.Segments {
		of(&now.Segments[i]).NowMS = now.Segments[i].CriticalMS
	}
	list := []SegmentChange{}
	for _, c := range all {
		if max(math.Abs(c.NowMS.P50-c.BeforeMS.P50), math.Abs(c.NowMS.P95-c.BeforeMS.P95), math.Abs(c.NowMS.P99-c.BeforeMS.P99)) >= worseMore*before.Latency.P50 {
			list = append(list, *c)
		}
	}
	slices.SortFunc(list, func(a, b SegmentChange) int {
		return cmp.Or(cmp.Compare(math.Abs(b.NowMS.P99-b.BeforeMS.P99), math.Abs(a.NowMS.P99-a.BeforeMS.P99)), cmp.Compare(a.Segment, b.Segment),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
	})
	return list[:min(len(list), maxChanged)]
}

// stand compares f, a finding of r, with those of the baseline's route.
func (f *Finding) stand(r, before *Route) {
	now := f.ShareP99 * r.slowMS()
	place := func(o Finding) bool {
		return o.Segment == f.Segment && o.Service == f.Service && o.Operation == f.Operation
	}
	i := slices.IndexFunc(before.Findings, func(o Finding) bool { return o.Code == f.Code && place(o) })
	if i >= 0 {
		was := before.Findings[i].ShareP99 * before.slowMS()
		if now > worseTimes*was && now-was > worseMore*before.Latency.P50 {
			f.Against = Worse
			f.Evidence = append(f.Evidence, fmt.Sprintf("in the baseline it cost the slow traces %.1f ms, now %.1f ms", was, now))
			return
		}
		f.Against = Same
		f.CounterEvidence = append(f.CounterEvidence, "the baseline has it, too: it is no regression")
		return
	}
	a, b := r.timeAt(f), before.timeAt(f)
	if a > 0 && b > 0 && a <= alikeTimes*b {
		f.Against = Same
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("in the baseline the same place took the slow traces %.1f ms, now %.1f ms: it is no regression", b, a))
		return
	}
	f.Against = New
}

// slowMS is the mean duration of the slow traces of a route.
func (r *Route) slowMS() (sum float64) {
	for i := range r.Segments {
		sum += r.Segments[i].CriticalMS.P99
	}
	return sum
}

// timeAt is what the slow traces spend in the place of a finding, ms.
func (r *Route) timeAt(f *Finding) float64 {
	for i := range r.Segments {
		if s := &r.Segments[i]; s.Segment == f.Segment && s.Service == f.Service && s.Operation == f.Operation {
			return s.CriticalMS.P99
		}
	}
	return 0
}

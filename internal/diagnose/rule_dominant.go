package diagnose

import (
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

const (
	dominantShare = 0.3 // of the slow band, from where a segment is the long pole
	explained     = 0.5 // of the segment's share; findings that explain this much make a plain one needless
	tailGrowth    = 1.5 // from where a segment's share is said to grow in the tail
	dominantMS    = 500 // of the slow traces, from where a segment is long whatever its spans look like
)

// dominant finds LP105: the segment that takes most of the slow traces, where it takes longer than it should and no better finding
// explains it. found is what the other rules said.
func dominant(v *view, found []Finding) []Finding {
	if len(v.segments) == 0 || v.segments[0].Share.P99 < dominantShare {
		return nil
	}
	s := v.segments[0]
	at := place{s.Segment, s.Service, s.Operation}
	if !v.ill(s, at) {
		return nil
	}
	for _, f := range found {
		if f.ShareP99 >= explained*s.Share.P99 && (f.Service == s.Service || slices.Contains(f.Detail.Callees, s.Service)) {
			return nil
		}
	}
	f := Finding{
		Code: "LP105", Class: "unknown", Segment: s.Segment, Service: s.Service, Operation: s.Operation,
		Verdict: Suspected, Confidence: 0.4, ShareP99: s.Share.P99,
		Summary: fmt.Sprintf("%s of %s %s takes %s of the slow traces (%.1f ms) and %s of the typical ones (%.1f ms)", s.Segment, s.Service, s.Operation,
			percent(s.Share.P99), s.CriticalMS.P99, percent(s.Share.P50), s.CriticalMS.P50),
		Evidence: []string{fmt.Sprintf("it is the largest segment of the critical path in the %d slowest of %d traces", len(v.slow), len(v.samples))},
		Detail:   Detail{Saved: v.perSlow(int64(s.Share.P99 * float64(v.slowTotal)))},
	}
	f.classify(v)
	if why := v.look().refuted[at]; len(why) > 0 {
		f.Class, f.Verdict, f.Confidence = "unknown", Suspected, 0.4
		f.CounterEvidence = append(f.CounterEvidence, why...)
	}
	switch {
	case s.Share.P99 > tailGrowth*s.Share.P50:
		f.Evidence = append(f.Evidence, "its share grows in the tail: it is what makes slow traces slow")
		f.Confidence += 0.1
	case s.CriticalMS.P99 < tailGrowth*s.CriticalMS.P50:
		f.CounterEvidence = append(f.CounterEvidence, "it takes about as long in typical traces: it is always long, not slow at times")
	}
	if len(v.samples) < 20 {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("few traces: %d; whether the segment is slow, or just the largest, they do not tell", len(v.samples)))
		f.Confidence -= 0.1
	}
	return []Finding{f}
}

// ill reports whether a segment takes longer than it should: its spans have a tail that healthy ones do not have, or take long always.
// Of few traces, which somebody has mostly picked because they are slow, it cannot be told, and is taken for granted.
func (v *view) ill(s Segment, at place) bool {
	return len(v.samples) < fewWork || s.CriticalMS.P99 >= dominantMS ||
		slices.ContainsFunc(v.look().suspects, func(x suspect) bool { return x.place == at })
}

// classify names the class as far as the kind of the segment goes, and says what would tell more.
func (f *Finding) classify(v *view) {
	switch f.Segment {
	case trace.SegDatabase, trace.SegCache:
		f.Class, f.Verdict, f.Confidence = "database", Likely, 0.7
		f.CounterEvidence = append(f.CounterEvidence, "waiting for a lock or for a connection looks the same as a slow query")
	case trace.SegDownstream:
		f.Class, f.Verdict, f.Confidence = "dependency", Likely, 0.6
		f.CounterEvidence = append(f.CounterEvidence, "the far side is not recorded: the network to it cannot be told from its work")
	case trace.SegNetwork:
		f.Class, f.Verdict, f.Confidence = "network", Likely, 0.5
		f.CounterEvidence = append(f.CounterEvidence, "a callee too busy to accept a call, or a caller too busy to read the answer, looks the same as a slow network")
	case trace.SegQueue:
		f.Class, f.Verdict, f.Confidence = "queueing", Likely, 0.6
	default:
		if f.Service != v.service {
			f.Class, f.Verdict, f.Confidence = "dependency", Likely, 0.5
			f.Evidence = append(f.Evidence, "the time is spent inside "+f.Service+" itself, in none of its calls")
		}
		f.CounterEvidence = append(f.CounterEvidence, "computing, waiting for a lock and waiting for a thread look the same without a profile")
	}
}

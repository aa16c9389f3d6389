package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	brownWindow = 1.0 / 3 // of the time of all traces, within which all long calls lie: the dependency was ill for a while
	brownFailed = 0.05    // of the calls
)

// dependency finds LP120: calls of something that is not instrumented, a third party mostly, that take too long.
func dependency(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().of(trace.SegDownstream) {
		if v.world.service(s.service) != nil && v.torn(s) {
			continue
		}
		f := v.finding("LP120", "dependency", s, 0.65)
		f.Detail.Callees = []string{s.service}
		who := s.service
		if _, span := v.span(s.works[0]); span.Service == who {
			who = "something that " + who + " calls" // the span does not name it
		}
		f.Summary = fmt.Sprintf("%s, which is not recorded here, takes %s (%s)", who, s.part(), s.operation)
		all, from, to := v.window(s, func(work) bool { return true })
		long, first, last := v.window(s, s.long)
		if !s.constant && all > 2*long && float64(last-first) <= brownWindow*float64(to-from) {
			f.Confidence += 0.1
			f.Evidence = append(f.Evidence, fmt.Sprintf("the long calls all lie within %s of %s: it was ill for a while", duration(time.Duration(last-first)), duration(time.Duration(to-from))))
		}
		bad := 0
		for _, w := range s.works {
			if v.samples[w.sample].tree.failed(int(w.span)) {
				bad++
			}
		}
		if f.Detail.Failed = float64(bad) / float64(s.n); f.Detail.Failed >= brownFailed {
			f.Evidence = append(f.Evidence, fmt.Sprintf("%s of the calls fail", percent(f.Detail.Failed)))
		}
		if v.world.service(s.service) != nil && who == s.service {
			v.unanswered(&f, s)
		} else {
			f.doubt(0, "the far side is not recorded: the network to it cannot be told from its work")
		}
		found = append(found, f)
	}
	return found
}

// torn reports whether most of the long works of s are in traces with gaps: what has no callee there has lost its span.
func (v *view) torn(s *suspect) bool {
	long, torn := 0, 0
	for _, w := range s.works {
		if s.long(w) {
			long++
			if t, _ := v.span(w); t.Incomplete {
				torn++
			}
		}
	}
	return 2*torn > long
}

// unanswered is about calls that leave no span of their callee, which records others: they never got there, or were given up.
func (v *view) unanswered(f *Finding, s *suspect) {
	f.Summary = fmt.Sprintf("%d calls of %s were not answered: waiting for them takes %s", s.n, s.service, s.part())
	var fine []int64
	for _, targets := range v.patience() {
		for to, g := range targets {
			if to.service == s.service {
				fine = append(fine, g.fine...)
			}
		}
	}
	if len(fine) > 0 {
		slices.Sort(fine)
		f.Detail.Latency = time.Duration(quantile(fine, 0.99))
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d others were, within %s (p99)", len(fine), duration(f.Detail.Latency)))
	}
	f.doubt(0, "whether they got lost on the way or in "+s.service+" the traces do not tell")
}

// window is how many works of s are such, and from when to when.
func (v *view) window(s *suspect, such func(work) bool) (n int, from, to int64) {
	for _, w := range s.works {
		if !such(w) {
			continue
		}
		_, span := v.span(w)
		if n == 0 {
			from, to = span.Start, span.Start
		}
		from, to = min(from, span.Start), max(to, span.Start)
		n++
	}
	return n, from, to
}

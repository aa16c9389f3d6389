package diagnose

import (
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	hedgeRatio = 0.15 // of the calls, from where hedges cost more than a tail is worth; sent after the p95 they are 0.05
	hedgeCalls = 5    // calls with a second copy
)

// hedged is the calls of one target by one operation, and how many were sent twice.
type hedged struct {
	to            place
	calls, doubly float64 // weighted
	seen          int
	copies        int
	second        int   // a later copy answered first
	wasted        int64 // ns that losers worked, on the server's side where that is recorded
	after         int64 // of it, ns after they were called off
	worked        int64 // ns that the winners worked
}

// hedgeLoser finds LP113: copies of calls that are sent so often that most of their work is for nothing.
func hedgeLoser(v *view) []Finding {
	if !v.look().canceled {
		return nil
	}
	at := make(map[spot]map[place]*hedged)
	for _, f := range v.look().families {
		v.countCopies(at, f)
	}
	return findingsBySpot(at, v.hedgeFinding)
}

func (v *view) countCopies(at map[spot]map[place]*hedged, f family) {
	s := &v.samples[f.sample]
	t := s.tree
	where := v.look().spots[f.where]
	var off []attempt
	for _, b := range f.calls {
		if t.Why(int(b.span)) == Canceled && len(off) < nearby {
			off = append(off, b)
		}
	}
	for _, a := range f.calls {
		if t.Why(int(a.span)) == Canceled {
			continue
		}
		to := v.target(a)
		if at[where] == nil {
			at[where] = make(map[place]*hedged)
		}
		h := at[where][to]
		if h == nil {
			h = &hedged{to: to}
			at[where][to] = h
		}
		h.calls += s.stands()
		lost := 0
		for _, b := range off {
			if b.start >= a.end || a.start >= b.end || !sameCall(t, a, b) {
				continue
			}
			lost++
			h.copies++
			h.lose(t, b)
			if a.start > b.start {
				h.second++
			}
		}
		if lost > 0 {
			h.doubly += s.stands()
			h.seen++
			h.worked += a.end - a.start
		}
	}
}

// lose adds the work of a copy that nobody wanted.
func (h *hedged) lose(t *Tree, b attempt) {
	end := b.end
	if b.served >= 0 {
		served := &t.Spans[b.served]
		end = served.End
		h.after += max(0, served.End-max(b.end, served.Start))
	}
	h.wasted += max(0, end-b.start)
}

func (v *view) hedgeFinding(key spot, targets map[place]*hedged) (Finding, bool) {
	var worst *hedged
	for _, h := range targets {
		if h.seen < hedgeCalls || h.doubly < hedgeRatio*h.calls {
			continue
		}
		if worst == nil || h.wasted > worst.wasted || h.wasted == worst.wasted && byPlace(h.to, worst.to) < 0 {
			worst = h
		}
	}
	if worst == nil {
		return Finding{}, false
	}
	h := worst
	each := time.Duration(h.wasted / int64(max(h.copies, 1)))
	f := Finding{
		Code: "LP113", Class: "hedge_loser", Segment: h.to.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.8,
		Summary: fmt.Sprintf("%s %s sends %s of its calls of %s %s twice, and the copy that loses works %s for nothing",
			key.service, key.operation, percent(h.doubly/h.calls), h.to.service, h.to.operation, duration(each)),
		Evidence: []string{
			fmt.Sprintf("%d calls had copies, %.1f each; losers worked %s together, winners %s", h.seen, float64(h.copies)/float64(h.seen), duration(time.Duration(h.wasted)), duration(time.Duration(h.worked))),
			fmt.Sprintf("the later copy answered first in %d of them", h.second),
		},
		Detail: Detail{Callees: []string{h.to.service}, Calls: h.calls / v.weight(), Attempts: 1 + float64(h.copies)/float64(h.seen), Wait: each},
	}
	if h.after > 0 {
		f.Confidence += 0.1
		f.Evidence = append(f.Evidence, fmt.Sprintf("the callee went on for %s after it was called off: it does not notice", duration(time.Duration(h.after/int64(h.copies)))))
	}
	f.doubt(0, "the copies are off the critical path: they cost capacity, not time, until the callee is busy")
	if h.second*2 > h.seen {
		f.doubt(0.2, "the later copy wins more often than not: the first one is the slow one")
	}
	if f.Segment == "" {
		f.Segment = trace.SegDownstream
	}
	return f, true
}

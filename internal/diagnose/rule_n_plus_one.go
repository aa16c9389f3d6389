package diagnose

import (
	"fmt"
	"time"
)

// manyCalls is how many equal calls of one span, one after the other, are a loop that should be one call.
const manyCalls = 5

// repeated is what a span was seen to call again and again.
type repeated struct {
	traces, calls   int   // traces with a loop; calls in their loops
	most            int   // calls in the longest loop
	slow            int64 // ns of the slow band that the loops take
	saved           int64 // of it, what a single call would save
	total, measured int64 // ns of all loops' calls
	once            int   // traces in which the span makes the call at most a few times
	key             call
}

// nPlusOne finds LP102: the same call made again and again by one span.
func nPlusOne(v *view) []Finding {
	if !v.anyLoop() {
		return nil
	}
	at := make(map[spot]map[call]*repeated)
	for i := range v.samples {
		v.rest()
		s := &v.samples[i]
		for parent, list := range v.remotes(i) {
			v.loops(at, v.spot(&s.tree.Spans[parent]), list, v.isSlow(i))
		}
	}
	var found []Finding
	for key, calls := range at {
		best := &repeated{}
		for _, r := range calls {
			if r.saved > best.saved || r.saved == best.saved && r.key.label() < best.key.label() {
				best = r
			}
		}
		if f, ok := v.loopFinding(key, best); ok {
			found = append(found, f)
		}
	}
	return found
}

// anyLoop reports whether a span may make one call again and again at all: mostly none does, and then nothing needs to be counted.
func (v *view) anyLoop() bool {
	for i := range v.samples {
		v.rest()
		for _, list := range v.remotes(i) {
			if len(list) > nearby {
				return true
			}
			for k := 0; k+manyCalls <= len(list); k++ {
				equal := 0
				for _, r := range list[k:] {
					if r.key == list[k].key {
						equal++
					}
				}
				if equal >= manyCalls {
					return true
				}
			}
		}
	}
	return false
}

// loops counts the equal calls in list, which one span waits for.
func (v *view) loops(at map[spot]map[call]*repeated, key spot, list []remote, slow bool) {
	type run struct {
		calls    int
		critical int64
		end      int64
		overlap  bool
	}
	runs := make(map[call]*run)
	for _, r := range list {
		x := runs[r.key]
		if x == nil {
			x = &run{}
			runs[r.key] = x
		}
		if r.start < x.end-(r.end-r.start)/10 {
			x.overlap = true
		}
		x.calls++
		x.end = max(x.end, r.end)
		x.critical += r.critical
	}
	for kind, x := range runs {
		looped := x.calls >= manyCalls && !x.overlap && x.critical > 0
		calls := at[key]
		if calls == nil {
			calls = make(map[call]*repeated)
			at[key] = calls
		}
		r := calls[kind]
		if r == nil {
			r = &repeated{key: kind}
			calls[kind] = r
		}
		if !looped {
			r.once++
			continue
		}
		r.traces++
		r.calls += x.calls
		r.most = max(r.most, x.calls)
		r.measured += int64(x.calls)
		r.total += x.critical
		if slow {
			r.slow += x.critical
			r.saved += x.critical - x.critical/int64(x.calls)
		}
	}
}

func (v *view) loopFinding(key spot, r *repeated) (Finding, bool) {
	share := v.share(r.saved)
	if r.traces == 0 || share < leastShare {
		return Finding{}, false
	}
	mean := float64(r.calls) / float64(r.traces)
	each := time.Duration(r.total / max(r.measured, 1))
	f := Finding{
		Code: "LP102", Class: "n_plus_one", Segment: r.key.segment, Service: key.service, Operation: key.operation,
		Verdict: Likely, Confidence: 0.75, ShareP99: share,
		Summary: fmt.Sprintf("%s %s calls %s %.0f times in a row, %s each; one call for all would save %s in the slow traces (%s of their time)",
			key.service, key.operation, r.key.label(), mean, duration(each), duration(v.perSlow(r.saved)), percent(share)),
		Evidence: []string{
			fmt.Sprintf("%d of %d traces hold such a loop, of %.1f calls on average and %d at most", r.traces, len(v.samples), mean, r.most),
			"the calls do not overlap: each waits for the one before it",
		},
		CounterEvidence: []string{"whether the callee can answer for many at once is not in the traces"},
		Detail:          Detail{Callees: []string{r.key.service}, Calls: mean, Latency: each, Saved: v.perSlow(r.saved)},
	}
	if mean >= 2*manyCalls {
		f.Confidence = 0.85
	}
	if r.once > r.traces {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("in %d other traces the same span makes fewer than %d of these calls", r.once, manyCalls))
		f.Confidence -= 0.1
	}
	return f, true
}

package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	fanLeaves = 10  // calls at once, from where the slowest of them rules
	fanShare  = 0.1 // of the slow band that the slowest leaf takes beyond a typical one
)

// fan is the calls that one operation makes at once.
type fan struct {
	traces, leaves int
	most           int
	extra          int64 // ns of the slow band from the end of the typical leaf to that of the last
	typical        []int64
	callees        map[string]bool
	segment        trace.Segment
}

// fanOut finds LP121: operations that wait for the slowest of many calls made at once. The more leaves, the more often one of them
// is slow.
func fanOut(v *view) []Finding {
	at := make(map[spot]*fan)
	for _, f := range v.look().families {
		if len(f.calls) < fanLeaves {
			continue
		}
		s := &v.samples[f.sample]
		leaves := atOnce(s.tree, f.calls)
		if len(leaves) < fanLeaves {
			continue
		}
		key := v.look().spots[f.where]
		x := at[key]
		if x == nil {
			x = &fan{callees: make(map[string]bool)}
			at[key] = x
		}
		x.add(v, f, leaves)
	}
	return findingsBySpot(at, v.fanFinding)
}

// atOnce is the largest group of calls that all run at one moment, calls that nobody waits for left out.
func atOnce(t *Tree, list []attempt) (group []attempt) {
	list = slices.DeleteFunc(slices.Clone(list), func(a attempt) bool { return t.NonBlocking(int(a.span)) })
	l := &load{}
	for _, a := range list {
		l.add(&t.Spans[a.span])
	}
	l.sort()
	moment, most := int64(0), 0
	for _, a := range list {
		if n := l.at(a.start) + 1; n > most {
			moment, most = a.start, n
		}
	}
	// Those that begin together count, too, though none began before the other.
	for _, a := range list {
		if a.start <= moment+int64(time.Millisecond) && a.end > moment {
			group = append(group, a)
		}
	}
	return group
}

func (x *fan) add(v *view, f family, leaves []attempt) {
	ends, took := make([]int64, len(leaves)), make([]int64, len(leaves))
	for i, a := range leaves {
		ends[i], took[i] = a.end, a.end-a.start
		if len(x.callees) < fanLeaves {
			x.callees[v.target(a).service] = true
		}
	}
	slices.Sort(ends)
	slices.Sort(took)
	x.traces++
	x.leaves += len(leaves)
	x.most = max(x.most, len(leaves))
	x.typical = append(x.typical, quantile(took, 0.5))
	x.segment = v.target(leaves[0]).segment
	if v.isSlow(int(f.sample)) {
		x.extra += ends[len(ends)-1] - quantile(ends, 0.5)
	}
}

func (v *view) fanFinding(key spot, x *fan) (Finding, bool) {
	share := v.share(x.extra)
	if share < fanShare {
		return Finding{}, false
	}
	slices.Sort(x.typical)
	typical := time.Duration(quantile(x.typical, 0.5))
	mean := float64(x.leaves) / float64(x.traces)
	f := Finding{
		Code: "LP121", Class: "fan_out", Segment: x.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.75, ShareP99: share,
		Summary: fmt.Sprintf("%s %s makes %.0f calls at once and waits for the slowest: %s of the slow traces go by after half of them have ended",
			key.service, key.operation, mean, percent(share)),
		Evidence: []string{
			fmt.Sprintf("in %d of %d traces, %.0f leaves on average and %d at most; a typical leaf takes %s", x.traces, len(v.samples), mean, x.most, duration(typical)),
			fmt.Sprintf("if one leaf in a hundred is slow, %s of such requests meet a slow one", percent(1-power(0.99, int(mean)))),
		},
		Detail: Detail{Callees: ordered(x.callees), Calls: mean, Latency: typical, Saved: v.perSlow(x.extra)},
	}
	f.doubt(0, "if the leaves that are late are always the same, it is they that are slow, not their number")
	return f, true
}

func power(x float64, n int) float64 {
	p := 1.0
	for range min(n, 10_000) {
		p *= x
	}
	return p
}

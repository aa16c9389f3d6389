package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	stallSpans   = 3    // requests that stand still together
	stallTimes   = 2    // how often it must be seen
	stallRatio   = 0.6  // of the long works, that lie in such a stall
	maxStalls    = 64   // looked at
	pauseShare   = 0.01 // of the time, in which the world stands still: from here on pauses are felt
	collectShare = 0.25 // of the CPU, that garbage collection takes
)

// gcPause finds LP117: moments at which a whole process stands still. The class is named after the reason seen most; which it
// was only the runtime can tell.
func gcPause(v *view) []Finding {
	var found []Finding
	services := make(map[string]bool)
	for _, s := range v.look().of(trace.SegService, trace.SegGateway) {
		if services[s.service] || s.constant {
			continue
		}
		services[s.service] = true
		if f, ok := v.stallFinding(s); ok {
			found = append(found, f)
		}
	}
	return found
}

// still is a piece of a request's own time that is too long.
type still struct {
	start, end int64
	host       string
	operation  string
}

// stall is the time in which several requests of one process stood still together.
type stall struct {
	start, end int64
	host       string
	spans      int
	operations int
}

func (v *view) stallFinding(s *suspect) (Finding, bool) {
	var long []still
	slow := int64(0)
	for i := range v.look().suspects {
		o := &v.look().suspects[i]
		if o.service != s.service || o.segment != s.segment || o.constant {
			continue
		}
		slow += o.slow
		for _, w := range o.works {
			if o.long(w) {
				t, _ := v.span(w)
				g := v.gapBefore(w)
				long = append(long, still{g.start, g.end, t.instance(int(w.span)), o.operation})
			}
		}
	}
	stalls, covered := stallsOf(long)
	stalls = slices.DeleteFunc(stalls[:min(len(stalls), maxStalls)], func(x stall) bool { return v.finishedIn(s.service, x) })
	f := v.finding("LP117", "gc_pause", s, 0.5)
	f.Verdict = Suspected
	f.ShareP99 = v.share(slow)
	paused := v.collector(&f, s.service)
	standing := len(stalls) >= stallTimes && float64(covered) >= stallRatio*float64(len(long))
	if !standing && !paused {
		return f, false
	}
	f.Summary = fmt.Sprintf("%s stands still at times, for %s of the slow traces", s.service, percent(f.ShareP99))
	if standing {
		total, hosts := int64(0), map[string]bool{}
		for _, x := range stalls {
			total += x.end - x.start
			if x.host != "" {
				hosts[x.host] = true
			}
		}
		f.Detail.Wait, f.Detail.Instances = time.Duration(total/int64(len(stalls))), ordered(hosts)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d times all requests of one process stood still together, for %s on average; none ended meanwhile", len(stalls), duration(f.Detail.Wait)))
	}
	switch {
	case f.Verdict == Confirmed:
	case v.facts.Services != nil && v.calm(s.service):
		return f, false
	default:
		f.doubt(0, "a garbage collector that stops the world, a throttled container and a host that swaps look the same without figures of the runtime")
	}
	return f, true
}

// stallsOf finds the times at which at least stallSpans of one host stand still together, and how many of them do.
func stallsOf(list []still) (stalls []stall, covered int) {
	slices.SortFunc(list, func(a, b still) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end), cmp.Compare(a.operation, b.operation))
	})
	for at := 0; at < len(list); {
		x := stall{list[at].start, list[at].end, list[at].host, 1, 1}
		to := at + 1
		for ; to < len(list) && list[to].host == x.host && list[to].start < x.end; to++ {
			start, end := max(x.start, list[to].start), min(x.end, list[to].end)
			if end-start < (x.end-x.start)/2 {
				break // it stands still at another time
			}
			x.start, x.end = start, end
			x.spans++
		}
		if x.spans >= stallSpans {
			stalls = append(stalls, x)
			covered += x.spans
		}
		at = to
	}
	return stalls, covered
}

// finishedIn reports whether a request of the service ended while the process is said to have stood still.
func (v *view) finishedIn(service string, x stall) bool {
	for _, t := range v.world.set.trees {
		for i := range t.Spans {
			s := &t.Spans[i]
			if s.Start >= x.end {
				break
			}
			if s.End > x.start && s.End < x.end && s.Service == service && t.instance(i) == x.host {
				return true
			}
		}
	}
	return false
}

// collector weighs what the runtimes tell of their garbage collection.
func (v *view) collector(f *Finding, service string) (paused bool) {
	for _, p := range v.facts.Of(service, "") {
		r := p.Runtime
		if r == nil {
			continue
		}
		switch {
		case r.GCPause != nil && *r.GCPause >= pauseShare:
			f.confirm(0.9, fmt.Sprintf("the world of %s stands still for garbage collection %.1f %% of the time%s", process(p), 100**r.GCPause, collections(r)))
		case r.GC != nil && *r.GC >= collectShare:
			f.confirm(0.85, fmt.Sprintf("garbage collection takes %s of the CPU of %s%s", percent(*r.GC), process(p), collections(r)))
		default:
			continue
		}
		paused = true
		f.functions(p.Profile("heap"))
		if p.Instance != "" {
			f.Detail.Instances = append(f.Detail.Instances, p.Instance)
		}
	}
	return paused
}

func collections(r *evidence.RuntimeStats) string {
	if r.GCRuns == nil {
		return ""
	}
	return fmt.Sprintf(", %.1f collections a second", *r.GCRuns)
}

// calm reports whether all processes of a service tell that their collector does next to nothing.
func (v *view) calm(service string) bool {
	processes := v.facts.Of(service, "")
	for _, p := range processes {
		if p.Runtime == nil || p.Runtime.GCPause == nil || *p.Runtime.GCPause >= pauseShare/10 {
			return false
		}
	}
	return len(processes) > 0
}

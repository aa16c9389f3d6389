package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	coldFirst  = 5                  // requests of a new process that still are its first ones
	coldIdle   = int64(time.Minute) // without a request, after which a process has cooled down
	coldRatio  = 0.6                // of the long works, that are such
	coldOfThem = 0.3                // of the first requests, that are long
	coldWindow = 0.02               // of the time of all traces, after which a process that shows up is taken for new
	maxHosts   = 4096               // processes told apart
	maxClimb   = 1000               // levels between a span and the first one of its service
)

// life is when a process was asked for something.
type life struct {
	starts []int64
}

// cold reports whether a request that began then was among the first of a process, or the first after a long pause. born says that
// the process showed up after the traces began.
func (l *life) cold(at int64, born bool) bool {
	i, _ := slices.BinarySearch(l.starts, at)
	if i < coldFirst && born {
		return true
	}
	return i > 0 && i < len(l.starts) && at-l.starts[i-1] >= coldIdle
}

// coldStart finds LP116: requests that are slow because the process has just begun, or has slept.
func coldStart(v *view) []Finding {
	var found []Finding
	var lives map[spot]*life
	var from, to int64
	for _, s := range v.look().of(trace.SegService, trace.SegGateway, trace.SegNetwork, trace.SegDownstream) {
		if s.constant {
			continue
		}
		if lives == nil {
			lives, from, to = v.world.lives()
		}
		if f, ok := v.coldFinding(s, lives, from, to); ok {
			found = append(found, f)
		}
	}
	return found
}

// lives is when each process of each service was asked for something, and from when to when the traces are.
func (w *world) lives() (lives map[spot]*life, from, to int64) {
	if w.processes != nil {
		return w.processes, w.from, w.to
	}
	lives = make(map[spot]*life)
	first := true
	for _, t := range w.trees {
		for i := range t.Spans {
			s := &t.Spans[i]
			if !entry(t, i) || s.Kind == trace.Client {
				continue
			}
			if first {
				from, to, first = s.Start, s.End, false
			}
			from, to = min(from, s.Start), max(to, s.End)
			key := spot{s.Service, instance(s)}
			l := lives[key]
			if l == nil {
				if len(lives) >= maxHosts {
					continue
				}
				l = &life{}
				lives[key] = l
			}
			l.starts = append(l.starts, s.Start)
		}
	}
	for _, l := range lives {
		slices.Sort(l.starts)
	}
	w.processes, w.from, w.to = lives, from, to
	return lives, from, to
}

func (v *view) coldFinding(s *suspect, lives map[spot]*life, from, to int64) (Finding, bool) {
	long, cold, first, said := 0, 0, 0, 0
	hosts := make(map[string]bool)
	for _, w := range s.works {
		t, span := v.span(w)
		at := entrance(t, int(w.span))
		if at < 0 {
			continue
		}
		server := &t.Spans[at]
		told := server.Attr("faas.coldstart", "faas.cold_start", "cold_start") == "true" || span.Attr("faas.coldstart", "faas.cold_start") == "true"
		l := lives[spot{server.Service, instance(server)}]
		born := l != nil && float64(l.starts[0]-from) > coldWindow*float64(to-from)
		is := told || l != nil && l.cold(server.Start, born)
		if is {
			first++
		}
		if s.long(w) {
			long++
			if is {
				cold++
				hosts[instance(server)] = true
			}
			if told {
				said++
			}
		}
	}
	if cold < leastTail || float64(cold) < coldRatio*float64(long) || float64(cold) < coldOfThem*float64(first) {
		return Finding{}, false
	}
	f := v.finding("LP116", "cold_start", s, 0.65)
	f.Detail.Instances = ordered(hosts)
	f.Summary = fmt.Sprintf("%s %s is slow when a process of %s has just begun or has slept: %s of the slow traces", s.service, s.operation, s.service, percent(f.ShareP99))
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d of the %d long ones are among the first %d requests of a process, or come after a minute without any; %d such requests were seen", cold, long, coldFirst, first))
	if said > 0 {
		f.Confidence += 0.2
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d spans tell that it was a cold start", said))
	}
	restarted := false
	for _, p := range v.facts.Of(s.service, "") {
		restarted = restarted || p.Runtime != nil && p.Runtime.Restarted
	}
	if restarted {
		f.confirm(0.9, s.service+" was started anew in that time")
	} else if said == 0 {
		f.doubt(0, "a new process also begins with empty caches and connections, which costs others time, too")
	}
	return f, true
}

// entrance is the span by which the work of span i came into its service: of a call on the way, that of the callee; -1 = none.
func entrance(t *Tree, i int) int {
	if served, ok := calls(t, i); ok {
		return served
	}
	for range maxClimb {
		if entry(t, i) {
			return i
		}
		i = int(t.Parent[i])
	}
	return -1
}

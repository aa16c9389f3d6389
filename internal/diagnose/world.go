package diagnose

import (
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/longpole/longpole/internal/trace"
)

// world is all traces of a run, for the rules that ask what else went on: another route's requests keep a service busy, too.
// What it tells is worked out when it is first asked for.
type world struct {
	set   *set
	clock *ClockOptions

	serving, calling, living sync.Once
	services                 map[string]*load
	targets                  map[target]*load
	processes                *processes
}

// target is the calls that one service makes of another, or of a store.
type target struct{ from, to string }

// load is when requests were in work.
type load struct{ starts, ends []int64 }

func (l *load) add(s *trace.Span) {
	l.starts, l.ends = append(l.starts, s.Start), append(l.ends, s.End)
}

func (l *load) join(m *load) {
	l.starts, l.ends = append(l.starts, m.starts...), append(l.ends, m.ends...)
}

func (l *load) sort() {
	slices.Sort(l.starts)
	slices.Sort(l.ends)
}

// at is how many requests had begun before now and not ended.
func (l *load) at(now int64) int {
	if l == nil {
		return 0
	}
	begun, _ := slices.BinarySearch(l.starts, now)
	ended, _ := slices.BinarySearch(l.ends, now+1)
	return max(0, begun-ended)
}

// crowd is at for each of several times.
func (l *load) crowd(times []int64) []int {
	crowd := make([]int, len(times))
	for i, now := range times {
		crowd[i] = l.at(now)
	}
	return crowd
}

// most is the largest number of requests in work at one time.
func (l *load) most() (most int) {
	if l == nil {
		return 0
	}
	now, ended := 0, 0
	for _, start := range l.starts {
		for ended < len(l.ends) && l.ends[ended] <= start {
			ended++
			now--
		}
		now++
		most = max(most, now)
	}
	return most
}

// span is the time from the first start to the last end, ns; 0 = there is none.
func (l *load) span() int64 {
	if l == nil || len(l.starts) == 0 {
		return 0
	}
	return l.ends[len(l.ends)-1] - l.starts[0]
}

// rate is how many requests began in a second; 0 = there are none.
func (l *load) rate() float64 {
	if l == nil || l.span() == 0 {
		return 0
	}
	return float64(len(l.starts)) / (float64(l.span()) / 1e9)
}

// service is when the requests that a service serves were in work; nil = it serves none.
func (w *world) service(name string) *load {
	w.serving.Do(func() {
		w.services = make(map[string]*load)
		for i := range w.set.shards {
			p := w.set.shards[i].processes
			for n, at := range p.numbers.list {
				loadOf(w.services, at.service).join(&p.lives[n].load)
			}
		}
		w.sort(slices.Collect(maps.Values(w.services)))
	})
	return w.services[name]
}

// own is how long the spans of a service work themselves in a second, in none of their calls, of all traces; 0 = they do not.
func (w *world) own(service string) float64 {
	total := 0.0
	for _, t := range w.set.trees {
		w.clock.rest()
		for i := range t.Spans {
			if t.Spans[i].Service == service && locate(t, i).segment == trace.SegService {
				total += t.Weight * float64(t.own(i))
			}
		}
	}
	return ratio(total, float64(w.service(service).span()))
}

// own is how long none of the children of span i is at work, ns.
func (t *Tree) own(i int) int64 {
	s := &t.Spans[i]
	at, own := s.Start, int64(0)
	for _, c := range t.Children(i) { // by their start
		child := &t.Spans[c]
		own += max(min(child.Start, s.End)-at, 0)
		at = max(at, child.End)
	}
	return own + max(s.End-at, 0)
}

func (w *world) sort(list []*load) {
	w.clock.each(len(list), func(i int) {
		w.clock.rest()
		list[i].sort()
	})
}

// calls is when a service's calls of a target were in work. Calls of other services are named by the callee, those of stores by
// the segment.
func (w *world) calls(from, to string) *load {
	w.calling.Do(func() {
		parts := make([]map[target]*load, len(w.set.shards))
		w.clock.each(len(parts), func(n int) {
			parts[n] = make(map[target]*load)
			x := &w.set.shards[n]
			for _, t := range w.set.trees[x.from:x.to] {
				w.clock.rest()
				for i := range t.Spans {
					if to := calledFrom(t, i); to != "" {
						loadOf(parts[n], target{t.Spans[i].Service, to}).add(&t.Spans[i])
					}
				}
			}
		})
		w.targets = make(map[target]*load)
		for _, part := range parts {
			for key, l := range part {
				loadOf(w.targets, key).join(l)
			}
		}
		w.sort(slices.Collect(maps.Values(w.targets)))
	})
	return w.targets[target{from, to}]
}

// calledFrom names what span i calls, for [world.calls]; "" = it is no call.
func calledFrom(t *Tree, i int) string {
	served, ok := calls(t, i)
	if served >= 0 {
		return t.Spans[served].Service
	}
	switch at := locate(t, i); {
	case at.segment == trace.SegDatabase || at.segment == trace.SegCache:
		return string(at.segment)
	case ok:
		return at.service
	}
	return ""
}

func loadOf[K comparable](m map[K]*load, key K) *load {
	l := m[key]
	if l == nil {
		l = &load{}
		m[key] = l
	}
	return l
}

// crowd compares how many others were in work when long and when short works began.
type crowd struct {
	long, short float64 // means
	z           float64 // standard errors by which the long ones rank higher (Mann-Whitney, normal approximation with ties)
}

// The crowd that makes waiting the likely reason.
const (
	crowdSigma  = 5.0
	crowdFactor = 2.0
	crowdMore   = 2.0 // requests
)

// crowded reports whether the long ones came when clearly more was in work.
func (c crowd) crowded() bool {
	return c.z >= crowdSigma && c.long >= crowdFactor*c.short && c.long >= c.short+crowdMore
}

// crowdOf ranks the numbers of both groups together.
//
// Source: H. B. Mann, D. R. Whitney, On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other, 1947.
func crowdOf(long, short []int) (c crowd) {
	if len(long) == 0 || len(short) == 0 {
		return c
	}
	counts := make(map[int][2]int)
	for _, n := range long {
		x := counts[n]
		x[0]++
		counts[n] = x
		c.long += float64(n)
	}
	for _, n := range short {
		x := counts[n]
		x[1]++
		counts[n] = x
		c.short += float64(n)
	}
	a, b := float64(len(long)), float64(len(short))
	c.long, c.short = c.long/a, c.short/b
	ranks, before, ties := 0.0, 0.0, 0.0
	for _, n := range ordered(counts) {
		x := counts[n]
		same := float64(x[0] + x[1])
		ranks += float64(x[0]) * (before + (same+1)/2)
		before += same
		ties += same*same*same - same
	}
	all := a + b
	variance := a * b / 12 * ((all + 1) - ties/(all*(all-1)))
	if variance > 0 {
		c.z = (ranks - a*(a+1)/2 - a*b/2) / math.Sqrt(variance)
	}
	return c
}

// crowdAt compares the load l when the long works of s began with that when the others did. Where works are always long there
// are no others, and the crowd is empty.
func (v *view) crowdAt(s *suspect, l *load) crowd {
	var long, short []int
	for _, w := range s.works {
		_, span := v.span(w)
		if n := l.at(span.Start); s.long(w) {
			long = append(long, n)
		} else {
			short = append(short, n)
		}
	}
	return crowdOf(long, short)
}

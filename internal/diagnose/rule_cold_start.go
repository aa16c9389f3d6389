package diagnose

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	coldAway   = 10                 // times its usual pause between requests, from where a process was away
	coldMissed = 5                  // requests that its siblings served meanwhile
	coldWarm   = 10                 // later works of a process, that are not long: it has got warm
	coldIdle   = int64(time.Minute) // without a request, after which a process has cooled down
	coldRatio  = 0.6                // of the long works, that are such
	coldOfThem = 0.3                // of the first requests, that are long
	coldWindow = 0.02               // of the time of all traces, after which a process that shows up is taken for new
	maxHosts   = 4096               // processes told apart
	maxClimb   = 1000               // levels between a span and the first one of its service
)

// life is when a process was asked for something.
type life struct{ load }

// processes is the lives of processes.
type processes struct {
	numbers  *spots // service and instance
	lives    []life
	from, to int64 // when the first request began and the last one ended
	some     bool
}

func newProcesses() *processes { return &processes{numbers: newSpots()} }

// number finds the processes that the spans of t came in by.
func (p *processes) number(t *Tree, r *rolls) {
	t.process = r.numbers.cut(len(t.Spans))
	for i := range t.Spans {
		t.process[i] = -1
		if s := &t.Spans[i]; s.Kind != trace.Client && entry(t, i) {
			t.process[i] = p.of(s.Service, t.instance(i))
		}
	}
}

// of is the number of a process. Those of a service that find no room are one.
func (p *processes) of(service, instance string) int32 {
	n := p.numbers.numberUpTo(maxHosts, service, instance)
	if n < 0 {
		n = p.numbers.number(service, unknownInstance)
	}
	for len(p.lives) <= int(n) {
		p.lives = append(p.lives, life{})
	}
	return n
}

// unknownInstance is no text that an instance has.
const unknownInstance = "\x00"

// see takes in the requests of a trace.
func (p *processes) see(t *Tree) {
	for i, n := range t.process {
		if n < 0 {
			continue
		}
		s := &t.Spans[i]
		p.widen(s.Start, s.End)
		p.lives[n].add(s)
	}
}

// forget forgets all requests.
func (p *processes) forget() {
	p.from, p.to, p.some = 0, 0, false
	clear(p.lives)
}

func (p *processes) widen(from, to int64) {
	if !p.some {
		p.from, p.to, p.some = from, to, true
	}
	p.from, p.to = min(p.from, from), max(p.to, to)
}

func (p *processes) join(q *processes) {
	if q.some {
		p.widen(q.from, q.to)
	}
	for i, at := range q.numbers.list {
		p.lives[p.of(at.service, at.operation)].join(&q.lives[i].load)
	}
}

// find is the life of the process that span i ran in; nil = it is not known.
func (p *processes) find(t *Tree, i int) *life {
	if n, ok := p.numbers.index[spot{t.Spans[i].Service, t.instance(i)}]; ok {
		return &p.lives[n]
	}
	return nil
}

// colds are how many requests of a process may be its first ones, and how clearly these must then be the long ones. Where they are many,
// each such process must be seen to have got warm: else it is ill from the beginning, or other work began with it.
var colds = []struct {
	first         int
	ratio, ofThem float64 // of the long works, that are such; of these, that are long
	warm          bool    // it must be seen
}{{1, coldRatio, coldOfThem, false}, {5, coldRatio, coldOfThem, false}, {20, 0.8, 0.5, false}, {60, 0.9, 0.5, true}, {200, 0.9, 0.5, true}}

// dawns is the requests of a process, by number, with which it began, came back from where nobody called it, or was started anew.
// all is the requests of its service, by which it is known that there were any for it; nil = they need not be asked.
func (l *life) dawns(born bool, all *load) (list []int) {
	if born {
		list = append(list, 0)
	}
	pauses := make([]int64, 0, len(l.starts))
	for i := 1; i < len(l.starts); i++ {
		pauses = append(pauses, l.starts[i]-l.starts[i-1])
	}
	slices.Sort(pauses)
	away := coldAway * max(quantile(pauses, 0.5), int64(time.Millisecond))
	for i := 1; i < len(l.starts); i++ {
		from, to := l.starts[i-1], l.starts[i]
		switch {
		case to-from >= coldIdle:
		case to-from < away:
			continue
		case all != nil:
			before, _ := slices.BinarySearch(all.starts, from+1)
			after, _ := slices.BinarySearch(all.starts, to)
			if after-before < coldMissed || float64(after-before) < 0.5*all.rate()*float64(to-from)/1e9*elsewhereOf(l, all) {
				continue // it was quiet for all
			}
		}
		list = append(list, i)
	}
	return list
}

// elsewhereOf is the part of all requests that a process does not get.
func elsewhereOf(l *life, all *load) float64 {
	return 1 - float64(len(l.starts))/float64(max(len(all.starts), 1))
}

// age is how many requests the process had begun with since its last dawn when one began at that time.
func (l *life) age(dawns []int, at int64) int {
	i, _ := slices.BinarySearch(l.starts, at)
	k, found := slices.BinarySearch(dawns, i)
	if !found {
		k--
	}
	if k < 0 {
		return math.MaxInt
	}
	return i - dawns[k]
}

// coldStart finds LP116: requests that are slow because the process has just begun, or has slept.
func coldStart(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().of(trace.SegService, trace.SegGateway, trace.SegNetwork, trace.SegDownstream) {
		if s.constant {
			continue
		}
		if f, ok := v.coldFinding(s, v.world.lives()); ok {
			found = append(found, f)
		}
	}
	return found
}

// lives is when each process of each service was asked for something, and from when to when the traces are.
func (w *world) lives() *processes {
	w.living.Do(func() {
		all := newProcesses()
		for i := range w.set.shards {
			all.join(w.set.shards[i].processes)
		}
		w.clock.each(len(all.lives), func(i int) {
			w.clock.rest()
			all.lives[i].sort()
		})
		w.processes = all
	})
	return w.processes
}

func (v *view) coldFinding(s *suspect, lives *processes) (Finding, bool) {
	works := v.ages(s, lives)
	long, said := 0, 0
	for _, w := range works {
		if w.long {
			long++
			if w.told {
				said++
			}
		}
	}
	for _, c := range colds {
		cold, first := 0, 0
		warm := make(map[string]int) // later works that are not long
		hosts := make(map[string]bool)
		for _, w := range works {
			if !w.told && w.age >= c.first {
				if w.age < math.MaxInt && !w.long {
					warm[w.host]++
				}
				continue
			}
			first++
			if w.long {
				cold++
				hosts[w.host] = true
			}
		}
		for host := range hosts {
			if c.warm && warm[host] < coldWarm {
				cold = 0
			}
		}
		if cold >= leastTail && float64(cold) >= c.ratio*float64(long) && float64(cold) >= c.ofThem*float64(first) {
			return v.coldly(s, hosts, fmt.Sprintf("%d of the %d long ones are among the first %d requests of a process, or come after a time without any; %d such requests were seen", cold, long, c.first, first), said), true
		}
	}
	return Finding{}, false
}

// aged is a work, and how old its process was.
type aged struct {
	age        int // in requests; see life.age
	long, told bool
	host       string
}

// ages finds them for the works of s.
func (v *view) ages(s *suspect, lives *processes) (list []aged) {
	dawns := make(map[*life][]int)
	restarted := make(map[string]bool) // by instance, those that tell it
	for _, p := range v.facts.Of(s.service, "") {
		restarted[p.Instance] = p.Runtime != nil && p.Runtime.Restarted
	}
	for _, w := range s.works {
		t, _ := v.span(w)
		at := entrance(t, int(w.span))
		if at < 0 {
			continue
		}
		x := aged{age: math.MaxInt, long: s.long(w), host: t.instance(at), told: t.attr(at, askColdStart) == "true" || t.attr(int(w.span), askWasCold) == "true"}
		if l := lives.find(t, at); l != nil {
			if _, known := dawns[l]; !known {
				born := float64(l.starts[0]-lives.from) > coldWindow*float64(lives.to-lives.from)
				all := v.world.service(s.service)
				if restarted[x.host] || restarted[""] {
					all = nil
				}
				dawns[l] = l.dawns(born, all)
			}
			x.age = l.age(dawns[l], t.Spans[at].Start)
		}
		list = append(list, x)
	}
	return list
}

func (v *view) coldly(s *suspect, hosts map[string]bool, evidence string, said int) Finding {
	f := v.finding("LP116", "cold_start", s, 0.65)
	f.Detail.Instances = ordered(hosts)
	f.Summary = fmt.Sprintf("%s %s is slow when a process of %s has just begun or has slept: %s", s.service, s.operation, s.service, s.part())
	f.Evidence = append(f.Evidence, evidence)
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
	return f
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

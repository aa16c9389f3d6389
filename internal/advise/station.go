package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// When a queue is a queue.
const (
	quiet     = 0.2  // of the workers' time, below which nobody waits for them
	soaked    = 0.98 // above which a queue has no mean: more comes than goes
	leastJobs = 100
)

// A station is a service with workers and the calls that wait for one, as the traces show it: the time between the
// caller's span and the callee's. Endpoints are alike, each with a queue of its own.
type station struct {
	jobs      []job
	spans     []ref
	endpoints int
	servers   int     // at each endpoint: the most calls that were served at once
	perSecond float64 // at each endpoint
	mean      float64 // service time, ns
	service   float64 // squared coefficient of variation of service times
	arrivals  float64 // of the times between calls
	waited    float64 // mean, ns
}

// job is one call at a station.
type job struct {
	ref               // the caller's span
	host       string // that served it
	begin, end int64  // of its service, ns since the Unix epoch
	wait       int64  // ns
	rank       float64
	beside     int // calls that were served at its endpoint when it began, itself included
}

// station is how the calls of a target queue; nil when the traces do not tell.
func (c *corpus) station(t target) *station {
	if c.stations == nil {
		c.stations = make(map[target]*station)
	}
	st, ok := c.stations[t]
	if !ok {
		st = c.observe(t)
		c.stations[t] = st
	}
	return st
}

func (c *corpus) observe(t target) *station {
	st := &station{}
	var gaps, service dist
	for _, r := range c.callsTo(t) {
		line := c.traces[r.trace]
		k := line.servedBy(r.span)
		if k == r.span || line.weight > 1 {
			continue // a sample tells neither the rate nor the workers
		}
		s := &line.spans[k]
		st.spans = append(st.spans, r)
		st.jobs = append(st.jobs, job{ref: r, host: hostOf(line, k), begin: s.Start, end: s.End, wait: max(0, s.Start-line.spans[r.span].Start)})
		gaps.add(st.jobs[len(st.jobs)-1].wait, 1)
		service.add(line.recorded(k), 1)
	}
	if len(st.jobs) < leastJobs {
		return nil
	}
	gaps.sort()
	service.sort()
	trip := gaps.quantile(0.001) // hardly any call finds a worker at once where a queue does not end
	slices.SortFunc(st.jobs, func(a, b job) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.trace, b.trace))
	})
	for i := range st.jobs {
		st.jobs[i].wait = max(0, st.jobs[i].wait-trip)
		st.waited += float64(st.jobs[i].wait) / float64(len(st.jobs))
	}
	st.mean, st.service = service.moments()
	st.watch()
	st.order()
	if st.perSecond == 0 || st.servers == 0 {
		return nil
	}
	return st
}

// watch counts endpoints, workers and arrivals.
func (st *station) watch() {
	hosts, at := make(map[string][]job), make(map[ref]*job, len(st.jobs))
	for i, j := range st.jobs {
		hosts[j.host] = append(hosts[j.host], j)
		at[j.ref] = &st.jobs[i]
	}
	st.endpoints = len(hosts)
	first, last := st.jobs[0].begin, st.jobs[len(st.jobs)-1].begin
	var gaps dist
	for _, jobs := range hosts {
		came, ends := make([]int64, len(jobs)), make([]int64, len(jobs))
		for i, j := range jobs {
			came[i], ends[i] = j.begin-j.wait, j.end
		}
		slices.Sort(came)
		slices.Sort(ends)
		done := 0
		for i, j := range jobs { // in order of their begin
			for done < i && ends[done] <= j.begin {
				done++
			}
			at[j.ref].beside = i + 1 - done
			st.servers = max(st.servers, i+1-done)
		}
		for i := 1; i < len(came); i++ {
			gaps.add(came[i]-came[i-1], 1)
		}
	}
	gaps.sort()
	_, st.arrivals = gaps.moments()
	if last > first {
		st.perSecond = float64(len(st.jobs)) / float64(st.endpoints) / (float64(last-first) / 1e9)
	}
}

// order gives each job the rank of its wait. Those that did not wait have ranks in the order of their trace IDs, which
// has nothing to do with anything.
func (st *station) order() {
	by := make([]int, len(st.jobs))
	for i := range by {
		by[i] = i
	}
	slices.SortFunc(by, func(a, b int) int { return cmp.Or(cmp.Compare(st.jobs[a].wait, st.jobs[b].wait), cmp.Compare(a, b)) })
	for at, i := range by {
		st.jobs[i].rank = (float64(at) + 0.5) / float64(len(by))
	}
}

// busy is the share of the workers' time that is used.
func (st *station) busy() float64 {
	return st.perSecond * st.mean / 1e9 / float64(st.servers)
}

// waiting is the model of a queue: the probability to wait, and the mean wait in ns of all calls.
//
// Source: Erlang's C formula, with the correction for variation of Allen and Cunneen (Allen, Probability, Statistics and
// Queueing Theory, 1990). The wait of those that wait is taken as exponential, as it is in heavy traffic (Kingman 1962).
func (st *station) waiting(rate, service float64, servers int) (probability, mean float64) {
	load := min(rate*service/1e9, soaked*float64(servers))
	probability = erlangC(servers, load)
	variation := (min(st.arrivals, 4) + st.service) / 2
	return probability, probability * variation * service / (float64(servers) - load)
}

// erlangC is the probability that all of n servers are busy under a load of that many of them.
func erlangC(n int, load float64) float64 {
	blocked := 1.0 // Erlang's B, by its recursion
	for k := 1; k <= n; k++ {
		blocked = load * blocked / (float64(k) + load*blocked)
	}
	busy := load / float64(n)
	return blocked / (1 - busy*(1-blocked))
}

// remap is the plan in which calls come rate times as often to an endpoint, take service times as long to serve, and
// find that many workers. A call keeps its rank: who waited longest does so still. What the model gets wrong of today's
// mean wait it is taken to get wrong of tomorrow's.
func (st *station) remap(rate, service float64, servers int) plan {
	_, before := st.waiting(st.perSecond, st.mean, st.servers)
	probability, mean := st.waiting(st.perSecond*rate, st.mean*service, servers)
	least := 0.0
	if rate*service > 1 || servers < st.servers {
		least = 0.25 // nobody waits today, but more load will tell
	}
	return st.waits(probability, mean*min(max(share(st.waited, before), least), 4))
}

// aside is the plan in which the calls have so many workers of each endpoint to themselves.
func (st *station) aside(servers int) plan {
	return st.waits(st.waiting(st.perSecond, st.mean, servers))
}

// waits is the plan in which calls wait with that probability, and all of them mean ns in the mean.
func (st *station) waits(probability, mean float64) plan {
	here := make(map[int][]*job)
	for i := range st.jobs {
		here[st.jobs[i].trace] = append(here[st.jobs[i].trace], &st.jobs[i])
	}
	return plan{spans: st.spans, doubt: modelDoubt, apply: func(_, n int, e *edit) {
		for _, j := range here[n] {
			wait := 0.0
			if tail := 1 - j.rank; tail < probability {
				wait = mean / probability * math.Log(probability/tail)
			}
			e.add(j.span, int64(wait)-j.wait)
		}
	}}
}

// scaled is the plan in which a target has to endpoints in place of from; from 0 = those that the traces show. reason
// says why there is no forecast.
func (c *corpus) scaled(t target, from, to int) (p plan, reason string) {
	st := c.station(t)
	if st == nil {
		return plan{}, fmt.Sprintf("the traces do not tell how calls of %s queue: that takes %d calls, each recorded, with spans of both sides", t, leastJobs)
	}
	if from == 0 {
		from = st.endpoints
	}
	p = st.remap(float64(from)/float64(to), 1, st.servers)
	p.notes = []string{st.describe(t)}
	return p, ""
}

// describe is the station in a sentence.
func (st *station) describe(t target) string {
	return fmt.Sprintf("%s: %.1f calls/s at each of %d endpoints, each with %d workers that are %.0f%% busy; a call takes %.1f ms and waits %.1f ms before (means)",
		t, st.perSecond, st.endpoints, st.servers, 100*st.busy(), st.mean/1e6, st.waited/1e6)
}

// relieved is the plan in which a share of the calls of a target is refused at once. The forecast is for the calls that
// are served.
func (c *corpus) relieved(t target, refused float64) (p plan, reason string) {
	st := c.station(t)
	if st == nil {
		return plan{}, fmt.Sprintf("the traces do not tell how calls of %s queue", t)
	}
	p = st.remap(1-refused, 1, st.servers)
	p.rounds = 4
	here := byTrace(st.spans)
	p.served = func(round, n, _ int) bool {
		for _, i := range here[n] {
			if random(&c.traces[n].spans[i], round).Float64() < refused {
				return false
			}
		}
		return true
	}
	p.notes = []string{st.describe(t), fmt.Sprintf("the forecast is for the calls that are served; %.0f%% are refused", 100*refused)}
	return p, ""
}

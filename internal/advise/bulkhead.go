package advise

import (
	"fmt"
	"math"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/limit"
)

// queuedCalls is how many calls may wait for each that runs: what is held back at a bulkhead is held back on purpose, and a long queue refuses
// less of it.
const queuedCalls = 8

// hogShare is the share of the workers' time from which one operation of several is what the others wait for.
const hogShare = 0.5

// occupant is an operation that shares the workers of a service with others.
type occupant struct {
	target target
	load   float64 // workers that it keeps busy in the mean
	calls  int
}

// occupants are the operations of a service by its recorded calls, and the one that takes most of the workers' time.
func (st *station) occupants(c *corpus, service string) (all []*occupant, hog *occupant) {
	by := make(map[string]*occupant)
	first, last := st.jobs[0].begin, st.jobs[len(st.jobs)-1].begin
	for i := range st.jobs {
		j := &st.jobs[i]
		line := c.traces[j.trace]
		name := line.spans[line.servedBy(j.span)].Name
		o := by[name]
		if o == nil {
			o = &occupant{target: target{service, name}}
			by[name] = o
			all = append(all, o) // in the order of their first calls
		}
		o.calls++
		o.load += float64(j.end-j.begin) / float64(last-first)
	}
	for _, o := range all {
		if hog == nil || o.load > hog.load {
			hog = o
		}
	}
	return all, hog
}

// bulkhead keeps room for the calls of a service that wait behind those of another operation: no more of these at once than leave workers to the
// others. ok is false where no such operation is known, or where the gateway has no route of its own for it.
func (s *situation) bulkhead() (a Action, ok bool) {
	st := s.corpus.station(target{service: s.finding.Service})
	if s.finding.Code != "LP107" || st == nil || st.busy() <= healthyBusy {
		return Action{}, false
	}
	all, hog := st.occupants(s.corpus, s.finding.Service)
	var victim *occupant
	total := 0.0
	for _, o := range all {
		total += o.load
		if o != hog && (victim == nil || o.calls > victim.calls || o.target.operation == s.finding.Operation) {
			victim = o
		}
	}
	workers := st.servers * st.endpoints
	kept := int(math.Ceil((total - hog.load) / healthyBusy))
	permits := workers - kept
	if victim == nil || victim.calls < minCalls || hog.load < hogShare*total || kept < 1 || permits < 1 || hog.load < hogShare*float64(permits) {
		return Action{}, false
	}
	route, observe := s.corpus.routeOf(s.corpus.callsTo(hog.target)), s.corpus.routeOf(s.corpus.callsTo(victim.target))
	others := s.corpus.station(victim.target)
	if route == "" || observe == "" || route == observe || others == nil || s.current[route].Limit != nil {
		return Action{}, false
	}
	change, ok := s.edit(route, func(c longpole.Config) longpole.Config {
		c.Limit = &limit.Config{Algorithm: limit.Fixed, Limit: permits, Queue: &limit.Queue{Length: queuedCalls * permits}}
		return c
	})
	if !ok {
		return Action{}, false
	}
	a = Action{
		Kind: KindLimit, Change: change, Turns: true, Observe: observe, Shed: price(hog.load, float64(permits)),
		Effects: s.forecast(others.aside(max(1, kept/st.endpoints))),
		Summary: fmt.Sprintf("let no more than %d calls of %s run at once: they keep %.1f of the %d workers of %s busy, and those of %s wait behind them",
			permits, route, hog.load, workers, s.finding.Service, observe),
		Benefit: fmt.Sprintf("%d of %d workers are left to the others", kept, workers),
		Risk:    "what is limited waits at the gateway, and is refused when more comes for good; the workers that are left may stand idle meanwhile",
	}
	a.Cost = fmt.Sprintf("calls of %s wait for longer, and up to %.0f%% of them are refused", route, 100*a.Shed)
	return a, true
}

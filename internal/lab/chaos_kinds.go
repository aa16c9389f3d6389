package lab

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/scenario"
)

// The reactions of protective policies, as hypotheses and reports call them.
const (
	Retried   = "a retry"
	Hedged    = "a hedge"
	HedgeWon  = "a hedge that won"
	Opened    = "an open breaker"
	Ejected   = "an ejection"
	Back      = "a readmission"
	Shed      = "a refusal by a limit"
	Stale     = "a stale answer"
	Coalesced = "a shared fetch"
	CutOff    = "a timeout of an attempt"
	Unfit     = "a failed health check"
)

// fitting is every kind that the topology has a place for, in a fixed order.
func (d *drawing) fitting() []kindOf {
	var all []kindOf
	for _, k := range []kindOf{
		{scenario.Delay, d.replicas(false), (*drawing).delay},
		{scenario.Errors, d.replicas(false), (*drawing).errors},
		{scenario.Blackhole, d.replicas(true), (*drawing).blackhole},
		{scenario.Restart, d.replicas(false), (*drawing).restart},
		{Flapping, d.replicas(true), (*drawing).flapping},
		{scenario.Pause, d.replicas(false), (*drawing).pause},
		{Abort, d.replicas(true), (*drawing).abort},
		{Severed, d.replicas(true), (*drawing).severed},
		{scenario.Burn, d.computing(), (*drawing).burn},
		{scenario.Region, d.whole(), (*drawing).region},
		{scenario.Skew, d.whole(), (*drawing).skew},
		{scenario.DropIndex, d.indexes(), (*drawing).index},
		{scenario.Stale, d.indexes(), (*drawing).stale},
		{scenario.LockTable, d.updated(), (*drawing).lock},
		{scenario.Flush, d.caches(), (*drawing).flush},
		{scenario.Workers, d.queues(), (*drawing).workers},
		{scenario.Overload, []place{{}}, (*drawing).overload},
		{Crash, d.servers(), (*drawing).crash},
	} {
		if len(k.places) > 0 {
			all = append(all, k)
		}
	}
	return all
}

// replicas is one of the replicas of each service that has several, and, where that is not asked for, services of one replica.
func (d *drawing) replicas(redundant bool) []place {
	var all []place
	for i := range d.spec.Services {
		x := &d.spec.Services[i]
		switch {
		case x.Replicas > 1 && d.shields[x.Name].behind:
			all = append(all, place{service: x, replica: x.Replicas})
		case !redundant && d.visits(x.Name) > 0:
			all = append(all, place{service: x})
		}
	}
	return all
}

func (d *drawing) whole() []place {
	var all []place
	for i := range d.spec.Services {
		if d.visits(d.spec.Services[i].Name) > 0 {
			all = append(all, place{service: &d.spec.Services[i]})
		}
	}
	return all
}

// computing is the services that burn processor time.
func (d *drawing) computing() []place {
	var all []place
	for _, p := range d.whole() {
		for _, o := range p.service.Operations {
			if anyStep(o.Steps, func(s *scenario.Step) bool { return s.CPU != nil }) {
				all = append(all, p)
				break
			}
		}
	}
	return all
}

// indexes is the indexed columns by which statements look rows up, of tables that the store could also read from end to end in time.
func (d *drawing) indexes() []place {
	var all []place
	for i := range d.spec.Stores {
		x := &d.spec.Stores[i]
		for _, t := range x.Tables {
			for _, column := range t.Indexes {
				statements := d.statements(func(q *scenario.Query) bool { return q.Store == x.Name && q.Table == t.Name && q.Where == column })
				perSecond := statements * d.rate()
				if statements > 0 && perSecond*throughTime(t).Seconds() < 0.5*float64(x.Cores) {
					all = append(all, place{store: x, table: t.Name, column: column})
				}
			}
		}
	}
	return all
}

// throughTime is what reading a table from end to end takes.
func throughTime(t scenario.Table) time.Duration {
	return time.Duration(t.Rows) * 200 * time.Nanosecond
}

func (d *drawing) updated() []place {
	var all []place
	for i := range d.spec.Stores {
		x := &d.spec.Stores[i]
		for _, t := range x.Tables {
			if d.statements(func(q *scenario.Query) bool { return q.Store == x.Name && q.Table == t.Name && q.Verb == "update" }) > 0 {
				all = append(all, place{store: x, table: t.Name})
			}
		}
	}
	return all
}

func (d *drawing) caches() []place {
	var all []place
	for _, x := range d.spec.Caches {
		all = append(all, place{other: x.Name})
	}
	return all
}

func (d *drawing) queues() []place {
	var all []place
	for _, x := range d.spec.Queues {
		if x.Workers > 1 {
			all = append(all, place{other: x.Name})
		}
	}
	return all
}

// servers is what the servers hold that may be killed.
func (d *drawing) servers() []place {
	var all []place
	for i := range d.spec.Stores {
		all = append(all, place{store: &d.spec.Stores[i], server: inStores})
	}
	for _, x := range d.spec.Caches {
		all = append(all, place{other: x.Name, server: inCaches})
	}
	for _, x := range d.spec.Queues {
		all = append(all, place{other: x.Name, server: inQueues})
	}
	return slices.DeleteFunc(all, func(p place) bool { return !d.mortal[p.server] })
}

// rate is the calls of clients a second.
func (d *drawing) rate() (perSecond float64) {
	for _, r := range d.spec.Load.Routes {
		perSecond += r.Rate
	}
	return perSecond
}

// visits is how often the busiest call of a client comes to a service, one after the other; 0 = never.
func (d *drawing) visits(service string) float64 {
	return d.most(func(s *scenario.Step) float64 {
		if s.Call != nil && serviceOf(s.Call.To) == service {
			return float64(s.Call.Repeat)
		}
		return 0
	}, service)
}

// statements is how many of those that pick wants the busiest call of a client makes.
func (d *drawing) statements(pick func(*scenario.Query) bool) float64 {
	return d.most(func(s *scenario.Step) float64 {
		if s.Query != nil && pick(s.Query) {
			return float64(s.Query.Repeat)
		}
		return 0
	}, "")
}

// most adds up what count finds below each route of the load, and returns the largest sum. The entry service counts once itself.
func (d *drawing) most(count func(*scenario.Step) float64, service string) float64 {
	var below func(steps []scenario.Step) float64
	below = func(steps []scenario.Step) (n float64) {
		for i := range steps {
			s := &steps[i]
			n += count(s) + below(s.Parallel)
			if s.Call == nil {
				continue
			}
			if o := d.operation(s.Call.To); o != nil {
				n += float64(s.Call.Repeat) * below(o.Steps)
			}
		}
		return n
	}
	highest := 0.0
	for _, r := range d.spec.Load.Routes {
		n := 0.0
		if serviceOf(r.To) == service {
			n = 1
		}
		if o := d.operation(r.To); o != nil {
			n += below(o.Steps)
		}
		highest = max(highest, n)
	}
	return highest
}

func serviceOf(to string) string {
	for i := range to {
		if to[i] == '.' {
			return to[:i]
		}
	}
	return to
}

func (d *drawing) operation(to string) *scenario.Operation {
	service := serviceOf(to)
	if x := d.spec.Service(service); x != nil && len(to) > len(service) {
		return x.Operation(to[len(service)+1:])
	}
	return nil
}

// anyStep reports whether is holds for one of the steps or of those within.
func anyStep(steps []scenario.Step, is func(*scenario.Step) bool) bool {
	for i := range steps {
		if is(&steps[i]) || anyStep(steps[i].Parallel, is) {
			return true
		}
	}
	return false
}

// Bounds that all hypotheses share. They are wide, for a p99 of a few seconds is that of a few calls.
const (
	noise   = 100 * time.Millisecond // of p99, beside any factor
	fewFail = 0.02
)

// harmless is the hypothesis that clients feel little.
func harmless() Hypothesis {
	return Hypothesis{MaxErrors: fewFail, Factor: 3, Plus: noise, Recovery: 3 * time.Second}
}

// lost is the hypothesis about one of several replicas that fails its calls at once. Retries hide as much as their budget bears;
// what is more shows until the replica is out.
func (d *drawing) lost(p place) Hypothesis {
	h, s := harmless(), d.shields[p.service.Name]
	share := 1 / float64(p.service.Replicas)
	switch {
	case s.ejects:
		h.Within, h.Reacts = 3*time.Second, []string{Ejected}
	case s.breaks:
		h.Within, h.Reacts = 8*time.Second, []string{Opened, Retried}
	case s.retries:
		h.MaxErrors += max(0, share-s.budget)
	default:
		h.MaxErrors += share
	}
	if s.retries && len(h.Reacts) > 0 && h.Reacts[0] == Ejected {
		h.Reacts = append(h.Reacts, Retried)
	}
	if d.sheltered(p.service.Name) {
		h.Reacts = nil
	}
	h.Recovery = max(h.Recovery, s.reopen+3*time.Second)
	return h
}

// sheltered reports whether a cache stands before a service, so that it may get too few calls for any policy to notice.
func (d *drawing) sheltered(service string) bool {
	behind := func(s *scenario.Step) bool {
		return s.Call != nil && s.Call.Cache != nil && serviceOf(s.Call.To) == service
	}
	for i := range d.spec.Services {
		for _, o := range d.spec.Services[i].Operations {
			if anyStep(o.Steps, behind) {
				return true
			}
		}
	}
	return d.shields[service].kept
}

// all is the hypothesis about a share of the calls to all replicas that fails.
func (d *drawing) all(p place, share float64) Hypothesis {
	h, s := harmless(), d.shields[p.service.Name]
	if s.retries {
		h.MaxErrors += max(share*share, share-s.budget)
		h.Reacts = []string{Retried}
		if d.sheltered(p.service.Name) {
			h.Reacts = nil
		}
	} else {
		h.MaxErrors += 1.5 * share * max(1, d.visits(p.service.Name))
	}
	h.Recovery = max(h.Recovery, s.reopen+3*time.Second)
	return h
}

func (d *drawing) delay(p place) Drawn {
	median := d.between(100*time.Millisecond, 300*time.Millisecond)
	share := 1.0
	if p.replica == 0 {
		share = 0.3
	}
	x := Drawn{What: fmt.Sprintf("%.0f %% of its calls take %s longer in the median", 100*share, median)}
	x.fault = scenario.Fault{Kind: scenario.Delay, Service: p.service.Name, Replica: p.replica, Share: share, Delay: &scenario.Dist{Median: median, P99: 2 * median}}
	h, s := harmless(), d.shields[p.service.Name]
	switch {
	case p.replica > 0 && s.ejects:
		h.Within, h.Reacts = 8*time.Second, []string{Ejected, Hedged}
		if !s.hedges {
			h.Reacts = h.Reacts[:1]
		}
	case p.replica > 0 && s.hedges:
		h.Within, h.Reacts = 3*time.Second, []string{Hedged}
		h.Plus += 2 * median // what the budget of hedges does not cover waits to the end
	default:
		h.Plus += time.Duration(2 * float64(median) * d.visits(p.service.Name))
	}
	if d.sheltered(p.service.Name) && len(h.Reacts) > 0 { // too few calls for anybody to notice, and enough to feel
		h.Reacts, h.Plus = nil, noise+2*median
	}
	x.Hypothesis = h
	return x
}

func (d *drawing) errors(p place) Drawn {
	if p.replica > 0 {
		x := Drawn{What: "it fails all calls at once", Hypothesis: d.lost(p)}
		x.fault = scenario.Fault{Kind: scenario.Errors, Service: p.service.Name, Replica: p.replica, Share: 1, Status: 503}
		return x
	}
	share := float64(5+d.random.IntN(11)) / 100
	x := Drawn{What: fmt.Sprintf("it fails %.0f %% of its calls at once", 100*share), Hypothesis: d.all(p, share)}
	x.fault = scenario.Fault{Kind: scenario.Errors, Service: p.service.Name, Share: share, Status: 503}
	return x
}

func (d *drawing) blackhole(p place) Drawn {
	x := Drawn{What: "it takes calls and never answers"}
	x.fault = scenario.Fault{Kind: scenario.Blackhole, Service: p.service.Name, Replica: p.replica, Share: 1}
	h, s := harmless(), d.shields[p.service.Name]
	switch {
	case s.try > 0 && s.ejects:
		h.Within, h.Reacts = s.try+3*time.Second, []string{Ejected}
	case s.try > 0:
		h = d.lost(p)
		h.Plus += 2 * s.try
	default: // nothing ends the wait but the timeout of the call, or the client's
		h.MaxErrors, h.Factor = 1/float64(p.service.Replicas)+0.1, 0
	}
	if d.sheltered(p.service.Name) {
		h.Reacts = nil
	}
	h.Recovery = max(h.Recovery, s.reopen+3*time.Second)
	x.Hypothesis = h
	x.Hypothesis.orUnfit()
	return x
}

// orUnfit adds to the reactions that are wanted, if any is, that of the health checks, which the replica does not answer either: where
// the balancer avoids it, they may be the first to say so.
func (h *Hypothesis) orUnfit() {
	if len(h.Reacts) > 0 {
		h.Reacts = append(h.Reacts, Unfit)
	}
}

func (d *drawing) restart(p place) Drawn {
	x := Drawn{What: "its process ends, and begins anew"}
	x.fault = scenario.Fault{Kind: scenario.Restart, Service: p.service.Name, Replica: p.replica, Share: 1, For: time.Second}
	if p.replica > 0 {
		x.Hypothesis = d.lost(p)
		x.Hypothesis.orUnfit()
		x.Hypothesis.Recovery += 2 * time.Second // of slow first calls
		return x
	}
	x.most = d.between(time.Second, 2*time.Second)
	x.Hypothesis = Hypothesis{MaxErrors: 1, Recovery: 2*d.shields[p.service.Name].reopen + 4*time.Second}
	return x
}

func (d *drawing) flapping(p place) Drawn {
	x := Drawn{What: fmt.Sprintf("it fails all calls for %s, and none for %s, in turns", flapTime, flapTime), Hypothesis: d.lost(p), flaps: true}
	x.fault = scenario.Fault{Kind: scenario.Errors, Service: p.service.Name, Replica: p.replica, Share: 1, Status: 500}
	x.Hypothesis.MaxErrors += 0.02
	return x
}

func (d *drawing) pause(p place) Drawn {
	length := d.between(300*time.Millisecond, 900*time.Millisecond)
	x := Drawn{What: fmt.Sprintf("its process stands still for %s", length), Hypothesis: harmless(), most: 2 * time.Second}
	x.fault = scenario.Fault{Kind: scenario.Pause, Service: p.service.Name, Replica: p.replica, Share: 1, For: length}
	x.Hypothesis.Plus += length
	return x
}

func (d *drawing) abort(p place) Drawn {
	x := Drawn{What: "the gateway answers 503 in its place", Hypothesis: d.lost(p)}
	x.fault = scenario.Fault{Service: p.service.Name, Replica: p.replica}
	x.own = fault.Config{Share: 1, At: fault.AtAttempt, Abort: 503}
	return x
}

func (d *drawing) severed(p place) Drawn {
	x := Drawn{What: "the gateway breaks the connections to it off", Hypothesis: d.lost(p)}
	x.fault = scenario.Fault{Service: p.service.Name, Replica: p.replica}
	x.own = fault.Config{Share: 1, At: fault.AtAttempt, Reset: fault.BeforeHead}
	return x
}

func (d *drawing) burn(p place) Drawn {
	factor := 1.5 + float64(d.random.IntN(16))/10
	x := Drawn{What: fmt.Sprintf("it computes %.1f times as long", factor), Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Burn, Service: p.service.Name, Share: 1, Factor: factor}
	x.Hypothesis.Factor = 1 + 2*factor
	return x
}

func (d *drawing) region(p place) Drawn {
	median := d.between(20*time.Millisecond, 60*time.Millisecond)
	x := Drawn{What: fmt.Sprintf("its network takes %s longer in the median", median), Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Region, Service: p.service.Name, Share: 1, Delay: &scenario.Dist{Median: median, P99: 2 * median}}
	x.Hypothesis.Plus += time.Duration(2 * float64(median) * d.visits(p.service.Name))
	return x
}

func (d *drawing) skew(p place) Drawn {
	x := Drawn{What: "its clock is 2 s ahead", Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Skew, Service: p.service.Name, Share: 1, Skew: 2 * time.Second}
	return x
}

func (d *drawing) index(p place) Drawn { return d.scanned(p, scenario.DropIndex) }

func (d *drawing) stale(p place) Drawn { return d.scanned(p, scenario.Stale) }

// scanned is both faults of an index: it is gone, or the planner ignores it.
func (d *drawing) scanned(p place, kind string) Drawn {
	var through time.Duration
	for _, t := range p.store.Tables {
		if t.Name == p.table {
			through = throughTime(t)
		}
	}
	x := Drawn{What: fmt.Sprintf("%s is read from end to end, which takes %s", p.table, through), Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: kind, Store: p.store.Name, Table: p.table, Column: p.column, Share: 1}
	n := d.statements(func(q *scenario.Query) bool { return q.Store == p.store.Name && q.Table == p.table })
	x.Hypothesis.Plus += time.Duration(4 * n * float64(through))
	return x
}

func (d *drawing) lock(p place) Drawn {
	x := Drawn{What: "a session keeps the rows of " + p.table + " locked", most: d.between(time.Second, 2*time.Second), Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.LockTable, Store: p.store.Name, Table: p.table, Share: 1}
	x.Hypothesis.Plus += 2 * x.most
	x.Hypothesis.Recovery = 5 * time.Second
	waits := func(s *scenario.Step) bool {
		return s.Query != nil && s.Query.Store == p.store.Name && s.Query.Table == p.table && s.Query.Verb == "update"
	}
	if d.cutOff(waits, x.most) { // what waits for the lock is given up, and tried again in vain
		x.Hypothesis.MaxErrors += d.needing(waits)
		x.Hypothesis.Reacts = []string{CutOff}
		x.Hypothesis.Recovery = max(x.Hypothesis.Recovery, d.reopened())
	}
	return x
}

func (d *drawing) flush(p place) Drawn {
	x := Drawn{What: "it is emptied", Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Flush, Cache: p.other, Share: 1}
	x.Hypothesis.Factor, x.Hypothesis.Plus = 5, 2*noise
	return x
}

func (d *drawing) workers(p place) Drawn {
	x := Drawn{What: "one worker is left", Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Workers, Queue: p.other, Workers: 1, Share: 1}
	return x
}

// crash expects that a cache is missed by nobody, and that a store or queue takes with it the calls that need it, and no others.
func (d *drawing) crash(p place) Drawn {
	x := Drawn{What: "its server is killed, and started again", crashes: p.server, most: d.between(time.Second, 2*time.Second)}
	x.Hypothesis = harmless()
	if p.server == inCaches {
		x.Hypothesis.Factor, x.Hypothesis.Plus = 5, 2*noise
		return x
	}
	x.Hypothesis.MaxErrors += d.needing(func(s *scenario.Step) bool {
		return s.Query != nil && p.store != nil && s.Query.Store == p.store.Name || s.Publish != nil && s.Publish.Queue == p.other
	})
	x.Hypothesis.Factor, x.Hypothesis.Recovery = 0, max(x.Hypothesis.Recovery, d.reopened())
	return x
}

// reopened is when breakers that all opened for what stands behind their services let calls through again.
func (d *drawing) reopened() (most time.Duration) {
	for _, s := range d.shields {
		most = max(most, 2*s.reopen+4*time.Second)
	}
	return most
}

// cutOff reports whether the attempts of calls to a service with such a step are given up before the step has waited for so long.
func (d *drawing) cutOff(is func(*scenario.Step) bool, wait time.Duration) bool {
	return slices.ContainsFunc(d.spec.Services, func(x scenario.Service) bool {
		try := d.shields[x.Name].try
		return try > 0 && try < wait && slices.ContainsFunc(x.Operations, func(o scenario.Operation) bool { return anyStep(o.Steps, is) })
	})
}

// needing is the share of the clients' calls that come to such a step.
func (d *drawing) needing(is func(*scenario.Step) bool) float64 {
	var below func(steps []scenario.Step) bool
	below = func(steps []scenario.Step) bool {
		return anyStep(steps, func(s *scenario.Step) bool {
			if is(s) {
				return true
			}
			if s.Call == nil {
				return false
			}
			o := d.operation(s.Call.To)
			return o != nil && below(o.Steps)
		})
	}
	need := 0.0
	for _, r := range d.spec.Load.Routes {
		if o := d.operation(r.To); o != nil && below(o.Steps) {
			need += r.Rate
		}
	}
	return need / d.rate()
}

func (d *drawing) overload(place) Drawn {
	factor := 1.5 + float64(d.random.IntN(16))/10
	x := Drawn{What: fmt.Sprintf("they call %.1f times as often", factor), Hypothesis: harmless()}
	x.fault = scenario.Fault{Kind: scenario.Overload, Factor: factor, Share: 1}
	x.Hypothesis.Factor, x.Hypothesis.Plus, x.Hypothesis.Recovery = 5, 2*noise, 5*time.Second
	for _, r := range d.spec.Load.Routes {
		if d.shields[serviceOf(r.To)].sheds {
			x.Hypothesis.MaxErrors += 1 - 1/factor // what is too much is refused
			break
		}
	}
	return x
}

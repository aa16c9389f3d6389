package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/limit"
)

var limitEntry = entry{
	kind: KindLimit, step: StepGuard, answers: []string{"LP123", "LP107", "LP112"}, cure: shed, plain: true,
	needs: []string{"calls say how important they are, or all are alike", "callers treat 503 with Retry-After as an answer"},
	watch: []string{"longpole_calls_total of class shed, by route", "goodput of the callee: it must not fall", "p99 of the calls that are served"},
}

// shed guards a service that is asked for more than it can do: no more calls in flight than help, the important first.
func shed(s *situation) (Action, string) {
	if a, ok := s.bulkhead(); ok {
		return a, ""
	}
	t := targetOf(s.finding)
	calls := s.calls()
	route := s.corpus.routeOf(calls)
	if s.finding.Code == "LP123" {
		route = cmp.Or(s.frontDoor(calls), route)
	}
	if s.current[route].Limit != nil {
		return Action{}, "no limit: the route has one already"
	}
	st := s.corpus.station(t)
	if s.finding.Code == "LP112" && (st == nil || st.busy() <= healthyBusy) {
		return Action{}, "no limit: nothing shows that more comes than can be served, so that it would refuse calls for nothing"
	}
	a := Action{
		Kind:    KindLimit,
		Summary: fmt.Sprintf("let no more calls of %s run at once than it can use, with a short queue in which the important ones go first", s.callee(route)),
		Benefit: "under overload what is served stays fast, and nothing is worked on that nobody waits for any more",
		Cost:    "calls beyond the limit are refused",
		Risk:    "a client that tries refused calls again at once makes it worse: the answer carries Retry-After",
		Turns:   true,
	}
	if st != nil {
		s.weigh(&a, st, route)
	}
	how := func(c longpole.Config) longpole.Config {
		c.Limit = &limit.Config{Queue: &limit.Queue{}}
		if st != nil {
			k := s.corpus.kneeAt(route, st.knee(s.corpus))
			c.Limit.Limit, c.Limit.Max, c.Limit.Queue.Length = k.limit, max(1000, 4*k.limit), queued(k.limit)
			if k.shared {
				c.Limit.MaxLatency = roundUp(int64(slowFactor * k.mean))
			}
		}
		return c
	}
	if change, ok := s.edit(route, how); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.callee(""), longpole.Config{}, how(longpole.Config{}))
	}
	return a, ""
}

// weigh says what the limit costs, and what it brings to the calls that are served.
func (s *situation) weigh(a *Action, st *station, route string) {
	asked, served := s.corpus.answeredShare(route)
	var p plan
	refused := 1 - served/asked
	switch {
	case s.finding.Code == "LP123":
		p = s.corpus.capped(targetOf(s.finding), st.knee(s.corpus), refused)
	case st.busy() > healthyBusy:
		refused = 1 - healthyBusy/st.busy()
		p, _ = s.corpus.relieved(targetOf(s.finding), refused)
	default:
		return
	}
	a.Effects, a.ExtraLoad, a.Shed = s.forecast(p), -refused, price(asked, min(served, asked*(1-refused)))
	a.Cost = fmt.Sprintf("refuses up to %.0f%% of the calls while the overload lasts, %.0f%% at the load of now; the forecast is for the others", 100*a.Shed, 100*refused)
	a.Risk += "; " + p.notes[0]
}

// knee is where more calls at once bring no more answers.
type knee struct {
	limit     int     // calls at once, at all endpoints together
	perSecond float64 // that are answered
	quick     []int64 // ns that the quickest calls take, sorted
	mean      float64 // of these
	shared    bool    // the calls share what they are served by: more of them take longer each
}

// What the knee goes by.
const (
	alone      = 10  // calls, those with the fewest others beside them
	quickest   = 5   // calls: a queue that has built up once was short for that few
	sharedFrom = 2.0 // times as long as the former, from where calls share what they are served by
	slowFactor = 3.0 // times what the quickest take, from where an answer says that too many share
	kneeRoom   = 1.5 // times the knee, so that there is always one that is ready
)

// knee is the number of workers, unless the calls share them: those of a service that shares its processors among all that it has taken
// in take longer the more of them there are. Then it is by Little's law the rate of the answers times what the quickest calls take.
func (st *station) knee(c *corpus) knee {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	var done []*job
	for i := range st.jobs {
		j := &st.jobs[i]
		line := c.traces[j.trace]
		if first, last = min(first, j.begin), max(last, j.end); !line.failed(line.servedBy(j.span)) {
			done = append(done, j)
		}
	}
	k := knee{limit: st.servers * st.endpoints}
	if len(done) < leastJobs {
		return k
	}
	k.perSecond = float64(len(done)) / (float64(last-first) / 1e9)
	slices.SortStableFunc(done, func(a, b *job) int { return cmp.Compare(a.beside, b.beside) })
	if medianTime(done) < sharedFrom*medianTime(done[:alone]) {
		k.mean = meanTime(done)
	} else {
		slices.SortStableFunc(done, func(a, b *job) int { return cmp.Compare(a.end-a.begin, b.end-b.begin) })
		done = done[:quickest]
		k.mean, k.shared = meanTime(done), true
		k.limit = min(max(1, int(math.Ceil(kneeRoom*k.perSecond*k.mean/1e9))), k.limit)
	}
	for _, j := range done {
		k.quick = append(k.quick, j.end-j.begin)
	}
	slices.Sort(k.quick)
	return k
}

// kneeAt is the knee as a route sees it: one of its calls may take longer than what it calls, so that more of them are at once.
func (c *corpus) kneeAt(route string, k knee) knee {
	var took []int64
	for _, key := range c.gatewayKeys(route) {
		for _, r := range c.routes[key] {
			if t := c.traces[r.trace]; !t.failed(r.span) {
				took = append(took, t.recorded(r.span))
			}
		}
	}
	if len(took) < quickest || k.mean == 0 {
		return k
	}
	slices.Sort(took)
	mean := 0.0
	for _, ns := range took[:quickest] {
		mean += float64(ns) / quickest
	}
	k.limit = max(k.limit, int(math.Ceil(float64(k.limit)*mean/k.mean)))
	k.mean = max(k.mean, mean)
	return k
}

// medianTime of jobs in ns: a few that are slow for a reason of their own are not a sign of sharing.
func medianTime(jobs []*job) float64 {
	took := make([]int64, len(jobs))
	for i, j := range jobs {
		took[i] = j.end - j.begin
	}
	slices.Sort(took)
	return float64(quantile(took, 0.5))
}

// meanTime of jobs in ns.
func meanTime(jobs []*job) (mean float64) {
	for _, j := range jobs {
		mean += float64(j.end-j.begin) / float64(len(jobs))
	}
	return mean
}

// queued is how many calls wait for their turn where no more than limit run: under overload it is always full, and each that waits makes
// all wait for longer, so that it only bridges the time to the next call.
func queued(limit int) int { return (limit + 1) / 2 }

// capped is the plan in which no more calls are served at once than at the knee, some wait for their turn, and what comes beyond is refused: a
// share of the calls. Each that is served waits for those before it, and then takes as long as one that has hardly any others beside it.
func (c *corpus) capped(t target, k knee, refused float64) plan {
	calls := c.callsTo(t)
	if route := c.routeOf(calls); route != "" { // whose attempts include those that nobody is recorded to have answered
		calls = c.attempts(route).refs()
	}
	here := byTrace(calls)
	wait := int64(float64(queued(k.limit)) / max(k.perSecond, 1e-3) * 1e9)
	slower := max(1, float64(k.limit)/max(k.perSecond, 1e-3)*1e9/max(k.mean, 1)) // a limit is a whole number
	p := plan{spans: calls, rounds: 4, doubt: modelDoubt, apply: func(round, n int, e *edit) {
		for _, i := range here[n] {
			line := c.traces[n]
			if line.failed(i) || len(k.quick) == 0 {
				e.set(i, 0) // refused, and tried again or not
				continue
			}
			r := random(&line.spans[i], round)
			e.set(i, wait+int64(slower*float64(k.quick[r.IntN(len(k.quick))])))
		}
	}}
	p.served = func(_, n, i int) bool { return !c.traces[n].failed(i) }
	p.notes = []string{fmt.Sprintf("%.1f calls/s are answered, which at their quickest take %.1f ms: more than %d at once bring no more answers; %.0f%% fail now", k.perSecond, k.mean/1e6, k.limit, 100*refused)}
	return p
}

// doorShare is the share of a route's calls that must come to the service, and of the service's calls that must come by the route, for a
// limit on the one to hold for the other.
const doorShare = 0.9

// frontDoor is the outermost of the routes whose policy is known by which all calls come, and nothing else does; "" = there is none. What is refused
// there costs least: further in, callers take it for a failure, try it again, and open their breakers.
func (s *situation) frontDoor(calls []ref) string {
	c := s.corpus
	type door struct {
		calls, depth int
		spans        map[ref]bool // the route's calls that lead to one of those
	}
	doors := make(map[routeKey]*door)
	for _, r := range calls {
		t := c.traces[r.trace]
		for i, up := r.span, 1; t.hasParent(i); i, up = t.parent[i], up+1 {
			at := t.parent[i]
			if !isGateway(&t.spans[at]) {
				continue
			}
			d := doors[keyOf(&t.spans[at])]
			if d == nil {
				d = &door{spans: make(map[ref]bool)}
				doors[keyOf(&t.spans[at])] = d
			}
			d.calls, d.depth = d.calls+1, max(d.depth, up)
			d.spans[ref{r.trace, at}] = true
		}
	}
	best, deepest := "", 0
	for key, d := range doors {
		if _, known := s.current[key.operation]; !known {
			continue
		}
		others := 0
		for _, r := range c.routes[key] {
			if !d.spans[r] && !c.traces[r.trace].failed(r.span) {
				others++
			}
		}
		most := float64(d.calls) >= doorShare*float64(len(calls)) && float64(others) <= (1-doorShare)*float64(len(d.spans))
		if most && (d.depth > deepest || d.depth == deepest && key.operation < best) {
			best, deepest = key.operation, d.depth
		}
	}
	return best
}

// answeredShare is how many calls of a gateway's route were recorded, and how many of them did not fail; 1 and 1 when none was.
func (c *corpus) answeredShare(route string) (asked, served float64) {
	for _, key := range c.gatewayKeys(route) {
		for _, r := range c.routes[key] {
			asked++
			if !c.traces[r.trace].failed(r.span) {
				served++
			}
		}
	}
	if asked == 0 {
		return 1, 1
	}
	return asked, served
}

const (
	priceHeadroom = 1.2  // times the load that was seen, since it will not stay as it was
	priceUse      = 0.8  // of what was served, since a limit does not keep every worker busy, and what was queued is not all served
	priceStep     = 0.05 // that a price is rounded up to
	mostPrice     = 0.95
)

// price is the share of calls that a rollout of a limit may refuse: what is asked for at a fifth more load, less four fifths of what can be
// served.
func price(asked, served float64) float64 {
	refused := 1 - priceUse*served/(priceHeadroom*asked)
	return min(math.Ceil(max(refused, 0)/priceStep-1e-9)*priceStep, mostPrice)
}

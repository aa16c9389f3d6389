package lab

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
)

// glance is what clients saw in a piece of time, all routes together. A call is in the one in which it ended.
type glance struct {
	from, to      time.Duration // since the beginning of the schedule
	calls, failed uint64
	latency       stats.Snapshot
	lag           stats.Snapshot // of the load generator
}

func (g glance) join(o glance) glance {
	return glance{from: min(g.from, o.from), to: max(g.to, o.to), calls: g.calls + o.calls, failed: g.failed + o.failed, latency: g.latency.Merge(o.latency), lag: g.lag.Merge(o.lag)}
}

// tape is consecutive glances.
type tape []glance

// between joins the glances that lie within.
func (t tape) between(from, to time.Duration) (sum glance) {
	for _, g := range t {
		if g.from >= from && g.to <= to {
			sum = sum.join(g)
		}
	}
	return sum
}

// ChaosFigures is what clients saw in a part of a slot.
type ChaosFigures struct {
	Calls  uint64  `json:"calls"`
	Errors float64 `json:"errors"` // share of Calls
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
}

func (g glance) figures() ChaosFigures {
	at := func(q float64) float64 { return g.latency.Quantile(q).Seconds() * 1e3 }
	return ChaosFigures{Calls: g.calls, Errors: g.errors(), P50: at(0.5), P99: at(0.99)}
}

func (g glance) errors() float64 { return float64(g.failed) / float64(max(g.calls, 1)) }

// late reports whether the load generator sent so late that what was seen is the machine's as much as the system's.
func (g glance) late() bool {
	return g.lag.Quantile(0.99) > max(lateTime, time.Duration(lateRatio*float64(g.latency.Quantile(0.5))))
}

// The lateness that is put up with, as in a load test: so much, or that part of the median.
const (
	lateTime  = 5 * time.Millisecond
	lateRatio = 0.05
)

// chance is how many standard deviations a share of failed calls may lie above a bound by chance alone, in one of 100.
const chance = 2.33

// leastErrors is the share of failed calls that those which were seen are no better than, as few as they are.
//
// Source: Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927): the lower end of the interval.
func (g glance) leastErrors() float64 {
	n, p := float64(max(g.calls, 1)), g.errors()
	z := chance * chance / n
	return max(0, (p+z/2-chance*math.Sqrt((p*(1-p)+z/4)/n))/(1+z))
}

// ChaosPoint is what clients saw in a piece of time.
type ChaosPoint struct {
	At     time.Duration `json:"at_ns"` // since the beginning of the schedule; below 0 in the calm
	Took   time.Duration `json:"took_ns"`
	Calls  uint64        `json:"calls"`  // that ended
	Errors float64       `json:"errors"` // share of Calls
	P99    float64       `json:"p99_ms"`
}

// maxPoints bounds a timeline. Where there would be more, neighbours become one, with the worse of their latencies.
const maxPoints = 2400

func addPoint(list []ChaosPoint, p ChaosPoint) []ChaosPoint {
	if list = append(list, p); len(list) < maxPoints {
		return list
	}
	half := list[:0]
	for i := 0; i+1 < len(list); i += 2 {
		a, b := list[i], list[i+1]
		failed := a.Errors*float64(a.Calls) + b.Errors*float64(b.Calls)
		a.Took, a.Calls, a.P99 = b.At+b.Took-a.At, a.Calls+b.Calls, max(a.P99, b.P99)
		a.Errors = failed / float64(max(a.Calls, 1))
		half = append(half, a)
	}
	return half
}

// guard says when faults are taken away before their time.
type guard struct {
	o     ChaosOptions
	since time.Duration // of the trouble; -1 = there is none
}

func newGuard(o ChaosOptions) guard { return guard{o: o, since: -1} }

// fewCalls is what a look must hold to say anything.
const fewCalls = 5

// look takes what was seen lately, and returns why the faults must go; "" = they may stay.
func (g *guard) look(now glance) string {
	p99 := now.latency.Quantile(0.99)
	failing, slow := now.errors() > g.o.StopErrors, p99 > g.o.StopP99
	switch {
	case now.calls < fewCalls: // nobody is served, or nobody asks: what was is still so
	case !failing && !slow:
		g.since = -1
	case g.since < 0:
		g.since = now.from
	}
	if g.since < 0 || now.to-g.since < g.o.StopAfter {
		return ""
	}
	if slow && !failing {
		return fmt.Sprintf("p99 was above %s for %s", g.o.StopP99, g.o.StopAfter)
	}
	return fmt.Sprintf("more than %.3g %% of the calls failed for %s", 100*g.o.StopErrors, g.o.StopAfter)
}

// protections is what the policies of all routes did since the gateway began, by its own counters.
type protections struct {
	counts    map[string]uint64 // by reaction
	refused   uint64            // retries, by their budget
	open, out map[string]bool   // endpoints by route, whose breaker is not closed; that were ejected
	unfit     map[string]bool   // likewise, by their health checks
}

func protectionsOf(routes []gateway.RouteStatus) protections {
	p := protections{counts: map[string]uint64{}, open: map[string]bool{}, out: map[string]bool{}, unfit: map[string]bool{}}
	for _, r := range routes {
		t := r.Tally
		p.counts[Retried] += t.Retries
		p.counts[Hedged] += t.Hedges
		p.counts[HedgeWon] += t.HedgesWon
		p.counts[Shed] += t.Shed
		p.counts[Stale] += r.Caches[call.Stale.String()].Count()
		p.counts[Coalesced] += r.Caches[call.Coalesced.String()].Count()
		p.refused += r.RetriesRefused
		for _, e := range r.Endpoints {
			p.counts[CutOff] += e.Classes[call.Timeout.String()]
			where := r.Name + " " + e.Name
			if e.Breaker != breaker.Closed.String() {
				p.open[where] = true
			}
			if e.Ejected {
				p.out[where] = true
			}
			if !e.Healthy {
				p.unfit[where] = true
			}
		}
	}
	return p
}

// Reaction is what one policy did while a fault was on and until the end of its slot.
type Reaction struct {
	Policy string        `json:"policy"`
	Count  uint64        `json:"count"`
	Usual  float64       `json:"usual"`    // what it would have done in that time if it had gone on as in the calm
	After  time.Duration `json:"after_ns"` // from the beginning of the fault to when it was seen first
}

// watcher adds up what policies do from look to look. Counters are exact; breakers that opened, and endpoints that were ejected
// or came back, between two looks are not seen.
type watcher struct {
	last    protections
	refused uint64
	seen    map[string]*Reaction
}

func newWatcher(now protections) *watcher { return &watcher{last: now, seen: map[string]*Reaction{}} }

// look takes in what was done, after being the time since the fault began.
func (w *watcher) look(now protections, after time.Duration) {
	add := func(policy string, n uint64) {
		if n == 0 {
			return
		}
		if w.seen[policy] == nil {
			w.seen[policy] = &Reaction{Policy: policy, After: after}
		}
		w.seen[policy].Count += n
	}
	for policy, n := range now.counts {
		add(policy, n-min(n, w.last.counts[policy]))
	}
	add(Opened, fresh(now.open, w.last.open))
	add(Ejected, fresh(now.out, w.last.out))
	add(Back, fresh(w.last.out, now.out))
	add(Unfit, fresh(now.unfit, w.last.unfit))
	w.refused += now.refused - min(now.refused, w.last.refused)
	w.last = now
}

// fresh counts what is in now and was not before.
func fresh(now, before map[string]bool) (n uint64) {
	for where := range now {
		if !before[where] {
			n++
		}
	}
	return n
}

// rates is how often a second each policy acted in that time.
func (w *watcher) rates(took time.Duration) map[string]float64 {
	all := map[string]float64{}
	for policy, r := range w.seen {
		all[policy] = float64(r.Count) / took.Seconds()
	}
	return all
}

// reactions is what was seen, first things first.
func (e *episode) reactions() []Reaction {
	all := []Reaction{}
	for policy, r := range e.watched.seen {
		x := *r
		x.Usual = e.usual[policy] * (e.slot.End - e.slot.On).Seconds()
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Reaction) int {
		if a.After != b.After {
			return int(a.After - b.After)
		}
		return strings.Compare(a.Policy, b.Policy)
	})
	return all
}

// ChaosResult is what came of one fault.
type ChaosResult struct {
	Drawn
	At        time.Duration `json:"at_ns"` // since the beginning of the schedule
	Took      time.Duration `json:"took_ns"`
	Stopped   string        `json:"stopped,omitempty"` // why it was taken away before its time; "" = it was not
	Held      bool          `json:"held"`              // its hypothesis
	Late      bool          `json:"late,omitempty"`    // the load generator sent late meanwhile: what does not hold is the machine's as much as the system's
	Why       []string      `json:"why"`               // what does not hold; never nil
	Before    ChaosFigures  `json:"before"`
	During    ChaosFigures  `json:"during"` // all of the time that it was on
	Judged    ChaosFigures  `json:"judged"` // the part of it that the hypothesis speaks of
	After     ChaosFigures  `json:"after"`
	Recovered *float64      `json:"recovered_ms"` // from its end until all was as before; nil = not within its slot
	Reactions []Reaction    `json:"reactions"`
	Refused   uint64        `json:"retries_refused"`       // for want of budget
	Out       bool          `json:"already_out,omitempty"` // its replica got no calls before, so that no policy had to react
	Together  int           `json:"together"`              // faults that were on at the same time, this one among them: figures and reactions are of all of them
}

// episode is what a slot was: when its faults were on, what clients saw, and what policies did.
type episode struct {
	slot    Slot
	off     time.Duration // when they really ended
	stopped string
	out     map[string]bool    // replicas that got no calls before the faults began, by name
	calm    glance             // of the beginning
	usual   map[string]float64 // what policies did then, a second
	seen    tape
	watched *watcher
}

// judge says of each fault whether its hypothesis held. Of faults that were on together each is held to the loosest bounds.
func (e *episode) judge() []ChaosResult {
	h := e.slot.Faults[0].Hypothesis
	for _, x := range e.slot.Faults[1:] {
		h = h.loosest(x.Hypothesis)
	}
	before := e.seen.between(e.slot.At, e.slot.On)
	during := e.seen.between(e.slot.On, e.off)
	judged := e.seen.between(e.slot.On+h.Within, e.off)
	after := e.seen.between(e.off, e.slot.End)
	recovered, back := e.recovery()
	var all []ChaosResult
	for _, x := range e.slot.Faults {
		r := ChaosResult{
			Drawn: x, At: e.slot.On, Took: e.off - e.slot.On, Stopped: e.stopped, Late: e.seen.between(e.slot.At, e.slot.End).late(), Together: len(e.slot.Faults), Why: []string{},
			Before: before.figures(), During: during.figures(), Judged: judged.figures(), After: after.figures(),
			Reactions: e.reactions(), Refused: e.watched.refused,
		}
		if back {
			ms := recovered.Seconds() * 1e3
			r.Recovered = &ms
		}
		own := h
		own.Reacts = x.Hypothesis.Reacts
		if r.Out = e.out[x.Where]; r.Out {
			own.Reacts = nil
		}
		r.Why = append(r.Why, e.broken(own, judged, recovered, back)...)
		r.Held = len(r.Why) == 0
		all = append(all, r)
	}
	return all
}

// loosest is the weaker of two hypotheses in each bound. What each wants to see react stays its own.
func (h Hypothesis) loosest(o Hypothesis) Hypothesis {
	if h.Factor == 0 || o.Factor == 0 {
		h.Factor = 0
	} else {
		h.Factor, h.Plus = max(h.Factor, o.Factor), h.Plus+o.Plus
	}
	h.Within, h.Recovery = max(h.Within, o.Within), max(h.Recovery, o.Recovery)
	h.MaxErrors = min(1, h.MaxErrors+o.MaxErrors)
	return h
}

// bound is the p99 that a hypothesis allows after a calm like that.
func (h Hypothesis) bound(calm glance) time.Duration {
	return time.Duration(h.Factor*float64(calm.latency.Quantile(0.99))) + h.Plus
}

// broken is what of a hypothesis does not hold.
func (e *episode) broken(h Hypothesis, judged glance, recovered time.Duration, back bool) []string {
	var why []string
	if e.stopped != "" {
		why = append(why, "taken away after "+(e.off-e.slot.On).Round(100*time.Millisecond).String()+": "+e.stopped)
	} else if judged.calls < fewCalls && h.MaxErrors < 1 {
		why = append(why, fmt.Sprintf("only %d calls ended in the time that is judged", judged.calls))
	}
	if errors := judged.errors(); judged.leastErrors() > h.MaxErrors {
		why = append(why, fmt.Sprintf("%.3g %% of the calls failed, more than %.3g %%", 100*errors, 100*h.MaxErrors))
	}
	if p99, most := judged.latency.Quantile(0.99), h.bound(e.calm); h.Factor > 0 && p99 > most {
		why = append(why, fmt.Sprintf("p99 was %s, more than %s", p99.Round(time.Millisecond), most.Round(time.Millisecond)))
	}
	acted := func(r Reaction) bool { return slices.Contains(h.Reacts, r.Policy) && float64(r.Count) > r.Usual }
	if len(h.Reacts) > 0 && !slices.ContainsFunc(e.reactions(), acted) {
		why = append(why, "no policy reacted: "+oneOf(h.Reacts)+" was expected, and seen was "+e.reacted())
	}
	switch {
	case !back && e.slot.End-e.off < h.Recovery: // it had less time than it may take, and nothing is known
	case !back:
		why = append(why, fmt.Sprintf("not as before %s after its end", (e.slot.End-e.off).Round(100*time.Millisecond)))
	case recovered > h.Recovery:
		why = append(why, fmt.Sprintf("as before only %s after its end, more than %s", recovered.Round(100*time.Millisecond), h.Recovery))
	}
	return why
}

func (e *episode) reacted() string {
	if len(e.watched.seen) == 0 {
		return "nothing"
	}
	return strings.Join(slices.Sorted(maps.Keys(e.watched.seen)), ", ")
}

// What counts as recovered.
const (
	goodErrors = 0.02 // more failed calls than in the calm
	goodFactor = 2    // p95 over the p99 of the calm; p99 of half a second would be one call
	goodPlus   = 50 * time.Millisecond
)

// recovery is how long after the end of the faults two glances in a row were as in the calm, and whether any were.
func (e *episode) recovery() (time.Duration, bool) {
	limit := goodFactor*e.calm.latency.Quantile(0.99) + goodPlus
	row, first := 0, time.Duration(0)
	for _, g := range e.seen {
		if g.to <= e.off {
			continue
		}
		if g.calls >= fewCalls && g.errors() <= e.calm.errors()+goodErrors && g.latency.Quantile(0.95) <= limit {
			if row == 0 {
				first = max(0, g.from-e.off)
			}
			if row++; row == 2 {
				return first, true
			}
		} else {
			row = 0
		}
	}
	return 0, false
}

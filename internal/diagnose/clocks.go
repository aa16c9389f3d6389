package diagnose

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// ClockModel is what the traces of a run tell about a clock: its step, or how far it is from another host's.
type ClockModel struct {
	Host          string  `json:"host"`                // whose clock it is; where the spans name no host, the service
	Reference     string  `json:"reference,omitempty"` // the host that it is compared with; "" = it is about the step alone
	OffsetMS      float64 `json:"offset_ms"`           // what Host's clock shows more than Reference's, milliseconds
	SpreadMS      float64 `json:"spread_ms"`           // the true offset lies within OffsetMS plus or minus this, the step of the clocks included, milliseconds
	GranularityMS float64 `json:"granularity_ms"`      // the step of the clock, milliseconds; of two hosts the coarsest in which either stamps more than a few spans
	ToleranceMS   float64 `json:"tolerance_ms"`        // times that are closer than this count as equal, milliseconds
	Samples       int     `json:"samples"`             // spans; of two hosts, the calls between them
	Steady        bool    `json:"steady"`              // one offset fits at least nine tenths of the calls that tell most
	Corrected     bool    `json:"corrected"`           // the clocks surely differ, and spans were moved by OffsetMS
}

// The bounds of the clock models.
const (
	maxClocks       = 4096 // clocks whose step is learnt
	maxClockPairs   = 4096 // pairs of hosts whose offset is learnt
	clocksShown     = 50   // of either kind, in a report
	clockSpans      = 16   // spans that tell the step of a clock; of fewer, the trace's own is taken
	clockCalls      = 16   // calls that tell an offset
	clockBest       = 32   // calls between two hosts that are kept: those that left the clocks least room
	clockAgreeRatio = 0.9  // of them, that one offset must fit
)

// clocks is the models of all clocks of a run.
type clocks struct {
	numbers *spots // a host is ("", host), the clock of a service without hosts is (service, "")
	steps   []clockStep
	pairs   map[[2]int32]*clockPair // by numbers, the smaller name first
	order   [][2]int32              // the keys of pairs, as they came
	mixed   bool                    // clocks that are known have different steps
	step    int64                   // the finest of the known ones, ns; 0 = none is known
	apart   bool                    // two hosts' clocks differ
	lost    int                     // spans and calls that found no room
}

// clockStep is the step of a clock. Some programs stamp spans in two ways, of which one is coarser: the coarser step is
// what two of their times may be off by.
type clockStep struct {
	ns             int64 // all times are multiples of it
	spans          int
	millis, micros int // spans that start on a whole millisecond, or microsecond
}

// coarse is the step of the coarser way in which the clock is read, if that is no chance: on a clock of microseconds one
// span in a thousand starts on a whole millisecond.
func (c clockStep) coarse() int64 {
	often := func(n int) bool { return n >= 4 && float64(n) > 0.01*float64(c.spans) }
	switch {
	case often(c.millis):
		return int64(time.Millisecond)
	case often(c.micros):
		return max(c.ns, int64(time.Microsecond))
	}
	return c.ns
}

// clockPair is what calls tell of the offset of two hosts: the second's clock less the first's.
type clockPair struct {
	calls  int
	best   []bound // at most clockBest
	worst  int     // index in best of the one with most room
	offset int64   // ns
	spread int64   // ns
	steady bool
}

// bound is what one call tells: the offset lies in [low, high], because the answer came after the question, by both
// clocks.
type bound struct{ low, high int64 }

func compareBounds(a, b bound) int {
	return cmp.Or(cmp.Compare(minus(a.high, a.low), minus(b.high, b.low)), cmp.Compare(a.low, b.low))
}

func newClocks() *clocks {
	return &clocks{numbers: newSpots(), pairs: make(map[[2]int32]*clockPair)}
}

// learnSteps takes in the times of spans.
func (c *clocks) learnSteps(spans []trace.Span) {
	for j := range spans {
		s := &spans[j]
		n := int(c.clock(s))
		if n < 0 {
			continue
		}
		x := &c.steps[n]
		x.spans++
		if s.Start%int64(time.Microsecond) == 0 {
			x.micros++
			if s.Start%int64(time.Millisecond) == 0 {
				x.millis++
			}
		}
		for x.ns > 1 && (s.Start%x.ns != 0 || s.End%x.ns != 0) {
			x.ns /= 1000
		}
	}
}

// join adds the steps that d has seen.
func (c *clocks) join(d *clocks) {
	c.lost += d.lost
	for i, at := range d.numbers.list {
		n, y := int(c.clock(&trace.Span{Service: at.service, Host: at.operation})), &d.steps[i]
		if n < 0 {
			continue
		}
		x := &c.steps[n]
		x.spans, x.millis, x.micros, x.ns = x.spans+y.spans, x.millis+y.millis, x.micros+y.micros, min(x.ns, y.ns)
	}
}

// conclude ends the learning of steps.
func (c *clocks) conclude() {
	for i := range c.steps {
		x := &c.steps[i]
		x.ns = max(x.ns, 1)
		if x.spans >= clockSpans {
			c.mixed = c.mixed || c.step > 0 && c.step != x.ns
			if c.step == 0 || x.ns < c.step {
				c.step = x.ns
			}
		}
	}
}

// reader is c for another goroutine, which learns nothing.
func (c *clocks) reader() *clocks {
	r := *c
	numbers := *c.numbers
	r.numbers = &numbers
	return &r
}

// clock is the number of the clock that stamped s; -1 = no room is left for it.
func (c *clocks) clock(s *trace.Span) int32 {
	service, host := s.Service, s.Host
	if host != "" {
		service = ""
	}
	n := c.numbers.numberUpTo(maxClocks, service, host)
	switch {
	case n < 0:
		c.lost++
	case int(n) == len(c.steps):
		c.steps = append(c.steps, clockStep{ns: int64(time.Millisecond)})
	}
	return n
}

// stepOf is the step of the clock that stamped s, or otherwise when too little is known of it.
func (c *clocks) stepOf(s *trace.Span, otherwise int64) int64 {
	service, host := s.Service, s.Host
	if host != "" {
		service = ""
	}
	if n := c.numbers.find(service, host); n >= 0 && c.steps[n].spans >= clockSpans {
		return c.steps[n].ns
	}
	return otherwise
}

// learnPairs finds the offsets between hosts from the calls between them, by their times as they were recorded.
func (c *clocks) learnPairs(t *Tree) {
	for i := range t.Spans {
		child := &t.Spans[i]
		p := t.Parent[i]
		if p < 0 || child.Host == "" || child.Host == t.Spans[p].Host || t.Spans[p].Host == "" || !isCall(&t.Spans[p], child) {
			continue
		}
		parent := &t.Spans[p]
		moved := t.Skew(i) - t.Skew(int(p)) // what was added to the child alone
		b := bound{low: minus(child.End, parent.End) - moved, high: minus(child.Start, parent.Start) - moved}
		if b.low <= b.high { // else the caller gave up
			b.low -= (parent.End - parent.Start) / 100 // many a server closes its span after the answer has arrived
			if x := c.between(parent.Host, child.Host); x == nil {
				c.lost++
			} else if child.Host < parent.Host {
				x.add(bound{-b.high, -b.low})
			} else {
				x.add(b)
			}
		}
	}
}

// joinPairs adds the pairs that d has seen.
func (c *clocks) joinPairs(d *clocks) {
	c.lost += d.lost
	for _, key := range d.order {
		q := d.pairs[key]
		p := c.between(d.numbers.list[key[0]].operation, d.numbers.list[key[1]].operation)
		if p == nil {
			c.lost += q.calls
			continue
		}
		calls := p.calls + q.calls
		for _, b := range q.best {
			p.add(b)
		}
		p.calls = calls
	}
}

// concludePairs ends the learning of pairs.
func (c *clocks) concludePairs() {
	for key, p := range c.pairs {
		p.conclude(c.coarser(key))
		c.apart = c.apart || p.differs()
	}
}

// between is what is known of two hosts; nil = there is no room for them.
func (c *clocks) between(from, to string) *clockPair {
	key, known := c.pair(min(from, to), max(from, to))
	p := c.pairs[key]
	if p == nil && known && len(c.pairs) < maxClockPairs {
		p = new(clockPair)
		c.pairs[key], c.order = p, append(c.order, key)
	}
	return p
}

// pair is the key of two hosts; it is not known when there was no room for one of them.
func (c *clocks) pair(from, to string) (key [2]int32, known bool) {
	key = [2]int32{c.numbers.numberUpTo(maxClocks, "", from), c.numbers.numberUpTo(maxClocks, "", to)}
	return key, key[0] >= 0 && key[1] >= 0
}

func (p *clockPair) add(b bound) {
	p.calls++
	if len(p.best) < clockBest {
		p.best = append(p.best, b)
	} else if compareBounds(b, p.best[p.worst]) >= 0 {
		return
	} else {
		p.best[p.worst] = b
	}
	p.worst = 0
	for i := range p.best {
		if compareBounds(p.best[i], p.best[p.worst]) > 0 {
			p.worst = i
		}
	}
}

// conclude takes the offset that fits most of the calls, and of those the middle, if times may be off by step.
//
// Source: K. Marzullo, Maintaining the time in a distributed system, 1984, as in NTP; the choice of the calls that took
// the network the least time is NTP's clock filter (RFC 5905, section 10).
func (p *clockPair) conclude(step int64) {
	type edge struct {
		at    int64
		enter int // -1 = an interval starts here, 1 = it ends
	}
	edges := make([]edge, 0, 2*len(p.best))
	for _, b := range p.best {
		edges = append(edges, edge{minus(b.low, step), -1}, edge{plus(b.high, step), 1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.enter, b.enter)) })
	open, most := 0, 0
	var fit bound
	for i, e := range edges {
		if open -= e.enter; open > most && i+1 < len(edges) {
			most, fit = open, bound{e.at, edges[i+1].at}
		}
	}
	p.offset = fit.low + minus(fit.high, fit.low)/2
	p.spread = minus(fit.high, fit.low) - minus(fit.high, fit.low)/2
	p.steady = p.calls >= clockCalls && float64(most) >= clockAgreeRatio*float64(len(p.best))
}

// differs says that no offset of zero fits.
func (p *clockPair) differs() bool {
	return p.steady && (p.offset > p.spread || -p.offset > p.spread)
}

// offset is how much more the clock of host to shows than that of from, ns, if it is known well: 0 where the clocks
// may as well be the same.
func (c *clocks) offset(from, to string) (ns int64, ok bool) {
	sign := int64(1)
	if to < from {
		from, to, sign = to, from, -1
	}
	p := c.pairs[[2]int32{c.numbers.find("", from), c.numbers.find("", to)}]
	switch {
	case p == nil || !p.steady:
		return 0, false
	case !p.differs():
		return 0, true
	}
	return sign * p.offset, true
}

// coarser is the step of the coarser of two clocks.
func (c *clocks) coarser(key [2]int32) int64 {
	step := int64(1)
	for _, n := range key {
		if int(n) < len(c.steps) {
			step = max(step, c.steps[n].coarse())
		}
	}
	return step
}

// improves says whether the models know better than t how far the clocks of its hosts are apart.
func (c *clocks) improves(t *Tree) bool {
	for i := range t.Spans {
		p := t.Parent[i]
		if p < 0 || t.Spans[i].Host == "" || t.Spans[i].Host == t.Spans[p].Host || t.Spans[p].Host == "" {
			continue
		}
		if offset, ok := c.offset(t.Spans[p].Host, t.Spans[i].Host); ok && t.Skew(i)-t.Skew(int(p)) != -offset {
			return true
		}
	}
	return false
}

// models lists what a reader may want to know of the clocks: of the pairs, those that are farthest apart, and of the
// clocks, those with the coarsest steps. cut is how many were left out.
func (c *clocks) models() (list []ClockModel, cut int) {
	var pairs, single []ClockModel
	for key, p := range c.pairs {
		step := c.coarser(key)
		pairs = append(pairs, ClockModel{
			Host: c.numbers.list[key[1]].operation, Reference: c.numbers.list[key[0]].operation,
			OffsetMS: ms(p.offset), SpreadMS: ms(p.spread), GranularityMS: ms(step), ToleranceMS: ms(p.spread),
			Samples: p.calls, Steady: p.steady, Corrected: p.differs(),
		})
	}
	slices.SortFunc(pairs, func(a, b ClockModel) int {
		return cmp.Or(cmp.Compare(math.Abs(b.OffsetMS), math.Abs(a.OffsetMS)), cmp.Compare(a.Reference, b.Reference), cmp.Compare(a.Host, b.Host))
	})
	for i, x := range c.steps {
		at := c.numbers.list[i]
		name := at.operation
		if name == "" {
			name = at.service
		}
		single = append(single, ClockModel{Host: name, GranularityMS: ms(x.ns), ToleranceMS: ms(x.ns), Samples: x.spans, Steady: true})
	}
	slices.SortFunc(single, func(a, b ClockModel) int {
		return cmp.Or(cmp.Compare(b.GranularityMS, a.GranularityMS), cmp.Compare(b.Samples, a.Samples), cmp.Compare(a.Host, b.Host))
	})
	list = append(list, pairs[:min(len(pairs), clocksShown)]...)
	list = append(list, single[:min(len(single), clocksShown)]...)
	return list, len(pairs) + len(single) - len(list)
}

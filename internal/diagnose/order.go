package diagnose

import "slices"

// The bounds of what is learnt about the order of siblings.
const (
	maxOrdered  = 1024 // operations whose children's order is learnt
	maxSiblings = 12   // different children of one span that are told apart; of more nothing is learnt
	fewOrders   = 8    // spans; of fewer nothing is concluded
	follows     = 0.8  // squared correlation from where a start is said to follow an end
)

// orders is what many traces tell about which of two siblings waits for the other.
//
// That one child ended before another one started, in one trace, can be chance: two calls of which nothing waits for
// the first, and the second of which a timer starts. So an order is believed until it is falsified: one trace in which
// the two overlap, by more than their clock's step, drops it for all traces.
//
// Some orders have counter-examples and are true all the same: of a pool of two workers the third task starts when
// either of the first two ends; some code runs two calls at once when it can and one after the other when it must;
// some spans are closed a moment late. There the second's start follows the first's end, time after time, wherever it
// came later, so their correlation tells them from chance.
//
// Source: falsification from Chow et al., The Mystery Machine, OSDI 2014.
type orders struct {
	at   []*siblings // by spots number of the parent; nil = nothing was learnt
	kept int
	lost int  // spans with children whose order was not learnt because of the bounds
	some bool // an order was dropped
}

// siblings is the children of one operation.
type siblings struct {
	spots   []int32 // at most maxSiblings of them
	pairs   []pair  // of a before b: pairs[a*maxSiblings+b]
	again   []int32 // operations of which one span had several, at most maxSiblings: they have several roles, which nothing tells apart
	dropped bool    // an order was
}

// pair is what was seen of two siblings a and b, where a started first. Times are in seconds.
type pair struct {
	seen, broken     float64 // together; of those, with b's start clearly before a's end
	n                float64 // of those, where b's start was at or after a's end, about
	x, y, xx, yy, xy float64 // sums over those: x is a's duration, y the time from a's start to b's
	dropped          bool
}

// orderParts is how many parts of the trees orders are learnt from on their own, at once where the options allow.
const orderParts = 2

// learnOrders reads the orders that siblings have in all trees, whose spans must be marked.
func learnOrders(trees []*Tree, operations int, clock ClockOptions) *orders {
	parts := make([]orders, orderParts)
	if operations > maxOrdered { // which ones find room depends on who comes first
		parts = parts[:1]
	}
	clock.each(len(parts), func(n int) {
		p := orders{at: make([]*siblings, operations)}
		for _, t := range trees[n*len(trees)/len(parts) : (n+1)*len(trees)/len(parts)] {
			clock.rest()
			for i := range t.Spans {
				if t.blockFrom[i+1]-t.blockFrom[i] >= 2 {
					p.learn(t, i)
				}
			}
		}
		parts[n] = p
	})
	o := &parts[0]
	for i := range parts[1:] {
		o.join(&parts[i+1])
	}
	for _, s := range o.at {
		if s != nil {
			s.decide()
			o.some = o.some || s.dropped
		}
	}
	return o
}

// join adds what p has learnt, which o has room for.
func (o *orders) join(p *orders) {
	o.lost += p.lost
	for spot, x := range p.at {
		switch {
		case x == nil:
		case o.at[spot] == nil:
			o.at[spot] = x
			o.kept++
		default:
			o.lost += o.at[spot].join(x)
		}
	}
}

// join adds what x has learnt, and returns in how many spans, about, it saw siblings that find no room now and found some in x.
func (s *siblings) join(x *siblings) (lost int) {
	for _, spot := range x.again {
		s.repeated(spot)
	}
	var places [maxSiblings]int
	for i, spot := range x.spots {
		places[i] = s.place(spot)
	}
	for i := range x.pairs {
		a, b := places[i/maxSiblings], places[i%maxSiblings]
		if a < 0 || b < 0 {
			if len(x.spots) < maxSiblings {
				lost = max(lost, int(x.pairs[i].seen))
			}
			continue
		}
		s.pairs[a*maxSiblings+b].join(&x.pairs[i])
	}
	return lost
}

func (p *pair) join(q *pair) {
	p.seen, p.broken, p.n = p.seen+q.seen, p.broken+q.broken, p.n+q.n
	p.x, p.y, p.xx, p.yy, p.xy = p.x+q.x, p.y+q.y, p.xx+q.xx, p.yy+q.yy, p.xy+q.xy
}

// learn takes in the children of span i. Those that are there more than once cannot be told apart and are left out.
func (o *orders) learn(t *Tree, i int) {
	children := t.Children(i)
	s := o.of(t.spots[i])
	if s == nil || len(children) > 4*maxSiblings {
		o.lost++
		return
	}
	var list [maxSiblings]int32
	var local [maxSiblings]int8 // places of list
	n, all := 0, true
	for at, k := range children {
		if t.why[k] != Waited {
			continue
		}
		if repeatedAmong(t, children, at) {
			s.repeated(t.spots[k])
			continue
		}
		place := s.place(t.spots[k])
		if place < 0 || n == maxSiblings {
			all = false
			continue
		}
		list[n], local[n] = k, int8(place)
		n++
	}
	if !all {
		o.lost++
	}
	parent := &t.Spans[i]
	length := parent.End - parent.Start
	for b := 1; b < n; b++ {
		for a := range b {
			s.pairs[int(local[a])*maxSiblings+int(local[b])].add(t, list[a], list[b], length)
		}
	}
}

// repeated notes that a span had several children of an operation.
func (s *siblings) repeated(spot int32) {
	if len(s.again) < maxSiblings && !slices.Contains(s.again, spot) {
		s.again = append(s.again, spot)
	}
}

func repeatedAmong(t *Tree, children []int32, at int) bool {
	for i, k := range children {
		if i != at && t.spots[k] == t.spots[children[at]] && t.why[k] == Waited {
			return true
		}
	}
	return false
}

// of is what is known about the children of an operation; nil = no room is left.
func (o *orders) of(spot int32) *siblings {
	if o.at[spot] == nil && o.kept < maxOrdered {
		o.at[spot] = &siblings{pairs: make([]pair, maxSiblings*maxSiblings)}
		o.kept++
	}
	return o.at[spot]
}

// place is the place of an operation among the children; -1 = no room is left.
func (s *siblings) place(spot int32) int {
	if at := slices.Index(s.spots, spot); at >= 0 {
		return at
	}
	if len(s.spots) == maxSiblings {
		return -1
	}
	s.spots = append(s.spots, spot)
	return len(s.spots) - 1
}

// add takes in children a and b of a span of that length, of which a starts first.
func (p *pair) add(t *Tree, a, b int32, length int64) {
	first, second := &t.Spans[a], &t.Spans[b]
	overlap := minus(first.End, second.Start)
	step := t.step(a, b)
	near := max(step, length/100)
	p.seen++
	if overlap > step && (first.Host == second.Host || overlap > near) {
		p.broken++
	}
	if overlap <= near {
		x, y := float64(first.End-first.Start)/1e9, float64(minus(second.Start, first.Start))/1e9
		p.n++
		p.x += x
		p.y += y
		p.xx += x * x
		p.yy += y * y
		p.xy += x * y
	}
}

// decide drops the orders that were falsified.
func (s *siblings) decide() {
	mixed := func(at int) bool { return at < len(s.spots) && slices.Contains(s.again, s.spots[at]) }
	for i := range s.pairs {
		p := &s.pairs[i]
		p.dropped = p.seen >= fewOrders && p.broken > 0 && !p.follows() && !mixed(i/maxSiblings) && !mixed(i%maxSiblings)
		s.dropped = s.dropped || p.dropped
	}
}

// follows says whether the start of b moves with the end of a, where b came later.
func (p *pair) follows() bool {
	if p.n < fewOrders/2 {
		return false
	}
	varX, varY := p.xx-p.x*p.x/p.n, p.yy-p.y*p.y/p.n
	both := p.xy - p.x*p.y/p.n
	return both > 0 && varX > 0 && varY > 0 && both*both >= follows*varX*varY
}

// below is what is known about the children of span i of t; nil = nothing that takes one off a path.
func (o *orders) below(t *Tree, i int32) *siblings {
	if o == nil {
		return nil
	}
	if s := o.at[t.spots[i]]; s != nil && s.dropped {
		return s
	}
	return nil
}

// chance says that operation b does not wait for a, whatever one trace looks like.
func (s *siblings) chance(a, b int32) bool {
	at, after := slices.Index(s.spots, a), slices.Index(s.spots, b)
	return at >= 0 && after >= 0 && s.pairs[at*maxSiblings+after].dropped
}

// dropped counts the orders that some traces showed and others falsified.
func (o *orders) dropped() (count int) {
	for _, s := range o.at {
		if s == nil || !s.dropped {
			continue
		}
		for i := range s.pairs {
			if p := &s.pairs[i]; p.dropped && p.broken < p.seen {
				count++
			}
		}
	}
	return count
}

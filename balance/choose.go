package balance

import (
	"math"
	"time"
)

// query is one search for an endpoint. The caller's avoid is not in it but passed along, as otherwise it would be
// allocated: the compiler does not know that what is reached through b and what avoid refers to are apart.
type query struct {
	b    *Balancer
	v    *view
	t    instant
	open bool // ejections do not count
}

type refusal = func(*Endpoint) bool

func (q *query) choose(avoid refusal) *node {
	if n := q.trial(avoid); n != nil {
		return n
	}
	q.failOpen()
	n := q.any(avoid)
	if n == nil && avoid != nil {
		n = q.any(nil)
	}
	if n == nil && !q.open {
		q.open = true
		if n = q.any(avoid); n == nil {
			n = q.any(nil)
		}
	}
	return n
}

// any looks at the groups in their order.
func (q *query) any(avoid refusal) *node {
	first, second := &q.v.near, &q.v.far
	if q.spills(avoid) {
		first, second = second, first
	}
	n := q.from(first, avoid)
	if n == nil {
		n = q.from(second, avoid)
	}
	if n == nil {
		n = q.from(&q.v.rest, avoid)
	}
	return n
}

// spills draws whether the call goes to another zone because the own one lacks capacity. Source: Envoy's priority
// levels, whose overprovisioning factor of 1.4 is a ZoneMin of 71 %.
func (q *query) spills(avoid refusal) bool {
	if len(q.v.far.nodes) == 0 {
		return false
	}
	var fit, total float64
	for _, n := range q.v.near.nodes {
		total += n.weight()
		if q.fit(n, avoid) {
			fit += n.weight() * q.warmth(n)
		}
	}
	need := total * q.v.cfg.ZoneMin
	return fit < need && q.uniform()*need >= fit
}

func (q *query) from(g *group, avoid refusal) *node {
	switch {
	case len(g.nodes) == 0:
		return nil
	case q.v.cfg.Algorithm == RoundRobin:
		return q.next(g, avoid)
	case q.v.cfg.Algorithm == Weighted:
		return q.smooth(g, avoid)
	case q.v.cfg.Algorithm == Prequal:
		if n := q.b.pool.pick(q, g, avoid); n != nil {
			return n
		}
	}
	return q.two(g, avoid)
}

func (q *query) uniform() float64 { return q.b.uniform() }

// uniform is a random number of [0, 1).
func (b *Balancer) uniform() float64 { return float64(b.rand()>>11) / (1 << 53) }

// fit notices on the way that an endpoint came back, which begins its slow start.
func (q *query) fit(n *node, avoid refusal) bool {
	if !n.e.Healthy() || !q.open && n.out.Load() != 0 {
		return false
	}
	if r := n.e.returns.Load(); r != n.returns.Load() {
		n.returns.Store(r)
		q.b.start(n, q.t, q.v.cfg.SlowStart)
	}
	return avoid == nil || !avoid(n.e)
}

// coldShare is what slow start begins with: an endpoint that gets nothing never warms up.
const coldShare = 0.1

// warmth is the share of its weight that n has while it starts slowly. Source: Envoy's slow start, linear.
func (q *query) warmth(n *node) float64 {
	since, length := n.warm.Load(), q.v.cfg.SlowStart
	if since == never || length == 0 {
		return 1
	}
	return min(1, max(coldShare, float64(q.t-instant(since))/float64(length)))
}

// awake draws whether one that starts slowly takes part in this choice.
func (q *query) awake(n *node) bool {
	w := q.warmth(n)
	return w == 1 || q.uniform() < w
}

// start begins the slow start of n.
func (b *Balancer) start(n *node, t instant, length time.Duration) {
	if length > 0 {
		n.warm.Store(int64(t))
		b.warming(t + length)
	}
}

func (b *Balancer) warming(until instant) {
	for {
		old := b.warmTo.Load()
		if old >= int64(until) || b.warmTo.CompareAndSwap(old, int64(until)) {
			return
		}
	}
}

// even reports that all of g have the same chance.
func (q *query) even(g *group) bool { return g.flat && int64(q.t) >= q.b.warmTo.Load() }

// draws bounds the attempts to draw a fit node before all are looked at.
const draws = 4

// draw draws a fit node by weight, other than the one at index not; -1 when it had no luck. It draws evenly and accepts by weight,
// so that no table has to be kept.
func (q *query) draw(g *group, not int, even bool, avoid refusal) int {
	n := uint64(len(g.nodes))
	if not >= 0 {
		n--
	}
	for range draws {
		i := int(q.b.rand() % n)
		if not >= 0 && i >= not {
			i++
		}
		if e := g.nodes[i]; (even || q.uniform()*g.max < e.weight()*q.warmth(e)) && q.fit(e, avoid) {
			return i
		}
	}
	return -1
}

// two draws two different fit nodes and takes the lighter one, the first drawn when they are level; nil when none is
// fit. Source: Mitzenmacher, The Power of Two Choices (2001).
func (q *query) two(g *group, avoid refusal) *node {
	var first *node
	if len(g.nodes) >= 2 {
		even := q.even(g)
		if i := q.draw(g, -1, even, avoid); i >= 0 {
			first = g.nodes[i]
			if j := q.draw(g, i, even, avoid); j >= 0 {
				return q.lighter(g, first, g.nodes[j])
			}
		}
	}
	return q.sample(g, first, avoid)
}

// sample is two in one pass over all nodes; first is the first of the two if it was drawn. The least of n draws from exponential
// distributions falls on each in proportion to its rate, and so does the next among the rest (Efraimidis and Spirakis 2006).
func (q *query) sample(g *group, first *node, avoid refusal) *node {
	drawn := [2]*node{first}
	key := [2]float64{math.Inf(-1), math.Inf(1)}
	if first == nil {
		key[0] = math.Inf(1)
	}
	for _, n := range g.nodes {
		if n == first || !q.fit(n, avoid) {
			continue
		}
		switch k := -math.Log(1-q.uniform()) / (n.weight() * q.warmth(n)); {
		case k < key[0]:
			drawn[0], drawn[1], key[0], key[1] = n, drawn[0], k, key[0]
		case k < key[1]:
			drawn[1], key[1] = n, k
		}
	}
	if drawn[1] == nil {
		return drawn[0]
	}
	return q.lighter(g, drawn[0], drawn[1])
}

// lighter compares the load of two for what they can bear; a when they are level. Idle endpoints are level whatever their weight, as the draw
// has respected it already.
func (q *query) lighter(g *group, a, b *node) *node {
	x := a.pending(q.t) * g.max / (a.weight() * q.warmth(a))
	y := b.pending(q.t) * g.max / (b.weight() * q.warmth(b))
	if q.v.cfg.Algorithm == PeakEWMA {
		x, y = a.bid(q.t, x), b.bid(q.t, y)
	}
	if y < x {
		return b
	}
	return a
}

// next is round robin over the fit nodes, so that the neighbour of an unfit one gets no double share; nil when none is
// fit. One that starts slowly passes some of its turns on.
func (q *query) next(g *group, avoid refusal) *node {
	n := uint64(0)
	for _, e := range g.nodes {
		if q.fit(e, avoid) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	skip := (q.b.turn.Add(1) - 1) % n
	var last, first *node // last in case one became unfit since it was counted
	for _, e := range g.nodes {
		if !q.fit(e, avoid) {
			continue
		}
		if first == nil {
			first = e
		}
		if last = e; skip == 0 && q.awake(e) {
			return e
		}
		skip -= min(skip, 1)
	}
	if skip == 0 && first != nil && q.warmth(last) < 1 {
		return first // the last one passed its turn on
	}
	return last
}

// smooth is weighted round robin without bursts: each fit node gains its weight, the richest is taken and pays what
// all gained. Source: nginx's smooth weighted round robin.
func (q *query) smooth(g *group, avoid refusal) *node {
	q.b.turns.Lock()
	defer q.b.turns.Unlock()
	var best *node
	total := 0.0
	for _, n := range g.nodes {
		if !q.fit(n, avoid) {
			continue
		}
		w := n.weight() * q.warmth(n)
		total += w
		n.turn += w
		if best == nil || n.turn > best.turn {
			best = n
		}
	}
	if best != nil {
		best.turn -= total
	}
	return best
}

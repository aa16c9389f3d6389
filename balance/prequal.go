package balance

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Prequal. Source: Wydrowski, Kleinberg, Rumble and Archer, Load is not what you should balance (NSDI 2024). The
// parameters are the paper's. Different from it: a probe replaces the earlier one of the same endpoint, so that an overloaded
// endpoint's own probes cannot raise the quantile that it is measured by; the latency in the pool grows with
// the requests in flight that we add ourselves; recent failures count as requests in flight; with fewer than two probes the random choice is P2C.
const (
	poolSize  = 16
	probeLive = time.Second
	reuseGain = 1  // the paper's delta: probes made must outnumber those used up by it
	maxReuse  = 16 // where the formula has no finite answer
)

// probe is one endpoint's answer to a probe.
type probe struct {
	n       *node
	rif     int
	load    int // rif and the recent failures, which must not look like an idle endpoint; filled in by pick
	latency float64
	at      instant
	uses    int
	number  uint64 // in the order in which they came
}

// pool is the latest probes, in no order.
type pool struct {
	mu     sync.Mutex
	probes [poolSize]probe
	size   int
	number uint64
	worst  bool // the next one to go is the worst; else the oldest
	rifs   [poolSize]int
}

// rates are the numbers per call that follow from PerCall and the number of endpoints.
func rates(perCall float64, endpoints int) (reuse, remove float64) {
	// The paper gives 1 for three probes a call and 1/4 for one.
	remove = min(1, max(0.25, 0.25+0.375*(perCall-1)))
	n := float64(endpoints)
	m := min(poolSize, n/2) // with few endpoints nearly every probe replaces one of the same endpoint
	spare := (1-m/n)*perCall - remove
	if spare <= (1.0+reuseGain)/maxReuse {
		return maxReuse, remove
	}
	return max(1, (1+reuseGain)/spare), remove
}

// rounded is x rounded up or down at random so that its mean stays.
func (b *Balancer) rounded(x float64) int {
	whole := math.Floor(x)
	if b.uniform() < x-whole {
		whole++
	}
	return int(whole)
}

// Probes says whom the caller should ask for its Load now: to be called once for each call that is about to be made,
// and to be answered, in the background, with Report. A probe should be given up after a few milliseconds: it is of use while
// it is fresh. The slice is the caller's; it is nil unless the algorithm is Prequal.
func (b *Balancer) Probes(now time.Time) []*Endpoint {
	v, t := b.look(now)
	if v.cfg.Algorithm != Prequal {
		return nil
	}
	q := query{b: b, v: v, t: t}
	q.failOpen()
	g := &v.near
	if len(g.nodes) == 0 || q.spills(nil) {
		g = &v.far
	}
	k := min(b.rounded(v.cfg.Prequal.PerCall), len(g.nodes))
	if k == 0 {
		return nil
	}
	list := make([]*Endpoint, 0, k)
	// Floyd's sampling draws k different indexes with k random numbers.
	var drawn [poolSize]int
	for i := range k {
		top := len(g.nodes) - k + i
		d := int(b.rand() % uint64(top+1))
		if slices.Contains(drawn[:i], d) {
			d = top
		}
		drawn[i] = d
		if n := g.nodes[d]; q.fit(n, nil) {
			list = append(list, n.e)
		}
	}
	return list
}

// Report takes in what e said about its load at now: the answer to a probe, or a header of an ordinary answer. Both are used by
// later picks of Prequal and ignored otherwise.
func (b *Balancer) Report(e *Endpoint, now time.Time, l Load) {
	v, t := b.look(now)
	n := v.by[e]
	if v.cfg.Algorithm != Prequal || n == nil || l.RIF < 0 || l.Latency < 0 {
		return
	}
	reuse, _ := rates(v.cfg.Prequal.PerCall, len(v.used))
	uses := b.rounded(reuse)
	p := &b.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.slot(n)
	p.number++
	p.probes[at] = probe{n: n, rif: l.RIF, latency: float64(l.Latency), at: t, uses: uses, number: p.number}
}

// slot is where a probe of n goes: in place of an earlier one of n, or, when there is no room, of the oldest.
func (p *pool) slot(n *node) int {
	for i := range p.size {
		if p.probes[i].n == n {
			return i
		}
	}
	if p.size == poolSize {
		return p.oldest()
	}
	p.size++
	return p.size - 1
}

func (p *pool) oldest() int {
	old := 0
	for i := range p.size {
		if p.probes[i].number < p.probes[old].number {
			old = i
		}
	}
	return old
}

func (p *pool) remove(i int) {
	p.size--
	p.probes[i] = p.probes[p.size]
	p.probes[p.size].n = nil
}

// keep drops the probes of endpoints that v does not have.
func (p *pool) keep(v *view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.size - 1; i >= 0; i-- {
		if n := p.probes[i].n; v.by[n.e] != n {
			p.remove(i)
		}
	}
}

// pick is hot-cold lexicographic: of the endpoints that are not hot the one with the least latency; when all are hot,
// the one with the least in flight. nil when it knows of fewer than two, or of none that is fit.
func (p *pool) pick(q *query, g *group, avoid refusal) *node {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.size - 1; i >= 0; i-- {
		if x := &p.probes[i]; x.uses <= 0 || q.t-x.at > probeLive || q.t-x.at < -probeLive {
			p.remove(i)
		}
	}
	if p.size < 2 {
		return nil
	}
	limit := p.limit(q.v.cfg.Prequal.Hot)
	best := -1
	for i := range p.size {
		x := &p.probes[i]
		x.load = x.rif + int(x.n.penalty(q.t))
		if (best < 0 || x.before(&p.probes[best], limit)) && q.holds(g, x.n) && q.fit(x.n, avoid) && q.awake(x.n) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	x := &p.probes[best]
	n := x.n
	x.uses--
	x.latency *= float64(x.rif+2) / float64(x.rif+1)
	x.rif++
	x.load++
	_, remove := rates(q.v.cfg.Prequal.PerCall, len(q.v.used))
	for range q.b.rounded(remove) {
		p.shrink(limit)
	}
	return n
}

// holds reports whether n is in g.
func (q *query) holds(g *group, n *node) bool {
	return len(g.nodes) == len(q.v.all) || slices.Contains(g.nodes, n)
}

// before reports whether x is the better choice.
func (x *probe) before(y *probe, limit int) bool {
	switch {
	case x.load <= limit && y.load <= limit:
		return x.latency < y.latency
	case x.load > limit && y.load > limit:
		return x.load < y.load
	}
	return x.load <= limit
}

// limit is the quantile of the requests in flight above which an endpoint is hot.
func (p *pool) limit(quantile float64) int {
	for i := range p.size {
		p.rifs[i] = p.probes[i].rif
	}
	s := p.rifs[:p.size]
	slices.Sort(s)
	return s[int(quantile*float64(len(s)-1))]
}

// shrink removes the oldest probe and the worst one by turns: without the first the pool goes stale, without
// the second only bad ones are left.
func (p *pool) shrink(limit int) {
	if p.size == 0 {
		return
	}
	i := p.oldest()
	if p.worst {
		for k := range p.size {
			if p.probes[i].before(&p.probes[k], limit) {
				i = k
			}
		}
	}
	p.worst = !p.worst
	p.remove(i)
}

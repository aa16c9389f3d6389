package balance

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// instant is a time as the distance from the view's base. Made from times that carry a monotonic reading, it does not
// see the steps of the wall clock.
type instant = time.Duration

// view is what one Balancer sees of the Set under one Config. It is immutable, the nodes apart: a change of either
// makes a new one, which keeps the nodes of the endpoints that stay.
type view struct {
	cfg  *Config
	list *[]*Endpoint
	base time.Time
	all  []*node // in the order of the Set
	near group   // of the caller's zone, or all; the chosen subset
	far  group   // of other zones; the chosen subset
	rest group   // not in the subset
	used []*node // near and far
	by   map[*Endpoint]*node
}

// group is endpoints among which one draw is made.
type group struct {
	nodes []*node
	max   float64 // the largest weight
	flat  bool    // all weights are equal
}

func newGroup(nodes []*node) group {
	g := group{nodes: nodes, flat: true}
	for _, n := range nodes {
		g.flat = g.flat && n.weight() == nodes[0].weight()
		g.max = max(g.max, n.weight())
	}
	return g
}

// node is what one Balancer has learned of an endpoint.
type node struct {
	e       *Endpoint
	returns atomic.Uint32 // of the endpoint's recoveries, those that were noticed
	warm    atomic.Int64  // instant at which slow start began; never = it did not
	cost    atomic.Uint64 // see cost.go
	streak  atomic.Int32  // failures in a row
	failed  atomic.Int64  // instant of the latest one
	out     atomic.Int64  // 0 = in; else the instant from which on a trial may be made
	trial   atomic.Int64  // 0 = none; else when the trial that runs began, plus one

	mu     sync.Mutex // what follows is written by Done and by sweeps
	stamp  instant    // of cost
	seen   *sketch    // nil = nobody ejects
	row    int        // failures in a row
	excess float64    // failures in excess of Eject.FailureRatio, summed since there was none: a cumulative sum (CUSUM)

	turn float64 // of smooth weighted round robin; guarded by Balancer.turns

	since   atomic.Int64  // calls that began before this instant say nothing about the node as it is now; written under Balancer.gate
	strikes int           // ejections that are not forgiven; guarded by Balancer.gate
	lasted  time.Duration // of the latest ejection; guarded by Balancer.gate
}

const never = math.MinInt64

func (n *node) weight() float64 { return n.e.Weight() }

// at converts now.
func (v *view) at(now time.Time) instant { return now.Sub(v.base) }

// look returns the view that is valid at now, and now in it.
func (b *Balancer) look(now time.Time) (*view, instant) {
	v := b.view.Load()
	if v != nil && v.cfg == b.cfg.Load() && v.list == b.set.list.Load() {
		t := v.at(now)
		last := b.latest.Load()
		if t-instant(last) < time.Second && t-instant(last) > -clockBack {
			return v, t
		}
		if t > instant(last) {
			b.latest.Store(int64(t))
			return v, t
		}
	}
	return b.renew(now)
}

// clockBack is how far the time may go back before all that was learned is forgotten: instants in the future would never come.
const clockBack = 30 * time.Second

func (b *Balancer) renew(now time.Time) (*view, instant) {
	b.gate.Lock()
	defer b.gate.Unlock()
	old, cfg, list := b.view.Load(), b.cfg.Load(), b.set.list.Load()
	v := &view{cfg: cfg, list: list, base: now, by: make(map[*Endpoint]*node, len(*list))}
	if old != nil {
		v.base = old.base
		if v.at(now)-instant(b.latest.Load()) <= -clockBack {
			v.base, old = now, nil
			b.warmTo.Store(never)
		} else if old.cfg == cfg && old.list == list {
			return old, old.at(now)
		}
	}
	t := v.at(now)
	v.fill(old, t, b.uniform)
	b.latest.Store(int64(t))
	b.eject.sweep.Store(int64(t + sweepEvery))
	if old == nil {
		b.eject.swept = t
	}
	b.eject.count.Store(0)
	for _, n := range v.all {
		if n.out.Load() != 0 && (cfg.Eject == nil || !slices.Contains(v.used, n)) {
			n.out.Store(0) // nobody would let it in again
		}
		if n.out.Load() != 0 {
			b.eject.count.Add(1)
		}
		if n.warm.Load() != never {
			b.warming(t + cfg.SlowStart)
		}
	}
	b.pool.keep(v)
	b.view.Store(v)
	return v, t
}

// fill makes the nodes and groups. An endpoint is new, and starts slowly, when others were there before it and stay.
func (v *view) fill(old *view, t instant, uniform func() float64) {
	stay := false
	for _, e := range *v.list {
		var n *node
		if old != nil {
			n = old.by[e]
		}
		stay = stay || n != nil
		v.by[e] = n
		v.all = append(v.all, n)
	}
	for i, e := range *v.list {
		if v.all[i] != nil {
			continue
		}
		// Callers that start together must not all begin their turns at the same endpoint.
		n := &node{e: e, stamp: t, turn: uniform() * e.Weight()}
		n.returns.Store(e.returns.Load())
		n.warm.Store(never)
		n.since.Store(never)
		if stay {
			n.warm.Store(int64(t))
		}
		v.all[i], v.by[e] = n, n
	}
	for _, n := range v.all {
		if n.seen == nil && v.cfg.Eject != nil {
			n.seen = new(sketch)
		}
	}
	v.divide()
}

// divide makes the groups.
func (v *view) divide() {
	near, far := v.all, []*node(nil)
	if zone := v.cfg.Zone; zone != "" {
		near = filter(v.all, func(n *node) bool { return n.e.Zone() == zone })
		far = filter(v.all, func(n *node) bool { return n.e.Zone() != zone })
		if len(near) == 0 {
			near, far = far, nil
		}
	}
	near, restNear := subset(near, v.cfg.Subset, v.cfg.SubsetKey)
	far, restFar := subset(far, v.cfg.Subset, v.cfg.SubsetKey)
	v.used = slices.Concat(near, far)
	v.near, v.far, v.rest = newGroup(near), newGroup(far), newGroup(slices.Concat(restNear, restFar))
}

func filter(nodes []*node, keep func(*node) bool) (kept []*node) {
	for _, n := range nodes {
		if keep(n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// subset takes the k nodes that rank highest for the caller named key, in their order; 0 = all. Source: rendezvous
// hashing (Thaler and Ravishankar 1998), as gRPC's random subsetting (A68) has it: it depends on no order and on no
// number of callers, and an endpoint that comes or goes changes each caller's subset by at most one.
func subset(nodes []*node, k int, key string) (chosen, rest []*node) {
	if k == 0 || k >= len(nodes) {
		return nodes, nil
	}
	rank := make(map[*node]uint64, len(nodes))
	for _, n := range nodes {
		rank[n] = score(key, n.e.name)
	}
	order := slices.SortedFunc(slices.Values(nodes), func(a, b *node) int {
		return cmp.Or(cmp.Compare(rank[b], rank[a]), cmp.Compare(a.e.name, b.e.name))
	})
	last := order[k-1]
	in := func(n *node) bool {
		return rank[n] > rank[last] || rank[n] == rank[last] && n.e.name <= last.e.name
	}
	return filter(nodes, in), filter(nodes, func(n *node) bool { return !in(n) })
}

// score is a 64-bit hash of the pair. FNV alone hardly mixes the last bytes, where addresses differ: the finaliser is splitmix64's.
func score(key, name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	h.Write([]byte{0})
	h.Write([]byte(name))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

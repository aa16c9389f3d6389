package limit

import (
	"sync/atomic"
	"time"
)

// What a waiter's state may be. It changes once, before its channel is closed.
const (
	waiting int32 = iota
	admitted
	refused
)

// waiter is a call in the queue. Its links are guarded by the limiter, its outcome by state.
type waiter struct {
	prev, next *waiter
	line       *line // nil when it waits no more
	state      atomic.Int32
	err        error
	decided    chan struct{}
	since      int64
	age        int64 // at which it gives up
	deadline   int64 // noTimeout = none
	rank       int
}

// line is the waiting calls of one tenant in one tier, oldest first.
type line struct {
	tier       int
	tenant     string
	head, tail *waiter
	length     int
	turn       float64 // virtual time at which its next call is due: calls served so far, when always waiting
}

func (l *line) push(w *waiter) {
	w.line, w.prev = l, l.tail
	if l.tail != nil {
		l.tail.next = w
	} else {
		l.head = w
	}
	l.tail = w
	l.length++
}

func (l *line) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.tail = w.prev
	}
	w.prev, w.next, w.line = nil, nil, nil
	l.length--
}

// rest names the line of the tenants that found no line of their own. No tenant can have this name by accident.
const rest = "\x00rest"

// level is the lines of one tier. A line is kept while empty, so that its tenant keeps its turn, until another tenant
// needs the place.
type level struct {
	lines   []*line
	by      map[string]*line
	waiting int
	now     float64 // virtual time: the turn of the call served last
	codel   codel
}

// join gives the line of a tenant, of which there are at most most, and the line of the rest.
func (v *level) join(tier int, tenant string, most int) *line {
	if l := v.by[tenant]; l != nil {
		return l
	}
	if v.by == nil {
		v.by = make(map[string]*line)
	}
	if len(v.lines) >= most && !v.vacate() {
		tenant = rest
		if l := v.by[tenant]; l != nil {
			return l
		}
	}
	l := &line{tier: tier, tenant: tenant, turn: v.now}
	v.lines = append(v.lines, l)
	v.by[tenant] = l
	return l
}

// vacate drops empty lines, and reports whether there were any.
func (v *level) vacate() bool {
	kept := v.lines[:0]
	for _, l := range v.lines {
		if l.length > 0 {
			kept = append(kept, l)
		} else {
			delete(v.by, l.tenant)
		}
	}
	gone := len(kept) < len(v.lines)
	clear(v.lines[len(kept):])
	v.lines = kept
	return gone
}

// due is the line whose turn it is: the one that was served least.
func (v *level) due() (best *line) {
	for _, l := range v.lines {
		if l.length > 0 && (best == nil || l.turn < best.turn) {
			best = l
		}
	}
	return best
}

// longest is the line that waits with the most calls.
func (v *level) longest() (best *line) {
	for _, l := range v.lines {
		if l.length > 0 && (best == nil || l.length > best.length) {
			best = l
		}
	}
	return best
}

// queue is all calls that wait.
//
// Tenants of a tier are served by start-time fair queueing (Goyal, Vin, Cheng 1996) with calls of equal length; the
// tenant that waits with the most calls loses one when there is no room (longest queue drop: Suter et al. 1998). The
// newest goes first when the queue is deep: Maurer, Fail at Scale (ACM Queue 2015).
type queue struct {
	levels  [tiers]level
	waiting int
}

// ahead is how many calls go before a new one of this tier.
func (q *queue) ahead(tier int, lifo bool) (n int) {
	for i := tier + 1; i < tiers; i++ {
		n += q.levels[i].waiting
	}
	if !lifo {
		n += q.levels[tier].waiting
	}
	return n
}

func (q *queue) add(w *waiter, tier int, tenant string, tenants int) {
	v := &q.levels[tier]
	l := v.join(tier, tenant, tenants)
	if l.length == 0 {
		l.turn = max(l.turn, v.now)
	}
	l.push(w)
	v.waiting++
	q.waiting++
}

func (q *queue) remove(w *waiter) {
	q.levels[w.line.tier].waiting--
	q.waiting--
	w.line.remove(w)
}

// pop takes the call that is to go next: of the highest tier, of the tenant whose turn it is. nil when none waits.
func (q *queue) pop(lifo bool) (w *waiter, v *level) {
	for i := tiers - 1; i >= 0; i-- {
		v := &q.levels[i]
		if v.waiting == 0 {
			continue
		}
		l := v.due()
		w := l.head
		if lifo {
			w = l.tail
		}
		q.remove(w)
		v.now = l.turn
		l.turn++
		return w, v
	}
	return nil, nil
}

// lookedAt is how many of a line's calls, from the oldest on, are compared for their rank when one must go.
const lookedAt = 16

// displace takes the call that makes room for a new one of this rank and tenant. It is one of the lowest tier; there of
// the longest line; there, of the oldest, the one of lowest rank. nil when the newcomer itself is the one to refuse: it
// would be that call, or its tenant waits with as many as any.
func (q *queue) displace(rank int, tenant string, lifo bool) *waiter {
	tier := rank / cohorts
	for i := 0; i <= tier; i++ {
		v := &q.levels[i]
		if v.waiting == 0 {
			continue
		}
		l := v.longest()
		w := l.expendable()
		if i == tier && !v.yields(l, w, rank, tenant, lifo) {
			return nil
		}
		q.remove(w)
		return w
	}
	return nil
}

func (l *line) expendable() *waiter {
	worst := l.head
	for w, n := l.head, 0; w != nil && n < lookedAt; w, n = w.next, n+1 {
		if w.rank < worst.rank {
			worst = w
		}
	}
	return worst
}

// yields reports whether w, of the longest line, makes room for a newcomer of its tier.
func (v *level) yields(longest *line, w *waiter, rank int, tenant string, lifo bool) bool {
	mine := v.by[tenant]
	if mine == nil {
		mine = v.by[rest]
	}
	switch {
	case mine == nil || mine.length+1 < longest.length:
		return true
	case mine != longest:
		return false
	case rank != w.rank:
		return rank > w.rank
	}
	return lifo // of equals the newest has the most time left
}

// codel tells a permanent queue from a burst.
//
// Source: Nichols, Jacobson (RFC 8289), with the rule of folly's executors/Codel.cpp in place of the control law: when
// the shortest wait of an interval exceeded the target, the next interval drops what waited twice the target.
type codel struct {
	shortest   int64
	ends       int64
	overloaded bool
}

// drops reports whether a call that waited so long, and whose turn has come, is dropped instead.
func (c *codel) drops(at, waited, target int64) bool {
	if at >= c.ends {
		// An interval without a single wait says that there was no queue.
		c.overloaded = c.ends > 0 && c.shortest > target && at-c.ends < interval(target)
		c.ends = at + interval(target)
		c.shortest = waited
		return false
	}
	c.shortest = min(c.shortest, waited)
	return c.overloaded && waited > 2*target
}

func interval(target int64) int64 { return max(int64(100*time.Millisecond), 2*target) }

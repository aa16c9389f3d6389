package balance

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

// Outlier ejection. An endpoint is taken out for failures in a row at once, and by a sweep every second for a share of
// failures or a median latency far above the others'. A share over 10 s takes seconds to rise after a good past; so a
// cumulative sum of the failures above FailureRatio, which forgets the good past, is looked at four times as often. Comparing with the others keeps a fault behind all of them
// from emptying the rotation. When its time is over one call is a trial: it brings the endpoint back or ejects it again, for longer.
// Sources: Envoy's outlier detection, Page's CUSUM (Biometrika 1954), linkerd's probation with one request; the latency rule is our own.

const (
	sweepEvery = time.Second            // for shares and medians
	lookEvery  = sweepEvery / 4         // for sums
	streakLive = 10 * time.Second       // failures further apart are not in a row
	trialSlack = 100 * time.Millisecond // a trial may have been timed from before its Pick
	ratioAbove = 2                      // times the others' median share of failures
	tellingAs  = 2                      // times Eject.Consecutive failures in a row: what a sum of failures must reach
)

// ejection is the part of a Balancer that takes endpoints out.
type ejection struct {
	sweep   atomic.Int64 // instant of the next one
	count   atomic.Int32 // endpoints out, those in trial included
	normal  atomic.Int64 // the median endpoint's median latency when it was known last; 0 = never
	swept   instant      // of the latest one; guarded by Balancer.gate, as what follows
	scratch []figure
	sorted  []float64
}

// figure is what a sweep knows of a node.
type figure struct {
	n      *node
	ratio  float64 // share of failures; NaN = too few calls
	excess float64 // failures above FailureRatio since it was last exceeded; see node.excess
	median float64 // latency in ns; NaN = too few answers
}

// ejected reports whether the endpoint is out at t, before any trial.
func (n *node) ejected(t instant) bool { return instant(n.out.Load()) > t }

// learn takes in how a call ended, gap being the time since the failure before it. It returns the failures in a row of
// calls that began since the node is in. normal is the share of failures that is put up with.
func (n *node) learn(t instant, gap time.Duration, out call.Outcome, bad bool, normal float64) (row int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if int64(t-out.Latency) < n.since.Load() {
		return 0 // it tells of the time before the ejection
	}
	n.seen.add(out, bad)
	switch {
	case bad && gap > streakLive:
		n.row, n.excess = 1, 1-normal
	case bad:
		n.row++
		n.excess += 1 - normal
	case out.Class == call.OK:
		n.row = 0
		n.excess = max(0, n.excess-normal)
	}
	return n.row
}

// judge takes an ended call as evidence.
func (b *Balancer) judge(v *view, n *node, t instant, out call.Outcome, row int) {
	began := int64(t - out.Latency)
	switch {
	case n.out.Load() != 0:
		if !n.ejected(t) && began >= n.since.Load()-int64(trialSlack) {
			b.tried(v, n, t, out)
		}
	case row >= v.cfg.Eject.Consecutive:
		b.gate.Lock()
		b.remove(v, n, t)
		b.gate.Unlock()
	}
	if next := b.eject.sweep.Load(); int64(t) >= next && b.eject.sweep.CompareAndSwap(next, int64(t+lookEvery)) {
		b.gate.Lock()
		b.review(v, t)
		b.gate.Unlock()
	}
}

// trial claims the call at hand for an endpoint whose ejection is over; nil when there is none to try.
func (q *query) trial(avoid refusal) *node {
	if q.b.eject.count.Load() == 0 || q.v.cfg.Eject == nil {
		return nil
	}
	for _, n := range q.v.used {
		until := n.out.Load()
		if until == 0 || n.ejected(q.t) || !n.e.Healthy() || avoid != nil && avoid(n.e) {
			continue
		}
		running := n.trial.Load()
		if running != 0 && q.t-instant(running-1) < q.v.cfg.Eject.For {
			continue
		}
		if n.trial.CompareAndSwap(running, int64(q.t)+1) {
			return n
		}
	}
	return nil
}

// tried ends a trial.
func (b *Balancer) tried(v *view, n *node, t instant, out call.Outcome) {
	b.gate.Lock()
	defer b.gate.Unlock()
	if n.out.Load() == 0 || n.ejected(t) {
		return
	}
	n.trial.Store(0)
	normal := float64(b.eject.normal.Load())
	switch {
	case refused(out), out.Overtaken, out.Class == call.OK && v.cfg.Eject.slow(float64(out.Latency), normal):
		b.again(v, n, t)
	case out.Class == call.OK || out.Class == call.Client:
		n.out.Store(0)
		n.since.Store(int64(t))
		n.streak.Store(0)
		n.mu.Lock()
		*n.seen, n.row, n.excess = sketch{}, 0, 0
		n.mu.Unlock()
		b.eject.count.Add(-1)
		b.start(n, t, v.cfg.SlowStart)
	}
}

// slow reports whether a latency is far above what is normal.
func (e *Eject) slow(latency, normal float64) bool {
	return normal > 0 && latency > e.LatencyFactor*normal && latency > float64(e.LatencyFloor) && latency-normal >= float64(e.LatencyDelta)
}

// remove ejects n unless too many are out. gate is held.
func (b *Balancer) remove(v *view, n *node, t instant) {
	if b.view.Load() != v || n.out.Load() != 0 {
		return
	}
	out, left := 0, 0
	for _, o := range v.used {
		if o.out.Load() != 0 {
			out++
		} else if o != n && o.e.Healthy() {
			left++
		}
	}
	if left == 0 || out >= max(1, int(v.cfg.Eject.MaxEjected*float64(len(v.used)))) {
		return
	}
	if n.lasted > 0 && t-instant(n.since.Load()) >= n.lasted {
		n.strikes = 0 // it served as long as it was out
	}
	b.eject.count.Add(1)
	b.again(v, n, t)
}

// again begins the next, longer ejection of n. gate is held.
func (b *Balancer) again(v *view, n *node, t instant) {
	cfg := v.cfg.Eject
	n.lasted = time.Duration(min(float64(cfg.MaxFor), float64(cfg.For)*math.Exp2(float64(n.strikes))))
	n.strikes++
	n.since.Store(int64(t + n.lasted))
	n.out.Store(max(1, int64(t+n.lasted)))
}

// review compares the endpoints with each other and ejects those that stand out, the worst first: by their sums, and when
// a sweep is due by their shares and medians. gate is held.
func (b *Balancer) review(v *view, t instant) {
	cfg := v.cfg.Eject
	full := t-b.eject.swept >= sweepEvery
	fade := math.Exp(-max(0, float64(t-b.eject.swept)) / float64(decay))
	if full {
		b.eject.swept = t
	}
	enough := tellingAs * float64(cfg.Consecutive) * (1 - cfg.FailureRatio)
	all := b.eject.scratch[:0]
	for _, n := range v.used {
		if n.out.Load() != 0 || !n.e.Healthy() {
			continue
		}
		f := figure{n: n, ratio: math.NaN(), median: math.NaN()}
		n.mu.Lock()
		n.excess = min(n.excess, 2*enough) // who is well again is not to be an outlier for long
		f.excess = n.excess
		if full {
			f.judge(n.seen, cfg.MinCalls)
			n.seen.age(fade)
		}
		n.mu.Unlock()
		all = append(all, f)
	}
	b.eject.scratch = all
	b.compare(v, t, func(f figure) float64 { return f.excess }, 2, func(x, others float64) bool {
		return x >= enough && x > ratioAbove*others
	})
	if full {
		b.sweep(v, t)
	}
}

// judge finds the share and the median of a sketch that has seen enough calls.
func (f *figure) judge(s *sketch, minCalls int) {
	if s.calls() >= float64(minCalls) {
		f.ratio = float64(s.bad / (s.good + s.bad))
	}
	if s.answers >= float32(minCalls) {
		f.median = float64(s.median())
	}
}

// sweep ejects by shares and medians. gate is held.
func (b *Balancer) sweep(v *view, t instant) {
	cfg := v.cfg.Eject
	b.compare(v, t, func(f figure) float64 { return f.ratio }, 2, func(x, others float64) bool {
		return x >= cfg.FailureRatio && x > ratioAbove*others
	})
	b.compare(v, t, func(f figure) float64 { return f.median }, 3, cfg.slow)
	if s := b.eject.sorted; len(s) > 0 {
		b.eject.normal.Store(int64(s[len(s)/2]))
	}
}

// compare ejects the nodes whose value is out of line with the median of the others', when there are at least few
// values, the worst first. It leaves the values in ejection.sorted.
func (b *Balancer) compare(v *view, t instant, value func(figure) float64, few int, outlier func(x, others float64) bool) {
	s := b.eject.sorted[:0]
	for _, f := range b.eject.scratch {
		if x := value(f); !math.IsNaN(x) {
			s = append(s, x)
		}
	}
	slices.Sort(s)
	b.eject.sorted = s
	if len(s) < few {
		return
	}
	for i, x := range slices.Backward(s) {
		// The upper median of the others: when in doubt, nobody is an outlier.
		m := (len(s) - 1) / 2
		if m >= i {
			m++
		}
		if !outlier(x, s[m]) {
			return
		}
		for _, f := range b.eject.scratch {
			if value(f) == x {
				b.remove(v, f.n, t)
			}
		}
	}
}

// failOpen opens the query to the ejected when too few endpoints are left. Source: Envoy's panic threshold.
func (q *query) failOpen() {
	if q.b.eject.count.Load() == 0 || q.v.cfg.Eject == nil {
		return
	}
	left := 0
	for _, n := range q.v.used {
		if n.e.Healthy() && n.out.Load() == 0 {
			left++
		}
	}
	q.open = float64(left) < q.v.cfg.Eject.PanicBelow*float64(len(q.v.used))
}

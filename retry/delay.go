package retry

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

const (
	renewEvery = 3 * time.Second
	minSamples = 100
	minDelay   = time.Millisecond // below it, a copy is earlier than the timer is precise
	target     = 0.01             // share of calls that may be slower than what is minimised: p99
	headroom   = 0.9              // of the hedge budget; a trigger at its very rim would find it empty half of the time
	worthwhile = 0.95             // a p99 that would not fall below this share of the present one is not worth a copy
	asGood     = 1.01             // of delays whose p99 differs by less, the longest one costs least
)

// delay finds the age at which a copy of a running attempt is sent: the one that minimises the predicted p99 of the
// call while no more copies are sent than the budget pays for.
//
// With F the distribution of single attempts, a call that is hedged at d is slower than t with probability
// (1-F(t))*(1-F(t-d)), and a share 1-F(d) of the calls sends a copy. A fixed quantile misses the best d by far: for
// lognormal latencies with 5 % stragglers, p95 gives a p99 of 24 ms, p93 one of 17 ms.
//
// F must be that of uncensored attempts. A loser that was given up at age a is known to take longer than a and no
// more; taken as a finished one it would drag F, and with it d, towards zero. So F is the product-limit estimate of
// Kaplan and Meier (1958), which takes such an attempt out of those at risk at age a.
type delay struct {
	mu      sync.Mutex                // held while the delay is renewed; never waited for on the way of a call
	samples atomic.Pointer[samples]   // nil until arm
	due     atomic.Pointer[time.Time] // when to renew; nil = at once
	chosen  atomic.Int64              // 0 = do not hedge
}

// samples hold the last 20 s to 30 s.
type samples struct{ finished, givenUp *stats.Windowed }

func (d *delay) arm() {
	if d.samples.Load() == nil {
		d.samples.CompareAndSwap(nil, &samples{
			finished: stats.NewWindowed(3, window),
			givenUp:  stats.NewWindowed(3, window),
		})
	}
}

func (d *delay) finished(now time.Time, age time.Duration) {
	d.samples.Load().finished.Record(now, age)
}

func (d *delay) givenUp(now time.Time, age time.Duration) { d.samples.Load().givenUp.Record(now, age) }

// after returns the delay for the given budget, and renews it when that is due.
func (d *delay) after(now time.Time, budgetRatio float64) (time.Duration, bool) {
	if due := d.due.Load(); (due == nil || !now.Before(*due)) && d.mu.TryLock() {
		d.renew(now, budgetRatio)
		d.mu.Unlock()
	}
	chosen := d.chosen.Load()
	return time.Duration(chosen), chosen > 0
}

func (d *delay) renew(now time.Time, budgetRatio float64) {
	if due := d.due.Load(); due != nil && now.Before(*due) {
		return // another call was faster
	}
	s, next := d.samples.Load(), now.Add(renewEvery)
	chosen, _ := choose(survival(s.finished.Snapshot(now), s.givenUp.Snapshot(now)), budgetRatio)
	d.chosen.Store(int64(chosen))
	d.due.Store(&next)
}

// point says that a share of all attempts takes longer than age.
type point struct {
	age   time.Duration
	share float64
}

// survival is the product-limit estimate, in ascending order of age; empty when there are too few samples.
func survival(finished, givenUp stats.Snapshot) []point {
	if finished.Count()+givenUp.Count() < minSamples {
		return nil
	}
	type bucket struct {
		age        time.Duration
		done, lost uint64
	}
	var all []bucket
	for age, n := range finished.Buckets() {
		all = append(all, bucket{age: age, done: n})
	}
	for age, n := range givenUp.Buckets() {
		all = append(all, bucket{age: age, lost: n})
	}
	// Within a bucket, what finished comes before what was given up.
	slices.SortStableFunc(all, func(a, b bucket) int { return cmp.Compare(a.age, b.age) })
	atRisk, share := float64(finished.Count()+givenUp.Count()), 1.0
	var curve []point
	for _, b := range all {
		if b.done > 0 {
			share *= 1 - float64(b.done)/atRisk
			curve = append(curve, point{b.age, share})
		}
		atRisk -= float64(b.done + b.lost)
	}
	return curve
}

// above is the share of attempts that take longer than age.
func above(curve []point, age time.Duration) float64 {
	i := sort.Search(len(curve), func(i int) bool { return curve[i].age > age })
	if i == 0 {
		return 1
	}
	return curve[i-1].share
}

// p99 predicts the 99th percentile of calls hedged at d, in steps of the curve; the longest Duration when it lies
// beyond what was seen to its end.
func p99(curve []point, d time.Duration) time.Duration {
	i := sort.Search(len(curve), func(i int) bool {
		return curve[i].share*above(curve, curve[i].age-d) <= target
	})
	if i == len(curve) {
		return math.MaxInt64
	}
	return curve[i].age
}

// choose returns the delay and the p99 it promises; 0 when no delay is worth a copy.
func choose(curve []point, budgetRatio float64) (after, promise time.Duration) {
	plain := p99(curve, math.MaxInt64)
	type choice struct{ after, promise time.Duration }
	var choices []choice
	best := time.Duration(math.MaxInt64)
	for _, p := range curve {
		if p.share <= headroom*budgetRatio && p.age >= minDelay {
			c := choice{p.age, p99(curve, p.age)}
			choices = append(choices, c)
			best = min(best, c.promise)
		}
	}
	if best == math.MaxInt64 || float64(best) > worthwhile*float64(plain) {
		return 0, plain
	}
	for _, c := range slices.Backward(choices) {
		if float64(c.promise) <= asGood*float64(best) {
			return c.after, c.promise
		}
	}
	return 0, plain
}

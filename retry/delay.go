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
	headroom   = 0.9              // of the hedge budget; a trigger at its very rim would find it empty half of the time
	worthwhile = 0.05             // what copies must take off the latency at least, as a share of it
	price      = 2                // and for each percent of copies, so many percent
	asGood     = 1.005            // of delays whose p99 differs by less, the longest one costs least
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
	watch   atomic.Int64              // age by which a common slowness is seen: chosen, or where it would be at the earliest
	reach   atomic.Uint64             // share of attempts that take longer than watch; bits of a float64
}

// samples hold the last 20 s to 30 s.
type samples struct{ finished, givenUp *stats.Windowed }

func newSamples() *samples {
	return &samples{finished: stats.NewWindowed(3, window), givenUp: stats.NewWindowed(3, window)}
}

func (d *delay) arm() {
	if d.samples.Load() == nil {
		d.samples.CompareAndSwap(nil, newSamples())
	}
}

// forget begins to learn anew. Nothing is hedged until enough is known again.
func (d *delay) forget() {
	d.samples.Store(newSamples())
	d.chosen.Store(0)
	d.watch.Store(0)
}

// usual is the share of attempts that are expected to become as old as watch.
func (d *delay) usual() float64 { return math.Float64frombits(d.reach.Load()) }

func (d *delay) finished(now time.Time, age time.Duration) {
	d.samples.Load().finished.Record(now, age)
}

func (d *delay) givenUp(now time.Time, age time.Duration) { d.samples.Load().givenUp.Record(now, age) }

// after returns the delay for the given budget, and renews it when that is due.
// slower is the share of calls that may be slower than what is minimised.
func (d *delay) after(now time.Time, budgetRatio, slower float64) (time.Duration, bool) {
	if due := d.due.Load(); (due == nil || !now.Before(*due)) && d.mu.TryLock() {
		d.renew(now, budgetRatio, slower)
		d.mu.Unlock()
	}
	chosen := d.chosen.Load()
	return time.Duration(chosen), chosen > 0
}

func (d *delay) renew(now time.Time, budgetRatio, slower float64) {
	if due := d.due.Load(); due != nil && now.Before(*due) {
		return // another call was faster
	}
	s, next := d.samples.Load(), now.Add(renewEvery)
	curve := survival(s.finished.Snapshot(now), s.givenUp.Snapshot(now))
	chosen, _ := choose(curve, budgetRatio, slower)
	if watch := cmp.Or(chosen, earliest(curve, headroom*budgetRatio).age); watch < math.MaxInt64 {
		d.reach.Store(math.Float64bits(above(curve, watch)))
		d.watch.Store(int64(watch))
	}
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

// above is the share of attempts that take longer than age: between two points, on the line that joins them.
func above(curve []point, age time.Duration) float64 {
	i := sort.Search(len(curve), func(i int) bool { return curve[i].age > age })
	switch i {
	case 0:
		return 1
	case len(curve):
		return curve[i-1].share
	}
	a, b := curve[i-1], curve[i]
	return a.share + (b.share-a.share)*float64(age-a.age)/float64(b.age-a.age)
}

// promise predicts the latency that a share slower of the calls hedged at d exceeds; the longest Duration when it lies
// beyond what was seen to its end.
func promise(curve []point, d time.Duration, slower float64) time.Duration {
	at := func(age time.Duration) float64 { return above(curve, age) * above(curve, age-d) }
	i := sort.Search(len(curve), func(i int) bool { return at(curve[i].age) <= slower })
	switch i {
	case 0:
		return curve[0].age
	case len(curve):
		return math.MaxInt64
	}
	a, b := curve[i-1].age, curve[i].age
	from, to := at(a), at(b)
	return a + time.Duration(float64(b-a)*(from-slower)/(from-to))
}

// earliest is the age that a share of all attempts reaches: between two points, on the line that joins them.
func earliest(curve []point, share float64) point {
	i := sort.Search(len(curve), func(i int) bool { return curve[i].share <= share })
	if i == 0 || i == len(curve) {
		return point{age: math.MaxInt64}
	}
	a, b := curve[i-1], curve[i]
	return point{a.age + time.Duration(float64(b.age-a.age)*(a.share-share)/(a.share-b.share)), share}
}

// choose returns the delay and what it promises; 0 when no delay is worth a copy.
func choose(curve []point, budgetRatio, slower float64) (after, promised time.Duration) {
	if len(curve) == 0 {
		return 0, 0
	}
	plain := promise(curve, math.MaxInt64, slower)
	type choice struct{ after, promised time.Duration }
	var choices []choice
	best := time.Duration(math.MaxInt64)
	try := func(p point) {
		if p.share > headroom*budgetRatio || p.age < minDelay || p.age >= plain {
			return
		}
		c := choice{p.age, promise(curve, p.age, slower)}
		if float64(c.promised) <= (1-max(worthwhile, price*p.share))*float64(plain) {
			choices = append(choices, c)
			best = min(best, c.promised)
		}
	}
	try(earliest(curve, headroom*budgetRatio))
	for _, p := range curve {
		try(p)
	}
	for _, c := range slices.Backward(choices) {
		if float64(c.promised) <= asGood*float64(best) {
			return c.after, c.promised
		}
	}
	return 0, plain
}

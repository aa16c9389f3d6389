package limit

import (
	"slices"

	"github.com/longpole/longpole/call"
)

const (
	tiers   = int(call.Critical-call.Speculative) + 1
	cohorts = 128
	ranks   = tiers * cohorts
)

func tier(p call.Priority) int {
	return int(min(max(p, call.Speculative), call.Critical) - call.Speculative)
}

// rank is the order in which calls are given up: 0 first.
func rank(info *call.Info) int {
	return tier(info.Priority)*cohorts + cohorts - 1 - int(min(info.Cohort, cohorts-1))
}

// The constants of Cinnamon's controller.
const (
	gainP       = 0.1
	gainI       = 1.4  // per second
	period      = 5e8  // nanoseconds
	remembered  = 1000 // calls whose ranks stand for all
	maxRejected = 0.95 // so that there is always something to learn from
	patience    = 2    // periods with calls turned away before the controller wakes: a burst is the queue's affair
)

// rejector turns lasting overload into a rank below which calls are refused on arrival. A controller finds the share to
// refuse, and the ranks of the latest calls tell which rank that share lies below.
//
// Source: Cinnamon (Uber Engineering, 2023). Its error is (in - out - free slots), relative to what went out; here it
// is relative to what was offered, and the free slots count as the calls that they could have served. With that the
// gain of the loop is the same for 1.1 times and for 10 times the capacity, and the constants hold for both.
type rejector struct {
	seen  [remembered]caller
	next  int
	count int
	at    [ranks]int32 // of seen

	share     float64 // to refuse
	integral  float64
	threshold int           // ranks below are refused
	edge      [slots]excess // of the tenants among the calls of rank threshold

	tick     int64   // when the period ends
	area     float64 // of the limiter, when the period began
	offered  int     // in the period: calls that came
	in       int     // of these, not refused by the rejector
	out      int     // calls that got a permit
	turned   int     // calls that found no permit free
	pressing int     // periods in a row with such calls
}

// caller is what is remembered of a call. Tenants fall into slots by their hash; those of one slot share their fate.
type caller struct {
	rank uint16
	slot uint8
}

const slots = 256

// excess is what a tenant has above its fair part.
type excess struct {
	share float64 // of its calls, to refuse
	carry float64 // of share, until it makes a call
}

// saw records a call.
func (r *rejector) saw(rank int, slot uint8) {
	if r.count == remembered {
		r.at[r.seen[r.next].rank]--
	} else {
		r.count++
	}
	r.seen[r.next] = caller{uint16(rank), slot}
	r.at[rank]++
	if r.next++; r.next == remembered {
		r.next = 0
	}
	r.offered++
}

// refuses reports whether such a call is to be refused.
func (r *rejector) refuses(rank int, slot uint8) bool {
	if r.share == 0 || rank > r.threshold {
		return false
	}
	if rank < r.threshold {
		return true
	}
	e := &r.edge[slot]
	if e.carry += e.share; e.carry < 1 {
		return false
	}
	e.carry--
	return true
}

// step ends a period of the given length in nanoseconds. free is the mean number of free permits in it, service the
// median service time (0 = unknown).
func (r *rejector) step(length, free, service float64, queued int) {
	if r.turned > 0 {
		r.pressing++
	} else {
		r.pressing = 0
	}
	spare := free
	if service > 0 {
		spare = free * length / service
	}
	if r.offered > 0 && (r.pressing >= patience || r.share > 0) {
		e := (float64(r.in-r.out) + float64(queued)/2 - spare) / float64(r.offered)
		e = min(max(e, -1), 1)
		step := min(length, 2*period) / 1e9
		r.integral = min(max(r.integral+gainI*e*step, 0), maxRejected) // clamped: no wind-up
		r.share = min(max(r.integral+gainP*e, 0), maxRejected)
	} else if r.offered == 0 {
		r.share, r.integral = 0, 0
	}
	r.offered, r.in, r.out, r.turned = 0, 0, 0, 0
	r.calibrate()
}

// calibrate finds the rank that the share lies below.
func (r *rejector) calibrate() {
	if r.share == 0 {
		return
	}
	left := r.share * float64(r.count)
	for rank, n := range r.at {
		if n > 0 && float64(n) >= left {
			r.threshold = rank
			r.divide(left)
			return
		}
		left -= float64(n)
	}
	r.threshold = ranks
}

// divide shares out among the tenants of rank threshold how many of its calls to refuse: to each what it has above a
// part that is the same for all (max-min fairness).
func (r *rejector) divide(refuse float64) {
	var calls [slots]float64
	for _, c := range r.seen[:r.count] {
		if int(c.rank) == r.threshold {
			calls[c.slot]++
		}
	}
	sorted := calls
	slices.Sort(sorted[:])
	part, sum := 0.0, 0.0
	for i := slots - 1; i >= 0 && sorted[i] > part; i-- {
		sum += sorted[i]
		part = (sum - refuse) / float64(slots-i)
	}
	for i, n := range calls {
		r.edge[i].share = 0
		if n > part {
			r.edge[i].share = (n - part) / n
		}
	}
}

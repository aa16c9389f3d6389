package scale

import (
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// replica is what one of them can do.
type replica struct {
	slots   float64       // calls at once, at the knee
	service time.Duration // mean time of one call in it
	spread  float64       // squared coefficient of variation of that time
}

// serviceOf is mean and spread of the times that calls took in a replica.
func serviceOf(s stats.Snapshot) (mean time.Duration, spread float64) {
	if s.Count() == 0 {
		return 0, 0
	}
	mean = s.Sum() / time.Duration(s.Count())
	variance := 0.0
	for upper, n := range s.Buckets() {
		d := float64(upper - mean)
		variance += d * d * float64(n)
	}
	if mean > 0 {
		spread = variance / float64(s.Count()) / float64(mean) / float64(mean)
	}
	return mean, spread
}

// wait is the quantile q of the time that a call waits for a slot when so many calls a second are spread over n replicas, each
// with a queue of its own (M/M/c, and the factor of Allen and Cunneen for service times that are not exponential). That is an
// upper bound for a gateway, which sends a call where there is room. ok is false when they cannot keep up.
func (r replica) wait(perSecond float64, n int, q float64) (w time.Duration, ok bool) {
	c := math.Max(math.Floor(r.slots), 1)
	load := perSecond / float64(n) * r.service.Seconds() // calls at work at once, in one replica
	if n < 1 || load >= c {
		return 0, false
	}
	waits := erlangC(c, load)
	if waits <= 1-q {
		return 0, true
	}
	seconds := math.Log(waits/(1-q)) * r.service.Seconds() / (c - load) * (1 + r.spread) / 2
	return time.Duration(seconds * float64(time.Second)), true
}

// erlangC is the chance that a call finds all c slots taken, by the recursion of Erlang B.
func erlangC(c, load float64) float64 {
	b := 1.0
	for k := 1.0; k <= c; k++ {
		b = load * b / (k + load*b)
	}
	return b / (1 - load/c*(1-b))
}

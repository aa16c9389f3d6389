package judge

import (
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// What both arms have in common is compared with how it was before the candidate got any traffic.
const (
	envRows   = 3  // p50, p95, p99
	envSlices = 3  // judged slices that are looked at together
	envShift  = 21 // buckets: a factor of 1.255
	envErrors = 0.005
)

// environment remembers the last slices of both arms, and what was before.
type environment struct {
	before [envRows]time.Duration // quantiles before the first slice
	errors float64                // share of calls
	recent [envSlices][2]surroundings
}

// surroundings is one arm's slice.
type surroundings struct {
	calls, timed, errors float64
	beyond               [envRows]float64 // calls slower than 1.25 times the quantile before
}

func (e *environment) freeze(t *stats.Tally, failed float64) {
	all := t.Latency.Merge(t.FailedLatency)
	for i, row := range [envRows]int{p50, p95, p99} {
		e.before[i] = stats.Shift(all.Quantile(table[row].q), envShift)
	}
	e.errors = failed / max(float64(t.Calls), 1)
}

func (j *Judge) measureEnvironment(c *counts, t *stats.Tally) {
	for i, x := range j.environment.before {
		c.beyond[i] = float64(t.Latency.Above(x)) + float64(t.FailedLatency.Above(x))
	}
}

func (e *environment) add(b, c *counts) {
	copy(e.recent[1:], e.recent[:envSlices-1])
	e.recent[0] = [2]surroundings{around(b), around(c)}
}

func around(c *counts) surroundings {
	return surroundings{calls: c.calls, timed: c.timed, errors: c.rows[errored].plain, beyond: c.beyond}
}

// worse reports whether, over the last slices, both arms got more than 25 % worse than before on the same metric, by more
// than three standard errors. It is no test of the candidate: it asks for patience, not for a rollback.
func (e *environment) worse() bool {
	var arms [2]surroundings
	for _, slice := range e.recent {
		for a := range slice {
			arms[a].calls += slice[a].calls
			arms[a].timed += slice[a].timed
			arms[a].errors += slice[a].errors
			for i := range slice[a].beyond {
				arms[a].beyond[i] += slice[a].beyond[i]
			}
		}
	}
	b, c := &arms[0], &arms[1]
	if min(b.timed, c.timed) < minCalls {
		return false
	}
	for i, row := range [envRows]int{p50, p95, p99} {
		p := 1 - table[row].q
		if above(b.beyond[i], b.timed, p) && above(c.beyond[i], c.timed, p) {
			return true
		}
	}
	p := 1.25*e.errors + envErrors
	return above(b.errors, b.calls, p) && above(c.errors, c.calls, p)
}

// above reports whether k of n is more than a share p by three standard errors.
func above(k, n, p float64) bool { return k > n*p+3*math.Sqrt(n*p*(1-min(p, 1))) }

package load

import (
	"math/rand/v2"
	"time"
)

// pacer says when calls are due. It is told nothing and knows no clock: the schedule is a function of the seed
// alone, which is what makes the loop open.
type pacer struct {
	perSecond float64
	random    *rand.Rand // nil = uniform
	count     int64
	at        float64 // seconds since the start, of the latest Poisson arrival
}

// newPacer gives every stream of a plan a source of its own, so that adding a target moves no other's arrivals.
func newPacer(a Arrivals, perSecond float64, seed, stream uint64) *pacer {
	p := &pacer{perSecond: perSecond}
	if a != Uniform {
		p.random = rand.New(rand.NewPCG(seed, 2*stream))
	}
	return p
}

// next returns how long after the start the next call is due; it never decreases.
//
// Uniform arrivals are computed from their number and not from the one before, so that rounding never adds up.
// Poisson gaps are -ln(1-u)/rate, which is what ExpFloat64 draws.
func (p *pacer) next() time.Duration {
	p.count++
	if p.random == nil {
		return time.Duration(float64(p.count-1) / p.perSecond * float64(time.Second))
	}
	p.at += p.random.ExpFloat64() / p.perSecond
	return time.Duration(p.at * float64(time.Second))
}

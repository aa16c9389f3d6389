package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// pacer says when calls are due. It is told nothing and knows no clock: the schedule is a function of the seed
// alone, which is what makes the loop open.
//
// The n-th call is due when the integral of the rate reaches the n-th arrival of a process of rate 1: whole numbers for
// Uniform, sums of exponentials for the others (time rescaling; Daley, Vere-Jones, "Point Processes", theorem 7.4.I). The
// rate is linear between breakpoints, the ends of stages and of bursts, so that the integral is inverted exactly.
type pacer struct {
	gaps   *rand.Rand // nil = uniform
	stages []Stage
	burst  Burst
	phases *rand.Rand // nil = no bursts

	arrived float64 // of the process of rate 1

	from, to   float64 // the present piece, seconds
	rate, last float64 // at its ends, bursts included
	before     float64 // the integral up to from

	stage     int     // of the present piece
	began     float64 // when that stage did
	base      float64 // its first rate
	on        bool    // within a burst
	switching float64 // when the burst or the pause ends
}

// newPacer gives every stream of a plan a source of its own, so that adding a target moves no other's arrivals.
func newPacer(a Arrivals, perSecond float64, stages []Stage, b Burst, seed, stream uint64) *pacer {
	p := &pacer{stages: stages, burst: b, base: perSecond, switching: math.Inf(1)}
	if a != Uniform {
		p.gaps = rand.New(rand.NewPCG(seed, 2*stream))
	}
	if a == Bursty {
		p.phases = rand.New(rand.NewPCG(seed^0x9e3779b97f4a7c15, 2*stream))
		p.on = p.phases.Float64() < b.On.Seconds()/(b.On+b.Off).Seconds() // as if it had always run
		p.switching = p.stay()
	}
	p.arrived = -1
	if p.gaps != nil {
		p.arrived = 0
	}
	p.piece()
	return p
}

// next returns how long after the start the next call is due; it never decreases.
func (p *pacer) next() time.Duration {
	if p.gaps == nil {
		p.arrived++
	} else {
		p.arrived += p.gaps.ExpFloat64()
	}
	for {
		rest := p.arrived - p.before
		if area := (p.rate + p.last) / 2 * (p.to - p.from); rest > area && !math.IsInf(p.to, 1) {
			p.before += area
			p.advance()
			continue
		}
		return duration(p.from + p.within(rest))
	}
}

// within is how far into the piece its integral reaches rest.
func (p *pacer) within(rest float64) float64 {
	if p.rate == p.last || math.IsInf(p.to, 1) {
		if rest == 0 {
			return 0
		}
		return rest / p.rate // +Inf for a rate of 0: never
	}
	slope := (p.last - p.rate) / (p.to - p.from)
	// The root of slope/2 x² + rate x = rest, in the form that does not cancel.
	x := 2 * rest / (p.rate + math.Sqrt(max(p.rate*p.rate+2*slope*rest, 0)))
	if math.IsNaN(x) {
		return 0
	}
	return min(x, p.to-p.from)
}

// advance goes to the next piece.
func (p *pacer) advance() {
	at := p.to
	if p.stage < len(p.stages) && at == p.began+p.stages[p.stage].Over.Seconds() {
		p.base = p.stages[p.stage].Rate
		p.began = at
		p.stage++
	}
	if at == p.switching {
		p.on = !p.on
		p.switching = at + p.stay()
	}
	p.from = at
	p.piece()
}

// piece works out the piece that begins at from.
func (p *pacer) piece() {
	for p.stage < len(p.stages) && p.stages[p.stage].Over <= 0 { // a jump
		p.base = p.stages[p.stage].Rate
		p.stage++
	}
	p.to = p.switching
	level := func(float64) float64 { return p.base }
	if p.stage < len(p.stages) {
		s, took := p.stages[p.stage], p.stages[p.stage].Over.Seconds()
		p.to = min(p.to, p.began+took)
		level = func(at float64) float64 { return p.base + (s.Rate-p.base)*(at-p.began)/took }
	}
	factor := 1.0
	if p.phases != nil {
		factor = p.burst.factor(p.on)
	}
	p.rate, p.last = factor*level(p.from), factor*p.base
	if !math.IsInf(p.to, 1) {
		p.last = factor * level(p.to)
	}
}

// stay draws how long a burst or a pause lasts.
func (p *pacer) stay() float64 {
	mean := p.burst.Off
	if p.on {
		mean = p.burst.On
	}
	return mean.Seconds() * p.phases.ExpFloat64()
}

// duration is seconds as time, and never for what a duration cannot hold.
func duration(seconds float64) time.Duration {
	if !(seconds < float64(never)/1e9) {
		return never
	}
	return time.Duration(seconds * 1e9)
}

// never is further away than any run lasts, and small enough to be added to a clock's reading.
const never = 10 * 365 * 24 * time.Hour

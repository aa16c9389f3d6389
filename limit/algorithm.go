package limit

import "math"

// algorithm finds the limit. The limiter calls it under its lock.
type algorithm interface {
	bounds(c *Config)
	observe(s sample)
	blocked() // a call found no permit free
	limit() int
	settled() int // limit, or what it was before something is tried
}

// sample is one call that told something.
type sample struct {
	at, took int64
	inFlight int     // when it ended, itself included
	area     float64 // calls in flight, integrated over nanoseconds, up to at
	drop     bool
}

func newAlgorithm(c *Config, start int) algorithm {
	l := ranged{value: float64(start)}
	switch c.Algorithm {
	case Fixed:
		return &fixed{l}
	case None:
		return &fixed{ranged{value: math.MaxInt32}}
	case AIMD:
		return &aimd{ranged: l, until: math.MinInt64}
	case Vegas:
		return &vegas{ranged: l}
	case Gradient2:
		return &gradient2{ranged: l}
	}
	return newAdaptive(l)
}

// ranged is the part that all algorithms share: a limit and its range.
type ranged struct{ value, least, most float64 }

func (l *ranged) bounds(c *Config) {
	if c.Algorithm == None {
		l.least, l.most = l.value, l.value
		return
	}
	l.least, l.most = float64(c.Min), float64(c.Max)
	l.set(l.value)
}

func (l *ranged) set(v float64) { l.value = min(max(v, l.least), l.most) }
func (l *ranged) limit() int    { return int(l.value) }
func (l *ranged) settled() int  { return l.limit() }
func (l *ranged) blocked()      {}

// fixed never changes.
type fixed struct{ ranged }

func (f *fixed) observe(sample) {}

// aimd adds a call for each full limit of good answers and takes a tenth at a drop, once for the calls that were in
// flight together.
//
// Source: Chiu, Jain 1989; the factor and the condition of use are those of Netflix concurrency-limits, AIMDLimit.
type aimd struct {
	ranged
	until int64 // drops before it belong to one that was already answered
}

func (a *aimd) observe(s sample) {
	switch {
	case s.drop && s.at-s.took >= a.until:
		a.set(a.value * 0.9)
		a.until = s.at
	case !s.drop && float64(s.inFlight)*2 >= a.value:
		a.set(a.value + 1/a.value)
	}
}

// window gathers samples as Netflix's WindowedLimit does, so that one call does not move the limit.
type window struct {
	start, sum, shortest int64
	count, inFlight      int
	dropped              bool
}

const (
	windowSamples = 10
	windowLeast   = int64(1e8)
	windowMost    = int64(1e9)
	tooShort      = int64(1e5) // answers that no dependency gave
)

// add reports whether s completes a window: its mean latency, largest in-flight and whether anything was dropped stay
// readable until the next add.
func (w *window) add(s sample) bool {
	if w.count < 0 {
		*w = window{}
	}
	if w.count == 0 {
		w.start, w.shortest = s.at, math.MaxInt64
	}
	if !s.drop && s.took < tooShort {
		return false
	}
	w.count++
	w.sum += s.took
	w.shortest = min(w.shortest, s.took)
	w.inFlight = max(w.inFlight, s.inFlight)
	w.dropped = w.dropped || s.drop
	if w.count < windowSamples || s.at-w.start < min(max(2*w.shortest, windowLeast), windowMost) {
		return false
	}
	w.sum /= int64(w.count)
	w.count = -1
	return true
}

// vegas infers the queue in the dependency from the shortest latency seen.
//
// Source: Brakmo, Peterson 1995, as in Netflix concurrency-limits, VegasLimit: thresholds of 3 and 6 times log10 of the
// limit, and a new shortest latency every 30 times the limit of windows.
type vegas struct {
	ranged
	window
	noLoad int64
	seen   int
}

func (v *vegas) observe(s sample) {
	if !v.add(s) {
		return
	}
	took := v.sum
	if v.seen++; v.noLoad == 0 || took < v.noLoad || float64(v.seen) > 30*v.value {
		v.seen, v.noLoad = 0, took
	}
	step := max(1, math.Log10(v.value))
	queued := math.Ceil(v.value * (1 - float64(v.noLoad)/float64(took)))
	switch {
	case v.dropped:
		v.set(v.value - step)
	case float64(v.inFlight)*2 < v.value:
	case queued <= step:
		v.set(v.value + 6*step)
	case queued < 3*step:
		v.set(v.value + step)
	case queued > 6*step:
		v.set(v.value - step)
	}
}

// gradient2 compares a long-term mean of the latency with the present one.
//
// Source: Netflix concurrency-limits, Gradient2Limit: tolerance 1.5, smoothing 0.2, queue 4, long window 600. As there, a
// latency that stays bad becomes the norm.
type gradient2 struct {
	ranged
	window
	long float64
	seen int
}

func (g *gradient2) observe(s sample) {
	if !g.add(s) {
		return
	}
	short := float64(g.sum)
	g.seen++
	if g.seen <= 10 {
		g.long += (short - g.long) / float64(g.seen)
	} else {
		g.long += (short - g.long) * 2 / 601
	}
	if g.long > 2*short {
		g.long *= 0.95
	}
	if float64(g.inFlight) < g.value/2 {
		return
	}
	gradient := min(max(1.5*g.long/short, 0.5), 1)
	g.set(g.value + 0.2*(g.value*gradient+4-g.value))
}

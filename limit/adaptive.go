package limit

import (
	"math"
	"slices"
)

// adaptive is the default algorithm. In each window it compares the median latency with a base; while the ratio is
// tolerable and the limit is in use, the limit grows.
//
// A ratio cannot see a steadily bad level, so two things keep it honest. The base is not a minimum, which a deploy can
// make unreachable, nor a long-term mean, which follows overload: it is measured, every few seconds, with a
// quarter fewer calls in flight for one window. And no growth is allowed while more calls in flight have not
// brought more goodput, which their covariance over the latest windows tells; the probes supply the variance.
//
// At first the limit doubles from window to window, or, when the first windows use all of it, is halved as long as that
// costs no goodput.
//
// Timeouts are drops. They lower the limit, unless fewer calls in flight evidently lower the goodput just as much: then
// the timeouts are not of our making, and the limit stays.
//
// Source: the ratio is Vegas and Gradient2 (Brakmo, Peterson 1995; Netflix concurrency-limits), the veto Cinnamon's
// auto-tuner (Uber Engineering 2023), the probe BBR's (Cardwell et al., ACM Queue 2016).
type adaptive struct {
	ranged
	from   int64   // samples before it reflect another limit, and are left out
	begun  bool    // the window has begun
	start  int64   // of the window
	area   float64 // at start
	good   int
	drops  int
	turned bool // a call found no permit free
	took   [medianOf]int64

	short   float64 // latency, smoothed over windows; nanoseconds
	base    float64 // what latency would be without a queue
	cov     covariance
	doubles bool    // the limit doubles in each window until something speaks against it
	search  bool    // find out first whether the limit is much too high
	idle    int     // windows in which the limit was not in use: they show the base too
	windows int     // since the latest probe
	dropped float64 // share of drops that is not our doing

	probe probe
}

// probing is why there are fewer calls in flight for a window.
type probing uint8

const (
	none      probing = iota
	routine           // to measure the base
	searching         // halved, until goodput falls: a limit that is much too high comes down so
	trial             // latency or drops are too high: a cut, taken back if it only lowers the goodput
)

// probe is a window with fewer calls in flight; the values are those of before.
type probe struct {
	kind     probing
	limit    float64
	inFlight float64
	goodput  float64
}

const (
	medianOf      = 128  // latencies of a window, the latest
	wantSamples   = 25   // in a window
	fewSamples    = 5    // in a long one
	stepSamples   = 10   // while the limit doubles
	searchSamples = 100  // while a search compares goodputs
	shortWindow   = 1e8  // nanoseconds
	longWindow    = 1e9  // a window with few samples ends after that
	tolerance     = 1.25 // latency over base
	coarse        = 1.5  // while the limit doubles, as the windows are small
	growth        = 1.1
	knowsIdle     = 5  // such windows make a search needless
	probeEvery    = 20 // windows
	probeDepth    = 0.75
	trialDepth    = 0.85 // of a cut at most: a smaller one would tell nothing
	searchDepth   = 0.5
	ignoredDrops  = 0.02 // share of drops
	hopeless      = 0.8  // share of drops that nothing excuses
	worthwhile    = 0.3  // goodput gained per in-flight gained, both relative, that allows growth
	useless       = 0.15 // less than that makes the limit shrink
	flat          = 0.4  // up to which a search goes on
	linear        = 0.7  // from which the dependency is not to blame for drops
)

func newAdaptive(l ranged) algorithm {
	return &adaptive{ranged: l, doubles: true, search: true}
}

func (a *adaptive) blocked() { a.turned = true }

func (a *adaptive) settled() int {
	if a.probe.kind != none {
		return int(a.probe.limit)
	}
	return a.limit()
}

func (a *adaptive) observe(s sample) {
	if s.at < a.from {
		return
	}
	if !a.begun {
		a.begun, a.start, a.area, a.good, a.drops = true, s.at, s.area, 0, 0
		return
	}
	if s.drop {
		a.drops++
	} else {
		a.took[a.good%medianOf] = s.took
		a.good++
	}
	length := float64(s.at - a.start)
	n := a.good + a.drops
	if length < max(shortWindow, a.short) || n < a.wanted() && (n < fewSamples || length < longWindow) {
		return
	}
	w := a.window(length, s.area-a.area)
	a.begun, a.turned = false, false
	before := a.value
	if a.probe.kind != none {
		a.probed(&w)
	} else {
		a.judge(&w)
	}
	if math.Abs(a.value/before-1) > 0.05 {
		settle := max(a.short, w.latency) // calls begun under the old limit are to be gone
		if a.doubles && !a.search {
			settle *= 2 // and the queue is to be there, before the next step makes it worse
		}
		a.from = s.at + int64(settle)
	}
}

// wanted is how many samples make a window, unless they take long: few while the limit doubles, as the steps are large
// then, and many while a search compares goodputs.
func (a *adaptive) wanted() int {
	switch {
	case a.search:
		return searchSamples
	case a.doubles:
		return stepSamples
	}
	return wantSamples
}

// tolerated is the latency up to which the limit grows: by a queue of a quarter of the calls, or of two.
func (a *adaptive) tolerated() float64 {
	if a.doubles {
		return a.base * max(coarse, 1+2/a.value)
	}
	return a.base * max(tolerance, 1+2/a.value)
}

// seen is what a window showed.
type seen struct {
	inFlight float64 // mean
	goodput  float64 // successes per second
	latency  float64 // median of the successes, nanoseconds; 0 = there were none
	drops    float64 // share
	busy     bool    // the limit was in use nearly all the time
	full     bool    // or at times
}

func (a *adaptive) window(length, area float64) (w seen) {
	w.inFlight = area / length
	w.goodput = float64(a.good) / length * 1e9
	w.drops = float64(a.drops) / float64(a.good+a.drops)
	if n := min(a.good, medianOf); n > 0 {
		took := a.took
		slices.Sort(took[:n])
		w.latency = float64(took[n/2])
	}
	w.busy = w.inFlight >= 0.9*a.limitNow()
	w.full = w.busy || a.turned && w.inFlight >= 0.75*a.limitNow()
	return w
}

func (a *adaptive) limitNow() float64 { return math.Floor(a.value) }

// judge moves the limit by what a window without a probe showed. Each reason to cut is tried first: see probed.
func (a *adaptive) judge(w *seen) {
	a.learn(w)
	a.windows++
	slope, known := a.cov.slope()
	switch {
	case w.goodput == 0 || w.drops > hopeless:
		a.doubles = true // when it is over, the way back is as quick as the first
		a.set(a.value / 2)
	case w.drops > ignoredDrops+1.5*a.dropped:
		a.try(w, min(1-w.drops/2, probeDepth))
	case w.busy && a.search && a.value >= 2:
		a.begin(w, searching, searchDepth)
	case w.busy && a.windows >= probeEvery && a.value >= 2:
		a.windows = 0
		a.begin(w, routine, probeDepth)
	case a.short > a.tolerated() && (w.full || a.short > 2*a.base):
		a.try(w, min(max(searchDepth, a.tolerated()/a.short), trialDepth))
	case !w.full:
	case known && slope < worthwhile:
		a.doubles = false
		if slope < useless {
			a.set(a.value * 0.97)
		}
	case a.doubles && w.busy:
		a.search = false
		a.set(a.value * 2)
	default:
		a.set(max(a.value*growth, a.value+1))
	}
}

// learn keeps the base right between probes. It falls slowly, or noise would make it a minimum.
func (a *adaptive) learn(w *seen) {
	if w.latency > 0 {
		if a.base == 0 {
			a.short, a.base = w.latency, w.latency
		}
		a.short += (w.latency - a.short) / 2
		switch {
		case w.latency < a.base:
			a.base += (w.latency - a.base) / 16
		case a.value < 2:
			a.base += (w.latency - a.base) / 4 // one call at a time cannot queue behind itself
		case !w.full:
			a.base += (min(w.latency, 2*a.base) - a.base) / 32 // nor behind those that the limit did not hold back
		}
	}
	if !w.full {
		a.rested(w)
		a.dropped += (w.drops - a.dropped) / 32
	} else if w.goodput > 0 && w.inFlight > 0 {
		a.cov.add(math.Log(w.inFlight), math.Log(w.goodput))
	}
}

// rested looks whether windows in which the limit was not in use make the search needless: the base is known then.
func (a *adaptive) rested(w *seen) {
	a.idle++
	if a.short > a.tolerated() || w.inFlight > a.value/2 {
		a.idle = 0
	}
	if a.idle >= knowsIdle {
		a.search, a.doubles = false, false
	}
}

// try cuts the limit, if it is in use. If it is not, it is brought down to what is, so that it can be.
func (a *adaptive) try(w *seen, depth float64) {
	a.doubles = false
	switch {
	case !w.full:
		a.set(max(a.value*0.9, w.inFlight))
	case a.value >= 2:
		a.begin(w, trial, depth)
	}
}

func (a *adaptive) begin(w *seen, kind probing, depth float64) {
	a.probe = probe{kind: kind, limit: a.value, inFlight: w.inFlight, goodput: w.goodput}
	// Below Min too: that is a floor for the traffic, not for what may be tried.
	a.value = max(min(a.value*depth, a.value-1), 1)
}

// probed ends a probe. By Little's law the goodput of before, at the latency of the probe, needs so many calls in
// flight: the new limit, if it lies between the two. When it is near that of before, goodput fell with the calls in
// flight: then they are not the cause of the latency or the drops, which become the base.
func (a *adaptive) probed(w *seen) {
	p := a.probe
	a.probe.kind = none
	if w.goodput == 0 || p.goodput == 0 || w.inFlight == 0 {
		a.search = false
		a.set(a.value)
		return
	}
	a.cov.add(math.Log(w.inFlight), math.Log(w.goodput))
	needs := w.inFlight * p.goodput / w.goodput
	slope := math.Log(p.goodput/w.goodput) / math.Log(max(p.inFlight/w.inFlight, 1.01))
	switch {
	case p.kind == routine:
		a.rebase(w, 0.3)
		a.set(min(max(needs*growth, a.value), p.limit))
	case p.kind == trial && slope < linear:
		a.short = w.latency
		a.set(min(max(needs, a.value), p.limit))
	case p.kind == trial:
		a.cov = covariance{} // the dependency is not what it was
		a.rebase(w, 1)
		a.set(p.limit)
	default:
		a.rebase(w, 1)
		if a.search = slope < flat; a.search {
			a.doubles = false
			a.set(a.value)
			if a.short = w.latency; a.value >= 2 {
				a.begin(w, searching, searchDepth)
			}
		} else {
			a.set(min(max(needs, a.value), p.limit))
			a.cov = covariance{} // what holds far above the limit says nothing about it
		}
	}
}

func (a *adaptive) rebase(w *seen, weight float64) {
	a.base += weight * (w.latency - a.base)
	a.dropped += weight * (w.drops - a.dropped)
	if weight == 1 {
		a.short = w.latency
	}
}

// covariance of two series, the older terms weighing less.
type covariance struct{ w, x, y, xx, xy float64 }

const covarianceDecay = 0.9

func (c *covariance) add(x, y float64) {
	const d = covarianceDecay
	c.w, c.x, c.y, c.xx, c.xy = c.w*d+1, c.x*d+x, c.y*d+y, c.xx*d+x*x, c.xy*d+x*y
}

// slope is by how much y rises with x. It is known once x has varied by some 4 %.
func (c *covariance) slope() (b float64, known bool) {
	if c.w < 2 {
		return 0, false
	}
	mx, my := c.x/c.w, c.y/c.w
	v := c.xx/c.w - mx*mx
	if v < 0.04*0.04 {
		return 0, false
	}
	return (c.xy/c.w - mx*my) / v, true
}

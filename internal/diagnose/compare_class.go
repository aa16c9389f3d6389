package diagnose

import (
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// Of a service's growth, and of its healthy time: either suspects its processor.
const (
	ownExcess   = 0.2
	ownGrowth   = 0.5
	surelyOwn   = 2.0 // standard deviations by which a position of its code must have grown to count
	surelyCalls = 3.0 // the same for calls on their way
)

// class names the kind of cause as far as segments can tell. A starved processor slows the service's own code, and
// its answers and calls as well; a slow network leaves the code alone. Where only calls on their way grew, how they did
// so decides.
func (b *blame) class(segment trace.Segment) string {
	switch segment {
	case trace.SegDatabase, trace.SegCache:
		if !b.slowsCalls() {
			return "database"
		}
	case trace.SegQueue:
		return "queueing"
	case trace.SegDownstream:
		if !b.recorded() {
			return "dependency"
		}
	}
	var own, all, base float64
	for _, i := range b.found.chosen {
		g := b.positions[i]
		all += float64(g.calls()) * g.mean
		if g.at.segment == trace.SegService && g.sigma > surelyOwn {
			own += float64(g.calls()) * g.mean
		}
	}
	for _, g := range b.positions {
		if g.at.segment == trace.SegService {
			base += float64(g.calls()) * g.base
		}
	}
	if own > ownExcess*all || own > ownGrowth*base || b.stalls() {
		return "cpu"
	}
	return "network"
}

// recorded reports whether the service has calls or work of its own in the traces.
func (b *blame) recorded() bool {
	return slices.ContainsFunc(b.positions, func(g growth) bool { return g.at.caller == b.service })
}

// slowsCalls reports whether calls to or from the service surely got slower on their way, too: then it is not the database
// that its statements wait for.
func (b *blame) slowsCalls() bool {
	return slices.ContainsFunc(b.found.chosen, func(i int) bool {
		return b.positions[i].at.segment == trace.SegNetwork && b.positions[i].sigma > surelyCalls
	})
}

// Times that a network adds are multiples of one time, the distance or the timer of a lost message: as many as there
// are messages to wait for. Waiting for a processor adds anything up to a scheduling period, and so is told by its
// values between.
const (
	uneven     = 0.4  // part of the added times that may lie between the multiples
	offBeat    = 0.1  // of the time, by which a multiple may be missed
	shifted    = 0.45 // of their median, that all times at least are when every message has further to go, however much it varies
	mostTrips  = 8    // multiples that are looked for
	atLeastFor = 4    // added times; fewer say nothing
)

// stalls reports whether calls on their way to the service, or else from it, are held up for uneven times.
func (b *blame) stalls() bool {
	var in, out added
	for _, i := range b.found.chosen {
		g := b.positions[i]
		switch {
		case g.at.segment != trace.SegNetwork && g.at.segment != trace.SegDownstream:
		case g.at.caller != b.service:
			in.calls(g)
		default:
			out.calls(g)
		}
	}
	if len(in.slow) < atLeastFor {
		in.slow, in.all = append(in.slow, out.slow...), append(in.all, out.all...)
	}
	if len(in.slow) < atLeastFor {
		return false
	}
	slices.Sort(in.slow)
	slices.Sort(in.all)
	least := 1.0
	for _, q := range []float64{0.1, 0.25, 0.5} {
		least = min(least, between(in.slow, atQuantile(in.slow, q)))
	}
	return least > uneven && atQuantile(in.all, 0.1) < shifted*atQuantile(in.slow, 0.5)
}

// added is what suspect calls took beyond the healthy median, in ms.
type added struct{ slow, all []float64 }

// calls adds those of one position; the slow ones took longer than most healthy ones.
func (a *added) calls(g growth) {
	usual := atQuantile(g.baseline, 0.5)
	slow := max(atQuantile(g.baseline, 0.9), 2*usual)
	for _, v := range g.suspect {
		a.all = append(a.all, v-usual)
		if v > slow {
			a.slow = append(a.slow, v-usual)
		}
	}
}

// between is the part of times that are no multiple of beat.
func between(times []float64, beat float64) float64 {
	off := 0
	for _, v := range times {
		trips := math.Round(v / beat)
		if trips < 1 || trips > mostTrips || math.Abs(v-trips*beat) > offBeat*beat {
			off++
		}
	}
	return float64(off) / float64(len(times))
}

package limit

import (
	"math"
	"time"
)

// pressure is an exponential mean over time of the calls in flight or waiting, at their peak in each period, and of the
// limit. Calls are shed at peaks, not at means.
type pressure struct {
	peak            int
	wanted, allowed float64
}

const pressureMemory = float64(5 * time.Second)

func (p *pressure) saw(wanted int) { p.peak = max(p.peak, wanted) }

func (p *pressure) step(length float64, wanted, allowed int) {
	w := 1 - math.Exp(-length/pressureMemory)
	p.wanted += w * (float64(p.peak) - p.wanted)
	p.allowed += w * (float64(allowed) - p.allowed)
	p.peak = wanted
}

func (p *pressure) value() float64 {
	if p.allowed == 0 {
		return 0
	}
	return p.wanted / p.allowed
}

package retry

import (
	"sync"
	"time"
)

const (
	gateMemory = 64.0             // attempts over which the share is smoothed
	gateFactor = 3                // times the usual share: common
	gateFloor  = 0.15             // and never below it: half a dozen late ones in a row are chance
	gateWarm   = 64               // attempts before which nothing is judged
	newNormal  = 30 * time.Second // slowness that lasts longer is no longer unusual
)

// gate tells slowness that is common to all attempts from that of a few. A copy helps against the latter only: when a
// shared database stalls, all attempts become old at once, and so would their copies.
//
// It smooths the share of attempts that reach the hedge delay, over the latest 64 of them or so, and is closed while
// that is far above what the distribution behind the delay lets expect. It needs no knowledge of what the copies
// gained, so it closes before they are sent: after about ten of a common stall.
type gate struct {
	mu     sync.Mutex
	seen   int
	share  float64
	closed time.Time // since when; zero = open
}

// began counts an attempt, of which a share usual becomes as old as the delay.
func (g *gate) began(now time.Time, usual float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.share -= g.share / gateMemory
	g.seen = min(g.seen+1, gateWarm)
	g.set(now, usual)
}

// reached counts an attempt that became as old as the delay, and reports whether the gate is open.
func (g *gate) reached(now time.Time, usual float64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.share = min(g.share+1/gateMemory, 1)
	return g.set(now, usual)
}

func (g *gate) set(now time.Time, usual float64) (open bool) {
	open = g.seen < gateWarm || g.share <= max(gateFactor*usual, gateFloor)
	switch {
	case open:
		g.closed = time.Time{}
	case g.closed.IsZero():
		g.closed = now
	}
	return open
}

// judge says what an attempt that ended at now tells about attempts in general: nothing (skip) while the gate is
// closed; that all before is out of date (anew) once it was closed for long.
func (g *gate) judge(now time.Time) (skip, anew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed.IsZero():
		return false, false
	case now.Sub(g.closed) < newNormal:
		return true, false
	}
	g.closed, g.seen, g.share = time.Time{}, 0, 0
	return false, true
}

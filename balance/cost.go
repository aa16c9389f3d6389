package balance

import (
	"math"
	"time"

	"github.com/longpole/longpole/call"
)

// Peak-EWMA. Source: Finagle's PeakEwma and linkerd's load biaser: the latency jumps up at once, sinks slowly, and
// sinks for the reader too, so that an endpoint that was slow and gets no calls is tried again.
const (
	decay       = 10 * time.Second
	errorCosts  = 5 * time.Second   // the latency that a failure counts for
	maxPushback = 300 * time.Second // what an endpoint may ask for at most
	unknownCost = 1e18              // of an endpoint that has a call in flight and never ended one: it gets one at a time
)

// node.cost holds the bits of ln(ns) + stamp/decay of the latency, so that one word gives its value at any later
// instant; 0 = nothing was learned.

// latency is the decayed peak latency at t in ns; 0 = not known.
func (n *node) latency(t instant) float64 {
	bits := n.cost.Load()
	if bits == 0 {
		return 0
	}
	return math.Exp(math.Float64frombits(bits) - float64(t)/float64(decay))
}

// bid is the cost of sending one more call, p being in flight.
func (n *node) bid(t instant, p float64) float64 {
	c := n.latency(t)
	if c == 0 && n.cost.Load() == 0 && p > 0 {
		c = unknownCost
	}
	return c * (p + 1)
}

// price learns the latency of an ended call. An error's latency is no sample, as it would make the endpoint look fast.
// A call that was given up took at least as long as it ran. Anything else that is no success leaves
// the cost as it is: were it to decay, an endpoint that only says "not found" would become ever more attractive. n.mu is held.
func (n *node) price(t instant, out call.Outcome, bad bool) {
	old, sample := n.latency(t), float64(out.Latency)
	switch {
	case bad:
		sample = max(sample, float64(errorCosts), float64(min(out.Pushback, maxPushback)))
	case out.Class == call.OK:
	case out.Class == call.Canceled && sample > old && old > 0:
	case out.Class == call.Client && old > 0:
		old = n.latency(n.stamp)
		sample = old
	default:
		return
	}
	gap := max(0, float64(t-n.stamp))
	n.stamp = max(t, n.stamp)
	if old > 0 && sample < old {
		w := math.Exp(-gap / float64(decay))
		sample = old*w + sample*(1-w)
	}
	l := math.Log(max(sample, 1)) + float64(n.stamp)/float64(decay)
	n.cost.Store(math.Float64bits(l))
}

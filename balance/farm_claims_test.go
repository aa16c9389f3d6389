package balance

import (
	"fmt"
	"testing"
	"time"
)

// span shortens a simulation under the race detector.
func span(seconds, withRace float64) float64 {
	if raceOn {
		return withRace
	}
	return seconds
}

func prequal(perCall, hot float64) Config {
	return Config{Algorithm: Prequal, Prequal: &Probing{PerCall: perCall, Hot: hot}}
}

func TestPrequalHoldsTheTailAboveTheAllocation(t *testing.T) {
	for _, c := range []struct {
		load  float64
		limit time.Duration
	}{{1.27, 280 * time.Millisecond}, {1.57, 320 * time.Millisecond}} {
		f := &farm{load: c.load, clients: 100, replicas: 100, span: span(16, 3.5), warmup: span(4, 1.5), cfg: Config{Algorithm: Prequal}}
		r := f.run(11)
		r.log(t, "prequal")
		if r.p99 > c.limit || r.failed > 0 {
			t.Errorf("load %v: p99 %v, want at most %v; %d failed, want none", c.load, r.p99, c.limit, r.failed)
		}
	}
}

func TestRoundRobinLosesTheTailWherePrequalHoldsIt(t *testing.T) {
	if raceOn {
		t.Skip("the queues that make the tail take 20 s to build up")
	}
	for _, load := range []float64{1.27, 1.57} {
		f := &farm{load: load, clients: 100, replicas: 100, span: 24, warmup: 6, cfg: Config{Algorithm: Weighted}}
		r := f.run(11)
		r.log(t, "weighted round robin")
		if r.p99 < 3800*time.Millisecond || r.failed == 0 {
			t.Errorf("load %v: p99 %v and %d failed: the model no longer tells the rules apart", load, r.p99, r.failed)
		}
	}
}

// What this process has in flight tells little of what a hundred others send.
func TestOwnCountsDoNotSeeOtherCallersAsPrequalDoes(t *testing.T) {
	if raceOn {
		t.Skip("four more of the same runs")
	}
	for _, load := range []float64{1.27, 1.57} {
		for _, a := range []string{P2C, PeakEWMA} {
			f := &farm{load: load, clients: 100, replicas: 100, span: 16, warmup: 4, cfg: Config{Algorithm: a}}
			r := f.run(11)
			r.log(t, a)
			if r.p99 < 400*time.Millisecond {
				t.Errorf("%s at load %v: p99 %v", a, load, r.p99)
			}
		}
	}
}

// A load report on each ordinary answer comes from those that were chosen, and could draw the choice to them.
func TestReportsOnAnswersDoNoHarm(t *testing.T) {
	if raceOn {
		t.Skip("one more of the same runs")
	}
	f := &farm{load: 1.57, clients: 100, replicas: 100, span: 10, warmup: 2, cfg: Config{Algorithm: Prequal}, piggy: true}
	r := f.run(11)
	r.log(t, "prequal, answers report too")
	if r.p99 > 320*time.Millisecond || r.failed > 0 {
		t.Errorf("p99 %v, %d failed", r.p99, r.failed)
	}
}

// The paper's figure 9: with half of the replicas half as fast, the tail falls from RIF alone to a quantile of 0.84, is
// flat around it, and latency alone is unstable.
//
// The last is shown with Median, the paper's own estimator, and with it only: there latency and load are two signals, and
// without the limit on the second all callers run to the replica whose latency was last seen low. Sharing, our default,
// multiplies by the requests in flight, so that latency alone already holds the load, and a quantile of 1 does no harm;
// that too is asserted, as a sweep which fell off at 1 by default would be the paper's shape and a worse policy.
func TestHotQuantileHasThePapersShape(t *testing.T) {
	half := func(hot float64, e Estimator) result {
		f := &farm{load: 0.75, clients: 100, replicas: 100, span: span(12, 3), warmup: span(4, 1.5), cfg: prequal(3, hot), estimate: e, halfSlow: true}
		return f.run(11)
	}
	rif, mid := half(1e-9, Sharing), half(0.84, Sharing)
	rif.log(t, "Q 0")
	mid.log(t, "Q 0.84")
	if float64(mid.p99) > 0.92*float64(rif.p99) {
		t.Errorf("p99 %v at 0, %v at 0.84: want it to fall", rif.p99, mid.p99)
	}
	if raceOn {
		return
	}
	low, all := half(0.6, Sharing), half(1, Sharing)
	low.log(t, "Q 0.6")
	all.log(t, "Q 1")
	if float64(low.p99) > 1.1*float64(mid.p99) || float64(mid.p99) > 1.1*float64(low.p99) {
		t.Errorf("p99 %v at 0.6, %v at 0.84: want it flat", low.p99, mid.p99)
	}
	if float64(all.p99) > 1.1*float64(mid.p99) {
		t.Errorf("p99 %v at 1: the sharing estimate has become unstable", all.p99)
	}
	mid, all = half(0.84, Median), half(1, Median)
	mid.log(t, "Q 0.84, median")
	all.log(t, "Q 1, median")
	if float64(all.p99) < 1.2*float64(mid.p99) || float64(all.p999) < 1.6*float64(mid.p999) {
		t.Errorf("p99 %v and %v, p99.9 %v and %v: want latency alone to be unstable", mid.p99, all.p99, mid.p999, all.p999)
	}
}

// The paper's figure 8: at 1.5 times the allocation the tail hardly rises down to one probe a call, and steeply below.
func TestProbeRateHasThePapersShape(t *testing.T) {
	if raceOn {
		t.Skip("five more of the same runs")
	}
	at := map[float64]result{}
	for _, n := range []float64{4, 2, 1, 0.5, 0.25} {
		f := &farm{load: 1.5, clients: 100, replicas: 100, span: 10, warmup: 4, cfg: prequal(n, 0)}
		at[n] = f.run(11)
		at[n].log(t, fmt.Sprint(n, " probes a call"))
	}
	above := float64(at[1].p99) / float64(at[4].p99)
	below := float64(at[0.25].p99) / float64(at[1].p99)
	if above > 1.15 || below < 1.35 {
		t.Errorf("p99 times %.2f from 4 probes to 1, times %.2f from 1 to 1/4: want a knee at 1", above, below)
	}
	if float64(at[0.25].rif) < 1.4*float64(at[1].rif) {
		t.Errorf("RIF %d with a quarter of a probe, %d with one: want a jump", at[0.25].rif, at[1].rif)
	}
}

// The share of a lone proxy's calls is the load itself: without any probe its own counts do as well.
func TestOneProxyNeedsNoProbes(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA} {
		f := &farm{load: 1.27, clients: 1, replicas: 100, span: span(10, 3), warmup: span(2, 1), cfg: Config{Algorithm: a}}
		r := f.run(11)
		r.log(t, a)
		if r.p99 > 400*time.Millisecond || r.failed > 0 {
			t.Errorf("%s: p99 %v, %d failed", a, r.p99, r.failed)
		}
	}
}

// Eight proxies that see the same servers must not all run to the one that looks best.
func TestEightProxiesAreNoHerd(t *testing.T) {
	for _, a := range []string{P2C, PeakEWMA, Prequal} {
		f := &farm{load: 0.9, clients: 8, replicas: 20, span: 12, warmup: 4, cfg: Config{Algorithm: a}}
		r := f.run(5)
		r.log(t, a)
		// At this load 4 to 10 CPUs of a replica are 8 to 10 requests that do not disturb each other.
		if r.rif > 16 || r.p99 > 400*time.Millisecond || r.failed > 0 {
			t.Errorf("%s: RIF p99 %d, p99 %v, %d failed", a, r.rif, r.p99, r.failed)
		}
	}
}

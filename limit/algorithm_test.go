package limit

import (
	"math"
	"testing"
)

// feed gives an algorithm n answers of the same latency, one each 10 ms.
type feed struct {
	a    algorithm
	at   int64
	area float64
}

func newFeed(name string, start int) *feed {
	c := Config{Algorithm: name, Limit: start}.WithDefaults()
	a := newAlgorithm(&c, start)
	a.bounds(&c)
	return &feed{a: a}
}

func (f *feed) give(n int, took int64, inFlight int, drop bool) {
	for range n {
		f.at += 1e7
		f.area += 1e7 * float64(inFlight)
		f.a.observe(sample{at: f.at, took: took, inFlight: inFlight, area: f.area, drop: drop})
	}
}

func TestAIMDGrowsByOneEachLimitOfAnswersAndLosesATenthOnce(t *testing.T) {
	f := newFeed(AIMD, 10)
	f.give(11, 1e7, 10, false)
	if got := f.a.limit(); got != 11 {
		t.Errorf("limit %d after as many answers, want 11", got)
	}
	f = newFeed(AIMD, 100)
	f.give(10, 5e8, 100, true) // all in flight together
	if got := f.a.limit(); got != 90 {
		t.Errorf("limit %d after one event, want 90", got)
	}
	f.give(50, 1e6, 100, true) // each on its own
	if got := f.a.limit(); got > 5 {
		t.Errorf("limit %d after fifty events", got)
	}
	f = newFeed(AIMD, 100)
	f.give(1000, 1e7, 49, false)
	if got := f.a.limit(); got != 100 {
		t.Errorf("limit %d, but less than half of it was in use", got)
	}
}

func TestVegasFollowsItsThresholds(t *testing.T) {
	f := newFeed(Vegas, 100)
	f.give(11, 1e7, 100, false) // the first window sets the shortest latency: no queue
	first := f.a.limit()
	if first != 112 {
		t.Errorf("limit %d without a queue, want 100 + 6 log10", first)
	}
	for _, c := range []struct {
		queued   float64 // calls
		inFlight int
		drop     bool
		want     float64 // in log10 of the limit
	}{{4, 100, false, 1}, {9, 100, false, 0}, {30, 100, false, -1}, {30, 40, false, 0}, {0, 100, true, -1}} {
		v := &vegas{ranged: ranged{value: 100, least: 1, most: 1000}, noLoad: 1e7, window: window{count: -1}}
		took := int64(1e7 / (1 - (c.queued-0.5)/100))
		if c.queued == 0 {
			took = 1e7
		}
		g := &feed{a: v}
		g.give(windowSamples+1, took, c.inFlight, c.drop)
		if got := (v.value - 100) / math.Log10(100); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v: moved by %.2f log10", c, got)
		}
	}
}

func TestGradient2FollowsItsFormula(t *testing.T) {
	for _, c := range []struct {
		long, short float64
		inFlight    int
		want        float64
	}{
		{1e7, 1e7, 100, 100.8},   // gradient 1: 0.2 of the queue of 4
		{1e7, 1.5e7, 100, 100.8}, // within the tolerance
		{1e7, 2e7, 100, 95.8},    // gradient 0.75
		{1e7, 10e7, 100, 90.8},   // at least 0.5
		{1e7, 10e7, 49, 100},     // not in use
	} {
		g := &gradient2{ranged: ranged{value: 100, least: 1, most: 1000}, long: c.long, seen: 1000, window: window{count: -1}}
		f := &feed{a: g}
		for g.seen == 1000 {
			f.give(1, int64(c.short), c.inFlight, false)
		}
		if math.Abs(g.value-c.want) > 0.1 {
			t.Errorf("%+v: %.2f", c, g.value)
		}
	}
}

func TestCovarianceFindsTheSlope(t *testing.T) {
	var c covariance
	if _, known := c.slope(); known {
		t.Error("known from nothing")
	}
	for range 20 {
		c.add(5, 7)
	}
	if _, known := c.slope(); known {
		t.Error("known without variance")
	}
	c = covariance{}
	for i := range 20 {
		x := float64(i % 4)
		c.add(x, 3-0.5*x)
	}
	if b, known := c.slope(); !known || math.Abs(b+0.5) > 1e-9 {
		t.Errorf("slope %v, want -0.5", b)
	}
}

func TestLimitsStayInTheirRange(t *testing.T) {
	for _, name := range []string{Adaptive, AIMD, Vegas, Gradient2} {
		c := Config{Algorithm: name, Limit: 50, Min: 10, Max: 60}
		a := newAlgorithm(&c, 50)
		a.bounds(&c)
		f := &feed{a: a}
		for i := range 200 {
			f.give(50, int64(1e6*(1+i%7*10)), a.limit(), i%3 == 0)
			// A probe of the adaptive algorithm may go below.
			if got := a.limit(); got > 60 || got < 10 && (name != Adaptive || a.(*adaptive).probe.kind == none) {
				t.Fatalf("%s: limit %d, want 10..60", name, got)
			}
		}
	}
}

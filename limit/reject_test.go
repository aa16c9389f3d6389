package limit

import (
	"math"
	"testing"

	"github.com/longpole/longpole/call"
)

func TestRanksOrderTiersAndThenCohorts(t *testing.T) {
	last := -1
	for p := call.Speculative; p <= call.Critical; p++ {
		for cohort := 127; cohort >= 0; cohort-- {
			if got := rank(&call.Info{Priority: p, Cohort: uint8(cohort)}); got != last+1 {
				t.Fatalf("priority %d cohort %d has rank %d, want %d", p, cohort, got, last+1)
			}
			last++
		}
	}
	if last != 767 {
		t.Errorf("%d ranks, want 768", last+1)
	}
	if got := rank(&call.Info{Priority: -100, Cohort: 255}); got != 0 {
		t.Errorf("out of range: rank %d, want 0", got)
	}
}

// drive runs the controller against a dependency that serves capacity calls a period, and gives the last share and the
// largest distance from where it should be over the second half.
func drive(load float64, periods int) (share, off float64) {
	const capacity = 100
	var r rejector
	for i := range periods {
		in := load * capacity * (1 - r.share)
		out := min(in, capacity)
		r.offered, r.in, r.out, r.turned = int(load*capacity), int(math.Round(in)), int(math.Round(out)), int(max(0, in-out))
		for range remembered {
			r.saw(0, 0)
		}
		r.offered = int(load * capacity)
		r.step(period, (capacity-out)/50, period/50, 0)
		if i >= periods/2 {
			off = max(off, math.Abs(r.share-max(0, 1-1/load)))
		}
	}
	return r.share, off
}

func TestTheControllerFindsTheShareToRefuseAtAnyOverload(t *testing.T) {
	for _, load := range []float64{0.5, 0.9, 1.2, 2, 3, 5, 10} {
		share, off := drive(load, 60)
		t.Logf("x%v: %.3f, off by %.3f at most", load, share, off)
		if off > 0.05 {
			t.Errorf("x%v: refuses %.3f, off by up to %.3f; want %.3f", load, share, off, max(0, 1-1/load))
		}
	}
}

func TestTheIntegralDoesNotWindUp(t *testing.T) {
	var r rejector
	for range 1000 { // hopeless for minutes
		r.offered, r.in, r.out, r.turned = 1000, 1000, 0, 1000
		r.step(period, 0, period/50, 100)
	}
	if r.share > maxRejected {
		t.Errorf("refuses %v", r.share)
	}
	n := 0
	for ; r.share > 0 && n < 100; n++ { // then nothing is wrong any more
		r.offered, r.in, r.out = 100, 100, 100
		r.step(period, 50, period/50, 0)
	}
	if n > 4 {
		t.Errorf("still refuses %d periods after the overload", n)
	}
}

func TestABurstDoesNotWakeTheController(t *testing.T) {
	var r rejector
	r.offered, r.in, r.out, r.turned = 100, 100, 50, 50
	r.step(period, 0, period/50, 50)
	if r.share != 0 {
		t.Errorf("refuses %v after one period", r.share)
	}
}

func TestTheThresholdIsTheQuantileOfTheLatestThousandRanks(t *testing.T) {
	var r rejector
	for range 5 * remembered { // forgotten
		r.saw(500, 0)
	}
	for i := range remembered {
		r.saw(i%10, 0)
	}
	r.share = 0.25
	r.calibrate()
	refused := map[int]int{}
	for i := range 10_000 {
		if r.refuses(i%10, 0) {
			refused[i%10]++
		}
	}
	if refused[0] != 1000 || refused[1] != 1000 || refused[2] < 490 || refused[2] > 510 || len(refused) != 3 {
		t.Errorf("refused of a thousand each: %v; want all of the two lowest, half of the third", refused)
	}
}

func TestWithinARankTheTenantsAboveTheFairPartPay(t *testing.T) {
	var r rejector
	for i := range remembered {
		slot := uint8(1) // 80 %
		if i%10 < 2 {
			slot = uint8(2 + i%10) // 10 % each
		}
		r.saw(400, slot)
	}
	r.share = 0.5
	r.calibrate()
	want := []float64{1: 0.625, 2: 0, 3: 0} // 300 of the 800 stay, and all of the others
	for slot, share := range want {
		if got := r.edge[slot].share; math.Abs(got-share) > 1e-9 {
			t.Errorf("tenant %d loses %v of its calls, want %v", slot, got, share)
		}
	}
	r.share = 0.9 // 33 for each
	r.calibrate()
	for slot, kept := range []float64{1: 100.0 / 3 / 800, 2: 100.0 / 3 / 100, 3: 100.0 / 3 / 100} {
		if got := r.edge[slot].share; slot > 0 && math.Abs(got-(1-kept)) > 1e-9 {
			t.Errorf("tenant %d loses %v of its calls, want %v", slot, got, 1-kept)
		}
	}
}

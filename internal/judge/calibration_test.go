package judge

import (
	"math/rand/v2"
	"testing"

	"github.com/longpole/longpole/internal/stats"
)

// halves feeds a calibration with comparisons that end as told, and returns it.
func (k *Calibration) halves(alarms, quiet int) *Calibration {
	for range alarms {
		k.count(true)
		k.adapt()
	}
	for range quiet {
		k.count(false)
		k.adapt()
	}
	return k
}

func TestSlicesAreWidenedWhileThereAreFalseAlarms(t *testing.T) {
	k := NewCalibration(Config{})
	for _, c := range []struct{ alarms, quiet, join int }{
		{0, 49, 1}, // calm
		{1, 0, 1},  // one in fifty is as allowed
		{1, 0, 3},  // two are not
		{0, 127, 3},
		{0, 1, 1}, // calm for a full history
		{2, 0, 3},
		{2, 0, 6},
		{9, 0, 6}, // there is nothing longer
		{0, 300, 1},
	} {
		if k.halves(c.alarms, c.quiet); k.Join() != c.join {
			t.Fatalf("after %d alarms and %d without: %d slices are joined, want %d", c.alarms, c.quiet, k.Join(), c.join)
		}
	}
	if s := k.Status(); s.Alarms != 15 || s.Total != 15+49+128+300 || s.FalseAlarmRatio != 0 || s.Join != 1 {
		t.Errorf("%+v", s)
	}
}

// calm is a calibration after so many slices of 100 calls in each half, whose latencies wander by so much.
func calibrated(slices int, drift float64) CalibrationStatus {
	rng := rand.New(rand.NewPCG(21, 21))
	k := NewCalibration(Config{})
	pool := make([]stats.Snapshot, 64) // by scale
	for i := range pool {
		pool[i] = draws(rng, 100, .6+float64(i)/80)
	}
	var wander [2]float64
	half := func(i int) stats.Tally {
		wander[i] = .9*wander[i] + drift*rng.NormFloat64()
		at := min(max(int(32+80*wander[i])+rng.IntN(3)-1, 0), len(pool)-1)
		return stats.Tally{Latency: pool[at], Calls: 100, Attempts: 100}
	}
	for range slices {
		k.Add(half(0), half(1))
	}
	return k.Status()
}

func TestCalibrationMeasuresItsOwnTraffic(t *testing.T) {
	calm, noisy := calibrated(1300, 0), calibrated(1300, .1)
	t.Logf("calm: %+v; noisy: %+v", calm, noisy)
	if calm.Runs < 40 || calm.Alarms > 0 || calm.Join != 1 {
		t.Errorf("calm: %+v", calm)
	}
	if noisy.Alarms < 2 || noisy.Join == 1 {
		t.Errorf("noisy: %+v", noisy)
	}
}

func TestCalibrationWithoutTrafficSaysNothing(t *testing.T) {
	k := NewCalibration(Config{})
	for range 1000 {
		k.Add(stats.Tally{}, stats.Tally{})
	}
	if s := k.Status(); s != (CalibrationStatus{Join: 1}) {
		t.Errorf("%+v", s)
	}
}

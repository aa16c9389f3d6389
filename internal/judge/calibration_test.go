package judge

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

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

func TestACalibrationGoesOnFromItsState(t *testing.T) {
	k := NewCalibration(Config{}).halves(4, 60)
	data, err := json.Marshal(k.State())
	if err != nil {
		t.Fatal(err)
	}
	var s CalibrationState
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	again, err := RestoreCalibration(Config{}, s)
	if err != nil || again.Status() != k.Status() || again.Join() == 1 {
		t.Fatalf("%+v became %+v: %v", k.Status(), again.Status(), err)
	}
	k.halves(1, 68)
	if again.halves(1, 68); again.Status() != k.Status() {
		t.Errorf("%+v and its copy %+v went different ways", k.Status(), again.Status())
	}
	for _, bad := range []CalibrationState{{}, {Join: 2}, {Join: 1, Runs: 129, Total: 129}, {Join: 1, Next: -1}, {Join: 3, Next: 128}, {Join: 1, Alarms: 1}, {Join: 1, Runs: 1}} {
		if _, err := RestoreCalibration(Config{}, bad); !errors.Is(err, ErrCalibration) {
			t.Errorf("%+v was taken: %v", bad, err)
		}
	}
}

func TestNoisyIsWhatTheLongestSlicesDoNotMend(t *testing.T) {
	k := NewCalibration(Config{}).halves(4, 0)
	if s := k.Status(); s.Noisy || s.Join != 6 {
		t.Fatalf("%+v", s)
	}
	if s := k.halves(2, 0).Status(); !s.Noisy || s.Join != 6 {
		t.Fatalf("%+v", s)
	}
	if s := k.halves(0, 127).Status(); s.Noisy {
		t.Errorf("calm again, and %+v", s)
	}
}

// heeding judges slices of the same calls, and of a slower candidate, after a calibration has spoken.
func heeding(s CalibrationStatus, scale float64) (slices int, v Verdict) {
	rng := rand.New(rand.NewPCG(22, 22))
	j := frozen(rng, 5000)
	j.Heed(s, mainSlice)
	for range 120 {
		if j.Add(cohort(rng, 500, 1), cohort(rng, 500, scale)); j.Verdict() == Worse {
			break
		}
	}
	return j.slices, j.Verdict()
}

func TestACalibrationIsHeeded(t *testing.T) {
	for _, c := range []struct {
		status CalibrationStatus
		scale  float64
		slices int // at most
		want   Verdict
	}{
		{CalibrationStatus{}, 1, 120, NoWorse},
		{CalibrationStatus{Join: 1}, 1, 120, NoWorse},
		{CalibrationStatus{Join: 3}, 1, 40, NoWorse},
		{CalibrationStatus{Join: 6}, 1, 20, NoWorse},
		{CalibrationStatus{Join: 6, Noisy: true}, 1, 20, Environment},
		{CalibrationStatus{Join: 6, Noisy: true}, .5, 20, Environment},
		{CalibrationStatus{Join: 6, Noisy: true}, 2, 20, Worse},
	} {
		if n, v := heeding(c.status, c.scale); v != c.want || n > c.slices {
			t.Errorf("%+v at %v: %s after %d slices, want %s after %d at most", c.status, c.scale, v, n, c.want, c.slices)
		}
	}
	j := New(Config{})
	if j.Heed(CalibrationStatus{Join: 3}, 500*time.Millisecond); j.config.Join != 60 {
		t.Errorf("%d slices of half a second make 30 s", j.config.Join)
	}
	j = New(Config{})
	if j.Heed(CalibrationStatus{Join: 6}, time.Minute); j.config.Join != 1 {
		t.Errorf("%d slices of a minute make a minute", j.config.Join)
	}
}

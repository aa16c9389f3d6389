package rollout

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The whole machine with short slices, as a demonstration would set them: a reference from a hundred calls, a ramp, 50
// calls a slice and arm.
func TestShortRolloutsEndAsTheyShould(t *testing.T) {
	for _, c := range []struct {
		name  string
		goal  string
		scale float64
		want  Phase
		least float64
		most  map[Phase]float64
	}{
		{"equal", GoalNoWorse, 1, Promoted, .85, map[Phase]float64{RolledBack: .01}},
		{"half the latency", GoalImprove, .5, Promoted, .98, map[Phase]float64{RolledBack: 0}},
		{"a third slower", GoalNoWorse, 1.33, RolledBack, .98, map[Phase]float64{Promoted: 0}},
	} {
		runs := 100
		if raceDetector {
			runs = 25
		}
		ends := map[Phase]int{}
		var took []time.Duration
		for seed := range runs {
			s := spec()
			s.Goal, s.Slice, s.Warmup, s.MaxDuration = c.goal, time.Second, 3*time.Second, 4*time.Minute
			y := tell(t, s)
			y.rng = rand.New(rand.NewPCG(uint64(seed), 11))
			y.perSlice, y.scale = 50, c.scale
			ends[y.until(300)]++
			took = append(took, y.now.Sub(start))
		}
		slices.Sort(took)
		t.Logf("%s: %v, median %v", c.name, ends, took[runs/2])
		if float64(ends[c.want]) < c.least*float64(runs) {
			t.Errorf("%s: %v", c.name, ends)
		}
		for phase, most := range c.most {
			if float64(ends[phase]) > most*float64(runs) {
				t.Errorf("%s: %v", c.name, ends)
			}
		}
	}
}

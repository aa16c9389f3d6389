package rollout

import (
	"strings"
	"testing"
	"time"
)

// glances lets the machine look once a second, with 50 calls of each cohort in between, of which the candidate fails some.
func (y *story) glances(n int, failed uint64) {
	for range n {
		if y.st.phase.Final() {
			return
		}
		y.now = y.now.Add(time.Second)
		y.sample.baseline = y.sample.baseline.Merge(cohort(y.rng, 50, 1))
		candidate := cohort(y.rng, 50, 1)
		candidate.Failed = failed
		y.sample.candidate = y.sample.candidate.Merge(candidate)
		y.take(step(y.spec, y.st, y.now, y.sample))
	}
}

func TestACandidateThatFailsIsRolledBackInSeconds(t *testing.T) {
	for _, from := range []Phase{Warmup, Step} {
		y := tell(t, spec())
		for y.st.phase != from {
			y.glances(1, 0)
		}
		began := y.now
		y.glances(60, 3)
		if took := y.now.Sub(began); y.st.phase != RolledBack || took > 14*time.Second || !strings.Contains(y.st.reason, "errors were seen") {
			t.Errorf("from %s: %s after %v: %s", from, y.st.phase, took, y.st.reason)
		}
	}
}

func TestSlicesKeepTheirLengthBetweenGlances(t *testing.T) {
	y := tell(t, spec())
	for y.st.phase != Step {
		y.glances(1, 0)
	}
	y.glances(40, 0)
	g := y.st.judge.Judgement(y.sample.baseline, y.sample.candidate)
	if got := y.now.Sub(start); got != 70*time.Second || g.Slices != 4 || g.CandidateCalls != 2000 || g.Seconds != 70 {
		t.Errorf("after %v: %d slices of %d calls, %d seconds", got, g.Slices, g.CandidateCalls, g.Seconds)
	}
}

func TestNothingClimbsWhileBothCohortsSuffer(t *testing.T) {
	y := tell(t, spec())
	for y.st.at < 1 {
		y.slice()
	}
	at := y.st.at
	for range 20 {
		y.now = y.now.Add(y.spec.Slice)
		y.sample.baseline = y.sample.baseline.Merge(cohort(y.rng, 500, 2))
		y.sample.candidate = y.sample.candidate.Merge(cohort(y.rng, 500, 2))
		y.take(step(y.spec, y.st, y.now, y.sample))
	}
	if y.st.phase != Step || y.st.at != at || !strings.Contains(strings.Join(y.st.notes, "\n"), "Environment: both cohorts") {
		t.Errorf("%s at step %d, was %d: %q", y.st.phase, y.st.at, at, y.st.notes)
	}
}

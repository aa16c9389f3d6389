package rollout

import (
	"strings"
	"testing"
	"time"
)

func TestARouteWhoseHalvesDifferIsJudgedInLongerSlices(t *testing.T) {
	s := spec()
	s.MaxDuration = time.Hour
	calm, wary := tell(t, s), tellWith(t, s, Calibration{Join: 3, Runs: 60, Total: 110, Alarms: 2})
	calm.until(400)
	wary.until(400)
	if calm.st.phase != Promoted || wary.st.phase != Promoted {
		t.Fatalf("%s and %s: %q", calm.st.phase, wary.st.phase, wary.st.notes)
	}
	if quick, slow := calm.now.Sub(start), wary.now.Sub(start); slow < 2*quick {
		t.Errorf("with slices of 30 s it took %v, with 10 s %v", slow, quick)
	}
	if text := strings.Join(wary.st.notes, "\n"); !strings.Contains(text, "joined to 30 s") || !strings.Contains(text, "slices of 30s") {
		t.Errorf("nothing says why it takes so long:\n%s", text)
	}
}

func TestNothingIsPromotedOnANoisyRoute(t *testing.T) {
	noisy := Calibration{Join: 6, Runs: 60, Total: 200, Alarms: 9, FalseAlarmRatio: .05, Noisy: true}
	for _, c := range []struct {
		goal  string
		scale float64
		want  Phase
	}{{GoalNoWorse, 1, InconclusiveEnd}, {GoalImprove, .5, InconclusiveEnd}, {GoalNoWorse, 2, RolledBack}} {
		s := spec()
		s.Goal = c.goal
		y := tellWith(t, s, noisy)
		y.scale, y.perSlice = c.scale, 200
		if y.until(400); y.st.phase != c.want {
			t.Errorf("%s at %v: %s: %s", c.goal, c.scale, y.st.phase, y.st.reason)
		}
		if c.want == InconclusiveEnd && (y.st.at > 0 || !strings.Contains(y.st.reason, "Environment: equal halves")) {
			t.Errorf("%s at %v: step %d: %s", c.goal, c.scale, y.st.at, y.st.reason)
		}
	}
}

func TestASwitchbackIsNotWidened(t *testing.T) {
	s := spec()
	s.Switchback = 45 * time.Second
	y := tellWith(t, s.WithDefaults(), Calibration{Join: 6})
	if text := strings.Join(y.st.notes, "\n"); strings.Contains(text, "joined") {
		t.Error(text)
	}
}

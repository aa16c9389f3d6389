package rollout

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

var (
	start     = time.Unix(1_800_000_000, 0)
	errTarget = errors.New("target: gone")
)

func spec() Spec {
	return Spec{Change: longpole.Change{Route: "all"}, Goal: GoalNoWorse}.WithDefaults()
}

// story drives the machine against two cohorts that get perSlice calls a slice.
type story struct {
	t        *testing.T
	spec     Spec
	st       state
	now      time.Time
	sample   sample
	rng      *rand.Rand
	commands []string
	perSlice int
	scale    float64 // of the candidate's latencies
	err      error   // of the Target's tallies
}

func tell(t *testing.T, s Spec) *story { return tellWith(t, s, Calibration{}) }

// tellWith tells of a route that was calibrated.
func tellWith(t *testing.T, s Spec, trust Calibration) *story {
	y := &story{t: t, spec: s, now: start, rng: rand.New(rand.NewPCG(9, 9)), perSlice: 500, scale: 1, st: pending(s)}
	y.take(begin(s, y.st, y.now, trust))
	return y
}

// take carries all commands out without a fault.
func (y *story) take(st state, commands []command) {
	y.st = st
	for _, c := range commands {
		text := string(c.do)
		if c.do == weigh {
			text = fmt.Sprintf("weigh %v", c.weight)
		}
		y.commands = append(y.commands, text)
		y.st = done(y.st, c)
	}
}

// cohort is a tally of n calls with latencies of scale times lognormal(20 ms, 0.5).
func cohort(rng *rand.Rand, n int, scale float64) stats.Tally {
	var h stats.Histogram
	for range n {
		h.Record(time.Duration(scale * 20e6 * math.Exp(.5*rng.NormFloat64())))
	}
	return stats.Tally{Latency: h.Snapshot(), Calls: uint64(n), Attempts: uint64(n)}
}

func (y *story) slice() {
	y.now = y.now.Add(y.spec.Slice)
	y.sample.baseline = y.sample.baseline.Merge(cohort(y.rng, y.perSlice, 1))
	y.sample.candidate = y.sample.candidate.Merge(cohort(y.rng, y.perSlice, y.scale))
	s := y.sample
	if s.err = y.err; s.err != nil {
		s.baseline, s.candidate = stats.Tally{}, stats.Tally{}
	}
	y.take(step(y.spec, y.st, y.now, s))
}

func (y *story) until(most int) Phase {
	for range most {
		if y.st.phase.Final() {
			break
		}
		y.slice()
	}
	return y.st.phase
}

func (y *story) expect(phase Phase, commands ...string) {
	y.t.Helper()
	if y.st.phase != phase {
		y.t.Errorf("ended as %s, want %s; notes:\n%s", y.st.phase, phase, strings.Join(y.st.notes, "\n"))
	}
	if !reflect.DeepEqual(y.commands, commands) {
		y.t.Errorf("commands %q, want %q", y.commands, commands)
	}
}

func TestAGoodCandidateClimbsEveryStep(t *testing.T) {
	y := tell(t, spec())
	y.until(180)
	y.expect(Promoted, "stage", "weigh 0.01", "weigh 0.05", "weigh 0.25", "weigh 0.5", "promote")
	if got := y.now.Sub(start); got < y.spec.Warmup+4*leastStepSlices*y.spec.Slice {
		t.Errorf("promoted after %v", got)
	}
	if last := y.st.notes[len(y.st.notes)-1]; !strings.Contains(last, "No worse: all metrics") {
		t.Errorf("the last note is %q", last)
	}
}

func TestABadCandidateIsRolledBackOnItsWay(t *testing.T) {
	y := tell(t, spec())
	y.scale = 2
	y.until(60)
	y.expect(RolledBack, "stage", "weigh 0.01", "discard")
	if !strings.Contains(y.st.reason, "Worse: p") {
		t.Errorf("reason: %q", y.st.reason)
	}
}

func TestACandidateThatTurnsBadIsRolledBackAtAnyStep(t *testing.T) {
	y := tell(t, spec())
	for y.st.at < 2 {
		y.slice()
	}
	y.scale = 3
	y.until(100)
	y.expect(RolledBack, "stage", "weigh 0.01", "weigh 0.05", "weigh 0.25", "discard")
}

func TestToBeNoWorseIsNotEnoughToImprove(t *testing.T) {
	s := spec()
	s.Goal, s.MaxDuration = GoalImprove, 6*time.Minute
	y := tell(t, s)
	y.until(100)
	y.expect(InconclusiveEnd, "stage", "weigh 0.01", "weigh 0.05", "weigh 0.25", "weigh 0.5", "discard")
	if !strings.Contains(y.st.reason, "not decided in 6m0s") {
		t.Errorf("reason: %q", y.st.reason)
	}
}

func TestAnImprovementIsPromoted(t *testing.T) {
	s := spec()
	s.Goal = GoalImprove
	y := tell(t, s)
	y.scale = .6
	y.until(180)
	y.expect(Promoted, "stage", "weigh 0.01", "weigh 0.05", "weigh 0.25", "weigh 0.5", "promote")
	if !strings.HasPrefix(y.st.reason, "Improved: p99") {
		t.Errorf("reason: %q", y.st.reason)
	}
}

func TestTooLittleTrafficNeverLeavesTheWarmUp(t *testing.T) {
	for _, policy := range []string{Rollback, Promote} {
		s := spec()
		s.OnInconclusive = policy
		y := tell(t, s)
		y.perSlice = 0
		y.until(1000)
		y.expect(InconclusiveEnd, "stage", "weigh 0.01", "discard")
		if y.now.Sub(start) != s.MaxDuration {
			t.Errorf("ended after %v", y.now.Sub(start))
		}
	}
}

func TestPromotionWithoutAVerdictMustBeAskedFor(t *testing.T) {
	s := spec()
	s.Goal, s.MaxDuration, s.OnInconclusive = GoalImprove, 6*time.Minute, Promote
	y := tell(t, s)
	y.until(100)
	if y.st.phase != Promoted || !strings.Contains(y.st.reason, "as asked") {
		t.Errorf("%s: %s", y.st.phase, y.st.reason)
	}
}

func TestAnUnevenSplitKeepsTheBaseline(t *testing.T) {
	y := tell(t, spec())
	for y.st.phase != Step {
		y.slice()
	}
	for !y.st.phase.Final() {
		y.sample.baseline = y.sample.baseline.Merge(cohort(y.rng, 100, 1))
		y.slice()
	}
	if y.st.phase != InconclusiveEnd || !strings.Contains(y.st.reason, "no even split") {
		t.Errorf("%s: %s", y.st.phase, y.st.reason)
	}
}

func TestABlindMachineDropsTheCandidate(t *testing.T) {
	y := tell(t, spec())
	for y.st.phase != Step {
		y.slice()
	}
	y.err = errTarget
	y.slice()
	y.err = nil
	for range 2 {
		y.slice()
	}
	if y.st.ending != "" || y.st.blind != 0 {
		t.Fatal("one look that failed ended the rollout")
	}
	y.err = errTarget
	y.until(mostBlindSlices)
	if y.st.phase != Aborted || !strings.Contains(y.st.reason, "target: gone") {
		t.Errorf("%s: %s", y.st.phase, y.st.reason)
	}
}

func TestWarmUpIsNotJudged(t *testing.T) {
	y := tell(t, spec())
	y.scale = 50
	for range 2 {
		y.slice()
	}
	y.scale = 1
	y.until(180)
	if y.st.phase != Promoted {
		t.Errorf("%s: %s", y.st.phase, y.st.reason)
	}
}

func TestTheReferenceGrowsWithTheBaseline(t *testing.T) {
	y := tell(t, spec())
	y.perSlice = 40
	for y.st.phase != Step {
		y.slice()
	}
	if y.st.judge.Referred() != 120 {
		t.Errorf("first reference of %d calls", y.st.judge.Referred())
	}
	for range 25 {
		y.slice()
	}
	if y.st.judge.Referred() != 960 {
		t.Errorf("reference of %d calls after %d", y.st.judge.Referred(), y.sample.baseline.Calls)
	}
	// p99 of lognormal(20 ms, 0.5) is 64 ms.
	g := y.st.judge.Judgement(stats.Tally{}, stats.Tally{})
	if m := g.Metrics[2]; m.Metric != "p99" || m.ReferenceMS < 52 || m.ReferenceMS > 80 {
		t.Errorf("%s = %v ms", m.Metric, m.ReferenceMS)
	}
}

func TestQuietSlicesAreJoined(t *testing.T) {
	y := tell(t, spec())
	for y.st.phase != Step {
		y.slice()
	}
	y.perSlice = 8
	for range 9 {
		y.slice()
	}
	if g := y.st.judge.Judgement(stats.Tally{}, stats.Tally{}); g.Slices != 3 || g.CandidateCalls != 72 {
		t.Errorf("%d slices of %d calls", g.Slices, g.CandidateCalls)
	}
}

func TestRefusedCommandsLeaveTheBaseline(t *testing.T) {
	begun, _ := begin(spec(), pending(spec()), start, Calibration{})
	promoting, _ := end(begun, Promoted, "good")
	dropping, _ := end(begun, RolledBack, "bad")
	again := dropping
	again.tries = 1
	for _, c := range []struct {
		name   string
		from   state
		refuse command
		phase  Phase
		ending Phase
		want   []command
	}{
		{"stage", begun, command{do: stage}, Aborted, "", nil},
		{"first weight", begun, command{do: weigh, weight: .01}, Warmup, Aborted, []command{{do: discard}}},
		{"promote", promoting, command{do: promote}, Warmup, Aborted, []command{{do: discard}}},
		{"discard", dropping, command{do: discard}, Warmup, RolledBack, []command{{do: weigh}}},
		{"weight 0 after discard", again, command{do: weigh}, Warmup, RolledBack, nil},
		{"discard again", again, command{do: discard}, Warmup, RolledBack, nil},
	} {
		st, commands := failed(c.from, c.refuse, errTarget)
		if st.phase != c.phase || st.ending != c.ending || !reflect.DeepEqual(commands, c.want) {
			t.Errorf("%s: %s, ending %q, commands %v", c.name, st.phase, st.ending, commands)
		}
		if st.ending == "" {
			continue
		}
		next, commands := step(spec(), st, start.Add(time.Hour), sample{})
		if len(commands) != 1 || commands[0].do != discard {
			t.Errorf("%s: at the next slice %v", c.name, commands)
		}
		if next = done(next, command{do: discard}); !next.phase.Final() || next.phase == Promoted || next.weight != 0 {
			t.Errorf("%s: ended as %s", c.name, next.phase)
		}
	}
}

func TestAbort(t *testing.T) {
	st, commands := abort(pending(spec()), "changed my mind")
	if st.phase != Aborted || len(commands) != 0 {
		t.Errorf("pending: %s, %v", st.phase, commands)
	}
	begun, _ := begin(spec(), pending(spec()), start, Calibration{})
	st, commands = abort(begun, "changed my mind")
	if st.ending != Aborted || len(commands) != 1 || commands[0].do != discard {
		t.Errorf("running: %s, %v", st.ending, commands)
	}
	if st, commands = abort(st, "again"); st.reason != "changed my mind" || len(commands) != 1 {
		t.Errorf("twice: %s, %v", st.reason, commands)
	}
}

func TestStepLeavesTheOldStateAlone(t *testing.T) {
	y := tell(t, spec())
	for y.st.phase != Step {
		y.slice()
	}
	before := y.st
	notes := append([]string(nil), before.notes...)
	for range 20 {
		y.slice()
	}
	other := before.note("elsewhere")
	if !reflect.DeepEqual(before.notes, notes) || before.judge.Judgement(stats.Tally{}, stats.Tally{}).Slices != 0 || before.at != 0 {
		t.Error("the old state changed")
	}
	if y.st.notes[len(notes)] == other.notes[len(notes)] {
		t.Error("two successors share their notes")
	}
}

func TestFinalAndPendingMachinesDoNothing(t *testing.T) {
	for _, phase := range []Phase{Pending, Promoted, RolledBack, Aborted, InconclusiveEnd} {
		st, commands := step(spec(), state{phase: phase}, start, sample{})
		if st.phase != phase || len(commands) != 0 {
			t.Errorf("%s became %s with %v", phase, st.phase, commands)
		}
	}
}

func TestSpecFaultsAreAllReported(t *testing.T) {
	if err := spec().Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	bad := Spec{
		Change: longpole.Change{To: longpole.Config{Timeout: -1}}, Goal: "win", Target: "p98", Steps: []float64{.5, .1},
		Slice: time.Millisecond, Warmup: -1, MaxDuration: 200 * time.Hour, OnInconclusive: "pray", AttemptsFactor: .5,
		Predicted: Quantiles{P50: 3, P95: 2, P99: 1},
	}
	var paths []string
	for _, err := range setting.List(bad.Validate()) {
		if fault, ok := errors.AsType[*setting.Error](err); ok {
			paths = append(paths, fault.Path)
		}
	}
	want := []string{"change.route", "change.to.timeout", "change.to.try_timeout", "goal", "target", "steps", "slice", "warmup", "max_duration", "on_inconclusive", "attempts_factor", "predicted"}
	if !reflect.DeepEqual(paths, want) {
		t.Errorf("faults at %v, want %v", paths, want)
	}
}

func TestAStepIsNotLeftBeforeItsRiskIsKnown(t *testing.T) {
	climbedAt := func(risk float64, perSlice int) int {
		s := spec()
		s.Risk = risk
		y := tell(t, s)
		y.perSlice = perSlice
		for n := 1; n < 300 && !y.st.phase.Final(); n++ {
			y.slice()
			if y.st.at == 2 {
				return n
			}
		}
		return 300
	}
	busy, quiet, bold := climbedAt(0.002, 2000), climbedAt(0.002, 100), climbedAt(1, 100)
	if busy >= quiet || bold >= quiet {
		t.Errorf("the third step is reached after %d slices of a busy route, %d of a quiet one, %d of a quiet one whose owner risks all", busy, quiet, bold)
	}
}

// TestATurnThatIsRefusedEndsTheRollout: whose turn it is would not be known any more.
func TestATurnThatIsRefusedEndsTheRollout(t *testing.T) {
	for _, then := range []order{"", weigh} { // what is refused besides
		s := spec()
		s.Switchback = time.Minute
		st, _ := begin(s.WithDefaults(), pending(s), start, Calibration{})
		st, commands := failed(st, command{do: turn}, errTarget)
		for i := 0; len(commands) > 0 && i < 9; i++ {
			c := commands[0]
			commands = commands[1:]
			if c.do == then {
				st, commands = failed(st, c, errTarget)
				continue
			}
			st = done(st, c)
		}
		if st.phase != Aborted || !strings.Contains(st.reason, "turn") {
			t.Errorf("%s: %s; %v", st.phase, st.reason, st.notes)
		}
	}
}

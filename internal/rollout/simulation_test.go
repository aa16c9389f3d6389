package rollout

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// An arm is a model of one cohort: latencies, rates and traffic. Latency is 97 % lognormal(20 ms, 0.5) and 3 %
// lognormal(90 ms, 0.5).
type arm struct {
	scale     float64 // of all latencies; 0 = 1
	late      float64 // share of calls that take 200 ms more
	errors    float64 // share of calls
	timeouts  float64
	attempts  float64 // per call
	perSecond float64
	drift     float64 // standard deviation of the arm's own wander (log of scale), remembered by 0.7 a slice
	wander    float64
	burst     uint64 // errors come so many at a time; 0 = one by one
}

func healthy() arm {
	return arm{scale: 1, errors: .001, timeouts: .0002, attempts: 1.02, perSecond: 50}
}

func normalCDF(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }

// slower is the share of calls that take longer than x.
func (a *arm) slower(x time.Duration) float64 {
	tail := func(ms float64) float64 {
		if ms <= 0 {
			return 1
		}
		return .97*normalCDF(-math.Log(ms/20)/.5) + .03*normalCDF(-math.Log(ms/90)/.5)
	}
	scale := a.scale * math.Exp(a.wander)
	ms := milliseconds(x)
	return (1-a.late)*tail(ms/scale) + a.late*tail((ms-200)/scale)
}

func (a *arm) draw(rng *rand.Rand) time.Duration {
	middle := 20.0
	if rng.Float64() < .03 {
		middle = 90
	}
	ms := middle * math.Exp(.5*rng.NormFloat64()) * a.scale * math.Exp(a.wander)
	if rng.Float64() < a.late {
		ms += 200
	}
	return time.Duration(ms * 1e6)
}

// rare draws how many of n calls have an event of a small probability.
func rare(rng *rand.Rand, n int, p float64) (k uint64) {
	for left := rng.ExpFloat64(); left < float64(n)*p; left += rng.ExpFloat64() {
		k++
	}
	return k
}

// slice draws the counts of a slice directly, cell by cell, which is what makes thousands of rollouts cheap.
func (a *arm) slice(rng *rand.Rand, j *Judge, width time.Duration) counts {
	if a.drift > 0 {
		a.wander = .7*a.wander + a.drift*math.Sqrt(1-.49)*rng.NormFloat64()
	}
	mean := a.perSecond * width.Seconds()
	n := max(int(math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())), 0)
	c := counts{calls: uint64(n), timed: uint64(n)}
	type edge struct {
		slower float64
		count  *uint64
	}
	var edges []edge
	for i := range table {
		m, e := &table[i], &c.events[i]
		if m.kind == latency {
			edges = append(edges,
				edge{a.slower(j.reference[i]), &e.plain},
				edge{a.slower(stats.Shift(j.reference[i], int(m.fail))), &e.fail},
				edge{a.slower(stats.Shift(j.reference[i], int(m.pass))), &e.pass})
		}
	}
	slices.SortFunc(edges, func(x, y edge) int { return int(math.Copysign(1, y.slower-x.slower)) })
	for range n {
		u := rng.Float64()
		for k := range edges {
			if u >= edges[k].slower {
				break
			}
			*edges[k].count++
		}
	}
	burst := float64(max(a.burst, 1))
	for i, k := range map[string]uint64{
		"errors": min(rare(rng, n, a.errors/burst)*max(a.burst, 1), uint64(n)), "timeouts": rare(rng, n, a.timeouts),
		"attempts": uint64(n) + rare(rng, n, a.attempts-1),
	} {
		at, _ := metricIndex(i)
		c.events[at].plain, c.events[at].fail, c.events[at].pass = k, k, k
	}
	return c
}

type outcome struct {
	verdict Verdict
	after   time.Duration
}

// simulate runs the judge for at most ten minutes, with a look after every slice, until done says so.
func simulate(seed uint64, target string, baseline, candidate arm, done func(Verdict) bool) outcome {
	const width, longest = 10 * time.Second, 10 * time.Minute
	rng := rand.New(rand.NewPCG(seed, 2026))
	j := NewJudge(target, 0)
	var warm stats.Histogram
	for range 1500 {
		warm.Record(baseline.draw(rng))
	}
	j.Freeze(warm.Snapshot())
	for t := width; t <= longest; t += width {
		j.add(baseline.slice(rng, &j, width), candidate.slice(rng, &j, width))
		if v := j.Verdict(); done(v) {
			return outcome{v, t}
		}
	}
	return outcome{j.Verdict(), longest}
}

// runs is n, or a quarter under the race detector.
func runs(n int) int {
	if raceDetector {
		return n / 4
	}
	return n
}

type summary struct {
	runs   int
	share  map[Verdict]float64
	median map[Verdict]time.Duration
}

func many(t *testing.T, name string, runs int, target string, baseline, candidate arm, done func(Verdict) bool) summary {
	t.Helper()
	times := map[Verdict][]time.Duration{}
	for seed := range runs {
		o := simulate(uint64(seed), target, baseline, candidate, done)
		times[o.verdict] = append(times[o.verdict], o.after)
	}
	s := summary{runs: runs, share: map[Verdict]float64{}, median: map[Verdict]time.Duration{}}
	for v, ts := range times {
		slices.Sort(ts)
		s.share[v] = float64(len(ts)) / float64(runs)
		s.median[v] = ts[len(ts)/2]
		t.Logf("%s: %s %.1f %% of %d, median %v", name, v, 100*s.share[v], runs, s.median[v])
	}
	return s
}

func isWorse(v Verdict) bool     { return v == Worse || v == Invalid }
func isDecided(v Verdict) bool   { return v != Inconclusive }
func isPromotion(v Verdict) bool { return v == Improved || isWorse(v) }

func TestEqualArmsAreNotCalledWorse(t *testing.T) {
	s := many(t, "A/A", runs(2000), "p99", healthy(), healthy(), isWorse)
	if s.share[Worse]+s.share[Invalid] > .01 {
		t.Errorf("false alarms: %v", s.share)
	}
	if s.share[NoWorse]+s.share[Improved] < .8 {
		t.Errorf("ended no worse: %v", s.share)
	}
	if s.share[Improved] > AlphaImproved {
		t.Errorf("called improved: %v", s.share)
	}
}

func TestEqualArmsThatWanderAreSeldomCalledWorse(t *testing.T) {
	a := healthy()
	a.drift = .05
	if s := many(t, "A/A, own drift 5 %", runs(400), "p99", a, a, isWorse); s.share[Worse]+s.share[Invalid] > .02 {
		t.Errorf("false alarms: %v", s.share)
	}
}

func TestRegressionsAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*arm)
		power  float64
		within time.Duration
	}{
		{"all +20 %", func(a *arm) { a.scale = 1.2 }, .99, 200 * time.Second},
		{"all +10 %", func(a *arm) { a.scale = 1.1 }, .95, 400 * time.Second},
		{"3 % of calls +200 ms", func(a *arm) { a.late = .03 }, .99, 200 * time.Second},
		{"1 % of calls +200 ms", func(a *arm) { a.late = .01 }, .99, 400 * time.Second},
		{"errors 0.1 % to 5 %", func(a *arm) { a.errors = .05 }, .99, 200 * time.Second},
		{"errors 0.1 % to 1 %", func(a *arm) { a.errors = .01 }, .99, 300 * time.Second},
		{"attempts 1.02 to 1.5", func(a *arm) { a.attempts = 1.5 }, .99, 200 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			candidate := healthy()
			c.change(&candidate)
			s := many(t, c.name, runs(100), "p99", healthy(), candidate, isWorse)
			if s.share[Worse] < c.power || s.median[Worse] > c.within {
				t.Errorf("found in %.0f %%, median %v; want %.0f %%, %v", 100*s.share[Worse], s.median[Worse], 100*c.power, c.within)
			}
		})
	}
}

func TestRegressionsAreNotPassed(t *testing.T) {
	candidate := healthy()
	candidate.scale = 1.1
	s := many(t, "all +10 %, until decided", runs(200), "p99", healthy(), candidate, isDecided)
	if s.share[NoWorse]+s.share[Improved] > .01 {
		t.Errorf("passed: %v", s.share)
	}
}

func TestImprovementsAreSeenAndNeverRolledBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		target string
		scale  float64
		power  float64
	}{
		{"all -10 %, target p50", "p50", .90, .99},
		{"all -10 %, target p95", "p95", .90, .90},
		{"all -10 %, target p99", "p99", .90, .50}, // 300 slow calls an arm: what ten minutes at 50 per second can show
		{"all -15 %, target p99", "p99", .85, .90},
		{"all -20 %, target p99", "p99", .80, .97},
	} {
		candidate := healthy()
		candidate.scale = c.scale
		s := many(t, c.name, runs(200), c.target, healthy(), candidate, isPromotion)
		if s.share[Worse]+s.share[Invalid] > 0 {
			t.Errorf("%s: rolled back: %v", c.name, s.share)
		}
		if s.share[Improved] < c.power {
			t.Errorf("%s: improved in %v, want %v", c.name, s.share[Improved], c.power)
		}
	}
}

// The margins are where a pass is wrong most often: p50 exactly at its own.
func TestFewPassAtTheMargin(t *testing.T) {
	candidate := healthy()
	candidate.scale = 1.056
	s := many(t, "all at the margin of p50", runs(200), "p99", healthy(), candidate, isDecided)
	if s.share[NoWorse]+s.share[Improved] > AlphaNoWorse {
		t.Errorf("passed: %v", s.share)
	}
}

func TestQuietAndBurstyTrafficRaisesNoFalseAlarms(t *testing.T) {
	quiet := healthy()
	quiet.perSecond = 5
	bursty := healthy()
	bursty.burst = 10
	for name, a := range map[string]arm{"5 calls a second": quiet, "errors in bursts of 10": bursty} {
		if s := many(t, name, runs(400), "p99", a, a, isWorse); s.share[Worse]+s.share[Invalid] > .01 {
			t.Errorf("%s: %v", name, s.share)
		}
	}
}

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
		runs := runs(100)
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

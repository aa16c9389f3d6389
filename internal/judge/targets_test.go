package judge

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/longpole/longpole/internal/judge/peers"
)

// A target is a claim about how often the judge is right, which a simulation of ten minutes at 50 calls a second and arm
// checks.
type target struct {
	id       string
	scenario scenario
	done     func(Verdict) bool // ends a run
	of       []Verdict          // whose share is meant
	atMost   float64            // 0 = no bound
	atLeast  float64
	within   int     // median in seconds; 0 = no bound
	calls    float64 // median of the candidate; 0 = no bound
	runs     int     // of the full grid
	reached  float64 // in place of atLeast, where that is out of reach
	missed   string  // why it is
}

func story(name string, change func(b, c *arm, w *weather)) scenario {
	s := scenario{name: name, baseline: healthy(), candidate: healthy()}
	change(&s.baseline, &s.candidate, &s.weather)
	return s
}

func stalls(b, c *arm)            { b.stalls, c.stalls = 2, 2 }
func iid(*arm, *arm, *weather)    {}
func rough(b, c *arm, w *weather) { stalls(b, c); w.waves = .3 }

func (y scenario) joined(n int) scenario {
	y.join = n
	return y
}

func (y scenario) improving(metric string) scenario {
	y.target = metric
	return y
}

func (y scenario) lasting(seconds int) scenario {
	y.length = seconds
	return y
}

func (y scenario) sliced(seconds int) scenario {
	y.slice = seconds
	return y
}

// thin traffic is 33 calls a second and arm, none of which fails.
func thin(b, c *arm, _ *weather) {
	for _, a := range []*arm{b, c} {
		a.perSecond, a.errors, a.timeouts, a.db = 33, 0, 0, 1
	}
}

// cached has the candidate answer a share of the calls from a cache, and the others as before.
func cached(hits float64) func(b, c *arm, w *weather) {
	return func(_, c *arm, _ *weather) { c.hits, c.db, c.attempts = hits, c.db*(1-hits), 1 }
}

func drifts(sd float64) func(b, c *arm, w *weather) {
	return func(b, c *arm, _ *weather) { b.drift, c.drift = sd, sd }
}

func slower(scale float64) func(b, c *arm, w *weather) {
	return func(_, c *arm, _ *weather) { c.scale = scale }
}

func late(share float64) func(b, c *arm, w *weather) {
	return func(_, c *arm, _ *weather) { c.late = share }
}

func failing(share float64) func(b, c *arm, w *weather) {
	return func(_, c *arm, _ *weather) { c.errors = share }
}

func and(all ...func(b, c *arm, w *weather)) func(b, c *arm, w *weather) {
	return func(b, c *arm, w *weather) {
		for _, f := range all {
			f(b, c, w)
		}
	}
}

var (
	alarm  = []Verdict{Worse}
	passed = []Verdict{NoWorse, Improved}
)

// equals are A/A runs: nothing differs, and Worse is a false alarm.
var equals = []target{
	{id: "T1", scenario: story("equal arms", iid), atMost: .01, runs: 2000},
	{id: "T1", scenario: story("equal arms, shared waves 30 %", func(_, _ *arm, w *weather) { w.waves = .3 }), atMost: .01, runs: 2000},
	{id: "T1", scenario: story("equal arms, stalls of 200 ms", func(b, c *arm, _ *weather) { stalls(b, c) }), atMost: .01, runs: 2000},
	{id: "T1", scenario: story("equal arms, stalls and waves", rough), atMost: .01, runs: 2000},
	{id: "T2", scenario: story("equal arms, own drift 5 %", drifts(.05)), atMost: .01, runs: 2000},
	{id: "T2", scenario: story("equal arms, own drift 10 %", drifts(.10)), atMost: .04, runs: 2000},
	{id: "T2", scenario: story("equal arms, own drift 10 %, slices of 30 s, 30 minutes", drifts(.10)).joined(3).lasting(1800), atMost: .01, runs: 2000},
	{id: "T2", scenario: story("equal arms, own drift 10 %, slices of 60 s, 30 minutes", drifts(.10)).joined(6).lasting(1800), atMost: .01, runs: 2000},
	{id: "T2", scenario: story("equal arms, shared drift 10 %", func(_, _ *arm, w *weather) { w.waves = .1 }), atMost: .01, runs: 2000},
	{id: "T3", scenario: story("equal arms, errors in bursts of 10", func(b, c *arm, _ *weather) { b.burst, c.burst = 10, 10 }), atMost: .01, runs: 2000},
	{id: "T3", scenario: story("equal arms, 1 % errors in bursts of 10", func(b, c *arm, _ *weather) {
		b.burst, c.burst, b.errors, c.errors = 10, 10, .01, .01
	}), atMost: .01, runs: 2000},
	{id: "-", scenario: story("equal arms, 5 calls a second", func(b, c *arm, _ *weather) { b.perSecond, c.perSecond = 5, 5 }), atMost: .01, runs: 2000},
	{id: "-", scenario: story("equal arms, all twice as slow after 5 minutes", func(_, _ *arm, w *weather) { w.fronts = []front{{300, 2}} }), atMost: .01, runs: 1000},
}

// regressions are to be found.
var regressions = []target{
	{id: "T4", scenario: story("all +10 %", slower(1.10)), atLeast: .95, runs: 400},
	{id: "T4", scenario: story("all +10 %, stalls and waves", and(slower(1.10), rough)), atLeast: .95, runs: 400},
	{id: "T4", scenario: story("all +15 %", slower(1.15)), atLeast: .99, within: 200, runs: 400},
	{id: "T4", scenario: story("all +20 %", slower(1.20)), atLeast: .99, within: 200, runs: 400},
	{id: "T4", scenario: story("all +20 %, stalls and waves", and(slower(1.20), rough)), atLeast: .99, within: 200, runs: 400},
	{id: "T4", scenario: story("3 % of calls +200 ms", late(.03)), atLeast: .99, within: 200, runs: 400},
	{id: "T4", scenario: story("1 % of calls +200 ms", late(.01)), atLeast: .99, within: 400, runs: 400},
	{id: "T4", scenario: story("1 % of calls +200 ms, stalls and waves", and(late(.01), rough)), atLeast: .85, within: 400, runs: 400},
	{id: "T5", scenario: story("errors 0.1 % to 5 %", failing(.05)), atLeast: .99, within: 15, runs: 400},
	{id: "T5", scenario: story("errors 0.1 % to 1 %", failing(.01)), atLeast: .99, within: 60, calls: 2500, runs: 400},
	{id: "-", scenario: story("calls to a downstream twice as many", func(_, c *arm, _ *weather) { c.db *= 2 }), atLeast: .99, within: 200, runs: 400},
	{id: "-", scenario: story("all +20 %, all twice as slow after 1 minute", func(_, c *arm, w *weather) { c.scale, w.fronts = 1.2, []front{{60, 2}} }), atLeast: .99, runs: 400},
	{id: "-", scenario: story("processor time 1.5 times", func(_, c *arm, _ *weather) { c.cpu *= 1.5 }), atLeast: .99, within: 200, runs: 400},
}

// lateRegressions take too long for an ordinary test.
var lateRegressions = []target{
	{
		id: "-", scenario: story("p99 +20 %, by 4.7 % slow calls in place of 3 %", func(_, c *arm, _ *weather) { c.slow = .047 }), atLeast: .99, reached: .4, runs: 400,
		missed: "p50 stays as it is, and ten minutes are too few slow calls; thirty, the default of a rollout, are enough",
	},
	{id: "-", scenario: story("p99 +20 %, by 4.7 % slow calls in place of 3 %, 30 minutes", func(_, c *arm, _ *weather) { c.slow = .047 }).lasting(1800), atLeast: .99, runs: 400},
	{
		id: "-", scenario: story("p99 +20 %, by the slow 3 % of calls alone, 30 minutes", func(_, c *arm, _ *weather) { c.tail = 1.2 }).lasting(1800), atLeast: .99, reached: .25, runs: 400,
		missed: "it lies between the margins of 1.10 and 1.26, and 0.2 % of calls are too few to be sure of; a third of the runs call it no worse",
	},
}

// passes are about what is called no worse.
var passes = []target{
	{id: "T6", scenario: story("equal arms", iid), done: isDecided, of: passed, atLeast: .8, runs: 1000},
	{id: "T6", scenario: story("equal arms, stalls and waves", rough), done: isDecided, of: passed, atLeast: .8, runs: 1000},
	{id: "T6", scenario: story("p50 at its margin (+5.6 %)", slower(1.056)), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "T6", scenario: story("all +10 %", slower(1.10)), done: isDecided, of: passed, atMost: .01, runs: 1000},
	{id: "T6", scenario: story("p99 at its margin, by the slow 3 % of calls alone", func(_, c *arm, _ *weather) { c.tail = 1.27 }), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "T6", scenario: story("errors at their margin (0.6 %)", failing(.006)), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "T6", scenario: story("errors at their margin, in bursts of 10", and(failing(.006), func(b, c *arm, _ *weather) { b.burst, c.burst = 10, 10 })), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "-", scenario: story("98 % from a cache, the others 7 times as slow: p99 at its margin", and(cached(.98), slower(7))), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "-", scenario: story("all from a cache, errors at their margin", and(cached(1), failing(.006))), done: isDecided, of: passed, atMost: .05, runs: 1000},
	{id: "-", scenario: story("all from a cache, 33 calls a second, slices of 1 s", and(thin, cached(1))).sliced(1), done: isEnding, of: []Verdict{Improved}, atLeast: .95, within: 45, runs: 400},
	{id: "-", scenario: story("98.3 % from a cache, 33 calls a second, slices of 1 s", and(thin, cached(.983))).sliced(1), done: isEnding, of: []Verdict{Improved}, atLeast: .95, within: 45, runs: 400},
	{id: "-", scenario: story("98.3 % from a cache, 33 calls a second, slices of 1 s, the baseline stalls", and(thin, cached(.983), func(b, _ *arm, _ *weather) { b.stalls = 6 })).sliced(1), done: isEnding, of: []Verdict{Improved}, atLeast: .95, within: 45, runs: 400},
	{id: "T7", scenario: story("all -10 %", slower(.9)), atMost: .005, runs: 1000},
	{id: "T7", scenario: story("all -10 %, stalls and waves", and(slower(.9), rough)), atMost: .005, runs: 1000},
	{id: "T7", scenario: story("all -10 %, target p50", slower(.9)).improving("p50"), done: isEnding, of: []Verdict{Improved}, atLeast: .9, runs: 1000},
	{id: "T7", scenario: story("all -10 %, target p95", slower(.9)).improving("p95"), done: isEnding, of: []Verdict{Improved}, atLeast: .9, runs: 1000},
	{
		id: "T7", scenario: story("all -10 %, target p99", slower(.9)).improving("p99"), done: isEnding, of: []Verdict{Improved}, atLeast: .9, reached: .5, runs: 1000,
		missed: "300 calls beyond p99 against 240 is what ten minutes give, which one look at the end would tell in 83 % of runs",
	},
	{id: "T7", scenario: story("all -10 %, target p99, 20 minutes", slower(.9)).improving("p99").lasting(1200), done: isEnding, of: []Verdict{Improved}, atLeast: .9, runs: 400},
}

// atLeastAs is the probability that k or more of n happen, each with probability p.
func atLeastAs(k, n int, p float64) float64 {
	if k <= 0 {
		return 1
	}
	sum := 0.0
	for i := k; i <= n; i++ {
		sum += binomial(i, n, p)
	}
	return sum
}

// check runs a target so often. What a few runs show contradicts a bound when it would happen
// once in a thousand times where the bound just holds; many runs must meet it as it stands.
func (g target) check(t testing.TB, runs int, exact bool) (s summary, share float64, ok bool) {
	t.Helper()
	done, of := g.done, g.of
	if done == nil {
		done, of = isWorse, alarm
	}
	s = g.scenario.many(t, runs, done)
	share = s.share(of...)
	k := int(math.Round(share * float64(runs)))
	switch {
	case g.atMost > 0 && exact:
		ok = share <= g.atMost
	case g.atMost > 0:
		ok = atLeastAs(k, runs, g.atMost) > .001
	case exact:
		ok = share >= cmp.Or(g.reached, g.atLeast)
	default:
		ok = atLeastAs(runs-k, runs, 1-cmp.Or(g.reached, g.atLeast)) > .001
	}
	of = slices.Clone(of)
	slices.SortFunc(of, func(a, b Verdict) int { return s.count[b] - s.count[a] })
	slack := 1.0
	if !exact {
		slack = 1.15 // a median of few runs
	}
	ok = ok && (g.within == 0 || float64(s.median[of[0]]) <= slack*float64(g.within))
	ok = ok && (g.calls == 0 || s.calls[of[0]] <= slack*g.calls)
	return s, share, ok
}

// few is n, or less under the race detector.
func few(n int) int {
	if raceDetector {
		return n / 8
	}
	return n
}

func checkAll(t *testing.T, all []target, runs int) {
	for _, g := range all {
		t.Run(g.id+" "+g.scenario.name, func(t *testing.T) {
			if s, share, ok := g.check(t, runs, false); !ok {
				t.Errorf("%.1f %% of %v; want at most %v, at least %v, within %d s and %v calls", 100*share, s, g.atMost, g.atLeast, g.within, g.calls)
			}
		})
	}
}

func TestEqualArmsAreSeldomCalledWorse(t *testing.T) { checkAll(t, equals, few(80)) }
func TestRegressionsAreFound(t *testing.T)           { checkAll(t, regressions, few(60)) }
func TestPassesAreEarned(t *testing.T)               { checkAll(t, passes, few(60)) }

// The full grid: LONGPOLE_JUDGE_RUNS is a factor on the runs of each target, 1 for what docs/bench/judge.md holds.
func TestFullGrid(t *testing.T) {
	factor, err := strconv.ParseFloat(os.Getenv("LONGPOLE_JUDGE_RUNS"), 64)
	if err != nil {
		t.Skip("LONGPOLE_JUDGE_RUNS is not set")
	}
	fmt.Println("| target | what happens | wanted | of runs | longpole | median | calls of the candidate |\n|---|---|---|---|---|---|---|")
	for _, g := range slices.Concat(equals, regressions, lateRegressions, passes) {
		runs := max(int(factor*float64(g.runs)), 20)
		s, share, ok := g.check(t, runs, true)
		fmt.Println(g.row(s, share, ok))
	}
	fmt.Println("\n| what happens | longpole | Flagger-style | Kayenta-style, at the end | Kayenta-style, once a minute |\n|---|---|---|---|---|")
	for _, g := range slices.Concat(equals[:6], regressions[:10], []target{passes[12], passes[13]}) {
		fmt.Println(g.scenario.beside(max(int(factor*200), 20)))
	}
}

func (g target) row(s summary, share float64, ok bool) string {
	of := g.of
	if g.done == nil {
		of = alarm
	}
	wanted := fmt.Sprintf("%s in at least %.4g %%", of[0], 100*g.atLeast)
	if g.atMost > 0 {
		wanted = fmt.Sprintf("%s in at most %.4g %%", of[0], 100*g.atMost)
	}
	if g.within > 0 {
		wanted += fmt.Sprintf(", median %d s", g.within)
	}
	if g.calls > 0 {
		wanted += fmt.Sprintf(", %.0f calls", g.calls)
	}
	verdict := "met"
	if !ok {
		verdict = "**missed**"
	}
	if g.missed != "" {
		verdict = "**missed**: " + g.missed
	}
	median, calls := "-", "-"
	if s.count[of[0]] > 0 {
		median, calls = fmt.Sprintf("%d s", s.median[of[0]]), fmt.Sprintf("%.0f", s.calls[of[0]])
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %.2f %%, %s | %s | %s |", g.id, g.scenario.name, wanted, s.runs, 100*share, verdict, median, calls)
}

// beside runs the peers' rules on the very data that the judge sees.
func (y scenario) beside(runs int) string {
	var ours, flaggers, peeked, ended []int
	usual, rng := healthy(), rand.New(rand.NewPCG(1, 1))
	var calm []float64
	for range 1200 {
		calm = append(calm, usual.second(rng, 0, nil).ms...)
	}
	before := quantile(calm, .99)
	for seed := range runs {
		f, k := &flagger{rule: peers.Flagger{Usual: before}}, &kayenta{}
		if o := y.simulate(uint64(seed), isWorse, f, k); o.verdict == Worse {
			ours = append(ours, o.after)
		}
		if f.rolledBack > 0 {
			flaggers = append(flaggers, f.rolledBack)
		}
		if k.peeked > 0 {
			peeked = append(peeked, k.peeked)
		}
		if k.ended {
			ended = append(ended, 600)
		}
	}
	cell := func(at []int) string {
		if len(at) == 0 {
			return "0"
		}
		slices.Sort(at)
		return fmt.Sprintf("%.1f (%d s)", 100*float64(len(at))/float64(runs), at[len(at)/2])
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", y.name, cell(ours), cell(flaggers), cell(ended), cell(peeked))
}

package judge

import (
	"cmp"
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
	scale     float64 // of all latencies
	slow      float64 // share of calls around 90 ms; 0 = 3 %
	tail      float64 // of the latencies around 90 ms; 0 = 1
	late      float64 // share of calls that take 200 ms more
	hits      float64 // share of calls that a cache answers, in 0.03 ms
	errors    float64 // share of calls
	burst     int     // errors come so many at a time; 0 = one by one
	timeouts  float64
	attempts  float64 // per call
	cpu       float64 // per call, in ms
	db        float64 // calls to a downstream, per call
	perSecond float64
	stalls    float64 // a minute: all that arrives within 200 ms waits for the end of it
	drift     float64 // standard deviation of the arm's own wander (log of scale), which keeps 0.7 of itself in 10 s
	wander    float64
}

func healthy() arm {
	return arm{scale: 1, errors: .001, timeouts: .0002, attempts: 1.02, cpu: 4, db: 2, perSecond: 50}
}

// weather is what both arms feel: waves of load, which keep 0.7 of themselves in 10 s as well.
type weather struct {
	waves  float64 // standard deviation of the log of scale
	wander float64
	fronts []front // lasting changes
}

type front struct {
	at    int // second
	scale float64
}

var keep = math.Pow(.7, .1) // of a wander, in a second

func wanders(rng *rand.Rand, now, sd float64) float64 {
	if sd == 0 {
		return 0
	}
	return keep*now + sd*math.Sqrt(1-keep*keep)*rng.NormFloat64()
}

// rare draws how many events there are when mean are expected.
func rare(rng *rand.Rand, mean float64) float64 {
	if mean > 100 {
		return max(math.Round(mean+math.Sqrt(mean)*rng.NormFloat64()), 0)
	}
	k := 0.0
	for left := rng.ExpFloat64(); left < mean; left += rng.ExpFloat64() {
		k++
	}
	return k
}

// second is what a cohort did in one.
type second struct {
	ms               []float64 // latencies
	errors, timeouts float64
}

func (a *arm) second(rng *rand.Rand, shared float64, into []float64) second {
	a.wander = wanders(rng, a.wander, a.drift)
	scale := a.scale * math.Exp(a.wander+shared)
	stalled := rng.Float64() < a.stalls/60
	s := second{ms: into[:0]}
	for range int(rare(rng, a.perSecond)) {
		middle := 20.0
		if rng.Float64() < cmp.Or(a.slow, .03) {
			middle = 90 * cmp.Or(a.tail, 1)
		}
		ms := scale * middle * math.Exp(.5*rng.NormFloat64())
		if a.late > 0 && rng.Float64() < a.late {
			ms += 200
		}
		if a.hits > 0 && rng.Float64() < a.hits {
			ms = .03
		}
		if stalled {
			ms += max(200-1000*rng.Float64(), 0)
		}
		s.ms = append(s.ms, ms)
	}
	n, burst := float64(len(s.ms)), float64(max(a.burst, 1))
	s.errors = min(rare(rng, n*a.errors/burst)*burst, n)
	s.timeouts = min(rare(rng, n*a.timeouts), s.errors)
	return s
}

// edge is a threshold in ms and the count of what lies beyond.
type edge struct {
	ms    float64
	count func(*counts) *float64
}

// edges are all thresholds of the judge, in ascending order, and last that of the fast tier's slow calls.
func edges(j *Judge) (list []edge) {
	for _, i := range []int{p50, p95, p99} {
		x, m := j.reference[i], &table[i]
		list = append(list,
			edge{milliseconds(x), func(c *counts) *float64 { return &c.rows[i].plain }},
			edge{milliseconds(stats.Shift(x, int(m.fail))), func(c *counts) *float64 { return &c.rows[i].fail }},
			edge{milliseconds(stats.Shift(x, int(m.pass))), func(c *counts) *float64 { return &c.rows[i].pass }})
	}
	for i, x := range j.environment.before {
		list = append(list, edge{milliseconds(x), func(c *counts) *float64 { return &c.beyond[i] }})
	}
	slices.SortFunc(list, func(a, b edge) int { return cmp.Compare(a.ms, b.ms) })
	return list
}

// pour adds a second to a slice's counts, and says which events of the fast tier there were.
func (s *second) pour(j *Judge, list []edge, c *counts) [fastRows]bool {
	slow, slowest := milliseconds(stats.Shift(j.reference[p99], slowShift)), 0.0
	beyond := make([]float64, len(list)+1) // by how many edges a call lies beyond
	for _, ms := range s.ms {
		k := 0
		for k < len(list) && ms > list[k].ms {
			k++
		}
		beyond[k]++
		slowest = max(slowest, ms)
	}
	n := 0.0
	for k, e := range slices.Backward(list) {
		n += beyond[k+1]
		*e.count(c) += n
	}
	calls := float64(len(s.ms))
	c.calls += calls
	c.timed += calls
	for _, i := range []int{p50, p95, p99} {
		c.rows[i].of += calls
	}
	c.rows[errored].merge(counted(calls, s.errors))
	c.rows[timedOut].merge(counted(calls, s.timeouts))
	return [fastRows]bool{s.errors > 0, s.timeouts > 0, slowest > slow}
}

func (e *event) merge(o event) {
	e.of, e.plain, e.fail, e.pass = e.of+o.of, e.plain+o.plain, e.fail+o.fail, e.pass+o.pass
}

// rest draws what is counted once a slice: attempts, cost and one downstream.
func (a *arm) rest(rng *rand.Rand, c *counts) {
	n := c.calls
	c.rows[attempts] = counted(n, n+rare(rng, n*(a.attempts-1)))
	c.rows[costs] = event{of: n, plain: n * a.cpu * (1 + .5*rng.NormFloat64()/math.Sqrt(n))}
	db := rare(rng, n*a.db)
	at := fixedRows
	c.rows[at+downCalls] = counted(n, db)
	c.rows[at+downErrors] = counted(db, rare(rng, db*.001))
	p := rare(rng, db*.05)
	c.rows[at+downLatency] = event{of: db, plain: p, fail: .9 * p, pass: .75 * p}
}

// scenario is a comparison that is run many times.
type scenario struct {
	name                string
	target              string
	baseline, candidate arm
	weather             weather
	join                int
	slice               int // seconds; 0 = 10
	warm                int // seconds before the judge begins; 0 = 30
	length              int // seconds that are judged at most; 0 = 600
}

type outcome struct {
	verdict Verdict
	after   int // seconds
	calls   float64
	fast    bool // the fast tier spoke
}

// observer sees the same data as the judge.
type observer interface {
	see(at int, baseline, candidate second)
}

// simulate runs the judge, with a look every second by the fast tier and every ten by the main one, until done says so. An
// observer sees all of it; the outcome stays that of the first time done said so.
func (y scenario) simulate(seed uint64, done func(Verdict) bool, watchers ...observer) outcome {
	rng := rand.New(rand.NewPCG(seed, 2026))
	j := New(Config{Target: y.target, Join: y.join})
	var history stats.Histogram // of the baseline
	var buffer [2][]float64
	draw := func(at int) (b, k second) {
		y.weather.wander = wanders(rng, y.weather.wander, y.weather.waves)
		shared := y.weather.wander
		for _, f := range y.weather.fronts {
			if at >= f.at {
				shared = math.Log(f.scale)
			}
		}
		b, k = y.baseline.second(rng, shared, buffer[0]), y.candidate.second(rng, shared, buffer[1])
		buffer[0], buffer[1] = b.ms, k.ms
		for _, ms := range b.ms {
			history.Record(time.Duration(ms * 1e6))
		}
		return b, k
	}
	for at := range cmp.Or(y.warm, 30) {
		b, k := draw(at)
		for _, w := range watchers {
			w.see(at-cmp.Or(y.warm, 30), b, k)
		}
	}
	j.Freeze(stats.Tally{Latency: history.Snapshot(), Calls: 1000, Failed: 1, Downstreams: []stats.Downstream{{Name: "db"}}})
	thresholds := edges(&j)
	var slice [2]counts
	var first *outcome
	for at := 0; at < cmp.Or(y.length, 600); at++ {
		b, k := draw(at)
		for _, w := range watchers {
			w.see(at, b, k)
		}
		if first != nil {
			continue
		}
		j.watch(b.pour(&j, thresholds, &slice[0]), k.pour(&j, thresholds, &slice[1]))
		if (at+1)%cmp.Or(y.slice, 10) == 0 {
			y.baseline.rest(rng, &slice[0])
			y.candidate.rest(rng, &slice[1])
			j.add(&slice[0], &slice[1])
			slice = [2]counts{}
			if j.Freeze(stats.Tally{Latency: history.Snapshot()}) {
				thresholds = edges(&j)
			}
		}
		if v := j.Verdict(); done(v) {
			first = &outcome{v, at + 1, j.total[1].calls + slice[1].calls, j.fastSpoke()}
			if len(watchers) == 0 {
				break
			}
		}
	}
	if first == nil {
		first = &outcome{verdict: j.Verdict(), after: cmp.Or(y.length, 600)}
	}
	return *first
}

// summary is what many runs ended as.
type summary struct {
	runs   int
	count  map[Verdict]int
	median map[Verdict]int // seconds
	calls  map[Verdict]float64
}

func (s summary) share(verdicts ...Verdict) float64 {
	n := 0
	for _, v := range verdicts {
		n += s.count[v]
	}
	return float64(n) / float64(s.runs)
}

func (y scenario) many(t testing.TB, runs int, done func(Verdict) bool) summary {
	t.Helper()
	times, calls := map[Verdict][]int{}, map[Verdict][]float64{}
	for seed := range runs {
		o := y.simulate(uint64(seed), done)
		times[o.verdict] = append(times[o.verdict], o.after)
		calls[o.verdict] = append(calls[o.verdict], o.calls)
	}
	s := summary{runs: runs, count: map[Verdict]int{}, median: map[Verdict]int{}, calls: map[Verdict]float64{}}
	for v := range times {
		slices.Sort(times[v])
		slices.Sort(calls[v])
		s.count[v], s.median[v], s.calls[v] = len(times[v]), times[v][len(times[v])/2], calls[v][len(calls[v])/2]
		t.Logf("%s: %s %.1f %% of %d, median %d s", y.name, v, 100*s.share(v), runs, s.median[v])
	}
	return s
}

func isWorse(v Verdict) bool   { return v == Worse || v == Invalid }
func isDecided(v Verdict) bool { return v == Worse || v == Invalid || v == NoWorse || v == Improved }
func isEnding(v Verdict) bool  { return v == Worse || v == Invalid || v == Improved }

package judge

import (
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Verdict is what the evidence says about a candidate, for one metric or overall.
type Verdict string

// The verdicts.
const (
	Inconclusive Verdict = "inconclusive" // not enough evidence, or none
	NoWorse      Verdict = "no_worse"     // within the margins, on every metric
	Improved     Verdict = "improved"     // no worse, and better on the target
	Worse        Verdict = "worse"        // beyond a margin
	Invalid      Verdict = "invalid"      // the traffic was not split evenly: nothing can be said
	Environment  Verdict = "environment"  // both arms got more than 25 % worse than before, or the traffic is too noisy to be judged: wait until that is over
)

// The levels: how often each verdict may be wrong although the judge looks after every slice.
const (
	AlphaWorse    = 0.01  // all metrics and both tiers together
	AlphaNoWorse  = 0.05  // each metric; all of them must pass, so that no correction is due
	AlphaImproved = 0.05  // the target
	AlphaInvalid  = 0.003 // an even split called uneven

	alphaFast = 0.002 // of AlphaWorse
	alphaMain = AlphaWorse - alphaFast
)

const (
	minCalls      = 100 // of an arm, before anything but the fast tier speaks
	minSliceCalls = 20  // of an arm in one slice; a slice with fewer is joined with the next
	recentSlices  = 6   // the last minute
)

// Config is how to judge. Zero fields mean the defaults given at each.
type Config struct {
	Target         string  // the metric that is to improve, one of Metrics; default p99, also for an unknown one
	AttemptsFactor float64 // attempts and a downstream's calls, per call, that the candidate may make over the baseline's; default 1.25
	CostFactor     float64 // cost per call that the candidate may make over the baseline's; default 1.10; no worse within 1.25 or this, if greater
	Price          Price   // of cost
	// Shed is the stated price of shed calls: the share of calls, 0 to 0.95, that the candidate may refuse beyond what the
	// baseline refuses. 0 = a shed call is an error like another. Above 0 shed calls are a metric of their own, and all else is
	// judged per call that was served.
	Shed   float64
	Join   int  // slices that are judged as one; default 1. See Calibration
	Noisy  bool // equal halves of the traffic differ too often: Worse holds, all else is Environment. See Calibration
	Blocks bool // the arms took turns, as under a Switchback: how many calls each got says nothing
}

// WithDefaults spells out the defaults.
func (c Config) WithDefaults() Config {
	if _, known := index(c.Target); !known {
		c.Target = table[p99].name
	}
	if !(c.AttemptsFactor > 0) {
		c.AttemptsFactor = 1.25
	}
	if !(c.CostFactor > 0) {
		c.CostFactor = 1.10
	}
	c.Price = c.Price.withDefaults()
	c.Shed = min(max(c.Shed, 0), mostShed)
	if math.IsNaN(c.Shed) {
		c.Shed = 0
	}
	c.Join = max(c.Join, 1)
	return c
}

// Judge compares a candidate with the baseline cohort that ran beside it.
//
// For each metric it takes one difference a slice, candidate less baseline less a margin, and asks of the sequence
// of differences whether its mean can still be 0. A latency metric is reduced to the share of calls above a
// threshold that was fixed beforehand, so that only whole bucket counts are compared: if all of the candidate's
// latencies grew by less than the margin, its share above threshold times margin cannot exceed the baseline's above the
// threshold. Differences are weighted by the root of the slice's calls, so that steps of a ramp can be pooled.
//
// Make one with New, fix the thresholds with Freeze, then Watch seconds and Add slices. It is a value of fixed size (21
// KiB): a copy is independent. Not for concurrent use; tells no time and allocates nothing but its Judgement.
//
// Source: exceedance differences after Kayenta's practice of an equal baseline cohort; the test is stats.Series.
type Judge struct {
	config Config
	target int // of table

	reference [rows]time.Duration           // of the latency rows
	middles   [MaxDownstreams]time.Duration // p50 of the downstreams
	referred  uint64                        // calls that they stand on; 0 = not frozen yet
	names     [MaxDownstreams]string
	shares    [MaxDownstreams]float64 // weight of each row of the downstream
	met       int                     // downstreams in names
	late      float64                 // what is left of poolLate
	unjudged  int                     // times that a downstream found no place

	pending [2]counts // slices that are not judged yet, because they are joined
	joined  int
	slices  int
	// plain has no margin and serves IMPROVED and the chart; fail and pass are less their margin.
	plain, fail, pass [rows]stats.Series
	weights           [rows]float64 // of all slices, summed up
	alone             alone
	recent            [rows][recentSlices]float64 // what was added to fail last
	total             [2]counts                   // baseline and candidate since the first slice

	split       split
	environment environment
	labels      [fastRows]labels
	watched     int // seconds
}

// New judges by c.
func New(c Config) Judge {
	c = c.WithDefaults()
	target, _ := index(c.Target)
	return Judge{config: c, target: target, late: poolLate}
}

// Freeze fixes the thresholds from what the baseline did before the next slice. Call it before the first Add, and after
// each slice with all that the baseline did so far: it takes new thresholds each time that the calls have doubled, since a
// p99 of the first hundred calls may lie where hardly any call of thousands does. Slices are judged by thresholds that
// knew nothing of them. It reports false, and changes nothing, while there are too few calls for that.
func (j *Judge) Freeze(baseline stats.Tally) bool {
	n := baseline.Latency.Count() + baseline.FailedLatency.Count()
	if n < max(minCalls, 2*j.referred) {
		return false
	}
	if j.referred == 0 {
		known := float64(min(len(baseline.Downstreams), MaxDownstreams))
		j.meet(&baseline, func() float64 { return poolKnown / known })
		j.environment.freeze(&baseline, j.failed(&baseline))
	}
	j.refer(&baseline)
	j.referred = n
	return true
}

// Referred is how many calls of the baseline the thresholds stand on; 0 before Freeze.
func (j *Judge) Referred() uint64 { return j.referred }

// Add takes what the two cohorts did in one slice. It reports whether a slice was judged: one with too few calls is joined
// with the next, as are those that Config.Join says. Before Freeze nothing is taken.
func (j *Judge) Add(baseline, candidate stats.Tally) bool {
	if j.referred == 0 {
		return false
	}
	takeLate := func() float64 {
		j.late /= 2
		return j.late
	}
	j.meet(&baseline, takeLate)
	j.meet(&candidate, takeLate)
	b, c := j.measure(&baseline), j.measure(&candidate)
	return j.add(&b, &c)
}

func (j *Judge) add(baseline, candidate *counts) bool {
	b, c := &j.pending[0], &j.pending[1]
	b.merge(baseline)
	c.merge(candidate)
	j.joined++
	if j.joined < j.config.Join || !b.enough() || !c.enough() {
		return false
	}
	for i := range b.rows {
		j.addRow(i, &b.rows[i], &c.rows[i])
	}
	j.addAlone(b, c)
	j.environment.add(b, c)
	j.total[0].merge(b)
	j.total[1].merge(c)
	j.split.look(j.total[0].calls, j.total[1].calls)
	j.pending, j.joined = [2]counts{}, 0
	j.slices++
	return true
}

func (j *Judge) addRow(i int, b, c *event) {
	if min(b.of, c.of) < minSliceCalls || j.metric(i).kind == cost && !(b.plain > 0 && c.plain > 0) {
		return
	}
	w := math.Sqrt(b.of * c.of / (b.of + c.of))
	plain, fail, pass := j.differences(i, b, c)
	if j.plain[i].Add(w * plain) {
		j.fail[i].Add(w * fail)
		j.pass[i].Add(w * pass)
		j.weights[i] += w
		copy(j.recent[i][1:], j.recent[i][:])
		j.recent[i][0] = w * fail
	}
}

// judged reports whether row i has any evidence, for or against.
func (j *Judge) judged(i int) bool { return j.plain[i].Len() > 0 }

// worse is the logarithm of the evidence that row i is beyond its margin.
func (j *Judge) worse(i int) float64 { return j.fail[i].LogE(0) }

// mainWorse is the weighted mean of the rows' evidence, which is evidence
// again however the rows depend on each other. A row without any counts as 1.
func (j *Judge) mainWorse() float64 {
	var logs [rows + 1]float64
	rest := 1.0
	for i := range rows {
		logs[i] = math.Inf(-1)
		if j.judged(i) {
			logs[i] = j.weighted(i)
			rest -= j.weight(i)
		}
	}
	logs[rows] = math.Log(max(rest, 0))
	return logSum(logs[:])
}

func (j *Judge) weighted(i int) float64 { return math.Log(j.weight(i)) + j.worse(i) }

// LeansWorse reports whether any metric looks beyond its margin more likely than within, over all slices or over the last
// minute. That is far from a verdict but no reason to give the candidate more traffic: all slices together see late what
// began late.
func (j *Judge) LeansWorse() bool {
	for i := range rows {
		if j.judged(i) && (j.worse(i) > 0 || j.lately(i) > 3) {
			return true
		}
	}
	return j.fastWorse() > fastLeans
}

// lately is Student's t of row i's last slices beyond the margin; 0 while there are fewer.
func (j *Judge) lately(i int) float64 {
	if j.fail[i].Len() < recentSlices {
		return 0
	}
	var sum, squares float64
	for _, x := range j.recent[i] {
		sum += x
		squares += x * x
	}
	const n = recentSlices
	variance := max(squares-sum*sum/n, 1e-12*squares) / (n - 1)
	if variance == 0 {
		return 0
	}
	return sum / math.Sqrt(n*variance)
}

// Enough reports whether there are enough calls of both cohorts for a verdict of the main tier.
func (j *Judge) Enough() bool { return min(j.total[0].calls, j.total[1].calls) >= minCalls }

// Verdict is the overall verdict so far.
func (j *Judge) Verdict() Verdict {
	switch {
	case j.uneven():
		return Invalid
	case j.fastWorse() >= math.Log(1/alphaFast):
		return Worse
	case !j.Enough():
		return Inconclusive
	case j.mainWorse() >= math.Log(1/alphaMain):
		return Worse
	case j.config.Noisy, !j.config.Blocks && j.environment.worse(): // arms that take turns are judged under the load that both have
		return Environment
	case min(j.total[0].timed, j.total[1].timed) < minCalls: // nearly all were shed
		return Inconclusive
	}
	for i := range rows {
		if !j.passed(i) {
			return Inconclusive
		}
	}
	if j.improved(j.target) >= math.Log(1/AlphaImproved) {
		return Improved
	}
	return NoWorse
}

// passed reports whether row i is no worse. One that is not judged has nothing against it.
func (j *Judge) passed(i int) bool {
	return !j.judged(i) || j.noWorse(i) >= math.Log(1/AlphaNoWorse)
}

// rowVerdict is the verdict on row i alone.
func (j *Judge) rowVerdict(i int, overall Verdict) Verdict {
	switch {
	case !j.Enough() || overall == Invalid:
		return Inconclusive
	case j.weighted(i) >= math.Log(1/alphaMain), overall == Worse && !j.fastSpoke() && i == j.strongest():
		return Worse
	case j.improved(i) >= math.Log(1/AlphaImproved):
		return Improved
	case j.noWorse(i) >= math.Log(1/AlphaNoWorse):
		return NoWorse
	}
	return Inconclusive
}

func (j *Judge) fastSpoke() bool { return j.fastWorse() >= math.Log(1/alphaFast) }

// strongest is the row with the most evidence of a regression.
func (j *Judge) strongest() int {
	best := 0
	for i := range rows {
		if j.judged(i) && j.weighted(i) > j.weighted(best) {
			best = i
		}
	}
	return best
}

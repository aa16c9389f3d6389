package rollout

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
)

// The levels: how often each verdict may be wrong although the judge looks after every slice.
const (
	AlphaWorse    = 0.01  // all metrics together
	AlphaNoWorse  = 0.05  // each metric; all of them must pass, so that no correction is due
	AlphaImproved = 0.05  // the target
	alphaInvalid  = 0.001 // an even split called uneven
)

const (
	minCalls      = 100 // of an arm, before anything is said about it
	minSliceCalls = 20  // of an arm in one slice; a slice with fewer is joined with the next
)

// kind is how a metric is taken from a slice.
type kind uint8

const (
	latency  kind = iota // share of calls slower than the baseline's reference quantile
	share                // share of calls that ended so
	attempts             // attempts per call
)

// metric is one row of the judge's table.
type metric struct {
	name   string
	kind   kind
	weight float64 // of its evidence in the overall verdict WORSE; they add up to 1
	q      float64 // latency: the quantile
	// The margins. latency: buckets of 2^(1/64); share: absolute; attempts: factor on the baseline's.
	fail, pass float64
	// Variance of a slice's normalised difference that NO WORSE and IMPROVED assume at least: that of the event at
	// its reference rate in one arm. It is what makes "no errors at all" depend on how many calls had none.
	floor float64
	count func(stats.Tally) uint64 // share and attempts
}

const metricCount = 6

// table is the metrics judged. 3, 5, 9 and 21 buckets are the factors 1.033, 1.056, 1.102 and 1.255.
var table = [metricCount]metric{
	{name: "p50", kind: latency, weight: 0.20, q: 0.50, fail: 3, pass: 5, floor: 0.125},
	{name: "p95", kind: latency, weight: 0.20, q: 0.95, fail: 5, pass: 9, floor: 0.024},
	{name: "p99", kind: latency, weight: 0.30, q: 0.99, fail: 9, pass: 21, floor: 0.005},
	{name: "errors", kind: share, weight: 0.15, fail: 0.001, pass: 0.005, floor: 0.0025, count: unanswered},
	{name: "timeouts", kind: share, weight: 0.05, fail: 0.001, pass: 0.005, floor: 0.0025, count: timedOut},
	{name: "attempts", kind: attempts, weight: 0.10, fail: 1.25, pass: 1.25, floor: 0.01, count: attempted},
}

// unanswered counts what the caller sees as an error: a failure, or a refusal by a policy.
func unanswered(t stats.Tally) uint64 { return t.Failed + t.Shed }
func timedOut(t stats.Tally) uint64   { return t.TimedOut }
func attempted(t stats.Tally) uint64  { return t.Attempts }

// attemptsSlack is how many attempts per call a candidate may always add: a baseline that answers nearly all from its
// cache makes so few attempts that a factor alone would forbid one more.
const attemptsSlack = 0.01

func metricIndex(name string) (int, bool) {
	for i := range table {
		if table[i].name == name {
			return i, true
		}
	}
	return 0, false
}

// counts is what the judge keeps of one cohort's slice: how many calls, and of them how many events for each
// metric at each of its margins.
type counts struct {
	calls  uint64 // ended
	timed  uint64 // with a latency
	events [metricCount]struct{ plain, fail, pass uint64 }
}

// Judge compares a candidate with the baseline cohort that ran beside it.
//
// For each metric it takes one difference a slice, candidate less baseline less a margin, and asks of the sequence
// of differences whether its mean can still be 0. A latency metric is reduced to the share of calls above a
// threshold that was fixed beforehand, so that only whole bucket counts are compared: if all of the candidate's
// latencies grew by less than the margin, its share above threshold times margin cannot exceed the baseline's above the
// threshold. Differences are weighted by the root of the slice's calls, so that steps of a ramp can be pooled.
//
// Make one with NewJudge, fix the thresholds with Freeze, then Add slices. It is a value of fixed size: a copy is
// independent. Not for concurrent use; tells no time and allocates nothing but its Judgement.
//
// Source: exceedance differences after Kayenta's practice of an equal baseline cohort; the test is stats.Series.
type Judge struct {
	target    int     // of table
	maxFactor float64 // attempts per call, candidate over baseline
	reference [metricCount]time.Duration
	frozen    bool
	slices    int
	weights   float64 // of all slices, summed up
	// plain has no margin and serves IMPROVED and the chart; fail and pass are less their margin.
	plain, fail, pass   [metricCount]stats.Series
	baseline, candidate counts // since the first slice
}

// NewJudge judges a candidate whose benefit is expected on the metric target ("p50", "p95", "p99", "errors",
// "timeouts" or "attempts"; anything else means p99), and which may make up to maxFactor times the baseline's attempts
// per call (0 = 1.25).
func NewJudge(target string, maxFactor float64) Judge {
	at, ok := metricIndex(target)
	if !ok {
		at, _ = metricIndex("p99")
	}
	if maxFactor <= 0 {
		maxFactor = 1.25
	}
	return Judge{target: at, maxFactor: maxFactor}
}

// Freeze fixes the thresholds from what the baseline did before the next slice. Call it before the first Add. It may
// be called again, since slices are judged by thresholds that knew nothing of them, but seldom: each threshold is a
// difference of its own, and the test wants them alike. It reports false, and changes nothing, while there are too few calls.
func (j *Judge) Freeze(baseline stats.Snapshot) bool {
	if baseline.Count() < minCalls {
		return false
	}
	for i := range table {
		if table[i].kind == latency {
			j.reference[i] = stats.Shift(baseline.Quantile(table[i].q), 0)
		}
	}
	j.frozen = true
	return true
}

// Add judges what the two cohorts did in one slice. It reports false, and takes
// nothing, when either did too little, or before Freeze: hand in a longer slice later.
func (j *Judge) Add(baseline, candidate stats.Tally) bool {
	if !j.frozen {
		return false
	}
	return j.add(j.measure(baseline), j.measure(candidate))
}

// measure reduces a slice to the events that are judged.
func (j *Judge) measure(t stats.Tally) counts {
	c := counts{calls: t.Calls, timed: t.Latency.Count()}
	for i := range table {
		m, e := &table[i], &c.events[i]
		if m.kind == latency {
			e.plain = t.Latency.Above(j.reference[i])
			e.fail = t.Latency.Above(stats.Shift(j.reference[i], int(m.fail)))
			e.pass = t.Latency.Above(stats.Shift(j.reference[i], int(m.pass)))
			continue
		}
		n := m.count(t)
		e.plain, e.fail, e.pass = n, n, n
	}
	return c
}

func (j *Judge) add(b, c counts) bool {
	if min(b.calls, b.timed, c.calls, c.timed) < minSliceCalls {
		return false
	}
	nb, nc := float64(b.calls), float64(c.calls)
	w := math.Sqrt(nb * nc / (nb + nc))
	for i := range table {
		plain, fail, pass := j.differences(i, b, c)
		j.plain[i].Add(w * plain)
		j.fail[i].Add(w * fail)
		j.pass[i].Add(w * pass)
		accumulate(&j.baseline, b, i)
		accumulate(&j.candidate, c, i)
	}
	j.baseline.calls += b.calls
	j.candidate.calls += c.calls
	j.baseline.timed += b.timed
	j.candidate.timed += c.timed
	j.slices++
	j.weights += w
	return true
}

func accumulate(sum *counts, c counts, i int) {
	sum.events[i].plain += c.events[i].plain
	sum.events[i].fail += c.events[i].fail
	sum.events[i].pass += c.events[i].pass
}

// differences are candidate less baseline in events per call: without a margin, less the fail margin, less the pass
// margin. Above 0 is worse.
func (j *Judge) differences(i int, b, c counts) (plain, fail, pass float64) {
	m := &table[i]
	nb, nc := float64(b.calls), float64(c.calls)
	if m.kind == latency {
		nb, nc = float64(b.timed), float64(c.timed)
	}
	eb, ec := b.events[i], c.events[i]
	base := float64(eb.plain) / nb
	plain = float64(ec.plain)/nc - base
	switch m.kind {
	case latency:
		return plain, float64(ec.fail)/nc - base, float64(ec.pass)/nc - base
	case share:
		return plain, plain - m.fail, plain - m.pass
	default:
		over := float64(ec.plain)/nc - j.maxFactor*base - attemptsSlack
		return plain, over, over
	}
}

// evidence of metric i, as natural logarithms.
func (j *Judge) worse(i int) float64    { return j.fail[i].LogE(0) }
func (j *Judge) noWorse(i int) float64  { return j.pass[i].LogEBelow(table[i].floor) }
func (j *Judge) improved(i int) float64 { return j.plain[i].LogEBelow(table[i].floor) }

// overallWorse is the weighted mean of the metrics' evidence, which is evidence
// again however the metrics depend on each other.
func (j *Judge) overallWorse() float64 {
	var logs [metricCount]float64
	top := math.Inf(-1)
	for i := range table {
		logs[i] = math.Log(table[i].weight) + j.worse(i)
		top = max(top, logs[i])
	}
	var sum float64
	for _, l := range logs {
		sum += math.Exp(l - top)
	}
	return top + math.Log(sum)
}

// leansWorse reports whether any metric looks beyond its margin more likely than within, which is far from a verdict
// but no reason to give the candidate more traffic.
func (j *Judge) leansWorse() bool {
	for i := range table {
		if j.worse(i) > 0 {
			return true
		}
	}
	return false
}

func (j *Judge) enough() bool {
	return j.baseline.calls >= minCalls && j.candidate.calls >= minCalls
}

// Verdict is the overall verdict so far.
func (j *Judge) Verdict() Verdict {
	if !j.enough() {
		return Inconclusive
	}
	if stats.SampleRatioLogE(j.baseline.calls, j.candidate.calls) >= math.Log(1/alphaInvalid) {
		return Invalid
	}
	if j.overallWorse() >= math.Log(1/AlphaWorse) {
		return Worse
	}
	for i := range table {
		if j.noWorse(i) < math.Log(1/AlphaNoWorse) {
			return Inconclusive
		}
	}
	if j.improved(j.target) >= math.Log(1/AlphaImproved) {
		return Improved
	}
	return NoWorse
}

// metricVerdict is the verdict on metric i alone.
func (j *Judge) metricVerdict(i int, overall Verdict) Verdict {
	switch {
	case !j.enough() || overall == Invalid:
		return Inconclusive
	case math.Log(table[i].weight)+j.worse(i) >= math.Log(1/AlphaWorse), overall == Worse && i == j.strongest():
		return Worse
	case j.improved(i) >= math.Log(1/AlphaImproved):
		return Improved
	case j.noWorse(i) >= math.Log(1/AlphaNoWorse):
		return NoWorse
	}
	return Inconclusive
}

// strongest is the metric with the most evidence of a regression.
func (j *Judge) strongest() int {
	best := 0
	for i := range table {
		if math.Log(table[i].weight)+j.worse(i) > math.Log(table[best].weight)+j.worse(best) {
			best = i
		}
	}
	return best
}

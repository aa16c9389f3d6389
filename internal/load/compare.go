package load

import (
	"fmt"
	"math"
	"slices"
)

// Comparing two runs.
//
// The calls of one second resemble each other: they meet the same collection of garbage, the same full queue. Intervals that
// take them as independent are far too narrow (Liu, Sun, Varshney, Xu 2019, arXiv 1903.08762). So the unit here is the second:
//
//   - The share of calls above a point x is a ratio of sums over the seconds. Its variance is that of Newey and West (1987) over
//     the residuals of the seconds; what it exceeds the binomial variance by is the design effect, and the calls divided by it
//     are the effective number of independent ones.
//   - Its interval is Wilson's (1927) for that number. The interval of a quantile is that of the share at it, turned back into
//     latencies (Woodruff 1952), so that it needs no density and may be lopsided.
//   - The critical value grows with the bandwidth's part of the run: Kiefer and Vogelsang 2005, table 1, for the kernel of
//     Bartlett. Short runs get the wide intervals that they deserve.
//   - The interval of the difference is put together from both (MOVER: Zou and Donner 2008; of shares, Newcombe 1998).
//
// Several runs of a side differ by more than their seconds do: each start has its own memory layout, its own neighbours. From
// two runs on, an interval is never narrower than the one of Welch's t test over the runs.

// CompareOptions is how runs are compared. The zero value is ready to use.
type CompareOptions struct {
	Confidence float64            // of each interval: 0.9, 0.95 or 0.98; 0 = 0.95
	Margins    map[string]float64 // by metric: changes below it do not matter; see DefaultMargins
	Judged     []string           // metrics that must not stay inconclusive; nil = p50, p95, p99, errors, throughput
	Force      bool               // also compare runs that are invalid or had another workload
}

// DefaultMargins are relative changes, of errors percentage points as a share.
var DefaultMargins = map[string]float64{
	"p50": 0.05, "p90": 0.075, "p95": 0.10, "p99": 0.15, "p99.9": 0.25, "errors": 0.005, "throughput": 0.05,
}

// Metrics are those that are compared, in the order of the answer.
var Metrics = []string{"p50", "p90", "p95", "p99", "p99.9", "errors", "throughput"}

var metricQuantiles = map[string]float64{"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

// Verdict is what can be said of a metric.
type Verdict string

// The verdicts.
const (
	Regression   Verdict = "regression"    // it is worse, and by more than the margin as far as can be told
	Improvement  Verdict = "improvement"   // it is better, likewise
	NoDifference Verdict = "no difference" // what difference there may be is within the margin
	Inconclusive Verdict = "inconclusive"  // the runs are too short, or too noisy, to tell
)

// Delta is the comparison of one metric.
type Delta struct {
	Metric  string  `json:"metric"`
	Unit    string  `json:"unit"` // ms, share or per_second
	Base    Range   `json:"base"`
	Next    Range   `json:"next"`
	Change  Range   `json:"change"` // relative, as 0.1 for 10 % more; of errors the difference
	Margin  float64 `json:"margin"`
	Verdict Verdict `json:"verdict"`
	Judged  bool    `json:"judged"`           // the whole is not conclusive unless this is
	Reason  string  `json:"reason,omitempty"` // why it is inconclusive
}

// Range is an estimate with its interval. High is 0 and Open true when the interval has no upper end.
type Range struct {
	At   float64 `json:"at"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Open bool    `json:"open,omitempty"`
}

// Comparison is what came of comparing runs.
type Comparison struct {
	Verdict    Verdict  `json:"verdict"`
	Refused    []string `json:"refused,omitempty"` // why the runs were not compared
	Warnings   []string `json:"warnings,omitempty"`
	Confidence float64  `json:"confidence"`
	BaseRuns   int      `json:"base_runs"`
	NextRuns   int      `json:"next_runs"`
	BaseCalls  uint64   `json:"base_calls"`
	NextCalls  uint64   `json:"next_calls"`
	Deltas     []Delta  `json:"deltas"`
}

// Compare says how the runs next differ from the runs base; each side has at least one.
func Compare(base, next []Report, o CompareOptions) Comparison {
	if o.Confidence == 0 {
		o.Confidence = 0.95
	}
	if o.Judged == nil {
		o.Judged = []string{"p50", "p95", "p99", "errors", "throughput"}
	}
	c := Comparison{Confidence: o.Confidence, BaseRuns: len(base), NextRuns: len(next), Verdict: Inconclusive, Deltas: []Delta{}}
	faults := objections(base, next)
	if len(faults) > 0 && !o.Force {
		c.Refused = faults
		return c
	}
	c.Warnings = faults
	a, b := sideOf(base, o.Confidence), sideOf(next, o.Confidence)
	c.BaseCalls, c.NextCalls = a.calls, b.calls
	for _, metric := range Metrics {
		margin, ok := o.Margins[metric]
		if !ok {
			margin = DefaultMargins[metric]
		}
		d := compareMetric(metric, a, b, margin)
		d.Judged = slices.Contains(o.Judged, metric)
		c.Deltas = append(c.Deltas, d)
	}
	c.Verdict = overall(c.Deltas)
	return c
}

// overall is the worst that is said of any metric; what is not judged can only be a regression.
func overall(deltas []Delta) Verdict {
	out := NoDifference
	open := false
	for _, d := range deltas {
		switch {
		case d.Verdict == Regression:
			return Regression
		case d.Verdict == Inconclusive && d.Judged:
			open = true
		case d.Verdict == Improvement:
			out = Improvement
		}
	}
	if open {
		return Inconclusive
	}
	return out
}

// objections are the reasons why runs cannot be compared.
func objections(base, next []Report) (why []string) {
	for _, side := range []struct {
		name string
		runs []Report
	}{{"base", base}, {"next", next}} {
		if len(side.runs) == 0 {
			return append(why, "no run of "+side.name)
		}
		for i, r := range side.runs {
			name := fmt.Sprintf("run %d of %s", i+1, side.name)
			if r.Interrupted {
				why = append(why, name+" was interrupted")
			}
			for _, d := range r.Doubts {
				why = append(why, name+" is invalid: "+d)
			}
			if !r.Valid && len(r.Doubts) == 0 {
				why = append(why, name+" is invalid")
			}
			if len(r.Slices) == 0 || r.Total.Calls == 0 {
				why = append(why, name+" holds no call")
			}
			for _, different := range base[0].Workload.differences(r.Workload) {
				why = append(why, fmt.Sprintf("%s had another workload than the first one: %s", name, different))
			}
		}
	}
	return why
}

// differences names what makes two workloads another traffic. Targets may differ by their host alone, and the seed and the
// length may differ.
func (w Workload) differences(o Workload) (all []string) {
	check := func(what string, a, b any) {
		if fmt.Sprint(a) != fmt.Sprint(b) {
			all = append(all, fmt.Sprintf("%s %v and %v", what, a, b))
		}
	}
	check("arrivals", w.Arrivals, o.Arrivals)
	check("rate", w.Rate, o.Rate)
	check("stages", w.Stages, o.Stages)
	check("burst", w.Burst, o.Burst)
	check("protocol", w.Protocol, o.Protocol)
	check("connections", w.Connections, o.Connections)
	check("keep-alive", w.KeepAlive, o.KeepAlive)
	check("timeout", w.Timeout, o.Timeout)
	check("number of targets", len(w.Targets), len(o.Targets))
	return all
}

// compareMetric compares one metric; higher values are worse, except of throughput.
func compareMetric(metric string, a, b side, margin float64) (out Delta) {
	d := Delta{Metric: metric, Margin: margin, Verdict: Inconclusive}
	if few := min(a.short, b.short); few < minSlices {
		defer func() {
			out.Verdict, out.Reason = Inconclusive, fmt.Sprintf("too short: %d seconds; want at least %d", few, minSlices)
		}()
	}
	switch metric {
	case "errors":
		d.Unit = "share"
		return d.shares(a, b)
	case "throughput":
		d.Unit = "per_second"
		d.ratio(a.throughput(), b.throughput(), a, func(v float64) float64 { return v })
		d.settle(-1)
		return d
	}
	d.Unit = "ms"
	q := metricQuantiles[metric]
	d.ratio(a.quantile(q), b.quantile(q), a, func(seconds float64) float64 { return 1e3 * seconds })
	if few := min(a.beyond(q), b.beyond(q)); few < minBeyond {
		d.Reason = fmt.Sprintf("too few calls: %.0f beyond it", few)
		return d
	}
	d.settle(+1)
	return d
}

// minSlices is how many seconds a run must have before anything is said of how much its seconds differ.
const minSlices = 10

// minBeyond is how many calls must lie beyond a quantile before anything is said of it.
const minBeyond = 10

// interval is the logarithm of a positive figure with its interval; high is +Inf when nothing bounds it.
type interval struct {
	at, low, high float64
	between       []float64 // the same of each run
}

// ratio fills in estimates and intervals of b / a.
func (d *Delta) ratio(a, b interval, s side, shown func(float64) float64) {
	low := math.Hypot(b.at-b.low, a.high-a.at)
	high := math.Hypot(b.high-b.at, a.at-a.low)
	if wide := s.welch(a.between, b.between); wide > 0 {
		low, high = max(low, wide), max(high, wide)
	}
	at := b.at - a.at
	d.Base, d.Next = a.shown(shown), b.shown(shown)
	d.Change = Range{At: math.Expm1(at), Low: math.Expm1(at - low), High: math.Expm1(at + high)}
	if math.IsInf(d.Change.High, 0) || math.IsNaN(d.Change.High) {
		d.Change.High, d.Change.Open = 0, true
	}
}

func (i interval) shown(f func(float64) float64) Range {
	r := Range{At: f(math.Exp(i.at)), Low: f(math.Exp(i.low)), High: f(math.Exp(i.high))}
	if math.IsInf(r.High, 0) || math.IsNaN(r.High) {
		r.High, r.Open = 0, true
	}
	return r
}

// settle reads the verdict off the interval of a relative change; worse is the sign of a change for the worse.
//
// An interval that leaves out 0 is a difference; it matters when the estimate is beyond the margin, and does not when the whole
// interval is within.
func (d *Delta) settle(worse float64) {
	low, high := d.Change.Low, d.Change.High
	if d.Change.Open {
		high = math.Inf(1)
	}
	up, down := math.Log1p(d.Margin), -math.Log1p(d.Margin)
	if d.Metric == "errors" {
		up, down = d.Margin, -d.Margin
	} else {
		low, high = math.Log1p(low), math.Log1p(high)
	}
	at := d.Change.At
	if d.Metric != "errors" {
		at = math.Log1p(at)
	}
	switch {
	case math.IsNaN(low) || math.IsNaN(high) || math.IsNaN(at):
		d.Reason = "nothing was measured"
	case low > 0 && at >= up && worse > 0, high < 0 && at <= down && worse < 0:
		d.Verdict = Regression
	case low > 0 && at >= up, high < 0 && at <= down:
		d.Verdict = Improvement
	case low >= down && high <= up:
		d.Verdict = NoDifference
	case low > 0 || high < 0:
		d.Reason = "there is a difference, and it may or may not be beyond the margin"
	default:
		d.Reason = "the interval reaches beyond the margin: measure longer"
	}
}

// shares compares the shares of calls that failed.
func (d Delta) shares(a, b side) Delta {
	x, y := a.share(func(s Slice) float64 { return float64(s.Failed) }), b.share(func(s Slice) float64 { return float64(s.Failed) })
	d.Base, d.Next = Range{At: x.at, Low: x.low, High: x.high}, Range{At: y.at, Low: y.low, High: y.high}
	at := y.at - x.at
	low, high := math.Hypot(y.at-y.low, x.high-x.at), math.Hypot(y.high-y.at, x.at-x.low)
	if wide := a.welch(x.between, y.between); wide > 0 {
		low, high = max(low, wide), max(high, wide)
	}
	d.Change = Range{At: at, Low: at - low, High: at + high}
	d.settle(+1)
	return d
}

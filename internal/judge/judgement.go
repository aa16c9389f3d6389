package judge

import (
	"fmt"
	"math"
	"strings"

	"github.com/longpole/longpole/internal/stats"
)

// Evidence is how much speaks for a claim, on a logarithmic scale on which 1
// means ten times. The claim is accepted at Threshold. Never infinite.
type Evidence struct {
	Log10E    float64 `json:"log10_e"`
	Threshold float64 `json:"threshold"`
}

func evidence(logE, alpha float64) Evidence {
	return Evidence{Log10E: max(logE, -1e3) / math.Ln10, Threshold: -math.Log10(alpha)}
}

// MetricResult is what is known about one metric.
type MetricResult struct {
	Metric     string  `json:"metric"`               // one of Metrics, or shed; of a downstream its name and calls, p95 or errors
	Downstream string  `json:"downstream,omitempty"` // its name
	Unit       string  `json:"unit"`                 // ms, ratio (of calls), per_call
	Verdict    Verdict `json:"verdict"`
	// What the cohorts did since the warm-up, in Unit.
	Baseline  float64 `json:"baseline"`
	Candidate float64 `json:"candidate"`
	// Difference, candidate less baseline, in events per call, with the interval that covers it at all times with
	// probability 95 %. The event is a call slower than ReferenceMS, an error, a timeout, an attempt. Of cost it is the
	// logarithm of the ratio: 0.1 is 10 % more.
	Difference  float64  `json:"difference"`
	Low         float64  `json:"low"`
	High        float64  `json:"high"`
	ReferenceMS float64  `json:"reference_ms,omitempty"`
	Worse       Evidence `json:"worse"`
	NoWorse     Evidence `json:"no_worse"`
	Improved    Evidence `json:"improved"`
	// CallsNeeded is how many more calls of each cohort would settle worse or no worse, should they go on as so
	// far. 0 = settled, or no number of calls would.
	CallsNeeded uint64 `json:"calls_needed,omitempty"`
}

// FastResult is what the fast tier knows about one kind of event.
type FastResult struct {
	Event string `json:"event"` // errors, timeouts, calls over four times p99; with a price on shed calls, most calls shed
	// Seconds in which one arm alone had such an event; of most calls shed, those in which the candidate had it not and had it.
	Baseline  uint64   `json:"baseline"`
	Candidate uint64   `json:"candidate"`
	Worse     Evidence `json:"worse"`
}

// Judgement is all that the judge can say at one moment.
type Judgement struct {
	Verdict        Verdict        `json:"verdict"`
	Sentence       string         `json:"sentence"` // the verdict in plain words, with its numbers
	Slices         int            `json:"slices"`
	BaselineCalls  uint64         `json:"baseline_calls"`
	CandidateCalls uint64         `json:"candidate_calls"`
	Worse          Evidence       `json:"worse"` // the main tier, all metrics together
	SplitP         float64        `json:"split_p"`
	Metrics        []MetricResult `json:"metrics"` // those of the fixed table first; p99.9, cost and downstreams when they were judged
	Seconds        int            `json:"seconds"` // that the fast tier watched
	FastWorse      Evidence       `json:"fast_worse"`
	Fast           []FastResult   `json:"fast"`
	Unjudged       int            `json:"downstreams_unjudged,omitempty"` // times that a downstream found no place in the table
	// CallsNeeded is the most that any metric needs.
	CallsNeeded uint64 `json:"calls_needed,omitempty"`
}

// Judgement reports the evidence. baseline and candidate are what the cohorts
// did since the warm-up, for the percentiles shown.
func (j *Judge) Judgement(baseline, candidate stats.Tally) Judgement {
	verdict := j.Verdict()
	b, c := &j.total[0], &j.total[1]
	g := Judgement{
		Verdict: verdict, Slices: j.slices, BaselineCalls: uint64(b.calls), CandidateCalls: uint64(c.calls),
		Worse:   evidence(j.mainWorse(), alphaMain),
		SplitP:  stats.SampleRatioP(uint64(b.calls), uint64(c.calls)),
		Seconds: j.watched, FastWorse: evidence(j.fastWorse(), alphaFast), Unjudged: j.unjudged,
	}
	for i, l := range j.labels {
		if w := j.fastWeight(i); w > 0 {
			g.Fast = append(g.Fast, FastResult{fastNames[i], l.baseline, l.candidate, evidence(l.logE(), alphaFast*w)})
		}
	}
	for i := range rows {
		if !j.judged(i) && (i >= fixedRows || i == p999 || i == costs || i == sheds) {
			continue
		}
		r := j.result(i, verdict)
		if m := j.metric(i); m.kind == latency {
			r.Baseline = milliseconds(j.latency(i, &baseline).Quantile(m.q))
			r.Candidate = milliseconds(j.latency(i, &candidate).Quantile(m.q))
		}
		g.Metrics = append(g.Metrics, r)
		g.CallsNeeded = max(g.CallsNeeded, r.CallsNeeded)
	}
	g.Sentence = j.sentence(&g)
	return g
}

// latency is what row i is taken from.
func (j *Judge) latency(i int, t *stats.Tally) stats.Snapshot {
	name := j.downstreamOf(i)
	if name == "" {
		return t.Latency
	}
	for _, d := range t.Downstreams {
		if d.Name == name {
			return d.Latency
		}
	}
	return stats.Snapshot{}
}

func (j *Judge) result(i int, overall Verdict) MetricResult {
	m := j.metric(i)
	r := MetricResult{
		Metric: j.name(i), Downstream: j.downstreamOf(i), Unit: "per_call", Verdict: j.rowVerdict(i, overall),
		Worse:    evidence(j.worse(i), alphaMain*j.weight(i)),
		NoWorse:  evidence(j.noWorse(i), AlphaNoWorse),
		Improved: evidence(j.improved(i), AlphaImproved),
	}
	b, c := &j.total[0].rows[i], &j.total[1].rows[i]
	if n := j.plain[i].Len(); n >= 2 {
		scale := float64(n) / j.weights[i]
		low, high := j.plain[i].Interval(0.05)
		r.Difference, r.Low, r.High = j.plain[i].Mean()*scale, low*scale, high*scale
		r.CallsNeeded = j.needed(i, min(b.of, c.of)/float64(n))
	}
	switch m.kind {
	case latency:
		r.Unit, r.ReferenceMS = "ms", milliseconds(j.reference[i])
		return r
	case share:
		r.Unit = "ratio"
	case perCall, cost:
	}
	r.Baseline, r.Candidate = b.plain/max(b.of, 1), c.plain/max(c.of, 1)
	return r
}

// needed is how many more calls would settle row i, at so many calls a slice.
func (j *Judge) needed(i int, callsPerSlice float64) uint64 {
	if j.passed(i) || j.weighted(i) >= math.Log(1/alphaMain) {
		return 0
	}
	most := max(j.fail[i].Needed(math.Log(1/alphaMain)-math.Log(j.weight(i)), 0), j.neededNoWorse(i))
	return uint64(float64(max(most-j.fail[i].Len(), 0)) * callsPerSlice)
}

// sentence is the verdict in plain words.
func (j *Judge) sentence(g *Judgement) string {
	seen := fmt.Sprintf("%d candidate and %d baseline calls in %s", g.CandidateCalls, g.BaselineCalls, plural(g.Slices, "slice"))
	target := comparison(j.find(g, j.target))
	switch g.Verdict {
	case Invalid:
		return fmt.Sprintf("Invalid: the two cohorts should have got the same number of calls, but %s are no even split (p = %.2g). "+
			"Nothing can be said about the candidate; look for calls that never end.", seen, g.SplitP)
	case Worse:
		if j.fastSpoke() {
			f := g.Fast[j.fastStrongest()]
			if f.Event == fastNames[fastShed] {
				return fmt.Sprintf("Worse: in %s of %d the candidate refused more than half of the calls that it was to serve at the stated price of %.3g %%.",
					plural(int(f.Candidate), "second"), f.Baseline+f.Candidate, 100*j.config.Shed)
			}
			return fmt.Sprintf("Worse: %s were seen in %s by the candidate alone and in %d by the baseline alone, of %d.",
				f.Event, plural(int(f.Candidate), "second"), f.Baseline, g.Seconds)
		}
		return fmt.Sprintf("Worse: %s after %s.", comparison(j.find(g, j.strongest())), seen)
	case Environment:
		if j.config.Noisy {
			return fmt.Sprintf("Environment: equal halves of this route's calls differ more often than the judge promises, however long its slices, so that nothing can be called no worse or better; "+
				"%s after %s.", target, seen)
		}
		return fmt.Sprintf("Environment: both cohorts got more than 25 %% worse than before the rollout, so that it is not the candidate; %s after %s.", target, seen)
	case Improved:
		return fmt.Sprintf("Improved: %s, and no metric is worse, after %s.", target, seen)
	case NoWorse:
		return fmt.Sprintf("No worse: all metrics are within their margins after %s; %s.", seen, target)
	case Inconclusive:
	}
	if !j.Enough() {
		return fmt.Sprintf("Inconclusive: %s are too few; %d calls of each are the least.", seen, minCalls)
	}
	return fmt.Sprintf("Inconclusive: %s do not yet show that the candidate is no worse on %s, nor that it is worse; %s%s.",
		seen, strings.Join(open(g), ", "), target, outlook(g))
}

// find is the result of row i; one that was not judged has only its name.
func (j *Judge) find(g *Judgement, i int) MetricResult {
	for _, m := range g.Metrics {
		if m.Metric == j.name(i) {
			return m
		}
	}
	return MetricResult{Metric: j.name(i)}
}

// open is the metrics that are not shown to be no worse.
func open(g *Judgement) (names []string) {
	for _, m := range g.Metrics {
		if m.NoWorse.Log10E < m.NoWorse.Threshold {
			names = append(names, m.Metric)
		}
	}
	return names
}

func outlook(g *Judgement) string {
	if g.CallsNeeded == 0 {
		return ""
	}
	return fmt.Sprintf("; about %.2g more calls of each would settle it", float64(g.CallsNeeded))
}

// comparison is one metric's two values as people write them.
func comparison(m MetricResult) string {
	switch m.Unit {
	case "ms":
		return fmt.Sprintf("%s is %s against %s", m.Metric, shortMS(m.Candidate), shortMS(m.Baseline))
	case "ratio":
		return fmt.Sprintf("%s are %.2f %% of calls against %.2f %%", m.Metric, 100*m.Candidate, 100*m.Baseline)
	case "per_call":
		if m.Metric == table[costs].name {
			return fmt.Sprintf("%s per call is %.3g against %.3g", m.Metric, m.Candidate, m.Baseline)
		}
		return fmt.Sprintf("%s per call are %.3g against %.3g", m.Metric, m.Candidate, m.Baseline)
	}
	return m.Metric + " was not judged"
}

func shortMS(ms float64) string {
	switch {
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.2f ms", ms)
}

// plural is "1 slice" or "3 slices".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

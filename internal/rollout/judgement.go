package rollout

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Quantiles are three percentiles of a latency. In JSON they are numbers of
// milliseconds, in YAML durations. Zero means unknown.
type Quantiles struct {
	P50 time.Duration `yaml:"p50"`
	P95 time.Duration `yaml:"p95"`
	P99 time.Duration `yaml:"p99"`
}

// QuantilesOf reads them from s; all zero when it is empty.
func QuantilesOf(s stats.Snapshot) Quantiles {
	return Quantiles{P50: s.Quantile(0.50), P95: s.Quantile(0.95), P99: s.Quantile(0.99)}
}

type quantilesJSON struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// MarshalJSON gives {"p50": 1.5, ...} in milliseconds.
func (q Quantiles) MarshalJSON() ([]byte, error) {
	return json.Marshal(quantilesJSON{milliseconds(q.P50), milliseconds(q.P95), milliseconds(q.P99)})
}

// UnmarshalJSON takes what MarshalJSON gives.
func (q *Quantiles) UnmarshalJSON(data []byte) error {
	var ms quantilesJSON
	if err := json.Unmarshal(data, &ms); err != nil {
		return fmt.Errorf("rollout: percentiles in milliseconds: %w", err)
	}
	duration := func(ms float64) time.Duration { return time.Duration(math.Round(ms * 1e6)) }
	*q = Quantiles{duration(ms.P50), duration(ms.P95), duration(ms.P99)}
	return nil
}

func (q Quantiles) at(name string) time.Duration {
	return map[string]time.Duration{"p50": q.P50, "p95": q.P95, "p99": q.P99}[name]
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// Evidence is how much speaks for a claim, on a logarithmic scale on which 1
// means ten times. The claim is accepted at Threshold. Never infinite.
type Evidence struct {
	Log10E    float64 `json:"log10_e"`
	Threshold float64 `json:"threshold"`
}

func evidence(logE, alpha float64) Evidence {
	return Evidence{Log10E: logE / math.Ln10, Threshold: -math.Log10(alpha)}
}

// MetricResult is what is known about one metric.
type MetricResult struct {
	Metric  string  `json:"metric"` // p50, p95, p99, errors, timeouts, attempts
	Unit    string  `json:"unit"`   // ms, ratio (of calls), per_call
	Verdict Verdict `json:"verdict"`
	// What the cohorts did since the warm-up, in Unit.
	Baseline  float64 `json:"baseline"`
	Candidate float64 `json:"candidate"`
	// Difference, candidate less baseline, in events per call, with the interval that covers it at all times with
	// probability 95 %. The event is a call slower than ReferenceMS, an error, a timeout, an attempt.
	Difference  float64  `json:"difference"`
	Low         float64  `json:"low"`
	High        float64  `json:"high"`
	ReferenceMS float64  `json:"reference_ms,omitempty"`
	Worse       Evidence `json:"worse"`
	NoWorse     Evidence `json:"no_worse"`
	Improved    Evidence `json:"improved"`
}

// Judgement is all that the judge can say at one moment.
type Judgement struct {
	Verdict        Verdict        `json:"verdict"`
	Sentence       string         `json:"sentence"` // the verdict in plain words, with its numbers
	Slices         int            `json:"slices"`
	BaselineCalls  uint64         `json:"baseline_calls"`
	CandidateCalls uint64         `json:"candidate_calls"`
	Worse          Evidence       `json:"worse"` // of all metrics together
	SplitP         float64        `json:"split_p"`
	Metrics        []MetricResult `json:"metrics"`
}

// Judgement reports the evidence. baseline and candidate are what the cohorts
// did since the warm-up, for the percentiles shown.
func (j *Judge) Judgement(baseline, candidate stats.Snapshot) Judgement {
	verdict := j.Verdict()
	g := Judgement{
		Verdict: verdict, Slices: j.slices, BaselineCalls: j.baseline.calls, CandidateCalls: j.candidate.calls,
		Worse:  evidence(j.overallWorse(), AlphaWorse),
		SplitP: stats.SampleRatioP(j.baseline.calls, j.candidate.calls),
	}
	for i := range table {
		g.Metrics = append(g.Metrics, j.result(i, verdict, QuantilesOf(baseline), QuantilesOf(candidate)))
	}
	g.Sentence = j.sentence(g)
	return g
}

func (j *Judge) result(i int, overall Verdict, baseline, candidate Quantiles) MetricResult {
	m := &table[i]
	r := MetricResult{
		Metric: m.name, Verdict: j.metricVerdict(i, overall),
		Worse:    evidence(j.worse(i), AlphaWorse*m.weight),
		NoWorse:  evidence(j.noWorse(i), AlphaNoWorse),
		Improved: evidence(j.improved(i), AlphaImproved),
	}
	if j.plain[i].Len() >= 2 {
		scale := float64(j.slices) / j.weights
		low, high := j.plain[i].Interval(0.05)
		r.Difference, r.Low, r.High = j.plain[i].Mean()*scale, low*scale, high*scale
	}
	switch m.kind {
	case latency:
		r.Unit, r.ReferenceMS = "ms", milliseconds(j.reference[i])
		r.Baseline, r.Candidate = milliseconds(baseline.at(m.name)), milliseconds(candidate.at(m.name))
		return r
	case share:
		r.Unit = "ratio"
	case attempts:
		r.Unit = "per_call"
	}
	r.Baseline = perCall(j.baseline.events[i].plain, j.baseline.calls)
	r.Candidate = perCall(j.candidate.events[i].plain, j.candidate.calls)
	return r
}

func perCall(events, calls uint64) float64 {
	if calls == 0 {
		return 0
	}
	return float64(events) / float64(calls)
}

// sentence is the verdict in plain words.
func (j *Judge) sentence(g Judgement) string {
	seen := fmt.Sprintf("%d candidate and %d baseline calls in %s", g.CandidateCalls, g.BaselineCalls, counted(g.Slices, "slice"))
	target := g.Metrics[j.target]
	switch g.Verdict {
	case Invalid:
		return fmt.Sprintf("Invalid: the two cohorts should have got the same number of calls, but %s are no even split (p = %.2g). "+
			"Nothing can be said about the candidate; look for calls that never end.", seen, g.SplitP)
	case Worse:
		return fmt.Sprintf("Worse: %s after %s.", comparison(g.Metrics[j.strongest()]), seen)
	case Improved:
		return fmt.Sprintf("Improved: %s, and no metric is worse, after %s.", comparison(target), seen)
	case NoWorse:
		return fmt.Sprintf("No worse: all metrics are within their margins after %s; %s.", seen, comparison(target))
	}
	if !j.enough() {
		return fmt.Sprintf("Inconclusive: %s are too few; %d calls of each are the least.", seen, minCalls)
	}
	var open []string
	for _, m := range g.Metrics {
		if m.NoWorse.Log10E < m.NoWorse.Threshold {
			open = append(open, m.Metric)
		}
	}
	return fmt.Sprintf("Inconclusive: %s do not yet show that the candidate is no worse on %s, nor that it is worse; %s.",
		seen, strings.Join(open, ", "), comparison(target))
}

// comparison is one metric's two values as people write them.
func comparison(m MetricResult) string {
	switch m.Unit {
	case "ms":
		return fmt.Sprintf("%s is %s against %s", m.Metric, shortMS(m.Candidate), shortMS(m.Baseline))
	case "ratio":
		return fmt.Sprintf("%s are %.2f %% of calls against %.2f %%", m.Metric, 100*m.Candidate, 100*m.Baseline)
	}
	return fmt.Sprintf("%s per call are %.2f against %.2f", m.Metric, m.Candidate, m.Baseline)
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

// counted is "1 slice" or "3 slices".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

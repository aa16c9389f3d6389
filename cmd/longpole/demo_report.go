package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/rollout"
)

// effectOn is what a cure was predicted to do to the calls of a client's target: the outermost effect whose operation or
// gateway route bears its name.
func effectOn(cure advise.Action, target string) (advise.Effect, bool) {
	for _, e := range slices.Backward(cure.Effects) {
		if e.Route == target || strings.HasSuffix(e.Operation, "/"+target) {
			return e, true
		}
	}
	return advise.Effect{}, false
}

func figuresOf(r load.Result) lab.Figures {
	return lab.Figures{
		P50: r.Response.Quantile(0.5), P95: r.Response.Quantile(0.95), P99: r.Response.Quantile(0.99),
		ErrorRatio: r.ErrorRatio(), Calls: r.Calls,
	}
}

func routeResult(before, after load.Result, cures []advise.Action) lab.RouteResult {
	out := lab.RouteResult{
		Route: before.Target, Before: figuresOf(before), After: figuresOf(after),
		BeforeCurve: lab.CurveOf(before.Response), AfterCurve: lab.CurveOf(after.Response),
	}
	for _, cure := range cures {
		if e, ok := effectOn(cure, before.Target); ok {
			q := quantilesOf(e.Predicted)
			out.Predicted = &lab.Figures{P50: q.P50, P95: q.P95, P99: q.P99, AttemptsPerCall: 1 + cure.ExtraLoad}
		}
	}
	return out
}

// resultRows are the lines of the closing table for one route.
func resultRows(r lab.RouteResult) [][]string {
	var rows [][]string
	line := func(name string, before, after, predicted time.Duration) {
		row := []string{"", name, ms(millis(before)), "-", ms(millis(after)), fmt.Sprintf("%+.0f %%", 100*(ratio(after, before)-1)), "-"}
		if predicted > 0 {
			row[3] = ms(millis(predicted))
			row[6] = fmt.Sprintf("%.0f %%", 100*math.Abs(ratio(predicted, after)-1))
		}
		rows = append(rows, row)
	}
	p := r.Predicted
	if p == nil {
		p = &lab.Figures{}
	}
	line("p50", r.Before.P50, r.After.P50, p.P50)
	line("p95", r.Before.P95, r.After.P95, p.P95)
	line("p99", r.Before.P99, r.After.P99, p.P99)
	rows[0][0] = "  " + r.Route
	return rows
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// diagnosesInReport bounds the routes in the HTML report.
const diagnosesInReport = 4

func diagnosesOf(r advise.Report) []lab.Diagnosis {
	var all []lab.Diagnosis
	for _, route := range r.Routes[:min(len(r.Routes), diagnosesInReport)] {
		d := lab.Diagnosis{Service: route.Service, Operation: route.Operation, Traces: route.Traces}
		for i, s := range route.Segments {
			if i == 0 {
				d.LongPole = fmt.Sprintf("%s %s %s takes %s of the slow traces' critical path, and %s of the typical ones'.",
					s.Segment, s.Service, s.Operation, percent(s.Share.P99), percent(s.Share.P50))
			}
			if i < segmentsShown {
				d.Segments = append(d.Segments, lab.Share{
					Segment: string(s.Segment), Service: s.Service, Operation: s.Operation,
					P50Ratio: s.Share.P50, P99Ratio: s.Share.P99, P50: fromMillis(s.CriticalMS.P50), P99: fromMillis(s.CriticalMS.P99),
				})
			}
		}
		for _, f := range route.Findings {
			finding := lab.Finding{
				Code: f.Code, Class: f.Class, Verdict: string(f.Verdict), Confidence: f.Confidence,
				Summary: f.Summary, Evidence: f.Evidence, Counter: f.CounterEvidence,
			}
			for _, a := range f.Actions {
				finding.Actions = append(finding.Actions, a.Summary)
			}
			d.Findings = append(d.Findings, finding)
		}
		all = append(all, d)
	}
	return all
}

func fromMillis(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

func rolloutOf(s rollout.Status, summary string) lab.Rollout {
	out := lab.Rollout{
		Route: s.Route, Summary: summary, Phase: string(s.Phase), Verdict: s.Judgement.Sentence, Took: s.Ended.Sub(s.Started),
		Change: changeText(s),
	}
	for _, e := range s.Journal {
		at := e.At.Sub(s.Started)
		out.Journal = append(out.Journal, lab.Entry{At: at, Text: e.Text})
		if n := len(out.Steps); n > 0 {
			out.Steps[n-1].End = at
		}
		if n := len(out.Steps); !e.Phase.Final() && e.Weight > 0 && (n == 0 || out.Steps[n-1].Name != string(e.Phase) || out.Steps[n-1].WeightRatio != e.Weight) {
			out.Steps = append(out.Steps, lab.Step{Name: string(e.Phase), WeightRatio: e.Weight, Start: at, End: s.Ended.Sub(s.Started)})
		}
	}
	names := map[rollout.Verdict]string{rollout.Worse: "worse", rollout.NoWorse: "same", rollout.Improved: "better"}
	for _, m := range s.Judgement.Metrics {
		verdict, known := names[m.Verdict]
		if !known {
			verdict = "unknown"
		}
		unit := map[string]string{"ms": " ms", "ratio": " of calls", "per_call": " for each call"}[m.Unit]
		out.Metrics = append(out.Metrics, lab.Metric{
			Name: m.Metric, Baseline: ms(m.Baseline) + unit, Candidate: ms(m.Candidate) + unit, Verdict: verdict,
			Evidence: fmt.Sprintf("improved: 10^%.1f of 10^%.1f; worse: 10^%.1f of 10^%.1f", m.Improved.Log10E, m.Improved.Threshold, m.Worse.Log10E, m.Worse.Threshold),
		})
	}
	return out
}

// changeText is the candidate policy, indented.
func changeText(s rollout.Status) string {
	var change struct{ To json.RawMessage }
	var text bytes.Buffer
	if json.Unmarshal(s.Change, &change) != nil || json.Indent(&text, change.To, "", "  ") != nil {
		return string(s.Change)
	}
	return text.String()
}

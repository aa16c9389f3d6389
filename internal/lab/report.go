package lab

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Report is a demonstration from its first call to its last verdict, as plain values: what WriteReport shows.
// Everything in it may come from a trace or from a file, so nothing in it is trusted to be fit for HTML.
type Report struct {
	Title     string
	Started   time.Time
	Took      time.Duration
	Machine   string   // "2 cores, linux/amd64, go1.26"
	Notes     []string // what a reader must know to judge the figures: shorter judge slices, a busy machine
	Routes    []RouteResult
	Diagnoses []Diagnosis
	Rollouts  []Rollout
}

// Figures are the percentiles of a route and its side effects, at one time.
type Figures struct {
	P50, P95, P99   time.Duration
	ErrorRatio      float64 // 0..1
	AttemptsPerCall float64 // calls to the afflicted upstream for each call; 1 = no extra load; 0 = unknown
	Calls           uint64  // that were measured; 0 = a prediction, or unknown
}

// RouteResult is one route before and after the cures.
type RouteResult struct {
	Route         string
	Before, After Figures
	Predicted     *Figures // nil = nothing was predicted
	BeforeCurve   []Point  // see CurveOf; empty = no chart
	AfterCurve    []Point
}

// Point is one point of a quantile curve.
type Point struct {
	Quantile float64 // 0..1
	Latency  time.Duration
}

// Diagnosis is what was found out about one route.
type Diagnosis struct {
	Service, Operation string
	Traces             int
	LongPole           string // one sentence
	Segments           []Share
	Findings           []Finding
}

// Share is a segment's part of the critical path.
type Share struct {
	Segment, Service, Operation string
	P50Ratio, P99Ratio          float64       // of the path in the p50 band and in the p99 band, 0..1
	P50, P99                    time.Duration // critical time in those bands
}

// Finding is one reason for slowness.
type Finding struct {
	Code, Class, Verdict string
	Confidence           float64 // 0..1
	Summary              string
	Evidence, Counter    []string
	Actions              []string // one sentence each
}

// Rollout is one canary, from its start to its verdict.
type Rollout struct {
	Route, Summary, Change string // Change as YAML; "" = not shown
	Phase                  string // promoted, rolled_back, aborted, inconclusive
	Verdict                string // one sentence
	Took                   time.Duration
	Steps                  []Step
	Metrics                []Metric
	Journal                []Entry
}

// Step is a time during which the candidate had one share of the calls.
type Step struct {
	Name        string        // warmup, step
	WeightRatio float64       // 0..1
	Start, End  time.Duration // since the rollout began
}

// Metric is what the judge said about one metric.
type Metric struct {
	Name                string // p99
	Baseline, Candidate string // with units
	Verdict             string // better, same, worse, unknown
	Evidence            string
}

// Entry is one line of a rollout's journal.
type Entry struct {
	At   time.Duration // since the rollout began
	Text string
}

// CurveOf is the quantile curve of s for RouteResult. It ends where fewer than three calls lie beyond it: a p99.9 of
// a thousand calls is one call, and drawing it would pretend to knowledge.
func CurveOf(s stats.Snapshot) []Point {
	if s.Count() == 0 {
		return nil
	}
	last := math.Min(3, math.Log10(float64(s.Count())/3))
	var curve []Point
	for x := 0.0; x <= last; x += 0.05 {
		q := 1 - math.Pow(10, -x)
		curve = append(curve, Point{Quantile: q, Latency: s.Quantile(q)})
	}
	return curve
}

//go:embed report.html.tmpl
var reportPage string

// pageStyle is what the pages of this package have in common.
//
//go:embed style.html.tmpl
var pageStyle string

// WriteReport writes r as one HTML page that needs nothing else: no script, no font, no address is fetched. Colours follow the
// reader's light or dark scheme, and never carry a meaning alone. An error is w's.
func WriteReport(w io.Writer, r Report) error {
	page, err := template.New("report").Funcs(template.FuncMap{
		"ms": milliseconds, "percent": percent, "share": whole, "span": lasting, "factor": factor, "change": change, "off": off,
		"headline": headline, "status": status, "curves": curves, "timeline": timeline, "shares": shareBars, "words": words,
	}).Parse(pageStyle + reportPage)
	if err != nil {
		return fmt.Errorf("lab: report: %w", err)
	}
	if err := page.Execute(w, r); err != nil {
		return fmt.Errorf("lab: report: %w", err)
	}
	return nil
}

// Figures and their units are joined by no-break spaces below.

// missing stands where there is no figure.
const missing = "–"

// milliseconds has one decimal everywhere, so that columns of figures align at the point.
func milliseconds(d time.Duration) string {
	if d <= 0 {
		return missing
	}
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

func percent(ratio float64) string {
	switch p := ratio * 100; {
	case p == 0:
		return "0\u00a0%"
	case p < 0.095:
		return fmt.Sprintf("%.2f\u00a0%%", p)
	case p < 9.95:
		return fmt.Sprintf("%.1f\u00a0%%", p)
	default:
		return fmt.Sprintf("%.0f\u00a0%%", p)
	}
}

// whole is for shares, where decimals would only be noise.
func whole(ratio float64) string { return fmt.Sprintf("%.0f\u00a0%%", ratio*100) }

func lasting(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f\u00a0s", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%d\u00a0min %02d\u00a0s", d/time.Minute, d%time.Minute/time.Second)
}

func factor(f float64) string {
	if f == 0 {
		return missing
	}
	return fmt.Sprintf("%.2f", f)
}

// change is how much smaller or greater after is: "−84 %". The minus sign is the typographic one.
func change(before, after time.Duration) string {
	if before <= 0 || after <= 0 {
		return missing
	}
	return signed(float64(after)/float64(before) - 1)
}

// off is by how much a prediction missed what was measured.
func off(predicted, measured time.Duration) string {
	if predicted <= 0 || measured <= 0 {
		return missing
	}
	return signed(float64(predicted)/float64(measured) - 1)
}

func signed(ratio float64) string {
	p := math.Round(ratio * 100)
	switch {
	case p < 0:
		return fmt.Sprintf("−%.0f\u00a0%%", -p)
	case p > 0:
		return fmt.Sprintf("+%.0f\u00a0%%", p)
	}
	return "0\u00a0%"
}

// headline says what came of one route, in one sentence.
func headline(r RouteResult) string {
	if r.Before.P99 <= 0 || r.After.P99 <= 0 {
		return r.Route + ": not measured."
	}
	s := fmt.Sprintf("%s: p99 went from %s to %s\u00a0ms", r.Route, milliseconds(r.Before.P99), milliseconds(r.After.P99))
	if r.Predicted != nil && r.Predicted.P99 > 0 {
		s += fmt.Sprintf("; predicted was %s", milliseconds(r.Predicted.P99))
	}
	return s + "."
}

// badge is a state with a shape beside its colour, for those who cannot tell the colours apart.
type badge struct{ Class, Mark, Text string }

func status(s string) badge {
	text := words(s)
	switch s {
	case "promoted", "better", "confirmed", "no_worse", "ok":
		return badge{"good", "✓", text}
	case "rolled_back", "worse", "aborted", "failed":
		return badge{"bad", "✕", text}
	case "likely":
		return badge{"good", "◐", text}
	case "same":
		return badge{"even", "=", text}
	}
	return badge{"even", "○", text}
}

// words turns a name of the API into words: rolled_back is "rolled back".
func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/load"
)

const compareLong = `Compare runs that ` + "`longpole load --save`" + ` kept, and say for each percentile, for errors and for throughput
whether the second is worse, better, or the same, as far as can be told.

An interval takes into account that calls of one second resemble each other (Newey-West over the seconds). A change is a
regression or an improvement when its interval leaves out zero and its estimate is beyond the margin; it is no difference when
the whole interval is within the margin; else it is inconclusive, and a longer run tells more.

Put several runs of each side before and after --, and the differences among the runs of a side count too.

Runs that are invalid, interrupted or of another workload are refused; --force compares them all the same.

Exit codes: 0 no regression, 98 inconclusive or refused, 99 a regression.`

func newCompare() *cobra.Command {
	var output, margins, judged, confidence string
	var force bool
	cmd := &cobra.Command{
		Use:   "compare [flags] BEFORE AFTER | BEFORE... -- AFTER...",
		Short: "Compare saved load runs, percentile by percentile, with intervals",
		Long:  compareLong,
		Example: `  longpole compare before.json after.json
  longpole compare before-*.json -- after-*.json
  longpole compare --margin p99=10%,errors=0.1% -o json before.json after.json | jq -r .verdict`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			o, err := compareOptions(margins, judged, confidence, force)
			if err != nil {
				return err
			}
			return compareRuns(cmd, args, o, output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&margins, "margin", "", "`METRIC=SHARE`: changes below it do not matter; several with commas (default p50=5%,p90=7.5%,p95=10%,p99=15%,p99.9=25%,errors=0.5%,throughput=5%)")
	f.StringVar(&judged, "judge", "", "`METRICS` that must not stay inconclusive, with commas (default p50,p95,p99,errors,throughput)")
	f.StringVar(&confidence, "confidence", "", "of each interval: `LEVEL` 90%, 95% or 98% (default 95%)")
	f.BoolVar(&force, "force", false, "compare runs that would be refused")
	f.StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func compareOptions(margins, judged, confidence string, force bool) (load.CompareOptions, error) {
	o := load.CompareOptions{Force: force, Margins: map[string]float64{}}
	hint := "want one of " + strings.Join(load.Metrics, ", ")
	for _, one := range splitList(margins) {
		metric, text, _ := strings.Cut(one, "=")
		share, err := parseShare(text)
		if err != nil || !slices.Contains(load.Metrics, metric) || share <= 0 || share > 10 {
			return o, usagef(hint+", = and a share, as p99=10%", "--margin: %q is not allowed", one)
		}
		o.Margins[metric] = share
	}
	for _, metric := range splitList(judged) {
		if !slices.Contains(load.Metrics, metric) {
			return o, usagef(hint, "--judge: %q is not allowed", metric)
		}
		o.Judged = append(o.Judged, metric)
	}
	if confidence != "" {
		level, err := parseShare(confidence)
		if err != nil || level != 0.9 && level != 0.95 && level != 0.98 {
			return o, usagef("want 90%, 95% or 98%", "--confidence: %q is not allowed", confidence)
		}
		o.Confidence = level
	}
	return o, nil
}

func splitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// parseShare reads 5% and 0.05.
func parseShare(text string) (float64, error) {
	digits, isPercent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if isPercent {
		v /= 100
	}
	return v, err
}

func compareRuns(cmd *cobra.Command, args []string, o load.CompareOptions, output string) error {
	var before, after []string
	switch at := cmd.ArgsLenAtDash(); {
	case at > 0 && at < len(args):
		before, after = args[:at], args[at:]
	case at < 0 && len(args) == 2:
		before, after = args[:1], args[1:]
	default:
		return usagef("see `longpole compare --help`", "longpole compare needs two saved runs, or several before and after --")
	}
	base, err := readRuns(before)
	if err != nil {
		return err
	}
	next, err := readRuns(after)
	if err != nil {
		return err
	}
	c := load.Compare(base, next, o)
	if output == "json" {
		err = writeJSON(cmd.OutOrStdout(), c)
	} else {
		renderComparison(cmd.OutOrStdout(), c)
	}
	if err != nil {
		return err
	}
	switch {
	case len(c.Refused) > 0:
		return &failure{
			code: exitInconclusive, err: errors.New("the runs were not compared:\n" + strings.Join(c.Refused, "\n")),
			hint: "repeat the run, or see what --force makes of it",
		}
	case c.Verdict == load.Regression:
		return &failure{code: exitThreshold, err: errors.New("regression")}
	case c.Verdict == load.Inconclusive:
		return &failure{code: exitInconclusive, err: errors.New("inconclusive"), hint: "longer runs have narrower intervals; --margin and --judge say what matters"}
	}
	return nil
}

func readRuns(names []string) (runs []load.Report, err error) {
	for _, name := range names {
		data, err := readBounded(name, load.MaxReportBytes)
		if err != nil {
			return nil, err
		}
		r, err := load.ParseReport(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", name, plain(err))
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// renderComparison writes a comparison for a person.
func renderComparison(w io.Writer, c load.Comparison) {
	if len(c.Refused) > 0 {
		return // the error says why
	}
	for _, text := range c.Warnings {
		fmt.Fprintf(w, "Warning: %s\n", text)
	}
	fmt.Fprintf(w, "Before: %s, %d calls. After: %s, %d calls. Intervals of %s.\n\n",
		count(c.BaseRuns, "run"), c.BaseCalls, count(c.NextRuns, "run"), c.NextCalls, percent(c.Confidence))
	rows := [][]string{{"METRIC", "BEFORE", "AFTER", "CHANGE", "INTERVAL", "MARGIN", "VERDICT"}}
	for _, d := range c.Deltas {
		verdict := string(d.Verdict)
		if d.Reason != "" {
			verdict += ": " + d.Reason
		}
		if d.Verdict == load.Inconclusive && !d.Judged {
			verdict += " (not judged)"
		}
		rows = append(rows, []string{
			d.Metric, figureOf(d, d.Base), figureOf(d, d.Next), changeOf(d, d.Change.At), intervalOf(d), "±" + percentOf(d.Margin), verdict,
		})
	}
	table(w, rows)
	fmt.Fprintf(w, "\n%s\n", strings.ToUpper(string(c.Verdict)))
}

func figureOf(d load.Delta, r load.Range) string {
	switch d.Unit {
	case "ms":
		return ms(r.At) + " ms"
	case "share":
		return percentOf(r.At)
	}
	return fmt.Sprintf("%.1f/s", r.At)
}

func changeOf(d load.Delta, v float64) string {
	if d.Unit == "share" {
		return fmt.Sprintf("%+.2f pp", 100*v)
	}
	return fmt.Sprintf("%+.1f %%", 100*v)
}

func intervalOf(d load.Delta) string {
	high := changeOf(d, d.Change.High)
	if d.Change.Open {
		high = "open"
	}
	return changeOf(d, d.Change.Low) + " .. " + high
}

func percentOf(v float64) string { return strconv.FormatFloat(100*v, 'g', 3, 64) + " %" }

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/report"
	"github.com/longpole/longpole/internal/trace"
)

const diagnoseLong = `Read traces, take the exact critical path of each, and say per route where the time goes, for typical and for slow
traffic, what the cause is, and what a cure would bring.

PATH is a file, a folder (read with all below it) or - for standard input. The format is recognised by content: OTLP
(JSON, JSON lines, protobuf), Jaeger JSON, Zipkin v2 JSON; plain, .gz or .zst. OTLP log records in the same files or in others are
joined to their traces; those of severity warn and above, and those that report an exception, are looked at.

With --baseline, name healthy traffic of the same system: the culprits are the services that make the rest slower than it. Each
route stands beside itself in the baseline, and each finding says whether it is new, worse or the same as then. With
--baseline-time the baseline is a part of the traces: those that began before a time, or between two.
With --facts, name what ` + "`longpole probe`" + ` read meanwhile from the systems behind: it confirms causes, or refutes them.
With --prometheus it is read from a Prometheus server, for the time of the traces; see ` + "`longpole probe prometheus`" + ` for who asks and other labels.
With --admin, name a running gateway: where its rollouts measured that forecasts hold too seldom, their intervals are widened.`

// diagnosis is what the flags of diagnose say.
type diagnosis struct {
	baseline []string
	earlier  string // the part of the traces that is the baseline, by time; "" = none
	facts    string // file; "" = none
	recorded string // URL of a Prometheus server; "" = none
	admin    string // of the gateway that measured earlier forecasts; "" = nobody is asked
	output   string
	routes   int
	snippets bool
}

func newDiagnose() *cobra.Command {
	var d diagnosis
	cmd := &cobra.Command{
		Use:   "diagnose [--baseline PATH]... [--baseline-time TIME] [--facts FILE] [--prometheus URL] [-o text|json|html] PATH...",
		Short: "Find the long pole in trace files",
		Long:  diagnoseLong,
		Example: `  longpole diagnose traces/
  longpole diagnose -o json spans.otlp.jsonl.gz | jq '.routes[0].findings'
  longpole diagnose --baseline monday/ tuesday/
  longpole diagnose --facts facts.json -o html traces/ > report.html`,
		Args: minArgs(1, "at least one trace file, folder or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(d.output, "text", "json", "html"); err != nil {
				return err
			}
			if d.earlier != "" && len(d.baseline) > 0 {
				return usagef("the baseline is either other files, or a part of these", "--baseline and --baseline-time exclude each other")
			}
			if d.routes < 0 {
				return usagef("0 prints all routes", "--routes %d is negative", d.routes)
			}
			return d.run(cmd, args)
		},
	}
	cmd.Flags().StringArrayVar(&d.baseline, "baseline", nil, "`PATH` of traces of healthy traffic to compare with; may be repeated")
	cmd.Flags().StringVar(&d.earlier, "baseline-time", "", "`TIME` before which traces are the baseline, or FROM/TO between which they are; RFC 3339")
	cmd.Flags().StringVar(&d.facts, "facts", "", "`FILE` of evidence from the systems behind, as `longpole probe -o json` writes it")
	cmd.Flags().StringVar(&d.recorded, "prometheus", "", "`URL` of a Prometheus server that recorded the services' metrics in the time of the traces")
	cmd.Flags().StringVar(&d.admin, "admin", "", "`URL` of the admin side of a running gateway that measured earlier forecasts (default none)")
	cmd.Flags().StringVarP(&d.output, "output", "o", "text", "`FORMAT`: text, json, or html for a page that needs nothing else")
	cmd.Flags().IntVar(&d.routes, "routes", 5, "print at most `N` routes as text; 0 = all")
	cmd.Flags().BoolVar(&d.snippets, "snippets", false, "print the settings of actions for Envoy, Istio, nginx, HAProxy and resilience4j, too")
	return cmd
}

func (d diagnosis) run(cmd *cobra.Command, paths []string) error {
	facts, err := readFacts(d.facts)
	if err != nil {
		return err
	}
	suspect, err := readInput(cmd, paths)
	if err != nil {
		return err
	}
	o := diagnose.Options{Clock: diagnose.ClockOptions{Each: onAllCores}, Files: suspect.Stats.Files, Logs: suspect.Stats.Logs}
	if d.earlier != "" {
		if suspect.Traces, o.Baseline, err = parted(suspect.Traces, d.earlier); err != nil {
			return err
		}
	}
	if d.recorded != "" {
		from, to := timesOf(suspect.Traces)
		more, err := recorded(cmd.Context(), probe.PrometheusConfig{URL: d.recorded}, from, to, servicesOf(suspect.Traces))
		if err != nil {
			return err
		}
		facts.Add(more)
	}
	o.Facts = facts
	if len(d.baseline) > 0 {
		healthy, err := readInput(cmd, d.baseline)
		if err != nil {
			return err
		}
		o.Baseline = healthy.Traces
	}
	by, err := stretchesOf(cmd.Context(), d.admin)
	if err != nil {
		return err
	}
	r := advise.Run(suspect.Traces, o, nil)
	r.Widen(by)
	r.Input.InvalidSpans += suspect.Stats.InvalidSpans
	if len(r.Routes) == 0 {
		return &failure{
			code: exitError,
			err:  fmt.Errorf("no usable trace: all spans of %s are invalid (%d)", count(len(suspect.Traces), "trace"), r.Input.InvalidSpans),
			hint: unusableHint,
		}
	}
	switch d.output {
	case "json":
		return writeJSON(cmd.OutOrStdout(), r)
	case "html":
		views := diagnose.Pictures(suspect.Traces, o, report.MaxRoutes)
		return report.Write(cmd.OutOrStdout(), report.Page{Report: r, Pictures: views, Facts: facts, Made: time.Now(), Version: version})
	}
	return renderReport(cmd.OutOrStdout(), r, shown{d.routes, d.snippets})
}

// parted tells the traces that began before a time, or between two, from the others.
func parted(traces []trace.Trace, text string) (now, before []trace.Trace, err error) {
	const hint = "want 2026-01-31T12:00:00Z, or two of them as FROM/TO"
	from, to, two := strings.Cut(text, "/")
	if !two {
		from, to = "", text
	}
	var began time.Time
	if from != "" {
		if began, err = time.Parse(time.RFC3339, from); err != nil {
			return nil, nil, usagef(hint, "--baseline-time: %q is no time", from)
		}
	}
	ended, err := time.Parse(time.RFC3339, to)
	if err != nil {
		return nil, nil, usagef(hint, "--baseline-time: %q is no time", to)
	}
	for _, t := range traces {
		first := int64(math.MaxInt64)
		for i := range t.Spans {
			first = min(first, t.Spans[i].Start)
		}
		if at := time.Unix(0, first); at.Before(ended) && !at.Before(began) {
			before = append(before, t)
		} else {
			now = append(now, t)
		}
	}
	if len(now) == 0 || len(before) == 0 {
		return nil, nil, &failure{
			code: exitError, err: fmt.Errorf("%s of %s began in that time: there is nothing to compare", count(len(before), "trace"), count(len(traces), "trace")),
			hint: "the traces are from " + spanned(traces),
		}
	}
	return now, before, nil
}

// spanned is the time that traces are from.
func spanned(traces []trace.Trace) string {
	from, to := timesOf(traces)
	return from.UTC().Format(time.RFC3339) + " to " + to.UTC().Format(time.RFC3339)
}

// unusableHint says what makes a span invalid once it could be read.
const unusableHint = "a span is invalid when it ends before it starts, or is its own ancestor"

const criticalPathLong = `Print the critical path of each trace's root as one JSON object a line, or with --service and --operation that of the
topmost span of that name. The sections are in time order and partition the span's duration.`

// pathLine is one line of the output.
type pathLine struct {
	TraceID    string        `json:"trace_id"`
	RootSpanID string        `json:"root_span_id"`
	DurationNS int64         `json:"duration_ns"`
	Incomplete bool          `json:"incomplete"`
	Sections   []pathSection `json:"sections"`
}

type pathSection struct {
	SpanID    string `json:"span_id"`
	Service   string `json:"service"`
	Operation string `json:"operation"`
	StartNS   int64  `json:"start_ns"`
	EndNS     int64  `json:"end_ns"`
}

func newCriticalPath() *cobra.Command {
	var service, operation, output string
	cmd := &cobra.Command{
		Use:   "critical-path [--service S --operation O] [-o json] PATH...",
		Short: "Print the exact critical path of each trace",
		Long:  criticalPathLong,
		Example: `  longpole critical-path traces.json
  longpole critical-path --service orders --operation "GET /orders" traces/ | jq .duration_ns`,
		Args: minArgs(1, "at least one trace file, folder or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "json"); err != nil {
				return err
			}
			if (service == "") != (operation == "") {
				return usagef("give both, or neither for the root of each trace", "--service and --operation go together")
			}
			return criticalPaths(cmd, args, service, operation)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "start at the topmost span of service `S` and the --operation")
	cmd.Flags().StringVar(&operation, "operation", "", "start at the topmost span of operation `O` and the --service")
	cmd.Flags().StringVarP(&output, "output", "o", "json", "`FORMAT`: json, the only one")
	return cmd
}

func criticalPaths(cmd *cobra.Command, paths []string, service, operation string) error {
	in, err := readInput(cmd, paths)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	written, without, invalid, duplicates := 0, 0, 0, 0
	for _, tree := range diagnose.Trees(in.Traces, diagnose.ClockOptions{Each: onAllCores}) {
		invalid, duplicates = invalid+tree.Invalid, duplicates+tree.Duplicates
		root := rootOf(tree, service, operation)
		if root < 0 {
			without++
			continue
		}
		if err := enc.Encode(pathOf(tree, root)); err != nil {
			return err
		}
		written++
	}
	warn := func(n int, what string) {
		if n > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: %s\n", what)
		}
	}
	warn(invalid, count(invalid, "invalid span")+" dropped: "+unusableHint)
	warn(duplicates, count(duplicates, "span")+" dropped that shared the ID of another")
	if written > 0 {
		warn(without, fmt.Sprintf("%d of %s have no such span", without, count(len(in.Traces), "trace")))
		return nil
	}
	if service == "" {
		return &failure{code: exitError, err: fmt.Errorf("no usable span in %s", count(len(in.Traces), "trace")), hint: unusableHint}
	}
	return &failure{
		code: exitError,
		err:  fmt.Errorf("no span of service %q and operation %q in %s", service, operation, count(len(in.Traces), "trace")),
		hint: "both match exactly; `longpole diagnose` prints the names",
	}
}

// rootOf is the trace's root, or its topmost span of that name; -1 when there is none.
func rootOf(tree *diagnose.Tree, service, operation string) int {
	switch {
	case service != "":
		return tree.Find(service, operation)
	case len(tree.Roots) > 0:
		return tree.Roots[0]
	}
	return -1
}

func pathOf(tree *diagnose.Tree, root int) pathLine {
	span := &tree.Spans[root]
	line := pathLine{
		TraceID: tree.ID, RootSpanID: span.ID, DurationNS: int64(span.Duration()),
		Incomplete: tree.Incomplete, Sections: []pathSection{},
	}
	for _, s := range tree.Path(root) {
		at := &tree.Spans[s.Span]
		line.Sections = append(line.Sections, pathSection{at.ID, at.Service, at.Name, s.Start, s.End})
	}
	return line
}

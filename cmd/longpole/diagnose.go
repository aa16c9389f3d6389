package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/report"
)

const diagnoseLong = `Read traces, take the exact critical path of each, and say per route where the time goes, for typical and for slow
traffic, what the cause is, and what a cure would bring.

PATH is a file, a folder (read with all below it) or - for standard input. The format is recognised by content: OTLP
(JSON, JSON lines, protobuf), Jaeger JSON, Zipkin v2 JSON; plain, .gz or .zst.

With --baseline, name healthy traffic of the same system: the culprits are the services that make the rest slower than it.
With --facts, name what ` + "`longpole probe`" + ` read meanwhile from the systems behind: it confirms causes, or refutes them.`

// diagnosis is what the flags of diagnose say.
type diagnosis struct {
	baseline []string
	facts    string // file; "" = none
	output   string
	routes   int
	snippets bool
}

func newDiagnose() *cobra.Command {
	var d diagnosis
	cmd := &cobra.Command{
		Use:   "diagnose [--baseline PATH]... [--facts FILE] [-o text|json|html] PATH...",
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
			if d.routes < 0 {
				return usagef("0 prints all routes", "--routes %d is negative", d.routes)
			}
			return d.run(cmd, args)
		},
	}
	cmd.Flags().StringArrayVar(&d.baseline, "baseline", nil, "`PATH` of traces of healthy traffic to compare with; may be repeated")
	cmd.Flags().StringVar(&d.facts, "facts", "", "`FILE` of evidence from the systems behind, as `longpole probe -o json` writes it")
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
	o := diagnose.Options{Clock: diagnose.ClockOptions{Each: onAllCores}, Files: suspect.Stats.Files, Facts: facts}
	if len(d.baseline) > 0 {
		healthy, err := readInput(cmd, d.baseline)
		if err != nil {
			return err
		}
		o.Baseline = healthy.Traces
	}
	r := advise.Run(suspect.Traces, o, nil)
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

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
)

const diagnoseLong = `Read traces, take the exact critical path of each, and say per route where the time goes, for typical and for slow
traffic, what the cause is, and what a cure would bring.

PATH is a file, a folder (read with all below it) or - for standard input. The format is recognised by content: OTLP
(JSON, JSON lines, protobuf), Jaeger JSON, Zipkin v2 JSON; plain, .gz or .zst.

With --baseline, name healthy traffic of the same system: the culprits are the services that make the rest slower than it.`

func newDiagnose() *cobra.Command {
	var baseline []string
	var output string
	var routes int
	cmd := &cobra.Command{
		Use:   "diagnose [--baseline PATH]... [-o text|json] PATH...",
		Short: "Find the long pole in trace files",
		Long:  diagnoseLong,
		Example: `  longpole diagnose traces/
  longpole diagnose -o json spans.otlp.jsonl.gz | jq '.routes[0].findings'
  longpole diagnose --baseline monday/ tuesday/`,
		Args: minArgs(1, "at least one trace file, folder or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			report, err := diagnoseFiles(cmd, args, baseline)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), report)
			}
			return renderReport(cmd.OutOrStdout(), report, routes)
		},
	}
	cmd.Flags().StringArrayVar(&baseline, "baseline", nil, "traces of healthy traffic to compare with; may be repeated")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().IntVar(&routes, "routes", 5, "routes to print as text; 0 = all")
	return cmd
}

func diagnoseFiles(cmd *cobra.Command, paths, baseline []string) (advise.Report, error) {
	suspect, err := readInput(cmd, paths)
	if err != nil {
		return advise.Report{}, err
	}
	o := diagnose.Options{Files: suspect.Stats.Files}
	if len(baseline) > 0 {
		healthy, err := readInput(cmd, baseline)
		if err != nil {
			return advise.Report{}, err
		}
		o.Baseline = healthy.Traces
	}
	report := advise.Run(suspect.Traces, o, nil)
	report.Input.DuplicateSpans += suspect.Stats.DuplicateSpans
	report.Input.InvalidSpans += suspect.Stats.InvalidSpans
	if len(report.Routes) == 0 {
		return report, &failure{
			code: exitError,
			err: fmt.Errorf("no usable trace among %d spans of %d traces (%d invalid)",
				report.Input.Spans, report.Input.Traces, report.Input.InvalidSpans),
			hint: "a trace needs one span that ends after it starts",
		}
	}
	return report, nil
}

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
		Args:  minArgs(1, "at least one trace file, folder or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "json"); err != nil {
				return err
			}
			if (service == "") != (operation == "") {
				return usagef("a span is named by both", "--service and --operation go together")
			}
			return criticalPaths(cmd, args, service, operation)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "start at the topmost span of this service")
	cmd.Flags().StringVar(&operation, "operation", "", "start at the topmost span of this operation")
	cmd.Flags().StringVarP(&output, "output", "o", "json", "json")
	return cmd
}

func criticalPaths(cmd *cobra.Command, paths []string, service, operation string) error {
	in, err := readInput(cmd, paths)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	written, without := 0, 0
	for _, t := range in.Traces {
		tree := diagnose.Build(t, diagnose.ClockOptions{})
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
	if without > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: %d of %d traces have no such span\n", without, len(in.Traces))
	}
	if written == 0 {
		return &failure{code: exitError, err: fmt.Errorf("no critical path in %d traces", len(in.Traces)),
			hint: "check --service and --operation; they match exactly"}
	}
	return nil
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

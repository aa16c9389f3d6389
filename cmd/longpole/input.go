package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/ingest"
)

// readInput reads trace files with progress, and prints what the reader must know as warnings.
func readInput(cmd *cobra.Command, paths []string) (ingest.Input, error) {
	show := newProgress(cmd.ErrOrStderr())
	in, err := ingest.ReadPaths(cmd.Context(), paths, cmd.InOrStdin(), func(p ingest.Progress) {
		show.Show("reading %s (%d of %d): %d spans", p.File, p.Files+1, p.TotalFiles, p.Spans)
	})
	show.Clear()
	if err != nil {
		return in, &failure{code: exitError, err: err, hint: "accepted are OTLP (JSON, JSON lines, protobuf), Jaeger JSON and Zipkin v2 JSON; plain, .gz or .zst"}
	}
	for _, w := range in.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "longpole: warning:", w)
	}
	return in, nil
}

// checkOutput refuses an -o that the command does not have.
func checkOutput(output string, known ...string) error {
	for _, k := range known {
		if output == k {
			return nil
		}
	}
	return usagef("", "unknown output %q; want one of %v", output, known)
}

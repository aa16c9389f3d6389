package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/advise"
)

const whatifLong = `Forecast p50, p95 and p99 of every route under changes that you think of, from traces that you have. Several changes are
made together. The interval is where each quantile of as many calls again will lie with 90 % confidence.

A CHANGE is one argument: a word, a target (service or service/operation, in quotes where it holds spaces) and figures:

`

func newWhatIf() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "whatif [-o table|json] CHANGE... PATH...",
		Short: "Forecast what a change would do, from trace files",
		Long:  whatifLong + "  " + strings.Join(advise.Verbs(), "\n  "),
		Example: `  longpole whatif "hedge orders after=50ms" traces/
  longpole whatif "index 'orders/SELECT items' 20x" "parallel checkout" monday.json.gz`,
		Args: minArgs(1, "a change in quotes, and at least one trace file, folder or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			changes, paths := splitChanges(args)
			switch {
			case len(changes) == 0:
				return usagef("the changes are "+strings.Join(verbWords(), ", ")+"; see `longpole whatif --help`", "%q is no change: it begins with none of the known words", args[0])
			case len(paths) == 0:
				return usagef("name a trace file, a folder, or - for standard input", "longpole whatif needs traces")
			}
			return whatIf(cmd, changes, paths, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

// verbWords are the words that a change begins with.
func verbWords() []string {
	var list []string
	for _, v := range advise.Verbs() {
		word, _, _ := strings.Cut(v, " ")
		list = append(list, word)
	}
	return list
}

// splitChanges tells changes from paths: a change is a known word, a blank and more.
func splitChanges(args []string) (changes, paths []string) {
	words := verbWords()
	for _, a := range args {
		if word, rest, ok := strings.Cut(strings.TrimSpace(a), " "); ok && rest != "" && slices.Contains(words, word) {
			changes = append(changes, a)
		} else {
			paths = append(paths, a)
		}
	}
	return changes, paths
}

func whatIf(cmd *cobra.Command, changes, paths []string, output string) error {
	in, err := readInput(cmd, paths)
	if err != nil {
		return err
	}
	f, err := advise.WhatIf(in.Traces, strings.Join(changes, "\n"))
	switch {
	case errors.Is(err, advise.ErrExpression):
		return usagef("see `longpole whatif --help` for what a change may say", "%s", strings.TrimPrefix(err.Error(), "advise: "))
	case err != nil:
		return &failure{code: exitError, err: errors.New(strings.TrimPrefix(err.Error(), "advise: ")), hint: "`longpole diagnose` prints the names of services and operations"}
	}
	if output == "json" {
		return writeJSON(cmd.OutOrStdout(), f)
	}
	return renderForecast(cmd.OutOrStdout(), f)
}

// renderForecast writes a forecast for a person.
func renderForecast(out io.Writer, f advise.Forecast) error {
	w := bufio.NewWriter(out)
	for _, c := range f.Changes {
		fmt.Fprintf(w, "What if: %s\n", c)
	}
	if len(f.Effects) == 0 {
		fmt.Fprintln(w, "  no route is reached")
	}
	for _, e := range f.Effects {
		fmt.Fprintf(w, "\n%s  %s   %s\n", e.Service, e.Operation, count(e.Calls, "call"))
		rows := [][]string{{"  ", "BEFORE", "PREDICTED", "CHANGE", "90 % INTERVAL"}}
		for _, q := range []struct {
			name          string
			before, after float64
			interval      [2]float64
		}{
			{"p50", e.Before.P50, e.Predicted.P50, e.Interval.P50}, {"p95", e.Before.P95, e.Predicted.P95, e.Interval.P95}, {"p99", e.Before.P99, e.Predicted.P99, e.Interval.P99},
		} {
			rows = append(rows, []string{"  " + q.name, ms(q.before) + " ms", ms(q.after) + " ms", signedPercent(q.before, q.after), ms(q.interval[0]) + " to " + ms(q.interval[1]) + " ms"})
		}
		table(w, rows)
	}
	if f.ExtraLoad != 0 {
		fmt.Fprintf(w, "\n%+.1f %% calls\n", 100*f.ExtraLoad)
	}
	for _, n := range f.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	return w.Flush()
}

// signedPercent is by how much after differs from before.
func signedPercent(before, after float64) string {
	if before <= 0 {
		return ""
	}
	return fmt.Sprintf("%+.0f %%", 100*(after/before-1))
}

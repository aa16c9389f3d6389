package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

const labLong = `Run systems with a planted problem whose truth is known, and see how well it is found and cured.

A scenario is a file: services and what they do, the load, faults on a time line, and the truth. Those that come with
Longpole have names; a path that ends in .yaml is a file of your own. docs/lab.md says how to write one.`

func newLab() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lab", Short: "Plant known problems, and measure how well they are found and cured", Long: labLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(newLabList(), newLabRun(), newLabUp(), newLabSchema())
	return cmd
}

func newLabSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a scenario file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(scenario.Schema())
			return err
		},
	}
}

func newLabList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list [-o table|json]", Short: "List the scenarios that come with Longpole", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			all, err := lab.Catalogue()
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), labItems(all))
			}
			rows := [][]string{{"SCENARIO", "CLASS", "SERVICE", "ACTION", "ABOUT"}}
			for _, x := range labItems(all) {
				rows = append(rows, []string{
					x.Name, cmp.Or(strings.Join(x.Truth.Class, "|"), "healthy"), cmp.Or(strings.Join(x.Truth.Service, "|"), "-"),
					cmp.Or(strings.Join(x.Truth.Action, "|"), "-"), x.About,
				})
			}
			table(cmd.OutOrStdout(), rows)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

// labItem is a scenario in a list.
type labItem struct {
	Name  string         `json:"name"`
	About string         `json:"about"`
	Truth scenario.Truth `json:"truth"`
}

func labItems(all []scenario.Scenario) []labItem {
	items := []labItem{}
	for _, s := range all {
		items = append(items, labItem{s.Name, s.About, s.Truth})
	}
	return items
}

// pickScenarios finds scenarios by name, or reads files of the user's; "all" is the whole catalogue.
func pickScenarios(names []string) ([]scenario.Scenario, error) {
	all, err := lab.Catalogue()
	if err != nil {
		return nil, err
	}
	var picked []scenario.Scenario
	for _, name := range names {
		switch i := slices.IndexFunc(all, func(s scenario.Scenario) bool { return s.Name == name }); {
		case i >= 0:
			picked = append(picked, all[i])
		case name == "all":
			picked = append(picked, all...)
		case strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml"):
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, &failure{code: exitError, err: err}
			}
			s, err := scenario.Read(name, data)
			if err != nil {
				return nil, faulty(name, err, "docs/lab.md describes every field")
			}
			picked = append(picked, s)
		default:
			return nil, usagef("`longpole lab list` has the names; a file of your own ends in .yaml", "no scenario %q", name)
		}
	}
	return picked, nil
}

const labRunLong = `Run scenarios one after the other: measure, diagnose with the evidence of all parts, advise, try the first change of
ours as a canary, measure again. Each takes about 20 s, and up to two minutes where a change is tried.

A row says whether the diagnosis named the planted class and service (and at which rank), what the first action was, and
what clients saw before, what was predicted, and after. Exits 99 when a scenario does not pass.

With --results, each outcome is kept in FILE as a line of JSON as soon as it is there; with --resume, scenarios whose
outcome is in FILE already are not run again.`

// labRun is the flags of `lab run`.
type labRun struct {
	output, results, save string
	resume                bool
	seed                  uint64
	progress              *progress
}

func newLabRun() *cobra.Command {
	o := &labRun{}
	cmd := &cobra.Command{
		Use:   "run SCENARIO...|all [-o table|json] [--results FILE [--resume]]",
		Short: "Run scenarios and say what was found and cured",
		Long:  labRunLong,
		Example: `  longpole lab run missing-index
  longpole lab run all --results lab.jsonl --resume
  longpole lab run -o json my-system.yaml`,
		Args: minArgs(1, "a scenario, a file or all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(o.output, "table", "json"); err != nil {
				return err
			}
			if o.resume && o.results == "" {
				return usagef("name the file of the run that was interrupted", "--resume needs --results FILE")
			}
			picked, err := pickScenarios(args)
			if err != nil {
				return err
			}
			o.progress = newProgress(cmd.ErrOrStderr())
			return o.run(cmd, picked)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table or json")
	f.StringVar(&o.results, "results", "", "`FILE` that keeps each outcome as a line of JSON")
	f.BoolVar(&o.resume, "resume", false, "leave out the scenarios whose outcome is in the results file")
	f.StringVar(&o.save, "traces", "", "keep the diagnosed traces and facts of each scenario in this `FOLDER`")
	f.Uint64Var(&o.seed, "seed", 1, "of all times, faults and arrivals")
	return cmd
}

func (o *labRun) run(cmd *cobra.Command, picked []scenario.Scenario) error {
	done, err := o.begin()
	if err != nil {
		return &failure{code: exitError, err: err}
	}
	var all []lab.Outcome
	for i, s := range picked {
		if k := slices.IndexFunc(done, func(x lab.Outcome) bool { return x.Scenario == s.Name }); k >= 0 {
			all = append(all, done[k])
			continue
		}
		began := time.Now()
		out, err := lab.Run(cmd.Context(), s, lab.TrialOptions{Seed: o.seed, Traces: o.keeper(s.Name), Progress: func(phase string) {
			o.progress.Show("%d of %d: %s, %s: %s", i+1, len(picked), s.Name, time.Since(began).Round(time.Second), phase)
		}})
		o.progress.Clear()
		if err != nil {
			if cmd.Context().Err() != nil {
				return context.Canceled
			}
			return err
		}
		if err := o.keep(out); err != nil {
			return &failure{code: exitError, err: err}
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %d of %d: %s: %s %s\n", i+1, len(picked), s.Name, out.Verdict, strings.Join(out.Why, "; "))
		all = append(all, out)
	}
	return o.conclude(cmd.OutOrStdout(), all)
}

// begin reads the outcomes of the run that is resumed, or empties the results file.
func (o *labRun) begin() (done []lab.Outcome, err error) {
	if o.results == "" {
		return nil, nil
	}
	if !o.resume {
		return nil, os.WriteFile(o.results, nil, 0o644)
	}
	f, err := os.Open(o.results)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for n := 1; lines.Scan(); n++ {
		var x lab.Outcome
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			return nil, fmt.Errorf("%s:%d: %w; want one outcome of `longpole lab run` a line", o.results, n, err)
		}
		done = append(done, x)
	}
	return done, lines.Err()
}

// keep adds an outcome to the results file.
func (o *labRun) keep(x lab.Outcome) (err error) {
	if o.results == "" {
		return nil
	}
	f, err := os.OpenFile(o.results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, f.Close()) }()
	return json.NewEncoder(f).Encode(x)
}

// keeper writes what was diagnosed, so that `longpole diagnose` can look at it again; nil = nobody asked for it.
func (o *labRun) keeper(name string) func([]trace.Trace, evidence.Facts) {
	if o.save == "" {
		return nil
	}
	return func(traces []trace.Trace, f evidence.Facts) {
		var spans []trace.Span
		for _, t := range traces {
			spans = append(spans, t.Spans...)
		}
		facts, err := json.MarshalIndent(f, "", "  ")
		err = cmp.Or(err, os.MkdirAll(o.save, 0o755))
		err = cmp.Or(err, os.WriteFile(o.save+"/"+name+".otlp", ingest.EncodeOTLP(spans), 0o644))
		err = cmp.Or(err, os.WriteFile(o.save+"/"+name+".facts.json", facts, 0o644))
		if err != nil {
			o.progress.Show("not kept: %v", err)
		}
	}
}

func (o *labRun) conclude(w io.Writer, all []lab.Outcome) error {
	tally := lab.Count(all)
	if o.output == "json" {
		if err := writeJSON(w, map[string]any{"outcomes": all, "tally": tally}); err != nil {
			return err
		}
	} else {
		renderOutcomes(w, all, tally)
	}
	if tally.Passed < tally.Scenarios {
		return &failure{code: exitThreshold, err: fmt.Errorf("%d of %s did not pass", tally.Scenarios-tally.Passed, count(tally.Scenarios, "scenario"))}
	}
	return nil
}

func renderOutcomes(w io.Writer, all []lab.Outcome, tally lab.Tally) {
	rows := [][]string{{"SCENARIO", "TRUTH", "NAMED FIRST", "RANK", "FIRST ACTION", "P99 BEFORE", "PREDICTED", "AFTER", "ERRORS", "COST", "CURE", "VERDICT"}}
	for _, o := range all {
		rows = append(rows, outcomeRow(o))
	}
	table(w, rows)
	fmt.Fprintf(w, "\n%d of %s pass, in %s\n", tally.Passed, count(tally.Scenarios, "scenario"), time.Duration(tally.Seconds*1e9).Round(time.Second))
	fmt.Fprintf(w, "  named first        %d of %d, in the first three %d\n", tally.First, tally.Faulty, tally.Third)
	fmt.Fprintf(w, "  silent in health   %d of %d\n", tally.Silent, tally.Healthy)
	fmt.Fprintf(w, "  first action       %d of %d\n", tally.Action, tally.Asked)
	fmt.Fprintf(w, "  cures within bound %d of %d\n", tally.Cured, tally.Ours)
	if tally.Forecasts > 0 {
		fmt.Fprintf(w, "  predicted p99 off by %s in the median of %d\n", percent(tally.Error), tally.Forecasts)
	}
}

func outcomeRow(o lab.Outcome) []string {
	truth, named, rank := "healthy", "-", "-"
	if !o.Truth.Healthy {
		truth, rank = strings.Join(o.Truth.Class, "|")+" "+strings.Join(o.Truth.Service, "|"), fmt.Sprint(o.Rank)
	}
	if len(o.Named) > 0 {
		named = o.Named[0].Code + " " + o.Named[0].Class + " " + o.Named[0].Service
	}
	row := []string{o.Scenario, truth, named, rank, cmp.Or(o.Action, "-"), ms(o.Before.P99), "-", "-", percent(o.Before.Errors), fmt.Sprintf("%.2f", o.Before.Cost), "-", o.Verdict}
	if o.Forecast != nil {
		row[6] = ms(o.Forecast.P99)
	}
	if o.After != nil {
		row[7] = ms(o.After.P99)
		row[8] += " → " + percent(o.After.Errors)
		row[9] += fmt.Sprintf(" → %.2f", o.After.Cost)
	}
	if o.Cure != nil {
		row[10] = o.Cure.Kind + " " + o.Cure.Phase
	}
	return row
}

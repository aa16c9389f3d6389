package main

import (
	"bytes"
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
	"github.com/longpole/longpole/internal/rollout"
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
	cmd.AddCommand(newLabList(), newLabRun(), newLabScore(), newLabUp(), newLabChaos(), newLabSchema(), newLabService())
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
			s, err := lab.ReadScenario(name, data)
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
ours as a canary, measure again. Each takes about 20 s, and one to three minutes more where a change is tried.

A row says whether the diagnosis named the planted class and service (and at which rank), what the first action was, and
what clients saw before, what was predicted, and after. Exits 99 when a scenario does not pass.

With --results, each outcome is kept in FILE as a line of JSON as soon as it is there; with --resume, what is in FILE already is
not run again. ` + "`longpole lab score FILE`" + ` says what the outcomes are worth. With --runs, each scenario is run so many times, with seeds that
follow --seed. With --healthy, scenarios run without their faults, and only tell what clients see then.`

// labRun is the flags of `lab run`.
type labRun struct {
	output, results, save string
	resume, healthy       bool
	seed                  uint64
	runs                  int
	progress              *progress
	real                  realFlags
	with                  *lab.Real // nil = all in this process
	canary                time.Duration
	unsaved               error // why the traces of the last scenario are not in their folder
}

func newLabRun() *cobra.Command {
	o := &labRun{}
	cmd := &cobra.Command{
		Use:   "run SCENARIO...|all [-o table|json] [--runs N] [--results FILE [--resume]]",
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
			if o.runs < 1 || o.runs > maxLabRuns {
				return usagef("each run is of one seed", "--runs %d: want 1..%d", o.runs, maxLabRuns)
			}
			picked, err := pickScenarios(args)
			if err != nil {
				return err
			}
			if o.canary != 0 && o.canary < minCanary {
				return usagef("a trial warms up for the first two", "--canary %s: want 0 or at least %s", o.canary, minCanary)
			}
			if o.with, err = o.real.read(); err != nil {
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
	f.IntVar(&o.runs, "runs", 1, "how many times each scenario is run, each with a seed of its own")
	f.DurationVar(&o.canary, "canary", 0, "longest `TIME` of the trial of a cure; 0 = what its calls need for a verdict")
	o.real.add(cmd)
	f.BoolVar(&o.healthy, "healthy", false, "run without faults, to see what bounds on p99 are made of")
	return cmd
}

// maxLabRuns bounds --runs.
const maxLabRuns = 100

// minCanary bounds --canary.
const minCanary = 3 * time.Second

func (o *labRun) run(cmd *cobra.Command, picked []scenario.Scenario) error {
	done, err := o.begin()
	if err != nil {
		return &failure{code: exitError, err: err}
	}
	var all []lab.Outcome
	total, n := len(picked)*max(o.runs, 1), 0
	for round := range max(o.runs, 1) {
		seed := o.seed + uint64(round)
		for _, s := range picked {
			n++
			if k := slices.IndexFunc(done, func(x lab.Outcome) bool { return x.Scenario == s.Name && x.Seed == seed }); k >= 0 {
				all = append(all, done[k])
				continue
			}
			out, err := o.one(cmd, s, seed, fmt.Sprintf("%d of %d", n, total))
			if err != nil {
				return err
			}
			all = append(all, out)
		}
	}
	return o.conclude(cmd.OutOrStdout(), all)
}

// one runs a scenario and keeps what came of it.
func (o *labRun) one(cmd *cobra.Command, s scenario.Scenario, seed uint64, number string) (lab.Outcome, error) {
	if o.healthy {
		s.Faults, s.Truth = nil, scenario.Truth{Healthy: true}
	}
	began := time.Now()
	out, err := lab.Run(cmd.Context(), s, lab.TrialOptions{Seed: seed, Real: o.with, Canary: o.canary, Traces: o.keeper(s.Name), Progress: func(phase string) {
		o.progress.Show("%s: %s, %s: %s", number, s.Name, time.Since(began).Round(time.Second), phase)
	}})
	o.progress.Clear()
	switch {
	case err != nil && cmd.Context().Err() != nil:
		return out, context.Canceled
	case err != nil:
		return out, fmt.Errorf("%s: %w", s.Name, err)
	}
	if err := cmp.Or(o.keep(out), o.unsaved); err != nil {
		return out, &failure{code: exitError, err: err}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %s: %s: %s %s\n", number, s.Name, out.Verdict, strings.Join(out.Why, "; "))
	return out, nil
}

// begin makes the folder for traces, and reads the outcomes of the run that is resumed, or empties the results file. A last line that was cut off, as when the
// machine went down, is taken away: its scenario runs again.
func (o *labRun) begin() (done []lab.Outcome, err error) {
	if o.save != "" {
		if err := os.MkdirAll(o.save, 0o755); err != nil {
			return nil, err
		}
	}
	if o.results == "" {
		return nil, nil
	}
	if !o.resume {
		return nil, os.WriteFile(o.results, nil, 0o644)
	}
	done, whole, err := readOutcomes(o.results)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return done, os.Truncate(o.results, whole)
}

// readOutcomes reads a results file. What stands behind its last end of line is left out; whole is how many bytes come before.
func readOutcomes(name string) (all []lab.Outcome, whole int64, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, 0, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	n := 0
	for line := range bytes.Lines(data) {
		n++
		var x lab.Outcome
		if err := json.Unmarshal(line, &x); err != nil {
			return nil, 0, fmt.Errorf("%s:%d: %w; want one outcome of `longpole lab run` a line", name, n, err)
		}
		all = append(all, x)
	}
	return all, int64(len(data)), nil
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
		err = cmp.Or(err, os.WriteFile(o.save+"/"+name+".otlp", ingest.EncodeOTLP(spans), 0o644))
		o.unsaved = cmp.Or(err, os.WriteFile(o.save+"/"+name+".facts.json", facts, 0o644))
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
	for _, o := range all {
		if o.Cure != nil && o.Cure.Phase != string(rollout.Promoted) {
			fmt.Fprintf(w, "\n%s: canary of %s on %s ended %s: %s\n", o.Scenario, o.Cure.Kind, o.Cure.Route, o.Cure.Phase, o.Cure.Why)
		}
	}
	fmt.Fprintln(w)
	renderScore(w, tally)
}

func outcomeRow(o lab.Outcome) []string {
	truth, named, rank := "healthy", "-", "-"
	if !o.Truth.Healthy {
		truth, rank = strings.Join(o.Truth.Class, "|")+" "+strings.Join(o.Truth.Service, "|"), fmt.Sprint(o.Rank)
	}
	if len(o.Named) > 0 {
		named = o.Named[0].Code + " " + o.Named[0].Class + " " + o.Named[0].Service
	}
	row := []string{o.Scenario, truth, named, rank, cmp.Or(o.Action, "-"), measured(o.Before), "-", "-", percent(o.Before.Errors), fmt.Sprintf("%.2f", o.Before.Cost), "-", o.Verdict}
	if o.Forecast != nil {
		row[6] = ms(o.Forecast.P99)
	}
	if o.After != nil {
		row[7] = measured(*o.After)
		row[8] += " → " + percent(o.After.Errors)
		row[9] += fmt.Sprintf(" → %.2f", o.After.Cost)
	}
	if o.Cure != nil {
		row[10] = o.Cure.Kind + " " + o.Cure.Phase
	}
	return row
}

// measured is a p99, with a mark where the generator's own lateness blurs it; that of no call is none.
func measured(m lab.Measure) string {
	if m.Calls == 0 {
		return "none" // ended
	}
	if m.Doubted {
		return ms(m.P99) + " ?"
	}
	return ms(m.P99)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scenario"
)

const labChaosLong = `Let random faults strike a running system, each with a hypothesis about what protects its clients, and see which hold.

The schedule is drawn from the seed: every so often a fault (or a few) of the kinds that the topology has a place for, for
about half of that time. Each is followed by time to recover. A fault is taken away at once when too many calls fail or p99
is too high for a while. The report says for each fault whether its hypothesis held, what clients saw, how long recovery took,
and which policies reacted, by the gateway's own counters. Exits 99 when a hypothesis did not hold.

Without a scenario, a shop with several replicas of each service and every policy on is used. The scenario's own faults are
left out.`

const realChaosLong = ` Servers that the lab started are among what is killed and started again.`

func newLabChaos() *cobra.Command {
	var output string
	var o lab.ChaosOptions
	var real realFlags
	cmd := &cobra.Command{
		Use:   "chaos [SCENARIO|FILE] [--for 5m] [--real] [-o table|json|html]",
		Short: "Let random faults strike, and see which policies react and which hypotheses hold",
		Long:  labChaosLong,
		Example: `  longpole lab chaos
  longpole lab chaos healthy --for 2m --seed 7
  longpole lab chaos --real -o html > chaos.html
  longpole lab chaos my-system.yaml --every 30s --at-once 2 -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json", "html"); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return usagef("`longpole lab chaos --help` has the bounds", "%v", err)
			}
			var err error
			if o.Real, err = real.read(); err != nil {
				return err
			}
			spec, err := chaosScenario(args)
			if err != nil {
				return err
			}
			return labChaos(cmd, spec, o, output)
		},
	}
	real.add(cmd)
	cmd.Long += realChaosLong
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "table", "`FORMAT`: table, json or html")
	f.DurationVar(&o.For, "for", 5*time.Minute, "how long the schedule is")
	f.DurationVar(&o.Every, "every", 20*time.Second, "from one fault to the next; at least 6s")
	f.IntVar(&o.AtOnce, "at-once", 1, "most faults on at the same time; 1..3")
	f.Uint64Var(&o.Seed, "seed", 1, "of the schedule and of all times")
	f.Float64Var(&o.StopErrors, "stop-errors", 0.5, "take faults away above this `SHARE` of failed calls, 0..1")
	f.DurationVar(&o.StopP99, "stop-p99", 5*time.Second, "take faults away above this p99")
	f.DurationVar(&o.StopAfter, "stop-after", 3*time.Second, "how long either must last")
	return cmd
}

func chaosScenario(args []string) (scenario.Scenario, error) {
	switch len(args) {
	case 0:
		return lab.ChaosShop()
	case 1:
	default:
		return scenario.Scenario{}, usagef("start another `longpole lab chaos` for another one", "one scenario at a time, but got %d", len(args))
	}
	picked, err := pickScenarios(args)
	if err != nil {
		return scenario.Scenario{}, err
	}
	if len(picked) != 1 {
		return scenario.Scenario{}, usagef("name one of `longpole lab list`", "one scenario at a time, but got %d", len(picked))
	}
	return picked[0], nil
}

func labChaos(cmd *cobra.Command, spec scenario.Scenario, o lab.ChaosOptions, output string) error {
	shown := newProgress(cmd.ErrOrStderr())
	o.Progress = func(phase string) { shown.Show("%s: %s", spec.Name, phase) }
	o.Ended = func(results []lab.ChaosResult) {
		shown.Clear()
		for _, r := range results {
			fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %s at %s: %s\n", r.Kind, r.Where, heldOr(r))
		}
	}
	report, err := lab.Chaos(cmd.Context(), spec, o)
	shown.Clear()
	switch {
	case errors.Is(err, lab.ErrCalm):
		return &failure{code: exitInconclusive, err: err, hint: "the hypotheses are relative to the calm; take a scenario without a problem of its design, or a machine with less to do"}
	case err != nil:
		return err
	case output == "json":
		err = writeJSON(cmd.OutOrStdout(), report)
	case output == "html":
		err = lab.WriteChaosReport(cmd.OutOrStdout(), report)
	default:
		renderChaos(cmd.OutOrStdout(), report)
	}
	switch broken := len(report.Faults) - report.Held; {
	case err != nil:
		return err
	case report.Interrupted:
		return context.Canceled
	case broken > 0:
		return &failure{code: exitThreshold, err: fmt.Errorf("%d of %s did not hold", broken, plural(len(report.Faults), "hypothesis", "hypotheses"))}
	}
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func heldOr(r lab.ChaosResult) string {
	switch {
	case r.Held && r.Out:
		return "held; the replica had been ejected before"
	case r.Held:
		return "held"
	case r.Late:
		return "did not hold, on a machine that is too busy: " + strings.Join(r.Why, "; ")
	}
	return "did not hold: " + strings.Join(r.Why, "; ")
}

func renderChaos(w io.Writer, report lab.ChaosReport) {
	rows := [][]string{{"AT", "FAULT", "WHERE", "HELD", "ERRORS", "P99", "RECOVERED", "REACTED"}}
	for _, r := range report.Faults {
		held, recovered := "yes", "no"
		switch {
		case !r.Held && r.Late:
			held = "NO ?"
		case !r.Held:
			held = "NO"
		}
		if r.Recovered != nil {
			recovered = ms(*r.Recovered)
		}
		rows = append(rows, []string{
			r.At.Round(time.Second).String(), r.Kind, r.Where, held,
			percent(r.Before.Errors) + " → " + percent(r.During.Errors) + " → " + percent(r.After.Errors),
			ms(r.Before.P99) + " → " + ms(r.During.P99) + " → " + ms(r.After.P99), recovered, cmp.Or(reactionsText(r), "-"),
		})
	}
	table(w, rows)
	fmt.Fprintf(w, "\n%s with seed %d: %d of %s held, in %s; calm before: p99 %s, errors %s\n", report.Scenario, report.Seed, report.Held,
		plural(len(report.Faults), "hypothesis", "hypotheses"), time.Duration(report.Seconds*1e9).Round(time.Second), ms(report.Calm.P99), percent(report.Calm.Errors))
	fmt.Fprintln(w, "Errors and p99 are those of all clients before → during → after. A ? says that the load generator itself was late.")
	for _, r := range report.Faults {
		fmt.Fprintf(w, "\n%s at %s: %s\n  expected: %s\n  result:   %s\n", r.Kind, r.Where, r.What, r.Hypothesis.Text, heldOr(r))
	}
	for _, d := range report.Doubts {
		fmt.Fprintf(w, "\ndoubt: %s\n", d)
	}
}

func reactionsText(r lab.ChaosResult) string {
	var all []string
	for _, x := range r.Reactions {
		_, what, _ := strings.Cut(x.Policy, " ")
		text := fmt.Sprintf("%s %d after %s", what, x.Count, ms(x.After.Seconds()*1e3))
		if x.Usual >= 1 {
			text += fmt.Sprintf(" (%.0f in the calm)", x.Usual)
		}
		all = append(all, text)
	}
	if r.Refused > 0 {
		all = append(all, fmt.Sprintf("retry refused by its budget %d", r.Refused))
	}
	return strings.Join(all, ", ")
}

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/lab"
)

const labScoreLong = `Print what the outcomes in files of ` + "`longpole lab run --results`" + ` say about each promise: how often the planted problem was
named first and among the first three, whether nothing was named in the healthy ones, how often the first action was an expected one,
how many cures of ours kept within their bound, how far predictions were off and how often their 90 % intervals held.
Exits 99 when a promise is broken.`

func newLabScore() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "score FILE... [-o table|json]", Short: "Say what the results of runs are worth", Long: labScoreLong,
		Example: "  longpole lab run all --results lab.jsonl\n  longpole lab score lab.jsonl",
		Args:    minArgs(1, "a results file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			var all []lab.Outcome
			for _, name := range args {
				list, _, err := readOutcomes(name)
				if err != nil {
					return &failure{code: exitError, err: err}
				}
				all = append(all, list...)
			}
			if len(all) == 0 {
				return &failure{code: exitError, err: fmt.Errorf("no outcome in %s", strings.Join(args, ", "))}
			}
			tally := lab.Count(all)
			if output == "json" {
				if err := writeJSON(cmd.OutOrStdout(), map[string]any{"tally": tally, "promises": tally.Promises()}); err != nil {
					return err
				}
			} else {
				renderScore(cmd.OutOrStdout(), tally)
			}
			broken := 0
			for _, p := range tally.Promises() {
				if p.Broken() {
					broken++
				}
			}
			if broken > 0 {
				return &failure{code: exitThreshold, err: fmt.Errorf("%s broken", plural(broken, "promise is", "promises are"))}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

// renderScore prints what outcomes say about each promise.
func renderScore(w io.Writer, t lab.Tally) {
	fmt.Fprintf(w, "%d of %s pass, in %s\n", t.Passed, count(t.Scenarios, "scenario"), time.Duration(t.Seconds*1e9).Round(time.Second))
	rows := [][]string{{"PROMISE", "WANTED", "MEASURED", "HELD"}}
	for _, p := range t.Promises() {
		wanted, held := fmt.Sprintf("%.0f %%", 100*p.Wanted), "yes"
		if p.AtMost {
			wanted = "at most " + wanted
		}
		switch {
		case !p.Bound:
			wanted, held = "-", "-"
		case p.Of == 0:
			held = "-"
		case p.Broken():
			held = "NO"
		}
		rows = append(rows, []string{p.Text, wanted, p.Told(), held})
	}
	table(w, rows)
	fmt.Fprintf(w, "%s: %d promoted, %d inconclusive, %d ended otherwise\n", plural(t.Tried, "canary", "canaries"), t.Promoted, t.Inconclusive, t.Tried-t.Promoted-t.Inconclusive)
	if t.Late > 0 {
		fmt.Fprintf(w, "in %s the generator sent late or dropped calls, so that latencies marked ? are the machine's as much as the system's\n", count(t.Late, "run"))
	}
}

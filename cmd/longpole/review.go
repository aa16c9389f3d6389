package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/staging"
)

const reviewLong = `Review the changes that were promoted, and the settings that may have gone stale: which optimisations still help, which
decayed, which do harm now; lints with their mends, of databases and pools behind too; new long poles since the last review; how
long the headroom lasts; how good the adviser's forecasts were; which faults were never exercised.

It asks a running gateway: --admin, or LONGPOLE_ADMIN. The gateway also reviews by itself, every week unless its file says
otherwise under review:.

Exits 99 when a promoted change is NOW HARMFUL.`

func newReview() *cobra.Command {
	var c adminClient
	var output string
	var newest bool
	cmd := &cobra.Command{
		Use:   "review [-o text|markdown|html|json] [--last]",
		Short: "Say which optimisations still help, what is stale, and what the new long pole is",
		Long:  reviewLong,
		Example: `  longpole review
  longpole review -o html > review.html`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "text", "markdown", "html", "json"); err != nil {
				return err
			}
			method := http.MethodPost
			if newest {
				method = http.MethodGet
			}
			var r review.Review
			if err := c.do(cmd.Context(), method, "/api/v1/review", nil, &r); err != nil {
				return err
			}
			if err := renderReview(cmd.OutOrStdout(), &r, output); err != nil {
				return err
			}
			if bad := r.Harmful(); len(bad) > 0 {
				return &failure{code: exitThreshold, err: fmt.Errorf("%s of route %s is now harmful", bad[0].Rollout, bad[0].Route), hint: "`longpole rollout undo " + bad[0].Rollout + "` puts the policy before in force"}
			}
			return nil
		},
	}
	c.flags(cmd.PersistentFlags())
	cmd.AddCommand(newReviewDismiss(&c), newReviewReopen(&c), newReviewDismissed(&c))
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`FORMAT`: text, markdown, html or json")
	cmd.Flags().BoolVar(&newest, "last", false, "show the last review instead of making a new one")
	return cmd
}

// renderReview writes a review in one of its forms.
func renderReview(w io.Writer, r *review.Review, output string) error {
	switch output {
	case "markdown":
		return r.Markdown(w)
	case "html":
		return r.HTML(w)
	case "json":
		return writeJSON(w, r)
	}
	return r.Text(w)
}

func newRolloutRecord(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use:   "record [ID]",
		Short: "Print the record of a promoted rollout, for the folder that the next environment reads",
		Long: `Print the record of a promoted rollout as JSON. Put it in the folder that the next environment names under
environment.records, which may be under version control: there it allows the same change, and no other.`,
		Example: "  longpole rollout record r3 > records/orders-hedge.json",
		Args:    maxOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.pick(cmd.Context(), args)
			if err != nil {
				return err
			}
			var answer struct{ Records []staging.Record }
			if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/records", nil, &answer); err != nil {
				return err
			}
			for _, r := range answer.Records {
				if r.Rollout == id {
					if !r.Verified() {
						fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %s was promoted without evidence (%s); the next environment will not accept it\n", id, r.Verdict)
					}
					return writeJSON(cmd.OutOrStdout(), r)
				}
			}
			return &failure{code: exitError, err: fmt.Errorf("rollout %s has no record: it promoted nothing that is in force", id), hint: "`longpole rollout list` shows how it ended"}
		},
	}
}

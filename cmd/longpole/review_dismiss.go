package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/review"
)

const dismissalsPath = "/api/v1/dismissals"

const dismissLong = `Leave a finding as it is for a while: of the newest review (LP3xx), or of the present diagnosis (LP1xx). FINDING is its code and
what it is about, as the review prints them; with a code alone, and --route, all findings of that code about the route, and
without --route all of that code.

The review shows it as dismissed, by whom and why, and counts it no more. It comes back by itself when the time is over, when it
has grown by a fifth, or when it stands on other evidence. What harms now cannot be dismissed. With a state folder dismissals
outlive a restart; each stands in the journal.`

func newReviewDismiss(c *adminClient) *cobra.Command {
	var o review.Order
	cmd := &cobra.Command{
		Use:   "dismiss CODE|FINDING --reason TEXT --until DATE [--route ROUTE] [--by NAME]",
		Short: "Leave a finding as it is for a while",
		Long:  dismissLong,
		Example: `  longpole review dismiss LP301 --route orders --reason "exports take as long" --until 2026-12-31
  longpole review dismiss "LP318 public.orders_note of shop" --reason "the yearly audit reads it" --until 2027-01-31`,
		Args: minArgs(1, "the code of a finding, or the finding as the review prints it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Until == "" {
				return usagef("a date as 2026-12-31, at most a year ahead: nothing is dismissed for ever", "--until DATE is missing")
			}
			if _, err := review.ParseUntil(o.Until, time.Now()); err != nil {
				return usagef("as 2026-12-31", "--until: %w", err)
			}
			list, err := c.orderDismissals(cmd, dismissalsPath, o, args)
			if err != nil {
				return err
			}
			for _, d := range list {
				fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %s %s is dismissed until %s\n", d.Code, d.Subject, d.Until.Format("2006-01-02 15:04 MST"))
			}
			return nil
		},
	}
	orderFlags(cmd, &o)
	cmd.Flags().StringVar(&o.Until, "until", "", "`DATE` after which it is back, as 2026-12-31; required")
	return cmd
}

func newReviewReopen(c *adminClient) *cobra.Command {
	var o review.Order
	cmd := &cobra.Command{
		Use:   "reopen CODE|FINDING --reason TEXT [--route ROUTE] [--by NAME]",
		Short: "Take a dismissal back",
		Args:  minArgs(1, "the code of a finding, or the finding as the review prints it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.orderDismissals(cmd, dismissalsPath+"/reopen", o, args)
			if err != nil {
				return err
			}
			for _, d := range list {
				fmt.Fprintf(cmd.ErrOrStderr(), "longpole: %s %s is open again\n", d.Code, d.Subject)
			}
			return nil
		},
	}
	orderFlags(cmd, &o)
	return cmd
}

func orderFlags(cmd *cobra.Command, o *review.Order) {
	cmd.Flags().StringVar(&o.Subject, "route", "", "`ROUTE` that it is about (default all that have the code)")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "`TEXT`: why; required")
	cmd.Flags().StringVar(&o.By, "by", "", "`NAME` of who says so (default the user of this machine)")
}

// orderDismissals sends an order about the finding that args name.
func (c *adminClient) orderDismissals(cmd *cobra.Command, path string, o review.Order, args []string) ([]review.Dismissal, error) {
	code, subject, _ := strings.Cut(strings.Join(args, " "), " ")
	if subject = strings.TrimSpace(subject); subject != "" {
		if o.Subject != "" {
			return nil, usagef("leave --route out", "%q says already what it is about", subject)
		}
		o.Subject = subject
	}
	o.Code, o.By = strings.ToUpper(code), cmp.Or(o.By, whoami())
	if o.Reason == "" {
		return nil, usagef("whoever reads the review will want to know", "--reason TEXT is missing")
	}
	var answer struct{ Dismissals []review.Dismissal }
	err := c.do(cmd.Context(), http.MethodPost, path, o, &answer)
	return answer.Dismissals, err
}

// whoami is the user of this machine.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), "somebody")
}

func newReviewDismissed(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "dismissed [-o table|json]", Short: "List what is dismissed", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			var answer struct {
				Dismissals []review.Dismissal `json:"dismissals"`
			}
			if err := c.do(cmd.Context(), http.MethodGet, dismissalsPath, nil, &answer); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), answer.Dismissals)
			}
			if len(answer.Dismissals) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "longpole: nothing is dismissed")
				return nil
			}
			rows := [][]string{{"CODE", "ABOUT", "BY", "SINCE", "UNTIL", "REASON"}}
			for _, d := range answer.Dismissals {
				rows = append(rows, []string{d.Code, cut(d.Subject, 60), d.By, d.At.Format(time.DateOnly), d.Until.Format("2006-01-02 15:04"), cut(d.Reason, 60)})
			}
			table(cmd.OutOrStdout(), rows)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

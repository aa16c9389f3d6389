package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/offload"
)

const (
	jobsPath = "/api/v1/jobs"
	deadPath = jobsPath + "/dead"
)

const jobsLong = `Look after the calls that routes with offload: have put off. Each such route has a queue of its name. A job that failed too
often, or for good, is a dead letter: it waits, with its request, until it is replayed, deleted or too old.

The commands speak to the admin address of a running gateway: --admin, or LONGPOLE_ADMIN; with the gateway's own
LONGPOLE_ADMIN_TOKEN where it has one.`

func newJobs() *cobra.Command {
	return adminGroup(&cobra.Command{Use: "jobs", Short: "Look after calls that were put off, and replay those that failed for good", Long: jobsLong},
		newJobsList, newJobsGet, newJobsReplay, newJobsDelete)
}

// letters is a page of dead letters.
type letters struct {
	Letters []offload.Letter `json:"letters"`
	More    bool             `json:"more"`
}

func newJobsList(c *adminClient) *cobra.Command {
	var output string
	var dead bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list [--dead QUEUE] [-o table|json]",
		Short: "List the queues, or the dead letters of one",
		Long: `List the queues: how many jobs wait and run, how old the oldest is, and what became of the others since the gateway began.
With --dead, list the dead letters of a queue, the oldest first.`,
		Example: `  longpole jobs list
  longpole jobs list --dead orders`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dead {
				return oneArg("the name of a queue")(cmd, args)
			}
			return noArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			if !dead {
				return c.listQueues(cmd, output)
			}
			if limit < 1 {
				return usagef("want 1 or more", "--limit %d is too small", limit)
			}
			return c.listDead(cmd, output, args[0], limit)
		},
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "list the dead letters of the queue that is named")
	cmd.Flags().IntVar(&limit, "limit", 100, "`NUMBER` of dead letters that are listed at most")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func (c *adminClient) listQueues(cmd *cobra.Command, output string) error {
	answer := struct{ Queues []offload.QueueStatus }{}
	if err := c.do(cmd.Context(), http.MethodGet, jobsPath, nil, &answer); err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if output == "json" {
		return writeJSON(w, answer.Queues)
	}
	rows := [][]string{{"QUEUE", "QUEUED", "RUNNING", "OLDEST", "DEAD", "ACCEPTED", "DELIVERED", "FAILED TRIES", "WAIT P99", "DELIVERY P99"}}
	for _, q := range answer.Queues {
		row := []string{
			q.Queue, number(q.Queued), number(q.Running), age(time.Duration(q.OldestMS * float64(time.Millisecond))), number(q.Dead),
			number(q.Accepted), number(q.Delivered), number(q.Retried), ms(q.WaitMS.P99), ms(q.DeliveryMS.P99),
		}
		if !q.Reachable {
			row[1], row[3], row[4] = "?", "?", "?"
			fmt.Fprintf(cmd.ErrOrStderr(), "longpole: the job store of %s does not answer; what it holds is not known\n", q.Queue)
		}
		rows = append(rows, row)
	}
	table(w, rows)
	if len(answer.Queues) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "longpole: no route puts calls off; `offload: {}` on a route does")
	}
	return nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// age is a time in its largest sensible unit.
func age(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func (c *adminClient) listDead(cmd *cobra.Command, output, queue string, limit int) error {
	all, err := c.dead(cmd.Context(), queue, limit)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if output == "json" {
		return writeJSON(w, all)
	}
	rows := [][]string{{"ID", "DIED", "REASON", "TRIES", "STATUS", "REQUEST", "ERROR"}}
	for _, l := range all.Letters {
		rows = append(rows, []string{
			l.ID, l.At.Local().Format(time.DateTime), l.Reason, strconv.Itoa(l.Attempts), strconv.Itoa(l.Status), cut(l.Method+" "+l.Target, 50), cut(l.Error, 60),
		})
	}
	table(w, rows)
	switch {
	case all.More:
		fmt.Fprintf(cmd.ErrOrStderr(), "longpole: there are more; --limit shows them\n")
	case len(all.Letters) == 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "longpole: no dead letter in %s\n", queue)
	}
	return nil
}

// dead gets up to limit dead letters, page by page.
func (c *adminClient) dead(ctx context.Context, queue string, limit int) (letters, error) {
	all := letters{Letters: []offload.Letter{}, More: true}
	for all.More && len(all.Letters) < limit {
		q := url.Values{"queue": {queue}, "limit": {strconv.Itoa(min(limit-len(all.Letters), offload.MaxPage))}}
		if n := len(all.Letters); n > 0 {
			q.Set("after", strconv.FormatUint(all.Letters[n-1].Place, 10))
		}
		var page letters
		if err := c.do(ctx, http.MethodGet, deadPath+"?"+q.Encode(), nil, &page); err != nil {
			return all, err
		}
		all.Letters, all.More = append(all.Letters, page.Letters...), page.More && len(page.Letters) > 0
	}
	return all, nil
}

func newJobsGet(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show where a job stands; of a dead letter its request too", Args: oneArg("the ID of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			job, err := c.job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), job)
			}
			job.text(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`FORMAT`: text or json")
	return cmd
}

// jobView is all that is known of a job.
type jobView struct {
	Job    *offload.Status `json:"job,omitempty"` // nil = it ended long ago
	Letter *offload.Letter `json:"letter,omitempty"`

	Request json.RawMessage `json:"request,omitempty"` // of a dead letter that can be read
}

func (c *adminClient) job(ctx context.Context, id string) (jobView, error) {
	var v jobView
	var s offload.Status
	err := c.do(ctx, http.MethodGet, jobsPath+"/"+url.PathEscape(id), nil, &s)
	if err == nil {
		v.Job = &s
		if s.State != offload.Dead {
			return v, nil
		}
	}
	// A dead letter outlives the state of its job.
	if second := c.do(ctx, http.MethodGet, deadPath+"/"+url.PathEscape(id), nil, &v); second != nil && v.Job == nil {
		return v, err
	}
	return v, nil
}

// text writes what is not empty, a line each.
func (v jobView) text(w io.Writer) {
	add := func(name, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(w, "%-16s %s\n", name, value)
		}
	}
	if s := v.Job; s != nil {
		add("id", s.ID)
		add("queue", s.Queue)
		add("state", string(s.State))
		add("tries", strconv.Itoa(s.Attempts))
		add("accepted", s.Accepted.Local().Format(time.DateTime))
		if s.Next != nil {
			add("next try", s.Next.Local().Format(time.DateTime))
		}
		add("last status", strconv.Itoa(s.Status))
		add("last error", s.Error)
	}
	if l := v.Letter; l != nil {
		if v.Job == nil {
			add("id", l.ID)
			add("queue", l.Queue)
			add("state", string(offload.Dead))
			add("tries", strconv.Itoa(l.Attempts))
			add("last error", l.Error)
		}
		add("died", l.At.Local().Format(time.DateTime))
		add("reason", l.Reason)
		add("request", l.Method+" "+l.Host+l.Target)
		add("body bytes", strconv.Itoa(l.Bytes))
		add("idempotency key", l.Key)
	}
}

func newJobsReplay(c *adminClient) *cobra.Command {
	var all string
	cmd := &cobra.Command{
		Use:   "replay (ID... | --all QUEUE)",
		Short: "Give dead letters a new life: the same request, ID and idempotency key, and no tries yet",
		Example: `  longpole jobs replay 5f0c6a...
  longpole jobs replay --all orders`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case (all == "") == (len(args) == 0):
				return usagef("`longpole jobs list --dead QUEUE` shows the IDs", "give either the IDs of dead letters or --all QUEUE")
			case all != "":
				return c.replayAll(cmd, all)
			}
			return c.each(cmd, args, "replayed", func(id string) error {
				return c.do(cmd.Context(), http.MethodPost, deadPath+"/"+url.PathEscape(id)+"/replay", nil, nil)
			})
		},
	}
	cmd.Flags().StringVar(&all, "all", "", "replay all that are in this `QUEUE` now")
	return cmd
}

func (c *adminClient) replayAll(cmd *cobra.Command, queue string) error {
	var answer struct {
		Replayed int
		Error    string
	}
	if err := c.do(cmd.Context(), http.MethodPost, deadPath+"/replay?"+url.Values{"queue": {queue}}.Encode(), nil, &answer); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s replayed\n", count(answer.Replayed, "dead letter"))
	if answer.Error != "" {
		return &failure{code: exitError, err: fmt.Errorf("the rest stays: %s", answer.Error), hint: "call it again when the store answers, or the queue has room"}
	}
	return nil
}

func newJobsDelete(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID...", Short: "Drop dead letters for good", Args: func(cmd *cobra.Command, args []string) error {
			return minArgs(1, "the ID of at least one dead letter")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.each(cmd, args, "deleted", func(id string) error {
				return c.do(cmd.Context(), http.MethodDelete, deadPath+"/"+url.PathEscape(id), nil, nil)
			})
		},
	}
}

// each does something with every ID and says which worked. The error is of those that did not, a line each.
func (c *adminClient) each(cmd *cobra.Command, ids []string, done string, do func(id string) error) error {
	var lines []string
	fail := &failure{code: exitError}
	for _, id := range ids {
		if err := do(id); err != nil {
			lines = append(lines, id+": "+plain(err))
			errors.As(err, &fail)
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), id, done)
	}
	if lines == nil {
		return nil
	}
	return &failure{code: fail.code, err: errors.New(strings.Join(lines, "\n")), hint: fail.hint}
}

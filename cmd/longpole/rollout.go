package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/web"
)

const rolloutLong = `Replace the policy of a route on live traffic: a share of the calls is drawn at random to the candidate, an equal share is
the baseline beside it, and a test that stays valid however often one looks decides between them.

The commands speak to the admin address of a running gateway: --admin, or LONGPOLE_ADMIN; with a token in
LONGPOLE_ADMIN_TOKEN where one is needed.`

// adminClient speaks to the admin API.
type adminClient struct {
	base, token string
}

func newRollout() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use: "rollout", Short: "Try a policy change on live traffic and let the evidence decide", Long: rolloutLong,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("see `longpole rollout --help`", "unknown command %q for rollout", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.token = os.Getenv("LONGPOLE_ADMIN_TOKEN")
	cmd.PersistentFlags().StringVar(&c.base, "admin", cmp.Or(os.Getenv("LONGPOLE_ADMIN"), "http://127.0.0.1:9901"), "admin address of the gateway")
	cmd.AddCommand(newRolloutStart(&c), newRolloutList(&c), newRolloutGet(&c), newRolloutWatch(&c),
		newRolloutSteer(&c, "promote", "Make the candidate the policy now, whatever the evidence"),
		newRolloutSteer(&c, "abort", "Drop the candidate and keep the policy in force"))
	return cmd
}

// do makes one request. into may be nil.
func (c *adminClient) do(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		data, err := conf.MarshalJSON(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(data)
	}
	base := c.base
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, payload)
	if err != nil {
		return usagef("want a URL as http://127.0.0.1:9901", "--admin: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return &failure{code: exitError, err: err, hint: "is `longpole serve` running, and is --admin its admin address?"}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var p struct{ Error string }
		if json.Unmarshal(data, &p) != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return fmt.Errorf("%s", p.Error)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

func newRolloutStart(c *adminClient) *cobra.Command {
	var q web.Request
	var to, output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "start --route NAME (--advice CODE | --to FILE)",
		Short: "Start a rollout",
		Example: `  longpole rollout start --route orders --advice LP103 --watch
  longpole rollout start --route orders --to policy.yaml --goal no_worse --reason "shorter timeout"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			if to != "" {
				p, err := readPolicy(cmd, to)
				if err != nil {
					return err
				}
				q.To = &p
			}
			var s rollout.Status
			if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/rollouts", q, &s); err != nil {
				return err
			}
			if watch {
				return c.watch(cmd, s.ID)
			}
			return showRollouts(cmd.OutOrStdout(), output, []rollout.Status{s})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Route, "route", "", "route whose policy is to change")
	f.StringVar(&q.Advice, "advice", "", "try the change that this finding carries, as LP103")
	f.StringVar(&to, "to", "", "file with the whole new policy, or - for standard input")
	f.StringVar(&q.Goal, "goal", "", "improve or no_worse (default improve)")
	f.StringVar(&q.Target, "target", "", "what to improve: p50, p95, p99, errors, timeouts, attempts (default p99)")
	f.Float64SliceVar(&q.Steps, "steps", nil, "shares of the candidate (default 0.05,0.1,0.25,0.5)")
	f.DurationVar(&q.Slice, "slice", 0, "time between two looks (default 10s)")
	f.DurationVar(&q.Warmup, "warmup", 0, "time that is not judged (default 30s)")
	f.DurationVar(&q.MaxDuration, "max-duration", 0, "of the whole rollout (default 30m)")
	f.StringVar(&q.OnInconclusive, "on-inconclusive", "", "rollback or promote when time is up (default rollback)")
	f.StringVar(&q.Reason, "reason", "", "why, for the journal")
	f.BoolVarP(&watch, "watch", "w", false, "watch it until it ends")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	cmd.MarkFlagsMutuallyExclusive("advice", "to")
	return cmd
}

func readPolicy(cmd *cobra.Command, path string) (longpole.Config, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(cmd.InOrStdin())
	} else {
		data, err = os.ReadFile(path)
	}
	var p longpole.Config
	if err == nil {
		err = conf.Load(path, data, &p, func(p *longpole.Config) error { return p.Validate() })
	}
	if err != nil {
		return p, &failure{code: exitConfig, err: err, hint: "the file holds what stands under `policy:` of a route"}
	}
	return p, nil
}

func newRolloutList(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List rollouts, running and ended", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			all, err := c.list(cmd.Context())
			if err != nil {
				return err
			}
			return showRollouts(cmd.OutOrStdout(), output, all)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func (c *adminClient) list(ctx context.Context) ([]rollout.Status, error) {
	var answer struct{ Rollouts []rollout.Status }
	err := c.do(ctx, http.MethodGet, "/api/v1/rollouts", nil, &answer)
	return answer.Rollouts, err
}

// pick finds the rollout that is meant: args[0], or else the only one that runs, or else the newest.
func (c *adminClient) pick(ctx context.Context, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	all, err := c.list(ctx)
	if err != nil {
		return "", err
	}
	var running []string
	for _, s := range all {
		if !s.Phase.Final() {
			running = append(running, s.ID)
		}
	}
	switch {
	case len(running) == 1:
		return running[0], nil
	case len(running) > 1:
		return "", usagef("name one of "+strings.Join(running, ", "), "%d rollouts are running", len(running))
	case len(all) > 0:
		return all[len(all)-1].ID, nil
	}
	return "", usagef("`longpole rollout start` starts one", "there is no rollout")
}

func (c *adminClient) get(ctx context.Context, id string) (s rollout.Status, err error) {
	err = c.do(ctx, http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(id), nil, &s)
	return s, err
}

func newRolloutGet(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get [ID]", Short: "Show one rollout with its evidence and journal", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			id, err := c.pick(cmd.Context(), args)
			if err != nil {
				return err
			}
			s, err := c.get(cmd.Context(), id)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			renderRollout(cmd.OutOrStdout(), s)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func newRolloutWatch(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ID]",
		Short: "Watch a rollout until it ends",
		Long:  "Watch a rollout until it ends. Exits 0 when it was promoted, 99 when it was rolled back, 98 when it stayed inconclusive, 97 when it was aborted.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.pick(cmd.Context(), args)
			if err != nil {
				return err
			}
			return c.watch(cmd, id)
		},
	}
}

func (c *adminClient) watch(cmd *cobra.Command, id string) error {
	told := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	line := newProgress(cmd.ErrOrStderr())
	for {
		s, err := c.get(cmd.Context(), id)
		if err != nil {
			return err
		}
		for ; told < len(s.Journal); told++ {
			line.Clear()
			e := s.Journal[told]
			fmt.Fprintf(cmd.ErrOrStderr(), "%s  %-11s %s\n", e.At.Local().Format("15:04:05"), e.Phase, e.Text)
		}
		if s.Phase.Final() {
			line.Clear()
			renderRollout(cmd.OutOrStdout(), s)
			return verdictError(s)
		}
		line.Show("%s", rolloutLine(s))
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return &failure{code: exitAborted, err: fmt.Errorf("stopped watching; %s goes on", id)}
		}
	}
}

// verdictError turns the end of a rollout into an exit code.
func verdictError(s rollout.Status) error {
	codes := map[rollout.Phase]int{rollout.RolledBack: exitThreshold, rollout.InconclusiveEnd: exitInconclusive, rollout.Aborted: exitAborted}
	if code, bad := codes[s.Phase]; bad {
		return &failure{code: code, err: fmt.Errorf("rollout %s of route %s: %s: %s", s.ID, s.Route, s.Phase, s.Outcome)}
	}
	return nil
}

func newRolloutSteer(c *adminClient, verb, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " [ID]", Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.pick(cmd.Context(), args)
			if err != nil {
				return err
			}
			var s rollout.Status
			body := map[string]string{"reason": reason}
			if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/rollouts/"+url.PathEscape(id)+"/"+verb, body, &s); err != nil {
				return err
			}
			return showRollouts(cmd.OutOrStdout(), "table", []rollout.Status{s})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the journal")
	return cmd
}

func showRollouts(w io.Writer, output string, all []rollout.Status) error {
	if output == "json" {
		return writeJSON(w, all)
	}
	rows := [][]string{{"ID", "ROUTE", "PHASE", "STEP", "WEIGHT", "VERDICT", "STARTED", "OUTCOME"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.ID, s.Route, string(s.Phase), fmt.Sprintf("%d/%d", s.Step, s.Steps), percent(s.Weight),
			cmp.Or(string(s.Judgement.Verdict), "-"), s.Started.Local().Format(time.DateTime), cut(cmp.Or(s.Outcome, "-"), 60),
		})
	}
	table(w, rows)
	return nil
}

// rolloutLine is a running rollout in one line.
func rolloutLine(s rollout.Status) string {
	return fmt.Sprintf("%s %s: %s, step %d of %d, %s of the calls, %d slices, %d + %d calls, %s",
		s.ID, s.Route, s.Phase, s.Step, s.Steps, percent(s.Weight), s.Judgement.Slices,
		s.Judgement.CandidateCalls, s.Judgement.BaselineCalls, cmp.Or(string(s.Judgement.Verdict), "not judged yet"))
}

func renderRollout(w io.Writer, s rollout.Status) {
	fmt.Fprintf(w, "rollout %s of route %s: %s\n", s.ID, s.Route, s.Phase)
	if s.Judgement.Sentence != "" {
		fmt.Fprintf(w, "  %s\n", s.Judgement.Sentence)
	}
	rows := [][]string{{"  MS", "P50", "P95", "P99"}}
	row := func(name string, q rollout.Quantiles) []string {
		at := func(d time.Duration) string { return ms(float64(d) / 1e6) }
		return []string{name, at(q.P50), at(q.P95), at(q.P99)}
	}
	rows = append(rows, row("  baseline", s.Baseline))
	if s.Predicted != nil {
		rows = append(rows, row("  predicted", *s.Predicted))
	}
	table(w, append(rows, row("  candidate", s.Measured)))
	metrics := [][]string{{"  METRIC", "VERDICT", "BASELINE", "CANDIDATE", "DIFFERENCE", "95 % INTERVAL", "UNIT"}}
	for _, m := range s.Judgement.Metrics {
		metrics = append(metrics, []string{"  " + m.Metric, string(m.Verdict), ms(m.Baseline), ms(m.Candidate),
			fmt.Sprintf("%+.4f", m.Difference), fmt.Sprintf("%+.4f .. %+.4f", m.Low, m.High), m.Unit})
	}
	table(w, metrics)
	for _, e := range s.Journal {
		fmt.Fprintf(w, "  %s  %-11s %s\n", e.At.Local().Format("15:04:05"), e.Phase, e.Text)
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/web"
)

const rolloutLong = `Replace the policy of a route on live traffic: a share of the calls is drawn at random to the candidate, an equal share is
the baseline beside it, and a test that stays valid however often one looks decides between them.

The commands speak to the admin address of a running gateway: --admin, or LONGPOLE_ADMIN; with the gateway's own
LONGPOLE_ADMIN_TOKEN where it has one. Without an ID they mean the only rollout that runs, or else the newest.`

const verdictCodes = `Exits 0 when it was promoted, 97 when it was aborted, 98 when it stayed inconclusive, 99 when it was rolled back.`

func newRollout() *cobra.Command {
	return adminGroup(&cobra.Command{Use: "rollout", Short: "Try a policy change on live traffic and let the evidence decide", Long: rolloutLong},
		newRolloutStart, newRolloutList, newRolloutGet, newRolloutWatch,
		newRolloutSteer("promote", "Make the candidate the policy now, whatever the evidence"),
		newRolloutSteer("pause", "Take the calls from the candidate until the rollout is resumed"),
		newRolloutSteer("resume", "Go on with a paused rollout"),
		newRolloutSteer("abort", "Drop the candidate and keep the policy in force"),
		newRolloutSteer("undo", "Take a promotion back: the policy without its change is in force with the next call"),
		newRolloutSteer("release", "End the holdback of a promoted change, which stays"),
		newRolloutHistory, newRolloutRecord)
}

func newRolloutStart(c *adminClient) *cobra.Command {
	var q web.Request
	var to, output string
	var holdback, shed float64
	var watch bool
	cmd := &cobra.Command{
		Use:   "start --route NAME (--advice CODE | --to FILE | --version UPSTREAM) [flags]",
		Short: "Start a rollout",
		Long:  "Start a rollout of a finding's cure or of a policy of your own. With --watch, wait for its end.\n" + verdictCodes,
		Example: `  longpole rollout start --route orders --advice LP103 --watch
  longpole rollout start --route orders --to policy.yaml --goal no_worse --reason "shorter timeout"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			switch {
			case q.Route == "":
				return usagef("`longpole rollout start --help` has examples", "--route NAME is missing")
			case !oneOf(q.Advice, to, q.Version):
				return usagef("--advice takes the cure of a finding, --to a policy of your own, --version another upstream of the route's split", "give one of --advice CODE, --to FILE and --version UPSTREAM")
			case watch && output != "table":
				return usagef("leave out --watch, and see `longpole rollout get -o json` later", "--watch has no -o %s", output)
			case to != "":
				p, err := readPolicy(cmd, to)
				if err != nil {
					return err
				}
				q.To = &p
			}
			if cmd.Flags().Changed("holdback") {
				q.Holdback = &holdback
			}
			if cmd.Flags().Changed("shed") {
				q.Shed = &shed
			}
			var s rollout.Status
			if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/rollouts", q, &s); err != nil {
				return err
			}
			if s.Plan != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "longpole: plan: "+s.Plan)
			}
			if watch {
				return c.watch(cmd, s.ID)
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			showRollouts(cmd.OutOrStdout(), []rollout.Status{s})
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Route, "route", "", "`NAME` of the route whose policy is to change")
	f.StringVar(&q.Advice, "advice", "", "try the change that the finding with this `CODE` carries, as LP103")
	f.StringVar(&q.Kind, "kind", "", "of the finding's cures, the one of this `KIND`, as hedge (default the best that carries a change)")
	f.StringVar(&to, "to", "", "`FILE` with the whole new policy, or - for standard input")
	f.StringVar(&q.Goal, "goal", "", "`GOAL`: improve or no_worse (default improve)")
	f.StringVar(&q.Target, "target", "", "`METRIC` to improve: "+strings.Join(judge.Metrics(), ", ")+" (default p99)")
	f.Float64SliceVar(&q.Steps, "steps", nil, "`SHARES` of the calls that the candidate gets, one after the other (default 0.01,0.05,0.25,0.5)")
	f.DurationVar(&q.Slice, "slice", 0, "`TIME` between two looks (default 10s)")
	f.DurationVar(&q.Warmup, "warmup", 0, "`TIME` at the start that is not judged (default 30s)")
	f.DurationVar(&q.MaxDuration, "max-duration", 0, "longest `TIME` of the whole rollout (default 30m)")
	f.StringVar(&q.Version, "version", "", "try this `UPSTREAM` of the route's split, which has weight 0 now")
	f.Float64Var(&q.Risk, "risk", 0, "leave a step only when the next one adds slow or failed calls to at most this `SHARE` of all (default 0.02)")
	f.DurationVar(&q.Switchback, "switchback", 0, "let the arms take turns of this `LENGTH` instead of running side by side, for limits and whatever else both would feel")
	f.DurationVar(&q.Washout, "washout", 0, "`TIME` at the beginning of a turn that is not judged (default 5s)")
	f.StringVar(&q.Observe, "observe", "", "judge by the calls of this `ROUTE`, where the change shows, in place of its own; takes --switchback")
	f.Float64Var(&shed, "shed", 0, "`SHARE` of the calls that the candidate may refuse beyond what the baseline refuses, the price of a limit, 0 to 0.95 (default that of the advice, or 0: a refused call is an error)")
	f.Float64Var(&holdback, "holdback", 0, "`SHARE` of the calls that keeps the old policy after a promotion, or of the time with --switchback, 0 to 0.1 (default 0.01; none with --switchback)")
	f.StringVar(&q.Restart, "restart", "", "`FATE` when the gateway restarts in the middle: resume or rollback (default resume)")
	f.StringVar(&q.OnInconclusive, "on-inconclusive", "", "`END` when time is up without a verdict: rollback or promote (default rollback)")
	f.StringVar(&q.Reason, "reason", "", "`TEXT` for the journal: why")
	f.BoolVar(&q.Override, "override", false, "begin although the environment that must have verified the change has not; takes --reason, and stands in the journal")
	f.BoolVarP(&watch, "watch", "w", false, "watch it until it ends")
	f.StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	f.Lookup("steps").DefValue, f.Lookup("holdback").DefValue, f.Lookup("shed").DefValue = "", "", "" // their texts name the defaults
	return cmd
}

// oneOf reports whether exactly one of the texts is there.
func oneOf(texts ...string) bool {
	n := 0
	for _, t := range texts {
		if t != "" {
			n++
		}
	}
	return n == 1
}

func readPolicy(cmd *cobra.Command, path string) (longpole.Config, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(cmd.InOrStdin())
	} else {
		data, err = os.ReadFile(path)
	}
	const hint = "the file holds what stands under `policy:` of a route"
	if err != nil {
		return longpole.Config{}, &failure{code: exitConfig, err: err, hint: hint}
	}
	var p longpole.Config
	if err := conf.Load(path, data, &p, func(p *longpole.Config) error { return p.Validate() }); err != nil {
		return longpole.Config{}, faulty(path, err, hint)
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
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), all)
			}
			showRollouts(cmd.OutOrStdout(), all)
			if len(all) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "longpole: no rollout yet; `longpole rollout start` starts one")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func (c *adminClient) list(ctx context.Context) ([]rollout.Status, error) {
	answer := struct{ Rollouts []rollout.Status }{Rollouts: []rollout.Status{}}
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
	return "", &failure{code: exitError, err: errors.New("there is no rollout"), hint: "`longpole rollout start` starts one"}
}

func (c *adminClient) get(ctx context.Context, id string) (s rollout.Status, err error) {
	err = c.do(ctx, http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(id), nil, &s)
	return s, err
}

func newRolloutGet(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get [ID]", Short: "Show one rollout with its evidence and journal", Args: maxOne,
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
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`FORMAT`: text or json")
	return cmd
}

func newRolloutWatch(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ID]",
		Short: "Watch a rollout until it ends",
		Long:  "Watch a rollout until it ends. Interrupting the watch leaves the rollout alone.\n" + verdictCodes,
		Args:  maxOne,
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
		if cmd.Context().Err() != nil {
			return &failure{code: exitAborted, err: fmt.Errorf("stopped watching; %s goes on", id)}
		}
		if err != nil {
			return err
		}
		all := s.Dropped + len(s.Journal)
		for _, e := range s.Journal[max(0, len(s.Journal)-(all-told)):] {
			line.Clear()
			fmt.Fprintln(cmd.ErrOrStderr(), journalLine(e))
		}
		told = all
		if s.Phase.Final() {
			line.Clear()
			renderEvidence(cmd.OutOrStdout(), s)
			return verdictError(s)
		}
		line.Show("%s", rolloutLine(s))
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
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

func newRolloutSteer(verb, short string) func(*adminClient) *cobra.Command {
	return func(c *adminClient) *cobra.Command { return steer(c, verb, short) }
}

func steer(c *adminClient, verb, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " [ID]", Short: short, Args: maxOne,
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
			showRollouts(cmd.OutOrStdout(), []rollout.Status{s})
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the journal: why")
	return cmd
}

func newRolloutHistory(c *adminClient) *cobra.Command {
	var route, output string
	cmd := &cobra.Command{
		Use: "history [--route NAME] [-o table|json]", Short: "Show the journal of all rollouts, oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			all, err := c.list(cmd.Context())
			if err != nil {
				return err
			}
			lines := historyOf(all, route)
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), lines)
			}
			rows := [][]string{{"TIME", "ID", "ROUTE", "PHASE", "WHAT"}}
			for _, l := range lines {
				rows = append(rows, []string{l.At.Local().Format(time.DateTime), l.ID, l.Route, string(l.Phase), l.Text})
			}
			table(cmd.OutOrStdout(), rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&route, "route", "", "only of the route with this `NAME`")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

// historyLine is one event of one rollout.
type historyLine struct {
	ID    string `json:"id"`
	Route string `json:"route"`
	rollout.Event
}

// historyOf puts the journals of rollouts in one order.
func historyOf(all []rollout.Status, route string) []historyLine {
	lines := []historyLine{}
	for _, s := range all {
		if route != "" && s.Route != route {
			continue
		}
		for _, e := range s.Journal {
			lines = append(lines, historyLine{s.ID, s.Route, e})
		}
		if !s.Undone.IsZero() {
			lines = append(lines, historyLine{s.ID, s.Route, rollout.Event{At: s.Undone, Phase: s.Phase, Text: "undone: " + s.UndoReason}})
		}
	}
	slices.SortStableFunc(lines, func(a, b historyLine) int { return a.At.Compare(b.At) })
	return lines
}

func showRollouts(w io.Writer, all []rollout.Status) {
	rows := [][]string{{"ID", "ROUTE", "PHASE", "STEP", "WEIGHT", "VERDICT", "STARTED", "OUTCOME"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.ID, s.Route, string(s.Phase), fmt.Sprintf("%d/%d", s.Step, s.Steps), percent(s.Weight),
			verdictOf(s), s.Started.Local().Format(time.DateTime), cut(cmp.Or(s.Outcome, "-"), 60),
		})
	}
	table(w, rows)
}

// verdictOf is the verdict so far; weak when the environment that verified the change is unlike this one.
func verdictOf(s rollout.Status) string {
	if s.Weak && s.Judgement.Verdict != "" {
		return string(s.Judgement.Verdict) + " (weak)"
	}
	return cmp.Or(string(s.Judgement.Verdict), "-")
}

// rolloutLine is a running rollout in one line.
func rolloutLine(s rollout.Status) string {
	return fmt.Sprintf("%s %s: %s %d/%d at %s, %d slices, %d+%d calls, %s",
		s.ID, s.Route, s.Phase, s.Step, s.Steps, percent(s.Weight), s.Judgement.Slices,
		s.Judgement.CandidateCalls, s.Judgement.BaselineCalls, cmp.Or(string(s.Judgement.Verdict), "not judged yet"))
}

// renderRollout shows all of a rollout.
func renderRollout(w io.Writer, s rollout.Status) {
	renderEvidence(w, s)
	for _, e := range s.Journal {
		fmt.Fprintln(w, " ", journalLine(e))
	}
}

// renderEvidence shows a rollout without its journal, which who watched it has seen.
func renderEvidence(w io.Writer, s rollout.Status) {
	fmt.Fprintf(w, "rollout %s of route %s: %s\n", s.ID, s.Route, s.Phase)
	if s.Judgement.Sentence != "" {
		fmt.Fprintf(w, "  %s\n", s.Judgement.Sentence)
	}
	if s.Calibration != nil {
		fmt.Fprintf(w, "  %s\n", calibrationLine(*s.Calibration))
	}
	if s.Observe != "" {
		fmt.Fprintf(w, "  judged by the calls of route %s\n", s.Observe)
	}
	if s.Shed > 0 {
		fmt.Fprintf(w, "  %s\n", priceLine(s))
	}
	if s.Held != "" {
		fmt.Fprintf(w, "  %s\n", holdbackLine(s))
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
	if s.Judgement.Slices > 0 {
		renderMetrics(w, s.Judgement.Metrics)
	} else {
		fmt.Fprintln(w, "  not judged yet")
	}
}

// priceLine is what the candidate may refuse, and what it does refuse.
func priceLine(s rollout.Status) string {
	text := fmt.Sprintf("price: may refuse %s of the calls beyond the baseline's", percent(s.Shed))
	for _, m := range s.Judgement.Metrics {
		if m.Metric == "shed" && m.Downstream == "" {
			return fmt.Sprintf("%s; refuses %s where the baseline refuses %s", text, percent(m.Candidate), percent(m.Baseline))
		}
	}
	return text
}

// holdbackLine is what became of the holdback of a promoted change.
func holdbackLine(s rollout.Status) string {
	switch {
	case s.Held != rollout.Held:
		return "holdback: none: " + s.Held
	case s.SwitchbackMS > 0:
		return fmt.Sprintf("holdback: for %.3g %% of the time, %s at a time, all calls get the policy without this change; `longpole review` says whether it still helps", 100*s.Holdback, time.Duration(s.SwitchbackMS*float64(time.Millisecond)))
	default:
		return fmt.Sprintf("holdback: %.3g %% of the calls keep the policy without this change; `longpole review` says whether it still helps", 100*s.Holdback)
	}
}

// calibrationLine is how often the judge is wrong on a route, and what follows.
func calibrationLine(c rollout.Calibration) string {
	text := fmt.Sprintf("calibration: false alarms in %s of %d comparisons of the policy with itself; judged in slices of %d s at least", percent(c.FalseAlarmRatio), c.Runs, 10*c.Join)
	if c.Noisy {
		text += "; too many for a promotion"
	}
	return text
}

// renderMetrics shows the evidence: for each metric what the cohorts did, and how much more or less often the event that
// the judge counts happened to the candidate.
func renderMetrics(w io.Writer, all []rollout.MetricResult) {
	rows := [][]string{{"  METRIC", "VERDICT", "BASELINE", "CANDIDATE", "JUDGED BY", "PER 100 CALLS", "95 % INTERVAL"}}
	for _, m := range all {
		event, unit := m.Metric, ms
		switch m.Unit {
		case "ms":
			event = "calls over " + ms(m.ReferenceMS) + " ms"
			unit = func(v float64) string { return ms(v) + " ms" }
		case "ratio":
			unit = percent
		}
		rows = append(rows, []string{
			"  " + m.Metric, string(m.Verdict), unit(m.Baseline), unit(m.Candidate), event,
			fmt.Sprintf("%+.2f", 100*m.Difference), fmt.Sprintf("%+.2f .. %+.2f", 100*m.Low, 100*m.High),
		})
	}
	table(w, rows)
}

// journalLine is one event for a person. Its phase stands once, where the text repeats it.
func journalLine(e rollout.Event) string {
	return fmt.Sprintf("%s  %-12s  %s", e.At.Local().Format("15:04:05"), e.Phase, strings.TrimPrefix(e.Text, string(e.Phase)+": "))
}

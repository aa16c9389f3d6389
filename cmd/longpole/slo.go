package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/slo/interop"
)

const slosPath = "/api/v1/slos"

const sloLong = `Show the objectives of a running gateway, those with the least of their error budget left first: what is promised and what was
kept, how fast the budget burns over the windows of the alerts (1 uses it up in just one period), which alerts fire, when the
budget ends if all goes on as in the last hour, and what used it up most.

Exits 99 when the error budget of an objective is used up.`

func newSLO() *cobra.Command {
	var c adminClient
	var output string
	cmd := &cobra.Command{
		Use:   "slo [-o table|json] [NAME]",
		Short: "Show objectives and error budgets; make rules, dashboards; import OpenSLO",
		Long:  sloLong,
		Example: `  longpole slo
  longpole slo rules --config longpole.yaml > longpole.rules.yml
  longpole slo dashboards --config longpole.yaml --folder grafana
  longpole slo import openslo.yaml >> longpole.yaml`,
		Args: maxOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			return c.showSLOs(cmd, output, args)
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	cmd.AddCommand(newSLORules(), newSLODashboards(), newSLOImport())
	return cmd
}

func (c *adminClient) showSLOs(cmd *cobra.Command, output string, names []string) error {
	answer := struct {
		SLOs []slo.Status `json:"slos"`
	}{}
	if err := c.do(cmd.Context(), http.MethodGet, slosPath, nil, &answer); err != nil {
		return err
	}
	all := answer.SLOs
	if len(names) == 1 {
		all = slices.DeleteFunc(all, func(s slo.Status) bool { return s.Name != names[0] })
		if len(all) == 0 {
			return &failure{code: exitError, err: fmt.Errorf("there is no objective %q", names[0]), hint: "`longpole slo` lists them"}
		}
	}
	if output == "json" {
		if err := writeJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	} else {
		table(cmd.OutOrStdout(), sloRows(all, time.Now()))
		if len(all) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "longpole: no objective; `slos:` in the configuration makes some, see docs/slo.md")
		}
	}
	var gone []string
	for _, s := range all {
		if s.Remaining < 0 {
			gone = append(gone, s.Name)
		}
	}
	if len(gone) > 0 {
		return &failure{code: exitThreshold, err: fmt.Errorf("the error budget is used up: %s", strings.Join(gone, ", ")), hint: "`longpole slo -o json` says by what; `longpole diagnose` why"}
	}
	return nil
}

func sloRows(all []slo.Status, now time.Time) [][]string {
	rows := [][]string{{"SLO", "ROUTE", "PROMISED", "GOOD", "LEFT", "BURN", "ALERT", "USED UP", "MOSTLY BY"}}
	for i := range all {
		s := &all[i]
		rows = append(rows, []string{
			s.Name, s.Route, promised(s), good(s), fmt.Sprintf("%.1f%%", 100*s.Remaining), burns(s), firing(s), usedUp(s, now), mostly(s),
		})
	}
	return rows
}

// promised is as 99.9% < 250ms / 30d.
func promised(s *slo.Status) string {
	text := fmt.Sprintf("%.6g%%", 100*s.Target)
	if s.ThresholdMS > 0 {
		text += " < " + time.Duration(s.ThresholdMS*float64(time.Millisecond)).String()
	}
	return text + " / " + s.Period.String()
}

func good(s *slo.Status) string {
	if s.Calls == 0 {
		return "-"
	}
	return fmt.Sprintf("%.6g%%", 100*s.Good)
}

// burns is the burn over each window, the shortest first.
func burns(s *slo.Status) string {
	type window struct {
		length time.Duration
		text   string
	}
	var all []window
	add := func(length time.Duration, name string, burn float64) {
		if !slices.ContainsFunc(all, func(w window) bool { return w.length == length }) {
			all = append(all, window{length, fmt.Sprintf("%s %.3g", name, burn)})
		}
	}
	for _, b := range s.Burns {
		if b.Severity == slo.Page {
			add(windowOf(b.ShortText), b.ShortText, b.ShortBurn)
			add(windowOf(b.LongText), b.LongText, b.LongBurn)
		}
	}
	slices.SortFunc(all, func(a, b window) int { return int(a.length - b.length) })
	var texts []string
	for _, w := range all {
		texts = append(texts, w.text)
	}
	return dash(strings.Join(texts, ", "))
}

// windowOf reads what a status calls a window: 5m, 1h, 3d.
func windowOf(text string) time.Duration {
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	var p slo.Period
	if p.UnmarshalText([]byte(text)) != nil {
		return 0
	}
	return p.Duration()
}

func firing(s *slo.Status) string {
	var all []string
	for _, a := range s.Alerts {
		if a.State == slo.Firing {
			all = append(all, string(a.Severity))
		}
	}
	return dash(strings.Join(all, ", "))
}

func usedUp(s *slo.Status, now time.Time) string {
	switch {
	case s.Remaining < 0:
		return "now"
	case s.Exhausted == nil:
		return "-"
	}
	return "in " + s.Exhausted.Sub(now).Round(time.Minute).String()
}

func mostly(s *slo.Status) string {
	if len(s.BurnedBy) == 0 {
		return "-"
	}
	return cut(fmt.Sprintf("%.0f%% %s", 100*s.BurnedBy[0].Ratio, s.BurnedBy[0].Cause), 60)
}

// sloSource is where rules and dashboards come from.
type sloSource struct {
	config     string
	histograms string
	selector   string
}

func (o *sloSource) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.config, "config", "c", "", "configuration `FILE` of the gateway")
	cmd.Flags().StringVar(&o.histograms, "histograms", string(interop.Classic), "`FORM` that Prometheus keeps of the gateway's histograms: classic or native")
	cmd.Flags().StringVar(&o.selector, "selector", "", "further label `MATCHERS` for the gateway's metrics, as 'job=\"longpole\"'")
}

// read is the objectives and the routes of the file.
func (o *sloSource) read(cmd *cobra.Command) (all []slo.Objective, routes []string, err error) {
	if o.config == "" {
		return nil, nil, usagef("the objectives stand in the gateway's configuration", "%s needs --config FILE", cmd.CommandPath())
	}
	if err := checkHistograms(o.histograms); err != nil {
		return nil, nil, err
	}
	cfg, err := loadConfig(o.config)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range cfg.Routes {
		routes = append(routes, r.Name)
	}
	return cfg.SLOs, routes, nil
}

func checkHistograms(form string) error {
	if form != string(interop.Classic) && form != string(interop.Native) {
		return usagef("want classic or native", "unknown --histograms %q", form)
	}
	return nil
}

func newSLORules() *cobra.Command {
	var from sloSource
	var page string
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "rules --config FILE [flags]",
		Short: "Write the objectives as recording and alerting rules for Prometheus",
		Long: `Write the objectives of a configuration as a rule file for Prometheus: ratios, error budgets, and the alerts that the gateway
itself has. What Prometheus will judge otherwise than the gateway stands on standard error.`,
		Example: "  longpole slo rules --config longpole.yaml > longpole.rules.yml && promtool check rules longpole.rules.yml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, _, err := from.read(cmd)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return &failure{code: exitError, err: errors.New("the configuration has no objective"), hint: "`slos:` makes some, see docs/slo.md"}
			}
			file, notes, err := interop.Rules(all, interop.RuleOptions{Histograms: interop.Histograms(from.histograms), Interval: interval, Selector: from.selector, PageURL: page})
			if err != nil {
				return err
			}
			say(cmd, notes)
			_, err = cmd.OutOrStdout().Write(file)
			return err
		},
	}
	from.flags(cmd)
	cmd.Flags().StringVar(&page, "page", "", "`URL` of the gateway's page, for alerts")
	cmd.Flags().DurationVar(&interval, "interval", 0, "`TIME` between evaluations (default as Prometheus is set)")
	return cmd
}

func say(cmd *cobra.Command, notes []string) {
	for _, n := range notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "longpole: note: "+n)
	}
}

func newSLODashboards() *cobra.Command {
	var from sloSource
	var folder string
	cmd := &cobra.Command{
		Use:     "dashboards --config FILE --folder DIR [flags]",
		Short:   "Write dashboards for Grafana: routes and endpoints, and the objectives",
		Long:    "Write dashboards for Grafana, a file of JSON each: one of routes and endpoints and, if there are objectives, one of these, which shows\nwhat the rules of `longpole slo rules` record.",
		Example: "  longpole slo dashboards --config longpole.yaml --folder /var/lib/grafana/dashboards",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if folder == "" {
				return usagef("a folder that is there", "longpole slo dashboards needs --folder DIR")
			}
			all, routes, err := from.read(cmd)
			if err != nil {
				return err
			}
			made, err := interop.Dashboards(all, interop.DashboardOptions{Routes: routes, Histograms: interop.Histograms(from.histograms), Selector: from.selector})
			if err != nil {
				return err
			}
			for _, d := range made {
				path := filepath.Join(folder, d.Name+".json")
				if err := os.WriteFile(path, d.JSON, 0o644); err != nil { //nolint:gosec // others shall read it
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
	from.flags(cmd)
	cmd.Flags().StringVar(&folder, "folder", "", "`DIR` to write to")
	return cmd
}

func newSLOImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Read objectives of OpenSLO and write them for the gateway's configuration",
		Long: `Read the SLOs of an OpenSLO file (v1), or of standard input for -, and write them as the part slos of a configuration. What does
not map is refused with its line and the reason; the others are written all the same. Exits 104 when something was refused.`,
		Example: "  longpole slo import openslo.yaml > slos.yaml",
		Args:    oneArg("the OpenSLO file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readAll(cmd, args[0])
			if err != nil {
				return err
			}
			all, notes, refused := interop.OpenSLO(args[0], data)
			say(cmd, notes)
			if len(all) > 0 {
				text, err := conf.Marshal(struct {
					SLOs []slo.Objective `yaml:"slos"`
				}{all})
				if err != nil {
					return err
				}
				if _, err := cmd.OutOrStdout().Write(append(text, '\n')); err != nil {
					return err
				}
			}
			if refused != nil {
				return faulty(args[0], refused, "docs/slo.md says what maps")
			}
			return nil
		},
	}
}

// readAll reads a file, or standard input for -.
func readAll(cmd *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(path)
}

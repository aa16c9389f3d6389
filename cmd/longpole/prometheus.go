package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/trace"
)

const probePrometheusLong = `Read from a Prometheus server, or whatever speaks its HTTP API, what it recorded of services: CPU, garbage collection, throttling and
connection pools of their processes, calls of their routes, backlogs of queues. For ` + "`longpole diagnose --facts`" + `.

It reads the window from --from to --to; with --traces, that of the traces, and only the services that they name.
Who asks is said by user:password@ in the URL, by LONGPOLE_PROMETHEUS_PASSWORD, or by a bearer token in LONGPOLE_PROMETHEUS_TOKEN or --token-file.`

// prometheusFlags is what the flags of probe prometheus say.
type prometheusFlags struct {
	cfg           probe.PrometheusConfig
	from, to      time.Duration // ago
	traces, match []string
	headers       []string
	names         []string
	output        string
}

func newProbePrometheus() *cobra.Command {
	var f prometheusFlags
	cmd := &cobra.Command{
		Use:   "prometheus URL [--traces PATH]... [--from 10m] [--to 0s]",
		Short: "Read evidence from what a Prometheus server recorded",
		Long:  probePrometheusLong,
		Example: `  longpole probe prometheus http://prometheus:9090 --traces traces/ -o json > facts.json
  longpole probe prometheus https://metrics.example --token-file token --from 1h --to 30m --match cluster=eu`,
		Args: oneArg("the URL of a server, as http://prometheus:9090"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.cfg.URL = args[0]
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.from, "from", 10*time.Minute, "begin of the window, `TIME` ago")
	flags.DurationVar(&f.to, "to", 0, "its end, `TIME` ago")
	flags.StringArrayVar(&f.traces, "traces", nil, "`PATH` of traces, whose window and services are read; may be repeated")
	flags.StringArrayVar(&f.match, "match", nil, "`LABEL=VALUE` that every series must have; may be repeated")
	flags.StringArrayVar(&f.names, "service", nil, "`LABEL=NAME`: what the label says, and the service's name in the traces; may be repeated")
	flags.StringVar(&f.cfg.Service, "service-label", "", "`LABEL` that names the service; default the first of service_name, exported_job, job, service, app")
	flags.StringVar(&f.cfg.Instance, "instance-label", "", "`LABEL` that names the process; default the first of service_instance_id, pod, exported_instance, instance")
	flags.StringVar(&f.cfg.TokenFile, "token-file", "", "`FILE` that holds a bearer token")
	flags.StringArrayVar(&f.headers, "header", nil, "`NAME=VALUE` to send along, as X-Scope-OrgID=shop; may be repeated")
	flags.DurationVar(&f.cfg.Timeout, "timeout", 0, "`TIME` for all queries together; 100ms..5m; default 30s")
	flags.StringVarP(&f.output, "output", "o", "text", "`FORMAT`: text or json")
	return cmd
}

// pairs reads NAME=VALUE.
func pairs(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("want NAME=VALUE", "--%s %q is none", flag, text)
		}
		out[name] = value
	}
	return out, nil
}

func (f *prometheusFlags) settings() (err error) {
	if err := checkOutput(f.output, "text", "json"); err != nil {
		return err
	}
	if f.to < 0 || f.from <= f.to {
		return usagef("--from 1h --to 30m is the half hour before the last one", "the window from %s ago to %s ago is none", f.from, f.to)
	}
	for _, m := range []struct {
		flag string
		list []string
		into *map[string]string
	}{{"match", f.match, &f.cfg.Match}, {"service", f.names, &f.cfg.Services}, {"header", f.headers, &f.cfg.Headers}} {
		if *m.into, err = pairs(m.flag, m.list); err != nil {
			return err
		}
	}
	return nil
}

func (f *prometheusFlags) run(cmd *cobra.Command) error {
	if err := f.settings(); err != nil {
		return err
	}
	now := time.Now()
	from, to := now.Add(-f.from), now.Add(-f.to)
	var services []string
	if len(f.traces) > 0 {
		in, err := readInput(cmd, f.traces)
		if err != nil {
			return err
		}
		from, to = timesOf(in.Traces)
		services = servicesOf(in.Traces)
	}
	facts, err := recorded(cmd.Context(), f.cfg, from, to, services)
	if err != nil {
		return err
	}
	if len(facts.Services)+len(facts.Routes)+len(facts.Queues) == 0 {
		for _, g := range facts.Gaps {
			fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: %s: %s\n", g.What, g.Why)
		}
		return &failure{
			code: exitError, err: fmt.Errorf("the server has nothing of these services between %s and %s", from.Format(time.DateTime), to.Format(time.DateTime)),
			hint: "docs/evidence/prometheus.md says what is read; --service-label says which label names the service",
		}
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), facts)
	}
	return renderFacts(cmd.OutOrStdout(), facts)
}

// recorded reads what a server recorded.
func recorded(ctx context.Context, c probe.PrometheusConfig, from, to time.Time, services []string) (evidence.Facts, error) {
	reader, err := probe.NewPrometheus(c, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	if err != nil {
		return evidence.Facts{}, &failure{code: exitConfig, err: err}
	}
	facts, err := reader.Over(ctx, from, to, services)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return facts, cause
		}
		hint := "want the address under which /api/v1/query is, as http://prometheus:9090"
		if errors.Is(err, context.DeadlineExceeded) {
			hint = "--timeout gives it more time, --match asks for less"
		}
		return facts, &failure{code: exitError, err: err, hint: hint}
	}
	return facts, nil
}

// timesOf is the time that traces are from. Of many, a hundredth at each end is left out: a clock may be off by a year.
func timesOf(traces []trace.Trace) (from, to time.Time) {
	var starts, ends []int64
	for _, t := range traces {
		for i := range t.Spans {
			if s := &t.Spans[i]; s.End >= s.Start && s.Start > 0 {
				starts, ends = append(starts, s.Start), append(ends, s.End)
			}
		}
	}
	if len(starts) == 0 {
		return from, to
	}
	slices.Sort(starts)
	slices.Sort(ends)
	out := len(starts) / 100
	return time.Unix(0, starts[out]), time.Unix(0, ends[len(ends)-1-out])
}

// servicesOf are the services that traces name, sorted.
func servicesOf(traces []trace.Trace) []string {
	seen := map[string]bool{}
	for _, t := range traces {
		for i := range t.Spans {
			seen[t.Spans[i].Service] = true
		}
	}
	delete(seen, "unknown")
	var list []string
	for s := range seen {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

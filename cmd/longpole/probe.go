package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/trace"
)

const probeLong = `Read evidence from the systems behind slow traces, for ` + "`longpole diagnose --facts`" + `: plans, statistics and lock waits of
PostgreSQL, profiles, Redis, JetStream, metrics of processes, what a Prometheus server recorded. It only reads, runs no statement of yours, bounds what its looks
cost, and says what it could not see.

Name the systems by flags, or in a file by --config: the section evidence of a gateway's configuration, or that section alone.
Flags for a service are SERVICE=URL. With --traces the databases are asked about the statements that the traces hold.

Probe while it is slow: locks, pools and queues show only then.`

// probeFlags are the systems that flags name.
type probeFlags struct {
	config, output                string
	window                        time.Duration
	statements                    int
	postgres, redis, nats, traces []string
	pprof, metrics, prometheus    []string
	searchPath, healthyProfile    string
}

func newProbe() *cobra.Command {
	var f probeFlags
	cmd := &cobra.Command{
		Use:   "probe [--config FILE] [--postgres DSN] [--redis ADDR] [--nats URL] [--pprof SERVICE=URL] [--metrics SERVICE=URL] [--prometheus URL] [--for 10s] [--traces PATH]...",
		Short: "Read evidence from databases, profiles, caches, queues and Prometheus, for diagnose --facts",
		Long:  probeLong,
		Example: `  longpole probe --postgres postgres://longpole@db:5432/shop --traces traces/ -o json > facts.json
  longpole probe --config longpole.yaml --for 30s -o json > facts.json
  longpole probe --pprof cart=http://cart:6060/debug/pprof --metrics cart=http://cart:9090/metrics
  longpole diagnose --facts facts.json traces/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(f.output, "text", "json"); err != nil {
				return err
			}
			if f.window < time.Second || f.window > time.Hour {
				return usagef("want 1s..1h", "--for %s is out of range", f.window)
			}
			return collect(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration `FILE` with a section evidence, or that section alone")
	flags.StringArrayVar(&f.postgres, "postgres", nil, "`DSN` of a PostgreSQL database; may be repeated, as all that follow")
	flags.StringVar(&f.searchPath, "search-path", "", "`SCHEMAS` in which the application's statements look for their tables")
	flags.StringArrayVar(&f.redis, "redis", nil, "`ADDR` of a Redis server, host:port; a user and password by --config")
	flags.StringArrayVar(&f.nats, "nats", nil, "`URL` of a NATS server with JetStream")
	flags.StringArrayVar(&f.pprof, "pprof", nil, "`SERVICE=URL` of the profiles of a process, http://host:port/debug/pprof")
	flags.StringArrayVar(&f.metrics, "metrics", nil, "`SERVICE=URL` of the metrics of a process, http://host:port/metrics")
	flags.StringArrayVar(&f.prometheus, "prometheus", nil, "`URL` of a Prometheus server; the past is read by longpole probe prometheus")
	flags.StringVar(&f.healthyProfile, "healthy-profile", "", "CPU profile `FILE` of healthy times, to compare those of --pprof with")
	flags.DurationVar(&f.window, "for", 10*time.Second, "`TIME` to look for; rates are told over it; 1s..1h")
	flags.StringArrayVar(&f.traces, "traces", nil, "`PATH` of traces, whose statements the databases are asked about")
	flags.IntVar(&f.statements, "statements", 0, "ask about at most `N` statements; 1..100; default 20")
	flags.StringVarP(&f.output, "output", "o", "text", "`FORMAT`: text or json")
	cmd.AddCommand(newProbePrometheus())
	return cmd
}

// settings is what the file and the flags name together.
func (f probeFlags) settings() (probe.Config, error) {
	var c probe.Config
	if f.config != "" {
		var err error
		if c, err = evidenceOf(f.config); err != nil {
			return c, err
		}
	}
	for _, dsn := range f.postgres {
		c.Postgres = append(c.Postgres, probe.PostgresConfig{DSN: dsn, SearchPath: f.searchPath})
	}
	for _, address := range f.redis {
		c.Redis = append(c.Redis, probe.RedisConfig{Address: address})
	}
	for _, url := range f.nats {
		c.Queues = append(c.Queues, probe.QueueConfig{URL: url})
	}
	for _, text := range f.pprof {
		service, url, ok := strings.Cut(text, "=")
		if !ok {
			return c, usagef("want SERVICE=URL, with the service's name in the traces", "--pprof %q names no service", text)
		}
		c.Profiles = append(c.Profiles, probe.ProfilesConfig{Service: service, URL: url, Healthy: f.healthyProfile})
	}
	for _, text := range f.metrics {
		service, url, ok := strings.Cut(text, "=")
		if !ok {
			return c, usagef("want SERVICE=URL, with the service's name in the traces", "--metrics %q names no service", text)
		}
		c.Metrics = append(c.Metrics, probe.MetricsConfig{Service: service, URLs: []string{url}})
	}
	for _, url := range f.prometheus {
		c.Prometheus = append(c.Prometheus, probe.PrometheusConfig{URL: url})
	}
	if f.statements != 0 {
		c.Statements = f.statements
	}
	if c.Empty() {
		return c, usagef("name at least one of --config, --postgres, --redis, --nats, --pprof, --metrics, --prometheus", "longpole probe needs something to look at")
	}
	return c, nil
}

// evidenceOf reads the section evidence of a gateway's configuration, or a file that is that section alone.
func evidenceOf(path string) (probe.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return probe.Config{}, &failure{code: exitError, err: err, hint: "--config takes a file"}
	}
	var alone probe.Config
	err = conf.Load(path, data, &alone, func(c *probe.Config) error { return c.Validate() })
	if err == nil {
		return alone, nil
	}
	cfg, whole := gateway.Load(path, data)
	switch {
	case whole == nil && cfg.Evidence != nil:
		return *cfg.Evidence, nil
	case whole == nil:
		return probe.Config{}, &failure{code: exitConfig, err: fmt.Errorf("%s has no section evidence", path), hint: "see docs/evidence"}
	case strings.Contains(string(data), "upstreams:"):
		err = whole
	}
	return probe.Config{}, faulty(path, err, "")
}

func collect(cmd *cobra.Command, f probeFlags) error {
	c, err := f.settings()
	if err != nil {
		return err
	}
	var traces []trace.Trace
	if len(f.traces) > 0 {
		in, err := readInput(cmd, f.traces)
		if err != nil {
			return err
		}
		traces = in.Traces
	}
	collector, err := probe.NewCollector(c.Once(f.window))
	if err != nil {
		return &failure{code: exitConfig, err: err}
	}
	defer collector.Close()
	services := servicesOf(traces)
	collector.Services = func() []string { return services }
	facts := watchCollection(cmd, f.window, func(ctx context.Context) evidence.Facts {
		return collector.Collect(ctx, f.window, func() []probe.Query { return probe.Queries(traces, collector.Most()) })
	})
	if err := context.Cause(cmd.Context()); err != nil {
		return err
	}
	failed := 0
	for _, s := range collector.Status() {
		if s.Fault != "" {
			failed++
			fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: %s %s: %s\n", s.Kind, s.Name, s.Fault)
		}
	}
	if failed == len(collector.Status()) && len(facts.Postgres)+len(facts.Services)+len(facts.Redis)+len(facts.Queues)+len(facts.Routes) == 0 {
		return &failure{code: exitError, err: errors.New("nothing could be read"), hint: "docs/evidence says what each source needs"}
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), facts)
	}
	return renderFacts(cmd.OutOrStdout(), facts)
}

// watchCollection shows progress while work goes on.
func watchCollection(cmd *cobra.Command, window time.Duration, work func(context.Context) evidence.Facts) evidence.Facts {
	show := newProgress(cmd.ErrOrStderr())
	done := make(chan evidence.Facts, 1)
	began := time.Now()
	go func() { done <- work(cmd.Context()) }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case facts := <-done:
			show.Clear()
			return facts
		case <-tick.C:
			show.Show("looking for %s: %s", window, time.Since(began).Round(time.Second))
		}
	}
}

// maxFacts bounds a file of facts.
const maxFacts = 64 << 20

// readFacts reads what `longpole probe` wrote; "" = nothing was read.
func readFacts(path string) (facts evidence.Facts, err error) {
	if path == "" {
		return facts, nil
	}
	const hint = "--facts takes what `longpole probe -o json` wrote"
	file, err := os.Open(path)
	if err != nil {
		return facts, &failure{code: exitError, err: err, hint: hint}
	}
	defer func() { _ = file.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(file, maxFacts+1))
	if err == nil && len(data) > maxFacts {
		err = fmt.Errorf("longer than %d MiB", maxFacts>>20)
	}
	if err == nil {
		err = json.Unmarshal(data, &facts)
	}
	if err == nil && facts.To.IsZero() {
		err = errors.New("no facts in it: the field \"to\" is missing")
	}
	if err != nil {
		return facts, &failure{code: exitError, err: fmt.Errorf("%s: %w", path, err), hint: hint}
	}
	facts.Bound()
	return facts, nil
}

// renderFacts writes for a person what was read, in short.
func renderFacts(out io.Writer, f evidence.Facts) error {
	w := bufio.NewWriter(out)
	for i := range f.Postgres {
		renderPostgres(w, &f.Postgres[i])
	}
	for i := range f.Services {
		renderProcess(w, &f.Services[i])
	}
	for _, r := range f.Redis {
		fmt.Fprintf(w, "Redis %s: %.0f commands/s, %.0f reads/s with hits of %s, %.0f evicted/s\n", r.Name, r.Stats.Commands, r.Stats.Lookups, percent(r.Stats.HitRatio), r.Stats.Evicted)
	}
	for _, q := range f.Queues {
		fmt.Fprintf(w, "Queue %s, consumer %s: %d pending, %.1f/s come, %.1f/s are worked off, wait %s\n", q.Stream, q.Consumer, q.Pending, q.Arrival, q.Service, q.Wait.Round(time.Millisecond))
	}
	for _, r := range f.Routes {
		fmt.Fprintf(w, "Route %s %s: %.2f calls/s, %s failed, p50 %s, p95 %s, p99 %s\n", r.Service, r.Route, r.Calls, percent(r.Failed), r.P50, r.P95, r.P99)
	}
	for _, g := range f.Gaps {
		fmt.Fprintf(w, "Not seen: %s: %s\n", g.What, g.Why)
	}
	return w.Flush()
}

func renderPostgres(w io.Writer, p *evidence.PostgresFacts) {
	fmt.Fprintf(w, "PostgreSQL %s", p.Name)
	if s := p.Sessions; s != nil {
		fmt.Fprintf(w, ": %d of %d connections taken, %d wait for locks", s.Total, s.Max, s.WaitingForLock)
	}
	fmt.Fprintln(w)
	for i := range p.Asked {
		st := &p.Asked[i]
		fmt.Fprintf(w, "  %s\n", cut(strings.Join(strings.Fields(st.Text), " "), 110))
		if mean, ok := st.MeanMS(); ok {
			fmt.Fprintf(w, "    takes %s ms on average\n", ms(mean))
		}
		for _, s := range st.SeqScans {
			fmt.Fprintf(w, "    reads all of %s: %s of the planner's cost\n", s.Relation, percent(s.Share))
		}
		if best, ok := st.Index(); ok {
			fmt.Fprintf(w, "    %s;", best.SQL())
			if best.Tested {
				fmt.Fprintf(w, " -- %s of the planner's cost goes", percent(best.Gain()))
			}
			fmt.Fprintln(w)
		}
		if r := st.Rows; r != nil && r.Factor >= 10 {
			fmt.Fprintf(w, "    the planner expects %.0f rows, %.0f come\n", r.Estimated, r.Observed)
		}
	}
	for _, c := range p.Chains {
		fmt.Fprintf(w, "  %s for process %d of %s (%s): %s\n", count(len(c.Waiters), "session")+" wait", c.Root.PID, c.Root.Application, c.Root.State, cut(c.Root.Query, 80))
	}
	for _, g := range p.Gaps {
		fmt.Fprintf(w, "  Not seen: %s: %s\n", g.What, g.Why)
	}
}

func renderProcess(w io.Writer, s *evidence.ServiceFacts) {
	fmt.Fprintf(w, "Service %s %s\n", s.Service, s.Instance)
	if busy, ok := s.Busy(); ok {
		fmt.Fprintf(w, "  %s of its processors busy\n", percent(busy))
	}
	if r := s.Runtime; r != nil && r.GCPause != nil {
		fmt.Fprintf(w, "  %s of the time in pauses of the garbage collector\n", percent(*r.GCPause))
	}
	if r := s.Runtime; r != nil && r.Throttled != nil {
		fmt.Fprintf(w, "  %s of its CPU periods throttled\n", percent(*r.Throttled))
	}
	for _, p := range s.Pools {
		fmt.Fprintf(w, "  pool %s: %.0f of %.0f in use, %.0f wait", p.Name, p.Used, p.Max, p.Pending)
		if p.WaitMean > 0 {
			fmt.Fprintf(w, ", mean wait %s", p.WaitMean.Round(time.Microsecond))
		}
		fmt.Fprintln(w)
	}
	for _, p := range s.Profiles {
		fmt.Fprintf(w, "  %s profile, %.0f samples:", p.Kind, p.Samples)
		for _, f := range p.Top[:min(3, len(p.Top))] {
			fmt.Fprintf(w, " %s %s;", f.Name, percent(f.FlatShare))
		}
		fmt.Fprintln(w)
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/rollout"
)

const demoLong = `Start an embedded distributed system in this process (client, gateway, frontend, three replicas of orders of which one has a
bad tail, pricing and inventory called one after the other, a catalogue on SQLite with an expensive repeated read), send it
open-loop traffic, print the diagnosis, canary the first two cures one after the other, and print before, predicted and after.

It takes about four minutes. The judge looks every second here, and every ten seconds by default elsewhere, so that the demo
is short; the test is the same.`

// demoPace is how long each part takes.
type demoPace struct {
	settle, measure, slice, warmup time.Duration
	canary                         time.Duration // at most, each
	whole                          time.Duration // at most; the last canary gets what is left of it
	steps                          []float64
	rates                          lab.Rates
	rows                           int // of the catalogue; 0 = the lab's default
}

var demoDefault = demoPace{
	settle: 5 * time.Second, measure: 40 * time.Second,
	slice: time.Second, warmup: 5 * time.Second, canary: 100 * time.Second, whole: 285 * time.Second,
	steps: []float64{0.25, 0.5},
	// Enough calls in each arm of a canary within a minute, on two cores that are less than half busy.
	rates: lab.Rates{CheckoutPerSecond: 120, BrowsePerSecond: 60},
}

// curesInDemo is how many changes the demo rolls out.
const curesInDemo = 2

func newDemo() *cobra.Command {
	var reportPath, admin string
	var keep bool
	var seed uint64
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole loop on an embedded distributed system",
		Long:  demoLong,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{out: cmd.OutOrStdout(), progress: newProgress(cmd.ErrOrStderr()), pace: demoDefault, reportPath: reportPath, keep: keep, seed: seed, admin: admin}
			d.progress.every = time.Second
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&reportPath, "report", "longpole-demo-report.html", "where to write the HTML report")
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:0", "address of the page and API; port 0 = any free one")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the system running afterwards, until interrupted")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of all service times, faults and arrivals")
	return cmd
}

// demo is one run of the loop.
type demo struct {
	out        io.Writer
	progress   *progress
	pace       demoPace
	reportPath string
	admin      string
	keep       bool
	seed       uint64

	lab     *lab.Lab
	server  *server
	traffic *load.Generator
	began   time.Time
	report  lab.Report

	unproven error // of the first cure that was not promoted
}

// run starts the system, plays the demo against it and stops all it started.
func (d *demo) run(ctx context.Context) error {
	d.began = time.Now()
	d.report = lab.Report{
		Title: "Longpole demo", Started: d.began,
		Machine: fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
		Notes: []string{
			fmt.Sprintf("The judge looked every %s, and every 10s by default elsewhere, so that the demo is short.", d.pace.slice),
			"Clients, gateway, services and analysis shared the cores of one machine.",
		},
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.lab.Run(gctx) })
	g.Go(func() error { return d.server.Run(gctx) })
	g.Go(func() error { return d.traffic.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return d.play(gctx)
	})
	err := g.Wait()
	d.progress.Clear()
	if errors.Is(err, context.Canceled) {
		return &failure{code: exitAborted, err: errors.New("interrupted")}
	}
	return err
}

// start brings lab, gateway and traffic up to where they only need to run.
func (d *demo) start(ctx context.Context) (err error) {
	if d.lab, err = lab.New(lab.Config{Seed: d.seed, Rows: d.pace.rows}); err != nil {
		return err
	}
	if _, err = d.lab.Start(); err != nil {
		return err
	}
	cfg, err := gateway.Load("demo.yaml", d.lab.GatewayYAML("127.0.0.1:0", d.admin, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if d.server, err = newServer(ctx, cfg, quiet); err != nil {
		return err
	}
	if !d.keep {
		d.server.every = 0
	}
	front := "http://" + address(d.server.front[0])
	d.lab.Connect(front, "http://"+address(d.server.otlpHTTP)+"/v1/traces")
	d.traffic, err = load.New(lab.Plan(front, d.pace.rates, d.seed), load.Options{Spans: d.server.analysis.Offer})
	return err
}

// play is the loop: measure, diagnose, advise, act, verify.
func (d *demo) play(ctx context.Context) error {
	d.say("Longpole demo: the page is at http://%s/ while it runs", address(d.server.admin))
	if err := d.wait(ctx, d.pace.settle, "warming up"); err != nil {
		return err
	}
	before, err := d.measure(ctx, "before")
	if err != nil {
		return err
	}
	// The last traces are whole once they have been quiet for a while.
	if err := d.wait(ctx, 6*time.Second, "collecting the last spans"); err != nil {
		return err
	}
	found, _ := d.server.analysis.Refresh(d.pace.measure + 6*time.Second)
	d.say("\n1. Diagnosis of %s of traffic", d.pace.measure)
	if err := renderReport(d.out, found, shown{routes: 2}); err != nil {
		return err
	}
	d.report.Diagnoses = diagnosesOf(found)
	cures, err := d.cure(ctx, found)
	if err != nil {
		return err
	}
	if err := d.wait(ctx, d.pace.settle, "settling"); err != nil {
		return err
	}
	after, err := d.measure(ctx, "after")
	if err != nil {
		return err
	}
	d.server.analysis.Refresh(d.pace.measure)
	if err := d.conclude(before, after, cures); err != nil {
		return err
	}
	if d.keep {
		d.say("The system keeps running: http://%s/ (stop it with Ctrl-C)", address(d.server.admin))
		<-ctx.Done()
	}
	return d.unproven
}

// cure rolls out the first cures that carry a change, one for each route. Between two of them it diagnoses anew, for the
// first one changed what the second one will do.
func (d *demo) cure(ctx context.Context, found advise.Report) ([]advise.Action, error) {
	var cures []advise.Action
	first, tried := found, map[string]bool{}
	for len(cures) < curesInDemo {
		next, ok := nextCure(found, tried)
		if !ok {
			next, ok = nextCure(first, tried)
		}
		if !ok {
			break
		}
		cures = append(cures, next)
		tried[next.Change.Route] = true
		if err := d.rollOut(ctx, len(cures)+1, next, len(cures) == curesInDemo); err != nil {
			return nil, err
		}
		found, _ = d.server.analysis.Refresh(d.pace.measure)
	}
	if len(cures) == 0 {
		return nil, &failure{code: exitInconclusive, err: errors.New("no finding carried a change; nothing to roll out")}
	}
	return cures, nil
}

// nextCure is the first action with a change for a route that was not tried yet, best finding first. One whose arms would have to
// take turns needs more time than there is.
func nextCure(r advise.Report, tried map[string]bool) (advise.Action, bool) {
	for _, route := range r.Routes {
		for _, f := range route.Findings {
			for _, a := range f.Actions {
				if a.Change != nil && a.Predicted != nil && !a.Turns && !tried[a.Change.Route] {
					return a, true
				}
			}
		}
	}
	return advise.Action{}, false
}

// canaryTime is how long the next canary may take.
func (d *demo) canaryTime(last bool) time.Duration {
	if !last {
		return d.pace.canary
	}
	rest := d.pace.whole - time.Since(d.began) - 2*d.pace.settle - d.pace.measure
	return max(rest, 4*d.pace.warmup)
}

// rollOut canaries one cure and tells how it ended. A cure that the evidence did not carry is remembered, not an error:
// the demo goes on without it.
func (d *demo) rollOut(ctx context.Context, number int, cure advise.Action, last bool) error {
	spec := rollout.Spec{
		Change: *cure.Change, Steps: d.pace.steps, Slice: d.pace.slice, Warmup: d.pace.warmup, MaxDuration: d.canaryTime(last),
		Reason: "demo: " + cure.Summary,
	}
	for _, e := range cure.Effects {
		if e.Route == cure.Change.Route {
			spec.Predicted = quantilesOf(e.Predicted)
			break
		}
	}
	d.say("\n%d. Cure %d: %s", number, number-1, cure.Summary)
	id, err := d.server.rollouts.Start(spec)
	if err != nil {
		return err
	}
	if err := d.traffic.Begin(fmt.Sprintf("cure %d", number-1)); err != nil {
		return err
	}
	for {
		s, _ := d.server.rollouts.Get(id)
		if s.Phase.Final() {
			d.progress.Clear()
			renderRollout(d.out, s)
			d.report.Rollouts = append(d.report.Rollouts, rolloutOf(s, cure.Summary))
			d.unproven = cmp.Or(d.unproven, verdictError(s))
			return nil
		}
		d.progress.Show("[%s] %s", time.Since(d.began).Round(time.Second), rolloutLine(s))
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func quantilesOf(p advise.Predicted) rollout.Quantiles {
	at := func(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }
	return rollout.Quantiles{P50: at(p.P50), P95: at(p.P95), P99: at(p.P99)}
}

// measurement is what the client saw in one phase, and what the gateway sent upstream for it.
type measurement struct {
	client   load.Snapshot
	attempts map[string]float64 // by gateway route: attempts for each call
}

// measure lets traffic run for a while and returns what the client saw.
func (d *demo) measure(ctx context.Context, name string) (measurement, error) {
	if err := d.traffic.Begin(name); err != nil {
		return measurement{}, err
	}
	start := d.server.totals()
	if err := d.wait(ctx, d.pace.measure, "measuring "+name); err != nil {
		return measurement{}, err
	}
	end := d.server.totals()
	seen, _ := d.traffic.Phase(name)
	m := measurement{client: seen, attempts: map[string]float64{}}
	for route, total := range end {
		since := total.Sub(start[route])
		if since.Calls > 0 {
			m.attempts[route] = float64(since.Attempts) / float64(since.Calls)
		}
	}
	return m, d.traffic.Begin("after " + name)
}

// wait lets d pass with a progress line all the way.
func (d *demo) wait(ctx context.Context, long time.Duration, what string) error {
	end := time.Now().Add(long)
	for time.Now().Before(end) {
		d.progress.Show("[%s] %s, %s to go", time.Since(d.began).Round(time.Second), what, time.Until(end).Round(time.Second))
		if err := pause(ctx, min(200*time.Millisecond, time.Until(end))); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *demo) say(format string, a ...any) {
	d.progress.Clear()
	fmt.Fprintf(d.out, format+"\n", a...)
}

// conclude prints and writes what became of it.
func (d *demo) conclude(before, after measurement, cures []advise.Action) error {
	d.say("\n%d. Before, predicted, after, as the client saw it", len(cures)+2)
	rows := [][]string{{"  ROUTE", "MS", "BEFORE", "PREDICTED", "AFTER", "CUT", "PREDICTION OFF BY"}}
	var sides []string
	for _, b := range before.client.Results {
		a, ok := after.client.Target(b.Target)
		if !ok {
			continue
		}
		result := routeResult(b, a, cures)
		for _, cure := range cures {
			if _, hit := effectOn(cure, b.Target); hit {
				r := cure.Change.Route
				result.Before.AttemptsPerCall, result.After.AttemptsPerCall = before.attempts[r], after.attempts[r]
				sides = append(sides, fmt.Sprintf("  %s: errors %s → %s, attempts for each call to %s %.2f → %.2f",
					b.Target, percent(b.ErrorRatio()), percent(a.ErrorRatio()), r, before.attempts[r], after.attempts[r]))
			}
		}
		rows = append(rows, resultRows(result)...)
		d.report.Routes = append(d.report.Routes, result)
	}
	table(d.out, rows)
	for _, s := range sides {
		d.say("%s", s)
	}
	for _, doubt := range append(before.client.Doubts(), after.client.Doubts()...) {
		d.say("  doubt: %s", doubt)
		d.report.Notes = append(d.report.Notes, doubt)
	}
	d.report.Took = time.Since(d.began)
	if err := d.writeReport(); err != nil {
		return err
	}
	d.say("\nTook %s. Report: %s", d.report.Took.Round(time.Second), d.reportPath)
	return nil
}

func (d *demo) writeReport() (err error) {
	f, err := os.Create(d.reportPath)
	if err != nil {
		return &failure{code: exitError, err: err, hint: "--report FILE writes it elsewhere"}
	}
	defer func() { err = cmp.Or(err, f.Close()) }()
	return lab.WriteReport(f, d.report)
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/web"
)

const labUpLong = `Run the system of a scenario with its load and the page, until interrupted. No fault is on at first; switch them on the
page, or by typing "on NAME" or "off NAME" and Enter, or with --faults let the scenario's time line run.`

func newLabUp() *cobra.Command {
	var admin string
	var faults bool
	var seed uint64
	var real realFlags
	var scaled []string
	cmd := &cobra.Command{
		Use: "up SCENARIO", Short: "Leave a scenario running, with the page to look at", Long: labUpLong,
		Example: "  longpole lab up slow-replica --admin 127.0.0.1:9901",
		Args:    minArgs(1, "a scenario or a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			picked, err := pickScenarios(args)
			if err != nil {
				return err
			}
			if len(picked) != 1 {
				return usagef("start another `longpole lab up` for another one", "one scenario at a time, but got %d", len(picked))
			}
			with, err := real.read()
			if err != nil {
				return err
			}
			u := &labUp{with: with, spec: picked[0], out: cmd.ErrOrStderr(), in: cmd.InOrStdin(), faults: faults}
			if u.scaled, err = readScaled(scaled, &u.spec, with); err != nil {
				return err
			}
			return u.run(cmd.Context(), admin, seed)
		},
	}
	real.add(cmd)
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9901", "address of the page and API; port 0 = any free one")
	cmd.Flags().BoolVar(&faults, "faults", false, "let the time line of faults run from the beginning")
	cmd.Flags().StringArrayVar(&scaled, "scale", nil, "`SERVICE[:MAX]` that gets as many replicas as the gateway recommends, at most MAX (16); may be repeated")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of all times, faults and arrivals")
	return cmd
}

// labUp is a scenario that is left running.
type labUp struct {
	spec   scenario.Scenario
	out    io.Writer
	in     io.Reader
	faults bool
	with   *lab.Real // nil = all in this process
	scaled []scaledService
	system *lab.System
}

func (u *labUp) run(ctx context.Context, admin string, seed uint64) error {
	u.system = lab.NewSystemOn(u.with, u.spec, seed)
	if err := u.system.Start(ctx); err != nil {
		return err
	}
	runs := false
	defer func() {
		if !runs {
			u.system.Close()
		}
	}()
	cfg, err := gateway.Load(u.spec.Name+"'s gateway", u.system.GatewayYAML("127.0.0.1:0", admin, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	folder, err := u.follow(&cfg)
	if folder != nil {
		defer func() { _ = folder.Remove() }()
	}
	if err != nil {
		return err
	}
	s, err := newServer(ctx, cfg, slog.New(slog.NewTextHandler(u.out, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	front := "http://" + address(s.front[0])
	u.system.Connect(front, "http://"+address(s.otlpHTTP)+"/v1/traces")
	traffic, err := load.New(lab.Traffic(&u.spec, front, 1, seed), load.Options{Spans: s.analysis.Offer})
	if err != nil {
		return err
	}
	s.lab = u
	fmt.Fprintf(u.out, "longpole: %s is running; the page is at %s, the gateway at %s\n", u.spec.Name, pageOf(s.admin), front)
	u.help()
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	var surge lab.Surge
	defer surge.Wait()
	defer cancel() // which ends what surge waits for
	u.system.Overloaded(func(factor float64) { surge.Set(ctx, &u.spec, front, factor, seed, s.analysis.Offer) })
	if err := u.system.Begin(ctx, u.faults); err != nil { // before Run, so that a fault is there from the beginning
		return err
	}
	runs = true
	g.Go(func() error { return u.system.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return traffic.Run(ctx) })
	u.keep(ctx, g, &s.signals.board)
	go u.listen(ctx) // ends with the process: a read of standard input cannot be interrupted
	return g.Wait()
}

func (u *labUp) help() {
	for _, f := range u.spec.Faults {
		fmt.Fprintf(u.out, "longpole: fault %s: %s\n", f.Name, faultText(f))
	}
	if len(u.spec.Faults) > 0 {
		fmt.Fprintln(u.out, `longpole: switch them on the page, or type "on NAME" or "off NAME" and Enter`)
	}
}

// faultText says in a few words what a fault does to whom.
func faultText(f scenario.Fault) string {
	var text strings.Builder
	text.WriteString(f.Kind)
	for _, x := range []string{f.Service, f.Store, f.Cache, f.Queue} {
		if x != "" {
			text.WriteString(" of " + x)
		}
	}
	for _, x := range []string{f.Operation, f.Table} {
		if x != "" {
			text.WriteString(", " + x)
		}
	}
	if f.Replica > 0 {
		fmt.Fprintf(&text, ", replica %d", f.Replica)
	}
	if f.Share > 0 && f.Share < 1 {
		text.WriteString(", " + percent(f.Share) + " of the calls")
	}
	return text.String()
}

// Status is what the page shows of it.
func (u *labUp) Status() web.LabStatus {
	s := web.LabStatus{Scenario: u.spec.Name, About: u.spec.About, Faults: []web.LabFault{}}
	on := u.system.Active()
	for _, f := range u.spec.Faults {
		s.Faults = append(s.Faults, web.LabFault{Name: f.Name, What: faultText(f), On: slices.Contains(on, f.Name)})
	}
	return s
}

// Switch turns a fault on or off, by request of the page. What it begins outlives the request.
func (u *labUp) Switch(ctx context.Context, name string, on bool) error {
	return u.system.Switch(context.WithoutCancel(ctx), name, on)
}

// listen takes the switches of faults.
func (u *labUp) listen(ctx context.Context) {
	lines := bufio.NewScanner(u.in)
	for lines.Scan() {
		verb, name, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if verb != "on" && verb != "off" {
			u.help()
			continue
		}
		if err := u.system.Switch(ctx, name, verb == "on"); err != nil {
			fmt.Fprintf(u.out, "longpole: %v\n", err)
			continue
		}
		fmt.Fprintf(u.out, "longpole: on are now: %s\n", strings.Join(u.system.Active(), ", "))
	}
}

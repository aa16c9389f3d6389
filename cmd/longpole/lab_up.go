package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
)

const labUpLong = `Run the system of a scenario with its load and the page, until interrupted. No fault is on at first; switch them by
typing "on NAME" or "off NAME" and Enter, or with --faults let the scenario's time line run.`

func newLabUp() *cobra.Command {
	var admin string
	var faults bool
	var seed uint64
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
			u := &labUp{spec: picked[0], out: cmd.ErrOrStderr(), in: cmd.InOrStdin(), faults: faults}
			return u.run(cmd.Context(), admin, seed)
		},
	}
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9901", "address of the page and API; port 0 = any free one")
	cmd.Flags().BoolVar(&faults, "faults", false, "let the time line of faults run from the beginning")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of all times, faults and arrivals")
	return cmd
}

// labUp is a scenario that is left running.
type labUp struct {
	spec   scenario.Scenario
	out    io.Writer
	in     io.Reader
	faults bool
	system *lab.System
}

func (u *labUp) run(ctx context.Context, admin string, seed uint64) error {
	u.system = lab.NewSystem(u.spec, seed)
	if err := u.system.Start(); err != nil {
		return err
	}
	cfg, err := gateway.Load(u.spec.Name+"'s gateway", u.system.GatewayYAML("127.0.0.1:0", admin, "127.0.0.1:0"))
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
	fmt.Fprintf(u.out, "longpole: %s is running; the page is at %s, the gateway at %s\n", u.spec.Name, pageOf(s.admin), front)
	u.help()
	u.system.Begin(u.faults)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.system.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return traffic.Run(ctx) })
	go u.listen() // ends with the process: a read of standard input cannot be interrupted
	return g.Wait()
}

func (u *labUp) help() {
	for _, f := range u.spec.Faults {
		fmt.Fprintf(u.out, "longpole: fault %s: %s %s\n", f.Name, f.Kind, strings.TrimSpace(f.Service+f.Store+f.Cache+f.Queue))
	}
	if len(u.spec.Faults) > 0 {
		fmt.Fprintln(u.out, `longpole: type "on NAME" or "off NAME" and Enter to switch one`)
	}
}

// listen takes the switches of faults.
func (u *labUp) listen() {
	lines := bufio.NewScanner(u.in)
	for lines.Scan() {
		verb, name, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if verb != "on" && verb != "off" {
			u.help()
			continue
		}
		if err := u.system.Switch(name, verb == "on"); err != nil {
			fmt.Fprintf(u.out, "longpole: %v\n", err)
			continue
		}
		fmt.Fprintf(u.out, "longpole: on are now: %s\n", strings.Join(u.system.Active(), ", "))
	}
}

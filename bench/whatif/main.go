// Whatif compares forecasts with what then happened, on systems of the lab: each is run with its problem and its traces recorded,
// the adviser is asked what the cure would do, the cure is made in the system itself, and it is run again with other draws.
//
// A file of the folder cases holds one system, the forecast that is asked for, and what is different once it is cured. The forecast
// comes from the report's own action or, where a parameter is for a person to choose, from the same words as `longpole whatif`
// reads. Compared are p50, p95 and p99 of the clients' spans.
//
// Usage: whatif [-only TEXT] [-seed N] [-at-once N] [-json FILE] [-traces FOLDER]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// options are what a user may choose.
type options struct {
	only     string // part of the names of the studies to run; "" = all
	seed     uint64 // of the first run of each study; the others follow
	atOnce   int    // systems that run at a time
	traces   string // folder that keeps what was recorded; "" = nobody asked for it
	progress func(text string)
}

func main() {
	o := options{progress: func(text string) { fmt.Fprintln(os.Stderr, "whatif:", text) }}
	keep := ""
	flag.StringVar(&o.only, "only", "", "run the studies whose name contains this")
	flag.Uint64Var(&o.seed, "seed", 1, "of all times and arrivals")
	flag.IntVar(&o.atOnce, "at-once", 3, "systems that run at a time")
	flag.StringVar(&o.traces, "traces", "", "keep what was recorded in this folder")
	flag.StringVar(&keep, "json", "", "also write the results to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, o, keep); err != nil {
		fmt.Fprintln(os.Stderr, "whatif:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, o options, keep string) error {
	all, err := studies()
	if err != nil {
		return err
	}
	b, took := &bench{o: o}, stopwatch()
	if err := b.run(ctx, jobs(all, o)); err != nil {
		return err
	}
	report(os.Stdout, b.results, took())
	if keep == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(keep, append(data, '\n'), 0o644)
}

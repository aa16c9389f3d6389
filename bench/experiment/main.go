// Experiment rolls changes out on a loaded gateway, many times: some harm, some help, some do nothing. It says how many were
// rolled back, how soon, and what two rules that others use would have done with the same figures.
//
// Gateway, services and load are those of one process on loopback: the product's own data plane and rollouts, services that
// listen each on a port of their own and take as long as a seeded draw says, and open-loop traffic. Each rollout has a route, a
// version of a service and a stream of calls for itself; as many run at a time as -rate allows.
//
// Usage: experiment [-runs N] [-equal N] [-only TEXT] [-rate N] [-max DURATION] [-follow DURATION] [-tail]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are what a user may choose.
type options struct {
	runs   int           // of each change that harms or helps
	equal  int           // rollouts of a change that does nothing
	only   string        // part of the names of the cases to run; "" = all
	rate   float64       // calls a second of all routes together, at most
	most   time.Duration // of each rollout
	follow time.Duration // that the other rules are given, from the end of the warm-up
	warmup time.Duration // of each rollout
	before time.Duration // that the usual p99 is measured for; 0 = the other rules have none
	tail   bool          // also the changes that take half an hour each
}

func main() {
	o := options{warmup: 30 * time.Second, before: 30 * time.Second}
	flag.IntVar(&o.runs, "runs", 5, "rollouts of each change that harms or helps")
	flag.IntVar(&o.equal, "equal", 50, "rollouts of changes that do nothing")
	flag.StringVar(&o.only, "only", "", "run the cases whose name contains this")
	flag.Float64Var(&o.rate, "rate", 1500, "calls a second of all routes together, at most")
	flag.DurationVar(&o.most, "max", 10*time.Minute, "longest time of a rollout")
	flag.DurationVar(&o.follow, "follow", 10*time.Minute, "time that the other rules are given after the warm-up")
	flag.BoolVar(&o.tail, "tail", false, "also roll out what takes half an hour to be seen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, began := &bench{o: o}, time.Now()
	err := b.run(ctx, jobs(o))
	b.report(os.Stdout, time.Since(began))
	if err != nil {
		fmt.Fprintln(os.Stderr, "experiment:", err)
		os.Exit(1)
	}
}

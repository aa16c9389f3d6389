package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

const (
	keepEvery = 10 * time.Second // the finest step that the store keeps
	tidyEvery = time.Minute
)

// keeper writes what the gateway measured to the store. A store that refuses costs its history, and nothing else: what could
// not be written is written with the next step, as figures are cumulative.
type keeper struct {
	store  *store.Store
	routes func() []gateway.RouteStatus
	log    *slog.Logger
	told   map[store.Series]stats.Tally // what the store has of each series
	failed bool                         // the last write was refused; said once
}

func newKeeper(s *store.Store, routes func() []gateway.RouteStatus, log *slog.Logger) *keeper {
	return &keeper{store: s, routes: routes, log: log, told: map[store.Series]stats.Tally{}}
}

// Run writes until ctx ends, and once more then.
func (k *keeper) Run(ctx context.Context) error {
	step, tidy := time.NewTicker(keepEvery), time.NewTicker(tidyEvery)
	defer step.Stop()
	defer tidy.Stop()
	for {
		select {
		case now := <-step.C:
			k.report(k.keep(ctx, now))
		case now := <-tidy.C:
			k.report(k.store.Tidy(ctx, now))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			k.report(k.keep(last, time.Now()))
			return nil
		}
	}
}

func (k *keeper) report(err error) {
	if err != nil && !k.failed {
		k.log.Error("the state folder refuses; history is not kept", "error", err)
	}
	if err == nil && k.failed {
		k.log.Info("the state folder takes history again")
	}
	k.failed = err != nil
}

// keep writes what each route and endpoint did since the last time.
func (k *keeper) keep(ctx context.Context, now time.Time) error {
	var list []store.Rollup
	next := make(map[store.Series]stats.Tally, len(k.told))
	add := func(s store.Series, sum stats.Tally) {
		if _, twice := next[s]; twice {
			return // an endpoint that several routes share
		}
		next[s] = sum
		if d := sum.Sub(k.told[s]); d.Calls > 0 {
			list = append(list, store.Rollup{Series: s, From: now.Add(-keepEvery), Calls: d.Calls, Failed: d.Failed + d.Shed, Latency: d.Latency})
		}
	}
	for _, r := range k.routes() {
		add(store.Series{Route: r.Name}, r.Tally)
		for _, e := range r.Endpoints {
			failed := e.Classes[call.Server.String()] + e.Classes[call.Refused.String()] + e.Classes[call.Timeout.String()]
			add(store.Series{Segment: string(trace.SegDownstream), Endpoint: e.Name}, stats.Tally{Latency: e.Latency, Calls: e.Attempts, Failed: failed})
		}
	}
	if len(list) > 0 {
		if err := k.store.Add(ctx, list...); err != nil {
			return err
		}
	}
	k.told = next
	return nil
}

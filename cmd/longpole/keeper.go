package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

const (
	keepEvery  = 10 * time.Second // the finest step that the store keeps
	traceEvery = 5 * time.Second  // a batch of traces each: what a kill may cost is this and the quiet time before a trace is whole
	tidyEvery  = time.Minute
)

// keeper writes what the gateway measured to the store, and what live traces tell. A store that refuses costs its history,
// and nothing else: what the gateway counts is cumulative and written with the next step, what traces told is lost and
// counted.
type keeper struct {
	store   *store.Store
	routes  func() []gateway.RouteStatus
	live    *recorder
	tracing func() gateway.Tracing // as configured now
	log     *slog.Logger
	told    map[store.Series]stats.Tally // what the store has of each series
	failed  map[string]bool              // what was refused the last time it was written; said once
	kept    atomic.Uint64                // traces written
	thinned atomic.Uint64                // traces left out of the sample, for which others stand
	lost    atomic.Uint64                // traces that could not be written
}

func newKeeper(s *store.Store, routes func() []gateway.RouteStatus, live *recorder, tracing func() gateway.Tracing, log *slog.Logger) *keeper {
	return &keeper{store: s, routes: routes, live: live, tracing: tracing, log: log, told: map[store.Series]stats.Tally{}, failed: map[string]bool{}}
}

// Kept counts what became of the traces that were whole: written, sampled out, or lost because the store refused.
func (k *keeper) Kept() map[string]uint64 {
	return map[string]uint64{"written": k.kept.Load(), "sampled_out": k.thinned.Load(), "lost": k.lost.Load()}
}

// Run writes until ctx ends, and once more then.
func (k *keeper) Run(ctx context.Context) error {
	step, traces, tidy := time.NewTicker(keepEvery), time.NewTicker(traceEvery), time.NewTicker(tidyEvery)
	defer step.Stop()
	defer traces.Stop()
	defer tidy.Stop()
	for {
		select {
		case now := <-step.C:
			k.report("history", k.keep(ctx, now))
		case now := <-traces.C:
			k.report("traces", k.traces(ctx, now, (&pace{ctx: ctx, began: time.Now()}).rest))
		case now := <-tidy.C:
			k.report("tidying", k.store.Tidy(ctx, now))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			k.report("history", k.keep(last, time.Now()))
			k.report("traces", k.traces(last, time.Now(), func() {}))
			return nil
		}
	}
}

func (k *keeper) report(what string, err error) {
	if err != nil && !k.failed[what] {
		k.log.Error("the state folder refuses; history is not kept", "what", what, "error", err)
	}
	if err == nil && k.failed[what] {
		k.log.Info("the state folder takes history again", "what", what)
	}
	k.failed[what] = err != nil
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

// traces writes what came of live traces since the last time, and calls rest now and then.
func (k *keeper) traces(ctx context.Context, now time.Time, rest func()) error {
	took := now.Sub(k.live.last)
	rollups, whole := k.live.step(now, rest)
	if len(whole) == 0 {
		return nil
	}
	most := max(int(took.Seconds()*float64(k.tracing().KeptPerSecond)), 1)
	sample := store.Thin(whole, most)
	err := k.store.Add(ctx, rollups...)
	if err == nil {
		err = k.store.Keep(ctx, now, sample...)
	}
	if err != nil {
		k.lost.Add(uint64(len(whole)))
		return err
	}
	k.kept.Add(uint64(len(sample)))
	k.thinned.Add(uint64(len(whole) - len(sample)))
	return nil
}

package main

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/trace"
)

// gatherer looks at the systems behind the services for the diagnosis of live traffic, as the configuration in force
// says. It is off until that has a section evidence.
type gatherer struct {
	config func() *probe.Config // nil = off
	window func(now time.Time, since time.Duration) []trace.Trace
	log    *slog.Logger

	mu        sync.Mutex
	collector *probe.Collector // nil = off
	facts     evidence.Facts
	stale     time.Time // when facts say nothing about the present any more
	degraded  map[string]bool
}

// A reload is noticed within configEvery; facts are used for factsKept windows.
const (
	configEvery = time.Second
	factsKept   = 3
)

func newGatherer(config func() *probe.Config, window func(time.Time, time.Duration) []trace.Trace, log *slog.Logger) *gatherer {
	return &gatherer{config: config, window: window, log: log, degraded: map[string]bool{}}
}

// Run looks until ctx ends, and begins afresh when the section changes.
func (g *gatherer) Run(ctx context.Context) error {
	tick := time.NewTicker(configEvery)
	defer tick.Stop()
	var now *probe.Config
	stop := func() {}
	for {
		if next := g.config(); !reflect.DeepEqual(now, next) {
			stop()
			now, stop = next, g.start(ctx, next)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			stop()
			return nil
		}
	}
}

// start looks at what c names until the function that it returns is called.
func (g *gatherer) start(ctx context.Context, c *probe.Config) (stop func()) {
	g.set(nil, evidence.Facts{}, 0)
	if c == nil || c.Empty() {
		return func() {}
	}
	collector, err := probe.NewCollector(*c)
	if err != nil {
		g.log.Error("no evidence is collected", "error", err.Error())
		return func() {}
	}
	g.set(collector, evidence.Facts{}, 0)
	ctx, cancel := context.WithCancel(ctx)
	var run sync.WaitGroup
	run.Go(func() {
		ask := func() []probe.Query { return probe.Queries(g.window(time.Now(), analysisWindow), collector.Most()) }
		collector.Services = func() []string { return servicesOf(g.window(time.Now(), analysisWindow)) }
		collector.Run(ctx, ask, func(f evidence.Facts) {
			g.set(collector, f, factsKept*c.WithDefaults().Every)
			g.tell(collector.Status())
		})
		collector.Close()
	})
	return func() {
		cancel()
		run.Wait()
	}
}

func (g *gatherer) set(c *probe.Collector, f evidence.Facts, fresh time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.collector, g.facts, g.stale = c, f, f.To.Add(fresh)
}

// tell logs a source when it fails, and when it does no longer.
func (g *gatherer) tell(sources []probe.Status) {
	for _, s := range sources {
		key := s.Kind + " " + s.Name
		if now := s.Fault != ""; now != g.degraded[key] {
			g.degraded[key] = now
			if now {
				g.log.Warn("a source of evidence is degraded", "kind", s.Kind, "source", s.Name, "error", s.Fault)
			} else {
				g.log.Info("a source of evidence is whole again", "kind", s.Kind, "source", s.Name)
			}
		}
	}
}

// Facts is what was read last, or nothing when that is too long ago.
func (g *gatherer) Facts() evidence.Facts {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().After(g.stale) {
		return evidence.Facts{}
	}
	return g.facts
}

// Status tells how the sources fare; empty when nothing is looked at.
func (g *gatherer) Status() []probe.Status {
	g.mu.Lock()
	c := g.collector
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Status()
}

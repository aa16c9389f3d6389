package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/fleet"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
)

// budgetFile keeps the error budgets in the state folder.
const budgetFile = "budgets.json"

// signals is what the gateway tells others of how it does: objectives with their alerts, and wanted replicas.
type signals struct {
	log     *slog.Logger
	routes  func() []gateway.RouteStatus
	report  func() advise.Report                        // the newest diagnosis
	usage   func(workload string) (cpu, memory float64) // of its replicas; nil = not known
	file    string                                      // of the error budgets; "" = they begin anew with the process
	book    *slo.Book
	board   fleet.Board
	changed chan struct{} // holds one while wanted has not been put in force

	mu       sync.Mutex
	wanted   asked
	notifier atomic.Pointer[fleet.Notifier] // nil = no webhook

	// Of the loop that the watch runs:
	latest []gateway.RouteStatus
	causes causes
}

// asked is what a configuration asks of signals.
type asked struct {
	slos   []slo.Objective
	alerts gateway.Alerts
	scale  []scale.Config
}

func newSignals(cfg gateway.Config, routes func() []gateway.RouteStatus, report func() advise.Report, log *slog.Logger) (*signals, error) {
	book, err := slo.New(cfg.SLOs)
	if err != nil {
		return nil, err
	}
	s := &signals{log: log, routes: routes, report: report, book: book, changed: make(chan struct{}, 1), wanted: asked{cfg.SLOs, cfg.Alerts, cfg.Scale}}
	if cfg.State != nil {
		s.file = filepath.Join(cfg.State.Dir, budgetFile)
	}
	return s, nil
}

// Reconfigure puts what cfg asks in force. Objectives that still measure the same keep what was counted.
func (s *signals) Reconfigure(cfg gateway.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := asked{cfg.SLOs, cfg.Alerts, cfg.Scale}
	if reflect.DeepEqual(next, s.wanted) {
		return
	}
	s.wanted = next
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends.
func (s *signals) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		now := s.wanted
		s.mu.Unlock()
		if err := s.book.Reconfigure(time.Now(), now.slos); err != nil {
			s.log.Error("objectives stay as they were", "error", err) // a reload has validated them
		}
		s.runOnce(ctx, now)
	}
	return nil
}

// runOnce watches until ctx ends or the configuration changes.
func (s *signals) runOnce(ctx context.Context, now asked) {
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	var notifier *fleet.Notifier
	if now.alerts.Webhook != nil {
		notifier = fleet.NewNotifier(*now.alerts.Webhook, nil, s.log)
	}
	s.notifier.Store(notifier)
	w := &fleet.Watch{
		Routes: s.look, Log: s.log, Book: s.book, Shares: s.shares, Notifier: notifier, PageURL: now.alerts.Page, File: s.file,
		Board: &s.board, Workloads: now.scale, Permits: s.permits, Usage: s.usage,
	}
	watching := make(chan struct{})
	if len(now.slos)+len(now.scale) > 0 {
		beside.Go(func() { defer close(watching); w.Run(ctx) })
	} else {
		close(watching)
	}
	if notifier != nil {
		// It ends after the watch, whose last alerts it still sends.
		late, end := context.WithCancel(context.WithoutCancel(ctx))
		beside.Go(func() { <-ctx.Done(); <-watching; end() })
		beside.Go(func() { notifier.Run(late) })
	}
	select {
	case <-ctx.Done():
	case <-s.changed:
	}
	stop()
	beside.Wait()
}

// look reads the routes for the watch, and for what it asks of them then.
func (s *signals) look() []gateway.RouteStatus {
	s.latest = s.routes()
	s.causes.note(time.Now(), s.latest)
	return s.latest
}

func (s *signals) permits(route string) int {
	for i := range s.latest {
		if s.latest[i].Name == route {
			return s.latest[i].Limit
		}
	}
	return 0
}

// shares is what makes calls of a route bad: slow ones by the diagnosis, failed ones by their class.
func (s *signals) shares(route string, kind slo.Kind) []slo.Share {
	if kind == slo.Availability {
		return s.causes.shares(route)
	}
	var all []slo.Share
	for _, r := range s.report().Routes {
		if r.Service != ownService || r.Operation != route {
			continue
		}
		for _, g := range r.Segments {
			if g.Share.P99 > 0 {
				all = append(all, slo.Share{Cause: slo.Cause{Segment: string(g.Segment), Service: g.Service, Operation: g.Operation}, Ratio: g.Share.P99})
			}
		}
	}
	return all
}

// hold is why nothing on a route may get more calls now; "" = it may. A budget that is used up does not hold: what is
// rolled out may be the cure.
func (s *signals) hold(route string) string {
	for _, o := range s.book.Status(time.Now()) {
		if o.Route == route && paging(&o) {
			return fmt.Sprintf("objective %s burns its error budget fast", o.Name)
		}
	}
	return ""
}

// paging reports whether the alert of an objective fires that wants somebody now.
func paging(o *slo.Status) bool {
	return slices.ContainsFunc(o.Alerts, func(a slo.Alert) bool { return a.Severity == slo.Page && a.State == slo.Firing })
}

// Collector shows all of it as metrics.
func (s *signals) Collector() fleet.Collector {
	return fleet.Collector{Book: s.book, Board: &s.board, Notifier: s.notifier.Load, Now: time.Now}
}

// causes knows by which classes calls failed in the last minute or two.
type causes struct {
	at           time.Time
	older, newer map[string]map[string]uint64 // cumulative calls by route and class: one to two minutes ago, and since
	now          map[string]map[string]uint64
}

func (c *causes) note(now time.Time, routes []gateway.RouteStatus) {
	c.now = make(map[string]map[string]uint64, len(routes))
	for i := range routes {
		c.now[routes[i].Name] = routes[i].Classes
	}
	if now.Sub(c.at) >= time.Minute {
		c.at, c.older, c.newer = now, c.newer, c.now
	}
	if c.older == nil {
		c.older = c.newer
	}
}

func (c *causes) shares(route string) []slo.Share {
	var all []slo.Share
	total := 0.0
	for _, class := range slo.BadClasses() {
		if n := c.now[route][class] - min(c.older[route][class], c.now[route][class]); n > 0 {
			all = append(all, slo.Share{Cause: slo.Cause{Segment: class}, Ratio: float64(n)})
			total += float64(n)
		}
	}
	for i := range all {
		all[i].Ratio /= total
	}
	return all
}

// serveKEDA tells Kubernetes the wanted replicas until ctx ends; l nil = nobody asks.
func (s *signals) serveKEDA(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	return fleet.NewKEDA(&s.board).Serve(ctx, l)
}

// byBudget sorts objectives by what is left of their error budget, the least first.
func byBudget(all []slo.Status) []slo.Status {
	slices.SortStableFunc(all, func(a, b slo.Status) int { return cmp.Compare(a.Remaining, b.Remaining) })
	return all
}

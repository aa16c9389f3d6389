package fleet

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
)

const (
	scaleEvery = 2 * time.Second
	sloEvery   = 5 // times scaleEvery: the width of the finest bucket
	saveEvery  = 30
)

// Watch feeds objectives and scalers with what a gateway counts, sends alerts, and keeps the error budgets. Set the fields
// and Run it once; Routes, Book, Board and Log are mandatory.
type Watch struct {
	Routes func() []gateway.RouteStatus
	Log    *slog.Logger

	Book     *slo.Book
	Shares   func(route string, kind slo.Kind) []slo.Share // what makes calls bad at present; nil or none = not known
	Notifier *Notifier                                     // nil = alerts are logged only
	PageURL  string                                        // of the gateway's page, for alerts; "" = not known
	File     string                                        // of the error budgets; "" = they begin anew with the process

	Board     *Board
	Workloads []scale.Config
	Permits   func(route string) int                      // of the route's limiter now; nil or 0 = not known
	Replicas  func(workload string) (ready, starting int) // nil = the healthy endpoints of the routes, none starting
	Usage     func(workload string) (cpu, memory float64) // mean shares of what replicas may use; nil = not known
}

// Run works until ctx ends, and keeps the error budgets a last time then.
func (w *Watch) Run(ctx context.Context) {
	if w.File != "" {
		if err := LoadBudgets(w.File, time.Now(), w.Book); err != nil {
			w.Log.Warn("error budgets begin anew, as a whole or in part", "error", err)
		}
	}
	deciders := make([]*scale.Decider, 0, len(w.Workloads))
	for _, c := range w.Workloads {
		deciders = append(deciders, scale.New(c))
	}
	tick := time.NewTicker(scaleEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%sloEvery == 0 || len(deciders) > 0 {
			now, routes := time.Now(), w.Routes()
			w.scale(now, routes, deciders)
			if n%sloEvery == 0 {
				w.objectives(now, routes)
			}
		}
		if n%saveEvery == saveEvery-1 {
			w.save()
		}
		select {
		case <-ctx.Done():
			w.save()
			return
		case <-tick.C:
		}
	}
}

func (w *Watch) save() {
	if w.File == "" {
		return
	}
	if err := SaveBudgets(w.File, time.Now(), w.Book); err != nil {
		w.Log.Warn("error budgets were not kept", "error", err)
	}
}

// objectives counts what was added, and moves the alerts on.
func (w *Watch) objectives(now time.Time, routes []gateway.RouteStatus) {
	for _, o := range w.Book.Objectives() {
		i := slices.IndexFunc(routes, func(r gateway.RouteStatus) bool { return r.Name == o.Route })
		if i < 0 {
			continue
		}
		if w.Shares != nil {
			if shares := w.Shares(o.Route, o.Kind); len(shares) > 0 {
				w.Book.Explain(now, o.Name, shares)
			}
		}
		w.Book.Observe(now, o.Name, o.Count(routes[i].Classes, routes[i].Tally.Latency))
	}
	for _, e := range w.Book.Evaluate(now) {
		w.Log.Warn(e.Summary(), "slo", e.Status.Name, "route", e.Status.Route, "severity", string(e.Alert.Severity), "state", string(e.Alert.State))
		if w.Notifier == nil {
			continue
		}
		if err := w.Notifier.Notify(e.Payload(w.PageURL)); err != nil {
			w.Log.Warn("an alert was not sent", "error", err)
		}
	}
}

func (w *Watch) scale(now time.Time, routes []gateway.RouteStatus, deciders []*scale.Decider) {
	for i, d := range deciders {
		d.Observe(now, w.sample(w.Workloads[i].WithDefaults(), routes))
		w.Board.Set(d.Recommend(now))
	}
}

// sample adds up the routes that a workload serves.
func (w *Watch) sample(c scale.Config, routes []gateway.RouteStatus) (s scale.Sample) {
	healthy := map[string]bool{} // routes may share endpoints
	for _, r := range routes {
		if !slices.Contains(c.Routes, r.Name) {
			continue
		}
		s.Arrivals += r.Tally.Calls - min(r.Tally.CacheHits, r.Tally.Calls)
		s.Calls = s.Calls.Merge(r.Tally.Latency)
		if w.Permits != nil {
			s.Limit += w.Permits(r.Name)
		}
		for _, e := range r.Endpoints {
			if _, told := healthy[e.Name]; !told {
				healthy[e.Name] = e.Healthy
				s.Attempts = s.Attempts.Merge(e.Latency)
			}
		}
	}
	for _, is := range healthy {
		if is {
			s.Ready++
		}
	}
	if w.Replicas != nil {
		s.Ready, s.Starting = w.Replicas(c.Name)
	}
	if w.Usage != nil {
		s.CPU, s.Memory = w.Usage(c.Name)
	}
	return s
}

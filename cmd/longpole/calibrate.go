package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/web"
)

// calibrateEvery is the slice that a judge.Calibration is made for.
const calibrateEvery = 10 * time.Second

// halved is a gateway whose routes can be compared with themselves.
type halved interface {
	Routes() []gateway.RouteStatus
	Halve(route string, ratio float64) error
	Halves(route string) (one, other stats.Tally, err error)
	Unhalve(route string) error
}

// calibrations knows of each route how often the judge sees a difference where there is none.
type calibrations struct {
	gateway halved
	config  func() gateway.Judge
	log     *slog.Logger
	share   float64 // of the halves that are there; 0 = there are none

	mu  sync.Mutex
	all map[string]*calibrated
}

// calibrated is that of one route.
type calibrated struct {
	judge  *judge.Calibration
	before *[2]stats.Tally // of the slice before; nil = the halves are new
}

func newCalibrations(g halved, config func() gateway.Judge, log *slog.Logger) *calibrations {
	return &calibrations{gateway: g, config: config, log: log, all: map[string]*calibrated{}}
}

// Run compares until ctx ends.
func (c *calibrations) Run(ctx context.Context) error {
	tick := time.NewTicker(calibrateEvery)
	defer tick.Stop()
	for {
		c.step()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// step takes in one slice of every route.
func (c *calibrations) step() {
	cfg := c.config()
	share := cfg.Share
	if !cfg.Calibrate {
		share = 0
	}
	if share == 0 && c.share == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	there := map[string]bool{}
	for _, r := range c.gateway.Routes() {
		there[r.Name] = true
		if share != c.share {
			if err := c.gateway.Unhalve(r.Name); err != nil {
				c.log.Warn("a route stays halved", "route", r.Name, "error", err)
			}
		}
		if share > 0 {
			c.route(r.Name, share)
		}
	}
	for name := range c.all {
		if !there[name] {
			delete(c.all, name)
		}
	}
	c.share = share
}

func (c *calibrations) route(name string, share float64) {
	one, other, err := c.gateway.Halves(name)
	of := c.all[name]
	switch {
	case errors.Is(err, gateway.ErrNoCandidate):
		if of != nil {
			of.before = nil
		}
		// While a rollout runs there are no halves, and a route that answers by itself has none.
		if err := c.gateway.Halve(name, share); err != nil && !errors.Is(err, gateway.ErrStaged) && !errors.Is(err, gateway.ErrNoPolicy) {
			c.log.Debug("not calibrated", "route", name, "error", err)
		}
		return
	case err != nil:
		return // the route has just gone
	case of == nil:
		of = &calibrated{judge: judge.NewCalibration(judge.Config{})}
		c.all[name] = of
	}
	if of.before != nil {
		of.judge.Add(one.Sub(of.before[0]), other.Sub(of.before[1]))
	}
	of.before = &[2]stats.Tally{one, other}
}

// List is what was found, by route.
func (c *calibrations) List() []web.Calibration {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]web.Calibration, 0, len(c.all))
	for name, of := range c.all {
		all = append(all, web.Calibration{Route: name, CalibrationStatus: of.judge.Status()})
	}
	slices.SortFunc(all, func(a, b web.Calibration) int { return cmp.Compare(a.Route, b.Route) })
	return all
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
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

// calibrationName is what the store keeps their states under.
const calibrationName = "calibrations"

// calibrations knows of each route how often the judge sees a difference where there is none. Rollouts are judged by it.
type calibrations struct {
	gateway halved
	config  func() gateway.Judge
	log     *slog.Logger
	store   *store.Store // nil = what was found ends with the process; set before Run
	share   float64      // of the halves that are there; 0 = there are none
	saved   uint64       // comparisons that the store knows of

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
		c.save(ctx)
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

// load goes on from what the store knows of an earlier process.
func (c *calibrations) load(ctx context.Context, s *store.Store) {
	c.store = s
	data, err := s.Get(ctx, calibrationName)
	if errors.Is(err, store.ErrAbsent) {
		return
	}
	states := map[string]judge.CalibrationState{}
	if err == nil {
		err = json.Unmarshal(data, &states)
	}
	if err != nil {
		c.log.Warn("the judge is calibrated anew", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, state := range states {
		k, err := judge.RestoreCalibration(judge.Config{}, state)
		if err != nil {
			c.log.Warn("the judge is calibrated anew", "route", name, "error", err)
			continue
		}
		c.all[name] = &calibrated{judge: k}
		c.saved += state.Total
	}
}

// save writes down what was found since the last time. What the store refuses is tried again with the next slice.
func (c *calibrations) save(ctx context.Context) {
	states, total := c.states()
	if c.store == nil || total == c.saved {
		return
	}
	data, err := json.Marshal(states)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, journalWait)
		defer cancel()
		err = c.store.Put(ctx, time.Now(), calibrationName, data)
	}
	if err != nil {
		c.log.Warn("what the judge's calibration found is not written down", "error", err)
		return
	}
	c.saved = total
}

// states is what was found, by route, and the number of comparisons.
func (c *calibrations) states() (all map[string]judge.CalibrationState, total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all = make(map[string]judge.CalibrationState, len(c.all))
	for name, of := range c.all {
		all[name] = of.judge.State()
		total += all[name].Total
	}
	return all, total
}

// Of is what was found on a route; nothing while it is not looked for.
func (c *calibrations) Of(route string) rollout.Calibration {
	if !c.config().Calibrate {
		return rollout.Calibration{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if of := c.all[route]; of != nil {
		return of.judge.Status()
	}
	return rollout.Calibration{}
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

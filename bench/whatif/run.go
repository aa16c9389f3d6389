package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// job is one study under one load.
type job struct {
	study
	rate float64
	seed uint64
}

// result is what was forecast and what came. Times are in milliseconds.
type result struct {
	Study    string           `json:"study"`
	Change   string           `json:"change"` // kind of the action, or the first word of the what-if
	Rate     float64          `json:"rate"`
	Seed     uint64           `json:"seed"`
	Aside    bool             `json:"aside"` // the change is about what nobody waits for
	Said     string           `json:"said"`  // what the action proposes, or the what-if
	Why      string           `json:"why"`   // why there is no forecast; "" = there is one
	Forecast advise.Effect    `json:"forecast"`
	After    advise.Predicted `json:"after"`
	Calls    int              `json:"calls"`  // that were recorded after the change
	Doubts   []string         `json:"doubts"` // of the load generator about its figures
	Claims   []string         `json:"claims"` // gains that the report's actions promise for what nobody waits for
}

// bench runs jobs and keeps what came of them.
type bench struct {
	o       options
	mu      sync.Mutex
	results []result
}

// jobs are all runs.
func jobs(all []study, o options) (list []job) {
	for _, s := range all {
		for i, rate := range s.Rates {
			if strings.Contains(s.name, o.only) {
				list = append(list, job{s, rate, o.seed + uint64(i)})
			}
		}
	}
	return list
}

// run plays jobs, some of them at a time.
func (b *bench) run(ctx context.Context, list []job) error {
	b.results = make([]result, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.o.atOnce)
	done := 0
	for i := range list {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r, err := list[i].play(ctx, b.o.traces)
			if err != nil && ctx.Err() == nil {
				r.Why, err = err.Error(), nil // the others go on
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.results[i] = r
			done++
			b.o.progress(fmt.Sprintf("%d of %d: %s at %g/s %s", done, len(list), list[i].name, list[i].rate, r.Why))
			return err
		})
	}
	return g.Wait()
}

// seen is what one run of a system recorded.
type seen struct {
	traces []trace.Trace
	facts  evidence.Facts
	report advise.Report
	doubts []string
}

// watch runs a system for its phase and records it.
func watch(ctx context.Context, spec scenario.Scenario, seed uint64) (s seen, err error) {
	out, err := lab.Run(ctx, spec, lab.TrialOptions{
		Seed:   seed,
		Traces: func(traces []trace.Trace, f evidence.Facts) { s.traces, s.facts = traces, f },
		Report: func(r advise.Report) { s.report = r },
	})
	s.doubts = out.Doubts
	return s, err
}

// keep writes what was recorded to a folder, for `longpole diagnose` to look at; "" = nobody asked for it.
func (s *seen) keep(folder, name string) error {
	if folder == "" {
		return nil
	}
	var spans []trace.Span
	for _, t := range s.traces {
		spans = append(spans, t.Spans...)
	}
	facts, err := json.MarshalIndent(s.facts, "", "  ")
	return errors.Join(err,
		os.MkdirAll(folder, 0o755),
		os.WriteFile(filepath.Join(folder, name+".otlp"), ingest.EncodeOTLP(spans), 0o644),
		os.WriteFile(filepath.Join(folder, name+".facts.json"), facts, 0o644))
}

// play records the problem, asks for the forecast, makes the change, and records again with other draws. folder takes what was
// recorded; "" = nobody wants it.
func (j job) play(ctx context.Context, folder string) (result, error) {
	r := result{Study: j.name, Change: j.Action, Rate: j.rate, Seed: j.seed, Aside: j.Aside != ""}
	if j.WhatIf != "" {
		r.Change, _, _ = strings.Cut(j.WhatIf, " ")
	}
	spec := j.before(j.rate)
	name := fmt.Sprintf("%s-%g", j.name, j.rate)
	before, err := watch(ctx, spec, j.seed)
	if err = errors.Join(err, before.keep(folder, name+"-before")); err != nil {
		return r, err
	}
	r.Doubts, r.Claims = before.doubts, j.claims(before.report, j.path())
	change, err := j.foretell(&r, &before)
	if err != nil {
		r.Why = err.Error()
		return r, nil
	}
	if !j.Cured.Policy {
		change = nil
	}
	if spec, err = j.after(spec, change); err != nil {
		return r, err
	}
	const others = 1 << 32 // so that no two runs of a study draw the same
	after, err := watch(ctx, spec, j.seed+others)
	if err = errors.Join(err, after.keep(folder, name+"-after")); err != nil {
		return r, err
	}
	r.Doubts = append(r.Doubts, after.doubts...)
	r.After, r.Calls = quantiles(after.traces, r.Forecast.Service, r.Forecast.Operation)
	return r, nil
}

// path is what clients ask for.
func (s *study) path() string {
	return "/" + strings.Replace(s.Problem.Load.Routes[0].To, ".", "/", 1)
}

var errSilent = errors.New("no forecast")

// foretell takes the forecast for the clients' calls from the report, or asks for it in words. change is the edit of a policy that
// the action proposes; nil = it proposes none.
func (j *job) foretell(r *result, s *seen) (change *longpole.Change, err error) {
	if j.WhatIf != "" {
		r.Said = j.WhatIf
		f, err := advise.WhatIf(s.traces, j.WhatIf)
		if err != nil {
			return nil, err
		}
		e := outermost(f.Effects, j.path())
		if e == nil {
			return nil, errSilent
		}
		r.Forecast = *e
		return nil, nil
	}
	why := fmt.Sprintf("the report has no action %s", j.Action)
	for _, route := range s.report.Routes {
		for _, f := range route.Findings {
			for _, a := range f.Actions {
				if a.Kind != j.Action {
					continue
				}
				e := outermost(a.Effects, j.path())
				if e == nil {
					why = fmt.Sprintf("%s without a forecast: %s", a.Kind, strings.Join(f.CounterEvidence, "; "))
					continue
				}
				r.Said, r.Forecast = a.Summary, *e
				return a.Change, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", errSilent, why)
}

// claims are the gains that actions about what nobody waits for promise to the clients' calls.
func (s *study) claims(r advise.Report, path string) (list []string) {
	if s.Aside == "" {
		return nil
	}
	for _, route := range r.Routes {
		for _, f := range route.Findings {
			for _, a := range f.Actions {
				if e := outermost(a.Effects, path); f.Service == s.Aside && e != nil && gains(e) {
					list = append(list, a.Kind+": "+a.Summary)
				}
			}
		}
	}
	return list
}

// gains reports whether e promises that any quantile falls by more than a hundredth.
func gains(e *advise.Effect) bool {
	const least = 0.99
	return e.Predicted.P50 < least*e.Before.P50 || e.Predicted.P95 < least*e.Before.P95 || e.Predicted.P99 < least*e.Before.P99
}

// outermost is the effect on the calls as the client saw them; nil = there is none.
func outermost(effects []advise.Effect, path string) *advise.Effect {
	for i := range slices.Backward(effects) {
		if strings.HasSuffix(effects[i].Operation, path) && effects[i].Route == "" {
			return &effects[i]
		}
	}
	return nil
}

// quantiles are those of the spans of an operation without a parent, by nearest rank, and how many there are.
func quantiles(traces []trace.Trace, service, operation string) (p advise.Predicted, calls int) {
	var took []float64
	for _, t := range traces {
		for i := range t.Spans {
			if x := &t.Spans[i]; x.Parent == "" && x.Service == service && x.Name == operation {
				took = append(took, float64(x.End-x.Start)/1e6)
			}
		}
	}
	if len(took) == 0 {
		return p, 0
	}
	slices.Sort(took)
	at := func(q float64) float64 { return took[max(0, int(math.Ceil(q*float64(len(took))))-1)] }
	return advise.Predicted{P50: at(0.5), P95: at(0.95), P99: at(0.99)}, len(took)
}

// stopwatch tells how long something took, in whole seconds.
func stopwatch() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began).Round(time.Second) }
}

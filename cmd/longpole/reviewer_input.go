package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/web"
)

// input gathers what a review looks at.
func (v *reviewer) input(ctx context.Context, now time.Time) review.Input {
	cfg := v.gateway.Effective()
	in := review.Input{Now: now, Environment: cfg.Environment.Name, Program: version, Config: cfg.Review, Objectives: v.objectives(), Replicas: v.replicas(), Unheld: map[string]string{}}
	for route, k := range v.rollouts.Killed() {
		in.Killed = append(in.Killed, review.Kill{Route: route, Parts: k.Parts, Reason: k.Reason, Since: k.Since})
	}
	slices.SortFunc(in.Killed, func(a, b review.Kill) int { return a.Since.Compare(b.Since) })
	found := v.findings()
	in.Poles, in.Advice = polesOf(found), adviceOf(found)
	for _, s := range v.rollouts.List() {
		if !s.Phase.Final() && s.Hypothesis != nil {
			in.Running = append(in.Running, review.Running{ID: s.ID, Route: s.Route, Code: s.Hypothesis.Code})
		}
		if s.Held != "" && s.Held != rollout.Held {
			in.Unheld[s.ID] = s.Held
		}
	}
	if cfg.Environment.Requires != "" {
		v.compare(ctx, cfg, &in)
	}
	looks := v.looks()
	v.mu.Lock()
	defer v.mu.Unlock()
	in.Routes = v.meters.Routes(looks)
	in.Records, in.Standings, in.Last = slices.Clone(v.records), v.watch.Standings(), v.last
	in.Exercised = append(in.Exercised, v.exercised...)
	in.Systems, in.Days, in.Dismissals = v.survey.Systems(), v.calendar.Days(), slices.Clone(v.dismissals)
	return in
}

// compare adds how the environment before resembles this one. That it does not answer is no reason not to review the rest.
func (v *reviewer) compare(ctx context.Context, cfg gateway.Config, in *review.Input) {
	b := forerunner{cfg.Environment}
	records, err := b.records(ctx)
	if err != nil {
		v.log.Warn("review: records of another environment", "environment", cfg.Environment.Requires, "error", err)
	}
	in.Staging, in.Exercised = records, b.exercised(ctx)
	if theirs, ok := b.workload(ctx, records); ok {
		ours := v.Workload()
		score := staging.Fidelity(theirs, ours, cfg.Environment.Least)
		in.Fidelity, in.Drift = &score, staging.Drift(theirs, ours)
	}
}

// polesOf is the share that each segment has of its route's p99.
func polesOf(found web.Findings) (list []review.Pole) {
	for _, r := range found.Report.Routes {
		for _, s := range r.Segments[:min(len(r.Segments), 10)] {
			if len(list) == staging.MaxSegments {
				return list
			}
			list = append(list, review.Pole{Route: r.Service + " " + r.Operation, Segment: string(s.Segment) + " " + s.Service + " " + s.Operation, Share: s.Share.P99})
		}
	}
	return list
}

// adviceOf is every finding that has a cure: one of ours for a route, or else its best.
func adviceOf(found web.Findings) (list []review.Advice) {
	for _, r := range found.Report.Routes {
		for _, f := range r.Findings {
			if len(f.Actions) == 0 {
				continue
			}
			a := review.Advice{
				Code: f.Code, Subject: strings.TrimSpace(f.Service + " " + f.Operation), Kind: f.Actions[0].Kind, Summary: f.Summary, ShareP99: f.ShareP99,
				Basis: fmt.Sprint(f.Class, " ", f.Segment, " ", f.Service, " ", f.Operation, " ", f.Verdict),
			}
			ours := false
			for _, action := range f.Actions {
				if action.Change != nil {
					one := a
					one.Route, one.Subject, one.Kind, ours = action.Change.Route, action.Change.Route, action.Kind, true
					list = append(list, one)
				}
			}
			if !ours {
				list = append(list, a)
			}
		}
	}
	return list
}

// looks is one at each route that has a policy.
func (v *reviewer) looks() (list []review.Meter) {
	for _, r := range v.gateway.Routes() {
		if policy, err := v.gateway.Policy(r.Name); err == nil {
			list = append(list, meterOf(r, policy.Safe()))
		}
	}
	return list
}

func meterOf(r gateway.RouteStatus, policy longpole.Config) review.Meter {
	m := review.Meter{Route: r.Name, Upstream: r.Upstream, Limit: r.Limit, Did: r.Tally, Caches: map[string]uint64{}, Policy: policy}
	for state, latency := range r.Caches {
		m.Caches[state] = latency.Count()
	}
	for _, e := range r.Endpoints {
		m.Open = m.Open || e.Breaker == breaker.Open.String()
	}
	return m
}

package main

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/setting"
)

//go:embed cases/*.yaml
var files embed.FS

// study is one file: a system with a problem, the forecast that is asked for, and the same system after the change.
type study struct {
	name    string
	Action  string            `yaml:"action"`  // kind of the action whose forecast is taken from the report, or
	WhatIf  string            `yaml:"whatif"`  // the change in words, as `longpole whatif` reads it
	Aside   string            `yaml:"aside"`   // service that nobody waits for, and about which the change is; "" = it is on the critical path
	Rates   []float64         `yaml:"rates"`   // calls a second of the first route; each is a run with a seed of its own
	Problem scenario.Scenario `yaml:"problem"` // its name is that of the file
	Cured   cured             `yaml:"cured"`
}

// cured is what is different after the change: what it names replaces what has the same name.
type cured struct {
	Services []scenario.Service `yaml:"services"`
	Stores   []scenario.Store   `yaml:"stores"`
	Queues   []scenario.Queue   `yaml:"queues"`
	Calm     bool               `yaml:"calm"`   // the faults are gone
	Policy   bool               `yaml:"policy"` // the policy that the action proposes is in force
}

// studies are all files, in the order of their names.
func studies() ([]study, error) {
	entries, err := files.ReadDir("cases")
	if err != nil {
		return nil, err
	}
	var all []study
	for _, e := range entries {
		file := path.Join("cases", e.Name())
		data, err := files.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s, err := readStudy(file, data)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func readStudy(file string, data []byte) (study, error) {
	name := strings.TrimSuffix(path.Base(file), ".yaml")
	s := study{name: name, Problem: scenario.Scenario{Name: name, Truth: scenario.Truth{Healthy: true}}} // so that no cure is tried
	return s, conf.Load(file, data, &s, (*study).validate)
}

func (s *study) validate() error {
	var f setting.Faults
	f.Check((s.Action == "") != (s.WhatIf == ""), "action", s.Action, "either action or whatif")
	f.Check(len(s.Rates) > 0, "rates", s.Rates, "at least one rate")
	f.Check(!s.Cured.Policy || s.Action != "", "cured.policy", s.Cured.Policy, "an action that has a policy")
	f.Within("problem", s.Problem.Validate())
	after, err := s.after(s.Problem, nil)
	f.Within("cured", errors.Join(err, after.Validate()))
	return f.Err()
}

// before is the system with the problem under a load.
func (s *study) before(rate float64) scenario.Scenario {
	spec := s.Problem
	spec.Load.Routes = slices.Clone(spec.Load.Routes)
	spec.Load.Routes[0].Rate = rate
	return spec.WithDefaults()
}

// after is spec with the change made; change is the policy that was proposed, nil = none.
func (s *study) after(spec scenario.Scenario, change *longpole.Change) (scenario.Scenario, error) {
	spec.Services = replaced(spec.Services, s.Cured.Services, func(x *scenario.Service) string { return x.Name })
	spec.Stores = replaced(spec.Stores, s.Cured.Stores, func(x *scenario.Store) string { return x.Name })
	spec.Queues = replaced(spec.Queues, s.Cured.Queues, func(x *scenario.Queue) string { return x.Name })
	if s.Cured.Calm {
		spec.Faults = nil
	}
	if change != nil {
		policy, err := conf.Marshal(change.To)
		if err != nil {
			return spec, fmt.Errorf("%s: %w", s.name, err)
		}
		spec.Gateway = slices.Clone(spec.Gateway)
		service, _, _ := strings.Cut(change.Route, ".") // a route of the lab's gateway is named SERVICE.OPERATION
		i := slices.IndexFunc(spec.Gateway, func(e scenario.Edge) bool { return e.Service == service })
		if i < 0 {
			return spec, fmt.Errorf("%s: the change is for route %q, which no service of the gateway has", s.name, change.Route)
		}
		spec.Gateway[i].Policy = string(policy)
	}
	return spec.WithDefaults(), nil
}

// replaced is list with those of with in the place of what has their names; what has none comes at the end.
func replaced[T any](list, with []T, name func(*T) string) []T {
	list = slices.Clone(list)
	for i := range with {
		at := slices.IndexFunc(list, func(x T) bool { return name(&x) == name(&with[i]) })
		if at < 0 {
			list = append(list, with[i])
			continue
		}
		list[at] = with[i]
	}
	return list
}

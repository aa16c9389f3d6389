package lab

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/setting"
)

//go:embed catalogue/*.yaml
var catalogueFiles embed.FS

// Catalogue is every scenario that comes with Longpole, by name.
func Catalogue() ([]scenario.Scenario, error) {
	entries, err := catalogueFiles.ReadDir("catalogue")
	if err != nil {
		return nil, fmt.Errorf("lab: catalogue: %w", err)
	}
	var all []scenario.Scenario
	for _, e := range entries {
		file := path.Join("catalogue", e.Name())
		data, err := catalogueFiles.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("lab: catalogue: %w", err)
		}
		s, err := ReadScenario(file, data)
		if err != nil {
			return nil, err
		}
		if s.Name != strings.TrimSuffix(e.Name(), ".yaml") {
			return nil, fmt.Errorf("lab: %s: its name is %q; want that of the file", file, s.Name)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b scenario.Scenario) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// ReadScenario is [scenario.Read], which also refuses what the gateway refuses of routes and policies, and kinds of action that
// there are none of.
func ReadScenario(file string, data []byte) (scenario.Scenario, error) {
	return scenario.Read(file, data, edges, actions)
}

// actions checks that the truth names actions that can come first.
func actions(s *scenario.Scenario) error {
	var f setting.Faults
	for i, kind := range s.Truth.Action {
		f.Check(slices.Contains(advise.Kinds(), kind), fmt.Sprintf("truth.action[%d]", i), kind, "one of "+strings.Join(advise.Kinds(), ", "))
	}
	return f.Err()
}

// edges checks the texts of routes and policies.
func edges(s *scenario.Scenario) error {
	var f setting.Faults
	for i, e := range s.Gateway {
		_, err := gateway.Load("", edgeYAML(e))
		for _, fault := range setting.List(err) {
			f.Within(fmt.Sprintf("gateway[%d]", i), edgeFault(fault))
		}
	}
	return f.Err()
}

// edgeYAML is a gateway's configuration whose one route has what a scenario says of routes to a service.
func edgeYAML(e scenario.Edge) []byte {
	text := "upstreams: {x: {endpoints: [\"http://127.0.0.1:1\"]}}\nroutes:\n  - name: x\n    upstream: x\n" + indent(e.Route, "    ")
	if policy := indent(e.Policy, "      "); policy != "" {
		text += "    policy:\n" + policy
	}
	return []byte(text)
}

// edgeFault is a fault of such a configuration where it stands in the scenario.
func edgeFault(err error) error {
	at, ok := errors.AsType[*conf.Error](err)
	if !ok {
		return err
	}
	path, inPolicy := strings.CutPrefix(at.Path, "routes[0].policy")
	if path = "policy" + path; !inPolicy {
		path = strings.Replace(at.Path, "routes[0]", "route", 1)
	}
	if value, want, told := strings.Cut(at.Msg, " is not allowed; want "); told {
		return &setting.Error{Path: path, Value: worded(value), Want: want}
	}
	return &setting.Error{Path: path, Value: worded("this"), Want: "what the gateway takes: " + at.Msg}
}

// worded is a value as a message has it already.
type worded string

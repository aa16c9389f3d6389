package main

import (
	"strings"
	"testing"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/retry"
)

func TestThereAreEnoughCases(t *testing.T) {
	all, err := studies()
	if err != nil {
		t.Fatal(err)
	}
	kinds, runs, aside := map[string]bool{}, 0, 0
	for _, s := range all {
		if s.Aside != "" {
			aside += len(s.Rates)
			continue
		}
		kinds[s.Action+s.WhatIf] = true
		runs += len(s.Rates)
	}
	if len(kinds) < 12 || runs < 24 || aside < 3 {
		t.Errorf("%d changes, %d runs, %d off the critical path; want at least 12, 24 and 3", len(kinds), runs, aside)
	}
}

const plain = `
action: hedge
rates: [10]
problem:
  about: a is slow
  services:
    - {name: a, operations: [{name: get, steps: [{call: {to: b.get}}]}]}
    - {name: b, operations: [{name: get, steps: [{sleep: {fixed: 5ms}}]}]}
  gateway: [{service: a}, {service: b}]
  load: {routes: [{to: a.get, rate: 10}]}
  faults: [{kind: delay, service: b, delay: {fixed: 1s}}]
`

func TestACuredSystemDiffersInWhatIsNamed(t *testing.T) {
	s, err := readStudy("x.yaml", []byte(plain+`cured:
  calm: true
  policy: true
  services: [{name: b, replicas: 3, operations: [{name: get, steps: [{sleep: {fixed: 1ms}}]}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	before := s.before(7)
	change := &longpole.Change{Route: "b", To: longpole.Config{Retry: &retry.Config{MaxAttempts: 2}}}
	after, err := s.after(before, change)
	if err != nil {
		t.Fatal(err)
	}
	if before.Name != "x" || before.Load.Routes[0].Rate != 7 || len(before.Faults) != 1 || before.Services[1].Replicas != 1 || before.Gateway[1].Policy != "" {
		t.Errorf("before: %+v", before)
	}
	if len(after.Faults) != 0 || after.Services[1].Replicas != 3 || after.Services[0].Name != "a" || !strings.Contains(after.Gateway[1].Policy, "max_attempts: 2") {
		t.Errorf("after: %+v", after)
	}
}

func TestFaultsOfAFileAreTold(t *testing.T) {
	for text, want := range map[string]string{
		plain + "whatif: batch b\ncured: {calm: true}": "either action or whatif",
		plain + "cured: {quiet: true}":                 "quiet",
		plain + "cured: {services: [{name: c, operations: [{name: get, steps: [{call: {to: z.get}}]}]}]}": "z.get",
		strings.Replace(plain, "rates: [10]", "rates: []", 1) + "cured: {calm: true}":                     "at least one rate",
	} {
		if _, err := readStudy("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/ingest"
)

func TestAgain(t *testing.T) {
	folder := os.Getenv("AGAIN")
	if folder == "" {
		t.Skip()
	}
	all, err := studies()
	if err != nil {
		t.Fatal(err)
	}
	var results []result
	for _, j := range jobs(all, options{only: os.Getenv("ONLY")}) {
		name := filepath.Join(folder, fmt.Sprintf("%s-%g", j.name, j.rate))
		in, err := ingest.ReadPaths(context.Background(), []string{name + "-before.otlp"}, nil, nil)
		if err != nil {
			continue
		}
		var s seen
		s.traces = in.Traces
		data, _ := os.ReadFile(name + "-before.facts.json")
		_ = json.Unmarshal(data, &s.facts)
		policies := map[string]longpole.Config{}
		for _, e := range j.Problem.Gateway {
			for _, o := range j.Problem.Service(e.Service).Operations {
				policies[e.Service+"."+o.Name] = longpole.Config{}
			}
		}
		s.report = advise.Run(in.Traces, diagnose.Options{Facts: s.facts}, policies)
		r := result{Study: j.name, Change: j.Action, Rate: j.rate, Seed: j.seed, Aside: j.Aside != ""}
		r.Claims = j.claims(s.report, j.path())
		if _, err := j.foretell(&r, &s); err != nil {
			r.Why = err.Error()
		}
		after, err := ingest.ReadPaths(context.Background(), []string{name + "-after.otlp"}, nil, nil)
		if err != nil {
			if r.Why == "" {
				t.Log(r.Study, r.Rate, r.Said, r.Forecast)
			} else {
				t.Log(r.Study, r.Rate, r.Why)
			}
			continue
		}
		r.After, r.Calls = quantiles(after.Traces, r.Forecast.Service, r.Forecast.Operation)
		results = append(results, r)
	}
	report(os.Stdout, results, time.Second)
}

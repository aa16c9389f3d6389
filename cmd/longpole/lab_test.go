package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	check "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scenario"
)

func lablong(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"lab"}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestLabListsItsScenarios(t *testing.T) {
	code, text, _ := lablong(t, "list")
	if code != 0 || !strings.Contains(text, "missing-index") || !strings.Contains(text, "healthy-slow") {
		t.Errorf("list ends with %d:\n%s", code, text)
	}
	code, text, _ = lablong(t, "list", "-o", "json")
	var items []labItem
	if err := json.Unmarshal([]byte(text), &items); code != 0 || err != nil || len(items) < 30 {
		t.Errorf("list -o json ends with %d, %v, %d scenarios", code, err, len(items))
	}
}

func TestLabRefusesWhatItCannotRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte("name: mine\nservices:\n  - name: a\n    replicas: many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"run", file}, exitConfig, "mine.yaml:4:"},
		{[]string{"run", file}, exitConfig, "truth"},
		{[]string{"run", "missing-idnex"}, exitUsage, "lab list"},
		{[]string{"run", "no-such.yaml"}, exitError, "no-such.yaml"},
		{[]string{"run", "healthy", "--resume"}, exitUsage, "--results"},
		{[]string{"run", "healthy", "-o", "xml"}, exitUsage, "want table or json"},
		{[]string{"run"}, exitUsage, "a scenario"},
		{[]string{"up", "healthy", "healthy-slow"}, exitUsage, "one scenario at a time"},
		{[]string{"run", "healthy", "--traces", file}, exitError, "mine.yaml"}, // a file where the folder is to be
		{[]string{"run", "healthy", "--runs", "0"}, exitUsage, "want 1..100"},
		{[]string{"score"}, exitUsage, "a results file"},
		{[]string{"score", "no-such.jsonl"}, exitError, "no-such.jsonl"},
		{[]string{"chaos", "healthy", "healthy-slow"}, exitUsage, "one scenario at a time"},
		{[]string{"chaos", "all"}, exitUsage, "one scenario at a time"},
		{[]string{"chaos", "--every", "1s"}, exitUsage, "every"},
		{[]string{"chaos", "--at-once", "9"}, exitUsage, "1..3"},
		{[]string{"rnu"}, exitUsage, "longpole lab run"},
	} {
		if code, _, text := lablong(t, x.args...); code != x.code || !strings.Contains(text, x.want) {
			t.Errorf("lab %v ends with %d: %s; want %d and %q", x.args, code, text, x.code, x.want)
		}
	}
}

func TestLabResumesFromItsResults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	o := &labRun{results: file}
	if done, err := o.begin(); err != nil || done != nil {
		t.Fatal(done, err)
	}
	out := lab.Outcome{Scenario: "healthy", Seed: 1, Truth: scenario.Truth{Healthy: true}, Verdict: "pass", Named: []lab.Naming{}, Why: []string{}, Seconds: 20}
	if err := o.keep(out); err != nil {
		t.Fatal(err)
	}
	code, text, errs := lablong(t, "run", "healthy", "--results", file, "--resume")
	if code != 0 || !strings.Contains(text, "1 of 1 scenario pass") || !strings.Contains(text, "nothing named in the healthy ones                    100 %         1 of 1 (100 %)      yes") {
		t.Errorf("a run that is done ends with %d: %s%s", code, text, errs)
	}
	if err := os.WriteFile(file, []byte("{]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = lablong(t, "run", "healthy", "--results", file, "--resume"); code != exitError || !strings.Contains(errs, "results.jsonl:1:") {
		t.Errorf("a damaged results file ends with %d: %s", code, errs)
	}
}

func TestLabTellsWhichTracesItCouldNotKeep(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "traces")
	o := &labRun{save: folder}
	if _, err := o.begin(); err != nil {
		t.Fatal(err)
	}
	if o.keeper("healthy")(nil, evidence.Facts{}); o.unsaved != nil {
		t.Error(o.unsaved)
	}
	if names, err := os.ReadDir(folder); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if o.keeper("healthy")(nil, evidence.Facts{}); o.unsaved == nil || !strings.Contains(o.unsaved.Error(), "healthy.otlp") {
		t.Errorf("without the folder: %v", o.unsaved)
	}
}

func TestLabResumesWithoutALineThatWasCutOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	o := &labRun{results: file, resume: true}
	for seed := range uint64(2) {
		if err := o.keep(lab.Outcome{Scenario: "healthy", Seed: seed, Truth: scenario.Truth{Healthy: true}, Verdict: "pass"}); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := o.begin()
	if err != nil || len(done) != 1 || done[0].Seed != 0 {
		t.Errorf("%d outcomes are left, %v", len(done), err)
	}
	if left, err := os.ReadFile(file); err != nil || bytes.Count(left, []byte{'\n'}) != 1 || left[len(left)-1] != '\n' {
		t.Errorf("the file holds %q, %v", left, err)
	}
}

func TestLabScoresWhatWasKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	o := &labRun{results: file}
	truth := scenario.Truth{Class: []string{"dependency"}, Service: []string{"orders"}, Action: []string{"hedge"}}
	for _, x := range []lab.Outcome{
		{Scenario: "slow-replica", Truth: truth, Rank: 1, Action: "hedge", Verdict: "pass", Cure: &lab.Cure{Kind: "hedge", Phase: "inconclusive"}},
		{Scenario: "healthy", Truth: scenario.Truth{Healthy: true}, Verdict: "pass", Before: lab.Measure{Doubted: true}},
	} {
		if err := o.keep(x); err != nil {
			t.Fatal(err)
		}
	}
	code, text, errs := lablong(t, "score", file)
	for _, want := range []string{"2 of 2 scenarios pass", "1 canary: 0 promoted, 1 inconclusive", "in 1 run the generator sent late"} {
		if code != 0 || !strings.Contains(text, want) {
			t.Errorf("score ends with %d without %q: %s%s", code, want, text, errs)
		}
	}
	if err := o.keep(lab.Outcome{Scenario: "healthy", Truth: scenario.Truth{Healthy: true}, Named: []lab.Naming{{}}, Verdict: "fail"}); err != nil {
		t.Fatal(err)
	}
	if code, text, errs = lablong(t, "score", file, "-o", "json"); code != exitThreshold || !strings.Contains(errs, "1 promise is broken") || !json.Valid([]byte(text)) {
		t.Errorf("a broken promise ends with %d: %s%s", code, text, errs)
	}
}

func TestChaosIsShown(t *testing.T) {
	var b bytes.Buffer
	recovered := 40.0
	renderChaos(&b, lab.ChaosReport{
		Scenario: "shop", Seed: 7, Held: 1, Calm: lab.ChaosFigures{P99: 12}, Doubts: []string{"the generator sent late"},
		Faults: []lab.ChaosResult{
			{
				Drawn: lab.Drawn{Kind: "error", Where: "orders-3", What: "it fails all calls", Hypothesis: lab.Hypothesis{Text: "an ejection is seen"}},
				Held:  true, Recovered: &recovered, Refused: 2, Reactions: []lab.Reaction{{Policy: lab.Ejected, Count: 1, After: time.Second}, {Policy: lab.Hedged, Count: 9, Usual: 5}},
			},
			{Drawn: lab.Drawn{Kind: "pause", Where: "orders"}, Why: []string{"p99 was 3s"}},
		},
	})
	for _, want := range []string{
		"ejection 1 after 1000, hedge 9 after 0.00 (5 in the calm), retry refused by its budget 2", "expected: an ejection is seen", "did not hold: p99 was 3s",
		"shop with seed 7: 1 of 2 hypotheses held", "doubt: the generator sent late", "NO",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
}

// TestLabSchemaTakesWhatTheLabTakes holds the schema to the decoder.
func TestLabSchemaTakesWhatTheLabTakes(t *testing.T) {
	code, text, _ := lablong(t, "schema")
	doc, err := check.UnmarshalJSON(strings.NewReader(text))
	if code != 0 || err != nil {
		t.Fatal(code, err)
	}
	c := check.NewCompiler()
	if err := c.AddResource("scenario.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("scenario.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(data []byte) error {
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		v, err = check.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		return compiled.Validate(v)
	}
	files, _ := filepath.Glob("../../internal/lab/catalogue/*.yaml")
	if len(files) < 30 {
		t.Errorf("%d scenarios; want 30 and more", len(files))
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"title: x", "services: {}\nload: [1]", "faults: [{kind: meteor}]", "services: [{name: a, pause: 5}]", "services: [{heap: much}]"} {
		if valid([]byte(bad)) == nil {
			t.Errorf("the schema takes %q", bad)
		}
	}
}

func TestLabTableHasARowForEachOutcome(t *testing.T) {
	var b bytes.Buffer
	all := []lab.Outcome{
		{
			Scenario: "slow-replica", Truth: scenario.Truth{Class: []string{"dependency"}, Service: []string{"orders"}}, Rank: 1, Action: "hedge",
			Named:    []lab.Naming{{Code: "LP103", Class: "dependency", Service: "orders"}},
			Forecast: &lab.Quantile{P99: 40}, After: &lab.Measure{Quantile: lab.Quantile{P99: 44}}, Cure: &lab.Cure{Kind: "hedge", Phase: "promoted"}, Verdict: "pass",
		},
		{Scenario: "healthy", Truth: scenario.Truth{Healthy: true}, Verdict: "pass"},
	}
	if err := (&labRun{output: "table"}).conclude(&b, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"slow-replica", "LP103 dependency orders", "hedge promoted", "2 of 2 scenarios pass", "9 % in the median of 1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	all[0].Verdict = "fail"
	if err := (&labRun{output: "json"}).conclude(&b, all); err == nil || !strings.Contains(err.Error(), "1 of 2 scenarios did not pass") {
		t.Errorf("a failed scenario ends with %v", err)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	check "github.com/santhosh-tekuri/jsonschema/v6"

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
	out := lab.Outcome{Scenario: "healthy", Truth: scenario.Truth{Healthy: true}, Verdict: "pass", Named: []lab.Naming{}, Why: []string{}, Seconds: 20}
	if err := o.keep(out); err != nil {
		t.Fatal(err)
	}
	code, text, errs := lablong(t, "run", "healthy", "--results", file, "--resume")
	if code != 0 || !strings.Contains(text, "1 of 1 scenario pass") || !strings.Contains(text, "silent in health   1 of 1") {
		t.Errorf("a run that is done ends with %d: %s%s", code, text, errs)
	}
	if err := os.WriteFile(file, []byte("{]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = lablong(t, "run", "healthy", "--results", file, "--resume"); code != exitError || !strings.Contains(errs, "results.jsonl:1:") {
		t.Errorf("a damaged results file ends with %d: %s", code, errs)
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
	for _, want := range []string{"slow-replica", "LP103 dependency orders", "hedge promoted", "2 of 2 scenarios pass", "predicted p99 off by 9"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	all[0].Verdict = "fail"
	if err := (&labRun{output: "json"}).conclude(&b, all); err == nil || !strings.Contains(err.Error(), "1 of 2 scenarios did not pass") {
		t.Errorf("a failed scenario ends with %v", err)
	}
}

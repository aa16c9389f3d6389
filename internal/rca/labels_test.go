package rca_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/rca"
)

func TestLabelsAreRead(t *testing.T) {
	got, err := rca.ParseLabels(strings.NewReader(`
{"suspect":"shop-2023-01-30-fault1.otlp.jsonl.gz","baseline":"shop-2023-01-30-healthy.otlp.jsonl.gz","fault":"cpu_contention","service":"cart","pod":"cart-1"}

{"suspect":["b/2.json","b/1.json"],"baseline":["monday","tuesday/"],"services":["b","a","b"],"fault":"Network-Delay","class":"dependency","system":"bank","name":"two"}
{"suspect":"quiet.json","baseline":"healthy.json","service":""}
{"suspect":"7.json","baseline":"healthy.json","services":[],"fault":"packet loss"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []rca.Case{
		{Name: "shop-2023-01-30-fault1", System: "shop", Fault: "cpu_contention", Class: "cpu", Services: []string{"cart"}, Suspect: []string{"shop-2023-01-30-fault1.otlp.jsonl.gz"}, Baseline: []string{"shop-2023-01-30-healthy.otlp.jsonl.gz"}},
		{Name: "two", System: "bank", Fault: "Network-Delay", Class: "dependency", Services: []string{"a", "b"}, Suspect: []string{"b/2.json", "b/1.json"}, Baseline: []string{"monday", "tuesday/"}},
		{Name: "quiet", System: "quiet", Fault: "none", Services: []string{}, Suspect: []string{"quiet.json"}, Baseline: []string{"healthy.json"}},
		{Name: "7", System: "all", Fault: "packet loss", Class: "network", Services: []string{}, Suspect: []string{"7.json"}, Baseline: []string{"healthy.json"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadLabelsNameTheLineAndTheField(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no case in it"},
		{"{}", "line 1: suspect: want a path"},
		{"\n" + `{"suspect":"a","service":"x"}`, "line 2: baseline: want a path"},
		{`{"suspect":["a",""],"baseline":"b","service":"x"}`, "line 1: suspect: want a path"},
		{`{"suspect":7,"baseline":"b","service":"x"}`, "line 1: want a string or a list"},
		{`{"suspect":"a","baseline":"b"}`, "line 1: service: want the culprit"},
		{`{"suspect":"a","baseline":"b","service":"x","services":["y"]}`, "line 1: service, services: want one"},
		{`{"suspect":"a","baseline":"b","services":["x",""]}`, "line 1: services: want names"},
		{`{"suspect":"a","baseline":"b","service":"x"}` + "\nnot json\n{}", "line 3: suspect"},
		{strings.Repeat(" ", 2<<20), "line 1: bufio"},
	} {
		_, err := rca.ParseLabels(strings.NewReader(c.text))
		if !errors.Is(err, rca.ErrLabels) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: got %v, want %q", c.text, err, c.want)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add(`{"suspect":["a"],"baseline":"b","services":["x"],"fault":"cpu"}` + "\n{")
	f.Fuzz(func(t *testing.T, text string) {
		cases, err := rca.ParseLabels(strings.NewReader(text))
		if err != nil && !errors.Is(err, rca.ErrLabels) {
			t.Fatal(err)
		}
		for _, c := range cases {
			if c.Name == "" || c.System == "" || c.Fault == "" || c.Services == nil || len(c.Suspect) == 0 || len(c.Baseline) == 0 {
				t.Fatalf("%q: %+v", text, c)
			}
		}
	})
}

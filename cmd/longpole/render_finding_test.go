package main

import (
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
)

func TestAnActionIsShownWithItsIntervalItsTextAndItsSettings(t *testing.T) {
	f := advise.Finding{
		Finding: diagnose.Finding{Code: "LP109", Class: "database", Verdict: diagnose.Confirmed, Confidence: 0.9, Summary: "slow", Evidence: []string{"for"}, CounterEvidence: []string{"against"}},
		Actions: []advise.Action{{
			Kind: "index", Summary: "make the index", Predicted: &advise.Predicted{P50: 1, P95: 2, P99: 30}, Interval: &advise.Interval{P50: [2]float64{0.5, 1.5}, P95: [2]float64{1, 3}, P99: [2]float64{20, 40}},
			Cost: "disk", Risk: "little", Prerequisites: []string{"room", "time"}, Watch: []string{"idx_scan"}, Text: "CREATE INDEX x;\n-- undo: DROP INDEX x;\n",
			Snippets: []advise.Snippet{{For: "envoy", Text: "a:\n  b: 1"}, {For: "nginx", Text: "c;"}},
		}, {Kind: "investigate", Summary: "look"}},
	}
	const head = `  LP109 database (confirmed, confidence 90 %): slow
    + for
    - against
    → index: make the index
      predicted p50 1.00 (0.50 to 1.50)   p95 2.00 (1.00 to 3.00)   p99 30.0 (20.0 to 40.0) ms
      cost: disk
      risk: little
      needs: room; time
      watch: idx_scan
      | CREATE INDEX x;
      | -- undo: DROP INDEX x;
`
	for o, want := range map[shown]string{
		{}: "      settings for envoy, nginx: with --snippets\n    → investigate: look\n",
		{snippets: true}: `      for envoy:
      | a:
      |   b: 1
      for nginx:
      | c;
    → investigate: look
`,
	} {
		var out strings.Builder
		renderFinding(&out, f, o)
		if got := out.String(); got != head+want {
			t.Errorf("got\n%s\nwant\n%s", got, head+want)
		}
	}
	var out strings.Builder
	renderLogged(&out, []diagnose.Logged{{Service: "shop", Severity: "error", Exception: "PoolTimeout", Text: "no connection after # ms", BadShare: 0.9, GoodShare: 0.01}})
	want := "  LOGGED WITH SLOW AND FAILED TRACES             BY    SLOW, FAILED  OTHERS\n  error PoolTimeout: no connection after # ms    shop          90 %     1 %\n"
	if got := out.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s", got)
	}
}

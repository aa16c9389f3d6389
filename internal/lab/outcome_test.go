package lab

import (
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/scenario"
)

func reportOf(findings ...diagnose.Finding) advise.Report {
	var r advise.Route
	for _, f := range findings {
		x := advise.Finding{Finding: f}
		if f.Code == "LP109" {
			x.Actions = []advise.Action{{Kind: "index"}, {Kind: "investigate"}}
		}
		r.Findings = append(r.Findings, x)
	}
	return advise.Report{Routes: []advise.Route{r, r}}
}

func TestOutcomesAreJudgedByTheTruth(t *testing.T) {
	truth := scenario.Truth{Class: []string{"database"}, Service: []string{"orders"}, Action: []string{"index"}}
	right := diagnose.Finding{Code: "LP109", Class: "database", Segment: "database", Service: "orders"}
	other := diagnose.Finding{Code: "LP106", Class: "cpu", Segment: "service", Service: "frontend"}
	nothing := diagnose.Finding{Code: "LP105", Class: "unknown", Service: "frontend"}
	segment, healthy, bound := truth, scenario.Truth{Healthy: true}, truth
	segment.Segment = "queue"
	bound.P99After = 50 * time.Millisecond
	for name, x := range map[string]struct {
		truth    scenario.Truth
		findings []diagnose.Finding
		after    float64
		rank     int
		why      string
	}{
		"right":              {truth, []diagnose.Finding{right, other}, 0, 1, ""},
		"second":             {truth, []diagnose.Finding{other, right}, 0, 2, "named at rank 2"},
		"unknown first":      {truth, []diagnose.Finding{nothing, right}, 0, 1, ""},
		"not named":          {truth, []diagnose.Finding{other}, 0, 0, `the first action is ""`},
		"wrong segment":      {segment, []diagnose.Finding{right}, 0, 0, "rank 0"},
		"healthy":            {healthy, []diagnose.Finding{nothing}, 0, 0, ""},
		"false alarm":        {healthy, []diagnose.Finding{other}, 0, 0, "1 findings where nothing is wrong"},
		"no change":          {bound, []diagnose.Finding{right}, 0, 1, "no change of ours"},
		"change rolled back": {bound, []diagnose.Finding{right}, -1, 1, "ended rolled_back"},
		"within the bound":   {bound, []diagnose.Finding{right}, 49, 1, ""},
		"beyond the bound":   {bound, []diagnose.Finding{right}, 51, 1, "p99 after is 51 ms"},
	} {
		o := Outcome{Truth: x.truth}
		o.diagnosed(reportOf(x.findings...))
		if x.after != 0 {
			o.Cure = &Cure{Phase: "rolled_back"}
		}
		if x.after > 0 {
			o.After = &Measure{Quantile: Quantile{P99: x.after}}
		}
		o.judge()
		why := strings.Join(o.Why, "; ")
		if o.Rank != x.rank || (o.Verdict == "pass") != (x.why == "") || !strings.Contains(why, x.why) {
			t.Errorf("%s: rank %d, %s, %q; want rank %d, %q", name, o.Rank, o.Verdict, why, x.rank, x.why)
		}
	}
}

func TestTallyCountsWhatThePromiseIsAbout(t *testing.T) {
	truth := scenario.Truth{Class: []string{"database"}, Action: []string{"index"}, P99After: 50 * time.Millisecond}
	got := Count([]Outcome{
		{Truth: truth, Rank: 1, Action: "index", Verdict: "pass", Forecast: &Quantile{P99: 44}, After: &Measure{Quantile: Quantile{P99: 40}}, Seconds: 20},
		{Truth: truth, Rank: 3, Action: "cache", Verdict: "fail", Forecast: &Quantile{P99: 30}, After: &Measure{Quantile: Quantile{P99: 60}}, Seconds: 20},
		{Truth: truth, Rank: 0, Verdict: "fail", Seconds: 20},
		{Truth: scenario.Truth{Healthy: true}, Verdict: "pass"},
		{Truth: scenario.Truth{Healthy: true}, Named: []Naming{{}}, Verdict: "fail"},
	})
	want := Tally{Scenarios: 5, Passed: 2, Faulty: 3, First: 1, Third: 2, Asked: 3, Action: 1, Healthy: 2, Silent: 1, Ours: 3, Cured: 1, Forecasts: 2, Error: 0.5, Seconds: 60}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPolicyTextIsIndented(t *testing.T) {
	if got := indent("a:\n  b: 1\n\nc: 2", "  "); got != "  a:\n    b: 1\n  c: 2\n" || indent("", "  ") != "" {
		t.Errorf("got %q", got)
	}
}

package lab

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/judge"
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
			o.After = &Measure{Served: x.after, Calls: 100}
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
		{
			Truth: truth, Rank: 1, Action: "index", Verdict: "pass", Seconds: 20, Cure: &Cure{Phase: "promoted"},
			Forecast: &Quantile{P50: 10, P95: 20, P99: 44}, Interval: &Interval{P50: [2]float64{9, 11}, P95: [2]float64{15, 19}, P99: [2]float64{30, 50}},
			After: &Measure{Quantile: Quantile{P50: 10, P95: 20, P99: 40}, Served: 40, Calls: 100},
		},
		{
			Truth: truth, Rank: 3, Action: "cache", Verdict: "fail", Seconds: 20, Cure: &Cure{Phase: "promoted"}, Before: Measure{Doubted: true},
			Forecast: &Quantile{P50: 10, P95: 30, P99: 30}, After: &Measure{Quantile: Quantile{P50: 20, P95: 20, P99: 60}, Served: 60, Calls: 100},
		},
		{Truth: truth, Rank: 0, Verdict: "fail", Seconds: 20, Cure: &Cure{Phase: "inconclusive"}},
		{Truth: scenario.Truth{Healthy: true}, Verdict: "pass"},
		{Truth: scenario.Truth{Healthy: true}, Named: []Naming{{}}, Verdict: "fail"},
	})
	want := Tally{
		Scenarios: 5, Passed: 2, Faulty: 3, First: 1, Third: 2, Asked: 3, Action: 1, Healthy: 2, Silent: 1, Ours: 3, Cured: 1,
		Tried: 3, Promoted: 2, Inconclusive: 1, Forecasts: 2, Error: Quantile{P50: 0.25, P95: 0.25, P99: 0.3}, Intervals: 3, Covered: 2, Late: 1, Seconds: 60,
	}
	got.Error.P99 = math.Round(1e6*got.Error.P99) / 1e6
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPromisesAreHeldOrBroken(t *testing.T) {
	for name, x := range map[string]struct {
		tally  Tally
		broken int
	}{
		"nothing was run":     {Tally{}, 0},
		"all holds":           {Tally{Faulty: 10, First: 9, Third: 10, Healthy: 2, Silent: 2, Asked: 10, Action: 9, Ours: 1, Cured: 1, Forecasts: 1, Error: Quantile{P99: 0.2}}, 0},
		"nothing holds":       {Tally{Faulty: 10, First: 8, Third: 9, Healthy: 2, Silent: 1, Asked: 10, Action: 8, Ours: 2, Cured: 1, Forecasts: 1, Error: Quantile{P99: 0.3}}, 6},
		"what is told beside": {Tally{Forecasts: 1, Error: Quantile{P50: 0.9, P95: 0.9}, Intervals: 3}, 0},
	} {
		broken := 0
		for _, p := range x.tally.Promises() {
			one(&broken, p.Broken())
			if p.Text == "" || p.Told() == "" {
				t.Errorf("%s: %+v says nothing", name, p)
			}
		}
		if broken != x.broken {
			t.Errorf("%s: %d broken, want %d", name, broken, x.broken)
		}
	}
}

func TestTheActionNamedFirstIsTried(t *testing.T) {
	change, forecast := &longpole.Change{}, &advise.Predicted{}
	finding := func(code string, actions ...advise.Action) advise.Finding {
		return advise.Finding{Finding: diagnose.Finding{Code: code}, Actions: actions}
	}
	theirs := advise.Action{Kind: "drain", Predicted: forecast}
	plain, ours, sure := advise.Action{Kind: "drain"}, advise.Action{Kind: "eject", Change: change}, advise.Action{Kind: "hedge", Change: change, Predicted: forecast}
	for name, x := range map[string]struct {
		findings []advise.Finding
		want     string
	}{
		"none":                          {nil, ""},
		"none of ours":                  {[]advise.Finding{finding("LP103", plain)}, ""},
		"first, without a forecast":     {[]advise.Finding{finding("LP103", ours, sure)}, "eject"},
		"a forecast before none":        {[]advise.Finding{finding("LP103", plain, ours, sure)}, "hedge"},
		"without a forecast, at last":   {[]advise.Finding{finding("LP103", plain, ours)}, "eject"},
		"of a later finding":            {[]advise.Finding{finding("LP103", plain), finding("LP104", ours, sure)}, "hedge"},
		"a guard of a later finding":    {[]advise.Finding{finding("LP103", plain), finding("LP107", ours)}, "eject"},
		"none beside a cure of others":  {[]advise.Finding{finding("LP103", theirs), finding("LP107", ours)}, ""},
		"what nothing is known of last": {[]advise.Finding{finding(unknownCause, ours), finding("LP103", ours, sure)}, "eject"},
	} {
		r := advise.Report{Routes: []advise.Route{{Findings: x.findings}}}
		got, ok := cureOf(r)
		if got.Kind != x.want || ok != (x.want != "") {
			t.Errorf("%s: %q, %t; want %q", name, got.Kind, ok, x.want)
		}
	}
}

func TestCanariesLastAsLongAsAVerdictTakes(t *testing.T) {
	for perSecond, want := range map[float64]time.Duration{0: canaryTimeMax, 10: canaryTimeMax, 70: canaryTimeMin, 40: 102 * time.Second, 1000: canaryTimeMin} {
		got, enough := canaryTime(perSecond / 2)
		if got.Round(time.Second) != want || enough != (perSecond > 10) {
			t.Errorf("at %v calls a second: %s, enough: %t; want %s", perSecond, got, enough, want)
		}
	}
}

func TestCanariesAreGivenUpWhenTheJudgeSeesNoEnd(t *testing.T) {
	for name, c := range map[string]struct {
		verdict judge.Verdict
		needed  uint64
		planned time.Duration
		left    time.Duration
		vain    bool
	}{
		"it comes in time":                {judge.Inconclusive, 2000, 90 * time.Second, 100 * time.Second, false},
		"it may come in time":             {judge.Inconclusive, 20000, 90 * time.Second, 100 * time.Second, false},
		"it does not":                     {judge.Inconclusive, 40000, 90 * time.Second, 100 * time.Second, true},
		"not in what is left":             {judge.Inconclusive, 4000, 90 * time.Second, 10 * time.Second, true},
		"before its time nobody can tell": {judge.Inconclusive, 40000, 150 * time.Second, 100 * time.Second, false},
		"nobody knows":                    {judge.Inconclusive, 0, 90 * time.Second, 100 * time.Second, false},
		"all but the goal is reached":     {judge.NoWorse, 0, 90 * time.Second, 10 * time.Second, false},
		"the machine is busy for a while": {judge.Environment, 70000, 90 * time.Second, 10 * time.Second, false},
	} {
		g := judge.Judgement{Verdict: c.verdict, CallsNeeded: c.needed, BaselineCalls: 3000, CandidateCalls: 3100, Sentence: "It is so."}
		why := vain(g, 100*time.Second, c.planned, c.left)
		if (why != "") != c.vain || c.vain && !strings.HasSuffix(why, "It is so.") {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestCanaryOfACureThatLeavesFewCallsIsGivenUpAfterAMinute(t *testing.T) {
	g := judge.Judgement{Verdict: judge.Inconclusive, BaselineCalls: 90, CandidateCalls: 40} // the candidate's answers spare the baseline its calls
	if vain(g, 50*time.Second, 100*time.Second, 190*time.Second) != "" {
		t.Error("it is given up at once")
	}
	if vain(g, 61*time.Second, 100*time.Second, 179*time.Second) == "" {
		t.Error("it goes on")
	}
}

func TestPolicyTextIsIndented(t *testing.T) {
	if got := indent("a:\n  b: 1\n\nc: 2", "  "); got != "  a:\n    b: 1\n  c: 2\n" || indent("", "  ") != "" {
		t.Errorf("got %q", got)
	}
}

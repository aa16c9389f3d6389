package review_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/staging"
)

// promoted is a record of a change that halved p99.
func promoted(id string, edit func(*staging.Record)) staging.Record {
	r := staging.Record{
		Hash: "sha256:" + strings.Repeat("ab", 32), Environment: "production", Rollout: id, Route: "orders", Phase: staging.Promoted, Verdict: judge.Improved,
		Target: "p99", Judgement: judge.Judgement{Slices: 20}, Before: staging.Latency{P50: 10, P95: 50, P99: 100}, After: staging.Latency{P50: 10, P95: 40, P99: 50},
		At: noon.Add(-24 * time.Hour), Code: "LP103", Kind: "hedge", Cost: "5 % more calls",
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func standing(id string, v review.Verdict) review.Standing {
	return review.Standing{ID: id, Route: "orders", Verdict: v, Sentence: "as measured", Target: "p99", Then: -0.69, Now: -0.1, HeldBackCalls: 1000}
}

func input() review.Input {
	return review.Input{
		Now: noon, Environment: "production", Program: "v1",
		Records:   []staging.Record{promoted("r1", nil), promoted("r2", func(r *staging.Record) { r.At = noon.Add(-time.Hour) }), promoted("r3", func(r *staging.Record) { r.Phase = "rolled_back" })},
		Standings: []review.Standing{standing("r1", review.NowHarmful), standing("r2", review.StillHelps)},
		Poles:     []review.Pole{{Route: "shop GET /", Segment: "database stock SELECT", Share: 0.6}, {Route: "shop GET /", Segment: "network", Share: 0.1}},
	}
}

func TestTheLedgerHoldsEveryChangeTheNewestFirst(t *testing.T) {
	in := input()
	in.Staging = []staging.Record{promoted("s7", func(r *staging.Record) { r.Environment, r.After.P99 = "staging", 25 })}
	r := review.Run(in)
	if len(r.Ledger) != 3 || r.Ledger[0].Rollout != "r2" || r.Ledger[0].Standing == nil || r.Ledger[0].Staged.Rollout != "s7" {
		t.Fatalf("%+v", r.Ledger)
	}
	if r.Ledger[0].ReviewAfter.IsZero() || !r.Ledger[2].ReviewAfter.IsZero() {
		t.Error("only what is in force is to be reviewed again")
	}
	if r.Transfer == nil || len(r.Transfer.Changes) != 1 {
		t.Errorf("%+v", r.Transfer)
	}
}

func TestAHarmfulChangeIsTheFirstFinding(t *testing.T) {
	r := review.Run(input())
	if len(r.Harmful()) != 1 || r.Harmful()[0].Rollout != "r1" {
		t.Errorf("%+v", r.Harmful())
	}
	if f := r.Findings[0]; f.Code != "LP320" || f.Severity != review.Critical || f.Mend != "longpole rollout undo r1" {
		t.Errorf("%+v", f)
	}
	if want := "1 NOW HARMFUL, 1 STILL HELPS; 1 finding (1 critical)"; r.Headline() != want {
		t.Errorf("%q, want %q", r.Headline(), want)
	}
	if calm := review.Run(review.Input{Now: noon}); len(calm.Harmful()) != 0 || calm.Headline() != "no change is held back; 0 findings" {
		t.Errorf("%q", calm.Headline())
	}
}

func TestEveryVerdictThatAsksForSomebodyIsAFinding(t *testing.T) {
	for verdict, code := range map[review.Verdict]string{
		review.NowHarmful: "LP320", review.NoEffect: "LP321", review.Decayed: "LP322", review.StillHelps: "", review.NotJudged: "",
	} {
		in := input()
		in.Standings = []review.Standing{standing("r1", verdict)}
		got := ""
		if r := review.Run(in); len(r.Findings) > 0 {
			got = r.Findings[0].Code
		}
		if got != code {
			t.Errorf("%s: %q, want %q", verdict, got, code)
		}
	}
}

func TestAReviewSaysWhatIsOtherThanAtTheLast(t *testing.T) {
	first := review.Run(input())
	if !first.Diff.Since.IsZero() || len(first.Poles) != 0 {
		t.Errorf("the first review compares with nothing: %+v", first.Diff)
	}
	in := input()
	in.Now, in.Last = noon.Add(7*24*time.Hour), &first
	in.Standings = []review.Standing{standing("r1", review.StillHelps), standing("r2", review.Decayed)}
	in.Poles = []review.Pole{{Route: "shop GET /", Segment: "database stock SELECT", Share: 0.3}, {Route: "shop GET /", Segment: "network", Share: 0.2}, {Route: "shop GET /", Segment: "queue", Share: 0.4}}
	second := review.Run(in)
	if d := second.Diff; !d.Since.Equal(noon) || strings.Join(d.New, ";") != "LP322 r2 on route orders" || strings.Join(d.Gone, ";") != "LP320 r1 on route orders" ||
		strings.Join(d.Verdicts, ";") != "r1 orders: NOW HARMFUL -> STILL HELPS;r2 orders: STILL HELPS -> DECAYED" {
		t.Errorf("%+v", d)
	}
	if p := second.Poles; len(p) != 2 || p[0].Segment != "queue" || !p[0].New || p[1].Segment != "network" || p[1].New || p[1].Before != 0.1 {
		t.Errorf("%+v", p)
	}
}

func TestAReviewSaysWhyAChangeHoldsNothingBack(t *testing.T) {
	first := review.Run(input())
	in := input()
	in.Now, in.Last = noon.Add(7*24*time.Hour), &first
	in.Standings, in.Unheld = in.Standings[1:], map[string]string{"r1": "superseded by r2", "r3": "superseded by r2"}
	second := review.Run(in)
	var at review.Change
	for _, c := range second.Ledger {
		if c.Rollout == "r1" {
			at = c
		} else if c.Unheld != "" {
			t.Errorf("%s of %s: %q", c.Phase, c.Rollout, c.Unheld)
		}
	}
	if at.Unheld != "superseded by r2" || strings.Join(second.Diff.Verdicts, ";") != "r1 orders: NOW HARMFUL -> NO HOLDBACK (superseded by r2)" {
		t.Errorf("%q, %q", at.Unheld, second.Diff.Verdicts)
	}
	var page strings.Builder
	if err := second.Markdown(&page); err != nil || !strings.Contains(page.String(), "| NO HOLDBACK | p99 | - | - | - | superseded by r2 |") {
		t.Errorf("%v: %s", err, page.String())
	}
	page.Reset()
	if err := second.Text(&page); err != nil || !strings.Contains(page.String(), "NO HOLDBACK  r1 of route orders\n  superseded by r2\n") {
		t.Errorf("%v: %s", err, page.String())
	}
}

func TestForecastsAreScored(t *testing.T) {
	latency := func(p50, p95, p99 float64) *staging.Latency { return &staging.Latency{P50: p50, P95: p95, P99: p99} }
	in := review.Input{Now: noon, Records: []staging.Record{
		promoted("r1", func(r *staging.Record) { // measured 10 / 40 / 50
			r.Predicted, r.Low, r.High = latency(10, 40, 25), latency(9, 35, 20), latency(11, 45, 30)
		}),
		promoted("r2", nil), // without a forecast
	}}
	p := review.Run(in).Prediction
	if p.Changes != 1 || p.Intervals != 3 || math.Abs(p.Covered-2.0/3) > 1e-9 || math.Abs(p.Error-math.Ln2/3) > 1e-9 || math.Abs(p.AbsError-math.Ln2/3) > 1e-9 {
		t.Errorf("%+v", p)
	}
	if k := p.Kinds.Of("hedge"); k.Outcomes != 1 || k.Widens() {
		t.Errorf("one outcome widens intervals: %+v", k)
	}
}

func TestFaultsThatWereNotExercisedAreOverdue(t *testing.T) {
	in := of(10, time.Millisecond, nil)
	in.Exercised = []review.Exercise{
		{Class: "delay", Route: "orders", At: noon.Add(-100 * 24 * time.Hour), Hits: 5, Verdict: "held"},
		{Class: "abort", Route: "orders", At: noon.Add(-time.Hour), Hits: 5, Verdict: "held"},
		{Class: "reset", Route: "orders", At: noon.Add(-time.Hour), Hits: 0, Verdict: "hit nothing"},
	}
	want := map[string]bool{"delay": true, "abort": false, "reset": true, "bandwidth": true, "blackhole": true}
	cells := review.Run(in).Faults
	if len(cells) != len(want) {
		t.Fatalf("%+v", cells)
	}
	for _, c := range cells {
		if c.Overdue != want[c.Class] {
			t.Errorf("%+v", c)
		}
	}
}

func TestVerdictsOfFaults(t *testing.T) {
	for want, s := range map[string]fault.Status{
		"runs":                  {Hits: 3},
		"hit nothing":           {Stopped: "ttl"},
		"held":                  {Stopped: "ttl", Hits: 3},
		"ended early: too many": {Stopped: "too many", Hits: 3},
	} {
		if got := review.VerdictOf(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := strings.Join(review.ClassesOf(fault.Config{Delay: &fault.Delay{}, Abort: 503, Blackhole: true}), " "); got != "delay abort blackhole" {
		t.Error(got)
	}
}

func TestAReviewIsReadInFourForms(t *testing.T) {
	in := input()
	in.Poles[0].Segment = "<script>alert(1)</script> | x"
	last := review.Run(review.Input{Now: noon.Add(-8 * 24 * time.Hour)})
	in.Last = &last
	score := staging.Fidelity(staging.Workload{Calls: 1}, staging.Workload{Calls: 1, Version: "v1"}, 70)
	in.Fidelity = &score
	in.Routes = of(10, time.Millisecond, nil).Routes
	r := review.Run(in)
	forms := map[string]func(*bytes.Buffer) error{
		"text": func(b *bytes.Buffer) error { return r.Text(b) }, "markdown": func(b *bytes.Buffer) error { return r.Markdown(b) }, "html": func(b *bytes.Buffer) error { return r.HTML(b) },
	}
	for name, write := range forms {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Review of 2026-03-01 12:00 UTC, production", "NOW HARMFUL", "LP320", "longpole rollout undo r1", "as measured"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s does not say %q:\n%s", name, want, b.String())
			}
		}
		if name != "text" && (strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "src=")) {
			t.Errorf("%s holds markup of a trace, or needs another file:\n%s", name, b.String())
		}
		if name == "markdown" && (!strings.Contains(b.String(), `\| x`) || !strings.Contains(b.String(), "LP103 hedge")) {
			t.Errorf("a name in a trace makes a column:\n%s", b.String())
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again review.Review
	if err := json.Unmarshal(text, &again); err != nil || again.Headline() != r.Headline() || len(again.Ledger) != 3 || len(again.Harmful()) != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

func TestConfigFaultsAreNamed(t *testing.T) {
	for want, c := range map[string]review.Config{
		"":           {},
		"every":      {Every: time.Second},
		"window":     {Window: 1000 * time.Hour},
		"webhook":    {Webhook: "chat.example"},
		"killed_for": {KilledFor: -1},
		"exercise":   {Exercise: -1},
	} {
		err := c.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%v, want a fault of %q", err, want)
		}
	}
	if err := (review.Config{}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

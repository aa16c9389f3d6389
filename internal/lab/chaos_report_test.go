package lab

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestChaosReportIsAPageOfItsOwn(t *testing.T) {
	recovered := 400.0
	r := ChaosReport{
		Scenario: "<shop>", Seed: 7, Real: true, Held: 1, Calm: ChaosFigures{Calls: 10, P99: 12.5},
		Faults: []ChaosResult{
			{
				Drawn: Drawn{Kind: Crash, Where: "redis", What: "its server is killed", Hypothesis: harmless()}, At: 4 * time.Second, Took: time.Second, Held: true, Together: 1, Recovered: &recovered,
				Reactions: []Reaction{{Retried, 12, 3, 100 * time.Millisecond}, {Stale, 4, 0, time.Second}},
			},
			{
				Drawn: Drawn{Kind: Abort, Where: "orders-3", What: "it <fails>"}, At: 24 * time.Second, Took: 9 * time.Second, Late: true, Why: []string{"5 % of the calls failed, more than 2 %"}, Together: 2, Refused: 31,
				Reactions: []Reaction{{Ejected, 1, 0, 2 * time.Second}},
			},
		},
		Timeline: []ChaosPoint{
			{At: -time.Second, Took: time.Second, Calls: 10, P99: 12}, {At: 0, Took: time.Second}, {At: time.Second, Took: time.Second, Calls: 4, Errors: 0.25, P99: 40},
		},
	}
	var page bytes.Buffer
	if err := WriteChaosReport(&page, r); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{
		"1 of 2 hypotheses held.", "Chaos in &lt;shop&gt;", "it &lt;fails&gt;", "real servers", "calm: 3", "5 % of the calls failed", "2 faults were on together",
		"As before 0.4\u00a0s after", "Not as before until the next fault.", ">31<", "<polyline", "? did not hold", "sent late", ">ejection<", "25\u00a0%",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, not := range []string{"<fails>", "http://", "https://", "<script", ">hedge<", "NaN", "ZgotmplZ"} {
		if strings.Contains(text, not) {
			t.Errorf("the page has %q", not)
		}
	}
	if n := strings.Count(text, "<polyline"); n != 2 {
		t.Errorf("%d lines; want one before and one after the piece without calls", n)
	}
	if chartOf(ChaosReport{}) != nil {
		t.Error("nothing has a chart")
	}
}

func TestTimelinesStayBounded(t *testing.T) {
	var list []ChaosPoint
	const n = 3 * maxPoints
	for i := range n {
		list = addPoint(list, ChaosPoint{At: time.Duration(i), Took: 1, Calls: 2, Errors: 0.5, P99: float64(i)})
	}
	calls, end := uint64(0), time.Duration(0)
	for _, p := range list {
		if p.At != end || p.Errors != 0.5 {
			t.Fatalf("a piece %+v after one that ends at %s", p, end)
		}
		calls, end = calls+p.Calls, p.At+p.Took
	}
	if len(list) >= maxPoints || calls != 2*n || list[len(list)-1].P99 != n-1 {
		t.Errorf("%d pieces with %d calls; want fewer than %d, with %d", len(list), calls, maxPoints, 2*n)
	}
}

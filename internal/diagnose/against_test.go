package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// shop is n traces of which all but one in twenty take a little less than the last; the query takes as long as db tells, ms.
func shop(t *testing.T, n int, version string, db func(i int) int) []trace.Trace {
	t.Helper()
	return many(t, n, func(i int) string {
		d := db(i)
		return fmt.Sprintf(`
			"GET /orders" 0ms %dms service=shop kind=server service.version=%s
			  "SELECT orders" 5ms %dms kind=client db.system=postgresql db.query.text="SELECT a FROM orders WHERE b = $1"`, d+10+i%3, version, d+5)
	})
}

func usual(i int) int {
	if i%20 == 0 {
		return 400
	}
	return 20 + i%5
}

func against1(t *testing.T, now, before []trace.Trace) Route {
	t.Helper()
	return Run(now, Options{Baseline: before}).Routes[0]
}

func TestAPlaceThatWasAsSlowBeforeIsNoRegression(t *testing.T) {
	r := against1(t, shop(t, 200, "1", usual), shop(t, 300, "1", usual))
	if r.Against == nil || r.Against.Change != Alike || r.Against.Traces != 300 || len(r.Against.Segments) != 0 || r.Against.Differences != nil {
		t.Fatalf("%+v", r.Against)
	}
	if len(r.Findings) == 0 {
		t.Fatal("the query that is slow at times is not found at all")
	}
	for _, f := range r.Findings {
		if f.Against != Same || !slices.ContainsFunc(f.CounterEvidence, func(s string) bool { return strings.Contains(s, "no regression") }) {
			t.Errorf("%s is %q against the baseline: %v", f.Code, f.Against, f.CounterEvidence)
		}
	}
}

func TestWhatTheBaselineHasNotIsNew(t *testing.T) {
	r := against1(t, shop(t, 400, "2", usual), shop(t, 400, "1", func(i int) int { return 20 + i%5 }))
	if r.Against == nil || r.Against.Change != Slower {
		t.Fatalf("one in twenty takes twenty times as long: %+v", r.Against)
	}
	s := r.Against.Segments
	if len(s) == 0 || s[0].Segment != trace.SegDatabase || s[0].BeforeMS.P99 > 25 || s[0].NowMS.P99 != 400 {
		t.Errorf("%+v", s)
	}
	if len(r.Findings) == 0 || r.Findings[0].Against != New {
		t.Errorf("%+v", r.Findings)
	}
}

func TestWhatGoesWithSlowerThanTheBaselineIsNamed(t *testing.T) {
	r := against1(t, shop(t, 200, "2", func(i int) int { return 60 + i%5 }), shop(t, 200, "1", func(i int) int { return 20 + i%5 }))
	if r.Against == nil || r.Against.Change != Slower || r.Against.P > 1e-6 || r.Against.Latency.P50 > 40 {
		t.Fatalf("%+v", r.Against)
	}
	d := r.Against.Differences
	if len(d) != 1 || d[0].Key != "service.version" || d[0].Value != "2" || d[0].SlowShare != 1 || d[0].HealthyShare != 0 || d[0].ExcessMS < 39 || d[0].ExcessMS > 41 {
		t.Errorf("%+v", d)
	}
}

func TestAFindingThatCostsMoreIsWorse(t *testing.T) {
	more := func(i int) int {
		if i%20 == 0 {
			return 1200
		}
		return 20 + i%5
	}
	r := against1(t, shop(t, 200, "1", more), shop(t, 200, "1", usual))
	if r.Against == nil || len(r.Findings) == 0 || r.Findings[0].Against != Worse {
		t.Errorf("%+v %+v", r.Against, r.Findings)
	}
	if r = against1(t, shop(t, 200, "1", usual), shop(t, 200, "1", more)); r.Findings[0].Against != Same {
		t.Errorf("it costs less now, and is %q", r.Findings[0].Against)
	}
}

func TestFasterIsSaidToo(t *testing.T) {
	r := against1(t, shop(t, 100, "2", func(i int) int { return 20 + i%5 }), shop(t, 100, "1", func(i int) int { return 60 + i%5 }))
	if r.Against == nil || r.Against.Change != Faster || r.Against.Differences != nil {
		t.Errorf("%+v", r.Against)
	}
}

func TestNothingIsSaidOfARouteThatTheBaselineHasNot(t *testing.T) {
	other := many(t, 100, same("other 0ms 10ms"))
	few := shop(t, 5, "1", usual)
	for _, before := range [][]trace.Trace{other, few} {
		r := against1(t, shop(t, 100, "1", usual), before)
		if r.Against != nil || slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Against != "" }) {
			t.Errorf("%+v %+v", r.Against, r.Findings)
		}
	}
}

// Two draws of the same traffic are told apart no more often than promised.
func TestDrawsOfTheSameTrafficAreAlike(t *testing.T) {
	wrong := 0
	for seed := range 300 {
		draw := func(from int) (list []sample) {
			for i := range 150 {
				u := float64(scatter(uint64(seed*1000+from+i))>>11) / (1 << 53)
				list = append(list, sample{duration: int64(1e6 / (1.0001 - u))}) // a tail as heavy as one over the square
			}
			slices.SortFunc(list, func(a, b sample) int { return int(min(max(a.duration-b.duration, -1), 1)) })
			return list
		}
		if c, _ := changeOf(draw(0), draw(500)); c != Alike {
			wrong++
		}
	}
	if wrong > 3 {
		t.Errorf("%d of 300 are told apart, want at most a few in a thousand", wrong)
	}
}

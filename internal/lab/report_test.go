package lab

import (
	"bytes"
	"encoding/xml"
	"errors"
	entities "html"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// curve makes a plausible distribution: a lognormal body, and a share of slow calls.
func curve(l Lognormal, slowRatio float64, slow time.Duration) []Point {
	s := newSource(1, "curve")
	var ds []time.Duration
	for range 4000 {
		d := s.draw(l)
		if s.chance(slowRatio) {
			d += s.between(slow, slow*8/5)
		}
		ds = append(ds, d)
	}
	return CurveOf(stats.Of(ds...))
}

func sample() Report {
	return Report{
		Title:   "Longpole demo: two long poles found and cut",
		Started: time.Date(2026, 11, 22, 10, 15, 0, 0, time.UTC), Took: 171 * time.Second,
		Machine: "2 cores, linux/amd64, go1.26.8",
		Notes: []string{
			"The judge looked at slices of 1 s instead of 10 s so that the demo is short. Production's are longer, and its verdicts are slower and firmer.",
			"The wait for the catalogue's disk is simulated inside the database span; its SQL is real.",
		},
		Routes: []RouteResult{{
			Route:       "checkout",
			Before:      Figures{P50: ms(29), P95: ms(291), P99: ms(402), AttemptsPerCall: 1, Calls: 1206},
			Predicted:   &Figures{P50: ms(29), P95: ms(51), P99: ms(64), AttemptsPerCall: 1.07},
			After:       Figures{P50: ms(28), P95: ms(49), P99: ms(61), ErrorRatio: 0.0004, AttemptsPerCall: 1.08, Calls: 1187},
			BeforeCurve: curve(Lognormal{ms(28), ms(55)}, 0.06, ms(250)), AfterCurve: curve(Lognormal{ms(28), ms(60)}, 0, 0),
		}, {
			Route:       "browse",
			Before:      Figures{P50: ms(104), P95: ms(168), P99: ms(213), AttemptsPerCall: 1, Calls: 902},
			Predicted:   &Figures{P50: ms(14), P95: ms(27), P99: ms(44), AttemptsPerCall: 0.02},
			After:       Figures{P50: ms(14), P95: ms(27), P99: ms(39), AttemptsPerCall: 0.02, Calls: 899},
			BeforeCurve: curve(Lognormal{ms(104), ms(213)}, 0, 0), AfterCurve: curve(Lognormal{ms(14), ms(39)}, 0, 0),
		}},
		Diagnoses: []Diagnosis{{
			Service: "client", Operation: "GET /checkout", Traces: 1206,
			LongPole: "orders GET /orders/{n} makes 81 % of the p99 critical path, but only 31 % of the p50 path.",
			Segments: []Share{
				{"downstream", "orders", "GET /orders/{n}", 0.31, 0.81, ms(9), ms(326)},
				{"downstream", "inventory", "GET /inventory/{n}", 0.22, 0.06, ms(6), ms(24)},
				{"service", "frontend", "GET /checkout", 0.2, 0.05, ms(6), ms(20)},
				{"gateway", "gateway", "orders", 0.04, 0.01, ms(1), ms(4)},
			},
			Findings: []Finding{{
				Code: "LP103", Class: "slow_endpoint", Verdict: "confirmed", Confidence: 0.97,
				Summary:  "One of three endpoints makes the tail: orders-3 has a p99 of 391 ms, the other two 19 ms.",
				Evidence: []string{"orders-3: p50 8.4 ms, p99 391 ms, 331 calls", "orders-1 and orders-2: p99 18.6 and 19.2 ms", "98 % of the calls above p95 went to orders-3"},
				Counter:  []string{"Its median is that of the others: it is not overloaded."},
				Actions:  []string{"Hedge after 21 ms: p99 402 → 64 ms at 7 % more calls."},
			}, {Code: "LP101", Class: "serial_calls", Verdict: "likely", Confidence: 0.8, Summary: "Three calls run one after the other.", Evidence: []string{"Each starts within 0.2 ms of the end of the one before in 100 % of 1206 traces."}}},
		}},
		Rollouts: []Rollout{{
			Route: "orders", Summary: "hedge after 21 ms", Phase: "promoted", Took: 47 * time.Second,
			Verdict: "Promoted after 47 s: p99 fell from 389 to 48 ms (predicted 44); errors are no worse.",
			Change:  "route: orders\nto:\n  retry:\n    hedge: {after: 21ms, budget_ratio: 10%}\n",
			Steps: []Step{
				{"warmup", 0.05, 0, 5 * time.Second},
				{"step", 0.1, 5 * time.Second, 17 * time.Second},
				{"step", 0.25, 17 * time.Second, 30 * time.Second},
				{"step", 0.5, 30 * time.Second, 47 * time.Second},
			},
			Metrics: []Metric{
				{"p99", "389 ms", "48 ms", "better", "−88 % (−91 % to −79 %), e-value 8400"},
				{"p50", "8.9 ms", "9.0 ms", "same", "+1 % (−3 % to +4 %)"},
				{"error rate", "0 %", "0 %", "no_worse", "0 of 812, 0 of 815"},
			},
			Journal: []Entry{{0, "staged; 5 % of calls, warm-up"}, {5 * time.Second, "step 1: 10 %"}, {47 * time.Second, "promoted by a pointer swap"}},
		}},
	}
}

func page(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteReport(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wellFormed reads the page as HTML's XML form: unclosed or crossed elements and unescaped text are found.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict = true
	d.Entity = xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
	}
}

func TestReportShowsWhatWasMeasured(t *testing.T) {
	html := page(t, sample())
	wellFormed(t, html)
	text := strings.ReplaceAll(entities.UnescapeString(html), "\u00a0", " ")
	for _, want := range []string{
		"checkout: p99 went from 402.0 to 61.0 ms; predicted was 64.0.", "−85 %", "0.04 %", "1.08",
		"LP103", "slow endpoint", "What speaks against it", "✓ promoted", "= same", "took 2 min 51 s",
		"slices of 1 s instead of 10 s", "hedge: {after: 21ms", "p99 by +5 %",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if got := strings.Count(html, "<polyline"); got != 4 {
		t.Errorf("%d curves; want before and after of two routes", got)
	}
	if strings.Contains(html, "ZgotmplZ") || strings.Contains(html, "NaN") || strings.Contains(html, "%!") {
		t.Error("the page holds a value that could not be shown")
	}
	if path := os.Getenv("LONGPOLE_REPORT"); path != "" { // to look at it in a browser
		if err := os.WriteFile(path, []byte(html), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportFetchesNothing(t *testing.T) {
	html := page(t, sample())
	for _, pattern := range []string{`(?i)https?://`, `(?i)<script`, `(?i)@import`, `(?i)url\(`, `(?i)<img`, `(?i)\ssrc=`} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page holds %q", found)
		}
	}
	for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		if link[1] != "data:," {
			t.Errorf("the page links to %q", link[1])
		}
	}
}

func TestReportEscapesHostileText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'&</title></style>{{.}}javascript:alert(1)`
	r := Report{
		Title: evil, Machine: evil, Notes: []string{evil},
		Routes:    []RouteResult{{Route: evil, Before: Figures{P99: 2}, After: Figures{P99: 1}, BeforeCurve: curve(pageWork, 0, 0), AfterCurve: curve(pageWork, 0, 0)}},
		Diagnoses: []Diagnosis{{evil, evil, 1, evil, []Share{{Segment: evil, Service: evil, Operation: evil}}, []Finding{{evil, evil, evil, 1, evil, []string{evil}, []string{evil}, []string{evil}}}}},
		Rollouts:  []Rollout{{evil, evil, evil, evil, evil, 1, []Step{{evil, 1, 0, 1}}, []Metric{{evil, evil, evil, evil, evil}}, []Entry{{1, evil}}}},
	}
	html := page(t, r)
	wellFormed(t, html)
	for _, bad := range []string{"<script", "<img", "</title></style>"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page holds %q unescaped", bad)
		}
	}
	if got := strings.Count(html, "&lt;script&gt;"); got < 20 {
		t.Errorf("only %d of the hostile strings are shown; every field should be", got)
	}
}

func TestReportBearsMissingAndAbsurdFigures(t *testing.T) {
	huge := Figures{P50: math.MaxInt64, P95: math.MaxInt64, P99: math.MaxInt64, ErrorRatio: 1, AttemptsPerCall: 1e9}
	for name, r := range map[string]Report{
		"empty":   {},
		"no data": {Routes: []RouteResult{{Route: "a"}}, Diagnoses: []Diagnosis{{}}, Rollouts: []Rollout{{}}},
		"one call": {Routes: []RouteResult{{
			Route: "a", Before: huge, After: huge, Predicted: &huge,
			BeforeCurve: []Point{{1, 0}}, AfterCurve: []Point{{1, math.MaxInt64}},
		}}},
		"steps that run backwards": {Rollouts: []Rollout{{Steps: []Step{{"step", 7, time.Second, 0}, {"step", -1, -5, -9}}}}},
	} {
		html := page(t, r)
		wellFormed(t, html)
		for _, bad := range []string{"NaN", "Inf", "ZgotmplZ"} {
			if strings.Contains(html, bad) {
				t.Errorf("%s: the page holds %s", name, bad)
			}
		}
	}
}

func TestCurveEndsWhereTheDataEnds(t *testing.T) {
	many := make([]time.Duration, 10_000)
	for i := range many {
		many[i] = time.Duration(i+1) * time.Microsecond
	}
	if c := CurveOf(stats.Of(many...)); c[len(c)-1].Quantile < 0.998 {
		t.Errorf("10000 calls show only up to %g", c[len(c)-1].Quantile)
	}
	few := CurveOf(stats.Of(many[:30]...))
	if last := few[len(few)-1].Quantile; last > 0.901 || last < 0.85 {
		t.Errorf("30 calls show up to %g; want 0.9", last)
	}
	if CurveOf(stats.Snapshot{}) != nil {
		t.Error("a curve of nothing")
	}
}

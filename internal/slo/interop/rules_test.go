package interop_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/slo/interop"
	"github.com/longpole/longpole/internal/systemtest"
)

// ruleFile writes the rules, checked by promtool, and gives their path.
func ruleFile(t *testing.T, all []slo.Objective, o interop.RuleOptions) string {
	t.Helper()
	data, _, err := interop.Rules(all, o)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), systemtest.Program(t, "promtool"), "check", "rules", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, data)
	}
	return file
}

func TestPromtoolTakesTheRules(t *testing.T) {
	odd := slo.Objective{Name: "odd", Route: "a\"b\\c\n# {{ .x }} 'd' é", Target: 0.9999, Threshold: 42 * time.Millisecond, Description: "{{ nonsense"}
	short := slo.Objective{Name: "own", Route: "r", Target: 0.5, Windows: []slo.Window{{Severity: slo.Ticket, Budget: 0.001, Long: 90 * time.Minute, Short: 90 * time.Second}}}
	for _, h := range []interop.Histograms{interop.Classic, interop.Native} {
		ruleFile(t, append(objectives(), odd, short), interop.RuleOptions{
			Histograms: h, Interval: 30 * time.Second, Selector: `job="longpole"`, Labels: map[string]string{"team": "shop: 1"}, PageURL: "https://longpole.test/#slo",
		})
		ruleFile(t, nil, interop.RuleOptions{Histograms: h})
	}
}

func TestThresholdsBetweenClassicBucketsAreToldOf(t *testing.T) {
	at := func(threshold time.Duration, h interop.Histograms) (string, []string, error) {
		data, notes, err := interop.Rules([]slo.Objective{{Name: "o", Route: "r", Target: 0.999, Threshold: threshold}}, interop.RuleOptions{Histograms: h})
		return string(data), notes, err
	}
	if data, notes, err := at(300*time.Millisecond, interop.Classic); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "250ms is taken") || !strings.Contains(data, `le="0.25"`) {
		t.Error(notes, err, data)
	}
	if data, notes, err := at(300*time.Millisecond, interop.Native); err != nil || len(notes) != 0 || !strings.Contains(data, "histogram_fraction(0, 0.3, ") {
		t.Error(notes, err, data)
	}
	if data, notes, err := at(time.Second, interop.Classic); err != nil || len(notes) != 0 || !strings.Contains(data, `le=~"1(\\.0)?"`) {
		t.Error(notes, err, data)
	}
}

func TestAnObjectiveThatPrometheusCannotJudgeIsRefused(t *testing.T) {
	o := slo.Objective{Name: "o", Route: "r", Target: 0.999, Threshold: 100 * time.Microsecond}
	data, _, err := interop.Rules([]slo.Objective{o, objectives()[0]}, interop.RuleOptions{})
	if !errors.Is(err, interop.ErrRules) || !strings.Contains(err.Error(), "at least 500µs") {
		t.Error(err)
	}
	if !strings.Contains(string(data), "longpole-slo-orders-there") {
		t.Error("the others are missing as well")
	}
}

// TestTheApproximateGuardIsWithinOneCall compares the closed form of the rules with the Poisson distribution.
func TestTheApproximateGuardIsWithinOneCall(t *testing.T) {
	for mean := 0.001; mean < 25; mean *= 1.02 {
		exact, term, below := 0, math.Exp(-mean), 0.0
		for 1-below >= 0.01 {
			below += term
			exact++
			term *= mean / float64(exact)
		}
		exact = max(exact, 2)
		approximate := int(math.Floor(mean+2.33*math.Sqrt(mean)+1)) + 1
		if d := approximate - max(exact, 2); d < -1 || d > 1 {
			t.Errorf("mean %v: %d, exactly %d", mean, approximate, exact)
		}
	}
}

// promtoolTest feeds a counter of calls to the rules in promtool's virtual time: one call each two minutes for six hours, of
// which those from the fourth hour on are bad, and wants this many minutes of firing pages in the end.
func promtoolTest(t *testing.T, bad int, want string) {
	t.Helper()
	rules := ruleFile(t, objectives()[:1], interop.RuleOptions{})
	good, wrong := strings.Builder{}, strings.Builder{}
	ok, failed := 0, 0
	for minute := range 6 * 60 {
		if minute%2 == 0 {
			if minute >= 240 && failed < bad {
				failed++
			} else {
				ok++
			}
		}
		fmt.Fprintf(&good, "%d ", ok)
		fmt.Fprintf(&wrong, "%d ", failed)
	}
	test := fmt.Sprintf(`
rule_files: [%q]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'longpole_calls_total{route="orders",class="ok"}', values: '%s'}
  - {series: 'longpole_calls_total{route="orders",class="server"}', values: '%s'}
  promql_expr_test:
  - expr: 'count(max_over_time(ALERTS{severity="page",alertstate="firing",slo="orders-there"}[6h]))'
    eval_time: 359m
    exp_samples: %s
  - expr: 'longpole:slo_bad_events:increase1h{slo="orders-there"} < 0.5'
    eval_time: 359m
    exp_samples: [{labels: '{__name__="longpole:slo_bad_events:increase1h", slo="orders-there", route="orders"}', value: 0}]
`, rules, good.String(), wrong.String(), want)
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, []byte(test), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), systemtest.Program(t, "promtool"), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%d bad: %v: %s", bad, err, out)
	}
}

func TestInPrometheusOneBadCallNeverPagesAndThreeDo(t *testing.T) {
	promtoolTest(t, 0, "[]")
	promtoolTest(t, 1, "[]")
	promtoolTest(t, 3, "[{labels: '{}', value: 1}]")
}

package interop_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/slo/interop"
)

const openSLO = `# Objectives of the shop.
apiVersion: openslo/v1
kind: Service
metadata:
  name: orders
  displayName: Orders
spec:
  description: Takes orders.
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: orders-there
  labels:
    team: [shop, web]
    tier: 1
spec:
  description: Orders are answered.
  service: orders
  indicatorRef: orders-success
  timeWindow:
    - duration: 28d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - displayName: Good
      target: 0.995
---
apiVersion: openslo/v1
kind: SLI
metadata:
  name: orders-success
spec:
  ratioMetric:
    counter: true
    good:
      metricSource:
        type: Prometheus
        spec:
          query: sum(http_requests_total{code!~"5.."})
    total:
      metricSource:
        metricSourceRef: prometheus
        spec: {query: sum(http_requests_total), step: 60}
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout
  annotations:
    longpole.dev/route: checkout-v2
    longpole.dev/unit: ms
spec:
  service: payments
  indicator:
    metadata: {name: checkout-latency}
    spec:
      thresholdMetric:
        metricSource: {type: Datadog, spec: {query: 'p99:trace.checkout{*}'}}
  timeWindow: [{duration: 4w, isRolling: true}]
  objectives:
    - {op: lte, value: 250, targetPercent: 99}
    - {op: lt, value: 1000.5, target: 99.9%}
`

func TestOpenSLOGivesObjectives(t *testing.T) {
	all, notes, err := interop.OpenSLO("shop.yaml", []byte(openSLO))
	if err != nil {
		t.Fatal(err)
	}
	month := slo.Period(28 * slo.Day)
	want := []slo.Objective{
		{Name: "orders-there", Description: "Orders are answered.", Route: "orders", Kind: slo.Availability, Target: 0.995, Period: month},
		{Name: "checkout-1", Route: "checkout-v2", Kind: slo.Latency, Target: 0.99, Threshold: 250 * time.Millisecond, Period: month},
		{Name: "checkout-2", Route: "checkout-v2", Kind: slo.Latency, Target: 0.9990000000000001, Threshold: 1000500 * time.Microsecond, Period: month},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	if len(notes) != 2 || !strings.Contains(notes[1], "SLO checkout: the queries of its SLI are not asked; the gateway counts the calls of route checkout-v2") {
		t.Error(notes)
	}
	if _, err := slo.New(all); err != nil {
		t.Error(err)
	}
}

// sloOf is an SLO from line 1 on, with a line replaced: "" leaves it out.
func sloOf(old, replacement string) string {
	text := `apiVersion: openslo/v1
kind: SLO
metadata:
  name: orders
spec:
  service: orders
  indicator:
    metadata: {name: orders}
    spec:
      thresholdMetric: {metricSource: {type: Prometheus, spec: {query: up}}}
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - op: lte
      value: 0.25
      target: 0.999
`
	if !strings.Contains(text, old) {
		panic(old)
	}
	return strings.Replace(text, old, replacement, 1)
}

func TestWhatDoesNotMapIsRefusedWithItsLine(t *testing.T) {
	for _, c := range []struct {
		old, replacement string
		line             int
		reason           string
	}{
		{"budgetingMethod: Occurrences", "budgetingMethod: Timeslices", 14, "calls are counted, not slices of time"},
		{"duration: 30d", "duration: 1M", 12, "a month or a quarter has no fixed length"},
		{"duration: 30d", "duration: 1d", 12, "7d..90d"},
		{"isRolling: true", "isRolling: false", 12, "error budgets slide"},
		{"      isRolling: true\n", "      isRolling: false\n      calendar: {startTime: 2026-01-01 00:00:00, timeZone: UTC}\n", 12, "error budgets slide"},
		{"op: lte", "op: gte", 16, "lte or lt: good calls are the fast ones"},
		{"value: 0.25", "value: 7200", 17, "up to an hour"},
		{"target: 0.999", "target: 99.9", 18, "above 0%, up to 99.9999%"},
		{"target: 0.999", "target: 0.9", 18, "can never fire"},
		{"target: 0.999", "target: 0.999\n      targetPercent: 99", 16, "one of them"},
		{"target: 0.999", "target: 0.999\n      timeSliceTarget: 0.9", 16, "not slices of time"},
		{"target: 0.999", "target: 0.999\n      compositeWeight: 1", 19, "unknown field"},
		{"apiVersion: openslo/v1", "apiVersion: openslo.com/v2alpha", 1, "want openslo/v1"},
		{"kind: SLO", "kind: SLX", 2, "SLO, SLI, Service or DataSource"},
		{"kind: SLO", "kind: AlertPolicy", 2, "alerts follow from the error budget"},
		{"  objectives:\n", "  alertPolicies: [fast-burn]\n  objectives:\n", 15, "alerts follow from the error budget"},
		{"service: orders", "service: orders\n  indicatorRef: missing", 7, "none beside an indicator"},
		{"thresholdMetric:", "ratioMetric: {counter: true, good: {metricSource: {spec: {query: 'rate(x_bucket{le=\"0.25\"}[5m])'}}}, total: {metricSource: {}}} #", 7, "the threshold as the annotation longpole.dev/threshold"},
		{"metadata:\n", "metadata:\n  annotations: {longpole.dev/unit: hours}\n", 4, "longpole.dev/unit: s or ms"},
		{"name: orders", "name: a b", 4, "a name of 1..64"},
		{"service: orders", "service: ''", 6, "the name of a route"},
	} {
		const before = "# a comment\n---\n"
		all, _, err := interop.OpenSLO("f.yaml", []byte(before+sloOf(c.old, c.replacement)))
		fault, ok := errors.AsType[*conf.Error](err)
		if !ok || fault.Line != c.line+2 || !strings.Contains(err.Error(), c.reason) || len(all) != 0 {
			t.Errorf("%q: %v\nwant line %d: %s", c.replacement, err, c.line+2, c.reason)
		}
	}
}

func TestOneFaultyDocumentDoesNotSpoilTheOthers(t *testing.T) {
	file := sloOf("name: orders", "name: a") + "---\n" + sloOf("op: lte", "op: eq") + "---\n" + sloOf("name: orders", "name: b")
	all, notes, err := interop.OpenSLO("f.yaml", []byte(file))
	if len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" || len(notes) != 2 {
		t.Errorf("%+v %v", all, notes)
	}
	if err == nil || !strings.Contains(err.Error(), "f.yaml:35:") {
		t.Error(err)
	}
}

func TestARatioOfLatencyNeedsItsThreshold(t *testing.T) {
	file := strings.Replace(openSLO, "    team: [shop, web]\n    tier: 1\n", "    team: shop\n  annotations: {longpole.dev/threshold: 300ms}\n", 1)
	all, _, err := interop.OpenSLO("f.yaml", []byte(file))
	if err != nil || all[0].Kind != slo.Latency || all[0].Threshold != 300*time.Millisecond {
		t.Errorf("%+v %v", all, err)
	}
}

func TestOpenSLOIsBounded(t *testing.T) {
	if _, _, err := interop.OpenSLO("f.yaml", []byte(strings.Repeat("---\na: b\n", 600))); !errors.Is(err, interop.ErrOpenSLO) {
		t.Error(err)
	}
	if all, _, err := interop.OpenSLO("f.yaml", []byte("# nothing\n---\n")); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func FuzzOpenSLO(f *testing.F) {
	f.Add([]byte(openSLO))
	f.Add([]byte(sloOf("op: lte", "op: gte")))
	f.Add([]byte(`{"apiVersion": "openslo/v1", "kind": "SLI", "metadata": {"name": "x"}, "spec": {"ratioMetric": {}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, _, _ := interop.OpenSLO("f.yaml", data)
		for _, o := range all {
			if err := o.Validate(); err != nil {
				t.Errorf("%+v: %v", o, err)
			}
			if _, _, err := interop.Rules([]slo.Objective{o}, interop.RuleOptions{Histograms: interop.Native}); err != nil {
				t.Error(err)
			}
		}
		_ = fmt.Sprint(all)
	})
}

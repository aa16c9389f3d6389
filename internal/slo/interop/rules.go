package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/slo"
)

// ErrRules is what Rules gives for an objective that Prometheus could not judge.
var ErrRules = errors.New("interop: no rules")

// RuleOptions are what Rules leaves to its user. The zero value is fine.
type RuleOptions struct {
	Histograms Histograms        // default Classic
	Interval   time.Duration     // between evaluations; 0 = as Prometheus is set
	Selector   string            // further label matchers for our metrics, as `job="longpole"`
	Labels     map[string]string // added to each alert, as a team
	PageURL    string            // of the gateway's page, for alerts; "" = not known
}

// Alert is the name of the alerts; their labels are slo, route and severity.
const Alert = "LongpoleErrorBudgetBurn"

// The recorded series. Those of a window have its name at the end: longpole:slo_error:ratio_rate5m. All have the labels slo
// and route.
const (
	recordRatio     = "longpole:slo_error:ratio_rate"
	recordEvents    = "longpole:slo_events:increase"
	recordBad       = "longpole:slo_bad_events:increase"
	recordAllowed   = "longpole:slo_allowed:ratio"
	recordRemaining = "longpole:slo_error_budget_remaining:ratio"
)

// rule is one entry of a rule file.
type rule struct {
	record, alert string // one of them
	expr          string
	labels, notes map[string]string
}

// Rules is a rule file for Prometheus: for each objective a group that records its ratios and its error budget, and alerts as
// package slo does. notes say where Prometheus will judge otherwise than the gateway. Its error joins an ErrRules for each
// objective that it cannot judge; the file holds the others.
func Rules(all []slo.Objective, o RuleOptions) (file []byte, notes []string, err error) {
	var out bytes.Buffer
	var errs []error
	out.WriteString("# Made by longpole from its objectives; changes will be lost.\n")
	if len(all) == 0 {
		out.WriteString("groups: []\n")
	} else {
		out.WriteString("groups:\n")
	}
	for _, objective := range all {
		e, note, err := newEvents(objective, o.Histograms, o.Selector)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if note != "" {
			notes = append(notes, note)
		}
		writeGroup(&out, "longpole-slo-"+objective.Name, o.Interval, e.rules(o))
	}
	return out.Bytes(), notes, errors.Join(errs...)
}

// rules are those of one objective.
func (e events) rules(o RuleOptions) []rule {
	labels := map[string]string{"slo": e.o.Name, "route": e.o.Route}
	period := span(e.o.Period.Duration())
	record := func(name, expr string) rule { return rule{record: name, expr: expr, labels: labels} }
	all := []rule{record(recordAllowed, "vector("+number(e.o.Allowed())+")")}
	windows := e.windows()
	for _, w := range windows {
		all = append(all, record(recordRatio+w, e.ratio(w)))
	}
	if !slices.Contains(windows, period) {
		all = append(all, record(recordRatio+period, e.ratio(period)))
	}
	for _, w := range windows {
		total, bad := e.over("increase", w)
		all = append(all, record(recordEvents+w, total), record(recordBad+w, bad))
	}
	all = append(all, record(recordRemaining, fmt.Sprintf("1 - %s / %s", e.recorded(recordRatio+period), number(e.o.Allowed()))))
	for _, s := range []slo.Severity{slo.Page, slo.Ticket} {
		if r, any := e.alert(s, o); any {
			all = append(all, r)
		}
	}
	return all
}

// windows are those of all alerts, each once, from the shortest.
func (e events) windows() []string {
	var all []time.Duration
	for _, w := range e.o.Windows {
		all = append(all, w.Long, w.Short)
	}
	slices.Sort(all)
	var names []string
	for _, d := range slices.Compact(all) {
		names = append(names, span(d))
	}
	return names
}

// recorded selects one of our series for this objective.
func (e events) recorded(name string) string { return name + "{slo=" + quote(e.o.Name) + "}" }

// alert holds when one of the windows of its severity does.
func (e events) alert(s slo.Severity, o RuleOptions) (r rule, any bool) {
	var conditions []string
	for _, w := range e.o.Windows {
		if w.Severity != s {
			continue
		}
		long, short := span(w.Long), span(w.Short)
		limit := number(w.Factor(e.o.Period) * e.o.Allowed())
		conditions = append(conditions, fmt.Sprintf("(\n  %s > %s\nand\n  %s > %s\nand\n  (\n    %s\n  or\n    %s\n  )\n)",
			e.recorded(recordRatio+long), limit, e.recorded(recordRatio+short), limit, e.guard(w, long, 2), e.guard(w, short, 3)))
	}
	labels := map[string]string{"severity": string(s), "slo": e.o.Name, "route": e.o.Route}
	maps.Copy(labels, o.Labels)
	notes := map[string]string{
		"summary":     fmt.Sprintf("%s of route %s burns its error budget.", e.o.Name, e.o.Route),
		"description": fmt.Sprintf("%s%s of the calls are bad; %s are promised to be good over %s.", sentence(e.o.Description), "{{ $value | humanizePercentage }}", percent(e.o.Target), e.o.Period),
	}
	if o.PageURL != "" {
		notes["dashboard"] = o.PageURL
	}
	return rule{alert: Alert, expr: strings.Join(conditions, "\nor\n"), labels: labels, notes: notes}, len(conditions) > 0
}

// guard is that for low traffic. A Poisson variable of mean m exceeds m + 2.33*sqrt(m) + 1 with a chance of about 1 %: within
// one call of the exact bound of package slo for means up to 25, beyond which MinBad decides. All bounds are half a call
// lower, because increase() extrapolates and gives no whole numbers. The long window alone needs two bad calls, the short
// one three.
func (e events) guard(w slo.Window, window string, least int) string {
	bad := e.recorded(recordBad + window)
	mean := fmt.Sprintf("%s * %s", e.recorded(recordEvents+window), number(w.Factor(e.o.Period)*e.o.Allowed()))
	return fmt.Sprintf("(%s > %s and (%s > %s or %s > %s + 2.33 * sqrt(%s) + 0.5))",
		bad, number(float64(least)-0.5), bad, number(float64(e.o.MinBad)-0.5), bad, mean, mean)
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	// Prometheus expands {{ }} in annotations; a description is no program.
	return strings.NewReplacer("{{", `{{"{{"}}`, "}}", `{{"}}"}}`).Replace(s) + " "
}

func percent(share float64) string { return number(share*100) + " %" }

// writeGroup writes YAML. Texts are written as JSON strings, which YAML reads as they are, so that nothing in them can be
// taken for syntax; expressions are blocks, for people to read.
func writeGroup(out *bytes.Buffer, name string, interval time.Duration, rules []rule) {
	fmt.Fprintf(out, "  - name: %s\n", text(name))
	if interval > 0 {
		fmt.Fprintf(out, "    interval: %s\n", span(interval))
	}
	out.WriteString("    rules:\n")
	for _, r := range rules {
		if r.alert != "" {
			fmt.Fprintf(out, "      - alert: %s\n", text(r.alert))
		} else {
			fmt.Fprintf(out, "      - record: %s\n", text(r.record))
		}
		out.WriteString("        expr: |-\n")
		for line := range strings.SplitSeq(r.expr, "\n") {
			out.WriteString("          " + line + "\n")
		}
		writeMap(out, "labels", r.labels)
		writeMap(out, "annotations", r.notes)
	}
}

func writeMap(out *bytes.Buffer, name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(out, "        %s:\n", name)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(out, "          %s: %s\n", text(key), text(m[key]))
	}
}

func text(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

package interop

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/setting"
)

// ErrOpenSLO is what OpenSLO gives for a file that it cannot take apart at all; all other faults are *conf.Error.
var ErrOpenSLO = errors.New("interop: OpenSLO")

// The annotations of a metadata section that say what OpenSLO has no word for.
const (
	annotationRoute     = "longpole.dev/route"     // whose calls are counted; default the service
	annotationThreshold = "longpole.dev/threshold" // of a ratio that is one of latency: 250ms
	annotationUnit      = "longpole.dev/unit"      // of an objective's value: s (the default) or ms
)

const (
	openSLOVersion = "openslo/v1"
	maxDocuments   = 512
)

// OpenSLO reads a file of OpenSLO v1, of one document or several.
//
// The gateway counts by itself: an SLI's queries are not asked, they only say what kind it is. thresholdMetric is latency, with
// the objective's value as the threshold; ratioMetric is availability, or latency where an annotation gives the threshold.
// notes tell of each query that is replaced so. Kinds Service, DataSource and SLI are read as far as an SLO needs them.
//
// What does not map is refused with its line and the reason: other kinds, calendar windows, budgeting by time slices, composite
// objectives, operators but lte and lt, alert policies (ours follow from the budget). The objectives are those of all SLOs
// without a fault; the error joins a *conf.Error for each fault.
//
// Source: https://github.com/OpenSLO/OpenSLO, v1.
func OpenSLO(file string, data []byte) (all []slo.Objective, notes []string, err error) {
	documents := split(data)
	if len(documents) > maxDocuments {
		return nil, nil, fmt.Errorf("%w: %s has %d documents; want at most %d", ErrOpenSLO, file, len(documents), maxDocuments)
	}
	r := reader{file: file, indicators: map[string]*indicator{}}
	for _, d := range documents { // indicators may stand behind their users
		if kindOf(d) == "SLI" {
			r.indicator(d)
		}
	}
	for _, d := range documents {
		r.document(d)
	}
	return r.objectives, r.notes, errors.Join(r.faults...)
}

var separator = regexp.MustCompile(`(?m)^---(?:[ \t].*)?\r?$`)

// split gives each document as many empty lines in front as it needs for its line numbers to be those of the file.
func split(data []byte) (documents []string) {
	rest, lines := string(data), 0
	for {
		at := separator.FindStringIndex(rest)
		part := rest
		if at != nil {
			part = rest[:at[0]]
		}
		if !blank(part) {
			documents = append(documents, strings.Repeat("\n", lines)+part)
		}
		if at == nil {
			return documents
		}
		lines += strings.Count(rest[:at[1]], "\n")
		rest = rest[at[1]:]
	}
}

// blank reports whether nothing but comments and white space is there.
func blank(part string) bool {
	for line := range strings.Lines(part) {
		if s := strings.TrimSpace(line); s != "" && s[0] != '#' {
			return false
		}
	}
	return true
}

var kindLine = regexp.MustCompile(`(?m)^(?:[{ ]*["']?)kind["']?:[ \t]*["']?(\w+)`)

// kindOf finds the kind before the document is read, because each kind has its own fields.
func kindOf(document string) string {
	if m := kindLine.FindStringSubmatch(document); m != nil {
		return m[1]
	}
	return ""
}

// loose is a scalar of any type, as the free parts of OpenSLO have it.
type loose string

func (l *loose) UnmarshalText(text []byte) error {
	*l = loose(text)
	return nil
}

type metadata struct {
	Name        string             `yaml:"name"`
	DisplayName string             `yaml:"displayName"`
	Labels      map[string][]loose `yaml:"labels"`
	Annotations map[string]loose   `yaml:"annotations"`
}

type sloDocument struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       sloSpec  `yaml:"spec"`
}

type sloSpec struct {
	Description     string          `yaml:"description"`
	Service         string          `yaml:"service"`
	IndicatorRef    string          `yaml:"indicatorRef"`
	Indicator       *indicator      `yaml:"indicator"`
	TimeWindow      []timeWindow    `yaml:"timeWindow"`
	BudgetingMethod string          `yaml:"budgetingMethod"`
	Objectives      []sloObjective  `yaml:"objectives"`
	AlertPolicies   []alertPolicies `yaml:"alertPolicies"`
}

// alertPolicies are refused whatever they hold.
type alertPolicies struct {
	Ref loose `yaml:"alertPolicyRef"`
}

func (a *alertPolicies) UnmarshalText([]byte) error { return nil }

type timeWindow struct {
	Duration  string           `yaml:"duration"`
	IsRolling bool             `yaml:"isRolling"`
	Calendar  map[string]loose `yaml:"calendar"`
}

type sloObjective struct {
	DisplayName     string  `yaml:"displayName"`
	Op              string  `yaml:"op"`
	Value           float64 `yaml:"value"`
	Target          float64 `yaml:"target"`
	TargetPercent   float64 `yaml:"targetPercent"`
	TimeSliceTarget float64 `yaml:"timeSliceTarget"`
	TimeSliceWindow loose   `yaml:"timeSliceWindow"`
}

type indicator struct {
	APIVersion string        `yaml:"apiVersion"`
	Kind       string        `yaml:"kind"`
	Metadata   metadata      `yaml:"metadata"`
	Spec       indicatorSpec `yaml:"spec"`
}

type indicatorSpec struct {
	Description     string  `yaml:"description"`
	ThresholdMetric *source `yaml:"thresholdMetric"`
	RatioMetric     *ratio  `yaml:"ratioMetric"`
}

type ratio struct {
	Counter bool    `yaml:"counter"`
	Good    *source `yaml:"good"`
	Bad     *source `yaml:"bad"`
	Total   *source `yaml:"total"`
	RawType string  `yaml:"rawType"`
	Raw     *source `yaml:"raw"`
}

type source struct {
	MetricSource metricSource `yaml:"metricSource"`
}

type metricSource struct {
	Ref  string           `yaml:"metricSourceRef"`
	Type string           `yaml:"type"`
	Spec map[string]loose `yaml:"spec"`
}

// reader collects what one file gives.
type reader struct {
	file       string
	indicators map[string]*indicator
	objectives []slo.Objective
	notes      []string
	faults     []error
}

func (r *reader) indicator(document string) {
	var d indicator
	if err := conf.Load(r.file, []byte(document), &d, func(d *indicator) error { return d.validate() }); err != nil {
		r.faults = append(r.faults, err)
		return
	}
	r.indicators[d.Metadata.Name] = &d
}

func (i *indicator) validate() error {
	var f setting.Faults
	f.Check(i.APIVersion == openSLOVersion, "apiVersion", i.APIVersion, openSLOVersion)
	f.Check(i.Metadata.Name != "", "metadata.name", i.Metadata.Name, "a name")
	f.Check((i.Spec.ThresholdMetric != nil) != (i.Spec.RatioMetric != nil), "spec", "not exactly one metric", "thresholdMetric or ratioMetric")
	return f.Err()
}

func (r *reader) document(document string) {
	switch kind := kindOf(document); kind {
	case "SLI", "Service", "DataSource": // read already; descriptions; where queries would go
	case "SLO":
		r.slo(document)
	case "AlertPolicy", "AlertCondition", "AlertNotificationTarget":
		r.refuse(document, kind, "no such document: alerts follow from the error budget, and go to the webhook of the gateway")
	default:
		r.refuse(document, kind, "SLO, SLI, Service or DataSource")
	}
}

// refuse places the fault at the document's kind.
func (r *reader) refuse(document, kind, want string) {
	err := conf.Locate(r.file, []byte(document), &setting.Error{Path: "kind", Value: kind, Want: want})
	r.faults = append(r.faults, err)
}

func (r *reader) slo(document string) {
	var d sloDocument
	var found []slo.Objective
	err := conf.Load(r.file, []byte(document), &d, func(d *sloDocument) error {
		var err error
		found, err = r.objectivesOf(d)
		return err
	})
	if err != nil {
		r.faults = append(r.faults, err)
		return
	}
	r.objectives = append(r.objectives, found...)
	r.notes = append(r.notes, fmt.Sprintf("%s: SLO %s: the queries of its SLI are not asked; the gateway counts the calls of route %s", r.file, d.Metadata.Name, found[0].Route))
}

// objectivesOf maps one SLO, or names each part of it that does not map.
func (r *reader) objectivesOf(d *sloDocument) (all []slo.Objective, err error) {
	var f setting.Faults
	s := &d.Spec
	f.Check(d.APIVersion == openSLOVersion, "apiVersion", d.APIVersion, openSLOVersion)
	f.Check(s.BudgetingMethod == "" || s.BudgetingMethod == "Occurrences", "spec.budgetingMethod", s.BudgetingMethod, "Occurrences: calls are counted, not slices of time")
	f.Check(len(s.AlertPolicies) == 0, "spec.alertPolicies", "a policy", "none: alerts follow from the error budget")
	f.Check(len(s.Objectives) > 0, "spec.objectives", "none", "at least one objective")
	period := s.period(&f)
	f.Check(s.Indicator == nil || s.IndicatorRef == "", "spec.indicatorRef", s.IndicatorRef, "none beside an indicator")
	i, at := s.Indicator, "spec.indicator"
	if i == nil {
		i, at = r.indicators[s.IndicatorRef], "spec.indicatorRef"
	}
	if i == nil {
		f.Check(false, at, s.IndicatorRef, "an indicator, or the name of an SLI of this file without faults")
		return nil, f.Err()
	}
	for n, o := range s.Objectives {
		path := fmt.Sprintf("spec.objectives[%d]", n)
		one := slo.Objective{Name: d.Metadata.Name, Description: s.Description, Route: d.route(), Target: o.target(path, &f), Period: period}
		if len(s.Objectives) > 1 {
			one.Name += fmt.Sprintf("-%d", n+1)
		}
		f.Check(o.TimeSliceTarget == 0 && o.TimeSliceWindow == "", path, "a time slice", "none: calls are counted, not slices of time")
		one.Kind, one.Threshold = i.measure(d.Metadata.Annotations, o, at, path, &f)
		all = append(all, one)
	}
	if f.Err() != nil {
		return nil, f.Err()
	}
	for n, one := range all {
		for _, e := range setting.List(one.Validate()) {
			if fault, ok := errors.AsType[*setting.Error](e); ok {
				f.Check(false, places(fault.Path, n), fault.Value, fault.Want)
			}
		}
	}
	return all, f.Err()
}

// places is where OpenSLO has a field of ours.
func places(path string, n int) string {
	switch path {
	case "name":
		return "metadata.name"
	case "route":
		return "spec.service"
	case "period":
		return "spec.timeWindow[0].duration"
	case "threshold":
		return fmt.Sprintf("spec.objectives[%d].value", n)
	case "description":
		return "spec.description"
	}
	return fmt.Sprintf("spec.objectives[%d].target", n)
}

func (d *sloDocument) route() string {
	if name := d.Metadata.Annotations[annotationRoute]; name != "" {
		return string(name)
	}
	return d.Spec.Service
}

func (s *sloSpec) period(f *setting.Faults) (p slo.Period) {
	if len(s.TimeWindow) != 1 {
		f.Check(false, "spec.timeWindow", len(s.TimeWindow), "one window")
		return 0
	}
	w := s.TimeWindow[0]
	f.Check(w.IsRolling && len(w.Calendar) == 0, "spec.timeWindow[0]", "a calendar window", "isRolling: true: error budgets slide")
	err := p.UnmarshalText([]byte(w.Duration))
	f.Check(err == nil, "spec.timeWindow[0].duration", w.Duration, "days or weeks such as 30d or 4w: a month or a quarter has no fixed length")
	return p
}

func (o *sloObjective) target(path string, f *setting.Faults) float64 {
	switch {
	case o.Target != 0 && o.TargetPercent != 0:
		f.Check(false, path, "target and targetPercent", "one of them")
	case o.Target == 0 && o.TargetPercent == 0:
		f.Check(false, path, "no target", "target or targetPercent")
	case o.TargetPercent != 0:
		return o.TargetPercent / 100
	}
	return o.Target
}

// measure is what an indicator counts as good.
func (i *indicator) measure(notes map[string]loose, o sloObjective, at, path string, f *setting.Faults) (slo.Kind, time.Duration) {
	if i.Spec.ThresholdMetric != nil {
		f.Check(o.Op == "lte" || o.Op == "lt", path+".op", o.Op, "lte or lt: good calls are the fast ones")
		unit := map[loose]float64{"": 1e9, "s": 1e9, "ms": 1e6}[notes[annotationUnit]]
		f.Check(unit > 0, "metadata.annotations", notes[annotationUnit], annotationUnit+": s or ms")
		f.Check(o.Value > 0 && o.Value*unit <= float64(time.Hour), path+".value", o.Value, "a time in seconds, or in the unit of the annotation "+annotationUnit+"; up to an hour")
		return slo.Latency, time.Duration(o.Value*unit + 0.5)
	}
	m := i.Spec.RatioMetric
	if m == nil {
		f.Check(false, at, "no metric", "thresholdMetric or ratioMetric")
		return "", 0
	}
	if text := notes[annotationThreshold]; text != "" {
		d, err := time.ParseDuration(string(text))
		f.Check(err == nil, "metadata.annotations", text, annotationThreshold+": a duration such as 250ms")
		return slo.Latency, d
	}
	f.Check(!m.timed(), at, "a ratio of latency, by its query", "the threshold as the annotation "+annotationThreshold)
	return slo.Availability, 0
}

var timedQuery = regexp.MustCompile(`_bucket|\ble\s*=|latency|duration`)

// timed reports whether a query looks as if it measured latency.
func (m *ratio) timed() bool {
	return slices.ContainsFunc([]*source{m.Good, m.Bad, m.Raw}, func(s *source) bool {
		if s == nil {
			return false
		}
		for _, text := range s.MetricSource.Spec {
			if timedQuery.MatchString(string(text)) {
				return true
			}
		}
		return false
	})
}

package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/slo"
)

// DashboardOptions are what dashboards are made from besides the objectives. The zero value is fine.
type DashboardOptions struct {
	Routes     []string   // that can be chosen; none = all that Prometheus knows
	Histograms Histograms // default Classic
	Selector   string     // further label matchers for our metrics, as `job="longpole"`
}

// Dashboard is one file for Grafana.
type Dashboard struct {
	Name string // of the file, without its ending: longpole-routes
	JSON []byte
}

// Dashboards are one for routes and endpoints and, if there are objectives, one for these. The latter shows what Rules
// records.
func Dashboards(all []slo.Objective, o DashboardOptions) ([]Dashboard, error) {
	files := []dashboard{routesDashboard(o)}
	if len(all) > 0 {
		files = append(files, objectivesDashboard(all))
	}
	made := make([]Dashboard, 0, len(files))
	for _, f := range files {
		data, err := json.MarshalIndent(f, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("interop: dashboard %s: %w", f.UID, err)
		}
		made = append(made, Dashboard{f.UID, append(data, '\n')})
	}
	return made, nil
}

// The shape of Grafana's dashboards, as far as we need it: schema version 39, which Grafana 10.4 and later read.

type dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Tags          []string   `json:"tags"`
	SchemaVersion int        `json:"schemaVersion"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1 = a crosshair shared by all panels
	Refresh       string     `json:"refresh"`
	Time          timeRange  `json:"time"`
	Templating    templating `json:"templating"`
	Panels        []panel    `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []variable `json:"list"`
}

type variable struct {
	Name       string      `json:"name"`
	Label      string      `json:"label"`
	Type       string      `json:"type"` // datasource, query or custom
	Query      string      `json:"query"`
	Datasource *datasource `json:"datasource,omitempty"`
	Refresh    int         `json:"refresh,omitempty"` // 2 = when the time range changes
	Multi      bool        `json:"multi"`
	IncludeAll bool        `json:"includeAll"`
	AllValue   string      `json:"allValue,omitempty"`
	Current    any         `json:"current,omitempty"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int         `json:"id"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	Type        string      `json:"type"` // timeseries or stat
	Datasource  datasource  `json:"datasource"`
	GridPos     gridPos     `json:"gridPos"`
	FieldConfig fieldConfig `json:"fieldConfig"`
	Targets     []target    `json:"targets"`
}

type gridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type fieldConfig struct {
	Defaults struct {
		Unit string `json:"unit"`
	} `json:"defaults"`
	Overrides []any `json:"overrides"`
}

type target struct {
	RefID        string `json:"refId"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
}

var prometheus = datasource{"prometheus", "${datasource}"}

func newDashboard(uid, title string, variables ...variable) dashboard {
	source := variable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"}
	return dashboard{
		UID: uid, Title: title, Tags: []string{"longpole"}, SchemaVersion: 39, GraphTooltip: 1, Refresh: "30s", Editable: true,
		Time: timeRange{"now-1h", "now"}, Templating: templating{append([]variable{source}, variables...)}, Panels: []panel{},
	}
}

// add puts a panel behind the last one, two in a row. queries are legend, expression, legend, expression.
func (d *dashboard) add(title, description, unit string, queries ...string) {
	n := len(d.Panels)
	p := panel{
		ID: n + 1, Title: title, Description: description, Type: "timeseries", Datasource: prometheus,
		GridPos: gridPos{8, 12, n % 2 * 12, n / 2 * 8}, FieldConfig: fieldConfig{Overrides: []any{}},
	}
	p.FieldConfig.Defaults.Unit = unit
	for i := 0; i+1 < len(queries); i += 2 {
		p.Targets = append(p.Targets, target{string(rune('A' + i/2)), queries[i+1], queries[i]})
	}
	d.Panels = append(d.Panels, p)
}

func routeVariable(routes []string) variable {
	v := variable{Name: "route", Label: "Route", Multi: true, IncludeAll: true, AllValue: ".*", Current: map[string]any{"text": "All", "value": "$__all"}}
	if len(routes) == 0 {
		v.Type, v.Query, v.Datasource, v.Refresh = "query", "label_values("+callsMetric+", route)", &prometheus, 2
		return v
	}
	names := slices.Clone(routes)
	for i := range names {
		names[i] = strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(names[i])
	}
	v.Type, v.Query = "custom", strings.Join(names, ",")
	return v
}

// routesDashboard asks only for series that every gateway has.
func routesDashboard(o DashboardOptions) dashboard {
	d := newDashboard("longpole-routes", "Longpole: routes", routeVariable(o.Routes))
	q := metricQueries(o)
	rate := func(by, metric, matcher string) string {
		return fmt.Sprintf("sum by (%s) (rate(%s{%s}[$__rate_interval]))", by, metric, q.route(matcher))
	}
	all, bad := `class!="`+slo.Ignored+`"`, `class=~"`+strings.Join(slo.BadClasses(), "|")+`"`
	d.add("Calls", "Calls that ended.", "reqps", "{{route}}", rate("route", callsMetric, ""))
	d.add("Bad calls", "Share that an availability objective counts as bad: "+strings.Join(slo.BadClasses(), ", ")+".", "percentunit",
		"{{route}}", rate("route", callsMetric, bad)+" / ("+rate("route", callsMetric, all)+" > 0)")
	var latency []string
	for _, p := range []struct{ name, quantile string }{{"p50", "0.5"}, {"p95", "0.95"}, {"p99", "0.99"}, {"p99.9", "0.999"}} {
		latency = append(latency, "{{route}} "+p.name, q.quantile(p.quantile, "route", latencyMetric, q.route("")))
	}
	d.add("Latency", "To the head of the answer. Quantiles of all instances together, never averages.", "s", latency...)
	d.add("How calls ended", "", "reqps", "{{class}}", rate("class", callsMetric, ""))
	d.add("What the cache did", "", "reqps", "{{route}} {{cache}}", q.count("route, cache", latencyMetric, q.route("")))
	d.add("Attempts per call", "Above 1: retries and hedges. Below 1: answers from the cache, and refused calls.", "none",
		"{{route}}", rate("route", "longpole_attempts_total", "")+" / ("+rate("route", callsMetric, "")+" > 0)")
	d.add("Retries and hedges", "", "reqps", "{{route}} retries", rate("route", "longpole_retries_total", ""), "{{route}} hedges", rate("route", "longpole_hedges_total", ""))
	d.add("Open breakers", "", "none", "{{route}}", "sum by (route) (longpole_breaker_open{"+q.route("")+"})")
	d.add("Latency of attempts", "p99 by endpoint, without attempts that were given up.", "s", "{{upstream}} {{endpoint}}",
		q.quantile("0.99", "upstream, endpoint", "longpole_endpoint_attempt_duration_seconds", q.any("")))
	d.add("In flight", "Attempts that run, by endpoint.", "none", "{{upstream}} {{endpoint}}", "sum by (upstream, endpoint) (longpole_endpoint_in_flight{"+q.any("")+"})")
	d.add("Endpoints in rotation", "", "none", "{{upstream}} healthy", "sum by (upstream) (longpole_endpoint_healthy{"+q.any("")+"})",
		"{{upstream}} all", "count by (upstream) (longpole_endpoint_healthy{"+q.any("")+"})")
	d.add("Overload of the gateway", "How close it is to its own bounds, and what it refused for that.", "none",
		"pressure", "max(longpole_overload_pressure_ratio{"+q.any("")+"})", "{{priority}} refused/s", "sum by (priority) (rate(longpole_overload_shed_total{"+q.any("")+"}[$__rate_interval]))")
	own := " * on (job, instance) group_left () longpole_build_info{" + q.any("") + "}"
	d.add("CPU of the gateway", "Cores.", "none", "{{instance}}", "rate(process_cpu_seconds_total[$__rate_interval])"+own)
	d.add("Memory of the gateway", "", "bytes", "{{instance}}", "process_resident_memory_bytes"+own)
	return d
}

// metricQueries are the parts of queries that depend on the options.
type metricQueries DashboardOptions

// any is the selector, and more matchers.
func (q metricQueries) any(matcher string) string {
	var all []string
	for _, m := range []string{q.Selector, matcher} {
		if m != "" {
			all = append(all, m)
		}
	}
	return strings.Join(all, ",")
}

// route is any for the chosen routes.
func (q metricQueries) route(matcher string) string {
	parts := `route=~"$route"`
	if matcher != "" {
		parts += "," + matcher
	}
	return q.any(parts)
}

func (q metricQueries) quantile(quantile, by, metric, matcher string) string {
	if q.Histograms == Native {
		return fmt.Sprintf("histogram_quantile(%s, sum by (%s) (rate(%s{%s}[$__rate_interval])))", quantile, by, metric, matcher)
	}
	return fmt.Sprintf("histogram_quantile(%s, sum by (%s, le) (rate(%s_bucket{%s}[$__rate_interval])))", quantile, by, metric, matcher)
}

func (q metricQueries) count(by, metric, matcher string) string {
	if q.Histograms == Native {
		return fmt.Sprintf("histogram_count(sum by (%s) (rate(%s{%s}[$__rate_interval])))", by, metric, matcher)
	}
	return fmt.Sprintf("sum by (%s) (rate(%s_count{%s}[$__rate_interval]))", by, metric, matcher)
}

// objectivesDashboard shows what Rules records.
func objectivesDashboard(all []slo.Objective) dashboard {
	names := make([]string, 0, len(all))
	windows := map[string]bool{}
	periods := map[string]bool{}
	var order []string
	for _, o := range all {
		e := events{o: o.WithDefaults()}
		names = append(names, o.Name)
		periods[span(e.o.Period.Duration())] = true
		for _, w := range e.windows() {
			if !windows[w] {
				windows[w] = true
				order = append(order, w)
			}
		}
	}
	choose := variable{
		Name: "slo", Label: "Objective", Type: "custom", Query: strings.Join(names, ","), Multi: true, IncludeAll: true, AllValue: ".*",
		Current: map[string]any{"text": "All", "value": "$__all"},
	}
	d := newDashboard("longpole-slo", "Longpole: objectives", choose)
	const chosen = `{slo=~"$slo"}`
	d.add("Error budget that remains", "Below 0: more was used than there was.", "percentunit", "{{slo}}", recordRemaining+chosen)
	d.Panels[0].Type = "stat"
	d.add("Error budget over time", "", "percentunit", "{{slo}}", recordRemaining+chosen)
	for _, w := range order {
		d.add("Burn rate over "+w, "1 uses up the error budget in just one period.", "none", "{{slo}}",
			recordRatio+w+chosen+" / on (slo, route) "+recordAllowed+chosen)
	}
	for _, p := range slices.Sorted(maps.Keys(periods)) {
		if !windows[p] {
			d.add("Bad calls over "+p, "The objective's own figure.", "percentunit", "{{slo}} bad", recordRatio+p+chosen, "{{slo}} allowed", recordAllowed+chosen)
		}
	}
	d.add("Alerts that fire", "", "none", "{{severity}} {{slo}}", "sum by (severity, slo) (ALERTS{alertname=\""+Alert+"\",slo=~\"$slo\",alertstate=\"firing\"})")
	return d
}

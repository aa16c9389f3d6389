package web

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

const mostTraces = 1000 // in one answer

// foundTrace is a kept trace in a list.
type foundTrace struct {
	ID         string    `json:"trace_id"`
	Route      string    `json:"route"`
	Start      time.Time `json:"start"`
	DurationMS float64   `json:"duration_ms"`
	Failed     bool      `json:"failed"`
	Weight     float64   `json:"weight"` // how many it stands for
}

// traces finds kept traces: ?route=, ?min= (a duration), ?failed=true, ?from= and ?to= as history takes them, default the
// last hour, ?order=slowest instead of the newest first, ?limit= (100).
func (a *admin) traces(w http.ResponseWriter, r *http.Request) {
	if !a.keepsTraces(w) {
		return
	}
	q, err := traceQuery(r, time.Now())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	found, err := a.Store.Find(r.Context(), q)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	all := make([]foundTrace, len(found))
	for i, f := range found {
		all[i] = foundTrace{f.ID, f.Route, f.Start, float64(f.Duration) / float64(time.Millisecond), f.Failed, f.Weight}
	}
	writeJSON(w, http.StatusOK, map[string]any{"from": q.From, "to": q.To, "traces": all})
}

func (a *admin) keepsTraces(w http.ResponseWriter) bool {
	if a.Store == nil {
		writeError(w, http.StatusNotFound, "no traces are kept; give the configuration a state folder: `state: {dir: FOLDER}`")
	}
	return a.Store != nil
}

func traceQuery(r *http.Request, now time.Time) (t store.TraceQuery, err error) {
	q := r.URL.Query()
	t = store.TraceQuery{Route: q.Get("route"), Most: 100}
	if t.From, err = moment(q, "from", now, now.Add(-time.Hour)); err != nil {
		return t, err
	}
	if t.To, err = moment(q, "to", now, now); err != nil {
		return t, err
	}
	if text := q.Get("min"); text != "" {
		if t.Longer, err = time.ParseDuration(text); err != nil || t.Longer < 0 {
			return t, fmt.Errorf("min: %q is no duration; want one such as 250ms", text)
		}
		t.Longer = max(t.Longer-1, 0) // the store wants longer ones, we as long ones too
	}
	if text := q.Get("failed"); text != "" {
		if t.Failed, err = strconv.ParseBool(text); err != nil {
			return t, fmt.Errorf("failed: %q is neither true nor false", text)
		}
	}
	switch text := q.Get("order"); text {
	case "", "newest":
	case "slowest":
		t.Slowest = true
	default:
		return t, fmt.Errorf("order: %q is not known; want newest or slowest", text)
	}
	if text := q.Get("limit"); text != "" {
		if t.Most, err = strconv.Atoi(text); err != nil || t.Most < 1 || t.Most > mostTraces {
			return t, fmt.Errorf("limit: %q is not allowed; want 1..%d", text, mostTraces)
		}
	}
	return t, nil
}

// trace is one kept trace as a document of OTLP JSON, which longpole diagnose and other tools read.
func (a *admin) trace(w http.ResponseWriter, r *http.Request) {
	if !a.keepsTraces(w) {
		return
	}
	id := r.PathValue("id")
	found, err := a.Store.Traces(r.Context(), store.TraceQuery{ID: id, Most: 1})
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if len(found) == 0 || len(found[0].Spans) == 0 {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no trace %q is kept; GET /api/v1/traces lists those that are", id))
		return
	}
	all := otlpOf(found[0].Spans)
	all.ResourceLogs = logsOf(found[0].Logs)
	writeJSON(w, http.StatusOK, all)
}

// The parts of OTLP JSON that otlpOf writes.
type (
	otlpTrace struct {
		ResourceSpans []*otlpResource `json:"resourceSpans"`
		ResourceLogs  []otlpLogs      `json:"resourceLogs,omitempty"` // beside the spans, where readers of spans pass over them
	}
	otlpProcess struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpResource struct {
		Resource   otlpProcess `json:"resource"`
		ScopeSpans [1]struct {
			Spans []otlpSpan `json:"spans"`
		} `json:"scopeSpans"`
	}
	otlpSpan struct {
		TraceID    string          `json:"traceId"`
		SpanID     string          `json:"spanId"`
		Parent     string          `json:"parentSpanId,omitempty"`
		Name       string          `json:"name"`
		Kind       int             `json:"kind"`
		Start      string          `json:"startTimeUnixNano"`
		End        string          `json:"endTimeUnixNano"`
		Attributes []otlpAttribute `json:"attributes,omitempty"`
		Links      []otlpLink      `json:"links,omitempty"`
		Status     *otlpStatus     `json:"status,omitempty"`
	}
	otlpLink struct {
		TraceID string `json:"traceId"`
		SpanID  string `json:"spanId"`
	}
	otlpLogs struct {
		Resource  otlpProcess `json:"resource"`
		ScopeLogs [1]struct {
			Records []otlpRecord `json:"logRecords"`
		} `json:"scopeLogs"`
	}
	otlpRecord struct {
		Time       string          `json:"timeUnixNano"`
		Severity   int             `json:"severityNumber"`
		Body       otlpValue       `json:"body"`
		Attributes []otlpAttribute `json:"attributes,omitempty"`
		TraceID    string          `json:"traceId"`
		SpanID     string          `json:"spanId,omitempty"`
	}
	otlpStatus struct {
		Code int `json:"code"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String string `json:"stringValue"`
	}
)

// otlpOf groups spans by service and host.
func otlpOf(spans []trace.Span) otlpTrace {
	type place struct{ service, host string }
	var all otlpTrace
	at := map[place]*otlpResource{}
	for i := range spans {
		s := &spans[i]
		p := place{s.Service, s.Host}
		if at[p] == nil {
			at[p] = new(otlpResource)
			at[p].Resource.Attributes = []otlpAttribute{{"service.name", otlpValue{s.Service}}}
			if s.Host != "" {
				at[p].Resource.Attributes = append(at[p].Resource.Attributes, otlpAttribute{"host.name", otlpValue{s.Host}})
			}
			all.ResourceSpans = append(all.ResourceSpans, at[p])
		}
		one := otlpSpan{
			TraceID: ingest.WireTraceID(s.TraceID), SpanID: s.ID, Parent: s.Parent, Name: s.Name, Kind: int(s.Kind),
			Start: strconv.FormatInt(s.Start, 10), End: strconv.FormatInt(s.End, 10),
		}
		for a := range s.All() {
			one.Attributes = append(one.Attributes, otlpAttribute{a.Key, otlpValue{a.Value}})
		}
		for l := s.Link; l != nil; l = l.Next {
			one.Links = append(one.Links, otlpLink{ingest.WireTraceID(l.TraceID), l.SpanID})
		}
		if s.Failed {
			one.Status = &otlpStatus{Code: 2}
		}
		at[p].ScopeSpans[0].Spans = append(at[p].ScopeSpans[0].Spans, one)
	}
	return all
}

// logsOf groups log records that follow each other by service.
func logsOf(logs []trace.Log) (all []otlpLogs) {
	service := ""
	for i := range logs {
		l := &logs[i]
		if i == 0 || l.Service != service {
			service = l.Service
			all = append(all, otlpLogs{Resource: otlpProcess{[]otlpAttribute{{"service.name", otlpValue{service}}}}})
		}
		one := otlpRecord{Time: strconv.FormatInt(l.Time, 10), Severity: int(l.Severity), Body: otlpValue{l.Body}, TraceID: ingest.WireTraceID(l.TraceID), SpanID: l.SpanID}
		if l.Exception != "" {
			one.Attributes = []otlpAttribute{{"exception.type", otlpValue{l.Exception}}}
		}
		scope := &all[len(all)-1].ScopeLogs[0]
		scope.Records = append(scope.Records, one)
	}
	return all
}

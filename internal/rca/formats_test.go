package rca_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

type object = map[string]any

// jaeger is traces as Jaeger's API gives them: microseconds, kinds as tags, the host as a tag of the process.
func jaeger(traces []trace.Trace) any {
	var data []any
	for _, t := range traces {
		processes, spans := object{}, []any{}
		for _, s := range t.Spans {
			processes[s.Host] = object{"serviceName": s.Service, "tags": []any{object{"key": "hostname", "type": "string", "value": s.Host}}}
			span := object{
				"traceID": t.ID, "spanID": s.ID, "operationName": s.Name, "processID": s.Host, "startTime": s.Start / 1000, "duration": (s.End - s.Start) / 1000,
				"tags": []any{object{"key": "span.kind", "type": "string", "value": s.Kind.String()}, object{"key": "error", "type": "bool", "value": s.Failed}},
			}
			if s.Parent != "" {
				span["references"] = []any{object{"refType": "CHILD_OF", "traceID": t.ID, "spanID": s.Parent}}
			}
			spans = append(spans, span)
		}
		data = append(data, object{"traceID": t.ID, "spans": spans, "processes": processes})
	}
	return object{"data": data}
}

// zipkin is traces as Zipkin's API gives them, with server spans that share the ID of their client's, as B3 has it.
func zipkin(traces []trace.Trace) any {
	all := []any{}
	for _, t := range traces {
		kinds, parents := map[string]trace.Kind{}, map[string]string{}
		for _, s := range t.Spans {
			kinds[s.ID], parents[s.ID] = s.Kind, s.Parent
		}
		shared := func(id string) string {
			if up := parents[id]; kinds[id] == trace.Server && kinds[up] == trace.Client {
				return up
			}
			return id
		}
		var spans []any
		for _, s := range t.Spans {
			span := object{
				"traceId": t.ID, "id": shared(s.ID), "name": s.Name, "timestamp": s.Start / 1000, "duration": max((s.End-s.Start)/1000, 1),
				"localEndpoint": object{"serviceName": s.Service}, "kind": map[trace.Kind]string{trace.Server: "SERVER", trace.Client: "CLIENT"}[s.Kind],
			}
			parent := s.Parent
			if shared(s.ID) != s.ID {
				span["shared"], parent = true, parents[s.Parent]
			}
			if parent != "" {
				span["parentId"] = shared(parent)
			}
			if s.Failed {
				span["tags"] = object{"error": "failed"}
			}
			spans = append(spans, span)
		}
		all = append(all, spans)
	}
	return all
}

func TestCulpritIsTheSameInEveryFormat(t *testing.T) {
	t.Parallel()
	for i, f := range []disorder{{kind: "cpu", factor: 4, chance: 0.2}, {kind: "delay", delay: 60, jitter: 0.1}, {kind: "error", chance: 0.5}} {
		w := newWorld(uint64(i)+70, wide, styles[0])
		f.replica, f.service = -1, 1
		suspect, met := w.traffic(1, 150, 1, true, &f)
		for ; met < 50; suspect, met = w.traffic(1, 150, 1, true, &f) {
			f.service++
		}
		baseline, _ := w.traffic(2, 150, 1, true, nil)
		want := w.services[f.service].name
		for name, encode := range map[string]func([]trace.Trace) any{"jaeger": jaeger, "zipkin": zipkin} {
			got := diagnose.Compare(through(t, encode(suspect)), through(t, encode(baseline)))
			if len(got.Culprits) == 0 || got.Culprits[0].Service != want {
				t.Errorf("%s as %s: got %+v %v, want %s", f.kind, name, got.Culprits, got.Notes, want)
			}
		}
	}
}

// through is v as it comes out of the ingest.
func through(t *testing.T, v any) []trace.Trace {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "traces.json")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := ingest.ReadPaths(t.Context(), []string{name}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return in.Traces
}

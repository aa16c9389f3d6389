package diagnose_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// corpus is where the conformance cases are, which are no part of the module.
const corpus = "../../../shared/corpora"

func readCorpus(t testing.TB, into any, path ...string) {
	t.Helper()
	name := filepath.Join(append([]string{corpus}, path...)...)
	data, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		t.Skipf("the corpus is not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func folders(t testing.TB, path ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(append([]string{corpus}, path...)...))
	if os.IsNotExist(err) {
		t.Skipf("the corpus is not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// jaegerFile is what of Jaeger's JSON the cases use. It is read here, and not by the ingest, so that the two can be
// wrong only one at a time.
type jaegerFile struct {
	Data []struct {
		TraceID string
		Spans   []struct {
			SpanID, OperationName, ProcessID string
			References                       []struct{ RefType, SpanID string }
			StartTime, Duration              int64
			Tags                             []jaegerTag
		}
		Processes map[string]struct {
			ServiceName string
			Tags        []jaegerTag
		}
	}
}

type jaegerTag struct {
	Key   string
	Value any
}

func (f jaegerFile) traces() []trace.Trace {
	var all []trace.Trace
	for _, d := range f.Data {
		t := trace.Trace{ID: d.TraceID}
		for _, s := range d.Spans {
			p := d.Processes[s.ProcessID]
			span := trace.Span{
				TraceID: d.TraceID, ID: s.SpanID, Service: p.ServiceName, Name: s.OperationName,
				Start: s.StartTime * 1000, End: (s.StartTime + s.Duration) * 1000,
			}
			if len(s.References) > 0 {
				span.Parent, span.FollowsFrom = s.References[0].SpanID, s.References[0].RefType == "FOLLOWS_FROM"
			}
			for _, tag := range s.Tags {
				if tag.Key == "span.kind" {
					span.Kind = trace.ParseKind(tag.Value.(string))
				}
			}
			for _, tag := range p.Tags {
				if tag.Key == "hostname" {
					span.Host = tag.Value.(string)
				}
			}
			t.Spans = append(t.Spans, span)
		}
		all = append(all, t)
	}
	return all
}

func readTrace(t testing.TB, path ...string) trace.Trace {
	t.Helper()
	var f jaegerFile
	readCorpus(t, &f, append(path, "trace.jaeger.json")...)
	traces := f.traces()
	if len(traces) != 1 {
		t.Fatalf("%d traces, want 1", len(traces))
	}
	return traces[0]
}

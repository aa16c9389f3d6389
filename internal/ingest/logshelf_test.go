package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// spansOfLogs is a message with a span of the trace that logRequest is about.
func spansOfLogs() []byte {
	return EncodeOTLP([]trace.Span{{TraceID: strings.Repeat("ab", 16), ID: "0102030405060708", Service: "orders", Name: "GET /orders", Start: 5, End: 9}})
}

// readFiles reads a folder of files, by name.
func readFiles(t *testing.T, l Limits, files map[string][]byte) (Input, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l.ReadPaths(t.Context(), []string{dir}, nil, nil)
}

// TestLogsOfFilesAreJoinedAsLiveOnes: in each format, in one file with the spans or in another one, before them or behind.
func TestLogsOfFilesAreJoinedAsLiveOnes(t *testing.T) {
	message, err := proto.Marshal(logRequest())
	if err != nil {
		t.Fatal(err)
	}
	var a all
	if _, refused := NewReceiver(a.sinks()).accept(otlpLogs, message, false); refused != nil {
		t.Fatal(refused)
	}
	live := NewAssembler(AssemblerConfig{})
	at := time.Unix(100, 0)
	live.AddLogs(at, a.logs...)
	live.Add(at, decodeOTLP(t, spansOfLogs())...)
	want := live.Window(at.Add(time.Minute), time.Hour)
	if len(want) != 1 || len(want[0].Logs) != 3 {
		t.Fatalf("%+v", want)
	}
	id := strings.Repeat("ab", 16)
	spanJSON := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}}]},"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"0102030405060708","name":"GET /orders","startTimeUnixNano":"5","endTimeUnixNano":"9"}]}]}]`, id)
	logs, snake := logJSON(t, false), logJSON(t, true)
	loud := bytes.ReplaceAll(logs, []byte(id), []byte(strings.ToUpper(id)))
	for name, files := range map[string]map[string][]byte{
		"protobuf":               {"logs.pb": message, "spans.pb": spansOfLogs()},
		"protobuf, logs behind":  {"spans.pb": spansOfLogs(), "z.pb": message},
		"one stream":             {"all.pb": prefixed(false, message, spansOfLogs())},
		"one message":            {"all.pb": append(bytes.Clone(message), spansOfLogs()...)},
		"compressed by itself":   {"all.pb": prefixed(true, spansOfLogs(), message)},
		"JSON in a stream":       {"all.pb": prefixed(false, spansOfLogs(), logs)},
		"JSON lines":             {"all.jsonl": []byte(oneLine(string(logs)) + "\n" + spanJSON + "}\n")},
		"one document":           {"all.json": append([]byte(spanJSON+","), bytes.TrimSpace(logs)[1:]...)},
		"snake case, compressed": {"logs.json": gzipped(t, snake), "spans.json": zstded(t, []byte(spanJSON+"}"))},
		"capitals":               {"logs.json": loud, "spans.json": []byte(spanJSON + "}")},
	} {
		in, err := readFiles(t, Limits{}, files)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(in.Traces) != 1 || len(in.Warnings) > 0 || in.Stats.Files != len(files) {
			t.Errorf("%s: %+v", name, in)
			continue
		}
		if d := cmp.Diff(want[0].Logs, in.Traces[0].Logs); d != "" {
			t.Errorf("%s: (-live +files)\n%s", name, d)
		}
		if c := (trace.LogCounts{Records: 6, Joined: 3, Minor: 2, Alone: 1}); in.Stats.Logs != c {
			t.Errorf("%s: %+v", name, in.Stats.Logs)
		}
	}
}

// TestLogsAloneAreNoTraces: beside traces a file of logs is no error, alone it is one that says why.
func TestLogsAloneAreNoTraces(t *testing.T) {
	_, err := readFiles(t, Limits{}, map[string][]byte{"logs.json": logJSON(t, false)})
	if !errors.Is(err, ErrNoSpans) || !strings.Contains(err.Error(), "6 log records, and no trace that they belong to") {
		t.Errorf("%v", err)
	}
	other := EncodeOTLP([]trace.Span{{TraceID: "cd", ID: "1", Service: "s", Name: "n", End: 1}})
	in, err := readFiles(t, Limits{}, map[string][]byte{"logs.json": logJSON(t, false), "spans.pb": other})
	if err != nil || in.Stats.Logs.Alone != 4 || !strings.Contains(strings.Join(in.Warnings, "\n"), "none of 4 log records") {
		t.Errorf("%+v, %v", in, err)
	}
	empty := []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"ab","severityNumber":17,"timeUnixNano":"-1"}]}]}]}`)
	if in, err = readFiles(t, Limits{}, map[string][]byte{"logs.json": empty, "spans.pb": other}); err != nil || in.Stats.Logs.Invalid != 1 || in.Stats.InvalidSpans != 0 {
		t.Errorf("%+v, %v", in, err)
	}
}

// TestTheKindOfAMessageShowsByItsRecords: whatever field comes first, a ResourceLogs is told from a ResourceSpans.
func TestTheKindOfAMessageShowsByItsRecords(t *testing.T) {
	resource := func(record []byte) []byte {
		var w writer
		w.message(1, func() { w.attribute(1, "service.name", "s") })
		w.message(2, func() {
			w.text(1, "scope")
			w.message(2, func() {}) // an empty record tells nothing
			w.message(2, func() { w.out = append(w.out, record...) })
		})
		return w.out
	}
	one := func(fill func(w *writer)) []byte {
		var w writer
		fill(&w)
		return resource(w.out)
	}
	for name, c := range map[string]struct {
		message []byte
		logs    bool
	}{
		"time":            {one(func(w *writer) { w.fixed(1, 7) }), true},
		"severity":        {one(func(w *writer) { w.text(3, "WARN"); w.number(2, 13) }), true},
		"body, seen":      {one(func(w *writer) { w.message(5, func() { w.text(1, "x") }); w.fixed(11, 7) }), true},
		"body, attribute": {one(func(w *writer) { w.message(5, func() {}); w.attribute(6, "k", "v") }), true},
		"body, trace":     {one(func(w *writer) { w.bytes(9, make([]byte, 16)); w.bytes(10, make([]byte, 8)) }), true},
		"trace ID":        {one(func(w *writer) { w.bytes(1, make([]byte, 16)) }), false},
		"span ID":         {one(func(w *writer) { w.text(3, "state"); w.bytes(2, make([]byte, 8)) }), false},
		"name, kind":      {one(func(w *writer) { w.text(5, "GET /"); w.number(6, 2) }), false},
		"name, end":       {one(func(w *writer) { w.text(5, "GET /"); w.fixed(8, 2) }), false},
		"nothing":         {resource(nil), false},
		"no protobuf":     {[]byte{0x12, 3, 0x12, 9, 9}, false},
	} {
		if holdsLogs(c.message) != c.logs {
			t.Errorf("%s: logs = %t", name, !c.logs)
		}
	}
}

// TestLogsAreBounded: 64 of a trace, and when all take too much, those of some traces, all of them; each is counted.
func TestLogsAreBounded(t *testing.T) {
	const traces, each = 500, 70
	var spans []trace.Span
	var list []trace.Trace
	for i := range traces {
		id := fmt.Sprintf("%032x", i+1)
		spans = append(spans, trace.Span{TraceID: id, ID: "0102030405060708", Service: "s", Name: "n", End: 10})
		one := trace.Trace{ID: id}
		for k := range each {
			one.Logs = append(one.Logs, trace.Log{TraceID: id, Time: int64(k + 1), Severity: trace.SeverityWarn, Service: "s", Body: strings.Repeat("x", 200)})
		}
		list = append(list, one)
	}
	stream := prefixed(false, EncodeOTLP(spans))
	for i := range list { // EncodeTraces hides them in a field of its own; here they stand as a LogsData
		var w writer
		w.logs(list[i].Logs)
		stream = append(stream, prefixed(false, w.out)...)
	}
	for _, limit := range []int64{0, 16 << 20} {
		in, err := readFiles(t, Limits{Bytes: limit}, map[string][]byte{"all.pb": stream})
		if err != nil {
			t.Fatal(err)
		}
		with := 0
		for _, one := range in.Traces {
			if n := len(one.Logs); n == maxLogs && one.Logs[0].Time == 1 {
				with++
			} else if n != 0 {
				t.Fatalf("%d records of a trace", n)
			}
		}
		c := in.Stats.Logs
		if c.Records != traces*each || c.Joined != with*maxLogs || c.Dropped != c.Records-c.Joined {
			t.Errorf("%+v, %d traces with logs", c, with)
		}
		if limit == 0 && with != traces || limit > 0 && (with < traces/20 || with > traces/2) {
			t.Errorf("limit %d: %d traces have logs", limit, with)
		}
		if len(in.Warnings) != 1 || limit > 0 && !strings.Contains(in.Warnings[0], "those of one trace in ") {
			t.Errorf("%q", in.Warnings)
		}
	}
}

// TestLogsOfTracesThatAreSampledOutGoWithThem.
func TestLogsOfTracesThatAreSampledOutGoWithThem(t *testing.T) {
	var stream []byte
	const traces = 2000
	for i := range traces {
		id := fmt.Sprintf("%032x", i+1)
		var w writer
		w.logs([]trace.Log{{TraceID: id, Time: 1, Severity: trace.SeverityError, Service: "s", Body: "failed"}})
		stream = append(stream, prefixed(false, EncodeOTLP([]trace.Span{{TraceID: id, ID: "01", Service: "s", Name: "n", End: int64(i)}}), w.out)...)
	}
	in, err := readFiles(t, Limits{Spans: 400}, map[string][]byte{"all.pb": stream})
	if err != nil {
		t.Fatal(err)
	}
	c := in.Stats.Logs
	if len(in.Traces) >= traces || c.Joined != len(in.Traces) || c.Dropped != traces-len(in.Traces) || c.Alone != 0 {
		t.Errorf("%d traces, %+v", len(in.Traces), c)
	}
}

package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

func TestBrokenInputIsNamedWithItsPlace(t *testing.T) {
	message := benchmarkMessage(3)
	zip := gzipped(t, []byte(otlpJSON))
	damaged := bytes.Clone(zip)
	damaged[len(damaged)-6] ^= 0xff // the checksum
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "the file is empty; " + accepted},
		"blank":            {[]byte(" \n\n"), "text that is no JSON; " + accepted},
		"csv":              {[]byte("trace_id,span_id\n1,2\n"), "text that is no JSON; " + accepted},
		"binary":           {[]byte("\x7fELF\x02\x01\x01\x00\x00"), "unknown binary data; " + accepted},
		"png":              {[]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "unknown binary data; " + accepted},
		"other JSON":       {[]byte(`{"metrics":[1,2,{"a":null}]}`), "no spans found; " + accepted},
		"no spans":         {[]byte(`{"resourceSpans":[]}`), "no spans found; " + accepted},
		"no IDs":           {[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{},{}]}]}]}`), "no spans found: 2 spans have no trace ID, no span ID or no readable times"},
		"cut JSON":         {[]byte(otlpJSON[:400]), "line 3, byte 400: the input ends inside a value: it is cut"},
		"cut line":         {[]byte(oneLine(otlpJSON)[:300]), "line 1, byte 300: the input ends inside a value: it is cut"},
		"bad JSON":         {[]byte("{\n\"resourceSpans\": [,]}"), "line 2, byte 20: want an object, found ','"},
		"no comma":         {[]byte("{\"a\": 1\n\"b\": 2}"), `line 2, byte 8: want ',' or '}', found '"'`},
		"no colon":         {[]byte(`{"a" 1}`), "line 1, byte 5: want ':' after a name, found '1'"},
		"no name":          {[]byte(`{"a":1,2}`), "line 1, byte 7: want a string, found '2'"},
		"bad escape":       {[]byte(`{"a\x":1}`), `line 1, byte 5: want an escape sequence, found "\\x"`},
		"bad literal":      {[]byte(`[nul]`), `line 1, byte 4: want true, false or null, found "nul"`},
		"raw line break":   {[]byte("[\"a\nb\"]"), `line 1, byte 3: want the end of a string, found '\n'`},
		"object for list":  {[]byte(`{"resourceSpans":{}}`), "line 1, byte 17: want an array, found '{'"},
		"late zero":        {[]byte(`{"a":` + strings.Repeat(" ", 5000) + "\x00"), "line 1, byte 5005: a zero byte is not allowed"},
		"deep":             {[]byte(strings.Repeat("[", 500)), "line 1, byte 128: values are nested deeper than 128"},
		"cut gzip":         {zip[:len(zip)-20], "the gzip data is cut"},
		"damaged gzip":     {damaged, "the gzip data is damaged: gzip: invalid checksum"},
		"cut zstd":         {zstded(t, []byte(otlpJSON))[:150], "the zstd data is cut"},
		"cut protobuf":     {message[:len(message)-10], ": the input ends inside a message: it is cut"},
		"cut stream":       {prefixed(false, message, message)[:len(message)+20], "OTLP protobuf: byte "},
		"field 0":          {append(bytes.Clone(message), 0, 1), "field number 0 is not allowed"},
		"group":            {append(bytes.Clone(message), 0x13, 1), "wire type 3 is unknown"},
		"long number":      {append(bytes.Clone(message), bytes.Repeat([]byte{0xff}, 20)...), "a number is longer than 63 bits"},
		"long JSON number": {[]byte("[" + strings.Repeat("1", 2000) + "]"), "line 1, byte 1025: want a number"},
		"cut escape":       {[]byte(`["\u12`), "the input ends inside a value"},
		"bad hex":          {[]byte(`["\u12x4"]`), `want four hex digits after \u, found 'x'`},
		"layers":           {gzipped(t, gzipped(t, gzipped(t, gzipped(t, []byte("x"))))), "compressed more than 3 times"},
	} {
		_, err := readBytes(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "ingest: standard input: ") {
			t.Errorf("%s: got %v\nwant %s", name, err, c.want)
		}
	}
}

func TestBadLinesAreLeftOutAndCounted(t *testing.T) {
	good := oneLine(otlpJSON)
	data := strings.Join([]string{
		good, `{"resourceSpans":[{"oops"`, strings.ReplaceAll(good, "t1", "t2"), "this is a line of a log", strings.ReplaceAll(good, "t1", "t3"),
		"x", "y", good[:len(good)/2],
	}, "\n")
	in, err := readBytes([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if in.Stats.Traces != 3 || in.Stats.BadLines != 5 {
		t.Errorf("%+v", in.Stats)
	}
	if len(in.Warnings) != 4 || !strings.Contains(in.Warnings[0], "bad line left out: line 2") || !strings.Contains(in.Warnings[1], "bad line left out: line 4") || !strings.Contains(in.Warnings[3], "5 bad lines left out in all") {
		t.Errorf("%q", in.Warnings)
	}
}

func TestFoldersWarnWhereNamedFilesFail(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	readme := write("README.md", "# Traces\n")
	write("deep/er/b.bin", otlpJSON)
	write("a.txt", strings.ReplaceAll(jaegerTraceJSON, "t1", "t2"))
	write("empty", "")
	write("z.json", strings.ReplaceAll(otlpJSON, "t1", "t3")+`{"resourceSpans":[`)
	var last Progress
	in, err := ReadPaths(context.Background(), []string{dir}, nil, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	if in.Stats.Spans != 6 || in.Stats.Files != 3 || len(in.Warnings) != 3 {
		t.Errorf("%+v %q", in.Stats, in.Warnings)
	}
	for i, want := range []string{"README.md: left out: text that is no JSON", "empty: left out: the file is empty", "z.json: bad line left out: line 3"} {
		if i < len(in.Warnings) && !strings.Contains(in.Warnings[i], want) {
			t.Errorf("warning %q, want %q", in.Warnings[i], want)
		}
	}
	if last.Files != 5 || last.TotalFiles != 5 || last.Bytes != last.TotalBytes || last.Spans != 6 {
		t.Errorf("progress ends with %+v", last)
	}
	if _, err := ReadPaths(context.Background(), []string{dir, readme}, nil, nil); err == nil || !strings.Contains(err.Error(), "README.md: text that is no JSON") {
		t.Errorf("named: %v", err)
	}
	if _, err := ReadPaths(context.Background(), []string{filepath.Join(dir, "nothing")}, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := ReadPaths(context.Background(), []string{filepath.Dir(filepath.Join(dir, "empty"))}, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNothingFoundIsAnError(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadPaths(context.Background(), []string{dir}, nil, nil); !errors.Is(err, ErrNoSpans) {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.csv"), []byte("a,b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPaths(context.Background(), []string{dir}, nil, nil); !errors.Is(err, ErrNoSpans) || !strings.Contains(err.Error(), "x.csv: left out") {
		t.Errorf("folder without traces: %v", err)
	}
	if _, err := ReadPaths(context.Background(), nil, nil, nil); !errors.Is(err, ErrNoSpans) {
		t.Errorf("no paths: %v", err)
	}
	if _, err := ReadPaths(context.Background(), []string{"-"}, nil, nil); err == nil {
		t.Error("no standard input: no error")
	}
}

func TestCancelledReadingStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ReadPaths(ctx, []string{"-"}, strings.NewReader(otlpJSON), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAnInputThatDoesNotFitIsSampledByTrace(t *testing.T) {
	var jsons, wire []byte
	for i := range 3000 {
		jsons = append(jsons, strings.ReplaceAll(oneLine(otlpJSON), "t1", fmt.Sprint("t", i))+"\n"...)
		s := span(fmt.Sprintf("%032x", i+1), 1, 5)
		s.ID = "01"
		child := s
		child.ID, child.Parent = "02", "01"
		wire = append(wire, prefixed(false, EncodeOTLP([]trace.Span{s, child}))...)
	}
	for name, data := range map[string][]byte{"JSON": jsons, "protobuf": wire} {
		for limits, most := range map[Limits]int{{Spans: 400}: 400, {Bytes: 300_000}: 1200} {
			in, err := limits.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
			if err != nil {
				t.Fatal(err)
			}
			weight := 0.0
			for _, tr := range in.Traces {
				weight += weightOf(tr)
				if len(tr.Spans) != 2 {
					t.Errorf("%s: a trace of %d spans", name, len(tr.Spans))
				}
			}
			s := in.Stats
			if s.Spans > most || s.Spans < most/5 || s.Spans+s.DroppedSpans != 6000 || s.Traces+s.SampledTraces != 3000 || weight < 2000 || weight > 4000 || len(in.Warnings) != 1 {
				t.Errorf("%s, %+v: %+v, weight %v, %q", name, limits, s, weight, in.Warnings)
			}
		}
	}
}

func TestOneTraceThatDoesNotFitIsCut(t *testing.T) {
	var data []byte
	for i := range 20_000 {
		s := span("01", i+1, 5)
		s.ID = fmt.Sprintf("%016x", i+1)
		data = append(data, prefixed(true, EncodeOTLP([]trace.Span{s}))...)
	}
	in, err := Limits{Spans: 1000}.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.Stats.Spans != 250 || in.Stats.DroppedSpans != 19_750 || in.Stats.Traces != 1 || !strings.Contains(in.Warnings[0], "19750 spans of traces that are too long") {
		t.Errorf("%+v %q", in.Stats, in.Warnings)
	}
}

func TestMessagesBeyondTheLimitAreRefused(t *testing.T) {
	message := benchmarkMessage(10)
	limits := Limits{MessageBytes: int64(len(message) - 1)}
	for _, data := range [][]byte{prefixed(false, benchmarkMessage(1), message), prefixed(true, benchmarkMessage(1), message)} {
		_, err := limits.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
		if err == nil || !strings.Contains(err.Error(), "bytes is longer than the limit of") {
			t.Errorf("got %v", err)
		}
	}
}

// endless is a stream of size bytes, all alike, after a start.
type endless struct {
	start string
	size  int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.start != "" {
		n := copy(p, e.start)
		e.start = e.start[n:]
		return n, nil
	}
	if e.size <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.size)
	for i := range p[:n] {
		p[i] = 'a'
	}
	e.size -= n
	return int(n), nil
}

func TestALongLineIsNotHeld(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, start := range []string{`{"resourceSpans":[{"schemaUrl":"`, `{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"`, `{"x":"\u0041`} {
		_, err := ReadPaths(context.Background(), []string{"-"}, &endless{start, 8 << 20}, nil)
		if err == nil || !strings.Contains(err.Error(), "it is cut") {
			t.Errorf("got %v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes allocated for lines of 8 MiB", used)
	}
}

func TestADeepTraceIsReadWhole(t *testing.T) {
	spans := make([]trace.Span, 72_000)
	for i := range spans {
		spans[i] = trace.Span{TraceID: "01", ID: fmt.Sprintf("%016x", i+1), Service: "s", Name: "n", Start: int64(i), End: 1 << 20}
		if i > 0 {
			spans[i].Parent = spans[i-1].ID
		}
	}
	var data []byte
	for part := range slices.Chunk(spans, 500) {
		data = append(data, prefixed(false, EncodeOTLP(part))...)
	}
	in, err := readBytes(data)
	if err != nil || len(in.Traces) != 1 || len(in.Traces[0].Spans) != len(spans) || len(in.Warnings) != 0 {
		t.Errorf("%+v %v", in.Stats, err)
	}
}

// What is behind a fault is not read, what was before it is kept, whichever worker met it.
func TestTheOrderOfFaultsDoesNotDependOnTheWorkers(t *testing.T) {
	dir := t.TempDir()
	good := benchmarkMessage(500)
	bad := append(bytes.Clone(good), 0x0b)
	data := prefixed(false, good, good, good, bad, good, bad)
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("a.bin: left out: OTLP protobuf: byte %d: a field has a wire type that is not in use; the 2000 spans before that are kept", 3*(len(good)+4))
	for workers := range 5 {
		in, err := Limits{Workers: workers}.ReadPaths(t.Context(), []string{dir}, nil, nil)
		if err != nil || in.Stats.Spans != 2000 || len(in.Warnings) != 1 || !strings.HasSuffix(in.Warnings[0], want) {
			t.Errorf("%d workers: %+v %q %v", workers, in.Stats, in.Warnings, err)
		}
	}
}

package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// halves compresses data as two members one after the other.
func halves(compress func(testing.TB, []byte) []byte) func(testing.TB, []byte) []byte {
	return func(t testing.TB, data []byte) []byte {
		n := len(data) / 2
		return append(compress(t, data[:n]), compress(t, data[n:])...)
	}
}

func plain(_ testing.TB, data []byte) []byte { return data }

// readBytes reads data from standard input.
func readBytes(data []byte) (Input, error) {
	return ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(data), nil)
}

func spansOf(in Input) []trace.Span {
	var all []trace.Span
	for _, t := range in.Traces {
		all = append(all, t.Spans...)
	}
	return all
}

const jaegerTraceJSON = `{"traceID":"t1","spans":[
	{"traceID":"t1","spanID":"a","operationName":"root","references":[],"startTime":1000,"duration":500,"tags":[{"key":"span.kind","type":"string","value":"server"}],"processID":"p1"},
	{"traceID":"t1","spanID":"b","operationName":"child","references":[{"refType":"CHILD_OF","traceID":"t1","spanID":"a"}],"startTime":1100,"duration":100,"tags":[{"key":"error","type":"bool","value":true}],"processID":"p1"}],
	"processes":{"p1":{"serviceName":"svc","tags":[{"key":"hostname","type":"string","value":"h1"},{"key":"ip","type":"string","value":"10.0.0.1"}]}}}`

const zipkinJSON = `[{"traceId":"t1","id":"a","name":"root","kind":"SERVER","timestamp":1000,"duration":500,"localEndpoint":{"serviceName":"svc","ipv4":"10.0.0.1"}},
	{"traceId":"t1","parentId":"a","id":"b","name":"child","timestamp":1100,"duration":100,"localEndpoint":{"serviceName":"svc","ipv4":"10.0.0.1"},"tags":{"error":"timeout"}}]`

const otlpJSON = `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"svc"}},{"key":"host.name","value":{"stringValue":"h1"}}]},"scopeSpans":[{"spans":[
	{"traceId":"t1","spanId":"a","name":"root","kind":2,"startTimeUnixNano":"1000000","endTimeUnixNano":"1500000"},
	{"traceId":"t1","spanId":"b","parentSpanId":"a","name":"child","startTimeUnixNano":"1100000","endTimeUnixNano":"1200000","status":{"code":2}}]}]}]}`

func oneLine(s string) string { return strings.NewReplacer("\n", "", "\t", "").Replace(s) }

// prefixed puts a length before each message.
func prefixed(varint bool, messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		if varint {
			b = binary.AppendUvarint(b, uint64(len(m)))
		} else {
			b = binary.BigEndian.AppendUint32(b, uint32(len(m)))
		}
		b = append(b, m...)
	}
	return b
}

func TestEveryFormatIsRecognisedInEveryCompression(t *testing.T) {
	single, err := proto.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	other := EncodeOTLP([]trace.Span{{TraceID: "01", ID: "02", Start: 1, End: 2}})
	formats := map[string]struct {
		data  []byte
		spans int
	}{
		"OTLP JSON document":             {[]byte(otlpJSON), 2},
		"OTLP JSON with blanks":          {[]byte("\xef\xbb\xbf \n" + otlpJSON + "\n\n"), 2},
		"OTLP JSON lines":                {[]byte(oneLine(otlpJSON) + "\n" + oneLine(strings.ReplaceAll(otlpJSON, "t1", "t2")) + "\n"), 4},
		"OTLP JSON lines with CR":        {[]byte(oneLine(otlpJSON) + "\r\n\r\n" + oneLine(strings.ReplaceAll(otlpJSON, "t1", "t2"))), 4},
		"Tempo batches":                  {[]byte(strings.Replace(otlpJSON, "resourceSpans", "batches", 1)), 2},
		"Tempo trace":                    {[]byte(`{"trace":` + otlpJSON + `}`), 2},
		"Jaeger API v3":                  {[]byte(`{"result":` + otlpJSON + `}`), 2},
		"Jaeger answer":                  {[]byte(`{"data":[` + jaegerTraceJSON + `],"total":0,"errors":null}`), 2},
		"Jaeger trace":                   {[]byte(jaegerTraceJSON), 2},
		"Jaeger array":                   {[]byte(`[` + jaegerTraceJSON + `,` + strings.ReplaceAll(jaegerTraceJSON, "t1", "t2") + `]`), 4},
		"Zipkin spans":                   {[]byte(zipkinJSON), 2},
		"Zipkin traces":                  {[]byte(`[` + zipkinJSON + `,` + strings.ReplaceAll(zipkinJSON, "t1", "t2") + `]`), 4},
		"Zipkin lines":                   {[]byte(oneLine(strings.ReplaceAll(strings.Trim(zipkinJSON, "[]"), "},\n", "}") + "\n")), 2},
		"OTLP protobuf":                  {single, 2},
		"OTLP protobuf joined":           {slices.Concat(single, other), 3},
		"OTLP protobuf, other fields":    {slices.Concat(single, []byte("\x10\x05\x19abcdefgh\x25abcd\x2a\x02xy"), other), 3},
		"OTLP protobuf stream":           {prefixed(false, single, other, nil), 3},
		"OTLP protobuf varint stream":    {prefixed(true, single, other, nil), 3},
		"OTLP protobuf small stream":     {prefixed(true, other, single), 3},
		"Collector compressed stream":    {prefixed(false, zstded(t, single), zstded(t, other)), 3},
		"Collector compressed JSON":      {prefixed(false, zstded(t, []byte(otlpJSON))), 2},
		"Collector length-prefixed JSON": {prefixed(false, other, []byte(otlpJSON)), 3},
	}
	compressions := map[string]func(testing.TB, []byte) []byte{
		"plain": plain, "gzip": gzipped, "zstd": zstded, "gzip members": halves(gzipped), "zstd frames": halves(zstded),
	}
	for name, f := range formats {
		for how, compress := range compressions {
			in, err := readBytes(compress(t, f.data))
			if err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
				continue
			}
			if in.Stats.Spans != f.spans || in.Stats.Files != 1 || len(in.Warnings) != 0 {
				t.Errorf("%s, %s: %+v %q", name, how, in.Stats, in.Warnings)
			}
		}
	}
}

func TestTheSameTraceIsTheSameInEveryFormat(t *testing.T) {
	want := []trace.Span{
		{TraceID: "t1", ID: "a", Kind: trace.Server, Service: "svc", Name: "root", Start: 1_000_000, End: 1_500_000, Host: "h1"},
		{TraceID: "t1", ID: "b", Parent: "a", Service: "svc", Name: "child", Start: 1_100_000, End: 1_200_000, Host: "h1", Failed: true},
	}
	for name, data := range map[string]string{"otlp": otlpJSON, "jaeger": jaegerTraceJSON, "zipkin": zipkinJSON} {
		in, err := readBytes([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		got := spansOf(in)
		for i := range got {
			got[i].Attributes = nil
			if name == "zipkin" { // it knows no host but the address
				if got[i].Host != "10.0.0.1" {
					t.Errorf("host %q", got[i].Host)
				}
				got[i].Host = "h1"
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// What the fixtures hold that are no traces in a format we take.
var noTraces = map[string]string{
	"large.json":           "no spans found",
	"small.json":           "no spans found",
	"thrift_batch_01.json": "no spans found: 1 span has no trace ID",
	"thrift_batch_02.json": "no spans found: 2 spans have no trace ID",
}

func TestEveryFixtureIsReadOrRefusedClearly(t *testing.T) {
	dir := corpus(t, "fixtures")
	read := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".md" {
			return err
		}
		in, err := ReadPaths(context.Background(), []string{path}, nil, nil)
		if want, refused := noTraces[filepath.Base(path)]; refused {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", path, err, want)
			}
			return nil
		}
		if err != nil {
			t.Error(err)
			return nil
		}
		read++
		if in.Stats.InvalidSpans > 0 && !strings.Contains(path, "smartthings") {
			t.Errorf("%s: %+v", path, in.Stats)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 60 {
		t.Errorf("only %d fixtures were read", read)
	}
}

func TestOTLPAndItsJaegerTranslationAgree(t *testing.T) {
	dir := corpus(t, "fixtures/jaeger-ui/utils/fixtures")
	for otlp, jaeger := range map[string]string{
		"otlp2jaeger-in.json":                "otlp2jaeger-out.json",
		"otlp2jaeger-multi-in-combined.json": "oltp2jaeger-multi-out.json",
		"otlp2jaeger-multi-in.json.txt":      "oltp2jaeger-multi-out.json",
	} {
		read := func(name string) map[string]trace.Span {
			in, err := ReadPaths(context.Background(), []string{filepath.Join(dir, name)}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			byID := make(map[string]trace.Span)
			for _, s := range spansOf(in) {
				s.Attributes = slices.DeleteFunc(slices.Clone(s.Attributes), func(a trace.Attribute) bool { // what the translation adds or takes away
					return strings.HasPrefix(a.Key, "otel.") || a.Key == "span.kind" || a.Key == "service.name" || a.Key == "internal.span.format"
				})
				slices.SortFunc(s.Attributes, func(a, b trace.Attribute) int { return strings.Compare(a.Key, b.Key) })
				s.Start, s.End = s.Start/1000*1000, s.Start/1000*1000+(s.End-s.Start)/1000*1000
				byID[s.ID] = s
			}
			return byID
		}
		if d := cmp.Diff(read(otlp), read(jaeger)); d != "" {
			t.Errorf("%s: %s", otlp, d)
		}
	}
}

func TestJaegerParentIsChosenAmongReferences(t *testing.T) {
	const child, follows, elsewhere = `{"refType":"CHILD_OF","traceID":"t","spanID":"c"}`, `{"refType":"FOLLOWS_FROM","traceID":"t","spanID":"f"}`, `{"refType":"CHILD_OF","traceID":"u","spanID":"x"}`
	for _, c := range []struct {
		member, parent string
		follows        bool
	}{
		{`"references":[` + child + `]`, "c", false},
		{`"references":[` + follows + `,` + child + `]`, "c", false},
		{`"references":[` + follows + `]`, "f", true},
		{`"references":[` + elsewhere + `]`, "", false},
		{`"references":[` + elsewhere + `,` + follows + `]`, "f", true},
		{`"references":null,"parentSpanID":"old"`, "old", false},
		{`"parentSpanID":"0"`, "", false},
	} {
		in, err := readBytes([]byte(`{"spans":[{` + c.member + `,"spanID":"s","startTime":1,"duration":1,"traceID":"t"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if s := in.Traces[0].Spans[0]; s.Parent != c.parent || s.FollowsFrom != c.follows || s.Service != "unknown" {
			t.Errorf("%s: got %+v", c.member, s)
		}
	}
}

func TestHostIsTheBestIdentityKnown(t *testing.T) {
	tags := ""
	for i := len(hostKeys) - 1; i >= 0; i-- {
		tags += `{"key":"` + hostKeys[i] + `","value":"` + hostKeys[i] + `!"},`
		in, err := readBytes([]byte(`{"spans":[{"traceID":"t","spanID":"s","startTime":1,"duration":1,"processID":"p"}],"processes":{"p":{"serviceName":"x","tags":[` + strings.TrimSuffix(tags, ",") + `]}}}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := in.Traces[0].Spans[0].Host; got != hostKeys[i]+"!" {
			t.Errorf("host %q, want that of %s", got, hostKeys[i])
		}
	}
}

func TestZipkinSharedSpansBecomeTwo(t *testing.T) {
	in, err := readBytes([]byte(`[
		{"traceId":"t","id":"x","kind":"CLIENT","name":"call","timestamp":1000,"duration":100,"localEndpoint":{"serviceName":"front","ipv4":"1.1.1.1"}},
		{"traceId":"t","id":"x","kind":"SERVER","name":"serve","shared":true,"timestamp":1020,"duration":60,"localEndpoint":{"serviceName":"back","ipv4":"2.2.2.2"}},
		{"traceId":"t","id":"db","parentId":"x","kind":"CLIENT","name":"query","timestamp":1030,"duration":10,"localEndpoint":{"serviceName":"back","ipv4":"2.2.2.2"}},
		{"traceId":"t","id":"log","parentId":"x","name":"log","timestamp":1090,"duration":1,"localEndpoint":{"serviceName":"front","ipv4":"1.1.1.1"}},
		{"traceId":"t","id":"deep","parentId":"x","kind":"SERVER","name":"third","shared":true,"timestamp":1050,"duration":1,"localEndpoint":{"serviceName":"third"}},
		{"traceId":"t","id":"x","shared":true,"localEndpoint":{"serviceName":"back","ipv4":"2.2.2.2"},"tags":{"late":"yes","error":""}},
		{"traceId":"t","id":"lost","parentId":"x","localEndpoint":{"serviceName":"back"}}]`))
	if err != nil {
		t.Fatal(err)
	}
	parents := map[string]string{}
	for _, s := range in.Traces[0].Spans {
		parents[s.ID] = s.Parent
		if s.ID == "x/server" && (s.Attr("late") != "yes" || !s.Failed || s.Service != "back") {
			t.Errorf("the server half is %+v", s)
		}
	}
	want := map[string]string{"x": "", "x/server": "x", "db": "x/server", "log": "x", "deep": "x/server"}
	if d := cmp.Diff(want, parents); d != "" {
		t.Error(d)
	}
	if in.Stats.InvalidSpans != 1 { // lost has no time and nothing to complete
		t.Errorf("%+v", in.Stats)
	}
}

func TestZipkinSharedSpanAloneKeepsItsID(t *testing.T) {
	in, err := readBytes([]byte(`[{"traceId":"t","id":"x","parentId":"p","kind":"SERVER","shared":true,"timestamp":1,"duration":1,"remoteEndpoint":{"serviceName":"db","ipv6":"::1","port":5432}}]`))
	if err != nil {
		t.Fatal(err)
	}
	s := in.Traces[0].Spans[0]
	if s.ID != "x" || s.Parent != "p" || s.Service != "unknown" || s.Attr("peer.service") != "db" || s.Attr("net.peer.ip") != "::1" || s.Attr("net.peer.port") != "5432" {
		t.Errorf("got %+v", s)
	}
}

func TestZipkinSpansOfOneTraceAreNoOrphans(t *testing.T) {
	path := corpus(t, "fixtures/zipkin/smartthings-mobile-web-install.json")
	in, err := ReadPaths(context.Background(), []string{path}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %q", in.Stats, in.Warnings)
	ids, servers := map[string]int{}, 0
	for _, s := range in.Traces[0].Spans {
		ids[s.ID]++
		if strings.Contains(s.ID, "/server") {
			servers++
		}
	}
	twice := 0
	for _, n := range ids {
		twice += n - 1
	}
	if twice > 0 || servers < 100 {
		t.Errorf("%d IDs are there twice, %d server halves", twice, servers)
	}
}

func TestDuplicatesAreLeftToTheDiagnosis(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.json", "b.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(otlpJSON), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in, err := ReadPaths(context.Background(), []string{dir}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.Stats.Spans != 4 || in.Stats.Traces != 1 || in.Stats.Files != 2 {
		t.Errorf("%+v", in.Stats)
	}
}

// The fifth byte of a small message is a field tag, as after a length prefix.
func TestSmallMessageIsNoLengthPrefix(t *testing.T) {
	message, err := hex.DecodeString("0a4f0a180a160a0c736572766963652e6e616d6512060a0473686f70123312310a1001010101010101010101010101010101" +
		"120801010101010101012a01783900002a36fe9c97174100e11f3cfe9c9717")
	if err != nil {
		t.Fatal(err)
	}
	in, err := ReadPaths(t.Context(), []string{"-"}, bytes.NewReader(message), nil)
	if err != nil || in.Stats.Spans != 1 || in.Traces[0].Spans[0].Service != "shop" {
		t.Errorf("read %+v, %v", in, err)
	}
}

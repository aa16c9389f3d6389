package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, c store.Config) *store.Store {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rollups(t *testing.T, s *store.Store, q store.Query) (list []store.Rollup) {
	t.Helper()
	if q.To.IsZero() {
		q.To = noon.Add(10 * 365 * 24 * time.Hour)
	}
	ok(t, s.Each(t.Context(), q, func(r store.Rollup) bool {
		list = append(list, r)
		return true
	}))
	return list
}

func TestRollupsOfOneStepAddUp(t *testing.T) {
	s := open(t, store.Config{})
	orders, stock := store.Series{Route: "orders"}, store.Series{Route: "orders", Segment: "database", Endpoint: "stock"}
	ok(t, s.Add(t.Context(),
		store.Rollup{Series: orders, From: noon.Add(time.Second), Calls: 2, Failed: 1, Latency: stats.Of(time.Millisecond, time.Second)},
		store.Rollup{Series: orders, From: noon.Add(9 * time.Second), Calls: 1, Latency: stats.Of(time.Second)},
		store.Rollup{Series: orders, From: noon.Add(10 * time.Second), Calls: 1, Latency: stats.Of(time.Second)},
		store.Rollup{Series: stock, From: noon, Calls: 4},
	))
	list := rollups(t, s, store.Query{Series: orders})
	var got []string
	for _, r := range list {
		got = append(got, fmt.Sprintln(r.Segment, r.From.Sub(noon), r.Width, r.Calls, r.Failed, r.Latency.Count(), r.Latency.Quantile(0.5).Round(100*time.Millisecond)))
	}
	want := " 0s 10s 3 1 3 1s\n database 0s 10s 4 0 0 0s\n 10s 10s 1 0 1 1s\n"
	if strings.Join(got, "") != strings.ReplaceAll(want, "\n database", "\ndatabase") {
		t.Errorf("got\n%swant\n%s", strings.Join(got, ""), want)
	}
	if only := rollups(t, s, store.Query{Series: stock}); len(only) != 1 || only[0].Series != stock {
		t.Errorf("the database alone: %+v", only)
	}
	if late := rollups(t, s, store.Query{From: noon.Add(10 * time.Second)}); len(late) != 1 {
		t.Errorf("from the second step on: %+v", late)
	}
}

func TestOldRollupsGetCoarserAndLoseNothing(t *testing.T) {
	s := open(t, store.Config{})
	series := store.Series{Route: "orders"}
	var batch []store.Rollup
	for i := range 1000 { // 2 h 46 min 40 s
		batch = append(batch, store.Rollup{Series: series, From: noon.Add(time.Duration(i) * 10 * time.Second), Calls: 1, Latency: stats.Of(time.Duration(i) * time.Millisecond)})
	}
	ok(t, s.Add(t.Context(), batch...))
	for _, tt := range []struct {
		after time.Duration
		width time.Duration
		rows  int
	}{
		{0, 10 * time.Second, 1000},
		{24 * time.Hour, time.Minute, 167},
		{8 * 24 * time.Hour, 10 * time.Minute, 17},
		{100 * 24 * time.Hour, time.Hour, 3},
	} {
		ok(t, s.Tidy(t.Context(), noon.Add(tt.after)))
		ok(t, s.Tidy(t.Context(), noon.Add(tt.after))) // a second time changes nothing
		list := rollups(t, s, store.Query{})
		var calls uint64
		var all stats.Snapshot
		for _, r := range list {
			if r.Width != tt.width {
				t.Errorf("after %s: a width of %s, want %s", tt.after, r.Width, tt.width)
			}
			calls, all = calls+r.Calls, all.Merge(r.Latency)
		}
		if len(list) != tt.rows || calls != 1000 || all.Count() != 1000 || all.Quantile(0.99).Round(20*time.Millisecond) != 980*time.Millisecond {
			t.Errorf("after %s: %d rows with %d calls, p99 %s", tt.after, len(list), calls, all.Quantile(0.99))
		}
	}
	ok(t, s.Tidy(t.Context(), noon.Add(401*24*time.Hour)))
	if list := rollups(t, s, store.Query{}); len(list) != 0 {
		t.Errorf("after 401 days: %d rows", len(list))
	}
}

func TestTooManySeriesAreCountedTogether(t *testing.T) {
	s := open(t, store.Config{MaxSeries: 3})
	for i := range 10 {
		ok(t, s.Add(t.Context(), store.Rollup{Series: store.Series{Route: strconv.Itoa(i)}, From: noon, Calls: 1}))
	}
	list := rollups(t, s, store.Query{})
	if last := list[len(list)-1]; len(list) != 4 || last.Route != store.Lumped || last.Calls != 7 || s.Dropped().Series != 7 {
		t.Errorf("%+v, %+v", list, s.Dropped())
	}
}

// traceOf has a root of the given length and one child.
func traceOf(id int, at time.Time, took time.Duration) trace.Trace {
	name := fmt.Sprintf("%032x", id)
	root := trace.Span{
		TraceID: name, ID: "00000000000000aa", Kind: trace.Server, Service: "shop", Name: "checkout", Start: at.UnixNano(), End: at.Add(took).UnixNano(),
		Attributes: []trace.Attribute{{Key: "service.name", Value: "shop"}},
	}
	child := root
	child.ID, child.Parent, child.Kind, child.Name, child.Failed = "00000000000000bb", root.ID, trace.Client, "pay", true
	child.Attributes = []trace.Attribute{{Key: "server.address", Value: "bank"}, {Key: "service.name", Value: "shop"}}
	return trace.Trace{ID: name, Weight: 4, Spans: []trace.Span{root, child}}
}

func TestKeptTracesComeBackWhole(t *testing.T) {
	s := open(t, store.Config{})
	want := traceOf(1, noon, time.Second)
	want.Spans[1].Link = &trace.Link{TraceID: strings.Repeat("2", 32), SpanID: strings.Repeat("3", 16)}
	want.Logs = []trace.Log{
		{TraceID: want.ID, SpanID: want.Spans[0].ID, Time: noon.UnixNano(), Severity: trace.SeverityError, Service: "shop", Body: "no stock", Exception: "OutOfStock"},
		{TraceID: want.ID, Time: noon.UnixNano() + 1, Severity: trace.SeverityWarn, Service: "stock", Body: "é"},
	}
	ok(t, s.Keep(t.Context(), noon,
		store.Kept{Route: "checkout", Trace: want, Failed: true},
		store.Kept{Route: "checkout", Trace: traceOf(2, noon.Add(time.Minute), 3*time.Second)},
		store.Kept{Route: "browse", Trace: traceOf(3, noon.Add(2*time.Minute), 2*time.Second)}))
	ok(t, s.Keep(t.Context(), noon, store.Kept{Route: "checkout", Trace: traceOf(4, noon.Add(3*time.Minute), time.Millisecond)}))
	found, err := s.Traces(t.Context(), store.TraceQuery{ID: want.ID})
	ok(t, err)
	for i := range found[0].Spans {
		found[0].Spans[i].Unshare()
	}
	if !reflect.DeepEqual(found, []trace.Trace{want}) {
		t.Errorf("got\n%+v\nwant\n%+v", found, want)
	}
	for _, tt := range []struct {
		name string
		q    store.TraceQuery
		want string
	}{
		{"newest first", store.TraceQuery{}, "4 3 2 1"},
		{"slowest first", store.TraceQuery{Slowest: true}, "2 3 1 4"},
		{"a route", store.TraceQuery{Route: "checkout"}, "4 2 1"},
		{"the slow ones", store.TraceQuery{Longer: time.Second}, "3 2"},
		{"the failed ones", store.TraceQuery{Failed: true}, "1"},
		{"a time", store.TraceQuery{From: noon.Add(time.Minute), To: noon.Add(3 * time.Minute)}, "3 2"},
		{"no more than asked", store.TraceQuery{Most: 2}, "4 3"},
		{"none", store.TraceQuery{Route: "none"}, ""},
	} {
		found, err := s.Traces(t.Context(), tt.q)
		ok(t, err)
		var got []string
		for _, f := range found {
			got = append(got, strings.TrimLeft(f.ID, "0"))
			if len(f.Spans) != 2 || f.Weight != 4 {
				t.Errorf("%s: %+v", tt.name, f)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestKeptTracesGoByAgeAndBySize(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Config{Dir: dir, TracesFor: time.Hour})
	for i := range 4 {
		at := noon.Add(time.Duration(i) * 30 * time.Minute)
		ok(t, s.Keep(t.Context(), at, store.Kept{Route: "r", Trace: traceOf(i+1, at, time.Second)}))
	}
	ok(t, s.Tidy(t.Context(), noon.Add(95*time.Minute)))
	if found, err := s.Traces(t.Context(), store.TraceQuery{}); err != nil || len(found) != 2 {
		t.Errorf("%d traces, %v", len(found), err)
	}
	if files, _ := os.ReadDir(filepath.Join(dir, "traces")); len(files) != 2 {
		t.Errorf("%d files", len(files))
	}
	ok(t, s.Close())

	s = open(t, store.Config{Dir: dir, TraceBytes: 1 << 20})
	for i := range 3 { // that do not pack well
		big := traceOf(10+i, noon, time.Second)
		var noise strings.Builder
		for n := range 60_000 {
			fmt.Fprintf(&noise, "%x,", uint64(n)*0x9e3779b97f4a7c15)
		}
		big.Spans[0].Attributes = []trace.Attribute{{Key: "noise", Value: noise.String()}}
		ok(t, s.Keep(t.Context(), noon, store.Kept{Route: "big", Trace: big}))
	}
	ok(t, s.Tidy(t.Context(), noon))
	found, err := s.Traces(t.Context(), store.TraceQuery{Route: "big"})
	ok(t, err)
	if n := len(found); n == 0 || n == 3 || s.Dropped().Traces == 0 {
		t.Errorf("%d big traces are left, %+v dropped", n, s.Dropped())
	}
}

func TestJournalsAreReadInOrderAndInPages(t *testing.T) {
	s := open(t, store.Config{})
	for i := range 5 {
		_, err := s.Append(t.Context(), noon.Add(time.Duration(i)), "rollouts", []byte{byte(i)})
		ok(t, err)
		_, err = s.Append(t.Context(), noon, "other", nil)
		ok(t, err)
	}
	var got []byte
	for after := int64(0); ; {
		page, err := s.Entries(t.Context(), "rollouts", after, 2)
		ok(t, err)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			got = append(got, e.Data...)
			if !e.At.Equal(noon.Add(time.Duration(e.Data[0]))) {
				t.Errorf("entry %d at %s", e.Data[0], e.At)
			}
		}
		after = page[len(page)-1].Seq
	}
	if string(got) != "\x00\x01\x02\x03\x04" {
		t.Errorf("%v", got)
	}
	ok(t, s.Tidy(t.Context(), noon.Add(3*365*24*time.Hour)))
	if left, err := s.Entries(t.Context(), "rollouts", 0, 10); err != nil || len(left) != 0 {
		t.Errorf("after three years: %v, %v", left, err)
	}
}

func TestStatesAreReplaced(t *testing.T) {
	s := open(t, store.Config{})
	if _, err := s.Get(t.Context(), "slo"); !errors.Is(err, store.ErrAbsent) {
		t.Errorf("nothing yet: %v", err)
	}
	ok(t, s.Put(t.Context(), noon, "slo", []byte("one")))
	ok(t, s.Put(t.Context(), noon, "slo", []byte("two")))
	if v, err := s.Get(t.Context(), "slo"); err != nil || string(v) != "two" {
		t.Errorf("%q, %v", v, err)
	}
}

func TestAFolderHasOneOwnerAndKnowsItsVersion(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Config{Dir: dir})
	if _, err := store.Open(t.Context(), store.Config{Dir: dir}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("a second owner: %v", err)
	}
	ok(t, s.Close())
	s = open(t, store.Config{Dir: dir})
	ok(t, s.Close())
	if _, err := store.Open(t.Context(), store.Config{}); err == nil || !strings.Contains(err.Error(), "dir") {
		t.Errorf("no folder: %v", err)
	}
	file := filepath.Join(dir, "file")
	ok(t, os.WriteFile(file, nil, 0o600))
	if _, err := store.Open(t.Context(), store.Config{Dir: file}); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestAFileThatNoIndexNamesIsSweptAway(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Config{Dir: dir})
	ok(t, s.Keep(t.Context(), noon, store.Kept{Route: "r", Trace: traceOf(1, noon, time.Second)}))
	ok(t, s.Close())
	for _, name := range []string{"new-123", "000000000077.otlp.zst"} {
		ok(t, os.WriteFile(filepath.Join(dir, "traces", name), []byte("half"), 0o600))
	}
	s = open(t, store.Config{Dir: dir})
	if files, _ := os.ReadDir(filepath.Join(dir, "traces")); len(files) != 1 {
		t.Errorf("%d files are left", len(files))
	}
	if found, err := s.Traces(t.Context(), store.TraceQuery{}); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}

// TestWhatWasAcknowledgedSurvivesKill9 kills a process that writes as fast as it can and says what is on disk.
func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	const dirVariable = "STORE_TEST_DIR"
	if dir := os.Getenv(dirVariable); dir != "" {
		writeForEver(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWhatWasAcknowledgedSurvivesKill9$")
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	acknowledged := 0
	for acknowledged < 20 {
		if _, err := fmt.Fscanf(out, "%d\n", &acknowledged); err != nil {
			t.Fatal(err)
		}
	}
	ok(t, cmd.Process.Kill())
	for { // what it said before it died
		var n int
		if _, err := fmt.Fscanf(out, "%d\n", &n); err != nil {
			break
		}
		acknowledged = n
	}
	_ = cmd.Wait()
	s := open(t, store.Config{Dir: dir})
	found, err := s.Traces(t.Context(), store.TraceQuery{Most: 10_000})
	ok(t, err)
	for _, f := range found {
		if len(f.Spans) != 2 {
			t.Errorf("trace %s came back with %d spans", f.ID, len(f.Spans))
		}
	}
	entries, err := s.Entries(t.Context(), "j", 0, 10_000)
	ok(t, err)
	var calls uint64
	for _, r := range rollups(t, s, store.Query{}) {
		calls += r.Calls
	}
	if len(found) < acknowledged || len(entries) < acknowledged || calls < uint64(acknowledged) {
		t.Errorf("%d writes were acknowledged; %d traces, %d entries and %d calls are there", acknowledged, len(found), len(entries), calls)
	}
}

func writeForEver(t *testing.T, dir string) {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	ok(t, err)
	for i := 1; ; i++ {
		ok(t, s.Add(ctx, store.Rollup{From: noon, Calls: 1, Latency: stats.Of(time.Second)}))
		ok(t, s.Keep(ctx, noon, store.Kept{Route: "r", Trace: traceOf(i, noon, time.Second)}))
		_, err := s.Append(ctx, noon, "j", []byte("x"))
		ok(t, err)
		fmt.Println(i)
	}
}

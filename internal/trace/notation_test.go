package trace_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/trace"
)

const ms = int64(time.Millisecond)

func TestNotationReadsATree(t *testing.T) {
	got, err := trace.Parse(`
		# the order page
		GET/orders 0ms 120ms service=shop host=pod-1 kind=server trace=t7
		  auth 1ms 6ms
		    "SELECT 1" 2ms 3ms service=db db.query.text="SELECT \"x\" = 1" failed
		  call 10ms 13ms x2 kind=client
		    answer 14ms 15ms
		  copy 20ms 25ms x2 every=0ms id=c
		late 200ms 190ms parent=gone follows
	`)
	if err != nil {
		t.Fatal(err)
	}
	span := func(id, parent, name, service, host string, start, end int64) trace.Span {
		return trace.Span{TraceID: "t7", ID: id, Parent: parent, Name: name, Service: service, Host: host, Start: start * ms, End: end * ms}
	}
	want := trace.Trace{ID: "t7", Spans: []trace.Span{
		span("1", "", "GET/orders", "shop", "pod-1", 0, 120),
		span("2", "1", "auth", "shop", "pod-1", 1, 6),
		span("3", "2", "SELECT 1", "db", "", 2, 3),
		span("4", "1", "call", "shop", "pod-1", 10, 13),
		span("5", "1", "call", "shop", "pod-1", 13, 16),
		span("6", "5", "answer", "shop", "pod-1", 14, 15),
		span("c.1", "1", "copy", "shop", "pod-1", 20, 25),
		span("c.2", "1", "copy", "shop", "pod-1", 20, 25),
		span("9", "gone", "late", "svc", "", 200, 190),
	}}
	want.Spans[0].Kind = trace.Server
	want.Spans[2].Failed = true
	want.Spans[2].Attributes = []trace.Attribute{{Key: "db.query.text", Value: `SELECT "x" = 1`}}
	want.Spans[3].Kind, want.Spans[4].Kind = trace.Client, trace.Client
	want.Spans[8].FollowsFrom = true
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestNotationNamesTheFaultyLine(t *testing.T) {
	for text, want := range map[string]string{
		"a 1ms":                      "line 1: want: name start end",
		"a 0ms 1ms\n b 0 soon":       "line 2: time: invalid duration",
		"a 0ms 1ms kind=boss":        `unknown kind "boss"`,
		"a 0ms 1ms x0":               "want a repetition",
		"a 0ms 1ms x99999999":        "more than 1048576 spans",
		"a 0ms 1ms loud":             `unknown word "loud"`,
		`"a 0ms 1ms`:                 "has no end",
		"a 0ms 1ms every=0ms every=": "invalid duration",
	} {
		_, err := trace.Parse(text)
		if !errors.Is(err, trace.ErrNotation) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a 0ms 1ms\n  b 0ms 1ms x3 kind=client k=\"v w\" failed\n# c")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "x") && len(text) > 100 {
			return // long repetitions are slow, and nothing else
		}
		got, err := trace.Parse(text)
		if err != nil && !errors.Is(err, trace.ErrNotation) {
			t.Fatalf("%q: %v", text, err)
		}
		for _, s := range got.Spans {
			if s.TraceID != got.ID {
				t.Fatalf("%q: a span of trace %q in trace %q", text, s.TraceID, got.ID)
			}
		}
	})
}

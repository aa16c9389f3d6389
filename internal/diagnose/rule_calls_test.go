package diagnose

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// parsed is the trace that text tells, under its own ID and at its own second.
func parsed(t *testing.T, number int, text string) trace.Trace {
	t.Helper()
	parsed, err := trace.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	parsed.ID = fmt.Sprintf("t%04d", number)
	for i := range parsed.Spans {
		s := &parsed.Spans[i]
		s.TraceID = parsed.ID
		s.Start += int64(number) * int64(time.Second)
		s.End += int64(number) * int64(time.Second)
	}
	return parsed
}

// many is n traces that text tells by their number.
func many(t *testing.T, n int, text func(i int) string) []trace.Trace {
	t.Helper()
	traces := make([]trace.Trace, n)
	for i := range traces {
		traces[i] = parsed(t, i, text(i))
	}
	return traces
}

func same(text string) func(int) string { return func(int) string { return text } }

// alternating gives texts in turn.
func alternating(texts ...string) func(int) string {
	return func(i int) string { return texts[i%len(texts)] }
}

// ruleCase is traces and what one rule must say of them.
type ruleCase struct {
	name  string
	n     int // traces; 0 = 40
	text  func(i int) string
	at    string // "service operation" of the finding; "" = there must be none
	share float64
	says  string // part of summary, evidence or counter-evidence
}

// checkRule runs the whole diagnosis and looks at the findings of one code.
func checkRule(t *testing.T, code string, cases []ruleCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := c.n
			if n == 0 {
				n = 40
			}
			r := Run(many(t, n, c.text), Options{})
			if len(r.Routes) == 0 {
				t.Fatal("no route")
			}
			var found []Finding
			for _, route := range r.Routes {
				for _, f := range route.Findings {
					if f.Code == code {
						found = append(found, f)
					}
				}
			}
			if c.at == "" {
				if len(found) > 0 {
					t.Fatalf("want none, got %+v", found)
				}
				return
			}
			if len(found) != 1 {
				t.Fatalf("want one %s at %s, got %+v", code, c.at, found)
			}
			f := found[0]
			if got := f.Service + " " + f.Operation; got != c.at {
				t.Errorf("at %q, want %q", got, c.at)
			}
			if math.Abs(f.ShareP99-c.share) > 0.015 {
				t.Errorf("share %.3f, want %.3f", f.ShareP99, c.share)
			}
			all := strings.Join(slices.Concat([]string{f.Class, f.Summary}, f.Evidence, f.CounterEvidence), "\n")
			if !strings.Contains(all, c.says) {
				t.Errorf("want it to say %q:\n%s", c.says, all)
			}
			if f.Confidence <= 0 || f.Confidence > 1 || f.Verdict == "" || len(f.Evidence) == 0 {
				t.Errorf("verdict %q with confidence %v and %d pieces of evidence", f.Verdict, f.Confidence, len(f.Evidence))
			}
		})
	}
}

func TestCriticalTimeIsAddedUpBelow(t *testing.T) {
	set := newSet([]trace.Trace{parsed(t, 0, `
		a 0ms 100ms service=a
		  b 10ms 60ms
		    c 20ms 30ms
		  d 60ms 90ms`)}, ClockOptions{})
	tree, s := set.trees[0], newTaker(set.named()).take(set.trees[0])
	_, inclusive := s.critical()
	got := make(map[string]int64)
	for i := range tree.Spans {
		got[tree.Spans[i].Name] = inclusive[i] / int64(time.Millisecond)
	}
	for name, want := range map[string]int64{"a": 100, "b": 50, "c": 10, "d": 30} {
		if got[name] != want {
			t.Errorf("%s: %d ms, want %d", name, got[name], want)
		}
	}
}

func TestStatementsAreEqualWithoutLiterals(t *testing.T) {
	for in, want := range map[string]string{
		"SELECT a1 FROM t2 WHERE id = 42 AND name = 'O x' LIMIT 1.5": "SELECT a1 FROM t2 WHERE id = ? AND name = ? LIMIT ?",
		"SELECT 'open": "SELECT ?",
		"SELECT $1":    "SELECT $1",
	} {
		if got := withoutLiterals(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

package diagnose

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// dice draws what varies between the traces of a case.
type dice struct{ *rand.Rand }

// near is log-normal around a median in milliseconds, as a duration of the notation.
func (d dice) near(median float64) float64 { return median * math.Exp(0.25*d.NormFloat64()) }

// classCase is traffic and what the diagnosis must say of it first.
type classCase struct {
	name    string
	n       int                               // traces; 0 = 200
	text    func(d dice, i int) string        // in the notation of traces
	at      func(d dice, i int) time.Duration // when the trace begins; nil = one a second
	facts   evidence.Facts
	service string // of the first finding; "" = near miss: the rule must find nothing
	variant string
	verdict Verdict // "" = any
	says    string  // part of summary, evidence or counter-evidence
}

func (c classCase) traces(t *testing.T) []trace.Trace {
	t.Helper()
	d := dice{rand.New(rand.NewPCG(7, uint64(len(c.name))))}
	n := c.n
	if n == 0 {
		n = 200
	}
	list := make([]trace.Trace, n)
	for i := range list {
		got, err := trace.Parse(c.text(d, i))
		if err != nil {
			t.Fatal(err)
		}
		offset := time.Duration(i) * time.Second
		if c.at != nil {
			offset = c.at(d, i)
		}
		got.ID = fmt.Sprintf("t%05d", i)
		for k := range got.Spans {
			s := &got.Spans[k]
			s.TraceID = got.ID
			s.Start += int64(offset)
			s.End += int64(offset)
		}
		list[i] = got
	}
	return list
}

// checkClass runs the whole diagnosis. Where a finding is wanted it must be the first of the first route.
func checkClass(t *testing.T, code, class string, cases []classCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := Run(c.traces(t), Options{Facts: c.facts})
			var all []Finding
			for _, route := range r.Routes {
				all = append(all, route.Findings...)
			}
			told := make([]string, len(all))
			for i, f := range all {
				told[i] = fmt.Sprintf("%s %s %s %s share %.2f confidence %.2f %s: %s | %s | but %s", f.Code, f.Class, f.Service, f.Operation, f.ShareP99, f.Confidence,
					f.Verdict, f.Summary, strings.Join(f.Evidence, "; "), strings.Join(f.CounterEvidence, "; "))
			}
			if c.service == "" {
				if slices.ContainsFunc(all, func(f Finding) bool { return f.Code == code }) {
					t.Fatalf("want no %s:\n%s", code, strings.Join(told, "\n"))
				}
				if c.says != "" && !strings.Contains(strings.Join(told, "\n"), c.says) {
					t.Errorf("want it to say %q:\n%s", c.says, strings.Join(told, "\n"))
				}
				return
			}
			if len(all) == 0 || all[0].Code != code || all[0].Class != class || all[0].Service != c.service {
				t.Fatalf("want %s %s of %s first, got\n%s", code, class, c.service, strings.Join(told, "\n"))
			}
			f := all[0]
			if c.variant != "" && f.Detail.Variant != c.variant {
				t.Errorf("variant %q, want %q", f.Detail.Variant, c.variant)
			}
			if c.verdict != "" && f.Verdict != c.verdict {
				t.Errorf("verdict %q, want %q: %s", f.Verdict, c.verdict, told[0])
			}
			if !strings.Contains(told[0], c.says) {
				t.Errorf("want it to say %q:\n%s", c.says, told[0])
			}
			if f.Confidence <= 0 || f.Confidence > 1 || len(f.Evidence) == 0 || f.Summary == "" {
				t.Errorf("confidence %v and %d pieces of evidence", f.Confidence, len(f.Evidence))
			}
		})
	}
}

// ofService is facts about one process of a service.
func ofService(service string, runtime evidence.RuntimeStats, more ...evidence.ProfileFacts) evidence.Facts {
	return evidence.Facts{Services: []evidence.ServiceFacts{{Service: service, Runtime: &runtime, Profiles: more}}}
}

// page is a request to a shop that asks a service which takes work ms, of which the request is a little more.
func page(work float64, more string) string {
	return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client\n    price 1.5ms %.3fms service=pricing kind=server %s", work+4, work+3, work+2, more)
}

// ms3 is a duration in the notation.
func ms3(ms float64) string { return fmt.Sprintf("%.3fms", ms) }

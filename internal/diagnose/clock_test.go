package diagnose_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

func TestClockCorrectionsAreThoseOfJaeger(t *testing.T) {
	var file struct {
		Cases []struct {
			Description string
			Spans       []struct {
				ID, Host string
				Parent   *string
				Start    int64 `json:"start_ms"`
				Duration int64 `json:"duration_ms"`
				Adjusted int64 `json:"adjusted_start_ms"`
			}
			MaxAdjust string  `json:"max_adjust"`
			Warning   *string `json:"expected_warning"`
		}
	}
	readCorpus(t, &file, "critical-path", "jaeger-clockskew", "cases.json")
	for _, c := range file.Cases {
		t.Run(c.Description, func(t *testing.T) {
			o := diagnose.ClockOptions{MaxAdjust: -1}
			if !strings.Contains(c.MaxAdjust, "disabled") {
				var err error
				if o.MaxAdjust, err = time.ParseDuration(c.MaxAdjust); err != nil {
					t.Fatal(err)
				}
			}
			var tr trace.Trace
			want := map[string]int64{}
			moved := map[string]bool{}
			for _, s := range c.Spans {
				span := trace.Span{ID: s.ID, Host: s.Host, Start: s.Start * 1e6, End: (s.Start + s.Duration) * 1e6}
				if s.Parent != nil {
					span.Parent = *s.Parent
				}
				tr.Spans = append(tr.Spans, span)
				want[s.ID] = s.Adjusted
				if s.Adjusted != s.Start {
					moved[s.ID] = true
				}
			}
			tree := diagnose.Build(tr, o)
			got := map[string]int64{}
			for _, s := range tree.Spans {
				got[s.ID] = s.Start / 1e6
			}
			same(t, "starts", got, want)
			same(t, "moved spans", tree.SkewCorrected, len(moved))
			warning := ""
			if c.Warning != nil {
				warning = *c.Warning
			}
			same(t, "incomplete", tree.Incomplete, strings.HasPrefix(warning, "parent span"))
			same(t, "duplicates", tree.Duplicates > 0, strings.HasPrefix(warning, "duplicate"))
			same(t, "ignored", tree.SkewIgnored > 0, strings.Contains(warning, "not applying"))
		})
	}
}

func TestOneWayCorrectionsAreThoseOfZipkin(t *testing.T) {
	type half struct {
		TS, Dur int64
		IP      string
	}
	var file struct {
		Cases []struct {
			Name           string
			Client, Server *half
			SkewUS         *int64 `json:"skew_us"`
		}
	}
	readCorpus(t, &file, "critical-path", "zipkin-clockskew", "cases.json")
	for _, c := range file.Cases {
		if c.Client == nil {
			continue // the whole trace has a test of its own
		}
		t.Run(c.Name, func(t *testing.T) {
			span := func(h *half, kind trace.Kind) *trace.Span {
				return &trace.Span{Kind: kind, Host: h.IP, Start: h.TS * 1000, End: (h.TS + h.Dur) * 1000}
			}
			want := int64(0)
			if c.SkewUS != nil {
				want = -*c.SkewUS
			}
			got := diagnose.OneWaySkew(span(c.Client, trace.Client), span(c.Server, trace.Server))
			same(t, "correction in us", got/1000, want)
		})
	}
}

// zipkinTrace reads the little that the sample has of Zipkin's JSON; its two spans of one ID are left as they are.
func zipkinTrace(t *testing.T) trace.Trace {
	var spans []struct {
		ID, ParentID, Kind, Name string
		Timestamp, Duration      int64
		LocalEndpoint            struct{ ServiceName, IPv4 string }
	}
	readCorpus(t, &spans, "fixtures", "zipkin", "skew.json")
	tr := trace.Trace{ID: "t"}
	for _, s := range spans {
		tr.Spans = append(tr.Spans, trace.Span{
			ID: s.ID, Parent: s.ParentID, Kind: trace.ParseKind(strings.ToLower(s.Kind)), Service: s.LocalEndpoint.ServiceName,
			Name: s.Name, Host: s.LocalEndpoint.IPv4, Start: s.Timestamp * 1000, End: (s.Timestamp + s.Duration) * 1000,
		})
	}
	return tr
}

func TestWholeTraceOfZipkinIsCorrected(t *testing.T) {
	for _, rule := range []diagnose.ClockRule{diagnose.Centre, diagnose.OneWay} {
		tree := diagnose.Build(zipkinTrace(t), diagnose.ClockOptions{Rule: rule})
		same(t, "root", ids(tree, tree.Roots), []string{"bf396325699c84bf"})
		same(t, "spans", len(tree.Spans), 4)
		same(t, "corrected", tree.SkewCorrected, 2)
		for i, p := range tree.Parent {
			if p >= 0 && tree.Spans[i].Start <= tree.Spans[p].Start {
				t.Errorf("rule %d: %s %s starts no later than its parent", rule, tree.Spans[i].Service, tree.Spans[i].Name)
			}
		}
		path := tree.Path(tree.Roots[0])
		checkPartition(t, tree, tree.Roots[0], path)
		if !slices.ContainsFunc(path, func(s diagnose.Section) bool { return tree.Spans[s.Span].Name == "async" }) {
			t.Errorf("rule %d: the corrected server's child is not on the path", rule)
		}
	}
}

func TestOneWayLeavesTracesWithoutOneRootAlone(t *testing.T) {
	tr := zipkinTrace(t)
	headless := trace.Trace{Spans: slices.DeleteFunc(slices.Clone(tr.Spans), func(s trace.Span) bool { return s.Parent == "" })}
	second := trace.Trace{Spans: append(slices.Clone(tr.Spans), trace.Span{ID: "cafebabe", Name: "curtain"})}
	for name, tr := range map[string]trace.Trace{"headless": headless, "second root": second} {
		if tree := diagnose.Build(tr, diagnose.ClockOptions{Rule: diagnose.OneWay}); tree.SkewCorrected != 0 {
			t.Errorf("%s: %d spans corrected, want none", name, tree.SkewCorrected)
		}
	}
}

// build makes the tree of a trace in our notation.
func build(t *testing.T, text string) *diagnose.Tree {
	t.Helper()
	tr, err := trace.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return diagnose.Build(tr, diagnose.ClockOptions{})
}

func starts(tree *diagnose.Tree) map[string]int64 {
	all := map[string]int64{}
	for _, s := range tree.Spans {
		all[s.Name] = s.Start / 1e6
	}
	return all
}

func TestClockCorrections(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want map[string]int64
	}{
		"a host's offset holds for all its spans below, whoever called them": {
			`
			root   0ms    100ms host=a
			  call   10ms  90ms kind=client
			    b      -500ms -440ms host=b kind=server
			      ask    -490ms -450ms host=b kind=client
			        c      30ms 50ms host=c kind=server
			          b2     -475ms -465ms host=b`,
			map[string]int64{"root": 0, "call": 10, "b": 20, "ask": 30, "c": 30, "b2": 45},
		},
		"the root's clock is the reference when the call comes back": {
			`
			root 0ms 100ms host=a
			  b    10ms  90ms host=b
			    a2   5ms  50ms host=a`,
			map[string]int64{"root": 0, "b": 10, "a2": 5},
		},
		"a consumer may be late": {
			`
			pub 0ms 100ms host=a kind=producer
			  con 150ms 160ms host=b kind=consumer`,
			map[string]int64{"pub": 0, "con": 150},
		},
		"a consumer cannot be early": {
			`
			pub 100ms 200ms host=a kind=producer
			  con 50ms 60ms host=b kind=consumer`,
			map[string]int64{"pub": 100, "con": 100},
		},
		"a failed client gave up, and its server went on": {
			`
			get 0ms 100ms host=a kind=client failed
			  get2 60ms 130ms host=b kind=server`,
			map[string]int64{"get": 0, "get2": 60},
		},
		"a client that was answered waited for its server": {
			`
			get 0ms 100ms host=a kind=client
			  get2 60ms 130ms host=b kind=server`,
			map[string]int64{"get": 0, "get2": 15},
		},
		"a server after its client shows skew": {
			`
			get 0ms 100ms host=a kind=client
			  get2 300ms 350ms host=b kind=server`,
			map[string]int64{"get": 0, "get2": 25},
		},
		"other work after the end may be meant so": {
			`
			job 0ms 100ms host=a
			  later 300ms 350ms host=b`,
			map[string]int64{"job": 0, "later": 300},
		},
		"a call between services, though no kind says so": {
			`
			get 0ms 100ms host=a
			  get2 300ms 350ms service=other host=b`,
			map[string]int64{"get": 0, "get2": 25},
		},
		"but not a second late": {
			`
			get 0ms 100ms host=a
			  get2 1100ms 1150ms service=other host=b`,
			map[string]int64{"get": 0, "get2": 1100},
		},
		"overflow of one step of the clock is no skew": {
			`
			get 0ms 100ms host=a kind=client
			  get2 60ms 101ms host=b kind=server`,
			map[string]int64{"get": 0, "get2": 60},
		},
		"unknown hosts are not corrected": {
			`
			get 100ms 200ms kind=client
			  get2 50ms 60ms host=b kind=server`,
			map[string]int64{"get": 100, "get2": 50},
		},
	} {
		t.Run(name, func(t *testing.T) { same(t, "starts in ms", starts(build(t, c.text)), c.want) })
	}
}

func TestGranularityIsFoundFromTheTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"a 1ms 5ms":               time.Millisecond,
		"a 1ms 5.001ms":           time.Microsecond,
		"a 0ms 5ms\n b 1us 3.5us": time.Nanosecond,
	} {
		same(t, text, time.Duration(build(t, text).Granularity()), want)
	}
}

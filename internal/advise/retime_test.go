package advise

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
	"pgregory.net/rapid"
)

func parse(t *testing.T, text string) trace.Trace {
	t.Helper()
	tr, err := trace.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func timelineOf(tr trace.Trace) *timeline {
	return load([]trace.Trace{tr}, diagnose.ClockOptions{}).traces[0]
}

// spanNamed is the index of the first span of that name.
func spanNamed(t *testing.T, line *timeline, name string) int {
	t.Helper()
	for i := range line.spans {
		if line.spans[i].Name == name {
			return i
		}
	}
	t.Fatalf("no span %q", name)
	return -1
}

func TestRetimingFollowsWhatWaitsForWhat(t *testing.T) {
	const serial = `
		root 0ms 100ms
		  a 10ms 40ms
		  b 50ms 90ms`
	const parallel = `
		root 0ms 100ms
		  a 10ms 40ms
		  b 10ms 90ms`
	const nested = `
		root 0ms 500ms
		  gateway 10ms 490ms service=g
		    attempt 20ms 480ms service=g kind=client
		      orders 30ms 470ms service=o kind=server
		        select 100ms 400ms service=o
		  after 492ms 498ms`
	for _, c := range []struct {
		name, text string
		fixed      map[string]time.Duration
		want       time.Duration
	}{
		{"nothing changes", serial, nil, 100 * time.Millisecond},
		{"a faster first call lets the second begin earlier", serial, map[string]time.Duration{"a": 0}, 70 * time.Millisecond},
		{"a slower first call pushes the second", serial, map[string]time.Duration{"a": 130 * time.Millisecond}, 200 * time.Millisecond},
		{"gaps stay when all calls go", serial, map[string]time.Duration{"a": 0, "b": 0}, 30 * time.Millisecond},
		{"a parallel call off the critical path changes nothing", parallel, map[string]time.Duration{"a": 0}, 100 * time.Millisecond},
		{"a faster straggler ends when the next slowest does", parallel, map[string]time.Duration{"b": time.Millisecond}, 50 * time.Millisecond},
		{"a slower parallel call becomes the straggler", parallel, map[string]time.Duration{"a": 200 * time.Millisecond}, 220 * time.Millisecond},
		{"200 ms less deep down are 200 ms less at the root", nested, map[string]time.Duration{"select": 100 * time.Millisecond}, 300 * time.Millisecond},
		{"a call that is gone leaves the callers' own time", nested, map[string]time.Duration{"attempt": 0}, 40 * time.Millisecond},
		{"the change of an ancestor wins over one below it", nested, map[string]time.Duration{"attempt": 60 * time.Millisecond, "select": 0}, 100 * time.Millisecond},
		{"what starts together is not chained by rounding", `
			root 0ms 100ms
			  a 0ms 50ms
			  b 49.5ms 99ms`, map[string]time.Duration{"a": 10 * time.Millisecond}, 60 * time.Millisecond},
		{"a call that nobody waited for changes nothing", `
			root 0ms 100ms
			  a 10ms 50ms
			  log 60ms 90ms follows`, map[string]time.Duration{"log": 0}, 100 * time.Millisecond},
		{"a time-out stays one while the callee is slower", `
			root 0ms 110ms service=c host=c
			  call 0ms 100ms service=c host=c kind=client
			    work 1ms 400ms service=s host=s kind=server`, map[string]time.Duration{"work": 300 * time.Millisecond}, 110 * time.Millisecond},
		{"a time-out goes when the callee is fast enough", `
			root 0ms 110ms service=c host=c
			  call 0ms 100ms service=c host=c kind=client
			    work 1ms 400ms service=s host=s kind=server`, map[string]time.Duration{"work": 50 * time.Millisecond}, 61 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := timelineOf(parse(t, c.text))
			var e edit
			e.reset(len(line.spans))
			for name, d := range c.fixed {
				e.set(spanNamed(t, line, name), int64(d))
			}
			if got := time.Duration(line.retime(&e, nil)[spanNamed(t, line, "root")]); got != c.want {
				t.Errorf("the root lasts %v, want %v", got, c.want)
			}
		})
	}
}

func TestCallsStartedTogetherKeepTheGapsBetweenThem(t *testing.T) {
	line := timelineOf(parse(t, `
		root 0ms 100ms
		  a 10ms 40ms
		  b 42ms 60ms
		  c 65ms 90ms`))
	var e edit
	e.reset(len(line.spans))
	calls := []int{spanNamed(t, line, "a"), spanNamed(t, line, "b"), spanNamed(t, line, "c")}
	e.together(calls, func(i int) string { return line.spans[i].Name })
	// a 10..40, b 12..30, c 17..42, then 10 of its own.
	if got := time.Duration(line.retime(&e, nil)[0]); got != 52*time.Millisecond {
		t.Errorf("the root lasts %v, want 52ms", got)
	}
	// a 10..40, b 12..30 beside it, c as the same kind as b only then: 30..55.
	e.reset(len(line.spans))
	e.together(calls, func(i int) string { return map[string]string{"a": "x"}[line.spans[i].Name] })
	if got := time.Duration(line.retime(&e, nil)[0]); got != 65*time.Millisecond {
		t.Errorf("the root lasts %v, want 65ms", got)
	}
}

// drawTrace makes a random tree with overlaps, overflows, zero durations and skew.
func drawTrace(r *rapid.T) trace.Trace {
	tr := trace.Trace{ID: "t"}
	for i := range rapid.IntRange(1, 40).Draw(r, "spans") {
		s := trace.Span{TraceID: "t", ID: fmt.Sprint(i), Name: "n", Service: "s", Start: 1000, End: 1000 + rapid.Int64Range(0, 1e8).Draw(r, "took")}
		if i > 0 {
			p := tr.Spans[rapid.IntRange(0, i-1).Draw(r, "parent")]
			s.Parent = p.ID
			s.Start = p.Start + rapid.Int64Range(-1e6, 1e8).Draw(r, "at")
			s.End = s.Start + rapid.Int64Range(0, 1e8).Draw(r, "took")
			s.Host = rapid.SampledFrom([]string{"", "a", "b"}).Draw(r, "host")
		}
		s.Kind = trace.Kind(rapid.IntRange(0, 5).Draw(r, "kind"))
		tr.Spans = append(tr.Spans, s)
	}
	return tr
}

func TestReplayWithoutAChangeIsExact(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		line := timelineOf(drawTrace(r))
		var e edit
		e.reset(len(line.spans))
		for i := range line.spans { // every span walked, none changed
			var now []int64
			for k := range line.spans {
				now = append(now, line.recorded(k))
			}
			if got := line.walk(i, &e, now); len(line.blocking(i)) > 0 && got != line.recorded(i) {
				r.Fatalf("span %d lasts %d, recorded %d", i, got, line.recorded(i))
			}
		}
		e.changed = true
		for i, got := range line.retime(&e, nil) {
			if got != line.recorded(i) {
				r.Fatalf("span %d lasts %d, recorded %d", i, got, line.recorded(i))
			}
		}
	})
}

func TestFasterIsNeverSlower(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		line := timelineOf(drawTrace(r))
		if len(line.spans) == 0 {
			return
		}
		i := rapid.IntRange(0, len(line.spans)-1).Draw(r, "changed")
		var e edit
		e.reset(len(line.spans))
		e.set(i, rapid.Int64Range(0, line.recorded(i)).Draw(r, "new"))
		cut := line.recorded(i) - e.fixed[i]
		for k, got := range line.retime(&e, nil) {
			if was := line.recorded(k); got > was || got < 0 || k != i && was-got > cut {
				r.Fatalf("span %d: %d, recorded %d, though only %d were cut", k, got, was, cut)
			}
		}
	})
}

func TestSpanOrderChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		tr := drawTrace(r)
		shuffled := trace.Trace{ID: tr.ID, Spans: rapid.Permutation(tr.Spans).Draw(r, "order")}
		changed := rapid.SampledFrom(tr.Spans).Draw(r, "changed").ID
		times := func(tr trace.Trace) map[string]int64 {
			line := timelineOf(tr)
			var e edit
			e.reset(len(line.spans))
			for i := range line.spans {
				if line.spans[i].ID == changed {
					e.set(i, 12345)
				}
			}
			out := make(map[string]int64)
			for i, d := range line.retime(&e, nil) {
				out[line.spans[i].ID] = d
			}
			return out
		}
		want, got := times(tr), times(shuffled)
		for id, d := range want {
			if got[id] != d {
				r.Fatalf("span %s lasts %d in one order and %d in another", id, d, got[id])
			}
		}
	})
}

func TestRetimingIsFastAndNotRecursive(t *testing.T) {
	const n = 100_000
	for name, parent := range map[string]func(int) int{
		"deep": func(i int) int { return i - 1 },
		"wide": func(int) int { return 0 },
	} {
		tr := trace.Trace{ID: "t"}
		for i := range n {
			s := trace.Span{TraceID: "t", ID: fmt.Sprint(i), Start: int64(i) * 10, End: int64(i)*10 + 9}
			if i == 0 || name == "deep" {
				s.End = 10 * n
			}
			if i > 0 {
				s.Parent = fmt.Sprint(parent(i))
			}
			tr.Spans = append(tr.Spans, s)
		}
		line := timelineOf(tr)
		if len(line.spans) == 0 {
			t.Fatal("no spans")
		}
		last := 0
		for i := range line.spans {
			if line.spans[i].ID == fmt.Sprint(n-1) {
				last = i
			}
		}
		var e edit
		e.reset(n)
		e.set(last, 0)
		for i, got := range line.retime(&e, nil) {
			if line.spans[i].ID == "0" && got >= line.recorded(i) {
				t.Errorf("%s: the root keeps %d", name, got)
			}
		}
	}
}

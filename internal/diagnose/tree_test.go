package diagnose_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// pathText is the path of the trace's root as "name start-end" in milliseconds.
func pathText(tree *diagnose.Tree) string {
	var words []string
	for _, s := range tree.Path(tree.Roots[0]) {
		words = append(words, tree.Spans[s.Span].Name)
	}
	return strings.Join(words, " ")
}

func TestPathGoesThroughWhatHeldUpTheRoot(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an overlap of 1 % of the parent is too much": {`
			root 0ms 1000ms
			  a 0ms 500ms
			  b 490ms 990.5ms`, "root b root"},
		"a smaller one is none": {`
			root 0ms 1000ms
			  a 0ms 500ms
			  b 490.1ms 990.5ms`, "a b root"},
		"not with a third sibling that ends meanwhile, which then is what counts": {`
			root 0ms 1000ms
			  a 0ms 500ms
			  c 0ms 495ms
			  b 490.1ms 990.5ms`, "c b root"},
		"not when two end together": {`
			root 0ms 1000ms
			  a 0ms 495ms
			  c 0ms 495ms
			  b 490.1ms 990.5ms`, "root b root"},
		"not with a third sibling that starts meanwhile": {`
			root 0ms 1000ms
			  a 0ms 500ms
			  b 490.1ms 990.5ms
			  c 495ms 600ms`, "root b root"},
		"a third sibling that nobody waits for does not matter": {`
			root 0ms 1000ms
			  a 0ms 500ms
			  b 490.1ms 990.5ms
			  c 495ms 600ms follows`, "a b root"},
		"overlaps in a row": {`
			root 0ms 1000ms
			  a 0ms 301ms
			  b 300ms 601ms
			  c 600ms 1000ms`, "a b c"},
		"one step of the clock is no overlap": {`
			root 0ms 20ms
			  a 0ms 11ms
			  b 10ms 20ms`, "a b"},
		"two steps are": {`
			root 0ms 20ms
			  a 0ms 12ms
			  b 10ms 20ms`, "root b"},
		"children cut at the root's end: the first to start counts": {`
			root 0ms 100ms
			  a 40ms 200ms
			  b 10ms 150ms
			    b1 120ms 150ms
			    b2 50ms 130ms`, "root b b2"},
		"a child without duration holds up nothing": {`
			root 0ms 100ms
			  a 50ms 50ms
			  b 100ms 100ms`, "root"},
		"one step after the parent by its clock is still waited for": {`
			root 0ms 100ms host=h
			  a 50ms 101ms`, "root a"},
		"more is not": {`
			root 0ms 100ms host=h
			  a 50ms 102ms`, "root"},
		"1 % of a longer parent is still waited for": {`
			root 0ms 1000ms host=h
			  a 50ms 1010ms`, "root a"},
		"a change of service is a call": {`
			root 0ms 100ms host=h
			  a 50ms 150ms service=other host=h`, "root a"},
		"unless it is a message": {`
			root 0ms 100ms host=h
			  "orders send" 20ms 30ms
			    "orders process" 25ms 50ms service=other host=h`, "root orders send root"},
		"a client waits for its server, by any clock": {`
			root 0ms 100ms host=h kind=client
			  a 50ms 150ms kind=server`, "root a"},
		"a canceled copy is off the path when the other one won": {`
			root 0ms 100ms
			  one 0ms 91ms error.type="context canceled"
			  two 40ms 90ms`, "root two root"},
		"a canceled call is on the path when nothing ran beside it": {`
			root 0ms 100ms
			  before 0ms 40ms
			  one 40ms 100ms rpc.grpc.status_code=1`, "before one"},
	} {
		t.Run(name, func(t *testing.T) { same(t, "path", pathText(build(t, c.text)), c.want) })
	}
}

func TestDetachedWorkHasItsOwnPath(t *testing.T) {
	tree := build(t, `
		root 0ms 100ms host=h
		  log 10ms 20ms follows
		  flush 50ms 150ms
		    disk 60ms 140ms
		  send 20ms 30ms kind=producer
		    handle 45ms 80ms kind=consumer host=i
		      notify 90ms 95ms
		  late 120ms 130ms host=""
		  loser 40ms 60ms cancelled=true
		  winner 40ms 55ms`)
	type work struct {
		Parent, Name string
		Why          diagnose.Detached
		WaitMS       int64
		Path         int
	}
	var got []work
	for _, a := range tree.Async(tree.Roots[0]) {
		got = append(got, work{tree.Spans[a.Parent].Name, tree.Spans[a.Span].Name, a.Why, a.Wait / 1e6, len(a.Sections)})
	}
	same(t, "detached", got, []work{
		{"root", "log", diagnose.Follows, 0, 1},
		{"send", "handle", diagnose.Message, 15, 1},
		{"root", "flush", diagnose.Outlives, 0, 3},
		{"handle", "notify", diagnose.Late, 10, 1},
		{"root", "late", diagnose.Late, 20, 1},
	})
	same(t, "path", pathText(tree), "root send root winner root")
}

func TestTracesWithoutTheirRoot(t *testing.T) {
	for name, c := range map[string]struct {
		text, roots, orphans string
		synthetic            bool
	}{
		"the same parent is missing": {"a 10ms 20ms parent=gone\nb 15ms 40ms parent=gone", "unknown", "a b", true},
		"different parents":          {"a 10ms 20ms parent=gone\nb 15ms 40ms parent=lost", "a b", "a b", false},
		"one orphan":                 {"a 10ms 20ms parent=gone\n  b 12ms 14ms", "a", "a", false},
		"beside a root":              {"r 0ms 20ms\na 10ms 20ms parent=gone\nb 15ms 40ms parent=gone", "r", "a b", false},
		"the parent was malformed":   {"r 20ms 10ms id=r\na 10ms 20ms parent=r\nb 15ms 40ms parent=r", "unknown", "a b", true},
	} {
		t.Run(name, func(t *testing.T) {
			tree := build(t, c.text)
			names := func(spans []int) string {
				var all []string
				for _, i := range spans {
					all = append(all, tree.Spans[i].Name)
				}
				return strings.Join(all, " ")
			}
			same(t, "roots", names(tree.Roots), c.roots)
			same(t, "orphans", names(tree.Orphans), c.orphans)
			same(t, "synthetic", tree.Synthetic, c.synthetic)
			same(t, "incomplete", tree.Incomplete, true)
			if c.synthetic {
				root := tree.Spans[tree.Roots[0]]
				same(t, "root", []int64{root.Start / 1e6, root.End / 1e6}, []int64{10, 40})
			}
		})
	}
}

func TestOfSpansWithOneIDTheCompleteOneIsKept(t *testing.T) {
	tree := build(t, `
		root 0ms 100ms
		  early 10ms 10ms id=x
		  full  10ms 60ms id=x
		  full  10ms 60ms id=x
		  bad   90ms 80ms id=x`)
	same(t, "path", pathText(tree), "root full root")
	same(t, "duplicates", tree.Duplicates, 2)
	same(t, "invalid", tree.Invalid, 1)
	same(t, "malformed", tree.Malformed, []string{"x"})
}

func TestClientAndServerMayShareAnID(t *testing.T) {
	tree := build(t, `
		root 0ms 100ms
		  get    10ms 60ms id=x kind=client
		  serve  20ms 50ms id=x kind=server
		  query  30ms 40ms parent=x`)
	same(t, "path", pathText(tree), "root get serve query serve get root")
	same(t, "duplicates", tree.Duplicates, 0)
}

func TestCyclesAreCutAndWhatHangsBelowIsAnOrphan(t *testing.T) {
	tree := build(t, `
		root 0ms 100ms
		a 10ms 60ms id=a parent=c
		b 10ms 60ms id=b parent=a
		c 10ms 60ms id=c parent=b
		d 10ms 60ms id=d parent=b
		e 10ms 60ms id=e parent=d
		f 10ms 60ms id=f parent=f`)
	same(t, "malformed", tree.Malformed, []string{"a", "b", "c", "f"})
	same(t, "orphans", ids(tree, tree.Orphans), []string{"d"})
	same(t, "invalid", tree.Invalid, 4)
	same(t, "path", pathText(tree), "root")
}

func TestFindReturnsTheTopmost(t *testing.T) {
	tree := build(t, `
		root 0ms 100ms
		  a 0ms 50ms service=x
		    op 0ms 40ms
		  op 60ms 70ms service=x`)
	same(t, "start", tree.Spans[tree.Find("x", "op")].Start, int64(60e6))
	same(t, "nothing", tree.Find("x", "none"), -1)
}

func TestClipCutsWithAllAncestors(t *testing.T) {
	tree := build(t, `
		root 10ms 100ms
		  a 50ms 150ms
		    b 0ms 140ms
		    c 120ms 130ms`)
	got := map[string][2]int64{}
	for i := range tree.Spans {
		start, end := tree.Clip(i)
		got[tree.Spans[i].Name] = [2]int64{start / 1e6, end / 1e6}
	}
	same(t, "clipped", got, map[string][2]int64{"root": {10, 100}, "a": {50, 100}, "b": {50, 100}, "c": {100, 100}})
}

func TestEmptyTraceHasNoRoot(t *testing.T) {
	tree := diagnose.Build(trace.Trace{}, diagnose.ClockOptions{})
	same(t, "spans and roots", len(tree.Spans)+len(tree.Roots), 0)
}

// slowPath is the definition of the path, as directly as it can be written: at each moment it looks at all children.
func slowPath(t *diagnose.Tree, span int, from, to int64) []diagnose.Section {
	var path []diagnose.Section // latest first
	type cut struct {
		child      int
		start, end int64
	}
	var children []cut
	for _, k := range t.Blocking(span) {
		c := cut{int(k), max(t.Spans[k].Start, from), min(t.Spans[k].End, to)}
		if c.start <= c.end && t.Spans[k].Start <= to {
			children = append(children, c)
		}
	}
	now, later := to, -1
	for now > from {
		best := cut{child: -1}
		for _, c := range children {
			end := c.end
			if later >= 0 && end > now && c.start < now && end < min(t.Spans[later].End, to) &&
				(end-now <= t.Granularity() || (end-now)*100 < to-from) && slowEvents(t, span, now, t.Spans[c.child].End) == 2 {
				end = now
			}
			if end > now || c.start >= end || end <= from {
				continue
			}
			// An overlapping child counts with its own end, which is later than all that ended before.
			if best.child < 0 || c.end > best.end || c.end == best.end && (c.start < best.start ||
				c.start == best.start && t.Spans[c.child].ID < t.Spans[best.child].ID) {
				best = c
			}
		}
		if best.child < 0 {
			break
		}
		if end := min(best.end, now); end < now {
			path = append(path, diagnose.Section{Span: span, Start: end, End: now})
		}
		inner := slowPath(t, best.child, best.start, min(best.end, now))
		slices.Reverse(inner)
		path = append(path, inner...)
		now, later = best.start, best.child
	}
	if now > from {
		path = append(path, diagnose.Section{Span: span, Start: from, End: now})
	}
	slices.Reverse(path)
	return path
}

func slowEvents(t *diagnose.Tree, span int, from, to int64) (n int) {
	for _, k := range t.Blocking(span) {
		for _, at := range []int64{t.Spans[k].Start, t.Spans[k].End} {
			if at >= from && at <= to {
				n++
			}
		}
	}
	return n
}

func TestPathIsThatOfTheDefinition(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 3))
		tr := random(r)
		for i := range tr.Spans { // moments close together, and spans that nest, so that rules 3 to 6 meet
			s := &tr.Spans[i]
			s.Start = int64(r.IntN(30)) * 10
			s.End = s.Start + int64(r.IntN(200))
			s.ID = string(rune('A' + i))
			if s.Parent = ""; i > 0 {
				s.Parent = tr.Spans[r.IntN(min(i, 4))].ID
			}
		}
		tr.Spans[0].Start, tr.Spans[0].End = 0, 2000
		tree := diagnose.Build(tr, diagnose.ClockOptions{})
		for i, s := range tree.Spans {
			if got, want := tree.Path(i), slowPath(tree, i, s.Start, s.End); !slices.Equal(got, want) {
				same(t, "path", got, want)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, tree.Spans)
		}
	}
}

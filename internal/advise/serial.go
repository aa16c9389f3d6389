package advise

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// inRoute calls visit for every span of the traces of the finding's route that is of the finding's service and operation.
func (s *situation) inRoute(visit func(n int, t *timeline, i int)) {
	last := -1
	for _, r := range s.corpus.routes[s.route] {
		if r.trace == last {
			continue // the trace has several roots of that name
		}
		last = r.trace
		t := s.corpus.traces[r.trace]
		for i := range t.spans {
			if t.spans[i].Service == s.finding.Service && t.spans[i].Name == s.finding.Operation {
				visit(r.trace, t, i)
			}
		}
	}
}

// What still counts as one call right after another: a longer pause is the caller's own work, perhaps on the answer. As
// in the diagnosis.
const (
	pauseRatio = 0.25 // of the shorter of the two calls
	leastPause = int64(time.Millisecond)
)

// chains are the runs of calls of span i, to different places, each of which began soon after the one before it had ended.
func (t *timeline) chains(i int) [][]int {
	kids := t.blocking(i)
	line := t.line(i, kids)
	var chains [][]int
	var run []int
	end := func() {
		// Calls of one kind only are a loop, which is another finding's matter.
		if slices.ContainsFunc(run, func(k int) bool { return t.callee(k) != t.callee(run[0]) }) {
			chains = append(chains, run)
		}
		run = nil
	}
	var busy int64 // when all that began so far had ended
	last := 0      // the latest of run
	for k, kid := range kids {
		s := &line[k]
		switch {
		case s.start < busy:
			if len(run) > 0 {
				run = run[:len(run)-1] // the last one has company: it is no link of a chain
			}
			end()
		case t.calls[kid]:
			before := &line[last]
			if len(run) > 0 && s.start-before.wait > max(leastPause, int64(pauseRatio*float64(min(s.end-s.start, before.end-before.start)))) {
				end()
			}
			run, last = append(run, kid), k
		}
		busy = max(busy, s.wait)
	}
	end()
	return chains
}

var parallelEntry = entry{
	kind: KindParallelise, step: StepFewer, answers: []string{"LP101"}, cure: parallelise,
	needs: []string{"no call needs the answer of another one of them"},
	watch: []string{"in-flight calls and p99 of the callees: they see bursts", "connections of the caller"},
}

// links finds the chains of calls at, or around, the spans that visit gives.
func (c *corpus) links(visit func(func(n int, t *timeline, i int))) (callers []ref, groups map[int][][]int) {
	groups = make(map[int][][]int)
	seen := make(map[ref]bool)
	visit(func(n int, t *timeline, i int) {
		// It is the caller, or a call that it makes: the callee's span, or the caller's of it.
		for up := 0; up <= 2 && !seen[ref{n, i}]; up++ {
			seen[ref{n, i}] = true
			if chains := t.chains(i); len(chains) > 0 {
				callers = append(callers, ref{n, i})
				groups[n] = append(groups[n], chains...)
				return
			}
			if !t.hasParent(i) {
				return
			}
			i = t.parent[i]
		}
	})
	return callers, groups
}

// atOnce is the plan in which the calls of each chain start together.
func (c *corpus) atOnce(callers []ref, groups map[int][][]int) plan {
	return plan{spans: callers, doubt: plainDoubt, apply: func(_, n int, e *edit) {
		for _, group := range groups[n] {
			e.together(group, c.traces[n].calledAs)
		}
	}}
}

// parallelise cures calls that are made one after the other.
func parallelise(s *situation) (Action, string) {
	callers, groups := s.corpus.links(s.inRoute)
	if len(callers) < minCalls {
		return Action{}, fmt.Sprintf("no advice to call in parallel: %d recorded chains of calls are too few for a forecast; at least %d are needed", len(callers), minCalls)
	}
	names := s.names(groups)
	return Action{
		Kind:    KindParallelise,
		Effects: s.forecast(s.corpus.atOnce(callers, groups)),
		Summary: fmt.Sprintf("in %s, start %s together and wait for all of them", s.corpus.mostly(callers), names),
		Cost:    "no more calls, but more of them at once: the callees see bursts, the caller holds more connections",
		Risk:    "only calls that need nothing of each other's answers: the traces show the order, not the reason for it. One failure should cancel the rest",
		Text:    parallelShape(names),
	}, ""
}

// parallelShape is what the code looks like before and after.
func parallelShape(names string) string {
	var before, after strings.Builder
	for i, call := range strings.Split(names, ", ") {
		call, _, _ = strings.Cut(call, " and ")
		fmt.Fprintf(&before, "    r%d = call(%q)\n", i+1, call)
		fmt.Fprintf(&after, "    g.start(r%d = call(%q))\n", i+1, call)
	}
	return "before:\n" + before.String() + "after (errgroup, structured concurrency, Promise.all):\n    g = group with the caller's deadline\n" + after.String() +
		"    g.wait()    # the first failure cancels the rest"
}

// mostly is the service and operation that most of the spans have.
func (c *corpus) mostly(spans []ref) string {
	count := make(map[string]int)
	for _, r := range spans {
		count[c.span(r).Service+" "+c.span(r).Name]++
	}
	return most(count)
}

// names lists what the calls of the chains are called, most frequent first.
func (s *situation) names(groups map[int][][]int) string {
	count := make(map[string]int)
	for n, list := range groups {
		for _, group := range list {
			for _, k := range group {
				count[s.corpus.traces[n].callee(k)]++
			}
		}
	}
	list := make([]string, 0, len(count))
	for name := range count {
		list = append(list, name)
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	const shown = 5
	var text strings.Builder
	for i, name := range list[:min(shown, len(list))] {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(name)
	}
	if more := len(list) - shown; more > 0 {
		fmt.Fprintf(&text, " and %d more", more)
	}
	return text.String()
}

// callee is what a person calls the call that span k makes, by the span that serves it if there is one.
func (t *timeline) callee(k int) string {
	if kids := t.blocking(k); len(kids) == 1 && t.spans[kids[0]].Service != t.spans[k].Service {
		if next := &t.spans[kids[0]]; !isGateway(next) {
			return next.Service + " " + next.Name
		}
		return t.spans[kids[0]].Name
	}
	return t.spans[k].Service + " " + t.spans[k].Name
}

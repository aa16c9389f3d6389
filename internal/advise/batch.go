package advise

import (
	"fmt"
	"slices"
)

// minBatch is how many calls of one kind a span must make before joining them is worth a thought.
const minBatch = 3

// batch cures one small call for each of many things by one call for all of them.
func batch(s *situation) (Action, string) {
	loops := make(map[int][][]int) // by trace: the calls of each loop
	seen := make(map[ref]bool)
	var callers []ref
	calls := 0
	s.inRoute(func(n int, t *timeline, i int) {
		at, group := t.loop(n, i, seen)
		if len(group) < minBatch {
			return
		}
		callers = append(callers, at)
		loops[n] = append(loops[n], group)
		calls += len(group)
	})
	if len(callers) < minCalls {
		return Action{}, fmt.Sprintf("no advice to batch: %d recorded loops are too few for a forecast; at least %d are needed", len(callers), minCalls)
	}
	effects := s.corpus.replay(s.keys(callers), 1, func(_, n int, e *edit) {
		for _, group := range loops[n] {
			e.set(group[0], s.corpus.traces[n].longCall(group))
			for _, k := range group[1:] {
				e.set(k, 0)
			}
		}
	})
	each := float64(calls) / float64(len(callers))
	return Action{
		Kind:      KindBatch,
		Effects:   effects,
		ExtraLoad: 1/each - 1,
		Summary:   fmt.Sprintf("in %s, ask for all in one call in place of %.0f (IN list, join, or a batch endpoint)", s.corpus.named(callers), each),
		Benefit:   fmt.Sprintf("one call in place of %.0f", each),
		Cost:      "a larger answer, and code in the caller and perhaps in the callee",
		Risk:      "the forecast takes the joint call to last as long as the p95 of the single ones of its loop; one that reads much more takes longer",
	}, ""
}

// longCall is the p95 in ns of the calls of one loop. It is taken loop by loop, since what makes one call of a trace slow
// mostly makes all of them slow.
func (t *timeline) longCall(group []int) int64 {
	took := make([]int64, len(group))
	for i, k := range group {
		took[i] = t.recorded(k)
	}
	slices.Sort(took)
	return quantile(took, 0.95)
}

// loop finds the calls of one kind that span i makes most of, or else that it is one of, and who makes them. A caller
// that was seen before has none.
func (t *timeline) loop(n, i int, seen map[ref]bool) (caller ref, group []int) {
	caller = ref{n, i}
	if !seen[caller] {
		seen[caller] = true
		groups := t.alike(i)
		for _, k := range t.blocking(i) { // in their order, so that of equals the first wins
			if calls := groups[t.calledAs(k)]; t.calls[k] && len(calls) > len(group) {
				group = calls
			}
		}
		if len(group) >= minBatch {
			return caller, group
		}
	}
	call := t.caller(n, i).span
	if !t.hasParent(call) || seen[ref{n, t.parent[call]}] {
		return caller, nil
	}
	caller = ref{n, t.parent[call]}
	seen[caller] = true
	return caller, t.alike(caller.span)[t.calledAs(call)]
}

// calledAs names the kind of call that span k makes: equal calls of one span are the rounds of a loop.
func (t *timeline) calledAs(k int) string {
	return t.callee(k) + "\x00" + shape(t.spans[k].Attr("db.query.text", "db.statement"))
}

// alike sorts the calls of span i by kind, each list in the order they began.
func (t *timeline) alike(i int) map[string][]int {
	groups := make(map[string][]int)
	for _, k := range t.blocking(i) {
		key := t.calledAs(k)
		groups[key] = append(groups[key], k)
	}
	return groups
}

package advise

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// minBatch is how many calls of one kind a span must make before joining them is worth a thought.
const minBatch = 3

// slowRound is the quantile of the calls of a loop that a joint call is taken to last for: longer than most, as it reads more.
const slowRound = 0.8

var batchEntry = entry{
	kind: KindBatch, step: StepFewer, answers: []string{"LP102", "LP121"}, cure: batch,
	needs: []string{"the callee takes several keys in one call, or can be taught to", "the list of keys has a bound"},
	watch: []string{"p99 and bytes of the joint call", "rows that the database reads for each call", "errors of the callee"},
}

// batch cures one small call for each of many things by one call for all of them.
func batch(s *situation) (Action, string) {
	l := s.corpus.loops(s.inRoute)
	if len(l.callers) < minCalls {
		return Action{}, fmt.Sprintf("no advice to batch: %d recorded loops are too few for a forecast; at least %d are needed", len(l.callers), minCalls)
	}
	p := s.corpus.joined(l)
	each := l.size()
	return Action{
		Kind:      KindBatch,
		Effects:   s.forecast(p),
		ExtraLoad: p.extra,
		Summary:   fmt.Sprintf("in %s, ask for all in one call in place of %.0f (IN list, join, or a batch endpoint)", s.corpus.mostly(l.callers), each),
		Benefit:   fmt.Sprintf("one call in place of %.0f", each),
		Cost:      "a larger answer, and code in the caller and perhaps in the callee",
		Risk:      "the forecast takes the joint call to last as long as the p80 of the single ones of its loop; one that reads much more takes longer",
		Text:      s.batchShape(),
	}, ""
}

// batchShape is what the code looks like before and after.
func (s *situation) batchShape() string {
	if s.finding.Segment == trace.SegDatabase {
		return fmt.Sprintf(`-- before, once for each id:
%s
-- after, once:
%s
-- with the ids as one array parameter; then put the rows in a map by id.`, statement(s.finding.Operation, "SELECT ... WHERE id = $1"),
			joinedStatement(s.finding.Operation))
	}
	return fmt.Sprintf(`before:
    for id in ids:
        results[id] = %[1]s(id)          # one call each
after:
    results = %[1]s_many(ids)            # one call; keep ids below some hundreds a call`, callName(s.finding.Operation))
}

// statement is an operation if it reads like one, or else a stand-in.
func statement(operation, standIn string) string {
	if strings.Contains(operation, " ") && strings.EqualFold(operation[:min(6, len(operation))], "select") {
		return operation
	}
	return standIn
}

// equals finds the last comparison of a statement with a placeholder.
var equals = regexp.MustCompile(`(?i)=\s*(\$\d+|\?|%s|:\w+)\s*$`)

// joinedStatement asks for many where operation asks for one.
func joinedStatement(operation string) string {
	if found := equals.FindString(operation); found != "" {
		return strings.TrimSuffix(operation, found) + "= ANY($1)"
	}
	return "SELECT ... WHERE id = ANY($1)"
}

// callName makes an identifier of an operation.
func callName(operation string) string {
	name := strings.ToLower(strings.Join(strings.FieldsFunc(withoutIDs(operation), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}), "_"))
	return cmp.Or(strings.TrimSuffix(name, "_id"), "call")
}

// A loopSet is the rounds that callers make of one kind of call, by trace.
type loopSet struct {
	callers []ref
	groups  map[int][][]int
	calls   int
}

// size is how many calls a loop makes.
func (l *loopSet) size() float64 { return share(float64(l.calls), float64(len(l.callers))) }

// loops finds those of the callers, or calls, that visit gives.
func (c *corpus) loops(visit func(func(n int, t *timeline, i int))) *loopSet {
	l := &loopSet{groups: make(map[int][][]int)}
	seen := make(map[ref]bool)
	visit(func(n int, t *timeline, i int) {
		at, group := t.loop(n, i, seen)
		if len(group) < minBatch {
			return
		}
		l.callers = append(l.callers, at)
		l.groups[n] = append(l.groups[n], group)
		l.calls += len(group)
	})
	return l
}

// joined is the plan in which each loop makes one call.
func (c *corpus) joined(l *loopSet) plan {
	return plan{spans: l.callers, doubt: modelDoubt, extra: share(1, l.size()) - 1, apply: func(_, n int, e *edit) {
		for _, group := range l.groups[n] {
			e.set(group[0], c.traces[n].longCall(group))
			for _, k := range group[1:] {
				e.set(k, 0)
			}
		}
	}}
}

// longCall is a high quantile in ns of the calls of one loop. It is taken loop by loop, since what makes one call of a trace slow
// mostly makes all of them slow.
func (t *timeline) longCall(group []int) int64 {
	took := make([]int64, len(group))
	for i, k := range group {
		took[i] = t.recorded(k)
	}
	slices.Sort(took)
	return quantile(took, slowRound)
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

// alike sorts the calls of span i by kind, each list in the order they began. One that failed and was made again is no
// round of a loop.
func (t *timeline) alike(i int) map[string][]int {
	groups := make(map[string][]int)
	for _, k := range t.blocking(i) {
		if t.failed(k) {
			continue
		}
		key := t.calledAs(k)
		groups[key] = append(groups[key], k)
	}
	return groups
}

package advise

import (
	"fmt"
	"strings"
)

var indexEntry = entry{
	kind: KindIndex, step: StepFewer, answers: []string{"LP109"}, cure: index, plain: true,
	needs: []string{"the plan was read with the values that are slow", "disk room for the index, and a time of few writes to build it"},
	watch: []string{"pg_stat_user_indexes.idx_scan of the new index: above 0", "write latency of the table", "pg_stat_progress_create_index while it is built", "the plan of the statement afterwards"},
}

// The most that an index is believed to speed a query up: planners overrate what they have not run.
const mostIndexGain = 100.0

// index cures a query that reads more rows than it needs.
func index(s *situation) (Action, string) {
	d := s.finding.Detail
	switch {
	case d.Variant == "bad_plan": // for which [analyze] is there
		return Action{}, ""
	case d.Index == "":
		return s.rewrite()
	}
	a := Action{
		Kind:    KindIndex,
		Summary: fmt.Sprintf("make the index that %s lacks", shortStatement(d.Statement, targetOf(s.finding).String())),
		Cost:    "disk, and a little more work for each write of the table; the build reads the whole table twice",
		Risk:    "CONCURRENTLY takes no lock that stops writes, but it waits for old transactions, and one that fails leaves an invalid index to drop",
		Text:    strings.TrimSuffix(d.Index, ";") + ";\n-- afterwards: ANALYZE " + strings.Join(d.Tables, ", ") + "; to undo: DROP INDEX CONCURRENTLY <its name>;",
	}
	if len(d.Tables) == 0 {
		a.Text = strings.TrimSuffix(d.Index, ";") + ";\n-- to undo: DROP INDEX CONCURRENTLY <its name>;"
	}
	if d.IndexGain <= 0 {
		return a, "no forecast for the index: it was not tried hypothetically (the hypopg extension is not there)"
	}
	factor := min(mostIndexGain, 1/max(1-d.IndexGain, 1/mostIndexGain))
	p := s.corpus.indexed(s.calls(), factor)
	a.Effects = s.forecast(p)
	a.Benefit = fmt.Sprintf("the planner's cost falls by %.0f%%, tried hypothetically", 100*d.IndexGain)
	a.Risk += "; " + p.notes[0]
	return a, ""
}

// rewrite is what can be said of a slow query that lacks no index.
func (s *situation) rewrite() (Action, string) {
	d := s.finding.Detail
	a := Action{
		Kind: KindIndex, Cost: "an hour with the plan", Risk: "EXPLAIN ANALYZE runs the statement; a rewritten statement must give the same rows",
		Summary: fmt.Sprintf("read fewer rows in %s: its plan names no single index that would do it", shortStatement(d.Statement, targetOf(s.finding).String())),

		Prerequisites: []string{"the plan was read with the values that are slow"},
		Watch:         []string{"the plan of the statement afterwards", "pg_stat_statements.mean_exec_time of the statement"},
		Text:          "EXPLAIN (ANALYZE, BUFFERS) of the statement with values that are slow",
	}
	if len(d.Tables) == 0 { // nobody has read it yet
		a.Summary = fmt.Sprintf("read the plan of %s, to see which rows it reads for nothing", shortStatement(d.Statement, targetOf(s.finding).String()))
	}
	return a, "no forecast: what a better plan would take is not known"
}

// shortStatement is a statement to be named in a sentence; where there is none, instead is.
func shortStatement(text, instead string) string {
	const enough = 80
	text = strings.Join(strings.Fields(text), " ")
	switch {
	case text == "":
		return instead
	case len(text) > enough:
		return strings.ToValidUTF8(text[:enough], "") + "…"
	}
	return text
}

package advise

import (
	"cmp"
	"fmt"
	"strings"
)

var analyzeEntry = entry{
	kind: KindAnalyze, step: StepFewer, answers: []string{"LP109"}, cure: analyze, plain: true,
	needs: []string{"the plan was read with the values that are slow"},
	watch: []string{"the plan of the statement afterwards: its rows beside the real ones", "pg_stat_statements.mean_exec_time of the statement", "n_mod_since_analyze of the table"},
}

// analyze cures a plan that was chosen for another amount of data.
func analyze(s *situation) (Action, string) {
	d := s.finding.Detail
	if d.Variant != "bad_plan" {
		return Action{}, ""
	}
	tables := cmp.Or(strings.Join(d.Tables, ", "), "its tables")
	return Action{
		Kind:    KindAnalyze,
		Summary: fmt.Sprintf("run ANALYZE on %s: the planner misjudges how many rows %s gives", tables, shortStatement(d.Statement, targetOf(s.finding).String())),
		Benefit: "the planner sees how much data there is, and can choose the index that it passes over now",
		Cost:    "ANALYZE reads a sample of the table, for seconds",
		Risk:    "other statements of the table get new plans too",
		Text: "ANALYZE " + tables + ";\n-- so that it stays so: ALTER TABLE <table> SET (autovacuum_analyze_scale_factor = 0.02);\n" +
			"-- if the estimates stay wrong: CREATE STATISTICS (dependencies, ndistinct, mcv) ON the columns that go together",
	}, "no forecast: what a better plan would take is not known"
}

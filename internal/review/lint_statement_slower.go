package review

import "fmt"

const (
	topStatements = 20  // of a database, by the time that they take together
	leastRuns     = 100 // of a statement in both periods
	leastMeanMS   = 1.0 // below it a mean is noise
	slowerBy      = 1.5 // times as long is slower, whatever the plan
	sameAs        = 1.2 // times as long is as fast as before
)

// statementSlower is LP319: one of the dearest statements got slower since the last review, or the server found another way
// to its rows. A plan that was made for given values may be another for others: without a slower mean it says nothing.
func statementSlower(in *Input) (list []Finding) {
	base := in.baseline()
	for _, d := range in.Systems.Databases {
		was := base.database(d.Name)
		for _, s := range d.Statements[:min(len(d.Statements), topStatements)] {
			b, known := was.statement(s.Key)
			if !known || s.Calls < leastRuns || b.Calls < leastRuns {
				continue
			}
			now, then := s.MeanMS(), b.MeanMS()
			slower := now >= leastMeanMS && now >= slowerBy*then
			planned := s.Plan != "" && b.Plan != "" && s.Plan != b.Plan && (s.Generic && b.Generic || now >= sameAs*then && now >= leastMeanMS)
			if !slower && !planned {
				continue
			}
			f := Finding{
				Code: "LP319", Name: "statement slower", Severity: Warning, Subject: fmt.Sprintf("%s in %s", s.Text, d.Name), Size: now, Basis: s.Plan,
				Detail: fmt.Sprintf("%.3g ms a call on average, %.3g ms at the last review, %s calls", now, then, number(s.Calls)),
				Mend:   "look at its plan (`longpole probe`): rows that grew, statistics that are old, other values",
			}
			if planned {
				f.Detail += fmt.Sprintf("; its plan was %s and is %s", b.Plan, s.Plan)
				f.Mend = "ANALYZE its tables, then compare the plans; an index may have gone, or a table outgrown the plan"
			}
			if !slower {
				f.Name, f.Severity = "plan changed", Info
			}
			list = append(list, f)
		}
	}
	return list
}

package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	serverPart = 0.5  // of the span's time that the server must have taken itself, to be the slow one
	elsewhere  = 0.25 // below which the time went by somewhere else
	scanShare  = 0.3  // of a plan's cost, from where a scan of a whole table matters
	indexGain  = 0.3  // of the planner's cost, from where an index is worth naming
	offBy      = 10.0 // times, from where the planner's idea of the rows is wrong
	staleStats = 0.2  // of a table's rows changed since it was analysed
	maxShown   = 200  // characters of a statement shown in a summary
)

// slowDatabase finds LP109: calls of a database that take too long, and with what the server tells, why.
func slowDatabase(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().asked(trace.SegDatabase) {
		f, slow := v.slowQuery(s)
		if f.Detail.Variant == slowQueryVariant && (v.once(s) || !s.constant && s.more() < queryLeast) {
			continue
		}
		if slow && (!s.faint || f.Verdict == Confirmed && f.Detail.Variant != slowQueryVariant) {
			found = append(found, f)
		}
	}
	return found
}

// queryLeast is the least median of what the long ones take more than is usual, where nothing tells why: less is a busy machine's own.
const queryLeast = int64(10 * time.Millisecond)

// slowQueryVariant is a slow query of which nothing more is known.
const slowQueryVariant = "slow_query"

func (v *view) slowQuery(s *suspect) (f Finding, slow bool) {
	text := v.statementOf(s)
	f = v.finding("LP109", "database", s, 0.6)
	f.Detail.Variant, f.Detail.Statement = slowQueryVariant, withoutLiterals(text)
	f.Summary = fmt.Sprintf("%s waits for its database for %s: %s", s.service, s.part(), shorten(f.Detail.Statement, s.operation))
	slow = v.askDatabase(&f, s, text)
	return f, slow
}

// statementOf is the text of the statement that the long works of s take most time with; "" = the spans do not tell.
func (v *view) statementOf(s *suspect) string {
	total := make(map[string]int64)
	example := make(map[string]string)
	for _, w := range s.works {
		if !s.long(w) {
			continue
		}
		_, span := v.span(w)
		text := span.Attr(keysQuery...)
		shape := withoutLiterals(text)
		total[shape] += w.self
		if old, ok := example[shape]; !ok || text < old {
			example[shape] = text
		}
	}
	best := ""
	for _, shape := range ordered(total) {
		if shape != "" && total[shape] > total[best] {
			best = shape
		}
	}
	return example[best]
}

func shorten(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return text
}

// askDatabase weighs a finding against what the server says of the statement. It is false when the server says that it was not
// slow.
func (v *view) askDatabase(f *Finding, s *suspect, text string) bool {
	st, server := v.facts.Statement(text)
	if st == nil {
		f.doubt(0, "waiting for a lock or for a connection looks the same as a slow query")
		return true
	}
	name := server.Name
	if name == "" {
		name = "the server"
	}
	mean, told := st.MeanMS()
	spans := meanOf(s.works)
	if len(st.Matches) > 0 {
		f.Detail.QueryID = st.Matches[0].QueryID
	}
	planned := planEvidence(f, st)
	took := fmt.Sprintf("%s takes %.1f ms for it on average, its spans %.1f ms", name, mean, ms(spans))
	switch {
	case told && mean < elsewhere*ms(spans) && !planned:
		v.look().refute(s.place, took+": the rest goes by before the statement gets there, or after")
		return false
	case told && mean < elsewhere*ms(spans):
		f.doubt(0.2, took)
	case told && mean >= serverPart*ms(spans):
		f.confirm(0.9, took)
	}
	return true
}

func meanOf(works []work) int64 {
	total := int64(0)
	for _, w := range works {
		total += w.self
	}
	return total / int64(max(len(works), 1))
}

// planEvidence puts down what the plan says, and reports whether that is a reason to be slow.
func planEvidence(f *Finding, st *evidence.PostgresStatement) (reason bool) {
	for _, scan := range st.SeqScans {
		if scan.Share < scanShare {
			continue
		}
		f.Detail.Tables = append(f.Detail.Tables, scan.Relation)
		line := fmt.Sprintf("its plan reads the whole table %s: %s of the planner's cost", scan.Relation, percent(scan.Share))
		if scan.Filter != "" {
			line += ", for " + scan.Filter
		}
		f.Evidence = append(f.Evidence, line)
	}
	if best, ok := st.Index(); ok && len(f.Detail.Tables) > 0 && (best.Tested && best.Gain() >= indexGain || !best.Tested) {
		f.Detail.Index, f.Detail.IndexGain, f.Detail.Variant = best.SQL(), best.Gain(), "missing_index"
		if best.Tested {
			f.confirm(0.9, fmt.Sprintf("an index %s would save %s of the cost, by the planner's reckoning", best.Definition(), percent(best.Gain())))
		} else {
			f.Evidence = append(f.Evidence, "an index "+best.Definition()+" would fit its conditions; the planner was not asked")
			f.Confidence = max(f.Confidence, 0.7)
		}
		return true
	}
	if st.Rows != nil && st.Rows.Factor >= offBy {
		f.Detail.Variant = "bad_plan"
		f.confirm(0.8, fmt.Sprintf("the planner expects %.0f rows, the statement gives %.0f on average: it chose its plan for another amount of data", st.Rows.Estimated, st.Rows.Observed))
		reason = true
	}
	for _, table := range st.Tables {
		if table.Stale() >= staleStats {
			f.Evidence = append(f.Evidence, fmt.Sprintf("%s of the rows of %s have changed since it was analysed", percent(table.Stale()), table.Name))
			if !reason && slices.Contains(f.Detail.Tables, table.Name) && distrusted(st, table.Name) {
				f.Detail.Variant, reason = "bad_plan", true
				f.confirm(0.8, "by these statistics the planner reads all of "+table.Name+" even where an index fits the condition")
			}
			if reason && !slices.Contains(f.Detail.Tables, table.Name) {
				f.Detail.Tables = append(f.Detail.Tables, table.Name)
			}
		}
	}
	return reason
}

// distrusted reports whether the planner was asked about an index on a table that fits a condition of st, and would not use it.
func distrusted(st *evidence.PostgresStatement, table string) bool {
	return slices.ContainsFunc(st.Indexes, func(c evidence.IndexCandidate) bool {
		return c.Table == table && c.Tested && (!c.Used || c.Gain() < indexGain)
	})
}

// waitedFor is how long a call was waited for, as a text.
func waitedFor(ns int64) string { return duration(time.Duration(ns)) }

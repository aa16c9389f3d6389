package probe

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// Query is a statement that the spans of traces hold.
type Query struct {
	Text     string // of the call that took longest, with its values if the spans have them
	Database string // that the spans name, as db.namespace; "" = they do not
	Nanos    int64  // of all its calls
}

// maxTexts bounds the texts that are told apart; others are left out.
const maxTexts = 10_000

var (
	keysText      = []string{"db.query.text", "db.statement"}
	keysSystem    = []string{"db.system.name", "db.system", "db.type"}
	keysNamespace = []string{"db.namespace", "db.name", "db.instance"}
)

// Queries is the statements of PostgreSQL in traces, those first that take most time, at most most of them. Statements
// that differ in their values only are one. Spans that do not name their system are taken for PostgreSQL's when their
// text can be planned.
func Queries(traces []trace.Trace, most int) []Query {
	type known struct {
		Query
		slowest int64
	}
	shapes := map[string]string{} // text to fingerprint; "" = none of ours
	found := map[string]*known{}
	for _, t := range traces {
		for i := range t.Spans {
			s := &t.Spans[i]
			text := s.Attr(keysText...)
			if text == "" || !ours(s.Attr(keysSystem...)) {
				continue
			}
			shape, seen := shapes[text]
			if !seen {
				if len(shapes) >= maxTexts {
					continue
				}
				shape, _ = evidence.Fingerprint(text)
				if _, err := evidence.ParseStatement(text); err != nil {
					shape = ""
				}
				shapes[text] = shape
			}
			if shape == "" {
				continue
			}
			database := s.Attr(keysNamespace...)
			k := found[database+"\x00"+shape]
			if k == nil {
				k = &known{Query: Query{Database: database}, slowest: -1}
				found[database+"\x00"+shape] = k
			}
			took := max(0, s.End-s.Start)
			k.Nanos += took
			if took > k.slowest || took == k.slowest && text < k.Text {
				k.slowest, k.Text = took, text
			}
		}
	}
	list := make([]Query, 0, len(found))
	for _, k := range found {
		list = append(list, k.Query)
	}
	slices.SortFunc(list, func(a, b Query) int {
		return cmp.Or(cmp.Compare(b.Nanos, a.Nanos), cmp.Compare(a.Text, b.Text), cmp.Compare(a.Database, b.Database))
	})
	return list[:min(len(list), max(most, 0))]
}

// ours reports whether a span's db.system may be PostgreSQL.
func ours(system string) bool {
	system = strings.ToLower(system)
	return system == "" || system == "sql" || system == "other_sql" || strings.Contains(system, "postgres") || strings.Contains(system, "pg")
}

// of reports whether q may be about a database.
func (q Query) of(database string) bool {
	name, _, _ := strings.Cut(q.Database, "|") // OpenTelemetry has database|schema
	name, _, _ = strings.Cut(name, ".")
	return q.Database == "" || database == "" || name == database
}

package evidence

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StatementStat is a row of pg_stat_statements, or the difference of two.
type StatementStat struct {
	QueryID    int64   `json:"query_id"`
	User       uint32  `json:"user_oid"`
	Database   uint32  `json:"database_oid"`
	Text       string  `json:"text,omitempty"` // normalised by the server: constants are $n; "" = not read
	Calls      float64 `json:"calls"`
	TotalMS    float64 `json:"total_ms"` // of execution
	MaxMS      float64 `json:"max_ms"`   // since the statistics began, in a difference too
	StddevMS   float64 `json:"stddev_ms,omitempty"`
	Rows       float64 `json:"rows"`
	SharedHit  float64 `json:"shared_hit"`
	SharedRead float64 `json:"shared_read"`
	TempBlocks float64 `json:"temp_blocks"`
	ReadMS     float64 `json:"read_ms,omitempty"` // waiting for blocks; 0 without track_io_timing
	WALBytes   float64 `json:"wal_bytes"`
}

// MeanMS is the time of one call, 0 without calls.
func (s StatementStat) MeanMS() float64 {
	if s.Calls == 0 {
		return 0
	}
	return s.TotalMS / s.Calls
}

// Statements is one look at pg_stat_statements.
type Statements struct {
	At    time.Time       // of the server
	Reset time.Time       // when it was last emptied; zero = not told
	Lost  int64           // entries that were pushed out by newer ones since
	List  []StatementStat // bounded by the collector
	Cut   bool            // there were more
	Gaps  []Gap
}

type statementKey struct {
	query    int64
	user, db uint32
}

func (s StatementStat) key() statementKey { return statementKey{s.QueryID, s.User, s.Database} }

// StatementsBetween is what ran between two looks, and how long that was. fresh is true when the statistics were emptied in between or
// before is empty: then it is all that after holds, since its Reset. Entries that were pushed out and came again count from their
// return.
func StatementsBetween(before, after Statements) (list []StatementStat, span time.Duration, fresh bool) {
	span = after.At.Sub(before.At)
	fresh = before.At.IsZero() || after.Reset.After(before.At)
	if fresh {
		span = 0
		if !after.Reset.IsZero() {
			span = after.At.Sub(after.Reset)
		}
		before = Statements{}
	}
	was := make(map[statementKey]StatementStat, len(before.List))
	for _, s := range before.List {
		was[s.key()] = s
	}
	for _, s := range after.List {
		o, known := was[s.key()]
		if !known && before.Cut { // it may have been there, and what it did before is not known
			continue
		}
		if known && s.Calls >= o.Calls && s.TotalMS >= o.TotalMS {
			s.Calls, s.TotalMS, s.Rows = s.Calls-o.Calls, s.TotalMS-o.TotalMS, s.Rows-o.Rows
			s.SharedHit, s.SharedRead, s.TempBlocks = s.SharedHit-o.SharedHit, s.SharedRead-o.SharedRead, s.TempBlocks-o.TempBlocks
			s.ReadMS, s.WALBytes, s.StddevMS = s.ReadMS-o.ReadMS, s.WALBytes-o.WALBytes, 0
		}
		if s.Calls > 0 {
			list = append(list, s)
		}
	}
	return list, span, fresh
}

// TopByTotal are the n statements that took most time together.
func TopByTotal(list []StatementStat, n int) []StatementStat {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b StatementStat) int {
		return cmp.Or(compare(b.TotalMS, a.TotalMS), cmp.Compare(a.QueryID, b.QueryID), cmp.Compare(a.User, b.User), cmp.Compare(a.Database, b.Database))
	})
	return list[:min(n, len(list))]
}

// Match is a statement of the server that a span's text belongs to.
type Match struct {
	QueryID    int64   `json:"query_id"`
	By         string  `json:"by"`         // "server": the server gave both the same id; "text": their fingerprints are equal; "prefix": the span's text was cut
	Confidence float64 `json:"confidence"` // 0..1
}

// MatchText finds the statements with the fingerprint of a span's text. A text that was cut is matched by its beginning, if that is
// long enough and fits one statement only. Several matches mean several users, databases, or forms of one text: all are given.
func MatchText(sql string, list []StatementStat) []Match {
	want, cut := Fingerprint(sql)
	if want == "" {
		return nil
	}
	const enough = 40 // characters of a cut text
	var equal, prefix []Match
	seen := map[int64]bool{}
	forms := map[string]bool{}
	for _, s := range list {
		have, _ := Fingerprint(s.Text)
		switch {
		case s.Text == "" || seen[s.QueryID]:
		case have == want:
			seen[s.QueryID] = true
			equal = append(equal, Match{s.QueryID, "text", 0.9})
		case cut && len(want) >= enough && strings.HasPrefix(have, strings.TrimRight(want, " .…")):
			seen[s.QueryID] = true
			forms[have] = true
			prefix = append(prefix, Match{s.QueryID, "prefix", 0.5})
		}
	}
	if len(equal) > 0 {
		return equal
	}
	if len(forms) > 1 {
		return nil
	}
	return prefix
}

// Index is an index of a table.
type Index struct {
	Schema     string   `json:"schema"`
	Table      string   `json:"table"`
	Name       string   `json:"name"`
	Method     string   `json:"method"`  // btree, gin …
	Columns    []string `json:"columns"` // or expressions, in order
	Keys       []string `json:"-"`       // the same with opclass, collation and direction: equal texts mean equal order
	Include    []string `json:"include"` // columns that are only carried
	Predicate  string   `json:"predicate,omitempty"`
	Unique     bool     `json:"unique"`
	Constraint bool     `json:"constraint"` // a primary key, unique or exclusion constraint, a foreign key's target, or the index of a partitioned table needs it
	Valid      bool     `json:"valid"`      // false: a CREATE INDEX CONCURRENTLY failed; it costs writes and serves nobody
	Scans      float64  `json:"scans"`      // since the statistics began
	Bytes      int64    `json:"bytes"`
}

// Duplicate is an index that another one makes needless.
type Duplicate struct {
	Needless Index `json:"needless"`
	Covered  Index `json:"covered_by"`
	Exact    bool  `json:"exact"` // false: its keys are the first of the other's
}

// DuplicateIndexes finds the indexes whose keys are those of another, or the first of another btree, with the same condition. One that
// a constraint needs or that is unique is never needless, unless the other is unique with the same keys. Of two equal ones the
// larger is needless, then the later by name.
func DuplicateIndexes(list []Index) []Duplicate {
	var out []Duplicate
	gone := map[string]bool{}
	for i, a := range list {
		for j, b := range list {
			if i == j || gone[id(a)] || gone[id(b)] || a.Schema != b.Schema || a.Table != b.Table || !a.Valid || !b.Valid ||
				a.Method != b.Method || a.Predicate != b.Predicate || a.Constraint {
				continue
			}
			exact := slices.Equal(a.Keys, b.Keys)
			prefix := a.Method == "btree" && len(a.Keys) < len(b.Keys) && slices.Equal(a.Keys, b.Keys[:len(a.Keys)])
			carried := !slices.ContainsFunc(a.Include, func(c string) bool { return !slices.Contains(b.Include, c) })
			switch {
			case !carried || a.Unique && (!exact || !b.Unique) || !exact && !prefix:
			case exact && !b.Constraint && b.Unique == a.Unique && len(b.Include) == len(a.Include) && (b.Bytes > a.Bytes || b.Bytes == a.Bytes && b.Name > a.Name):
				// the other one is the needless one
			default:
				gone[id(a)] = true
				out = append(out, Duplicate{a, b, exact})
			}
		}
	}
	return out
}

func id(x Index) string { return strconv.Quote(x.Schema) + strconv.Quote(x.Name) }

// UnusedIndexes are those that no scan used since the statistics began and that no constraint needs, largest first. They may still
// be used on a replica, or once a month: compare with the age of the statistics.
func UnusedIndexes(list []Index) []Index {
	out := slices.DeleteFunc(slices.Clone(list), func(x Index) bool { return x.Scans > 0 || x.Unique || x.Constraint })
	slices.SortStableFunc(out, func(a, b Index) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return out
}

// Table is what the statistics say of a table.
type Table struct {
	Schema       string    `json:"schema"`
	Name         string    `json:"name"`
	Rows         float64   `json:"rows"`      // as the planner believes (reltuples); -1 = never analysed
	Live         float64   `json:"live_rows"` // as the statistics count (n_live_tup), itself an estimate
	Dead         float64   `json:"dead_rows"`
	Changed      float64   `json:"changed_since_analyze"`
	Analyzed     time.Time `json:"analyzed"` // by hand or by autovacuum; zero = never
	Vacuumed     time.Time `json:"vacuumed"`
	SeqScans     float64   `json:"seq_scans"`
	SeqRows      float64   `json:"seq_rows"`
	IndexScans   float64   `json:"index_scans"`
	Writes       float64   `json:"writes"` // rows inserted, updated, deleted since the statistics began: what an index would cost
	Bytes        int64     `json:"bytes"`
	Indexes      int       `json:"indexes"`
	Columns      []Column  `json:"columns,omitempty"`
	MissingStats bool      `json:"missing_stats,omitempty"` // pg_stats shows no column: never analysed, or no right to read the table
}

// Column is what the planner knows of a column.
type Column struct {
	Name     string  `json:"name"`
	Distinct float64 `json:"n_distinct"` // as in pg_stats: negative = share of the rows
}

// Stale is the share of the table's rows that changed since it was analysed, 0 and up; 1 and more when it never was and has rows.
func (t Table) Stale() float64 {
	rows := max(t.Live, 1)
	if t.Analyzed.IsZero() && t.Live > 0 {
		return max(1, t.Changed/rows)
	}
	return t.Changed / rows
}

// ForeignKey is one without an index on the columns that refer: deleting or renaming what it refers to reads the whole table.
type ForeignKey struct {
	Schema  string   `json:"schema"`
	Table   string   `json:"table"` // that refers
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
	To      string   `json:"to"` // the table referred to
	Rows    float64  `json:"rows"`
}

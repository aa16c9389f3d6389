package lab

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/longpole/longpole/internal/scenario"
)

const (
	// maxTableRows bounds the rows that a table really has. To read 2000 rows costs SQLite a tenth of a millisecond of a core, and under
	// the race detector a hundred times as much; the rows that a scenario has beyond them cost simulated time.
	maxTableRows = 2000
	maxAdded     = 200 // rows that inserts leave behind before they are taken away again
)

// engine is the SQLite database of a store, in memory: its tables, its indexes and its planner. It does one thing at a time.
type engine struct {
	db     *sql.DB
	mu     sync.Mutex
	tables map[string]*layout
	plans  map[string]bool // whether a statement reads its whole table, by text; forgotten when a table changes
}

// layout is how the rows of a table look: row i holds i modulo so much in a column, so that each value has as many rows as the
// scenario's statements want.
type layout struct {
	rows    int
	modulus map[string]int // of each column besides id and body
	indexes []string       // columns, whether the index is there now or not
	added   int            // rows, since some were taken away
}

// openEngine makes the tables of a store, with a column for everything that statements look up by.
func openEngine(ctx context.Context, spec *scenario.Store, queries []*scenario.Query) (*engine, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // another connection would have a memory of its own
	e := &engine{db: db, tables: map[string]*layout{}, plans: map[string]bool{}}
	for i := range spec.Tables {
		if err := e.fill(ctx, &spec.Tables[i], queries); err != nil {
			_ = db.Close() // the first error says more
			return nil, fmt.Errorf("table %s: %w", spec.Tables[i].Name, err)
		}
	}
	return e, nil
}

func (e *engine) close() error { return e.db.Close() }

func (e *engine) fill(ctx context.Context, t *scenario.Table, queries []*scenario.Query) error {
	l := &layout{rows: min(max(t.Rows, 1), maxTableRows), modulus: map[string]int{}}
	e.tables[t.Name] = l
	for _, c := range t.Indexes {
		l.modulus[c] = l.rows
	}
	for _, q := range queries {
		if q.Table == t.Name {
			l.modulus[q.Where] = min(max(l.rows/max(q.Rows, 1), 1), cmp.Or(l.modulus[q.Where], l.rows))
		}
	}
	delete(l.modulus, "id")
	delete(l.modulus, "body")
	columns, values := "id INTEGER PRIMARY KEY", "i"
	for _, c := range slices.Sorted(maps.Keys(l.modulus)) {
		columns += ", " + quoted(c) + " INTEGER"
		values += fmt.Sprintf(", i %% %d", l.modulus[c])
	}
	script := []string{
		fmt.Sprintf("CREATE TABLE %s (%s, body TEXT)", quoted(t.Name), columns),
		fmt.Sprintf("INSERT INTO %s SELECT %s, printf('%%0100d', i) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n)",
			quoted(t.Name), values, l.rows),
	}
	for _, c := range t.Indexes {
		if l.modulus[c] > 0 {
			l.indexes = append(l.indexes, c)
			script = append(script, createIndex(t.Name, c))
		}
	}
	if err := e.change(ctx, script...); err != nil {
		return err
	}
	return e.analyse(ctx, t.Name, t.Stale)
}

// analyse takes statistics of a table. Old ones are of the time when it held a single row: then no index was worth its while, and
// the planner reads the table from end to end.
func (e *engine) analyse(ctx context.Context, table string, old bool) error {
	script := []string{"ANALYZE " + quoted(table)}
	if old {
		script = append(script, "UPDATE sqlite_stat1 SET stat = '1 1' WHERE tbl = "+literal(table)+" AND idx IS NOT NULL", "ANALYZE sqlite_schema")
	}
	return e.change(ctx, script...)
}

// index makes an index of the scenario, or takes it away.
func (e *engine) index(ctx context.Context, table, column string, there bool) error {
	switch {
	case !slices.Contains(e.tables[table].indexes, column):
		return nil // there never was one
	case there:
		return e.change(ctx, createIndex(table, column), "ANALYZE "+quoted(table))
	}
	return e.change(ctx, "DROP INDEX IF EXISTS "+sqliteIndex(table, column))
}

// change runs statements after which plans are not what they were.
func (e *engine) change(ctx context.Context, texts ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.plans)
	for _, text := range texts {
		if _, err := e.db.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// scans reports whether the planner has q read its whole table.
func (e *engine) scans(ctx context.Context, q *scenario.Query) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.plan(ctx, q)
}

// plan is scans. e.mu is held.
func (e *engine) plan(ctx context.Context, q *scenario.Query) (bool, error) {
	if q.Verb == "insert" {
		return false, nil
	}
	text := statementText(q)
	if scan, ok := e.plans[text]; ok {
		return scan, nil
	}
	rows, err := e.db.QueryContext(ctx, "EXPLAIN QUERY PLAN "+text, 1, "")
	if err != nil {
		return false, err
	}
	defer rows.Close()
	scan := false
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			return false, err
		}
		scan = scan || strings.HasPrefix(detail, "SCAN ")
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	e.plans[text] = scan
	return scan, nil
}

// run executes q about a key, takes its answer, and reports whether it read its whole table. It does not heed the end of ctx: it
// takes about a millisecond, and to watch for the end would cost more.
func (e *engine) run(ctx context.Context, q *scenario.Query, key int) (scanned bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	if scanned, err = e.plan(ctx, q); err != nil {
		return false, err
	}
	l := e.tables[q.Table]
	value := 1 + key%l.rows
	if m := l.modulus[q.Where]; m > 0 {
		value = key % m
	}
	if q.Verb != "select" {
		if _, err = e.db.ExecContext(ctx, statementText(q), value, fmt.Sprintf("%0100d", key)); err == nil && q.Verb == "insert" {
			err = e.trim(ctx, q.Table, l)
		}
		return scanned, err
	}
	rows, err := e.db.QueryContext(ctx, statementText(q), value)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() { // the rows are read; nobody wants them
	}
	return scanned, rows.Err()
}

// trim takes rows away that inserts have added, now and then.
func (e *engine) trim(ctx context.Context, table string, l *layout) error {
	if l.added++; l.added < maxAdded {
		return nil
	}
	l.added = 0
	_, err := e.db.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE id > %d", quoted(table), l.rows))
	return err
}

// statementText is q as SQLite takes it: ?1 is the value that it looks up by, ?2 what it writes.
func statementText(q *scenario.Query) string {
	table, column := quoted(q.Table), quoted(q.Where)
	switch q.Verb {
	case "insert":
		return fmt.Sprintf("INSERT INTO %s (%s, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = excluded.body", table, column)
	case "update":
		return fmt.Sprintf("UPDATE %s SET body = ?2 WHERE %s = ?1", table, column)
	}
	return fmt.Sprintf("SELECT * FROM %s WHERE %s = ?1 LIMIT %d", table, column, max(q.Rows, 1))
}

func sqliteIndex(table, column string) string { return quoted(table + "." + column) }

func createIndex(table, column string) string {
	return fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s (%s)", sqliteIndex(table, column), quoted(table), quoted(column))
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

package lab

import (
	"testing"

	"github.com/longpole/longpole/internal/scenario"
)

// engineOf is a store with a table whose names are words of SQL.
func engineOf(t *testing.T, table scenario.Table, queries ...*scenario.Query) *engine {
	t.Helper()
	for _, q := range queries {
		q.Table = table.Name
	}
	e, err := openEngine(t.Context(), &scenario.Store{Name: "db", Tables: []scenario.Table{table}}, queries)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestThePlannerDecidesBetweenIndexAndTable(t *testing.T) {
	byGroup := &scenario.Query{Verb: "select", Where: "group", Rows: 5}
	byID := &scenario.Query{Verb: "update", Where: "id"}
	insert := &scenario.Query{Verb: "insert", Where: "id"}
	e := engineOf(t, scenario.Table{Name: "order-lines", Rows: 300_000, Indexes: []string{"group"}}, byGroup, byID, insert)
	for _, step := range []struct {
		what    string
		do      func() error
		scanned bool
	}{
		{"at first", func() error { return nil }, false},
		{"without its index", func() error { return e.index(t.Context(), "order-lines", "group", false) }, true},
		{"with it again", func() error { return e.index(t.Context(), "order-lines", "group", true) }, false},
		{"with old statistics", func() error { return e.analyse(t.Context(), "order-lines", true) }, true},
		{"with new ones", func() error { return e.analyse(t.Context(), "order-lines", false) }, false},
		{"after an index was dropped that never was", func() error { return e.index(t.Context(), "order-lines", "body", false) }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if scanned, err := e.run(t.Context(), byGroup, 12345); err != nil || scanned != step.scanned {
			t.Errorf("%s it reads the whole table: %t, error %v; want %t", step.what, scanned, err, step.scanned)
		}
		for _, q := range []*scenario.Query{byID, insert} {
			if scanned, err := e.run(t.Context(), q, 98765); err != nil || scanned {
				t.Errorf("%s an %s by id reads the whole table: %t, error %v", step.what, q.Verb, scanned, err)
			}
		}
	}
}

func TestTablesHoldWhatStatementsLookForAndNoMore(t *testing.T) {
	find := &scenario.Query{Verb: "select", Where: "customer", Rows: 7}
	add := &scenario.Query{Verb: "insert", Where: "customer"}
	e := engineOf(t, scenario.Table{Name: "orders", Rows: 10_000_000}, find, add)
	count := func(text string) (n int) {
		if err := e.db.QueryRowContext(t.Context(), text).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := count(`SELECT COUNT(*) FROM orders`); got != maxTableRows {
		t.Errorf("a table of ten million rows has %d; want %d", got, maxTableRows)
	}
	if got := count(`SELECT MIN(n) FROM (SELECT COUNT(*) AS n FROM orders GROUP BY customer)`); got < 7 {
		t.Errorf("a customer has %d rows; want 7", got)
	}
	for key := range 10 * maxAdded {
		if _, err := e.run(t.Context(), add, key); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(`SELECT COUNT(*) FROM orders`); got > maxTableRows+maxAdded {
		t.Errorf("after %d inserts there are %d rows", 10*maxAdded, got)
	}
}

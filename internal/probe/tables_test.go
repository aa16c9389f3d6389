package probe

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

// TestTablesThatGrow: a look before and one after, with partitions as one and nothing waited for.
func TestTablesThatGrow(t *testing.T) {
	database(t, "tables", true,
		"create table events (day int, note text) partition by list (day)", "create table events_1 partition of events for values in (1)", "create table events_2 partition of events for values in (2)",
		"create index events_note on events (note)", "create table plain (id int, note text)", "create temp table gone (id int)", "create table idle ()",
		"insert into events select 1 + i % 2, repeat('x', 100) from generate_series(1, 4000) i", "insert into plain select i, 'x' from generate_series(1, 1000) i", "analyze")
	p := collector(t, "postgres", "tables")
	before, err := p.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	app := session(t, "postgres", "tables", "shop")
	run(t, app, "set enable_indexscan = off")
	run(t, app, "insert into plain select i, 'x' from generate_series(1, 3000) i")
	run(t, app, "select count(*) from plain where note = 'y'")
	run(t, app, "analyze plain")
	app.Close(t.Context())
	other := session(t, "postgres", "tables", "migration")
	run(t, other, "begin")
	run(t, other, "lock table plain, events in access exclusive mode")
	var after []evidence.Table
	for range 100 { // the counts of a session that ended arrive a moment later
		if after, err = p.Tables(t.Context()); err != nil {
			t.Fatal(err)
		}
		if find(after, "plain").SeqScans > find(before, "plain").SeqScans {
			break
		}
	}
	names := ""
	for _, x := range before {
		names += x.Name + " "
	}
	if names != "events plain idle " {
		t.Fatalf("tables %s: the largest come first, partitions and temporary ones are left out", names)
	}
	// The statistics may count the rows twice: their session analysed the table before it told of them.
	if e := find(before, "events"); e.Rows != 4000 || e.Live < 4000 || e.Bytes < 400_000 || e.Indexes != 1 || e.Writes != 4000 || e.Analyzed.IsZero() || e.Schema != "public" {
		t.Errorf("%+v", e)
	}
	a, b := find(before, "plain"), find(after, "plain")
	if a.Rows != 1000 || b.Rows != 4000 || b.Bytes <= a.Bytes || b.Writes-a.Writes != 3000 || b.SeqScans <= a.SeqScans || b.SeqRows-a.SeqRows < 4000 {
		t.Errorf("%+v\n%+v", a, b)
	}
}

func find(list []evidence.Table, name string) evidence.Table {
	for _, x := range list {
		if x.Name == name {
			return x
		}
	}
	return evidence.Table{}
}

// TestAPartOfAPartitionedIndexIsNotUnused: it cannot be dropped alone, and another part may be used.
func TestAPartOfAPartitionedIndexIsNotUnused(t *testing.T) {
	database(t, "parted", true, "create table events (day int, note text) partition by list (day)", "create table events_1 partition of events for values in (1)",
		"create index events_note on events (note)", "create index own on events_1 (day, note)", "insert into events select 1, 'x' from generate_series(1, 100)", "analyze")
	out, err := collector(t, "postgres", "parted").Indexes(t.Context())
	if err != nil || len(out.Unused) != 1 || out.Unused[0].Name != "own" {
		t.Errorf("%v, unused %s", err, fmt.Sprint(out.Unused))
	}
}

// TestALargeCatalogueIsReadOfItsLargestOnly: what is dear is asked of as many as are wanted, not of all that there are, and no time
// goes into compiling.
func TestALargeCatalogueIsReadOfItsLargestOnly(t *testing.T) {
	database(t, "many", true, "do $$ begin for i in 1..300 loop execute format('create table t%s (id int primary key)', i); end loop; end $$", "analyze")
	p := collector(t, "postgres", "many")
	err := p.look(t.Context(), "plans", func(ctx context.Context) error {
		if _, err := p.conn.Exec(ctx, "set jit = on"); err != nil {
			return err
		}
		return p.read(ctx, func(tx pgx.Tx) error {
			var jit string
			if err := tx.QueryRow(ctx, "show jit").Scan(&jit); err != nil || jit != "off" {
				t.Errorf("jit is %s, %v", jit, err)
			}
			for sql, want := range map[string]string{
				largestSQL: `Subquery Scan on x \(actual rows=1(\.00)? loops=5\)`, // the statistics of a table
				indexesSQL: `CTE x\n.*\(actual rows=5(\.00)? loops=1\)`,           // the columns of all
			} {
				plan, _, err := rows(ctx, tx, 1000, func(r pgx.Rows) (line string, err error) { return line, r.Scan(&line) },
					"explain (analyze, timing off, costs off, summary off) "+strings.Replace(sql, "$1", "5", 1))
				if text := strings.Join(plan, "\n"); err != nil || !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("%s does not match, %v:\n%s", want, err, text)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAStatementOfManyUsersHidesNoOther: each of them has a row of it.
func TestAStatementOfManyUsersHidesNoOther(t *testing.T) {
	database(t, "users", true, "do $$ begin for i in 1..100 loop execute format('create role user_%s', i); end loop; end $$")
	app := session(t, "postgres", "users", "shop")
	for i := range 100 {
		run(t, app, fmt.Sprint("set role user_", i+1))
		run(t, app, "select 1")
	}
	run(t, app, "reset role")
	var list []evidence.StatementStat
	for _, own := range []string{"select 1, 1", "select 1, 1, 1", "select 1, 1, 1, 1"} {
		run(t, app, own)
	}
	found, err := app.Query(t.Context(), "select distinct queryid from tools.pg_stat_statements where query ~ '^select [$]1(, [$][2-4])*$'")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(found, pgx.RowTo[int64])
	if err != nil || len(ids) != 4 {
		t.Fatalf("%v, %v", ids, err)
	}
	for _, id := range ids {
		list = append(list, evidence.StatementStat{QueryID: id})
	}
	list, err = collector(t, "postgres", "users").Texts(t.Context(), list)
	for _, s := range list {
		if err != nil || !strings.HasPrefix(s.Text, "select $1") {
			t.Errorf("%d of %d: %q, %v", s.QueryID, len(list), s.Text, err)
		}
	}
}

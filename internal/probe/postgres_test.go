package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

var shop = []string{
	`create table orders (id bigserial primary key, customer_id bigint not null, status text not null, total numeric not null, created_at timestamptz not null)`,
	`insert into orders (customer_id, status, total, created_at) select i % 5000, 'new', i, now() - i * interval '1 minute' from generate_series(1, 50000) i`,
	`create table items (id bigserial primary key, order_id bigint references orders(id), name text)`,
	`insert into items (order_id, name) select i % 50000 + 1, 'thing' from generate_series(1, 20000) i`,
	`analyze orders`, `analyze items`,
}

// said tells whether a gap names what is not there.
func said(gaps []evidence.Gap, part string) bool {
	for _, g := range gaps {
		if strings.Contains(g.What+": "+g.Why, part) {
			return true
		}
	}
	return false
}

// untouched fails the test when a transaction that could write began since, or a row changed.
func untouched(t *testing.T, database string) {
	t.Helper()
	conn := session(t, "postgres", database, "witness")
	state := func() (s string) {
		err := conn.QueryRow(context.Background(), `select txid_snapshot_xmax(txid_current_snapshot()) || ' ' || (select count(*) from pg_class)`).Scan(&s)
		if err != nil {
			t.Error(err)
		}
		return s
	}
	before := state()
	t.Cleanup(func() {
		if after := state(); after != before {
			t.Errorf("the probe wrote: transactions and relations were %s and are %s", before, after)
		}
	})
}

// TestAMissingIndexIsNamed: from the text of a span to the index, with the planner's gain, and nothing is written.
func TestAMissingIndexIsNamed(t *testing.T) {
	database(t, "missing_index", true, shop...)
	app := session(t, "postgres", "missing_index", "shop")
	for i := range 20 {
		run(t, app, "select id, total from orders where customer_id = $1 and status = $2", i, "new")
	}
	untouched(t, "missing_index")
	p := collector(t, "postgres", "missing_index")
	for text, by := range map[string]string{
		"select id, total from orders where customer_id = $1 and status = $2":             "server",
		"SELECT id, total FROM orders\n WHERE customer_id = $1 AND status = $2 -- list":   "server",
		"select id, total from orders where customer_id = ? and status = ?":               "server",
		"select id, total from orders where customer_id = 17 and status = 'new'":          "text",
		"select id, total from orders where customer_id = 17 and status = 'it''s; new' ;": "text",
	} {
		s, err := p.Statement(t.Context(), text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s.Plan == nil || len(s.Matches) != 1 || s.Matches[0].By != by || len(s.Stats) != 1 || s.Stats[0].Calls != 20 {
			t.Errorf("%s: matches %+v with %+v, gaps %v; want 20 calls by %s", text, s.Matches, s.Stats, s.Gaps, by)
		}
		if len(s.SeqScans) != 1 || s.SeqScans[0].Relation != "orders" || s.SeqScans[0].Share < 0.9 {
			t.Errorf("%s: sequential scans %+v", text, s.SeqScans)
		}
		if len(s.Indexes) == 0 {
			t.Errorf("%s: no index is proposed", text)
			continue
		}
		x := s.Indexes[0]
		if !x.Tested || !x.Used || x.Gain() < 0.8 || x.Bytes == 0 || x.Columns[0] != "customer_id" || !strings.HasPrefix(x.SQL(), "CREATE INDEX CONCURRENTLY ON public.orders (customer_id") {
			t.Errorf("%s: %+v with gain %v", text, x, x.Gain())
		}
		if len(s.Tables) != 1 || s.Tables[0].Live != 50000 || s.Tables[0].Writes != 50000 || s.Tables[0].Indexes != 1 {
			t.Errorf("%s: tables %+v", text, s.Tables)
		}
	}
	s, err := p.Statement(t.Context(), "select id from orders where id = $1")
	if err != nil || len(s.SeqScans) != 0 || len(s.Indexes) != 0 {
		t.Errorf("a statement that has its index: %+v %+v %v", s.SeqScans, s.Indexes, err)
	}
}

// TestNothingIsExecuted: what would write, wait or stop the server is planned or refused.
func TestNothingIsExecuted(t *testing.T) {
	database(t, "executed", true, append([]string{
		`create sequence counter`,
		`create function sneak() returns bigint language sql immutable as $$ select nextval('counter') $$`,
	}, shop...)...)
	untouched(t, "executed")
	p := collector(t, "postgres", "executed")
	for _, text := range []string{
		"delete from orders", "update orders set total = 0 where customer_id = $1", "insert into orders (customer_id, status, total, created_at) values ($1, $2, $3, $4)",
		"select pg_sleep(3600)", "with gone as (delete from items returning *) select count(*) from gone", "select * from orders for update",
		"merge into items using orders on items.order_id = orders.id when matched then delete",
		"select pg_terminate_backend(pid) from pg_stat_activity", "select set_config('work_mem', '1GB', false)",
	} {
		if s, err := p.Statement(t.Context(), text); err != nil || s.Plan == nil {
			t.Errorf("%s: no plan: %v %v", text, s.Gaps, err)
		}
	}
	for _, text := range []string{
		"drop table orders", "select 1; drop table orders", "explain analyze delete from orders", "truncate orders", "select 1 into copy", "copy orders to program 'true'",
		"analyze orders", "create table x as select 1", "do $$ begin delete from orders; end $$", "execute longpole_probe", "", ";", "select 'cut", "begin", "vacuum", "call p()",
		"select * from orders where id = ...", "set work_mem = '1GB'", "select 1 \x00", "with x as (select 1) insert",
	} {
		if s, err := p.Statement(t.Context(), text); err == nil && s.Plan != nil {
			t.Errorf("%q was planned", text)
		} else if err != nil && !errors.Is(err, evidence.ErrStatement) {
			t.Errorf("%q: %v", text, err)
		}
	}
	s, err := p.Statement(t.Context(), "select sneak()")
	if err != nil || s.Plan != nil || !said(s.Gaps, "read-only") {
		t.Errorf("a function that lies about what it does: plan %v, gaps %v, %v", s.Plan, s.Gaps, err)
	}
	if s, err := p.Statement(t.Context(), "select * from orders where id = $1"); err != nil || s.Plan == nil {
		t.Errorf("the connection does not work any more: %v %v", s.Gaps, err)
	}
}

// blocked waits until n sessions of the database wait for locks.
func blocked(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for have := 0; have < n; {
		err := conn.QueryRow(ctx, `select count(*) from (select pg_sleep(0.02)) s, pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).Scan(&have)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestALockChainEndsAtItsRoot: the session that does nothing while others wait is named, with what it ran last.
func TestALockChainEndsAtItsRoot(t *testing.T) {
	database(t, "chains", true, append([]string{"create user onlooker"}, shop...)...)
	admin := session(t, "postgres", "chains", "admin")
	t.Cleanup(func() { admin.Exec(context.Background(), "drop user onlooker") })
	root := session(t, "postgres", "chains", "batch")
	run(t, root, "begin")
	run(t, root, "update orders set status = 'held' where id = 7")
	done := make(chan error, 2)
	for i := range 2 {
		w := session(t, "postgres", "chains", fmt.Sprint("web", i))
		go func() {
			_, err := w.Exec(context.Background(), "update orders set status = 'mine' where id = 7")
			done <- err
		}()
		blocked(t, admin, i+1)
	}
	out, err := collector(t, "postgres", "chains").Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Chains) != 1 || out.Chains[0].Root.Application != "batch" || out.Chains[0].Root.State != "idle in transaction" ||
		out.Chains[0].Root.Query != "update orders set status = 'held' where id = 7" || len(out.Chains[0].Waiters) != 2 {
		t.Fatalf("chains %+v", out.Chains)
	}
	c := out.Chains[0]
	if w := c.Waiters[0]; w.Relation != "orders" || !strings.HasPrefix(w.Application, "web") || w.WaitType != "Lock" || w.WaitAge <= 0 || c.Longest < w.WaitAge || w.LockMode == "" || w.Depth != 1 {
		t.Errorf("first waiter %+v of %+v", w, c)
	}
	if c.Waiters[1].Depth != 2 && c.Waiters[1].Depth != 1 {
		t.Errorf("second waiter %+v", c.Waiters[1])
	}
	if out.Sessions.WaitingForLock != 2 || out.Sessions.LongestIdle <= 0 || out.Sessions.Max != 40 {
		t.Errorf("sessions %+v", out.Sessions)
	}
	low, err := collector(t, "onlooker", "chains").Sessions(t.Context())
	if err != nil || len(low.Chains) != 1 || !low.Chains[0].Root.Hidden || len(low.Chains[0].Waiters) != 2 || !said(low.Gaps, "pg_monitor") {
		t.Errorf("as a user without rights: %+v, gaps %v, %v", low.Chains, low.Gaps, err)
	}
	run(t, root, "rollback")
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestAForgottenPreparedTransactionIsARoot: it has no session, so no pid.
func TestAForgottenPreparedTransactionIsARoot(t *testing.T) {
	database(t, "prepared", true, shop...)
	admin := session(t, "postgres", "prepared", "admin")
	run(t, admin, "begin")
	run(t, admin, "update orders set status = 'held' where id = 7")
	run(t, admin, "prepare transaction 'forgotten'")
	t.Cleanup(func() { admin.Exec(context.Background(), "rollback prepared 'forgotten'") })
	w := session(t, "postgres", "prepared", "web")
	done := make(chan error, 1)
	go func() {
		_, err := w.Exec(context.Background(), "update orders set status = 'mine' where id = 7")
		done <- err
	}()
	blocked(t, admin, 1)
	out, err := collector(t, "postgres", "prepared").Sessions(t.Context())
	if err != nil || len(out.Chains) != 1 || out.Chains[0].Root.PID != 0 || len(out.Chains[0].Waiters) != 1 {
		t.Errorf("%+v, %v", out.Chains, err)
	}
	run(t, admin, "rollback prepared 'forgotten'")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestATableLockedByAnotherHoldsNobodyUp: the probe gives up instead of standing in the queue.
func TestATableLockedByAnotherHoldsNobodyUp(t *testing.T) {
	database(t, "locked", true, shop...)
	other := session(t, "postgres", "locked", "migration")
	run(t, other, "begin")
	run(t, other, "lock table orders in access exclusive mode")
	p := collector(t, "postgres", "locked", func(c *PostgresConfig) { c.LockTime = 5 * time.Millisecond })
	s, err := p.Statement(t.Context(), "select * from orders where id = 1")
	if err != nil || s.Plan != nil || !said(s.Gaps, "locked by somebody") {
		t.Errorf("plan %v, gaps %v, %v", s.Plan, s.Gaps, err)
	}
	if _, err := p.Indexes(t.Context()); err != nil {
		t.Errorf("indexes need no table: %v", err)
	}
}

// TestABadEstimateIsNamed: stale statistics, and rows far from those that come.
func TestABadEstimateIsNamed(t *testing.T) {
	database(t, "estimate", true,
		`create table events (kind int, payload text)`, `insert into events select 1, 'x' from generate_series(1, 600)`, `analyze events`,
		`insert into events select 2, 'x' from generate_series(1, 60000)`)
	app := session(t, "postgres", "estimate", "shop")
	run(t, app, "select * from events where kind = $1", 2)
	s, err := collector(t, "postgres", "estimate").Statement(t.Context(), "select * from events where kind = 2")
	if err != nil {
		t.Fatal(err)
	}
	if s.Rows == nil || s.Rows.Observed != 60000 || s.Rows.Factor < 1000 {
		t.Errorf("rows %+v, matches %+v, gaps %v", s.Rows, s.Matches, s.Gaps)
	}
	if len(s.Tables) != 1 || s.Tables[0].Stale() < 0.9 || s.Tables[0].Rows != 600 || s.Tables[0].Analyzed.IsZero() {
		t.Errorf("tables %+v", s.Tables)
	}
	if !said(s.Gaps, "never executed") {
		t.Errorf("the limits of an estimate are not stated: %v", s.Gaps)
	}
}

// TestManySmallStatementsShowAsCalls: an N+1 is one statement with many calls between two looks.
func TestManySmallStatementsShowAsCalls(t *testing.T) {
	database(t, "calls", true, shop...)
	app := session(t, "postgres", "calls", "shop")
	p := collector(t, "postgres", "calls")
	run(t, app, "select name from items where order_id = $1", 0)
	before, err := p.Statements(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, app, "select id from orders where customer_id = $1 limit 200", 3)
	for i := range 200 {
		run(t, app, "select name from items where order_id = $1", i)
	}
	after, err := p.Statements(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, span, fresh := evidence.StatementsBetween(before, after)
	if span <= 0 || fresh {
		t.Errorf("span %v, fresh %v", span, fresh)
	}
	top, err := p.Texts(t.Context(), evidence.TopByTotal(list, 1))
	if err != nil || len(top) != 1 || top[0].Text != "select name from items where order_id = $1" || top[0].Calls != 200 || top[0].MeanMS() <= 0 {
		t.Errorf("dearest statement %+v, %v", top, err)
	}
}

// TestAnExhaustedPoolShowsAtTheServer: all connections of a role taken, by sessions that do nothing.
func TestAnExhaustedPoolShowsAtTheServer(t *testing.T) {
	database(t, "pool", true, "create user pooled connection limit 3")
	admin := session(t, "postgres", "pool", "admin")
	t.Cleanup(func() { admin.Exec(context.Background(), "drop owned by pooled; drop user pooled") })
	for range 3 {
		run(t, session(t, "pooled", "pool", "shop"), "begin")
	}
	out, err := collector(t, "postgres", "pool").Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var shop evidence.AppSessions
	for _, a := range out.Sessions.ByApplication {
		if a.Application == "shop" {
			shop = a
		}
	}
	if out.Sessions.Full() != 1 || shop.Total != 3 || shop.IdleInXact != 3 || shop.User != "pooled" || !said(out.Gaps, "pool") {
		t.Errorf("%+v", out.Sessions)
	}
	full, err := collector(t, "pooled", "pool").Sessions(t.Context())
	if err != nil || !full.Sessions.Refused || full.Sessions.Full() != 1 {
		t.Errorf("a server that has no connection for us: %+v, %v", full.Sessions, err)
	}
}

// TestIndexesThatOnlyCost: unused, duplicate and missing under a foreign key.
func TestIndexesThatOnlyCost(t *testing.T) {
	database(t, "indexes", true, append(shop, "create index twice_a on orders (customer_id)", "create index twice_b on orders (customer_id, created_at)",
		"create index other on orders (created_at desc)", "create index partial on orders (status) where status <> 'new'", "analyze")...)
	app := session(t, "postgres", "indexes", "shop")
	run(t, app, "select * from orders where customer_id = 4 and created_at > '2000-01-01'")
	run(t, app, "set enable_seqscan = off")
	out, err := collector(t, "postgres", "indexes").Indexes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, x := range out.Unused {
		names += x.Name + " "
	}
	if !strings.Contains(names, "other") || !strings.Contains(names, "partial") || strings.Contains(names, "pkey") {
		t.Errorf("unused %s", names)
	}
	if len(out.Duplicates) != 1 || out.Duplicates[0].Needless.Name != "twice_a" || out.Duplicates[0].Covered.Name != "twice_b" || out.Duplicates[0].Exact {
		t.Errorf("duplicates %+v", out.Duplicates)
	}
	if len(out.ForeignKeys) != 1 || out.ForeignKeys[0].Table != "items" || out.ForeignKeys[0].Columns[0] != "order_id" {
		t.Errorf("foreign keys %+v", out.ForeignKeys)
	}
}

// TestLittleIsStillSomething: no extensions and no rights; each thing that is missing is said.
func TestLittleIsStillSomething(t *testing.T) {
	database(t, "bare", false, append(shop, "create user lowly", "grant select on orders to lowly")...)
	admin := session(t, "postgres", "bare", "admin")
	t.Cleanup(func() { admin.Exec(context.Background(), "drop owned by lowly; drop user lowly") })
	p := collector(t, "lowly", "bare")
	f, err := p.Facts(t.Context())
	if err != nil || f.ReadAllStats || f.Statements != "" || f.Hypopg != "" || !said(f.Gaps, "pg_monitor") || !said(f.Gaps, "pg_stat_statements") || !said(f.Gaps, "hypopg") {
		t.Errorf("%+v, %v", f, err)
	}
	s, err := p.Statement(t.Context(), "select * from orders where customer_id = $1")
	if err != nil || s.Plan == nil || len(s.Indexes) != 1 || s.Indexes[0].Tested || !said(s.Gaps, "pg_stat_statements") || !said(s.Gaps, "hypopg") {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = p.Statement(t.Context(), "delete from orders where customer_id = $1")
	if err != nil || s.Plan != nil || !said(s.Gaps, "permission denied") {
		t.Errorf("without the right: %+v, %v", s.Gaps, err)
	}
	list, err := p.Statements(t.Context())
	if err != nil || len(list.List) != 0 || !said(list.Gaps, "not installed") {
		t.Errorf("statements %+v, %v", list, err)
	}
	if x, err := p.Indexes(t.Context()); err != nil || x.Count != 2 {
		t.Errorf("indexes %+v, %v", x, err)
	}
}

// TestABusyServerIsLeftAlone: too many active sessions stop the dear looks, and after three of them the collector rests.
func TestABusyServerIsLeftAlone(t *testing.T) {
	database(t, "busy", true)
	admin := session(t, "postgres", "busy", "admin")
	done := make(chan struct{}, 3)
	for range 3 {
		w := session(t, "postgres", "busy", "worker")
		go func() {
			w.Exec(context.Background(), "select pg_sleep(600)")
			done <- struct{}{}
		}()
	}
	for n := 0; n < 3; {
		if err := admin.QueryRow(t.Context(), `select count(*) from (select pg_sleep(0.01)) s, pg_stat_activity where application_name = 'worker' and state = 'active'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	p := collector(t, "postgres", "busy", func(c *PostgresConfig) { c.MaxActive = 1 })
	for range 3 {
		if _, err := p.Statements(t.Context()); !errors.Is(err, errOverload) {
			t.Errorf("a dear look at a busy server: %v", err)
		}
	}
	if _, err := p.Statements(t.Context()); !errors.Is(err, ErrResting) {
		t.Errorf("after three of them: %v", err)
	}
	if s := p.Spent(); s.Overloads != 3 || s.Refused != 1 || s.RestsUntil.IsZero() {
		t.Errorf("%+v", s)
	}
	run(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'worker'")
	for range 3 {
		<-done
	}
}

// TestAServerThatIsSlowIsASignOfOverload: statement_timeout counts as one.
func TestAServerThatIsSlowIsASignOfOverload(t *testing.T) {
	p := collector(t, "postgres", "postgres")
	if _, err := p.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.cfg.StatementTime = 20 * time.Millisecond
	err := p.look(t.Context(), "slow", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error { return command(ctx, tx, "select pg_sleep(30)") })
	})
	if !errors.Is(err, errOverload) || p.Spent().Overloads != 1 {
		t.Errorf("%v, %+v", err, p.Spent())
	}
	p.cfg.StatementTime = time.Minute
	err = p.look(t.Context(), "write", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error { return command(ctx, tx, "create table never (a int)") })
	})
	if code(err) != "25006" {
		t.Errorf("a transaction of the probe could write: %v", err)
	}
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/scenario"
)

// The bounds of what is asked of a real database server.
const (
	maxRealRows   = 2_000_000              // of a table
	realLookTime  = 150 * time.Millisecond // between two looks at who waits for whom
	realFaultTime = 10 * time.Second       // that a fault may take to plant
	pilotRatio    = 0.1                    // of a table's rows were there when its statistics were taken, if those are to be old
)

// nightly is who holds locks.
const nightly = "nightly-report"

// postgres is a store in a real PostgreSQL server, in a schema of its own. The lab itself makes the schema, plants its
// faults and collects the evidence; a process of a service only runs statements there.
type postgres struct {
	spec    scenario.Store
	queries []*scenario.Query // of the scenario, on this store
	aged    []string          // tables that have a copy with old statistics
	config  *pgx.ConnConfig
	schema  string
	owner   bool
	random  *dice
	idle    chan *pgx.Conn
	quoted  map[string]string // names as they stand in statements

	mu     sync.Mutex
	made   bool                 // the schema
	old    map[string]bool      // tables whose copy with old statistics is in use
	held   map[string]*pgx.Conn // sessions that hold a table
	reader *probe.Postgres
	before evidence.Statements // when the phase began
	last   evidence.Statements // the last that was read
	seen   evidence.PostgresFacts
}

// newPostgres describes a store at a DSN. mark tells this lab's schemas from those of others.
func newPostgres(spec *scenario.Scenario, store scenario.Store, dsn, mark string, owner bool, seed uint64) (*postgres, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("lab: the address of PostgreSQL cannot be read; want postgres://user@host:port/database") // err may hold a password
	}
	d := &postgres{
		spec: store, config: config, owner: owner, random: newDice(seed, store.Name), idle: make(chan *pgx.Conn, store.Connections),
		schema: strings.ReplaceAll(marked("longpole_lab", mark, store.Name, "_"), "-", "_"),
		quoted: map[string]string{}, old: map[string]bool{}, held: map[string]*pgx.Conn{},
	}
	config.RuntimeParams["search_path"] = d.schema
	for q := range queriesOf(spec) {
		if q.Store == store.Name {
			d.queries = append(d.queries, q)
		}
	}
	for _, f := range spec.Faults {
		if f.Kind == scenario.Stale && f.Store == store.Name && !slices.Contains(d.aged, f.Table) {
			d.aged = append(d.aged, f.Table)
		}
	}
	return d, nil
}

// connect opens a session of an application.
func (d *postgres) connect(ctx context.Context, application string) (*pgx.Conn, error) {
	config := d.config.Copy()
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("lab: PostgreSQL: %w", err)
	}
	return conn, nil
}

// hangUp ends a session. One that cannot say good-bye is gone as well.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func (d *postgres) open(ctx context.Context) error {
	if err := d.learnNames(ctx); err != nil || !d.owner {
		return err
	}
	if err := d.script(ctx, "create schema "+d.schema); err != nil {
		return err
	}
	d.made = true
	for i := range d.spec.Tables {
		t := &d.spec.Tables[i]
		if err := d.fill(ctx, t, t.Name, t.Stale); err != nil {
			return err
		}
		if slices.Contains(d.aged, t.Name) {
			if err := d.fill(ctx, t, t.Name+agedSuffix, true); err != nil {
				return err
			}
		}
	}
	return d.openReader()
}

// agedSuffix names the copy of a table that has old statistics.
const agedSuffix = "_aged"

// learnNames asks the server which names must stand in quotation marks.
func (d *postgres) learnNames(ctx context.Context) error {
	conn, err := d.connect(ctx, "longpole-lab")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	names := []string{"id", "body"}
	for _, t := range d.spec.Tables {
		names = append(append(names, t.Name, t.Name+agedSuffix), t.Indexes...)
	}
	for _, q := range d.queries {
		names = append(names, q.Where)
	}
	rows, err := conn.Query(ctx, "select distinct name, quote_ident(name) from unnest($1::text[]) name", names)
	if err != nil {
		return fmt.Errorf("lab: PostgreSQL: %w", err)
	}
	var name, quoted string
	_, err = pgx.ForEachRow(rows, []any{&name, &quoted}, func() error { d.quoted[name] = quoted; return nil })
	if err != nil {
		return fmt.Errorf("lab: PostgreSQL: %w", err)
	}
	return nil
}

// script runs statements one after the other in a session of their own, after which the server has counted what they did.
func (d *postgres) script(ctx context.Context, statements ...string) error {
	conn, err := d.connect(ctx, "longpole-lab")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("lab: PostgreSQL: %s: %w", sql, err)
		}
	}
	return nil
}

// columns are those that the table needs besides id and body: what it has indexes on, and what statements look up.
func (d *postgres) columns(t *scenario.Table) []string {
	list := slices.Clone(t.Indexes)
	for _, q := range d.queries {
		if q.Table == t.Name {
			list = append(list, q.Where)
		}
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(c string) bool { return c == "id" })
}

// rows is how many a table gets.
func (d *postgres) rows(t *scenario.Table) int { return min(t.Rows, maxRealRows) }

// values is how many different ones a column has: so many that each is in as many rows as the statements ask for.
func (d *postgres) values(t *scenario.Table, column string) int {
	each := 1
	for _, q := range d.queries {
		if q.Table == t.Name && q.Where == column {
			each = max(each, q.Rows)
		}
	}
	if column == "id" {
		each = 1
	}
	return max(d.rows(t)/each, 1)
}

// fill makes a table. With old statistics it is analysed when it holds nothing but the rows of a pilot, which all have 0 in
// every column but id; the rest comes afterwards. The planner then takes every value for the same, and an index for useless.
// Autovacuum, which would mend that, is off for the tables of the lab.
func (d *postgres) fill(ctx context.Context, t *scenario.Table, name string, old bool) error {
	columns := d.columns(t)
	var kinds, names, spread, zeros strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&kinds, "%s bigint not null default 0, ", d.quoted[c])
		fmt.Fprintf(&names, ", %s", d.quoted[c])
		fmt.Fprintf(&spread, ", 1 + g * 2654435761 %% %d", d.values(t, c)) // a prime: neighbours differ
		zeros.WriteString(", 0")
	}
	table := d.quoted[name]
	analyse := "analyze " + table
	const body = "repeat('x', 60)"
	insert := func(values string, from, to int) string {
		return fmt.Sprintf("insert into %s (id%s, body) select g%s, %s from generate_series(%d::bigint, %d) g", table, names.String(), values, body, from, to)
	}
	made := []string{
		fmt.Sprintf("create table %s (id bigint not null generated by default as identity (start %d), %sbody text not null) with (autovacuum_enabled = false, fillfactor = 90)",
			table, d.rows(t)+1, kinds.String()),
	}
	for _, c := range append([]string{"id"}, t.Indexes...) {
		made = append(made, d.index(name, c))
	}
	rest := insert(spread.String(), 1, d.rows(t))
	if !old {
		return errors.Join(d.script(ctx, append(made, rest)...), d.script(ctx, analyse))
	}
	pilot := max(int(pilotRatio*float64(d.rows(t))), 1)
	return errors.Join(d.script(ctx, append(made, insert(zeros.String(), -pilot, -1))...), d.script(ctx, analyse), d.script(ctx, rest))
}

// index is the statement that makes one; that on id is unique.
func (d *postgres) index(table, column string) string {
	unique := ""
	if column == "id" {
		unique = "unique "
	}
	return fmt.Sprintf("create %sindex if not exists %s on %s (%s)", unique, indexName(table, column), d.quoted[table], d.quoted[column])
}

// indexName is a name that no table and no other index has, as neither tables nor columns have a dot in theirs. PostgreSQL would
// cut off a longer one, and what is left would not tell it from others.
func indexName(table, column string) string {
	name := table + "." + column
	if len(name) > maxIdentifier {
		h := fnv.New32a()
		h.Write([]byte(name)) // a hash never fails to write
		name = fmt.Sprintf("%s.%08x", name[:maxIdentifier-9], h.Sum32())
	}
	return pgx.Identifier{name}.Sanitize()
}

// maxIdentifier is how many bytes of a name PostgreSQL keeps.
const maxIdentifier = 63

func (d *postgres) address() (host, port string) {
	return d.config.Host, strconv.Itoa(int(d.config.Port))
}

func (d *postgres) text(q *scenario.Query) string {
	table, where := d.quoted[q.Table], d.quoted[q.Where]
	switch {
	case q.Verb == "insert" && q.Where == "id":
		return fmt.Sprintf("INSERT INTO %s (body) VALUES ($1)", table)
	case q.Verb == "insert":
		return fmt.Sprintf("INSERT INTO %s (body, %s) VALUES ($1, $2)", table, where)
	case q.Verb == "update":
		return fmt.Sprintf("UPDATE %s SET body = $1 WHERE %s = $2", table, where)
	case q.Rows > 1:
		return fmt.Sprintf("SELECT * FROM %s WHERE %s = $1 LIMIT %d", table, where, q.Rows)
	}
	return fmt.Sprintf("SELECT * FROM %s WHERE %s = $1", table, where)
}

func (d *postgres) run(ctx context.Context, service string, q *scenario.Query, key int) error {
	began := time.Now()
	conn, err := d.borrow(ctx, service)
	if err != nil {
		return err
	}
	defer d.giveBack(conn)
	i := slices.IndexFunc(d.spec.Tables, func(t scenario.Table) bool { return t.Name == q.Table })
	value := 1 + max(key, 0)%d.values(&d.spec.Tables[i], q.Where)
	if err := d.execute(ctx, conn, q, value); err != nil {
		return err
	}
	return pause(ctx, d.random.draw(*d.spec.Base)-time.Since(began))
}

func (d *postgres) execute(ctx context.Context, conn *pgx.Conn, q *scenario.Query, value int) error {
	text, body := d.text(q), "touched by "+strconv.Itoa(value)
	var err error
	switch {
	case q.Verb == "select":
		var rows pgx.Rows
		if rows, err = conn.Query(ctx, text, value); err == nil {
			rows.Close() // reads what is left of the answer
			err = rows.Err()
		}
	case q.Verb == "insert" && q.Where == "id":
		_, err = conn.Exec(ctx, text, body)
	case q.Verb == "update" && q.Hold != nil:
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, text, body, value); err != nil {
				return err
			}
			return pause(ctx, d.random.draw(*q.Hold))
		})
	default:
		_, err = conn.Exec(ctx, text, body, value)
	}
	if err != nil {
		return fmt.Errorf("lab: PostgreSQL: %w", err)
	}
	return nil
}

// borrow takes a connection that is idle, or opens one. The service's pool bounds how many there are.
func (d *postgres) borrow(ctx context.Context, service string) (*pgx.Conn, error) {
	select {
	case conn := <-d.idle:
		return conn, nil
	default:
		return d.connect(ctx, service)
	}
}

// giveBack keeps a connection for the next statement, unless it broke or there are enough.
func (d *postgres) giveBack(conn *pgx.Conn) {
	if conn.IsClosed() {
		return // a statement that was cancelled
	}
	select {
	case d.idle <- conn:
	default:
		hangUp(conn)
	}
}

func (d *postgres) close() error {
	for range len(d.idle) {
		hangUp(<-d.idle)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for table, conn := range d.held {
		hangUp(conn)
		delete(d.held, table)
	}
	if d.reader != nil {
		d.reader.Close()
	}
	if !d.made {
		return nil
	}
	d.made = false
	ctx, cancel := context.WithTimeout(context.Background(), realFaultTime)
	defer cancel()
	return d.script(ctx, "drop schema "+d.schema+" cascade")
}

// hostPort is the server's name in the evidence.
func (d *postgres) hostPort() string { return net.JoinHostPort(d.address()) + "/" + d.config.Database }

package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
)

// PostgresConfig bounds what is asked of a PostgreSQL server (13 or later). The zero value means the defaults given at each field.
type PostgresConfig struct {
	Name          string        `yaml:"name"`           // what reports call it; default host:port/database of the DSN
	DSN           string        `yaml:"dsn"`            // postgres://user@host:port/database; the standard variables (PGPASSWORD, PGPASSFILE and so on) fill what it leaves out
	SearchPath    string        `yaml:"search_path"`    // of the application, so that its statements name the same tables; default that of the user
	Timeout       time.Duration `yaml:"timeout"`        // of one look, connecting too; 100ms..1m; default 5s
	StatementTime time.Duration `yaml:"statement_time"` // statement_timeout of the server for each query of a look; 10ms..1m; default 2s
	LockTime      time.Duration `yaml:"lock_time"`      // lock_timeout of the server; 1ms..10s; default 100ms
	Statements    int           `yaml:"statements"`     // rows of pg_stat_statements read at most; 10..20000; default 5000
	Sessions      int           `yaml:"sessions"`       // read at most; 10..20000; default 2000
	MaxActive     int           `yaml:"max_active"`     // active sessions above which nothing dear is asked; 1..100000; default half of max_connections
	HideQueries   bool          `yaml:"hide_queries"`   // true = texts of running queries are shown with ? for each constant
	Budget        Budget        `yaml:"budget"`         // of its looks
}

// WithDefaults fills what is zero.
func (c PostgresConfig) WithDefaults() PostgresConfig {
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.StatementTime, 2*time.Second)
	setDefault(&c.LockTime, 100*time.Millisecond)
	setDefault(&c.Statements, 5000)
	setDefault(&c.Sessions, 2000)
	c.Budget = c.Budget.WithDefaults()
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c PostgresConfig) Validate() error {
	var f setting.Faults
	_, err := pgx.ParseConfig(c.DSN)
	f.Check(c.DSN == "" || err == nil, "dsn", "(hidden)", "postgres://user@host:port/database")
	within(&f, "timeout", c.Timeout, 100*time.Millisecond, time.Minute, "100ms..1m")
	within(&f, "statement_time", c.StatementTime, 10*time.Millisecond, time.Minute, "10ms..1m")
	within(&f, "lock_time", c.LockTime, time.Millisecond, 10*time.Second, "1ms..10s")
	within(&f, "statements", c.Statements, 10, 20000, "10..20000")
	within(&f, "sessions", c.Sessions, 10, 20000, "10..20000")
	within(&f, "max_active", c.MaxActive, 1, 100000, "1..100000")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

// Dial opens a connection to a PostgreSQL server.
type Dial func(context.Context) (*pgx.Conn, error)

// DialPostgres dials by a DSN, as application longpole-probe.
func DialPostgres(dsn string) (Dial, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("probe: the DSN of PostgreSQL cannot be read; want postgres://user@host:port/database") // err may hold a password
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "longpole-probe"
	}
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, cfg) }, nil
}

// Postgres reads evidence from one database. It holds at most one connection, and every query runs in a READ ONLY transaction that is
// rolled back, with the server's own time-outs. Safe for concurrent use; looks follow one another.
type Postgres struct {
	cfg   PostgresConfig
	dial  Dial
	guard *guard

	turn  chan struct{} // held by the look that uses conn
	conn  *pgx.Conn
	facts evidence.PostgresServer
}

// NewPostgres makes a collector; nothing is dialled before the first look.
func NewPostgres(c PostgresConfig, dial Dial) (*Postgres, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Postgres{cfg: c, dial: dial, guard: newGuard(c.Budget), turn: make(chan struct{}, 1)}, nil
}

// Spent is what the collector has done.
func (p *Postgres) Spent() Spent { return p.guard.report(time.Now()) }

// Close ends the connection, after the look that uses it. The next look would open one again.
func (p *Postgres) Close() {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.drop()
}

func (p *Postgres) drop() {
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // it is given up either way
	p.conn = nil
}

const factsSQL = `select current_setting('server_version_num')::int, current_user::text, current_database()::text,
	(select oid from pg_database where datname = current_database()),
	pg_has_role(current_user, 'pg_read_all_stats', 'usage'), pg_is_in_recovery(), current_setting('max_connections')::int,
	current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0),
	pg_size_bytes(current_setting('track_activity_query_size'))::int, current_setting('track_io_timing')::bool,
	coalesce((select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements'), ''),
	coalesce((select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hypopg'), '')`

func readFacts(ctx context.Context, tx pgx.Tx) (f evidence.PostgresServer, err error) {
	err = tx.QueryRow(ctx, factsSQL, pgx.QueryExecModeExec).Scan(&f.Version, &f.User, &f.Database, &f.DatabaseOID, &f.ReadAllStats, &f.Replica, &f.MaxConns,
		&f.Reserved, &f.QueryChars, &f.IOTiming, &f.Statements, &f.Hypopg)
	gap := func(missing bool, what, why string) {
		if missing {
			f.Gaps = append(f.Gaps, evidence.Gap{What: what, Why: why})
		}
	}
	gap(!f.ReadAllStats, "other users' sessions and statements", "the user "+f.User+" sees its own only; GRANT pg_monitor TO "+f.User)
	gap(f.Statements == "", "statistics of statements", "pg_stat_statements is not installed in this database; CREATE EXTENSION pg_stat_statements, with shared_preload_libraries")
	gap(f.Hypopg == "", "planner's gain of an index", "hypopg is not installed in this database; CREATE EXTENSION hypopg, in a copy of the database if need be")
	gap(!f.IOTiming, "time spent reading blocks", "track_io_timing is off")
	gap(f.Version < 140000, "how long a lock is waited for", "told since PostgreSQL 14; the age of the statement stands for it")
	return f, err
}

// Facts reads what the server and the user of the probe are; asked again each time.
func (p *Postgres) Facts(ctx context.Context) (f evidence.PostgresServer, err error) {
	err = p.look(ctx, "facts", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			f, err = readFacts(ctx, tx)
			return err
		})
	})
	return f, err
}

// look waits for its turn, which is no part of the cost, and runs f within the budget with a connection that works.
func (p *Postgres) look(ctx context.Context, key string, f func(context.Context) error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.guard.look(ctx, key, p.cfg.Timeout, func(ctx context.Context) error {
		err := p.ready(ctx)
		if err == nil {
			err = f(ctx)
		}
		if err != nil && p.conn != nil && (p.conn.IsClosed() || ctx.Err() != nil) {
			p.drop()
		}
		return grade(err)
	})
}

// ready gives p a connection, and the facts of its server.
func (p *Postgres) ready(ctx context.Context) error {
	if p.conn != nil && !p.conn.IsClosed() {
		return nil
	}
	p.drop()
	conn, err := p.dial(ctx)
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	p.conn = conn
	return p.read(ctx, func(tx pgx.Tx) error {
		p.facts, err = readFacts(ctx, tx)
		return err
	})
}

// read runs f in a READ ONLY transaction with time-outs, and rolls it back.
func (p *Postgres) read(ctx context.Context, f func(pgx.Tx) error) error {
	tx, err := p.conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // a connection that cannot is closed, and the next look opens another
	}()
	// Compiling a query of the catalogues takes longer than it runs.
	limits := `select set_config('jit', 'off', true), set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true), set_config('idle_in_transaction_session_timeout', $3, true)`
	ms := func(d time.Duration) string { return fmt.Sprintf("%dms", max(1, d.Milliseconds())) }
	if _, err := tx.Exec(ctx, limits, pgx.QueryExecModeExec, ms(p.cfg.StatementTime), ms(p.cfg.LockTime), ms(p.cfg.Timeout)); err != nil {
		return fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	return f(tx)
}

// quiet fails when the server has too much to do for a look that is dear.
func (p *Postgres) quiet(ctx context.Context, tx pgx.Tx) error {
	var active int
	err := tx.QueryRow(ctx, `select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()`, pgx.QueryExecModeExec).Scan(&active)
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	most := p.cfg.MaxActive
	if most == 0 {
		most = max(1, p.facts.MaxConns/2)
	}
	if active > most {
		return fmt.Errorf("probe: PostgreSQL: %w: %d active sessions, the limit is %d", errOverload, active, most)
	}
	return nil
}

// grade marks the errors that an overloaded server gives.
func grade(err error) error {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok || errors.Is(err, errOverload):
		return err
	case fault.Code == "57014" || fault.Code == "57P03" || strings.HasPrefix(fault.Code, "53"): // time-out, not ready, out of resources
		return fmt.Errorf("%w: %w", errOverload, err)
	}
	return err
}

// code is the SQLSTATE of err, "" when the server did not send it.
func code(err error) string {
	if fault, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fault.Code
	}
	return ""
}

// rows scans all rows of a query, at most limit; more is reported as cut.
func rows[T any](ctx context.Context, tx pgx.Tx, limit int, scan func(pgx.Rows) (T, error), sql string, args ...any) (list []T, cut bool, err error) {
	r, err := tx.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, false, fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	defer r.Close()
	for r.Next() {
		if len(list) >= limit {
			return list, true, nil
		}
		one, err := scan(r)
		if err != nil {
			return nil, false, fmt.Errorf("probe: PostgreSQL: %w", err)
		}
		list = append(list, one)
	}
	if err := r.Err(); err != nil {
		return nil, false, fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	return list, false, nil
}

func seconds(s *float64) time.Duration {
	if s == nil || *s < 0 {
		return 0
	}
	return time.Duration(min(*s, 1e9) * float64(time.Second))
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

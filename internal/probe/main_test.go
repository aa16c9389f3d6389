package probe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/longpole/longpole/internal/servers"
	"github.com/longpole/longpole/internal/systemtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if cluster.server != nil {
			if err := cluster.server.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			}
		}
		os.Exit(code)
	}))
}

// started fails or skips the test when a server did not start.
func started(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) {
		systemtest.Missing(t, err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
}

// cluster is a real PostgreSQL that the tests share, started by the first that needs it.
var cluster struct {
	once   sync.Once
	server *servers.Server // nil = none runs
	err    error
}

// postgresSettings have the server log who asked what, and leave it to the tests when a table is vacuumed or analysed.
const postgresSettings = `
autovacuum = off
max_connections = 40
max_prepared_transactions = 4
shared_preload_libraries = 'pg_stat_statements'
log_line_prefix = '%a|%d|'
`

// postgres is the address of the shared server.
func postgres(t testing.TB) string {
	t.Helper()
	cluster.once.Do(func() {
		cluster.server, cluster.err = servers.Postgres(t.Context(), servers.PostgresOptions{Settings: postgresSettings, Extensions: []string{"pg_stat_statements", "hypopg"}})
	})
	started(t, cluster.err)
	return cluster.server.Address()
}

func dsn(addr, as, database, application string) string {
	u := url.URL{Scheme: "postgres", Host: addr, User: url.User(as), Path: "/" + database}
	u.RawQuery = url.Values{"sslmode": {"disable"}, "application_name": {application}}.Encode()
	return u.String()
}

// session is a connection of an application.
func session(t testing.TB, as, database, application string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn(postgres(t), as, database, application))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// database makes a database of its own for a test, with the extensions in a schema that is not on the search path.
func database(t testing.TB, name string, extensions bool, setup ...string) {
	t.Helper()
	admin := session(t, "postgres", "postgres", "setup")
	run(t, admin, "create database "+name)
	conn := session(t, "postgres", name, "setup")
	if extensions {
		setup = append([]string{"create schema tools", "create extension pg_stat_statements schema tools", "create extension hypopg schema tools"}, setup...)
	}
	for _, sql := range setup {
		if strings.HasPrefix(sql, "analyze") { // which must come after the counts of what went before it
			conn.Close(t.Context())
			conn = session(t, "postgres", name, "setup")
		}
		run(t, conn, sql)
	}
	conn.Close(t.Context())
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), dsn(postgres(t), "postgres", "postgres", "setup"))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "drop database "+name+" with (force)"); err != nil {
			t.Error(err)
		}
	})
}

func run(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// collector reads database as a user, with a budget that tests do not meet.
func collector(t testing.TB, as, database string, edit ...func(*PostgresConfig)) *Postgres {
	t.Helper()
	c := PostgresConfig{Timeout: time.Minute, StatementTime: 30 * time.Second, LockTime: time.Second, Budget: Budget{MinInterval: 100 * time.Millisecond, PerHour: time.Hour}}
	for _, f := range edit {
		f(&c)
	}
	dial, err := DialPostgres(dsn(postgres(t), as, database, ""))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPostgres(c, dial)
	if err != nil {
		t.Fatal(err)
	}
	p.guard.budget.MinInterval = 0
	t.Cleanup(p.Close)
	return p
}

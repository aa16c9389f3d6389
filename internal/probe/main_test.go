package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		stopPostgres()
		os.Exit(code)
	}))
}

// missing ends a test for want of a program: it fails where CI=true says that all of them are installed.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; scripts/setup-tests.sh installs it", what)
	}
	t.Skipf("no %s here; scripts/setup-tests.sh installs it", what)
}

// free is an address on which nobody listens.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cluster is a real PostgreSQL that the tests share, started by the first that needs it.
var cluster struct {
	once sync.Once
	addr string
	dir  string
	cmd  *exec.Cmd
	err  error
}

var errNoPostgres = errors.New("postgresql-15")

// postgres is the address of the shared server.
func postgres(t testing.TB) string {
	t.Helper()
	cluster.once.Do(func() {
		addr := free(t)
		cluster.addr, cluster.err = addr, startPostgres(addr)
	})
	if errors.Is(cluster.err, errNoPostgres) {
		missing(t, cluster.err.Error())
	} else if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.addr
}

const postgresConf = `
listen_addresses = '127.0.0.1'
port = %s
unix_socket_directories = ''
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
jit = off
max_connections = 40
max_prepared_transactions = 4
shared_preload_libraries = 'pg_stat_statements'
track_io_timing = on
max_parallel_workers_per_gather = 0
log_line_prefix = '%%a|%%d|'
`

func startPostgres(addr string) error {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(bins)
	i := slices.IndexFunc(bins, func(b string) bool {
		extensions := filepath.Join("/usr/share/postgresql", filepath.Base(filepath.Dir(b)), "extension")
		for _, f := range []string{filepath.Join(b, "initdb"), filepath.Join(extensions, "hypopg.control"), filepath.Join(extensions, "pg_stat_statements.control")} {
			if _, err := os.Stat(f); err != nil {
				return false
			}
		}
		return true
	})
	if i < 0 {
		return fmt.Errorf("%w with pg_stat_statements and hypopg", errNoPostgres)
	}
	dir, err := os.MkdirTemp("", "longpole-pg-")
	if err != nil {
		return err
	}
	cluster.dir = dir
	as := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // which PostgreSQL refuses
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bins[i], "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	_, port, _ := net.SplitHostPort(addr)
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(f, postgresConf, port)
	f.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cluster.cmd = exec.Command(filepath.Join(bins[i], "postgres"), "-D", data)
	cluster.cmd.SysProcAttr, cluster.cmd.Dir, cluster.cmd.Stdout, cluster.cmd.Stderr = as, dir, log, log
	if err := cluster.cmd.Start(); err != nil {
		return err
	}
	return ready(addr)
}

// ready waits until the server takes connections, 60 s at most.
func ready(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, dsn(addr, "postgres", "postgres", ""))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(cluster.dir, "log"))
			return fmt.Errorf("PostgreSQL did not start: %w\n%s", err, log)
		}
	}
}

func stopPostgres() {
	if cluster.cmd != nil && cluster.cmd.Process != nil {
		cluster.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing is kept
		cluster.cmd.Wait()
	}
	if cluster.dir != "" {
		os.RemoveAll(cluster.dir)
	}
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

package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// service is a small program with a pool of connections whose requests leave traces.
type service struct {
	t        *testing.T
	database string
	idle     chan *pgx.Conn
	size     int

	waiting, waits, waited atomic.Int64 // who waits for a connection; how many did, and for how long in ns
	mu                     sync.Mutex
	traces                 []trace.Trace
	looks                  int // of the probe at the sessions, before those that count
}

func newService(t *testing.T, database string, connections int) *service {
	t.Helper()
	s := &service{t: t, database: database, idle: make(chan *pgx.Conn, connections), size: connections}
	for range connections {
		s.idle <- session(t, "postgres", database, "shop")
	}
	return s
}

// request is one call of the service and its spans.
type request struct {
	s     *service
	spans []trace.Span
	conn  *pgx.Conn
}

func (r *request) span(parent, name string, kind trace.Kind, attributes ...trace.Attribute) func() {
	id := fmt.Sprint("s", len(r.spans)+1)
	at := len(r.spans)
	r.spans = append(r.spans, trace.Span{ID: id, Parent: parent, Service: "shop", Host: "shop-1", Name: name, Kind: kind, Start: time.Now().UnixNano(), Attributes: attributes})
	return func() { r.spans[at].End = time.Now().UnixNano() }
}

// query runs a statement as its driver would, with a span that holds its text.
func (r *request) query(sql string, args ...any) {
	verb, _, _ := strings.Cut(sql, " ")
	done := r.span("s1", strings.ToUpper(verb)+" "+r.s.database, trace.Client, trace.Attribute{Key: "db.system.name", Value: "postgresql"},
		trace.Attribute{Key: "db.namespace", Value: r.s.database}, trace.Attribute{Key: "db.query.text", Value: sql})
	rows, err := r.conn.Query(context.Background(), sql, args...)
	if err == nil {
		for rows.Next() {
		}
		err = rows.Err()
	}
	done()
	if err != nil {
		r.s.t.Errorf("%s: %v", sql, err)
	}
}

// serve answers one request.
func (s *service) serve(name string, f func(*request)) {
	r := &request{s: s}
	done := r.span("", name, trace.Server)
	s.waiting.Add(1)
	began := time.Now()
	select {
	case r.conn = <-s.idle:
	default:
		r.conn = <-s.idle
		s.waits.Add(1)
		s.waited.Add(int64(time.Since(began)))
	}
	s.waiting.Add(-1)
	f(r)
	s.idle <- r.conn
	done()
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%032x", len(s.traces)+1)
	for i := range r.spans {
		r.spans[i].TraceID = id
	}
	s.traces = append(s.traces, trace.Trace{ID: id, Spans: r.spans})
}

// metrics is the page of the service's process.
func (s *service) metrics() string {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "go_sql_max_open_connections{db_name=\"main\"} %d\ngo_sql_in_use_connections{db_name=\"main\"} %d\ngo_sql_idle_connections{db_name=\"main\"} %d\n", s.size, s.size-len(s.idle), len(s.idle))
		fmt.Fprintf(w, "go_sql_wait_count_total{db_name=\"main\"} %d\ngo_sql_wait_duration_seconds_total{db_name=\"main\"} %g\n", s.waits.Load(), time.Duration(s.waited.Load()).Seconds())
	}))
	s.t.Cleanup(page.Close)
	return page.URL
}

// look collects over a window as an onlooker, while the service works, and asks about the statements of its traces.
func (s *service) look(window time.Duration, work func()) evidence.Facts {
	s.t.Helper()
	c := Config{
		Postgres: []PostgresConfig{{DSN: dsn(postgres(s.t), "onlooker_"+s.database, s.database, "longpole-probe"), Timeout: time.Minute, StatementTime: 30 * time.Second, LockTime: time.Second, Budget: Budget{PerHour: time.Hour}}},
		Metrics:  []MetricsConfig{{Service: "shop", URLs: []string{s.metrics()}}},
	}
	collector, err := NewCollector(c.Once(window))
	if err != nil {
		s.t.Fatal(err)
	}
	defer collector.Close()
	collector.Collect(s.t.Context(), 200*time.Millisecond, nil) // what comes is counted from here
	s.looks = s.sessionsRead()
	var at sync.WaitGroup
	at.Go(work)
	facts := collector.Collect(s.t.Context(), window, func() []Query {
		at.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		return Queries(s.traces, collector.Most())
	})
	for _, status := range collector.Status() {
		if status.Fault != "" || status.At.IsZero() {
			s.t.Errorf("%+v", status)
		}
	}
	return facts
}

// sessionsRead is how often the probe has read who waits for whom: the server logs what it asks right after that.
func (s *service) sessionsRead() (n int) {
	s.t.Helper()
	data, err := os.ReadFile(cluster.server.Log())
	if err != nil {
		s.t.Error(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "longpole-probe|"+s.database+"|") && strings.Contains(line, "rolconnlimit") {
			n++
		}
	}
	return n
}

// seen waits until the probe has looked at the sessions while the service works.
func (s *service) seen() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); s.sessionsRead() <= s.looks; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) { // an error, since it is not the test's own goroutine that waits
			s.t.Error("the probe did not look at the sessions")
			return
		}
	}
}

// plant makes a database with an onlooker who may only read.
func plant(t *testing.T, name string, setup ...string) {
	t.Helper()
	role := "onlooker_" + name
	server := session(t, "postgres", "postgres", "setup")
	t.Cleanup(func() { // behind the database, so that the test can run again
		if _, err := server.Exec(context.Background(), "drop role "+role); err != nil {
			t.Error(err)
		}
	})
	database(t, name, true, append([]string{
		"create role " + role + " login", "grant pg_monitor, pg_read_all_data to " + role, "grant usage on schema tools to " + role, "alter role " + role + " set log_statement = 'all'",
	}, setup...)...)
	admin := session(t, "postgres", "postgres", "setup")
	t.Cleanup(func() { onlyRead(t, name) })
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "grant pg_monitor to postgres"); err != nil {
			t.Log(err)
		}
	})
}

// onlyRead looks at what the server logged of the probe: it read, planned, and rolled back.
func onlyRead(t *testing.T, database string) {
	t.Helper()
	data, err := os.ReadFile(cluster.server.Log())
	if err != nil {
		t.Error(err)
		return
	}
	statements := 0
	for line := range strings.Lines(string(data)) {
		rest, ours := strings.CutPrefix(line, "longpole-probe|"+database+"|")
		_, sql, ok := strings.Cut(rest, "statement: ")
		if !ok {
			_, sql, ok = strings.Cut(rest, ": ")
			if i := strings.Index(rest, "execute "); ok && i >= 0 {
				_, sql, ok = strings.Cut(rest[i:], ": ")
			} else {
				ok = false
			}
		}
		if !ours || !ok {
			continue
		}
		statements++
		verb, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(sql)), " ")
		switch verb {
		case "begin", "select", "prepare", "explain", "deallocate", "savepoint", "release", "rollback", "set", "with":
		default:
			t.Errorf("the probe sent %s", line)
		}
		if l := strings.ToLower(sql); verb == "begin" && !strings.Contains(l, "read only") || verb == "explain" && strings.Contains(l, "analyze") {
			t.Errorf("the probe sent %s", line)
		}
	}
	if statements < 10 {
		t.Errorf("the server logged %d statements of the probe", statements)
	}
}

// named is the first finding of a class.
func (s *service) named(facts evidence.Facts, class string) advise.Finding {
	s.t.Helper()
	r := advise.Run(s.traces, diagnose.Options{Facts: facts}, nil)
	var have []string
	for _, route := range r.Routes {
		for _, f := range route.Findings {
			if f.Class == class {
				return f
			}
			have = append(have, f.Class+": "+f.Summary)
		}
	}
	s.t.Fatalf("no %s in %d traces; there are %s\nfacts %+v", class, len(s.traces), strings.Join(have, "; "), facts)
	return advise.Finding{}
}

// says reports whether a line holds all parts.
func says(lines []string, parts ...string) bool {
	for _, l := range lines {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(l, p)
		}
		if all {
			return true
		}
	}
	return false
}

// TestAPlantedMissingIndexIsDiagnosed: a log-in by the hash of a name, without an index on the hash.
func TestAPlantedMissingIndexIsDiagnosed(t *testing.T) {
	plant(t, "planted_index", `create table users (id bigserial primary key, email text not null, note text not null)`,
		`insert into users (email, note) select 'User' || i || '@Example.com', repeat('x', 60) from generate_series(1, 60000) i`, `analyze users`)
	untouched(t, "planted_index")
	s := newService(t, "planted_index", 2)
	facts := s.look(time.Second, func() {
		for i := range 52 {
			s.serve("POST /login", func(r *request) {
				r.query("select id, note from users where md5(lower(email)) = md5($1)", fmt.Sprintf("user%d@example.com", i))
				r.query("select note from users where id = $1", i)
			})
		}
	})
	f := s.named(facts, "database")
	if f.Detail.Variant != "missing_index" || !says(f.Evidence, "whole table users") || !says(f.Evidence, "an index ON public.users", "of the cost") || f.Verdict != diagnose.Confirmed || f.Detail.QueryID == 0 {
		t.Errorf("%+v", f)
	}
	if len(f.Actions) == 0 || f.Actions[0].Kind != "index" || !strings.HasPrefix(f.Actions[0].Text, "CREATE INDEX CONCURRENTLY ON public.users ((md5(lower(email))))") {
		t.Fatalf("%+v", f.Actions)
	}
	if e := f.Actions[0].Effects; len(e) == 0 || e[0].Predicted.P50 <= 0 || e[0].Predicted.P50 > 0.7*e[0].Before.P50 {
		t.Errorf("with the index the typical log-in takes %+v", e)
	}
}

// TestAPlantedLockChainIsDiagnosed: a batch that holds a row and does nothing, and payments that want it.
func TestAPlantedLockChainIsDiagnosed(t *testing.T) {
	plant(t, "planted_lock", shop...)
	s := newService(t, "planted_lock", 12)
	pay := func(id int) {
		s.serve("POST /pay", func(r *request) { r.query("update orders set status = $1 where id = $2", "paid", id) })
	}
	for i := range 60 {
		pay(100 + i)
	}
	admin := session(t, "postgres", "planted_lock", "admin")
	batch := session(t, "postgres", "planted_lock", "batch")
	run(t, batch, "begin")
	run(t, batch, "update orders set status = 'held' where id = 7")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { pay(7) })
	}
	blocked(t, admin, 8)
	facts := s.look(time.Second, func() {
		time.Sleep(700 * time.Millisecond) // time is the subject: a wait that is long beside an update
		s.seen()
		run(t, batch, "commit")
		all.Wait()
	})
	f := s.named(facts, "lock")
	if f.Verdict != diagnose.Confirmed || !says(f.Evidence, "sessions wait", "batch", "idle in transaction", "update orders set status = 'held' where id = 7") || f.Detail.HolderPID == 0 {
		t.Errorf("%+v", f)
	}
	if !strings.Contains(f.Detail.Holder, "'held'") || len(f.Actions) == 0 {
		t.Errorf("holder %q, actions %+v", f.Detail.Holder, f.Actions)
	}
}

// TestAPlantedBadEstimateIsDiagnosed: statistics from before most rows came, and a loop that was meant for one.
func TestAPlantedBadEstimateIsDiagnosed(t *testing.T) {
	plant(t, "planted_estimate", `create table details (id bigint primary key, body text)`, `insert into details select i, repeat('x', 40) from generate_series(1, 80000) i`,
		`create table events (kind int, detail bigint)`, `create index on events (kind)`, `insert into events select 1, i from generate_series(1, 80000) i`, `analyze events`, `analyze details`,
		`insert into events select 2, i from generate_series(1, 80000) i`)
	untouched(t, "planted_estimate")
	s := newService(t, "planted_estimate", 2)
	facts := s.look(time.Second, func() {
		for range 20 {
			s.serve("GET /events", func(r *request) {
				r.query("select d.id, d.body from events e join details d on d.id = e.detail where e.kind = 2")
			})
		}
	})
	f := s.named(facts, "database")
	if f.Detail.Variant != "bad_plan" || !says(f.Evidence, "the planner expects", "the statement gives 80000 on average") || !says(f.Evidence, "rows of events have changed since it was analysed") {
		t.Errorf("%+v", f)
	}
	if len(f.Actions) == 0 || !strings.HasPrefix(f.Actions[0].Text, "ANALYZE events") {
		t.Errorf("%+v", f.Actions)
	}
}

// TestAPlantedLoopIsDiagnosed: one query for each order in place of one for all; the database is not slow.
func TestAPlantedLoopIsDiagnosed(t *testing.T) {
	plant(t, "planted_loop", append(shop, "create index on items (order_id)", "analyze items")...)
	untouched(t, "planted_loop")
	s := newService(t, "planted_loop", 2)
	facts := s.look(time.Second, func() {
		for i := range 60 {
			s.serve("GET /orders", func(r *request) {
				r.query("select id from orders where id between $1 and $1 + 40", i)
				for k := range 40 {
					r.query("select name from items where order_id = $1", i+k)
				}
			})
		}
	})
	f := s.named(facts, "n_plus_one")
	if f.Detail.Calls < 39 || len(f.Actions) == 0 || f.Actions[0].Kind != "batch" {
		t.Errorf("%+v", f)
	}
	st, _ := facts.Statement("select name from items where order_id = $1")
	if st == nil || len(st.Stats) != 1 || st.Stats[0].Calls != 2400 {
		t.Errorf("the server counts %+v", st)
	}
	if !says(f.Evidence, "calls") {
		t.Errorf("%v", f.Evidence)
	}
}

// TestAPlantedPoolExhaustionIsDiagnosed: now and then twelve requests at once for two connections.
func TestAPlantedPoolExhaustionIsDiagnosed(t *testing.T) {
	plant(t, "planted_pool", shop...)
	untouched(t, "planted_pool")
	s := newService(t, "planted_pool", 2)
	report := func() {
		s.serve("GET /report", func(r *request) { r.query("select pg_sleep(0.01), count(*) from orders where id < $1", 100) })
	}
	for range 150 {
		report()
	}
	facts := s.look(time.Second, func() {
		for range 3 {
			var all sync.WaitGroup
			for range 12 {
				all.Go(report)
			}
			all.Wait()
		}
		var all sync.WaitGroup
		for range 2 { // both connections taken until the window's last look
			all.Go(func() {
				s.serve("GET /export", func(r *request) { r.query("select pg_sleep(1.2), count(*) from orders where id < $1", 100) })
			})
		}
		all.Wait()
	})
	f := s.named(facts, "pool_exhaustion")
	if f.Verdict != diagnose.Confirmed || f.Detail.Pool != "main" || !says(f.Evidence, "pool main", "2 of 2 connections in use") {
		t.Errorf("%+v", f)
	}
}

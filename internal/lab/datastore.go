package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// The costs of a database server. What SQLite has taken of them is not waited for again.
const (
	rowTime  = 5 * time.Microsecond   // of a row that is given
	scanTime = 200 * time.Nanosecond  // of a row that is looked at
	lookTime = 100 * time.Millisecond // between two looks at who waits for whom
)

// datastore is one database server in this process. Statements are executed by SQLite, whose planner decides between an index
// and the whole table; the time of a disk and of the rows that are not really there, locks and sessions are simulated.
type datastore struct {
	spec    scenario.Store
	queries []*scenario.Query // of the scenario, on this store
	engine  *engine           // nil before open
	random  *dice
	cores   gate

	mu         sync.Mutex
	dropped    map[string]bool // "table.column"
	rows       map[string]*rowLock
	held       map[string]*rowLock // whole tables that a planted session keeps
	sessions   map[int]*session
	next       int // process ID of the next session
	statements map[string]*statement
	worst      []evidence.LockChain // the most waiters seen at one look
	most       evidence.Sessions    // the most sessions seen at one look
	waiting    int                  // of worst
}

// statement is what one text did since the phase began.
type statement struct {
	query *scenario.Query
	took  samples
	rows  int
}

// rowLock is a lock that is held, and who waits for it.
type rowLock struct {
	gate    gate
	holder  *session
	waiters int
}

// session is one statement in work, or a session that holds a lock and does nothing.
type session struct {
	pid         int
	application string
	text        string
	state       string
	since       time.Time
	waits       *rowLock // nil = it runs
	waitSince   time.Time
	relation    string
}

func newDatastore(spec *scenario.Scenario, store scenario.Store, seed uint64) *datastore {
	d := &datastore{
		spec: store, random: newDice(seed, store.Name), cores: newGate(store.Cores), dropped: map[string]bool{},
		rows: map[string]*rowLock{}, held: map[string]*rowLock{}, sessions: map[int]*session{}, next: 1000,
	}
	d.statements = map[string]*statement{}
	for q := range queriesOf(spec) {
		if q.Store == store.Name {
			d.queries = append(d.queries, q)
		}
	}
	return d
}

func (d *datastore) open(ctx context.Context) (err error) {
	if d.engine, err = openEngine(ctx, &d.spec, d.queries); err != nil {
		return d.wrong(err)
	}
	return nil
}

func (d *datastore) wrong(err error) error { return fmt.Errorf("lab: store %s: %w", d.spec.Name, err) }

func (d *datastore) close() error {
	if d.engine == nil {
		return nil
	}
	return d.engine.close()
}

func (d *datastore) address() (host, port string) { return d.spec.Name, "5432" }

func (d *datastore) reset(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statements, d.worst, d.waiting, d.most = map[string]*statement{}, nil, 0, evidence.Sessions{}
	return nil
}

// text is a statement with place holders.
func (d *datastore) text(q *scenario.Query) string {
	switch q.Verb {
	case "insert":
		return fmt.Sprintf("INSERT INTO %s (%s, body) VALUES ($1, $2)", q.Table, q.Where)
	case "update":
		return fmt.Sprintf("UPDATE %s SET body = $2 WHERE %s = $1", q.Table, q.Where)
	}
	if q.Rows > 1 {
		return fmt.Sprintf("SELECT * FROM %s WHERE %s = $1 LIMIT %d", q.Table, q.Where, q.Rows)
	}
	return fmt.Sprintf("SELECT * FROM %s WHERE %s = $1", q.Table, q.Where)
}

func (d *datastore) table(name string) *scenario.Table {
	i := slices.IndexFunc(d.spec.Tables, func(t scenario.Table) bool { return t.Name == name })
	return &d.spec.Tables[i]
}

// indexed reports whether there is an index for q.
func (d *datastore) indexed(q *scenario.Query) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(q.Table)
	return (q.Where == "id" || slices.Contains(t.Indexes, q.Where)) && !d.dropped[q.Table+"."+q.Where]
}

// run executes one statement: its lock, its work on a core, and what it keeps the lock for.
func (d *datastore) run(ctx context.Context, application string, q *scenario.Query, key int) error {
	began := time.Now()
	s := d.enter(application, q)
	defer func() { d.leave(s, q, time.Since(began)) }()
	if q.Verb == "update" {
		done, err := d.lock(ctx, s, q, key)
		if err != nil {
			return err
		}
		defer done()
	}
	if _, err := d.cores.enter(ctx); err != nil {
		return err
	}
	err := d.work(ctx, q, key)
	d.cores.leave()
	if err == nil && q.Hold != nil {
		err = pause(ctx, d.random.draw(*q.Hold))
	}
	return err
}

// work executes a statement, and waits for what it would cost besides.
func (d *datastore) work(ctx context.Context, q *scenario.Query, key int) error {
	began := time.Now()
	scanned, err := d.engine.run(ctx, q, key)
	if err != nil {
		return d.wrong(err)
	}
	cost := d.random.draw(*d.spec.Base) + time.Duration(q.Rows)*rowTime
	if scanned {
		cost += time.Duration(d.table(q.Table).Rows) * scanTime
	}
	return pause(ctx, cost-time.Since(began))
}

func (d *datastore) enter(application string, q *scenario.Query) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	s := &session{pid: d.next, application: application, text: d.text(q), state: "active", since: time.Now(), relation: q.Table}
	d.sessions[s.pid] = s
	return s
}

func (d *datastore) leave(s *session, q *scenario.Query, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, s.pid)
	x := d.statements[s.text]
	if x == nil {
		x = &statement{query: q}
		d.statements[s.text] = x
	}
	x.took.add(took)
	x.rows += q.Rows
}

// lock takes the lock of a row, and waits for a session that keeps the table.
func (d *datastore) lock(ctx context.Context, s *session, q *scenario.Query, key int) (release func(), err error) {
	d.mu.Lock()
	if table := d.held[q.Table]; table != nil {
		if err := d.await(ctx, s, table); err != nil {
			d.mu.Unlock()
			return nil, err
		}
		table.gate.leave()
	}
	name := fmt.Sprintf("%s %d", q.Table, key)
	l := d.rows[name]
	if l == nil {
		l = &rowLock{gate: newGate(1)}
		d.rows[name] = l
	}
	err = d.await(ctx, s, l)
	if err == nil {
		l.holder = s
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		l.holder = nil
		l.gate.leave()
		if l.waiters == 0 {
			delete(d.rows, name)
		}
	}, nil
}

// await waits for l without holding d.mu, which it is called with.
func (d *datastore) await(ctx context.Context, s *session, l *rowLock) error {
	l.waiters++
	s.waits, s.waitSince = l, time.Now()
	d.mu.Unlock()
	_, err := l.gate.enter(ctx)
	d.mu.Lock()
	l.waiters--
	s.waits = nil
	return err
}

// hold plants a session that keeps the rows of a table locked, and does nothing; with on false it goes away.
func (d *datastore) hold(_ context.Context, table string, on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.held[table]
	if on == (l != nil) {
		return nil
	}
	if !on {
		delete(d.held, table)
		delete(d.sessions, l.holder.pid)
		l.gate.leave()
		return nil
	}
	d.next++
	s := &session{pid: d.next, application: "nightly-report", text: "SELECT * FROM " + table + " FOR UPDATE", state: "idle in transaction", since: time.Now(), relation: table}
	d.sessions[s.pid] = s
	d.held[table] = &rowLock{gate: newGate(1), holder: s}
	d.held[table].gate <- struct{}{}
	return nil
}

func (d *datastore) dropIndex(ctx context.Context, table, column string, on bool) error {
	if err := d.engine.index(ctx, table, column, !on); err != nil {
		return d.wrong(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropped[table+"."+column] = on
	return nil
}

func (d *datastore) age(ctx context.Context, table string, on bool) error {
	if err := d.engine.analyse(ctx, table, on || d.table(table).Stale); err != nil {
		return d.wrong(err)
	}
	return nil
}

// attend looks at who waits for whom, as a monitor of a real server does, until ctx ends.
func (d *datastore) attend(ctx context.Context) error {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.look()
		}
	}
}

func (d *datastore) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var backends []evidence.Backend
	waiting := 0
	for _, s := range d.sessions {
		b := evidence.Backend{
			PID: s.pid, Database: "lab", User: s.application, Application: s.application, State: s.state, Query: s.text,
			QueryAge: now.Sub(s.since), XactAge: now.Sub(s.since), StateAge: now.Sub(s.since),
		}
		if s.waits != nil && s.waits.holder != nil && s.waits.holder != s {
			waiting++
			b.WaitType, b.Wait, b.WaitAge, b.BlockedBy = "Lock", "transactionid", now.Sub(s.waitSince), []int{s.waits.holder.pid}
			b.LockType, b.LockMode, b.Relation = "transactionid", "ShareLock", s.relation
		}
		backends = append(backends, b)
	}
	if len(backends) >= d.most.Total {
		d.most = evidence.CountSessions(backends)
		d.most.Max = d.spec.Connections
	}
	if waiting > d.waiting {
		d.waiting, d.worst = waiting, evidence.LockChains(backends)
	}
}

// facts is what a look at the server's catalogues tells.
func (d *datastore) facts(ctx context.Context) (evidence.PostgresFacts, error) {
	f := evidence.PostgresFacts{Name: d.spec.Name + ":5432/lab"}
	queries := map[string]*scenario.Query{}
	d.mu.Lock()
	most := d.most
	most.Max = d.spec.Connections
	f.Sessions, f.Chains = &most, d.worst
	for text, x := range d.statements {
		queries[text] = x.query
		f.Top = append(f.Top, evidence.StatementStat{
			QueryID: int64(len(queries)), Text: text, Calls: float64(x.took.n), TotalMS: x.took.sum.Seconds() * 1e3,
			MaxMS: x.took.quantile(1).Seconds() * 1e3, Rows: float64(x.rows),
		})
	}
	d.mu.Unlock()
	for _, stat := range f.Top {
		scans, err := d.engine.scans(ctx, queries[stat.Text])
		if err != nil {
			return f, d.wrong(err)
		}
		f.Asked = append(f.Asked, d.explain(queries[stat.Text], stat, scans))
	}
	slices.SortFunc(f.Asked, func(a, b evidence.PostgresStatement) int { return strings.Compare(a.Text, b.Text) })
	f.Top = evidence.TopByTotal(f.Top, evidence.MaxStatements)
	return f, nil
}

// explain is the planner's answer for a statement in the words of PostgreSQL, with an index tried hypothetically where it reads a whole table.
func (d *datastore) explain(q *scenario.Query, stat evidence.StatementStat, scans bool) evidence.PostgresStatement {
	t := d.table(q.Table)
	rows := float64(t.Rows)
	s := evidence.PostgresStatement{
		Text: stat.Text, Generic: true, Confidence: 1, Stats: []evidence.StatementStat{stat}, Matches: []evidence.Match{{QueryID: stat.QueryID, By: "server", Confidence: 1}},
		Tables: []evidence.Table{{Schema: "public", Name: t.Name, Rows: rows, Live: rows, Analyzed: time.Now().Add(-time.Hour), Bytes: int64(rows) * 100, Indexes: 1 + len(t.Indexes)}},
	}
	plan := &evidence.Plan{QueryID: stat.QueryID, Root: &evidence.Node{
		Type: "Index Scan", Schema: "public", Relation: t.Name, Index: t.Name + "_" + q.Where,
		TotalCost: 8 + float64(q.Rows), Rows: float64(q.Rows), Width: 100, IndexCond: "(" + q.Where + " = $1)",
	}}
	if q.Verb == "insert" {
		plan.Root = &evidence.Node{Type: "ModifyTable", Op: "Insert", Relation: t.Name, TotalCost: 0.01, Rows: 1}
	} else if scans {
		plan.Root = &evidence.Node{Type: "Seq Scan", Schema: "public", Relation: t.Name, TotalCost: rows * 0.0225, Rows: float64(q.Rows), Width: 100, Filter: "(" + q.Where + " = $1)"}
		if d.indexed(q) {
			plan.Root.Rows = rows / 3 // as old statistics have it: nearly every row would do, so why use an index
			s.Tables[0].Changed, s.Tables[0].Analyzed = rows*0.9, time.Now().Add(-60*24*time.Hour)
		} else {
			s.Indexes = plan.IndexCandidates()
			for i := range s.Indexes {
				c := &s.Indexes[i]
				c.Tested, c.Used, c.CostBefore, c.CostAfter, c.Bytes = true, true, plan.Root.TotalCost, 8+float64(q.Rows), int64(rows)*24
			}
		}
		s.SeqScans = plan.SeqScans()
	}
	s.Plan = plan
	s.Estimate()
	return s
}

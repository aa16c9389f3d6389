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

// The simulated costs of a database server.
const (
	rowTime  = 5 * time.Microsecond   // of a row that is given
	scanTime = 200 * time.Nanosecond  // of a row that is looked at
	lookTime = 100 * time.Millisecond // between two looks at who waits for whom
)

// datastore is one simulated database server.
type datastore struct {
	spec   scenario.Store
	random *dice
	cores  gate

	mu         sync.Mutex
	dropped    map[string]bool // "table.column"
	stale      map[string]bool // tables
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

func newDatastore(spec scenario.Store, seed uint64) *datastore {
	d := &datastore{
		spec: spec, random: newDice(seed, spec.Name), cores: newGate(spec.Cores), dropped: map[string]bool{}, stale: map[string]bool{},
		rows: map[string]*rowLock{}, held: map[string]*rowLock{}, sessions: map[int]*session{}, next: 1000,
	}
	d.reset()
	return d
}

func (d *datastore) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statements, d.worst, d.waiting, d.most = map[string]*statement{}, nil, 0, evidence.Sessions{}
}

// textOf is the text of a statement with place holders.
func textOf(q *scenario.Query) string {
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
	t := d.table(q.Table)
	return (q.Where == "id" || slices.Contains(t.Indexes, q.Where)) && !d.dropped[q.Table+"."+q.Where]
}

// scans reports whether q reads its whole table: there is no index, or the planner does not take it.
func (d *datastore) scans(q *scenario.Query) bool {
	return q.Verb != "insert" && (!d.indexed(q) || q.Where != "id" && (d.stale[q.Table] || d.table(q.Table).Stale))
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
	cost := d.random.draw(*d.spec.Base) + time.Duration(q.Rows)*rowTime
	d.mu.Lock()
	if d.scans(q) {
		cost += time.Duration(d.table(q.Table).Rows) * scanTime
	}
	d.mu.Unlock()
	err := pause(ctx, cost)
	d.cores.leave()
	if err == nil && q.Hold != nil {
		err = pause(ctx, d.random.draw(*q.Hold))
	}
	return err
}

func (d *datastore) enter(application string, q *scenario.Query) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	s := &session{pid: d.next, application: application, text: textOf(q), state: "active", since: time.Now(), relation: q.Table}
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
func (d *datastore) hold(table string, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.held[table]
	if !on {
		if l != nil {
			delete(d.held, table)
			delete(d.sessions, l.holder.pid)
			l.gate.leave()
		}
		return
	}
	d.next++
	s := &session{pid: d.next, application: "nightly-report", text: "SELECT * FROM " + table + " FOR UPDATE", state: "idle in transaction", since: time.Now(), relation: table}
	d.sessions[s.pid] = s
	d.held[table] = &rowLock{gate: newGate(1), holder: s}
	d.held[table].gate <- struct{}{}
}

// watch looks at who waits for whom, as a monitor of a real server does, until ctx ends.
func (d *datastore) watch(ctx context.Context) error {
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
func (d *datastore) facts() evidence.PostgresFacts {
	d.mu.Lock()
	defer d.mu.Unlock()
	most := d.most
	most.Max = d.spec.Connections
	f := evidence.PostgresFacts{Name: d.spec.Name + ":5432/lab", Sessions: &most, Chains: d.worst}
	id := int64(0)
	for text, x := range d.statements {
		id++
		stat := evidence.StatementStat{
			QueryID: id, Text: text, Calls: float64(x.took.n), TotalMS: x.took.sum.Seconds() * 1e3,
			MaxMS: x.took.quantile(1).Seconds() * 1e3, Rows: float64(x.rows),
		}
		f.Top = append(f.Top, stat)
		f.Asked = append(f.Asked, d.explain(text, x, stat))
	}
	slices.SortFunc(f.Asked, func(a, b evidence.PostgresStatement) int { return strings.Compare(a.Text, b.Text) })
	f.Top = evidence.TopByTotal(f.Top, evidence.MaxStatements)
	return f
}

// explain is the planner's answer for a statement, with an index tried hypothetically where it reads a whole table.
func (d *datastore) explain(text string, x *statement, stat evidence.StatementStat) evidence.PostgresStatement {
	q, t := x.query, d.table(x.query.Table)
	rows := float64(t.Rows)
	s := evidence.PostgresStatement{
		Text: text, Generic: true, Confidence: 1, Stats: []evidence.StatementStat{stat}, Matches: []evidence.Match{{QueryID: stat.QueryID, By: "server", Confidence: 1}},
		Tables: []evidence.Table{{Schema: "public", Name: t.Name, Rows: rows, Live: rows, Analyzed: time.Now().Add(-time.Hour), Bytes: int64(rows) * 100, Indexes: 1 + len(t.Indexes)}},
	}
	plan := &evidence.Plan{QueryID: stat.QueryID, Root: &evidence.Node{
		Type: "Index Scan", Schema: "public", Relation: t.Name, Index: t.Name + "_" + q.Where,
		TotalCost: 8 + float64(q.Rows), Rows: float64(q.Rows), Width: 100, IndexCond: "(" + q.Where + " = $1)",
	}}
	if q.Verb == "insert" {
		plan.Root = &evidence.Node{Type: "ModifyTable", Op: "Insert", Relation: t.Name, TotalCost: 0.01, Rows: 1}
	} else if d.scans(q) {
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

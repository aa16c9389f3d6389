package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/scenario"
)

// copies are the table and, where it has one, its copy with other statistics.
func (d *postgres) copies(table string) []string {
	if slices.Contains(d.aged, table) {
		return []string{table, table + agedSuffix}
	}
	return []string{table}
}

func (d *postgres) dropIndex(ctx context.Context, table, column string, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, realFaultTime)
	defer cancel()
	i := slices.IndexFunc(d.spec.Tables, func(t scenario.Table) bool { return t.Name == table })
	if column != "id" && (i < 0 || !slices.Contains(d.spec.Tables[i].Indexes, column)) {
		return nil // there never was one
	}
	var statements []string
	for _, name := range d.copies(table) {
		if on {
			statements = append(statements, "drop index if exists "+indexName(name, column))
		} else {
			statements = append(statements, d.index(name, column))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.change(ctx, table, statements...)
}

// change runs statements that need a table for themselves. A session that holds it for a fault lets it go for so long: they
// would wait for that fault's end, which may come after theirs. d.mu is held.
func (d *postgres) change(ctx context.Context, table string, statements ...string) error {
	holder := d.held[table]
	if holder == nil {
		return d.script(ctx, statements...)
	}
	delete(d.held, table)
	hangUp(holder)
	return errors.Join(d.script(ctx, statements...), d.keep(ctx, table))
}

// age has the table and its copy with old statistics change places, within one transaction.
func (d *postgres) age(ctx context.Context, table string, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, realFaultTime)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.old[table] == on {
		return nil
	}
	now, other := d.quoted[table], d.quoted[table+agedSuffix]
	rename := "begin; alter table " + now + " rename to longpole_swap; alter table " + other + " rename to " + now + "; alter table longpole_swap rename to " + other + "; commit"
	if err := d.change(ctx, table, rename); err != nil {
		return err
	}
	d.old[table] = on
	return nil
}

// hold opens a session that locks a table against changes and then does nothing, as a report does that was begun by hand. It
// locks the table as a whole, which holds up changes of any row.
func (d *postgres) hold(ctx context.Context, table string, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, realFaultTime)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	conn := d.held[table]
	if on == (conn != nil) {
		return nil
	}
	if !on {
		delete(d.held, table)
		hangUp(conn)
		return nil
	}
	return d.keep(ctx, table)
}

// keep opens the session. d.mu is held.
func (d *postgres) keep(ctx context.Context, table string) error {
	conn, err := d.connect(ctx, nightly)
	if err != nil {
		return err
	}
	for _, sql := range []string{"begin", "lock table " + d.quoted[table] + " in exclusive mode"} {
		if _, err = conn.Exec(ctx, sql); err != nil {
			hangUp(conn)
			return fmt.Errorf("lab: PostgreSQL: %s: %w", sql, err)
		}
	}
	d.held[table] = conn
	return nil
}

// openReader makes the collector of evidence. The server is the lab's own or lent to it, so that it may be asked often.
func (d *postgres) openReader() error {
	config := d.config.Copy()
	delete(config.RuntimeParams, "search_path") // the collector sets it where a statement needs it
	config.RuntimeParams["application_name"] = "longpole-probe"
	reader, err := probe.NewPostgres(probe.PostgresConfig{
		Name: d.hostPort(), SearchPath: d.schema, StatementTime: 5 * time.Second, LockTime: time.Second,
		Budget: probe.Budget{MinInterval: 100 * time.Millisecond, PerHour: time.Hour},
	}, func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config) })
	if err != nil {
		return err
	}
	d.reader = reader
	return nil
}

// attend looks at the sessions again and again, and keeps the worst that it sees.
func (d *postgres) attend(ctx context.Context) error {
	if d.reader == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(realLookTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			look, err := d.reader.Sessions(ctx)
			d.mu.Lock()
			if err == nil {
				probe.AddSessions(&d.seen, look)
			} else {
				d.missed("sessions", err)
			}
			d.mu.Unlock()
		}
	}
}

// missed keeps once that something could not be read. d.mu is held.
func (d *postgres) missed(what string, err error) {
	if g := (evidence.Gap{What: what, Why: err.Error()}); !slices.Contains(d.seen.Gaps, g) && len(d.seen.Gaps) < maxGaps {
		d.seen.Gaps = append(d.seen.Gaps, g)
	}
}

// maxGaps bounds what is kept of that.
const maxGaps = 16

func (d *postgres) reset(ctx context.Context) error {
	if d.reader == nil {
		return nil
	}
	now, err := d.reader.Statements(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, probe.ErrTooSoon) { // the last phase ended a moment ago
		now, err = d.last, nil
	}
	d.before, d.seen = now, evidence.PostgresFacts{Name: d.hostPort()}
	if err != nil {
		d.missed("statements", err)
	}
	return nil
}

// facts is what the collector read since the phase began, and what the server says now of the scenario's statements.
func (d *postgres) facts(ctx context.Context) (evidence.PostgresFacts, error) {
	top, err := d.between(ctx)
	var asked []evidence.PostgresStatement
	for _, text := range d.texts() {
		one, fault := d.reader.Statement(ctx, text)
		if fault == nil {
			asked = append(asked, probe.Recent(one, top))
		}
		err = cmp.Or(err, fault)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.missed("statements", err)
	}
	f := d.seen
	f.Top, f.Asked, f.Chains, f.Gaps = top, asked, slices.Clone(f.Chains), slices.Clone(f.Gaps)
	return f, nil
}

// between is what ran since the phase began, by the time it took.
func (d *postgres) between(ctx context.Context) ([]evidence.StatementStat, error) {
	after, err := d.reader.Statements(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.last = after
	list, _, _ := evidence.StatementsBetween(d.before, after)
	d.mu.Unlock()
	return d.reader.Texts(ctx, evidence.TopByTotal(list, evidence.MaxStatements))
}

// texts are the statements of the scenario, each once.
func (d *postgres) texts() []string {
	var all []string
	for _, q := range d.queries {
		all = append(all, d.text(q))
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), evidence.MaxStatements)]
}

package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/longpole/longpole/internal/evidence"
)

// smallTable is the number of rows below which an index does not pay.
const smallTable = 500

// Statement asks the database about the text of a span: its plan, which is not executed, its statistics, its tables, and, with hypopg,
// what an index would do to the planner's cost. The text must be one SELECT, INSERT, UPDATE, DELETE or MERGE; anything else fails with
// evidence.ErrStatement before anything is sent. What could not be had is a Gap, and the rest is given.
//
// Planning runs no part of the statement, but the planner itself may call functions that are marked immutable or stable with constant
// arguments, as it does for every client.
func (p *Postgres) Statement(ctx context.Context, sql string) (out evidence.PostgresStatement, err error) {
	s, err := evidence.ParseStatement(sql)
	if err != nil {
		return out, err
	}
	out.Text, out.Generic = s.Text, s.Params > 0
	fingerprint, _ := evidence.Fingerprint(sql)
	err = p.look(ctx, "statement "+fingerprint, func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			if err := p.quiet(ctx, tx); err != nil {
				return err
			}
			x := explainer{p, tx, s}
			if err := x.plan(ctx, &out); err != nil {
				return err
			}
			if err := x.match(ctx, sql, &out); err != nil {
				return err
			}
			if out.Plan == nil {
				return nil
			}
			if err := x.tables(ctx, &out); err != nil {
				return err
			}
			return x.indexes(ctx, &out)
		})
	})
	return out, err
}

// explainer asks about one statement in one transaction.
type explainer struct {
	p  *Postgres
	tx pgx.Tx
	s  evidence.Statement
}

// within runs f under a savepoint, so that what it breaks does not break the rest.
func (x explainer) within(ctx context.Context, f func(pgx.Tx) error) error {
	inner, err := x.tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	if err := f(inner); err != nil {
		return errors.Join(err, inner.Rollback(ctx))
	}
	return inner.Commit(ctx)
}

func command(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec)
	return err
}

// explain plans the statement. PREPARE takes nothing but SELECT, INSERT, UPDATE, DELETE, MERGE and VALUES, and the extended protocol
// takes one statement a message: a text that deceived our own reading ends here. EXECUTE under EXPLAIN without ANALYZE runs nothing.
func (x explainer) explain(ctx context.Context) (plan *evidence.Plan, err error) {
	prepared := false
	err = x.within(ctx, func(tx pgx.Tx) error {
		if x.p.cfg.SearchPath != "" {
			if _, err := tx.Exec(ctx, `select set_config('search_path', $1, true)`, pgx.QueryExecModeExec, x.p.cfg.SearchPath); err != nil {
				return err
			}
		}
		if err := command(ctx, tx, "prepare longpole_probe as "+x.s.Text); err != nil {
			return err
		}
		prepared = true
		arguments := ""
		if x.s.Params > 0 {
			if err := command(ctx, tx, "set local plan_cache_mode = force_generic_plan"); err != nil {
				return err
			}
			arguments = "(" + strings.Repeat("null, ", x.s.Params-1) + "null)"
		}
		var text string
		if err := tx.QueryRow(ctx, "explain (format json, verbose, settings) execute longpole_probe"+arguments, pgx.QueryExecModeExec).Scan(&text); err != nil {
			return err
		}
		plan, err = evidence.ReadPlan([]byte(text))
		return err
	})
	if prepared {
		if gone := command(ctx, x.tx, "deallocate longpole_probe"); err == nil {
			err = gone
		}
	}
	return plan, err
}

// plan explains the statement; what the server refuses for the statement's own sake is a Gap.
func (x explainer) plan(ctx context.Context, out *evidence.PostgresStatement) error {
	plan, err := x.explain(ctx)
	switch why := refused(err); {
	case err == nil:
	case why != "":
		out.Gaps = append(out.Gaps, evidence.Gap{What: "plan", Why: why})
		return nil
	default:
		return fmt.Errorf("probe: PostgreSQL: plan: %w", err)
	}
	out.Plan, out.SeqScans = plan, plan.SeqScans()
	out.Confidence = 0.9
	if out.Generic {
		out.Confidence = 0.7
		out.Gaps = append(out.Gaps, evidence.Gap{What: "plan for the span's values", Why: "the text has place holders; this is the generic plan"})
	}
	if x.s.Marks {
		out.Confidence = 0.6
		out.Gaps = append(out.Gaps, evidence.Gap{What: "types of the parameters", Why: "the place holders are a driver's; the server guessed the types"})
	}
	out.Gaps = append(out.Gaps, evidence.Gap{What: "actual rows and times of the plan's nodes", Why: "the statement is never executed"})
	return nil
}

// refused says in words why the server did not plan a statement; "" when that is no fault of the statement or of our rights.
func refused(err error) string {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return ""
	case fault.Code == "42501":
		return fault.Message + "; planning needs the rights that the statement needs"
	case fault.Code == "42P01" || fault.Code == "3F000":
		return fault.Message + "; another database, or a search_path that the configuration does not give (search_path)"
	case fault.Code == "42P18" || fault.Code == "42P08":
		return fault.Message + "; the type of a parameter does not follow from the text"
	case fault.Code == "55P03":
		return "a table is locked by somebody: " + fault.Message
	case strings.HasPrefix(fault.Code, "42") || strings.HasPrefix(fault.Code, "22") || strings.HasPrefix(fault.Code, "0A") || strings.HasPrefix(fault.Code, "25"):
		return fault.Message
	}
	return ""
}

// match finds the statement's statistics: by the id that the server gives, else by its text.
func (x explainer) match(ctx context.Context, sql string, out *evidence.PostgresStatement) error {
	if x.p.facts.Statements == "" {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "statistics of the statement", Why: "pg_stat_statements is not installed in this database"})
		return nil
	}
	var list evidence.Statements
	err := x.within(ctx, func(tx pgx.Tx) (err error) {
		list, err = x.p.statements(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	out.Gaps = append(out.Gaps, list.Gaps...)
	list.List = slices.DeleteFunc(list.List, func(s evidence.StatementStat) bool { return s.Database != x.p.facts.DatabaseOID })
	has := func(id int64) bool {
		return slices.ContainsFunc(list.List, func(s evidence.StatementStat) bool { return s.QueryID == id })
	}
	switch {
	case out.Plan != nil && out.Plan.QueryID != 0 && has(out.Plan.QueryID):
		out.Matches = []evidence.Match{{QueryID: out.Plan.QueryID, By: "server", Confidence: 1}}
	case len(list.List) > 0:
		if out.Plan != nil && out.Plan.QueryID == 0 {
			out.Gaps = append(out.Gaps, evidence.Gap{What: "the server's id of the statement", Why: "compute_query_id is off; texts were compared"})
		}
		texts, err := x.allTexts(ctx, list.List)
		if err != nil {
			return err
		}
		out.Matches = evidence.MatchText(sql, texts)
	}
	for _, s := range list.List {
		if slices.ContainsFunc(out.Matches, func(m evidence.Match) bool { return m.QueryID == s.QueryID }) {
			out.Stats = append(out.Stats, s)
		}
	}
	if len(out.Matches) == 0 && len(list.Gaps) == 0 {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "statistics of the statement", Why: "pg_stat_statements holds none with this text: it has not run to its end since, or was pushed out"})
	}
	out.Estimate()
	return nil
}

// allTexts adds the texts of the dearest statements.
func (x explainer) allTexts(ctx context.Context, list []evidence.StatementStat) ([]evidence.StatementStat, error) {
	const most = 1000
	list = slices.Clone(list[:min(len(list), most)])
	var ids []int64
	for _, s := range list {
		ids = append(ids, s.QueryID)
	}
	texts, err := x.p.texts(ctx, x.tx, ids, 2*most)
	for i := range list {
		list[i].Text = texts[list[i].QueryID]
	}
	return list, err
}

const tablesSQL = `select n.nspname::text, c.relname::text, c.reltuples::float8, coalesce(s.n_live_tup, 0)::float8, coalesce(s.n_dead_tup, 0)::float8,
	coalesce(s.n_mod_since_analyze, 0)::float8, greatest(s.last_analyze, s.last_autoanalyze), greatest(s.last_vacuum, s.last_autovacuum),
	coalesce(s.seq_scan, 0)::float8, coalesce(s.seq_tup_read, 0)::float8, coalesce(s.idx_scan, 0)::float8,
	coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0)::float8, c.relpages::int8 * current_setting('block_size')::int8,
	(select count(*)::int from pg_index i where i.indrelid = c.oid),
	array(select p.attname::text from pg_stats p where p.schemaname = n.nspname and p.tablename = c.relname order by p.attname limit 200),
	array(select p.n_distinct::float8 from pg_stats p where p.schemaname = n.nspname and p.tablename = c.relname order by p.attname limit 200)
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_stat_all_tables s on s.relid = c.oid
where (n.nspname::text, c.relname::text) in (select * from unnest($1::text[], $2::text[])) order by 1, 2`

// tables reads the statistics of the plan's tables.
func (x explainer) tables(ctx context.Context, out *evidence.PostgresStatement) error {
	const most = 100
	var schemas, names []string
	for n := range out.Plan.All() {
		if n.Relation != "" && n.Schema != "" && len(names) < most {
			schemas, names = append(schemas, n.Schema), append(names, n.Relation)
		}
	}
	if len(names) == 0 {
		return nil
	}
	var err error
	out.Tables, _, err = rows(ctx, x.tx, most, table, tablesSQL, schemas, names)
	for _, t := range out.Tables {
		if t.MissingStats {
			out.Gaps = append(out.Gaps, evidence.Gap{What: "statistics of the columns of " + t.Name, Why: "it was never analysed, or the user may not read it"})
		}
	}
	return err
}

func table(r pgx.Rows) (t evidence.Table, err error) {
	var columns []string
	var distinct []float64
	var analyzed, vacuumed *time.Time
	err = r.Scan(&t.Schema, &t.Name, &t.Rows, &t.Live, &t.Dead, &t.Changed, &analyzed, &vacuumed, &t.SeqScans, &t.SeqRows, &t.IndexScans,
		&t.Writes, &t.Bytes, &t.Indexes, &columns, &distinct)
	if analyzed != nil {
		t.Analyzed = *analyzed
	}
	if vacuumed != nil {
		t.Vacuumed = *vacuumed
	}
	for i, c := range columns {
		t.Columns = append(t.Columns, evidence.Column{Name: c, Distinct: distinct[i]})
	}
	t.MissingStats = len(columns) == 0
	return t, err
}

// indexes asks hypopg what each candidate would do.
func (x explainer) indexes(ctx context.Context, out *evidence.PostgresStatement) error {
	small := map[string]bool{}
	for _, t := range out.Tables {
		if max(t.Rows, t.Live) < smallTable {
			small[t.Name] = true
			out.Gaps = append(out.Gaps, evidence.Gap{What: "indexes on " + t.Name, Why: fmt.Sprintf("not considered: by the statistics it has fewer than %d rows", smallTable)})
		}
	}
	for _, c := range out.Plan.IndexCandidates() {
		if !small[c.Table] {
			out.Indexes = append(out.Indexes, c)
		}
	}
	switch {
	case len(out.Indexes) == 0:
		return nil
	case x.p.facts.Hypopg == "":
		out.Gaps = append(out.Gaps, evidence.Gap{What: "planner's gain of an index", Why: "hypopg is not installed in this database"})
		return nil
	}
	for i := range out.Indexes {
		if err := x.try(ctx, &out.Indexes[i], out.Plan.Root.TotalCost); err != nil {
			x.p.drop() // with the indexes that are not there: no roll-back takes them away
			return err
		}
	}
	return nil
}

// try plans the statement with one index that is not there.
func (x explainer) try(ctx context.Context, c *evidence.IndexCandidate, before float64) error {
	h := x.p.facts.Hypopg
	var oid uint32
	var name string
	err := x.within(ctx, func(tx pgx.Tx) error {
		sql := `select i.indexrelid, i.indexname, ` + h + `.hypopg_relation_size(i.indexrelid) from ` + h + `.hypopg_create_index($1) i`
		return tx.QueryRow(ctx, sql, pgx.QueryExecModeExec, "create index "+c.Definition()).Scan(&oid, &name, &c.Bytes)
	})
	if why := refused(err); why != "" {
		c.Refused = why
		return nil
	} else if err != nil {
		return fmt.Errorf("probe: PostgreSQL: hypopg: %w", err)
	}
	plan, err := x.explain(ctx)
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: plan with an index: %w", err)
	}
	c.Tested, c.CostBefore, c.CostAfter = true, before, plan.Root.TotalCost
	for n := range plan.All() {
		c.Used = c.Used || n.Index == name
	}
	_, err = x.tx.Exec(ctx, `select `+h+`.hypopg_drop_index($1)`, pgx.QueryExecModeExec, oid)
	if err != nil {
		return fmt.Errorf("probe: PostgreSQL: hypopg: %w", err)
	}
	return nil
}

package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

const statementsSQL = `select queryid, userid, dbid, sum(calls)::float8, sum(total_exec_time), max(max_exec_time), max(stddev_exec_time), sum(rows)::float8,
	sum(shared_blks_hit)::float8, sum(shared_blks_read)::float8, sum(temp_blks_read + temp_blks_written)::float8, sum(%readtime%), sum(wal_bytes)::float8
from %schema%.pg_stat_statements(false) where queryid is not null group by 1, 2, 3 order by 5 desc`

// Statements reads pg_stat_statements, numbers only, dearest first. Two looks make a difference: evidence.StatementsBetween. Texts gives
// the texts of those that matter. Without the extension the list is empty and a Gap says so.
func (p *Postgres) Statements(ctx context.Context) (out evidence.Statements, err error) {
	err = p.look(ctx, "statements", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			if err := p.quiet(ctx, tx); err != nil {
				return err
			}
			out, err = p.statements(ctx, tx)
			return err
		})
	})
	return out, err
}

func (p *Postgres) statements(ctx context.Context, tx pgx.Tx) (out evidence.Statements, err error) {
	if err := tx.QueryRow(ctx, `select clock_timestamp()`, pgx.QueryExecModeExec).Scan(&out.At); err != nil {
		return out, fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	if p.facts.Statements == "" {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "statements", Why: "pg_stat_statements is not installed in this database"})
		return out, nil
	}
	if !p.facts.ReadAllStats {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "statements of other users", Why: "the user " + p.facts.User + " is not pg_monitor"})
	}
	readtime := "blk_read_time"
	if p.facts.Version >= 170000 {
		readtime = "shared_blk_read_time"
	}
	sql := strings.NewReplacer("%schema%", p.facts.Statements, "%readtime%", readtime).Replace(statementsSQL)
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		return out, fmt.Errorf("probe: PostgreSQL: %w", err)
	}
	out.List, out.Cut, err = rows(ctx, savepoint, p.cfg.Statements, func(r pgx.Rows) (s evidence.StatementStat, err error) {
		return s, r.Scan(&s.QueryID, &s.User, &s.Database, &s.Calls, &s.TotalMS, &s.MaxMS, &s.StddevMS, &s.Rows, &s.SharedHit, &s.SharedRead, &s.TempBlocks, &s.ReadMS, &s.WALBytes)
	}, sql)
	if code(err) == "55000" { // created, but not loaded
		out.Gaps = append(out.Gaps, evidence.Gap{What: "statements", Why: "pg_stat_statements is not in shared_preload_libraries"})
		return out, savepoint.Rollback(ctx)
	}
	if err != nil {
		return out, err
	}
	if p.facts.Version >= 140000 {
		var reset *time.Time
		info := `select stats_reset, dealloc from ` + p.facts.Statements + `.pg_stat_statements_info`
		if err := tx.QueryRow(ctx, info, pgx.QueryExecModeExec).Scan(&reset, &out.Lost); err != nil {
			return out, fmt.Errorf("probe: PostgreSQL: %w", err)
		}
		if reset != nil {
			out.Reset = *reset
		}
	}
	return out, nil
}

const maxText = 8192 // characters of a statement's text

// Texts fills in the texts of list, at most 200 of them.
func (p *Postgres) Texts(ctx context.Context, list []evidence.StatementStat) ([]evidence.StatementStat, error) {
	list = append([]evidence.StatementStat(nil), list[:min(len(list), 200)]...)
	var ids []int64
	for _, s := range list {
		ids = append(ids, s.QueryID)
	}
	var texts map[int64]string
	err := p.look(ctx, fmt.Sprint("texts", ids), func(ctx context.Context) error {
		if p.facts.Statements == "" || len(ids) == 0 {
			return nil
		}
		return p.read(ctx, func(tx pgx.Tx) (err error) {
			texts, err = p.texts(ctx, tx, ids, len(ids)*4)
			return err
		})
	})
	for i := range list {
		list[i].Text = texts[list[i].QueryID]
	}
	return list, err
}

// texts is one for each of ids: BEGIN and its like have a row of each user in each database.
func (p *Postgres) texts(ctx context.Context, tx pgx.Tx, ids []int64, limit int) (map[int64]string, error) {
	type row struct {
		id   int64
		text string
	}
	list, _, err := rows(ctx, tx, limit, func(r pgx.Rows) (x row, err error) { return x, r.Scan(&x.id, &x.text) },
		`select distinct on (queryid) queryid, left(query, $2) from `+p.facts.Statements+`.pg_stat_statements(true)
		where queryid = any($1) order by queryid, dbid <> (select oid from pg_database where datname = current_database())`, ids, maxText)
	out := map[int64]string{}
	for _, x := range list {
		out[x.id] = x.text
	}
	return out, err
}

// pg_get_indexdef waits for those who hold the table, so it is asked only for expressions. Of a hundred thousand indexes the columns
// would take seconds: the largest are chosen first.
const indexesSQL = `with list as materialized (
	select i.indexrelid, n.nspname, t.relname as "table", c.relname, c.relam, c.relpages, c.relispartition
	from pg_index i join pg_class c on c.oid = i.indexrelid join pg_class t on t.oid = i.indrelid join pg_namespace n on n.oid = t.relnamespace
	where c.relkind = 'i' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)' order by c.relpages desc, 2, 3, 4 limit $1),
columns as (
	select i.indexrelid, k, k > i.indnkeyatts as include, case when i.indkey[k-1] = 0 then pg_get_indexdef(i.indexrelid, k, true) else quote_ident(a.attname) end as col,
		case when k <= i.indnkeyatts then ' ' || i.indclass[k-1] || ' ' || i.indcollation[k-1] || ' ' || i.indoption[k-1] end as how
	from list l join pg_index i on i.indexrelid = l.indexrelid
		cross join generate_series(1, i.indnatts) k left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k-1]),
x as materialized (select indexrelid, array_agg(col order by k) filter (where not include) as columns,
	array_agg(col || how order by k) filter (where not include) as keys, array_agg(col order by k) filter (where include) as include from columns group by 1)
select l.nspname::text, l."table"::text, l.relname::text, am.amname::text, x.columns, x.keys, coalesce(x.include, '{}'),
	coalesce(pg_get_expr(i.indpred, i.indrelid), ''), i.indisunique,
	i.indisprimary or i.indisexclusion or i.indisreplident or l.relispartition or exists (select from pg_constraint k where k.conindid = i.indexrelid),
	i.indisvalid, coalesce(pg_stat_get_numscans(i.indexrelid), 0)::float8, l.relpages::int8 * current_setting('block_size')::int8
from list l join pg_index i on i.indexrelid = l.indexrelid join x on x.indexrelid = i.indexrelid join pg_am am on am.oid = l.relam order by 1, 2, 3`

const foreignKeysSQL = `select n.nspname::text, t.relname::text, k.conname::text, array(select a.attname::text from unnest(k.conkey) with ordinality u(num, ord) join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by u.ord),
	k.confrelid::regclass::text, t.reltuples::float8
from pg_constraint k join pg_class t on t.oid = k.conrelid join pg_namespace n on n.oid = t.relnamespace
where k.contype = 'f' and k.conparentid = 0 and not exists (select from pg_index i where i.indrelid = k.conrelid and i.indisvalid and i.indpred is null
	and (string_to_array(i.indkey::text, ' ')::int2[])[1:cardinality(k.conkey)] @> k.conkey) order by t.reltuples desc`

// Indexes reads which indexes nobody uses, which are needless, which are broken, and which foreign keys have none. Sizes are those of the
// last VACUUM or ANALYZE, so that no table is opened.
func (p *Postgres) Indexes(ctx context.Context) (out evidence.PostgresIndexes, err error) {
	const limit = 20_000
	err = p.look(ctx, "indexes", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			if err := p.quiet(ctx, tx); err != nil {
				return err
			}
			list, cut, err := rows(ctx, tx, limit, func(r pgx.Rows) (x evidence.Index, err error) {
				return x, r.Scan(&x.Schema, &x.Table, &x.Name, &x.Method, &x.Columns, &x.Keys, &x.Include, &x.Predicate, &x.Unique, &x.Constraint, &x.Valid, &x.Scans, &x.Bytes)
			}, indexesSQL, limit+1)
			if code(err) == "55P03" {
				return fmt.Errorf("probe: PostgreSQL: a table that has an index on an expression or with a condition is locked by somebody: %w", err)
			}
			if err != nil {
				return err
			}
			out.ForeignKeys, _, err = rows(ctx, tx, 1000, func(r pgx.Rows) (k evidence.ForeignKey, err error) {
				return k, r.Scan(&k.Schema, &k.Table, &k.Name, &k.Columns, &k.To, &k.Rows)
			}, foreignKeysSQL)
			if err != nil {
				return err
			}
			var since *time.Time
			if err := tx.QueryRow(ctx, `select stats_reset from pg_stat_database where datname = current_database()`, pgx.QueryExecModeExec).Scan(&since); err != nil {
				return fmt.Errorf("probe: PostgreSQL: %w", err)
			}
			if since != nil {
				out.Since = *since
			}
			sortIndexes(&out, list, cut, p.facts.Replica)
			return nil
		})
	})
	return out, err
}

func sortIndexes(x *evidence.PostgresIndexes, list []evidence.Index, cut, replica bool) {
	x.Count, x.Replica = len(list), replica
	x.Unused, x.Duplicates = evidence.UnusedIndexes(list), evidence.DuplicateIndexes(list)
	for _, i := range list {
		if !i.Valid {
			x.Invalid = append(x.Invalid, i)
		}
	}
	x.Gaps = append(x.Gaps, evidence.Gap{What: "use on other servers", Why: "scans are counted by each server for itself: ask the replicas too before an index is dropped"})
	if x.Since.IsZero() {
		x.Gaps = append(x.Gaps, evidence.Gap{What: "since when scans are counted", Why: "the statistics were never reset, or were lost in a crash"})
	}
	if cut {
		x.Gaps = append(x.Gaps, evidence.Gap{What: "some indexes", Why: "there are more than 20,000; the largest were looked at"})
	}
}

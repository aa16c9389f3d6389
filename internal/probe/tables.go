package probe

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

// The partitions of a table count as one, under the name of their root. pg_partition_root reads catalogues only, and sizes are those
// of the last VACUUM or ANALYZE: no table is opened, so that nobody who holds one is waited for. What the statistics say is asked of
// the largest alone: of a hundred thousand tables that would take seconds.
const largestSQL = `with parts as materialized (
	select c.oid, coalesce(case when c.relispartition then pg_partition_root(c.oid) end::oid, c.oid) as root, c.relpages::int8 + coalesce(o.relpages, 0) as pages, c.reltuples::float8 as rows
	from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_class o on o.oid = c.reltoastrelid
	where c.relkind in ('r', 'm') and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'),
largest as materialized (select root, sum(pages) as pages from parts group by root order by 2 desc, 1 limit $1)
select n.nspname::text, r.relname::text, sum(greatest(p.rows, 0)), sum(coalesce(s.n_live_tup, 0))::float8, sum(coalesce(s.n_dead_tup, 0))::float8,
	sum(coalesce(s.n_mod_since_analyze, 0))::float8, min(greatest(s.last_analyze, s.last_autoanalyze)), min(greatest(s.last_vacuum, s.last_autovacuum)),
	sum(coalesce(s.seq_scan, 0))::float8, sum(coalesce(s.seq_tup_read, 0))::float8, sum(coalesce(s.idx_scan, 0))::float8,
	sum(coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0))::float8, (l.pages * current_setting('block_size')::int8)::int8,
	max((select count(*)::int from pg_index i where i.indrelid = p.oid))
from largest l join pg_class r on r.oid = l.root join pg_namespace n on n.oid = r.relnamespace join parts p on p.root = l.root
	left join lateral (select * from pg_stat_all_tables x where x.relid = p.oid offset 0) s on true
group by l.root, l.pages, n.nspname, r.relname order by l.pages desc, 1, 2`

// Tables reads how large the largest tables are and how they are read and written, evidence.MaxTables at most. Two looks with
// time between them tell their growth.
func (p *Postgres) Tables(ctx context.Context) (list []evidence.Table, err error) {
	err = p.look(ctx, "tables", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			if err := p.quiet(ctx, tx); err != nil {
				return err
			}
			list, _, err = rows(ctx, tx, evidence.MaxTables, size, largestSQL, evidence.MaxTables)
			return err
		})
	})
	return list, err
}

func size(r pgx.Rows) (t evidence.Table, err error) {
	var analyzed, vacuumed *time.Time
	err = r.Scan(&t.Schema, &t.Name, &t.Rows, &t.Live, &t.Dead, &t.Changed, &analyzed, &vacuumed, &t.SeqScans, &t.SeqRows, &t.IndexScans, &t.Writes, &t.Bytes, &t.Indexes)
	if analyzed != nil {
		t.Analyzed = *analyzed
	}
	if vacuumed != nil {
		t.Vacuumed = *vacuumed
	}
	return t, err
}

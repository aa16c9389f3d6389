package probe

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

// The partitions of a table count as one, under the name of their root. pg_partition_root reads catalogues only, and sizes are those
// of the last VACUUM or ANALYZE: no table is opened, so that nobody who holds one is waited for.
const largestSQL = `with t as (
	select coalesce(pg_partition_root(c.oid)::oid, c.oid) as root, c.reltuples::float8 as rows, coalesce(s.n_live_tup, 0)::float8 as live, coalesce(s.n_dead_tup, 0)::float8 as dead,
		coalesce(s.n_mod_since_analyze, 0)::float8 as changed, greatest(s.last_analyze, s.last_autoanalyze) as analyzed, greatest(s.last_vacuum, s.last_autovacuum) as vacuumed,
		coalesce(s.seq_scan, 0)::float8 as seq, coalesce(s.seq_tup_read, 0)::float8 as seq_rows, coalesce(s.idx_scan, 0)::float8 as idx,
		coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0)::float8 as writes, (c.relpages::int8 + coalesce(o.relpages, 0)::int8) * current_setting('block_size')::int8 as bytes,
		(select count(*)::int from pg_index i where i.indrelid = c.oid) as indexes
	from pg_class c left join pg_class o on o.oid = c.reltoastrelid left join pg_stat_all_tables s on s.relid = c.oid
	where c.relkind in ('r', 'm') and c.relpersistence <> 't')
select n.nspname::text, r.relname::text, sum(greatest(rows, 0)), sum(live), sum(dead), sum(changed), min(analyzed), min(vacuumed), sum(seq), sum(seq_rows), sum(idx),
	sum(writes), sum(bytes)::int8, max(indexes)
from t join pg_class r on r.oid = t.root join pg_namespace n on n.oid = r.relnamespace
where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
group by t.root, n.nspname, r.relname order by sum(bytes) desc, 1, 2`

// Tables reads how large the largest tables are and how they are read and written, evidence.MaxTables at most. Two looks with
// time between them tell their growth.
func (p *Postgres) Tables(ctx context.Context) (list []evidence.Table, err error) {
	err = p.look(ctx, "tables", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			if err := p.quiet(ctx, tx); err != nil {
				return err
			}
			list, _, err = rows(ctx, tx, evidence.MaxTables, size, largestSQL)
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

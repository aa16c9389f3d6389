package probe

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
)

// The type of other users' sessions is hidden from those who are not pg_monitor; a session with a database and a user is a client's.
const sessionsSQL = `with locks as materialized (
	select pid, locktype, mode, granted, relation, database, %waitstart% as waitstart from pg_locks where not granted or locktype = 'tuple')
select a.pid, coalesce(a.datname::text, ''), coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(host(a.client_addr), ''),
	a.state, a.wait_event_type, a.wait_event, left(a.query, 4096),
	extract(epoch from clock_timestamp() - a.xact_start)::float8, extract(epoch from clock_timestamp() - a.query_start)::float8,
	extract(epoch from clock_timestamp() - a.state_change)::float8, extract(epoch from clock_timestamp() - w.waitstart)::float8,
	case when w.pid is not null then array(select distinct unnest(pg_blocking_pids(a.pid))) else '{}' end, w.locktype, w.mode,
	case when w.database = (select oid from pg_database where datname = current_database()) then w.relation::regclass::text end
from pg_stat_activity a
left join lateral (select l.pid, l.locktype, l.mode, l.waitstart,
		coalesce(l.relation, t.relation) as relation, coalesce(l.database, t.database) as database
	from locks l left join locks t on t.pid = l.pid and t.locktype = 'tuple'
	where l.pid = a.pid and not l.granted limit 1) w on true
where (a.backend_type = 'client backend' or a.backend_type is null and a.datid is not null and a.usesysid is not null) and a.pid <> pg_backend_pid()`

const limitsSQL = `select 'role ' || r.rolname, r.rolconnlimit, count(a.pid)::int from pg_roles r left join pg_stat_activity a on a.usesysid = r.oid and a.datid is not null
	where r.rolconnlimit > 0 and not r.rolsuper group by 1, 2
union all select 'database ' || d.datname, d.datconnlimit, count(a.pid)::int from pg_database d left join pg_stat_activity a on a.datid = d.oid and a.usesysid is not null
	where d.datconnlimit > 0 group by 1, 2 order by 1 limit 100`

// Sessions reads who is connected and who waits for whom. It asks even a server under load, once within Budget.MinInterval: this is when
// it matters. A server without a free connection gives Sessions.Refused and no error. Our own session is left out.
func (p *Postgres) Sessions(ctx context.Context) (out evidence.PostgresSessions, err error) {
	err = p.look(ctx, "sessions", func(ctx context.Context) error {
		return p.read(ctx, func(tx pgx.Tx) error {
			out.Facts = p.facts
			waitstart := "waitstart"
			if p.facts.Version < 140000 {
				waitstart = "null::timestamptz"
			}
			sql := strings.Replace(sessionsSQL, "%waitstart%", waitstart, 1)
			backends, cut, err := rows(ctx, tx, p.cfg.Sessions, p.backend, sql)
			if err != nil {
				return err
			}
			limits, _, err := rows(ctx, tx, 100, func(r pgx.Rows) (l evidence.SessionLimit, err error) {
				return l, r.Scan(&l.Of, &l.Max, &l.Used)
			}, limitsSQL)
			if err != nil {
				return err
			}
			out.Sessions, out.Chains = evidence.CountSessions(backends), evidence.LockChains(backends)
			out.Sessions.Max, out.Sessions.Reserved, out.Sessions.Limits = p.facts.MaxConns, p.facts.Reserved, limits
			out.Gaps = sessionGaps(p.facts, cut)
			return nil
		})
	})
	if code(err) == "53300" {
		out.Sessions.Refused = true
		return out, nil
	}
	return out, err
}

func sessionGaps(f evidence.PostgresServer, cut bool) []evidence.Gap {
	gaps := []evidence.Gap{{What: "pools", Why: "the server sees connections, not who waits in a client's pool for one; see the metrics of the client"}}
	if !f.ReadAllStats {
		gaps = append(gaps, evidence.Gap{What: "states and queries of other users", Why: "the user " + f.User + " is not pg_monitor; who blocks whom is told all the same"})
	}
	if cut {
		gaps = append(gaps, evidence.Gap{What: "some sessions", Why: "there are more than the limit of the configuration (sessions)"})
	}
	return gaps
}

func (p *Postgres) backend(r pgx.Rows) (b evidence.Backend, err error) {
	var state, waitType, wait, query, lockType, lockMode, relation *string
	var xact, started, changed, waited *float64
	var by []int32
	err = r.Scan(&b.PID, &b.Database, &b.User, &b.Application, &b.Client, &state, &waitType, &wait, &query, &xact, &started, &changed, &waited, &by,
		&lockType, &lockMode, &relation)
	b.State, b.WaitType, b.Wait, b.Query = str(state), str(waitType), str(wait), str(query)
	b.LockType, b.LockMode, b.Relation = str(lockType), str(lockMode), str(relation)
	b.XactAge, b.QueryAge, b.StateAge, b.WaitAge = seconds(xact), seconds(started), seconds(changed), seconds(waited)
	if b.State == "" && b.Query == "<insufficient privilege>" {
		b.Hidden, b.Query = true, ""
	}
	if p.cfg.HideQueries {
		b.Query, _ = evidence.Fingerprint(b.Query)
	}
	for _, pid := range by {
		b.BlockedBy = append(b.BlockedBy, int(pid))
	}
	return b, err
}

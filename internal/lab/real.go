package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/servers"
)

// Real is how a system runs whose replicas are processes of their own, and whose stores, caches and queues are in real
// servers: PostgreSQL, Redis, NATS. A server without an address is started when the scenario needs it, and stopped when the
// system is closed; one with an address stays as it was: the lab works there in a schema, keys and streams of its own, and
// takes them away at the end.
type Real struct {
	Program  []string // command line of a program that calls [Serve]
	Postgres string   // DSN, as postgres://user@host:port/database; "" = started here
	Redis    string   // host:port; "" = started here
	NATS     string   // URL, as nats://host:port; "" = started here
}

// Site is where the servers of a system are.
type Site struct {
	Mark     string // tells this system's schemas, keys and streams from those of others; "" = all servers are its own
	Postgres string // "" = there is none
	Redis    string
	NATS     string
}

// reality is what a system in real mode has besides.
type reality struct {
	with     Real
	seed     uint64
	site     Site
	started  map[string]*servers.Server // by what stands in them: stores, caches, queues
	children []*child
	lost     chan error // the first child that ended by itself
	wiring   Wiring
}

// NewSystemOn builds the system of a scenario on real servers, or with nil in this process.
func NewSystemOn(real *Real, spec scenario.Scenario, seed uint64) *System {
	if real == nil {
		return NewSystem(spec, seed)
	}
	return newRealSystem(spec, seed, *real)
}

// newRealSystem builds the system of a scenario, as [NewSystem] does, on real servers. Nothing runs yet.
func newRealSystem(spec scenario.Scenario, seed uint64, with Real) *System {
	s := newSystem(spec)
	r := &reality{with: with, seed: seed, started: map[string]*servers.Server{}, site: Site{Postgres: with.Postgres, Redis: with.Redis, NATS: with.NATS}}
	if r.site != (Site{}) {
		r.site.Mark = newMark()
	}
	for i := range spec.Services {
		for replica := range spec.Services[i].Replicas {
			r.children = append(r.children, newChild(s, Assignment{Service: spec.Services[i].Name, Replica: replica + 1}))
		}
	}
	for _, q := range spec.Queues {
		r.children = append(r.children, newChild(s, Assignment{Queue: q.Name}))
	}
	r.lost = make(chan error, 1)
	s.real = r
	return s
}

func newMark() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// marked is the name of something in a server, with the mark of its system where it has one.
func marked(whose, mark, name, between string) string {
	if mark != "" {
		whose += between + mark
	}
	return whose + between + name
}

// startServers starts what the scenario needs and nobody gave an address of, and describes what is in them.
func (s *System) startServers(ctx context.Context) error {
	r := s.real
	if r == nil {
		return nil
	}
	if len(s.spec.Stores) > 0 && r.site.Postgres == "" {
		dsn, err := r.startPostgres(ctx, &s.spec)
		if err != nil {
			return err
		}
		r.site.Postgres = dsn
	}
	if len(s.spec.Caches) > 0 && r.site.Redis == "" {
		x, err := servers.Redis(ctx)
		if err != nil {
			return needs(err, "--redis")
		}
		r.started[inCaches] = x
		r.site.Redis = x.Address()
	}
	if len(s.spec.Queues) > 0 && r.site.NATS == "" {
		x, err := servers.NATS(ctx)
		if err != nil {
			return needs(err, "--nats")
		}
		r.started[inQueues] = x
		r.site.NATS = "nats://" + x.Address()
	}
	return s.describe(r.site, Assignment{}, r.seed)
}

// needs says how else a scenario can have a server that is not installed.
func needs(err error, flag string) error {
	if errors.Is(err, servers.ErrMissing) {
		return fmt.Errorf("%w, or name a server with %s", err, flag)
	}
	return err
}

// postgresql is the system of the stores that there are real servers of.
const postgresql = "postgresql"

// spareConnections are for the lab itself and its collector of evidence, beside those of the scenario's services.
const spareConnections = 20

func (r *reality) startPostgres(ctx context.Context, spec *scenario.Scenario) (dsn string, err error) {
	connections := spareConnections
	for _, x := range spec.Stores {
		connections += x.Connections
	}
	x, err := servers.Postgres(ctx, servers.PostgresOptions{
		Settings:   fmt.Sprintf("shared_preload_libraries = 'pg_stat_statements'\nmax_connections = %d\n", connections),
		Extensions: []string{"pg_stat_statements"},
	})
	if err != nil {
		return "", needs(err, "--postgres")
	}
	r.started[inStores] = x
	const database = "lab"
	if err = prepare(ctx, x.DSN("postgres"), "create database "+database); err != nil {
		return "", err
	}
	// hypopg tries an index without making it. It is a package of its own, and the evidence says so where it is not there.
	return x.DSN(database), prepare(ctx, x.DSN(database), "create extension pg_stat_statements",
		"do $$ begin create extension hypopg; exception when feature_not_supported or undefined_file then null; end $$")
}

// prepare runs statements on a server as its superuser.
func prepare(ctx context.Context, dsn string, statements ...string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("lab: PostgreSQL: %w", err)
	}
	defer hangUp(conn)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("lab: PostgreSQL: %s: %w", sql, err)
		}
	}
	return nil
}

// describe sets the stores, caches and queues of s up as those of a site. The zero Assignment is the lab itself, which owns
// them.
func (s *System) describe(at Site, a Assignment, seed uint64) error {
	owner := a.Service == "" && a.Queue == ""
	for _, x := range s.spec.Stores {
		if x.System != postgresql {
			return fmt.Errorf("lab: the store %s is %q; real servers are of system %q", x.Name, x.System, postgresql)
		}
		d, err := newPostgres(&s.spec, x, at.Postgres, at.Mark, owner, seed)
		if err != nil {
			return err
		}
		s.stores[x.Name] = d
	}
	for _, x := range s.spec.Caches {
		s.caches[x.Name] = newRedis(x, at.Redis, at.Mark, owner, seed)
	}
	for _, x := range s.spec.Queues {
		q := newStream(x, at.NATS, at.Mark, sends)
		q.kept = jetstream.FileStorage // messages outlive a server that crashes
		switch {
		case owner:
			q.role, q.tell = owns, func(ctx context.Context, n int) error { return s.staffElsewhere(ctx, x.Name, n) }
		case a.Queue == x.Name:
			q.role, q.handle = works, s.worker(x, seed)
		}
		s.queues[x.Name] = q
	}
	return nil
}

// evidenceYAML is the part of a gateway's configuration that has it collect evidence from the servers; "" = there are none.
func (s *System) evidenceYAML() string {
	if s.real == nil {
		return ""
	}
	var b strings.Builder
	list := func(kind string, n int, item func(i int) string) {
		if n > 0 {
			fmt.Fprintf(&b, "  %s:\n", kind)
		}
		for i := range n {
			fmt.Fprintf(&b, "    - %s\n", item(i))
		}
	}
	at := s.real.site
	list("postgres", len(s.spec.Stores), func(i int) string {
		d, _ := s.stores[s.spec.Stores[i].Name].(*postgres)
		return fmt.Sprintf("{dsn: %q, search_path: %q}", at.Postgres, d.schema)
	})
	list("redis", min(len(s.spec.Caches), 1), func(int) string { return fmt.Sprintf("{address: %q}", at.Redis) })
	list("queues", min(len(s.spec.Queues), 1), func(int) string { return fmt.Sprintf("{url: %q}", at.NATS) })
	if b.Len() == 0 {
		return ""
	}
	return "evidence:\n  every: 10s\n" + b.String()
}

// stopServers stops what startServers started.
func (s *System) stopServers() error {
	if s.real == nil {
		return nil
	}
	var faults []error
	for _, x := range s.real.started {
		faults = append(faults, x.Stop())
	}
	clear(s.real.started)
	return errors.Join(faults...)
}

// What stands in the servers that a lab starts.
const (
	inStores = "stores"
	inCaches = "caches"
	inQueues = "queues"
)

// errLent says that a server is not the lab's own.
var errLent = errors.New("lab: a server that was not started here is not killed")

// crash kills the server of something that the lab started itself, or starts it again. It returns when that is done.
func (s *System) crash(ctx context.Context, what string, on bool) error {
	x := s.real.started[what]
	switch {
	case x == nil:
		return errLent
	case on:
		return x.Kill()
	}
	return x.Restart(ctx)
}

// mortal is what stands in servers that the lab starts, and may kill.
func (r *Real) mortal() map[string]bool {
	if r == nil {
		return nil
	}
	return map[string]bool{inStores: r.Postgres == "", inCaches: r.Redis == "", inQueues: r.NATS == ""}
}

// queriesOf is every statement of a scenario.
func queriesOf(s *scenario.Scenario) iter.Seq[*scenario.Query] {
	var all []*scenario.Query
	var visit func([]scenario.Step)
	visit = func(steps []scenario.Step) {
		for i := range steps {
			if q := steps[i].Query; q != nil {
				all = append(all, q)
			}
			visit(steps[i].Parallel)
		}
	}
	for _, x := range s.Services {
		for _, o := range x.Operations {
			visit(o.Steps)
		}
	}
	return slices.Values(all)
}

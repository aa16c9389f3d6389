package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/rueidis"
)

// postgresSource is one database.
type postgresSource struct {
	name   string
	reader *Postgres
	budget Budget
	before evidence.Statements
}

func (s *postgresSource) spent() Spent { return s.reader.Spent() }
func (s *postgresSource) close()       { s.reader.Close() }

func (s *postgresSource) collect(ctx context.Context, window time.Duration, ask func() []Query) (func(*evidence.Facts), error) {
	var faults []error
	fault := func(err error) {
		if err != nil && !slices.ContainsFunc(faults, func(f error) bool { return f.Error() == err.Error() }) {
			faults = append(faults, err)
		}
	}
	if s.before.At.IsZero() {
		first, err := s.reader.Statements(ctx)
		s.before = first
		fault(err)
	}
	out := evidence.PostgresFacts{Name: s.name}
	database := ""
	for n := range beats(ctx, window, s.budget.MinInterval) {
		look, err := s.reader.Sessions(ctx)
		if err != nil && quietly(err) == nil {
			continue
		}
		fault(err)
		if err != nil {
			if n == 0 {
				return nil, errors.Join(faults...) // it cannot be reached
			}
			continue
		}
		database = look.Facts.Database
		AddSessions(&out, look)
	}
	if ctx.Err() == nil {
		fault(s.between(ctx, &out))
		fault(s.ask(ctx, &out, database, ask()))
		indexes, err := s.reader.Indexes(ctx)
		if err == nil {
			out.Indexes = &indexes
		}
		fault(quietly(err))
		out.Tables, err = s.reader.Tables(ctx)
		fault(quietly(err))
	}
	return func(f *evidence.Facts) { f.Postgres = append(f.Postgres, out) }, errors.Join(faults...)
}

// between reads what ran in the window, with the texts of what took most time.
func (s *postgresSource) between(ctx context.Context, out *evidence.PostgresFacts) error {
	after, err := s.reader.Statements(ctx)
	if err != nil {
		return err
	}
	list, _, _ := evidence.StatementsBetween(s.before, after)
	s.before = after
	out.Gaps = append(out.Gaps, after.Gaps...)
	out.Top = evidence.TopByTotal(list, evidence.MaxStatements)
	top, err := s.reader.Texts(ctx, out.Top)
	if err == nil {
		out.Top = top
	}
	return quietly(err)
}

// ask asks the server about the statements of spans.
func (s *postgresSource) ask(ctx context.Context, out *evidence.PostgresFacts, database string, queries []Query) error {
	for _, q := range queries {
		if !q.of(database) {
			continue
		}
		st, err := s.reader.Statement(ctx, q.Text)
		if quietly(err) != nil && !errors.Is(err, evidence.ErrStatement) {
			return err
		}
		if err == nil {
			out.Asked = append(out.Asked, Recent(st, out.Top))
		}
	}
	return nil
}

// Recent takes the statistics of the window in place of those since the server's began, where the statement ran in it.
func Recent(st evidence.PostgresStatement, window []evidence.StatementStat) evidence.PostgresStatement {
	var stats []evidence.StatementStat
	for _, x := range window {
		if slices.ContainsFunc(st.Matches, func(m evidence.Match) bool { return m.QueryID == x.QueryID }) {
			stats = append(stats, x)
		}
	}
	if len(stats) > 0 {
		st.Stats = stats
		st.Estimate()
	}
	return st
}

// AddSessions keeps in out the moment at which the server was fullest, and each chain of locks at its longest.
func AddSessions(out *evidence.PostgresFacts, look evidence.PostgresSessions) {
	if old := out.Sessions; old == nil || look.Sessions.Full() > old.Full() || look.Sessions.Full() == old.Full() && look.Sessions.WaitingForLock > old.WaitingForLock {
		sessions := look.Sessions
		out.Sessions = &sessions
	}
	for _, g := range append(slices.Clone(look.Facts.Gaps), look.Gaps...) {
		if !slices.Contains(out.Gaps, g) {
			out.Gaps = append(out.Gaps, g)
		}
	}
	for _, c := range look.Chains {
		i := slices.IndexFunc(out.Chains, func(o evidence.LockChain) bool { return o.Root.PID == c.Root.PID && o.Root.Query == c.Root.Query })
		switch {
		case i < 0:
			out.Chains = append(out.Chains, c)
		case len(c.Waiters) > len(out.Chains[i].Waiters) || len(c.Waiters) == len(out.Chains[i].Waiters) && c.Longest > out.Chains[i].Longest:
			out.Chains[i] = c
		}
	}
	slices.SortStableFunc(out.Chains, func(a, b evidence.LockChain) int {
		return cmp.Or(cmp.Compare(len(b.Waiters), len(a.Waiters)), cmp.Compare(b.Longest, a.Longest))
	})
	out.Chains = out.Chains[:min(len(out.Chains), evidence.MaxChains)]
}

// twoLooks looks at the end of the window, and before it too where there is no look from the time before.
func twoLooks[L any](ctx context.Context, window time.Duration, before *L, first bool, look func(context.Context) (L, error)) (after L, err error) {
	if first {
		if *before, err = look(ctx); err != nil {
			return after, err
		}
	}
	pause(ctx, window)
	return look(ctx)
}

// redisSource is one Redis server.
type redisSource struct {
	cfg    RedisConfig
	client rueidis.Client // nil = not connected
	reader *Redis         // with that client
	before evidence.RedisLook
}

func (c RedisConfig) title() string { return cmp.Or(c.Name, c.Address) }

func (s *redisSource) spent() Spent { return s.reader.Spent() }

func (s *redisSource) close() {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}

// connect makes the client when there is none: rueidis reconnects by itself, but does not begin without a server.
func (s *redisSource) connect() error {
	if s.client != nil {
		return nil
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.cfg.Address}, Username: s.cfg.Username, Password: s.cfg.Password, ClientName: "longpole-probe",
		ConnWriteTimeout: s.cfg.Timeout, DisableCache: true, DisableRetry: true, ForceSingleClient: true,
	})
	if err != nil {
		return fmt.Errorf("probe: Redis: %w", err)
	}
	s.client, s.reader.client = client, client
	return nil
}

func (s *redisSource) collect(ctx context.Context, window time.Duration, _ func() []Query) (func(*evidence.Facts), error) {
	if err := s.connect(); err != nil {
		return nil, err
	}
	after, err := twoLooks(ctx, window, &s.before, s.before.At.IsZero(), s.reader.Look)
	if err != nil {
		return nil, err
	}
	out := evidence.RedisFacts{Name: s.cfg.title(), Stats: evidence.RedisBetween(s.before, after)}
	s.before = after
	return func(f *evidence.Facts) { f.Redis = append(f.Redis, out) }, nil
}

// queueSource is one JetStream server or account.
type queueSource struct {
	cfg    QueueConfig
	conn   *nats.Conn // nil = not connected
	reader *Queue     // on that connection
	before evidence.QueueLook
}

func (s *queueSource) spent() Spent { return s.reader.Spent() }

func (s *queueSource) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

func (s *queueSource) connect() error {
	if s.conn != nil && !s.conn.IsClosed() {
		return nil
	}
	conn, err := nats.Connect(s.cfg.URL, nats.Name("longpole-probe"), nats.Timeout(s.cfg.Timeout), nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("probe: JetStream: %w", err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return fmt.Errorf("probe: JetStream: %w", err)
	}
	s.conn, s.reader.js = conn, js
	return nil
}

func (s *queueSource) collect(ctx context.Context, window time.Duration, _ func() []Query) (func(*evidence.Facts), error) {
	if err := s.connect(); err != nil {
		return nil, err
	}
	after, err := twoLooks(ctx, window, &s.before, s.before.At.IsZero(), s.reader.Look)
	if err != nil {
		return nil, err
	}
	out := evidence.QueueBetween(s.before, after)
	s.before = after
	return func(f *evidence.Facts) {
		f.Queues = append(f.Queues, out...)
		f.Gaps = append(f.Gaps, after.Gaps...)
	}, nil
}

// process finds or makes the entry of one process.
func process(f *evidence.Facts, service, instance string) *evidence.ServiceFacts {
	i := slices.IndexFunc(f.Services, func(s evidence.ServiceFacts) bool { return s.Service == service && s.Instance == instance })
	if i < 0 {
		i = len(f.Services)
		f.Services = append(f.Services, evidence.ServiceFacts{Service: service, Instance: instance})
	}
	return &f.Services[i]
}

// profileSource is the profiles of one process.
type profileSource struct {
	cfg     ProfilesConfig
	reader  *Profiles
	healthy *evidence.Profile // nil = there is none to compare with
	last    map[string]evidence.ProfileFacts
}

// The flame graph folds what is smaller; a profile is shown for as long as it is fresh.
const (
	flameShare   = 0.005
	profileFresh = 15 * time.Minute
)

// newProfileSource spreads CPU profiles so that the budget of an hour lasts for one.
func newProfileSource(c ProfilesConfig, client *http.Client) (*profileSource, error) {
	healthy, err := healthyProfile(c)
	if err != nil {
		return nil, err
	}
	spread := time.Duration(float64(c.Seconds) * float64(time.Second) * float64(time.Hour) / float64(c.Budget.PerHour))
	c.Budget.MinInterval = min(time.Hour, max(c.Budget.MinInterval, spread))
	reader, err := NewProfiles(c, client)
	return &profileSource{cfg: c, reader: reader, healthy: healthy, last: map[string]evidence.ProfileFacts{}}, err
}

func (s *profileSource) spent() Spent { return s.reader.Spent() }
func (s *profileSource) close()       {}

func (s *profileSource) collect(ctx context.Context, window time.Duration, _ func() []Query) (func(*evidence.Facts), error) {
	began := time.Now()
	var faults []error
	var gaps []evidence.Gap
	for _, kind := range s.cfg.Kinds {
		p, err := s.reader.Fetch(ctx, kind)
		if err != nil {
			if err = quietly(err); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", kind, err))
			}
			continue
		}
		healthy, share := s.healthy, flameShare
		if kind != "cpu" {
			healthy, share = nil, 0
		}
		s.last[kind] = evidence.Summarise(p, healthy, share)
		for _, g := range p.Gaps {
			gaps = append(gaps, evidence.Gap{What: s.cfg.Service + ": " + g.What, Why: g.Why})
		}
	}
	if len(faults) < len(s.cfg.Kinds) {
		pause(ctx, window-time.Since(began))
	}
	var fresh []evidence.ProfileFacts
	for _, kind := range s.cfg.Kinds {
		if p, ok := s.last[kind]; ok && time.Since(p.To) < profileFresh {
			fresh = append(fresh, p)
		}
	}
	return func(f *evidence.Facts) {
		one := process(f, s.cfg.Service, s.cfg.Instance)
		one.Profiles = append(one.Profiles, fresh...)
		f.Gaps = append(f.Gaps, gaps...)
	}, errors.Join(faults...)
}

// metricsSource is the metrics of one process.
type metricsSource struct {
	cfg    MetricsConfig
	reader *Metrics
	before evidence.RuntimeLook
}

func (s *metricsSource) spent() Spent { return s.reader.Spent() }
func (s *metricsSource) close()       {}

func (s *metricsSource) collect(ctx context.Context, window time.Duration, _ func() []Query) (func(*evidence.Facts), error) {
	var looks []evidence.RuntimeLook
	if !s.before.At.IsZero() {
		looks = append(looks, s.before)
	}
	var fault error
	for n := range beats(ctx, window, s.cfg.Budget.MinInterval) {
		look, err := s.reader.Look(ctx)
		if err == nil {
			looks = append(looks, look)
			continue
		}
		if err = quietly(err); err != nil {
			fault = err
		}
		if n == 0 && len(looks) == 0 {
			return nil, err
		}
	}
	if len(looks) == 0 {
		return nil, fault
	}
	last := looks[len(looks)-1]
	first := evidence.RuntimeLook{}
	if len(looks) > 1 {
		first = looks[0]
	}
	stats, pools := evidence.RuntimeBetween(first, last), evidence.PoolsOver(looks)
	s.before = last
	return func(f *evidence.Facts) {
		one := process(f, s.cfg.Service, s.cfg.Instance)
		one.Runtime, one.Pools = &stats, append(one.Pools, pools...)
	}, fault
}

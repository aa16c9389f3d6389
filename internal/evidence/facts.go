package evidence

import (
	"slices"
	"strings"
	"time"
)

// The bounds of Facts: what is more is cut by [Facts.Bound], which counts it.
const (
	MaxServices   = 256
	MaxRoutes     = 1000
	MaxStatements = 100 // of a database
	MaxChains     = 20
	MaxTables     = 200 // of a database
	MaxFunctions  = 25  // of a profile
	MaxPools      = 32  // of a process
	MaxStores     = 32  // of a kind
)

// Facts is what was read from the systems behind a set of traces, over one window of time. The zero value is "nothing was read".
// Lists that are empty say nothing; what could not be read is a Gap.
type Facts struct {
	From     time.Time       `json:"from"` // of the window that the figures are about
	To       time.Time       `json:"to"`
	Postgres []PostgresFacts `json:"postgres,omitempty"`
	Services []ServiceFacts  `json:"services,omitempty"`
	Redis    []RedisFacts    `json:"redis,omitempty"`
	Queues   []QueueStats    `json:"queues,omitempty"`
	Routes   []RouteStats    `json:"routes,omitempty"`
	Dropped  int             `json:"dropped,omitempty"` // entries that Bound cut
	Gaps     []Gap           `json:"gaps,omitempty"`
}

// PostgresFacts is what one server was seen to do.
type PostgresFacts struct {
	Name string `json:"name"` // "host:port/database", or whatever the configuration calls it
	// Asked is what the server says of the statements that spans hold; Top what takes most of its time.
	Asked    []PostgresStatement `json:"asked,omitempty"`
	Top      []StatementStat     `json:"top,omitempty"`
	Sessions *Sessions           `json:"sessions,omitempty"` // nil = not read
	Chains   []LockChain         `json:"lock_chains,omitempty"`
	Indexes  *PostgresIndexes    `json:"indexes,omitempty"` // nil = not read
	Tables   []Table             `json:"tables,omitempty"`  // the largest, partitions as one; without columns
	Gaps     []Gap               `json:"gaps,omitempty"`
}

// ServiceFacts is what one process of a service was seen to do.
type ServiceFacts struct {
	Service  string         `json:"service"`            // as in the spans
	Instance string         `json:"instance,omitempty"` // its host, pod or instance ID as in the spans; "" = not told
	Source   string         `json:"source,omitempty"`   // the selector by which a Prometheus server has Runtime and Pools; "" = they were read from the process
	Profiles []ProfileFacts `json:"profiles,omitempty"` // at most one of a kind
	Runtime  *RuntimeStats  `json:"runtime,omitempty"`  // nil = not read
	Pools    []PoolStats    `json:"pools,omitempty"`
}

// ProfileFacts is a profile made small.
type ProfileFacts struct {
	Kind    string       `json:"kind"` // cpu, heap, mutex, block, goroutine
	Unit    string       `json:"unit"`
	From    time.Time    `json:"from"`
	To      time.Time    `json:"to"`
	Samples float64      `json:"samples"`
	Rate    float64      `json:"rate"`            // of Unit per second: with cpu and nanoseconds 1e9 is one busy core; 0 = not told
	Top     []Function   `json:"top,omitempty"`   // by what they took themselves, at most MaxFunctions
	Diff    *ProfileDiff `json:"diff,omitempty"`  // to a healthy profile; nil = there is none
	Flame   *Frame       `json:"flame,omitempty"` // paths of at least 0.5 %; nil = left out
}

// RedisFacts is what one server of Redis did.
type RedisFacts struct {
	Name    string      `json:"name"` // its address as in the spans, or whatever the configuration calls it
	Stats   RedisStats  `json:"stats"`
	Healthy *RedisStats `json:"healthy,omitempty"` // of a healthy window; nil = there is none
}

// PoolStats is a client's pool of connections or workers over the window. Counts are of one process. Durations and ratios that
// are 0 were 0 or not told; Known says which.
type PoolStats struct {
	Name     string        `json:"name"` // db.client.connection.pool.name, or the peer
	Max      float64       `json:"max"`  // connections it may hold; 0 = not told
	Used     float64       `json:"used"` // at its highest in the window
	Idle     float64       `json:"idle"` // at its lowest
	Pending  float64       `json:"pending_requests"`
	Timeouts float64       `json:"timeouts"`     // in the window
	WaitMean time.Duration `json:"wait_mean_ns"` // of those who asked for a connection
	WaitP99  time.Duration `json:"wait_p99_ns"`
	Known    bool          `json:"wait_known"` // the waits were told, so that 0 means no wait
}

// Exhausted reports whether the pool was seen without a free connection while somebody waited.
func (p PoolStats) Exhausted() bool {
	return p.Pending > 0 || p.Timeouts > 0 || p.Max > 0 && p.Used >= p.Max && p.WaitP99 > time.Millisecond
}

// Free reports whether the pool was seen never to run out: what refutes that somebody waited for it.
func (p PoolStats) Free() bool {
	return p.Pending == 0 && p.Timeouts == 0 && (p.Max > 0 && p.Used > 0 && p.Used < p.Max || p.Known && p.WaitP99 < time.Millisecond)
}

// Summarise makes a profile small; healthy is the profile to compare with, nil = none. share is the part of the whole (0..1)
// below which a path of the flame graph is folded; 0 leaves the graph out.
func Summarise(p Profile, healthy *Profile, share float64) ProfileFacts {
	value, count := p.Total()
	f := ProfileFacts{Kind: p.Kind, Unit: p.Unit, From: p.From, To: p.To, Samples: count}
	if p.Since > 0 {
		f.Rate = value / p.Since.Seconds()
	}
	top := p.Functions()
	for _, x := range top[:min(len(top), MaxFunctions)] {
		x.flatCount, x.cumCount = 0, 0
		f.Top = append(f.Top, x)
	}
	if healthy != nil {
		d := DiffProfiles(p, *healthy)
		d.Changes = d.Changes[:min(len(d.Changes), MaxFunctions)]
		f.Diff = &d
	}
	if share > 0 {
		f.Flame = p.Tree(share)
	}
	return f
}

// Bound cuts every list to its bound and counts in Dropped what it cut.
func (f *Facts) Bound() {
	f.Postgres = bound(f.Postgres, MaxStores, &f.Dropped)
	f.Services = bound(f.Services, MaxServices, &f.Dropped)
	f.Redis = bound(f.Redis, MaxStores, &f.Dropped)
	f.Queues = bound(f.Queues, MaxServices, &f.Dropped)
	f.Routes = bound(f.Routes, MaxRoutes, &f.Dropped)
	for i := range f.Postgres {
		p := &f.Postgres[i]
		p.Asked = bound(p.Asked, MaxStatements, &f.Dropped)
		p.Top = bound(p.Top, MaxStatements, &f.Dropped)
		p.Chains = bound(p.Chains, MaxChains, &f.Dropped)
		p.Tables = bound(p.Tables, MaxTables, &f.Dropped)
	}
	for i := range f.Services {
		s := &f.Services[i]
		s.Pools = bound(s.Pools, MaxPools, &f.Dropped)
		for k := range s.Profiles {
			s.Profiles[k].Top = bound(s.Profiles[k].Top, MaxFunctions, &f.Dropped)
		}
	}
}

func bound[T any](list []T, most int, dropped *int) []T {
	*dropped += max(0, len(list)-most)
	return list[:min(len(list), most):min(len(list), most)]
}

// Of returns the processes of a service; those of one instance only where instance is told and known.
func (f *Facts) Of(service, instance string) []*ServiceFacts {
	var all, one []*ServiceFacts
	for i := range f.Services {
		s := &f.Services[i]
		if s.Service != service {
			continue
		}
		all = append(all, s)
		if instance != "" && s.Instance == instance {
			one = append(one, s)
		}
	}
	if len(one) > 0 {
		return one
	}
	return all
}

// Profile is the service's profile of a kind, or nil.
func (s *ServiceFacts) Profile(kind string) *ProfileFacts {
	if i := slices.IndexFunc(s.Profiles, func(p ProfileFacts) bool { return p.Kind == kind }); i >= 0 {
		return &s.Profiles[i]
	}
	return nil
}

// Busy is how much of the processors that it may use the process used, 0..1 and more; ok is false where that was not told.
func (s *ServiceFacts) Busy() (share float64, ok bool) {
	if s.Runtime == nil || s.Runtime.CPU == nil || s.Runtime.Procs == nil || *s.Runtime.Procs <= 0 {
		return 0, false
	}
	return *s.Runtime.CPU / *s.Runtime.Procs, true
}

// Statement finds what the databases say of the text of a span: by its fingerprint, among the statements asked about and
// then, with statistics only, among the dearest. server names where it was found; statement is nil where it was not.
func (f *Facts) Statement(sql string) (statement *PostgresStatement, server *PostgresFacts) {
	want, _ := Fingerprint(sql)
	if want == "" {
		return nil, nil
	}
	for i := range f.Postgres {
		p := &f.Postgres[i]
		for k := range p.Asked {
			if have, _ := Fingerprint(p.Asked[k].Text); have == want {
				return &p.Asked[k], p
			}
		}
	}
	for i := range f.Postgres {
		p := &f.Postgres[i]
		matches := MatchText(sql, p.Top)
		if len(matches) == 0 {
			continue
		}
		s := &PostgresStatement{Text: sql, Matches: matches, Confidence: matches[0].Confidence}
		for _, x := range p.Top {
			if slices.ContainsFunc(matches, func(m Match) bool { return m.QueryID == x.QueryID }) {
				s.Stats = append(s.Stats, x)
			}
		}
		return s, p
	}
	return nil, nil
}

// Blocked finds the lock chain in which a session waits to run the statement of a span; nil = none was seen.
func (f *Facts) Blocked(sql string) *LockChain {
	want, _ := Fingerprint(sql)
	if want == "" {
		return nil
	}
	for i := range f.Postgres {
		for k := range f.Postgres[i].Chains {
			c := &f.Postgres[i].Chains[k]
			for _, w := range c.Waiters {
				have, cut := Fingerprint(w.Query)
				if have == want || cut && len(have) >= 40 && strings.HasPrefix(want, have) {
					return c
				}
			}
		}
	}
	return nil
}

// Sessions reports whether lock waits were looked for in any database.
func (f *Facts) Sessions() bool {
	return slices.ContainsFunc(f.Postgres, func(p PostgresFacts) bool { return p.Sessions != nil })
}

// Cache finds what a Redis of that name, or the only one, did; nil = none was looked at.
func (f *Facts) Cache(name string) *RedisFacts {
	for i := range f.Redis {
		if f.Redis[i].Name == name {
			return &f.Redis[i]
		}
	}
	if len(f.Redis) == 1 {
		return &f.Redis[0]
	}
	return nil
}

// Queue finds the consumer of a destination: the stream or the consumer that has its name; nil = none.
func (f *Facts) Queue(destination string) *QueueStats {
	for i := range f.Queues {
		if q := &f.Queues[i]; destination != "" && (strings.EqualFold(q.Stream, destination) || strings.EqualFold(q.Consumer, destination)) {
			return q
		}
	}
	return nil
}

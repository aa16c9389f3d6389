package probe

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/setting"
)

// MaxSources bounds the systems of one kind.
const MaxSources = 64

// Config is the systems that evidence is collected from. The zero value means none; each list takes up to [MaxSources].
type Config struct {
	Every      time.Duration      `yaml:"every"`      // window of one collection: rates are told over it, and the next one follows at once; 10s..1h; default 1m
	Statements int                `yaml:"statements"` // of the traces, asked about in one collection; 1..100; default 20
	Postgres   []PostgresConfig   `yaml:"postgres"`   // databases
	Redis      []RedisConfig      `yaml:"redis"`      // servers; of a cluster each
	Queues     []QueueConfig      `yaml:"queues"`     // of NATS JetStream
	Profiles   []ProfilesConfig   `yaml:"profiles"`   // of processes in Go
	Metrics    []MetricsConfig    `yaml:"metrics"`    // of processes and what surrounds them
	Prometheus []PrometheusConfig `yaml:"prometheus"` // servers that recorded the metrics of services
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	setDefault(&c.Every, time.Minute)
	setDefault(&c.Statements, 20)
	c.Postgres = each(c.Postgres, PostgresConfig.WithDefaults)
	c.Redis = each(c.Redis, RedisConfig.WithDefaults)
	c.Queues = each(c.Queues, QueueConfig.WithDefaults)
	c.Profiles = each(c.Profiles, ProfilesConfig.WithDefaults)
	c.Metrics = each(c.Metrics, MetricsConfig.WithDefaults)
	c.Prometheus = each(c.Prometheus, PrometheusConfig.WithDefaults)
	return c
}

func each[T any](list []T, f func(T) T) []T {
	list = slices.Clone(list)
	for i := range list {
		list[i] = f(list[i])
	}
	return list
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	within(&f, "every", c.Every, 10*time.Second, time.Hour, "10s..1h")
	within(&f, "statements", c.Statements, 1, 100, "1..100")
	valid(&f, "postgres", c.Postgres, PostgresConfig.Validate)
	valid(&f, "redis", c.Redis, RedisConfig.Validate)
	valid(&f, "queues", c.Queues, QueueConfig.Validate)
	valid(&f, "profiles", c.Profiles, ProfilesConfig.Validate)
	valid(&f, "metrics", c.Metrics, MetricsConfig.Validate)
	valid(&f, "prometheus", c.Prometheus, PrometheusConfig.Validate)
	for i, r := range c.Redis {
		_, _, err := net.SplitHostPort(r.Address)
		f.Check(err == nil, fmt.Sprintf("redis[%d].address", i), r.Address, "host:port")
	}
	for i, q := range c.Queues {
		f.Check(natsURL(q.URL), fmt.Sprintf("queues[%d].url", i), "(hidden)", "nats://host:port")
	}
	for i, p := range c.Profiles {
		f.Check(p.Service != "", fmt.Sprintf("profiles[%d].service", i), p.Service, "the service's name in the traces")
	}
	for i, m := range c.Metrics {
		f.Check(m.Service != "", fmt.Sprintf("metrics[%d].service", i), m.Service, "the service's name in the traces")
	}
	return f.Err()
}

func valid[T any](f *setting.Faults, path string, list []T, check func(T) error) {
	f.Check(len(list) <= MaxSources, path, len(list), fmt.Sprintf("up to %d", MaxSources))
	for i, x := range list[:min(len(list), MaxSources)] {
		f.Within(fmt.Sprintf("%s[%d]", path, i), check(x))
	}
}

func natsURL(list string) bool {
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" {
			return false
		}
	}
	return true
}

// Once is c for a single collection over window, after which the caller ends: the same may be looked for a few times
// within it. What the looks may cost together stays bounded by PerHour.
func (c Config) Once(window time.Duration) Config {
	c = c.WithDefaults()
	brisk := func(b *Budget) { b.MinInterval = max(100*time.Millisecond, min(b.MinInterval, window/(2*samples))) }
	for i := range c.Postgres {
		brisk(&c.Postgres[i].Budget)
	}
	for i := range c.Redis {
		brisk(&c.Redis[i].Budget)
	}
	for i := range c.Queues {
		brisk(&c.Queues[i].Budget)
	}
	for i := range c.Profiles {
		c.Profiles[i].Seconds = max(1, min(c.Profiles[i].Seconds, int(window/time.Second)))
	}
	for i := range c.Metrics {
		brisk(&c.Metrics[i].Budget)
	}
	for i := range c.Prometheus {
		brisk(&c.Prometheus[i].Budget)
	}
	return c
}

// Empty reports whether c names no system at all.
func (c Config) Empty() bool {
	return len(c.Postgres)+len(c.Redis)+len(c.Queues)+len(c.Profiles)+len(c.Metrics)+len(c.Prometheus) == 0
}

// WithoutSecrets is c as everybody may see it.
func (c Config) WithoutSecrets() Config {
	const hidden = "hidden"
	c.Postgres = each(c.Postgres, func(p PostgresConfig) PostgresConfig {
		if p.DSN != "" {
			p.DSN = p.title()
		}
		return p
	})
	c.Redis = each(c.Redis, func(r RedisConfig) RedisConfig {
		if r.Password != "" {
			r.Password = hidden
		}
		return r
	})
	c.Queues = each(c.Queues, func(q QueueConfig) QueueConfig {
		q.URL = plainURL(q.URL)
		return q
	})
	c.Profiles = each(c.Profiles, func(p ProfilesConfig) ProfilesConfig {
		p.URL = plainURL(p.URL)
		return p
	})
	c.Metrics = each(c.Metrics, func(m MetricsConfig) MetricsConfig {
		m.URLs = each(m.URLs, plainURL)
		return m
	})
	c.Prometheus = each(c.Prometheus, func(p PrometheusConfig) PrometheusConfig {
		p.URL = plainURL(p.URL)
		p.Headers = maps.Clone(p.Headers)
		for name := range p.Headers {
			p.Headers[name] = hidden
		}
		return p
	})
	return c
}

// plainURL is a list of URLs without who one is, or "hidden" when that cannot be told.
func plainURL(list string) string {
	var out []string
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return "hidden"
		}
		u.User = nil
		plain := u.String()
		if strings.Contains(plain, "@") { // a password without a scheme before it, or with a comma
			return "hidden"
		}
		out = append(out, plain)
	}
	return strings.Join(out, ",")
}

// title is what reports call the server.
func (c PostgresConfig) title() string {
	if c.Name != "" {
		return c.Name
	}
	cfg, err := pgx.ParseConfig(c.DSN)
	if err != nil {
		return "PostgreSQL"
	}
	return net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port)) + "/" + cmp.Or(cfg.Database, cfg.User)
}

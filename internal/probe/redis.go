package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
	"github.com/redis/rueidis"
)

// RedisConfig bounds what is asked of one Redis server (6 or later, Valkey too). The zero value means the defaults given at each field.
type RedisConfig struct {
	Name     string        `yaml:"name"`     // what reports call it; default the address
	Address  string        `yaml:"address"`  // host:port
	Username string        `yaml:"username"` // default none
	Password string        `yaml:"password"` // default none; ${NAME} is not replaced
	Timeout  time.Duration `yaml:"timeout"`  // of one look; 10ms..1m; default 1s
	Slow     int           `yaml:"slow"`     // entries of SLOWLOG read; 1..1000; default 128
	Budget   Budget        `yaml:"budget"`   // of its looks
}

// WithDefaults fills what is zero.
func (c RedisConfig) WithDefaults() RedisConfig {
	setDefault(&c.Timeout, time.Second)
	setDefault(&c.Slow, 128)
	c.Budget = c.Budget.WithDefaults()
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c RedisConfig) Validate() error {
	var f setting.Faults
	within(&f, "timeout", c.Timeout, 10*time.Millisecond, time.Minute, "10ms..1m")
	within(&f, "slow", c.Slow, 1, 1000, "1..1000")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

// Redis reads evidence from one server; a cluster has one collector for each. It never uses MONITOR, KEYS, SCAN or DEBUG. Safe for
// concurrent use.
type Redis struct {
	cfg    RedisConfig
	client rueidis.Client
	guard  *guard
}

// NewRedis makes a collector on client, which stays the caller's.
func NewRedis(c RedisConfig, client rueidis.Client) (*Redis, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Redis{cfg: c, client: client, guard: newGuard(c.Budget)}, nil
}

// Spent is what the collector has done.
func (r *Redis) Spent() Spent { return r.guard.report(time.Now()) }

// Look reads INFO, SLOWLOG and LATENCY. What the server's ACL refuses is a Gap; without INFO there is no look. Two looks make rates:
// evidence.RedisBetween.
func (r *Redis) Look(ctx context.Context) (out evidence.RedisLook, err error) {
	err = r.guard.look(ctx, "redis", r.cfg.Timeout, func(ctx context.Context) error {
		start := time.Now()
		if err := r.do(ctx, "PING").Error(); err != nil && !refusedByACL(err) {
			return graded(err)
		}
		out.At = time.Now()
		out.RTT = out.At.Sub(start)
		info, err := r.do(ctx, "INFO").ToString()
		if err != nil {
			return graded(err)
		}
		commands, err := r.do(ctx, "INFO", "commandstats").ToString()
		if err != nil {
			return graded(err)
		}
		out.Info = evidence.ParseRedisInfo(info + "\n" + commands)
		if err := r.slow(ctx, &out); err != nil {
			return graded(err)
		}
		return graded(r.latency(ctx, &out))
	})
	return out, err
}

func (r *Redis) do(ctx context.Context, words ...string) rueidis.RedisResult {
	return r.client.Do(ctx, r.client.B().Arbitrary(words...).Build())
}

func refusedByACL(err error) bool {
	fault, ok := rueidis.IsRedisErr(err)
	return ok && (strings.HasPrefix(fault.Error(), "NOPERM") || strings.Contains(fault.Error(), "unknown command") || strings.Contains(fault.Error(), "unknown subcommand"))
}

// graded marks a server that is loading or does not let us in because it is full.
func graded(err error) error {
	if err == nil {
		return nil
	}
	if s := err.Error(); strings.Contains(s, "LOADING") || strings.Contains(s, "max number of clients") || strings.Contains(s, "BUSY ") {
		err = fmt.Errorf("%w: %w", errOverload, err)
	}
	return fmt.Errorf("probe: Redis: %w", err)
}

func (r *Redis) slow(ctx context.Context, out *evidence.RedisLook) error {
	list, err := r.do(ctx, "SLOWLOG", "GET", fmt.Sprint(r.cfg.Slow)).ToArray()
	if refusedByACL(err) {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "slow commands", Why: "the user may not use SLOWLOG"})
		return nil
	} else if err != nil {
		return err
	}
	for _, m := range list {
		if c, err := slowCommand(m); err == nil {
			out.Slow = append(out.Slow, c)
		}
	}
	out.Gaps = append(out.Gaps, r.threshold(ctx, "slowlog-log-slower-than", "-1", "slow commands")...)
	return nil
}

// threshold tells a feature that is off from one that has seen nothing.
func (r *Redis) threshold(ctx context.Context, name, off, what string) []evidence.Gap {
	pair, err := r.do(ctx, "CONFIG", "GET", name).AsStrMap()
	switch {
	case err != nil:
		return []evidence.Gap{{What: what, Why: "nothing tells from which time on they are kept: the user may not use CONFIG GET"}}
	case pair[name] == off:
		return []evidence.Gap{{What: what, Why: "the server keeps none: " + name + " is " + off}}
	}
	return nil
}

func slowCommand(m rueidis.RedisMessage) (c evidence.SlowCommand, err error) {
	entry, err := m.ToArray()
	if err != nil || len(entry) < 4 {
		return c, errors.Join(err, errors.New("probe: Redis: an entry of SLOWLOG that is none"))
	}
	id, err1 := entry[0].AsInt64()
	at, err2 := entry[1].AsInt64()
	us, err3 := entry[2].AsInt64()
	args, err4 := entry[3].AsStrSlice()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return c, err
	}
	c = evidence.SlowCommand{ID: id, At: time.Unix(at, 0), Took: time.Duration(us) * time.Microsecond, Args: len(args)}
	if len(args) > 0 {
		c.Command = strings.ToLower(args[0])
	}
	if len(args) > 1 && c.Command != "auth" && c.Command != "hello" && c.Command != "config" && c.Command != "eval" && c.Command != "acl" {
		c.Key = evidence.KeyShape(args[1])
	}
	if len(entry) > 5 {
		c.Client, _ = entry[5].ToString()
	}
	return c, nil
}

func (r *Redis) latency(ctx context.Context, out *evidence.RedisLook) error {
	list, err := r.do(ctx, "LATENCY", "LATEST").ToArray()
	if refusedByACL(err) {
		out.Gaps = append(out.Gaps, evidence.Gap{What: "latency events", Why: "the user may not use LATENCY"})
		return nil
	} else if err != nil {
		return err
	}
	const most = 100
	for _, m := range list[:min(len(list), most)] {
		entry, err := m.ToArray()
		if err != nil || len(entry) < 4 {
			continue
		}
		event, err1 := entry[0].ToString()
		at, err2 := entry[1].AsInt64()
		latest, err3 := entry[2].AsInt64()
		worst, err4 := entry[3].AsInt64()
		if errors.Join(err1, err2, err3, err4) == nil {
			out.Latency = append(out.Latency, evidence.LatencyEvent{Event: event, At: time.Unix(at, 0), Latest: time.Duration(latest) * time.Millisecond, Max: time.Duration(worst) * time.Millisecond})
		}
	}
	out.Gaps = append(out.Gaps, r.threshold(ctx, "latency-monitor-threshold", "0", "latency events")...)
	return nil
}

package gateway

import (
	"time"

	"github.com/longpole/longpole/cache/redis"
	"github.com/longpole/longpole/setting"
)

// Redis is the second tier of the caches, which several gateways share. Routes whose policy has cache.shared use it.
type Redis struct {
	Addresses  []string      `yaml:"addresses"`   // host:port; one = that server, several = servers of a cluster; default 127.0.0.1:6379
	Username   string        `yaml:"username"`    // default none
	Password   string        `yaml:"password"`    // default none; ${NAME} is not replaced
	Prefix     string        `yaml:"prefix"`      // put before each key; gateways with the same prefix share answers; default "longpole:"
	Timeout    time.Duration `yaml:"timeout"`     // of one read, write or connect; at least 1ms; default 50ms
	Pause      time.Duration `yaml:"pause"`       // for which Redis is not asked when it failed, up to four times as long when it goes on; default 1s
	LocalBytes int64         `yaml:"local_bytes"` // kept in the process for each connection, of which there are 4; up to 1GiB; default 16MiB
}

func (r Redis) config() redis.Config {
	return redis.Config{
		Addresses: r.Addresses, Username: r.Username, Password: r.Password, Prefix: r.Prefix,
		Timeout: r.Timeout, Pause: r.Pause, LocalBytes: r.LocalBytes,
	}
}

// WithDefaults fills what is zero.
func (r Redis) WithDefaults() Redis {
	c := r.config().WithDefaults()
	r.Addresses, r.Prefix, r.Timeout, r.Pause, r.LocalBytes = c.Addresses, c.Prefix, c.Timeout, c.Pause, c.LocalBytes
	return r
}

// Validate returns every fault of r, joined; each is a *setting.Error.
func (r Redis) Validate() error { return r.config().Validate() }

// validateRedis adds the faults of c.Redis. A policy may share without one: then there is nothing to share by, until a
// reload brings it.
func (c Config) validateRedis(f *setting.Faults) {
	if c.Redis != nil {
		f.Within("redis", c.Redis.Validate())
	}
}

package redis

import (
	"crypto/tls"
	"net"
	"strconv"
	"time"

	"github.com/longpole/longpole/setting"
)

// Config of a Tier. The zero value means the defaults given at each field.
type Config struct {
	Addresses  []string      `yaml:"addresses"`   // host:port; one = that server, several = servers of a cluster; default 127.0.0.1:6379
	Username   string        `yaml:"username"`    // default none
	Password   string        `yaml:"password"`    // default none
	TLS        *tls.Config   `yaml:"-"`           // nil = no TLS
	Prefix     string        `yaml:"prefix"`      // put before each key; default "longpole:"
	Timeout    time.Duration `yaml:"timeout"`     // of one read, write or connect; default 50ms
	Pause      time.Duration `yaml:"pause"`       // for which Redis is not asked when it failed, up to four times as long when it goes on; default 1s
	LocalBytes int64         `yaml:"local_bytes"` // kept in the process for each connection, of which there are 4; default 16MiB
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if len(c.Addresses) == 0 {
		c.Addresses = []string{"127.0.0.1:6379"}
	}
	if c.Prefix == "" {
		c.Prefix = "longpole:"
	}
	if c.Timeout == 0 {
		c.Timeout = 50 * time.Millisecond
	}
	if c.Pause == 0 {
		c.Pause = time.Second
	}
	if c.LocalBytes == 0 {
		c.LocalBytes = 16 << 20
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	for i, a := range c.Addresses {
		host, port, err := net.SplitHostPort(a)
		number, bad := strconv.ParseUint(port, 10, 16)
		f.Check(err == nil && host != "" && bad == nil && number > 0, "addresses["+strconv.Itoa(i)+"]", a, "host:port")
	}
	f.Check(c.Timeout == 0 || c.Timeout >= time.Millisecond, "timeout", c.Timeout, "at least 1ms")
	f.Check(c.Pause >= 0, "pause", c.Pause, "a duration that is not negative")
	f.Check(c.LocalBytes >= 0 && c.LocalBytes <= 1<<30, "local_bytes", c.LocalBytes, "a size up to 1GiB")
	return f.Err()
}

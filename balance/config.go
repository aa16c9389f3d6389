package balance

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// The algorithms that choose an endpoint.
const (
	P2C        = "p2c"         // the less loaded of two drawn at random (Mitzenmacher 2001); the default
	RoundRobin = "round_robin" // each in turn
)

// Config of a Balancer. The zero value means the defaults given at each field.
type Config struct {
	Algorithm string `yaml:"algorithm"` // P2C or RoundRobin; default P2C
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Algorithm == "" {
		c.Algorithm = P2C
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.Algorithm == "" || c.Algorithm == P2C || c.Algorithm == RoundRobin, "algorithm", c.Algorithm, "p2c or round_robin")
	return f.Err()
}

// HealthConfig is when active checks take an endpoint out of the rotation and back.
// The zero value means the defaults given at each field.
type HealthConfig struct {
	Path      string        `yaml:"path"`      // asked with GET; "" = no active checks
	Interval  time.Duration `yaml:"interval"`  // between two checks of one endpoint; default 1s
	Timeout   time.Duration `yaml:"timeout"`   // of one check; default 500ms
	Unhealthy int           `yaml:"unhealthy"` // failed checks in a row that take it out; default 2
	Healthy   int           `yaml:"healthy"`   // good checks in a row that bring it back; default 2
}

// WithDefaults fills what is zero.
func (c HealthConfig) WithDefaults() HealthConfig {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 500 * time.Millisecond
	}
	if c.Unhealthy == 0 {
		c.Unhealthy = 2
	}
	if c.Healthy == 0 {
		c.Healthy = 2
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c HealthConfig) Validate() error {
	var f setting.Faults
	f.Check(c.Path == "" || c.Path[0] == '/', "path", c.Path, "a path that starts with /")
	f.Check(c.Interval == 0 || c.Interval >= 10*time.Millisecond, "interval", c.Interval, "at least 10ms")
	f.Check(c.Timeout >= 0, "timeout", c.Timeout, "a duration that is not negative")
	f.Check(c.Unhealthy >= 0, "unhealthy", c.Unhealthy, "at least 1")
	f.Check(c.Healthy >= 0, "healthy", c.Healthy, "at least 1")
	return f.Err()
}

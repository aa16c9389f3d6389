package balance

import (
	"time"

	"github.com/longpole/longpole/setting"
)

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

// Check decides an endpoint's health from the results of active checks: it takes several of the same kind in a row
// to change it, so that one lost packet does not. It begins healthy. It is not safe for concurrent use: one checker owns it.
type Check struct {
	cfg  HealthConfig
	sick bool
	row  int // results in a row that contradict sick
}

// NewCheck returns a Check with the thresholds of c, which must be valid.
func NewCheck(c HealthConfig) *Check { return &Check{cfg: c.WithDefaults()} }

// Result takes in one check's result, and returns the health and whether this result changed it.
func (c *Check) Result(ok bool) (healthy, changed bool) {
	if ok != c.sick {
		c.row = 0
		return !c.sick, false
	}
	c.row++
	need := c.cfg.Unhealthy
	if c.sick {
		need = c.cfg.Healthy
	}
	if c.row < need {
		return !c.sick, false
	}
	c.sick, c.row = !c.sick, 0
	return !c.sick, true
}

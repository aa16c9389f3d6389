package batch

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// Config of a Joiner. The zero value means the defaults given at each field.
type Config struct {
	Size     int           `yaml:"size"`     // keys in one batch at most; 1..100000; default 100
	Age      time.Duration `yaml:"age"`      // how long a key waits at most for others; default 2ms
	Idle     int           `yaml:"idle"`     // as long as fewer batches are under way, nothing waits; default 1
	Parallel int           `yaml:"parallel"` // batches under way at most; at least Idle; default 8, or Idle if that is more
	Pending  int           `yaml:"pending"`  // keys that wait at most; one more is refused; default 10000
	Target   time.Duration `yaml:"target"`   // a batch should take no longer: its size is adapted between a tenth of Size and Size; default 0 = always Size
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Size == 0 {
		c.Size = 100
	}
	if c.Age == 0 {
		c.Age = 2 * time.Millisecond
	}
	if c.Idle == 0 {
		c.Idle = 1
	}
	if c.Parallel == 0 {
		c.Parallel = max(8, c.Idle)
	}
	if c.Pending == 0 {
		c.Pending = 10_000
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.Size >= 0 && c.Size <= 100_000, "size", c.Size, "1..100000")
	f.Check(c.Age >= 0, "age", c.Age, "a duration that is not negative")
	f.Check(c.Idle >= 0 && c.Idle <= 10_000, "idle", c.Idle, "1..10000")
	f.Check(c.Parallel >= 0 && (c.Parallel == 0 || c.Parallel >= c.Idle), "parallel", c.Parallel, "at least idle")
	f.Check(c.Pending >= 0, "pending", c.Pending, "a number that is not negative")
	f.Check(c.Target >= 0, "target", c.Target, "a duration that is not negative")
	return f.Err()
}

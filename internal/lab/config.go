package lab

import (
	"github.com/longpole/longpole/setting"
)

// Config of a Lab. The zero value is valid: services without a gateway answer with 502 where they would call it, and
// spans without a receiver are not kept.
type Config struct {
	Gateway  string  // base URL that services call each other through: "http://127.0.0.1:8080"
	Receiver string  // OTLP/HTTP URL that spans are posted to, path included: "http://127.0.0.1:4318/v1/traces"
	Seed     uint64  // of all service times and faults
	Rows     int     // of the catalogue's table; at least 1000; 0 = 60000
	Faults   []Fault // planted from the start; nil = Afflictions, empty = none
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Rows == 0 {
		c.Rows = 60_000
	}
	if c.Faults == nil {
		c.Faults = Afflictions()
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.Rows == 0 || c.Rows >= 1000, "rows", c.Rows, "at least 1000")
	names := make(map[string]bool)
	for _, fault := range c.Faults {
		f.Within("faults", fault.Validate())
		f.Check(!names[fault.Name], "faults.name", fault.Name, "a name that no other fault has")
		names[fault.Name] = true
	}
	return f.Err()
}

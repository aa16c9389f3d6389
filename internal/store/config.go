package store

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// Config says where things are kept, and for how long. The zero value keeps nothing: Dir is required.
type Config struct {
	Dir         string        `yaml:"dir"`          // folder, made when it is missing; required
	RollupsFor  time.Duration `yaml:"rollups_for"`  // age at which histograms are dropped; 1h..43800h; default 9600h (400 days)
	MaxSeries   int           `yaml:"max_series"`   // routes x segments x endpoints told apart; further ones are counted together; 1..1000000; default 10000
	TracesFor   time.Duration `yaml:"traces_for"`   // age at which kept traces are dropped; up to 8760h; default 168h (7 days)
	TraceBytes  int64         `yaml:"trace_bytes"`  // of all kept traces on disk, oldest dropped first; at least 1MiB; default 1GiB
	JournalsFor time.Duration `yaml:"journals_for"` // age at which journal entries are dropped; at least 24h; default 17520h (2 years)
}

// WithDefaults fills what is zero, Dir apart.
func (c Config) WithDefaults() Config {
	const day = 24 * time.Hour
	if c.RollupsFor == 0 {
		c.RollupsFor = 400 * day
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 10_000
	}
	if c.TracesFor == 0 {
		c.TracesFor = 7 * day
	}
	if c.TraceBytes == 0 {
		c.TraceBytes = 1 << 30
	}
	if c.JournalsFor == 0 {
		c.JournalsFor = 730 * day
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error. Zero fields but Dir are fine.
func (c Config) Validate() error {
	const day = 24 * time.Hour
	d := c.WithDefaults()
	var f setting.Faults
	f.Check(c.Dir != "", "dir", c.Dir, "a folder")
	f.Check(d.RollupsFor >= time.Hour && d.RollupsFor <= 5*365*day, "rollups_for", c.RollupsFor, "1h..43800h")
	f.Check(d.MaxSeries >= 1 && d.MaxSeries <= 1_000_000, "max_series", c.MaxSeries, "1..1000000")
	f.Check(d.TracesFor > 0 && d.TracesFor <= 365*day, "traces_for", c.TracesFor, "above 0, up to 8760h")
	f.Check(d.TraceBytes >= 1<<20, "trace_bytes", c.TraceBytes, "at least 1MiB")
	f.Check(d.JournalsFor >= day, "journals_for", c.JournalsFor, "at least 24h")
	return f.Err()
}

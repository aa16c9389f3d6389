package gateway

import (
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/recording"
	"github.com/longpole/longpole/setting"
)

// Record keeps a share of all calls in files, scrubbed, for `longpole load` to send again. A call never waits for it.
type Record struct {
	Files  recording.Files `yaml:"files"`  // where, and how much
	Share  float64         `yaml:"share"`  // of the calls; more than 0, up to 100%
	Routes []string        `yaml:"routes"` // names; none = all
	Scrub  recording.Scrub `yaml:"scrub"`  // what is left out, and what is hashed
}

// Validate returns every fault of r, joined; each is a *setting.Error.
func (r Record) Validate() error {
	var f setting.Faults
	f.Within("files", r.Files.Validate())
	f.Check(r.Share > 0 && r.Share <= 1, "share", r.Share, "more than 0, up to 100%")
	f.Within("scrub", r.Scrub.Validate())
	return f.Err()
}

// validateRecord checks the part of the file that tells what is recorded.
func (c *Config) validateRecord(f *setting.Faults) {
	if c.Record == nil {
		return
	}
	f.Within("record", c.Record.Validate())
	for i, name := range c.Record.Routes {
		known := slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Name == name })
		f.Check(known, fmt.Sprintf("record.routes[%d]", i), name, "the name of a route")
	}
}

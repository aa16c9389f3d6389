package scale

import (
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// Config is one workload. Name, Max and Latency are mandatory.
type Config struct {
	Name         string        `yaml:"name"`           // unique; 1..64 letters, digits and -_. characters
	Routes       []string      `yaml:"routes"`         // whose calls it serves; default the route of the same name
	Min          int           `yaml:"min"`            // replicas; default 1
	Max          int           `yaml:"max"`            // replicas; min..10000
	Latency      time.Duration `yaml:"latency"`        // that must hold at Quantile, waiting included; 1ms..1h
	Quantile     float64       `yaml:"quantile"`       // 50%..99.9%; default 99%
	Utilization  float64       `yaml:"utilization"`    // share of a replica's permits that should be in use; 10%..95%; default 70%
	Start        time.Duration `yaml:"start"`          // from the order of a replica to its first call; 1s..30m; default 30s
	ScaleInAfter time.Duration `yaml:"scale_in_after"` // fewer must have been enough for so long; 10s..24h; default 5m
	CPU          float64       `yaml:"cpu"`            // mean share of what a replica may use that is fine; 10%..100%; default 80%
	Memory       float64       `yaml:"memory"`         // the same of memory; default 80%
	DryRun       bool          `yaml:"dry_run"`        // recommendations are shown and not acted upon
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if len(c.Routes) == 0 && c.Name != "" {
		c.Routes = []string{c.Name}
	}
	if c.Min == 0 {
		c.Min = 1
	}
	defaults := []struct {
		at    *float64
		value float64
	}{{&c.Quantile, 0.99}, {&c.Utilization, 0.7}, {&c.CPU, 0.8}, {&c.Memory, 0.8}}
	for _, d := range defaults {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if c.Start == 0 {
		c.Start = 30 * time.Second
	}
	if c.ScaleInAfter == 0 {
		c.ScaleInAfter = 5 * time.Minute
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error. Fields that are zero stand for their defaults.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(nameOK(c.Name), "name", c.Name, "a name of 1..64 letters, digits and -_. characters")
	c = c.WithDefaults()
	f.Check(len(c.Routes) <= 64, "routes", len(c.Routes), "at most 64")
	f.Check(c.Min >= 1, "min", c.Min, "at least 1")
	f.Check(c.Max >= max(c.Min, 1) && c.Max <= 10_000, "max", c.Max, "min..10000")
	f.Check(c.Latency >= time.Millisecond && c.Latency <= time.Hour, "latency", c.Latency, "1ms..1h: what must hold")
	f.Check(c.Quantile >= 0.5 && c.Quantile <= 0.999, "quantile", c.Quantile, "50%..99.9%")
	f.Check(c.Utilization >= 0.1 && c.Utilization <= 0.95, "utilization", c.Utilization, "10%..95%")
	f.Check(c.Start >= time.Second && c.Start <= 30*time.Minute, "start", c.Start, "1s..30m")
	f.Check(c.ScaleInAfter >= 10*time.Second && c.ScaleInAfter <= 24*time.Hour, "scale_in_after", c.ScaleInAfter, "10s..24h")
	f.Check(c.CPU >= 0.1 && c.CPU <= 1, "cpu", c.CPU, "10%..100%")
	f.Check(c.Memory >= 0.1 && c.Memory <= 1, "memory", c.Memory, "10%..100%")
	return f.Err()
}

func nameOK(name string) bool {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, bad)
}

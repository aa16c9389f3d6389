package gateway

import (
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/setting"
)

// Alerts is who is told when the error budget of an objective burns.
type Alerts struct {
	Webhook *slo.Webhook `yaml:"webhook"` // nil = alerts stand in the log, the metrics and on the page only
	Page    string       `yaml:"page"`    // URL of the admin page as people reach it, which alerts then name; "" = none
}

// Judge is how rollouts are judged, beside what each of them says.
type Judge struct {
	Calibrate bool    `yaml:"calibrate"` // compare two halves of the policy in force on each route without a rollout, which cannot differ, to know how often the judge is wrong
	Share     float64 `yaml:"share"`     // of the calls, of each half; 1%..50%; default 5%
}

// WithDefaults fills what is zero.
func (j Judge) WithDefaults() Judge {
	setDefault(&j.Share, 0.05)
	return j
}

// Validate returns a *setting.Error.
func (j Judge) Validate() error {
	var f setting.Faults
	f.Check(j.Share == 0 || j.Share >= 0.01 && j.Share <= MaxWeight, "share", j.Share, "1%..50%")
	return f.Err()
}

// maxWorkloads bounds Config.Scale.
const maxWorkloads = 64

// validateSignals checks what the gateway tells others: objectives, alerts and wanted replicas.
func (c *Config) validateSignals(f *setting.Faults) {
	known := func(name string) bool {
		return slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Name == name })
	}
	f.Within("slos", slo.ValidateAll(c.SLOs))
	for i, o := range c.SLOs {
		f.Check(o.Route == "" || known(o.Route), fmt.Sprintf("slos[%d].route", i), o.Route, "the name of a route")
	}
	if c.Alerts.Webhook != nil {
		f.Within("alerts.webhook", c.Alerts.Webhook.Validate())
	}
	f.Within("judge", c.Judge.Validate())
	f.Check(len(c.Scale) <= maxWorkloads, "scale", len(c.Scale), fmt.Sprintf("at most %d workloads", maxWorkloads))
	seen := map[string]bool{}
	for i, w := range c.Scale {
		at := fmt.Sprintf("scale[%d]", i)
		f.Within(at, w.Validate())
		f.Check(!seen[w.Name], at+".name", w.Name, "a name that no other workload has")
		seen[w.Name] = true
		for j, name := range w.WithDefaults().Routes {
			f.Check(known(name), fmt.Sprintf("%s.routes[%d]", at, j), name, "the name of a route")
		}
	}
}

// withSignals spells out the defaults of what validateSignals checks.
func (c Config) withSignals() Config {
	setDefault(&c.Zipkin, Off)
	setDefault(&c.Jaeger, Off)
	setDefault(&c.KEDA, Off)
	c.SLOs = slices.Clone(c.SLOs)
	for i := range c.SLOs {
		c.SLOs[i] = c.SLOs[i].WithDefaults()
	}
	if c.Alerts.Webhook != nil {
		hook := c.Alerts.Webhook.WithDefaults()
		c.Alerts.Webhook = &hook
	}
	c.Judge = c.Judge.WithDefaults()
	c.Scale = slices.Clone(c.Scale)
	for i := range c.Scale {
		c.Scale[i] = c.Scale[i].WithDefaults()
	}
	return c
}

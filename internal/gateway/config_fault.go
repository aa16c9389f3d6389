package gateway

import (
	"fmt"

	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/setting"
)

// validateFaults checks the faults of a route's file. Their names are unique within the whole file, because they are
// stopped by name; seen holds those of the routes before.
func validateFaults(f *setting.Faults, path string, list []fault.Config, seen map[string]bool) {
	for i, c := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		f.Within(at, c.Validate())
		f.Check(!seen[c.Name], at+".name", c.Name, "a name that no other fault has")
		seen[c.Name] = true
	}
	f.Check(len(list) <= 16, path, len(list), "at most 16")
}

// validateSide checks what a route has beside its policy: how its answers travel, whom its calls are copied to, what
// is injected into it.
func (c *Config) validateSide(f *setting.Faults, path string, r *Route, faults map[string]bool) {
	if r.Payload != nil {
		f.Within(path+".payload", r.Payload.Validate())
	}
	c.validateMirror(f, path+".mirror", r)
	validateFaults(f, path+".faults", r.Faults, faults)
	f.Check(!r.local() || r.Payload == nil && r.Mirror == nil, path, r.Name, "no payload and no mirror for a route that answers by itself")
	f.Check(r.forwards() || len(r.Faults) == 0, path+".faults", r.Name, "no faults: they hit calls that are forwarded one by one")
}

// forwards reports whether each call of r becomes one to an upstream, while its client waits.
func (r *Route) forwards() bool {
	return !r.local() && r.Offload == nil && r.Aggregate == nil && r.Batch == nil
}

// sideDefaults spells out the defaults of the same.
func (r *Route) sideDefaults() {
	if r.Payload != nil {
		p := r.Payload.WithDefaults()
		r.Payload = &p
	}
	if r.Mirror != nil {
		m := r.Mirror.WithDefaults()
		r.Mirror = &m
	}
}

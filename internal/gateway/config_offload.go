package gateway

import (
	"fmt"

	"github.com/longpole/longpole/setting"
)

// validateOffload checks the store, and what routes put into it.
func (c Config) validateOffload(f *setting.Faults) {
	f.Within("offload", c.Offload.Validate())
	for i, r := range c.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		if r.Offload != nil {
			f.Within(path+".offload", r.Offload.Validate())
		}
		ways := 0
		for _, set := range []bool{r.Offload != nil, r.Aggregate != nil, r.Batch != nil} {
			if set {
				ways++
			}
		}
		f.Check(ways <= 1, path, r.Name, "only one of offload, aggregate and batch")
		if r.Aggregate != nil {
			f.Within(path+".aggregate", r.Aggregate.Validate())
			r.Aggregate.validateUpstreams(f, path+".aggregate", c.Upstreams)
		}
		if r.Batch != nil {
			f.Within(path+".batch", r.Batch.Validate())
			f.Check(r.Policy.Cache == nil, path+".batch", r.Name, "no policy.cache on the same route: a joined answer is nobody's to keep")
		}
	}
}

// answersDefaults spells out the defaults of the ways to answer other than to forward.
func (r *Route) answersDefaults() {
	if r.Offload != nil {
		c := r.Offload.WithDefaults()
		r.Offload = &c
	}
	if r.Aggregate != nil {
		c := r.Aggregate.WithDefaults()
		r.Aggregate = &c
	}
	if r.Batch != nil {
		c := r.Batch.WithDefaults()
		r.Batch = &c
	}
}

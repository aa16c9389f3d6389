package scenario

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
)

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// WithDefaults fills what is zero. It changes nothing that s shares.
func (s Scenario) WithDefaults() Scenario {
	s.Services, s.Stores, s.Caches = slices.Clone(s.Services), slices.Clone(s.Stores), slices.Clone(s.Caches)
	s.Queues, s.Faults, s.Load.Routes = slices.Clone(s.Queues), slices.Clone(s.Faults), slices.Clone(s.Load.Routes)
	for i := range s.Services {
		s.Services[i] = s.Services[i].withDefaults()
	}
	for i := range s.Stores {
		x := &s.Stores[i]
		setDefault(&x.System, "postgresql")
		setDefault(&x.Cores, 4)
		setDefault(&x.Connections, 100)
		x.Base = distOr(x.Base, Dist{Median: 600 * time.Microsecond, P99: 1500 * time.Microsecond})
	}
	for i := range s.Caches {
		x := &s.Caches[i]
		setDefault(&x.Shards, 4)
		setDefault(&x.Keys, 100_000)
		x.Lookup = distOr(x.Lookup, Dist{Median: 300 * time.Microsecond, P99: 800 * time.Microsecond})
	}
	for i := range s.Queues {
		s.Queues[i] = s.Queues[i].withDefaults()
	}
	for i := range s.Load.Routes {
		x := &s.Load.Routes[i]
		_, operation, _ := strings.Cut(x.To, ".")
		setDefault(&x.Name, operation)
		setDefault(&x.Keys, 100_000)
	}
	for i := range s.Faults {
		x := &s.Faults[i]
		setDefault(&x.Name, x.Kind)
		setDefault(&x.Share, 1)
		setDefault(&x.Status, 500)
		x.Delay = distOr(x.Delay, Dist{})
	}
	s.Truth.Code = slices.Clone(s.Truth.Code)
	for _, x := range diagnose.Causes() {
		if x.Name != x.Class && slices.Contains(s.Truth.Class, x.Name) && !slices.Contains(s.Truth.Code, x.Code) {
			s.Truth.Code = append(s.Truth.Code, x.Code) // named by what it is, of a class that holds more than it
		}
	}
	setDefault(&s.Load.Arrivals, "poisson")
	setDefault(&s.Load.Warmup, 3*time.Second)
	setDefault(&s.Load.Duration, 12*time.Second)
	return s
}

// WithDefaults fills what is zero.
func (q Queue) withDefaults() Queue {
	setDefault(&q.Workers, 4)
	setDefault(&q.Deliveries, 5)
	setDefault(&q.Service, q.Name+"-worker")
	return q
}

func (s Service) withDefaults() Service {
	setDefault(&s.Protocol, HTTP)
	setDefault(&s.Replicas, 1)
	setDefault(&s.Cores, 2)
	setDefault(&s.Heap, 64<<20)
	setDefault(&s.Pause, 500*time.Microsecond)
	setDefault(&s.ColdFactor, 10)
	s.Pools = maps.Clone(s.Pools)
	s.Operations = slices.Clone(s.Operations)
	for i := range s.Operations {
		o := &s.Operations[i]
		setDefault(&o.Answer, 256)
		o.Steps = stepsWithDefaults(o.Steps)
	}
	return s
}

func stepsWithDefaults(steps []Step) []Step {
	steps = slices.Clone(steps)
	for i := range steps {
		x := &steps[i]
		x.Parallel = stepsWithDefaults(x.Parallel)
		if x.Call != nil {
			c := *x.Call
			setDefault(&c.Repeat, 1)
			setDefault(&c.Share, 1)
			setDefault(&c.Timeout, 30*time.Second)
			c.Cache = c.Cache.withDefaults()
			x.Call = &c
		}
		if x.Query != nil {
			q := *x.Query
			setDefault(&q.Verb, "select")
			setDefault(&q.Where, "id")
			setDefault(&q.Rows, 1)
			setDefault(&q.Repeat, 1)
			setDefault(&q.Share, 1)
			q.Cache = q.Cache.withDefaults()
			x.Query = &q
		}
		if x.Publish != nil {
			p := *x.Publish
			setDefault(&p.Share, 1)
			x.Publish = &p
		}
	}
	return steps
}

func (l *Lookup) withDefaults() *Lookup {
	if l == nil {
		return nil
	}
	x := *l
	setDefault(&x.TTL, time.Minute)
	return &x
}

func distOr(d *Dist, other Dist) *Dist {
	if d != nil {
		other = *d
	}
	return &other
}

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// Long is a time that few draws exceed: the p99 of a lognormal, the cut of a Pareto.
func (d Dist) Long() time.Duration {
	switch {
	case d.Median > 0:
		return cmp.Or(d.P99, 2*d.Median)
	case d.Min > 0:
		return cmp.Or(d.Max, 100*d.Min)
	}
	return d.Fixed
}

// Draw gives a time of the distribution; the zero value always gives 0.
func (d Dist) Draw(r *rand.Rand) time.Duration {
	switch {
	case d.Fixed > 0:
		return d.Fixed
	case d.Median > 0:
		p99 := cmp.Or(d.P99, 2*d.Median)
		sigma := math.Log(float64(p99)/float64(d.Median)) / z99
		return time.Duration(float64(d.Median) * math.Exp(sigma*r.NormFloat64()))
	case d.Min > 0:
		most := cmp.Or(d.Max, 100*d.Min)
		v := float64(d.Min) / math.Pow(1-r.Float64(), 1/d.Alpha)
		return time.Duration(min(v, float64(most)))
	}
	return 0
}

package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/setting"
)

// MaxReplicas bounds those of one service.
const MaxReplicas = 16

// The bounds of a scenario: what one machine can carry, and no more than a person can read.
const (
	maxServices   = 64
	maxOperations = 64
	maxSteps      = 64
	maxRepeat     = 500
	maxRate       = 2000
	maxAnswer     = 8 << 20
	maxHot        = 64 << 20
	maxRows       = 10_000_000
	maxTime       = 10 * time.Minute
	maxFaults     = 64
	maxName       = 40
	maxFanOut     = 20_000 // calls, statements and look-ups of one request of a client, all services together
)

// Validate returns every fault of s, which needs no defaults, joined; each is a *setting.Error.
func (s Scenario) Validate() error {
	var f setting.Faults
	f.Check(nameOK(s.Name), "name", s.Name, nameWant)
	f.Check(s.About != "", "about", s.About, "a sentence that says what is wrong")
	f.Check(len(s.Services) > 0 && len(s.Services) <= maxServices, "services", len(s.Services), fmt.Sprintf("1..%d services", maxServices))
	v := validator{s: &s, names: map[string]string{}}
	for i := range s.Services {
		f.Within(fmt.Sprintf("services[%d]", i), v.service(&s.Services[i]))
	}
	for i, x := range s.Stores {
		f.Within(fmt.Sprintf("stores[%d]", i), v.store(x))
	}
	for i, x := range s.Caches {
		f.Within(fmt.Sprintf("caches[%d]", i), v.cache(x))
	}
	for i, x := range s.Queues {
		f.Within(fmt.Sprintf("queues[%d]", i), v.queue(x))
	}
	f.Check(len(s.Gateway) > 0, "gateway", nil, "at least the service that clients call")
	for i, x := range s.Gateway {
		path := fmt.Sprintf("gateway[%d].service", i)
		f.Check(s.Service(x.Service) != nil, path, x.Service, v.services())
		f.Check(!slices.ContainsFunc(s.Gateway[:i], func(e Edge) bool { return e.Service == x.Service }), path, x.Service, "each service once")
	}
	f.Within("load", v.load(s.Load))
	f.Check(len(s.Faults) <= maxFaults, "faults", len(s.Faults), fmt.Sprintf("at most %d", maxFaults))
	for i, x := range s.Faults {
		f.Within(fmt.Sprintf("faults[%d]", i), v.fault(x))
	}
	f.Within("truth", s.Truth.validate())
	v.culprits(&f)
	if !v.cycles(&f) {
		v.fanOut(&f)
	}
	return f.Err()
}

const nameWant = "1..40 lower-case letters, digits and dashes, of which the first is no dash"

func nameOK(name string) bool {
	ok := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }
	return name != "" && name[0] != '-' && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return !ok(r) })
}

// validator checks what refers to other parts of a scenario.
type validator struct {
	s     *Scenario
	names map[string]string // of all that has one, so that spans and facts are not mixed up
}

func (v *validator) name(f *setting.Faults, name, what string) {
	f.Check(nameOK(name), "name", name, nameWant)
	f.Check(v.names[name] == "", "name", name, "a name that no other service, store, cache or queue has")
	v.names[name] = what
}

// culprits checks that a finding can name the services of the truth.
func (v *validator) culprits(f *setting.Faults) {
	known := slices.Collect(maps.Keys(v.names))
	for _, q := range v.s.Queues {
		known = append(known, q.withDefaults().Service)
	}
	slices.Sort(known)
	for i, name := range v.s.Truth.Service {
		f.Check(slices.Contains(known, name), fmt.Sprintf("truth.service[%d]", i), name, "one of "+strings.Join(slices.Compact(known), ", "))
	}
}

func (v *validator) services() string {
	var names []string
	for _, x := range v.s.Services {
		names = append(names, x.Name)
	}
	return "one of the services " + strings.Join(names, ", ")
}

func within(f *setting.Faults, path string, value, low, high int) {
	f.Check(value >= low && value <= high, path, value, fmt.Sprintf("%d..%d", low, high))
}

func share(f *setting.Faults, path string, value float64) {
	f.Check(value >= 0 && value <= 1, path, value, "0%..100%")
}

func span(f *setting.Faults, path string, d time.Duration) {
	f.Check(d >= 0 && d <= maxTime, path, d, "0s.."+maxTime.String())
}

func (v *validator) service(x *Service) error {
	var f setting.Faults
	v.name(&f, x.Name, "service")
	f.Check(slices.Contains([]string{"", HTTP, GRPC}, x.Protocol), "protocol", x.Protocol, "http or grpc")
	within(&f, "replicas", x.Replicas, 0, MaxReplicas)
	within(&f, "cores", x.Cores, 0, 256)
	within(&f, "workers", x.Workers, 0, 10_000)
	within(&f, "backlog", x.Backlog, 0, 100_000)
	within(&f, "cold_calls", x.ColdCalls, 0, 10_000)
	f.Check(x.ColdFactor == 0 || x.ColdFactor >= 1 && x.ColdFactor <= 1000, "cold_factor", x.ColdFactor, "1..1000")
	f.Check(x.Heap >= 0, "heap", x.Heap, "a size")
	span(&f, "pause", x.Pause)
	span(&f, "link.latency", x.Link.Latency)
	f.Check(x.Link.Bandwidth >= 0, "link.bandwidth", x.Link.Bandwidth, "a size per second")
	for _, name := range slices.Sorted(maps.Keys(x.Pools)) {
		f.Check(v.storeOf(name) != nil, "pools."+name, name, "the name of a store")
		within(&f, "pools."+name, x.Pools[name], 1, 10_000)
	}
	f.Check(len(x.Operations) > 0 && len(x.Operations) <= maxOperations, "operations", len(x.Operations), fmt.Sprintf("1..%d operations", maxOperations))
	seen := map[string]bool{}
	for i, o := range x.Operations {
		path := fmt.Sprintf("operations[%d]", i)
		f.Check(nameOK(o.Name) && !seen[o.Name], path+".name", o.Name, nameWant+", unique within the service")
		f.Check(o.Answer >= 0 && o.Answer <= maxAnswer, path+".answer", o.Answer, "a size up to 8MiB")
		f.Check(o.AnswerP99 == 0 || o.AnswerP99 >= o.Answer && o.Answer > 0 && o.AnswerP99 <= maxAnswer, path+".answer_p99", o.AnswerP99, "at least answer, which must be there, and up to 8MiB")
		seen[o.Name] = true
		f.Within(path, v.steps("steps", o.Steps, false))
	}
	return f.Err()
}

func (v *validator) steps(path string, steps []Step, parallel bool) error {
	var f setting.Faults
	f.Check(len(steps) <= maxSteps, path, len(steps), fmt.Sprintf("at most %d steps", maxSteps))
	for i, x := range steps {
		f.Within(fmt.Sprintf("%s[%d]", path, i), v.step(x, parallel))
	}
	return f.Err()
}

func (v *validator) step(x Step, parallel bool) error {
	var f setting.Faults
	n := 0
	for _, is := range []bool{x.CPU != nil, x.Sleep != nil, x.Call != nil, len(x.Parallel) > 0, x.Query != nil, x.Publish != nil, x.Allocate != 0, x.Lock != nil} {
		if is {
			n++
		}
	}
	f.Check(n == 1, "", n, "exactly one of cpu, sleep, call, parallel, query, publish, allocate, lock")
	f.Check(!parallel || x.Call != nil || x.Query != nil, "", nil, "a call or a query within parallel")
	f.Check(x.Allocate >= 0 && x.Allocate <= 1<<30, "allocate", x.Allocate, "a size up to 1GiB")
	f.Within("cpu", x.CPU.validate())
	f.Within("sleep", x.Sleep.validate())
	if len(x.Parallel) > 0 && !parallel {
		f.Within("", v.steps("parallel", x.Parallel, true))
	}
	if x.Call != nil {
		f.Within("call", v.call(x.Call))
	}
	if x.Query != nil {
		f.Within("query", v.query(x.Query))
	}
	if x.Publish != nil {
		known := slices.ContainsFunc(v.s.Queues, func(q Queue) bool { return q.Name == x.Publish.Queue })
		f.Check(known, "publish.queue", x.Publish.Queue, "the name of a queue")
		share(&f, "publish.share", x.Publish.Share)
	}
	if x.Lock != nil {
		f.Check(nameOK(x.Lock.Mutex), "lock.mutex", x.Lock.Mutex, nameWant)
		f.Check(x.Lock.Hold != Dist{}, "lock.hold", nil, distWant)
		f.Within("lock.hold", x.Lock.Hold.validate())
	}
	return f.Err()
}

const distWant = "{fixed: 5ms}, {median: 5ms, p99: 12ms} or {min: 5ms, alpha: 1.5}"

func (d *Dist) validate() error {
	var f setting.Faults
	if d == nil {
		return nil
	}
	n := 0
	for _, x := range []time.Duration{d.Fixed, d.Median, d.Min} {
		if x > 0 {
			n++
		}
	}
	f.Check(n == 1 || *d == Dist{}, "", n, distWant)
	for _, x := range []struct {
		path string
		d    time.Duration
	}{{"fixed", d.Fixed}, {"median", d.Median}, {"p99", d.P99}, {"min", d.Min}, {"max", d.Max}} {
		span(&f, x.path, x.d)
	}
	f.Check(d.P99 == 0 || d.P99 >= d.Median && d.Median > 0, "p99", d.P99, "at least the median, which must be there")
	f.Check(d.Min == 0 || d.Alpha >= 1 && d.Alpha <= 10, "alpha", d.Alpha, "1..10")
	return f.Err()
}

// operation checks SERVICE.OPERATION.
func (v *validator) operation(f *setting.Faults, path, to string) {
	name, operation, _ := strings.Cut(to, ".")
	s := v.s.Service(name)
	if s == nil {
		f.Check(false, path, to, "SERVICE.OPERATION with "+v.services())
		return
	}
	f.Check(s.Operation(operation) != nil, path, to, "an operation of "+name)
}

func (v *validator) call(x *Call) error {
	var f setting.Faults
	v.operation(&f, "to", x.To)
	within(&f, "repeat", x.Repeat, 0, maxRepeat)
	within(&f, "retries", x.Retries, 0, 10)
	share(&f, "share", x.Share)
	span(&f, "timeout", x.Timeout)
	f.Within("cache", v.lookup(x.Cache))
	return f.Err()
}

func (v *validator) lookup(x *Lookup) error {
	var f setting.Faults
	if x != nil {
		known := slices.ContainsFunc(v.s.Caches, func(c Cache) bool { return c.Name == x.In })
		f.Check(known, "in", x.In, "the name of a cache")
		span(&f, "ttl", x.TTL)
	}
	return f.Err()
}

func (v *validator) storeOf(name string) *Store {
	if i := slices.IndexFunc(v.s.Stores, func(x Store) bool { return x.Name == name }); i >= 0 {
		return &v.s.Stores[i]
	}
	return nil
}

func (v *validator) table(f *setting.Faults, store, table string) {
	x := v.storeOf(store)
	f.Check(x != nil, "store", store, "the name of a store")
	if x != nil {
		f.Check(slices.ContainsFunc(x.Tables, func(t Table) bool { return t.Name == table }), "table", table, "a table of "+store)
	}
}

func (v *validator) query(x *Query) error {
	var f setting.Faults
	v.table(&f, x.Store, x.Table)
	f.Check(slices.Contains([]string{"", "select", "update", "insert"}, x.Verb), "verb", x.Verb, "select, update or insert")
	f.Check(x.Where == "" || column(x.Where), "where", x.Where, columnWant)
	within(&f, "rows", x.Rows, 0, 100_000)
	within(&f, "repeat", x.Repeat, 0, maxRepeat)
	share(&f, "share", x.Share)
	f.Check(x.Hold == nil || x.Verb == "update", "hold", "", "a verb of update: only that locks a row")
	f.Within("hold", x.Hold.validate())
	f.Within("cache", v.lookup(x.Cache))
	return f.Err()
}

func word(name string) bool {
	ok := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' }
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return !ok(r) })
}

// systemColumns are those that every table of PostgreSQL has, and body, which is what the rows of the lab are filled with.
var systemColumns = []string{"body", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}

const columnWant = "the name of a column: 1..40 lower-case letters, digits and underscores, but not body or one of the database's own"

func column(name string) bool { return word(name) && !slices.Contains(systemColumns, name) }

// table reports whether name is that of a table which databases do not keep for themselves.
func table(name string) bool {
	return word(name) && !strings.HasPrefix(name, "pg_") && !strings.HasPrefix(name, "sqlite_")
}

func (v *validator) store(x Store) error {
	var f setting.Faults
	v.name(&f, x.Name, "store")
	within(&f, "cores", x.Cores, 0, 256)
	within(&f, "connections", x.Connections, 0, 100_000)
	f.Within("base", x.Base.validate())
	f.Check(len(x.Tables) > 0, "tables", nil, "at least one table")
	for i, t := range x.Tables {
		path := fmt.Sprintf("tables[%d]", i)
		f.Check(table(t.Name), path+".name", t.Name, "the name of a table: 1..40 lower-case letters, digits and underscores, and neither pg_ nor sqlite_ in front")
		f.Check(!slices.ContainsFunc(x.Tables[:i], func(o Table) bool { return o.Name == t.Name }), path+".name", t.Name, "each table once")
		within(&f, path+".rows", t.Rows, 1, maxRows)
		for _, c := range t.Indexes {
			f.Check(column(c), path+".indexes", c, columnWant)
		}
	}
	return f.Err()
}

func (v *validator) cache(x Cache) error {
	var f setting.Faults
	v.name(&f, x.Name, "cache")
	within(&f, "shards", x.Shards, 0, 256)
	within(&f, "keys", x.Keys, 0, 10_000_000)
	f.Check(x.Hot >= 0 && x.Hot <= maxHot, "hot", x.Hot, "a size up to 64MiB")
	f.Within("lookup", x.Lookup.validate())
	return f.Err()
}

func (v *validator) queue(x Queue) error {
	var f setting.Faults
	v.name(&f, x.Name, "queue")
	within(&f, "workers", x.Workers, 0, 1000)
	within(&f, "deliveries", x.Deliveries, 0, 1000)
	share(&f, "poison", x.Poison)
	f.Check(x.Service == "" || nameOK(x.Service), "service", x.Service, nameWant)
	f.Check(v.s.Service(x.withDefaults().Service) == nil, "service", x.withDefaults().Service, "a name that none of the services has: it is that of the workers")
	f.Check(x.Work != Dist{}, "work", nil, distWant)
	f.Within("work", x.Work.validate())
	return f.Err()
}

func (v *validator) load(x Load) error {
	var f setting.Faults
	f.Check(slices.Contains([]string{"", "poisson", "uniform"}, x.Arrivals), "arrivals", x.Arrivals, "poisson or uniform")
	span(&f, "warmup", x.Warmup)
	span(&f, "duration", x.Duration)
	f.Check(len(x.Routes) > 0 && len(x.Routes) <= maxServices, "routes", len(x.Routes), "at least one route")
	names := map[string]bool{}
	for i, r := range x.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		v.operation(&f, path+".to", r.To)
		name, operation, _ := strings.Cut(r.To, ".")
		f.Check(v.s.Behind(name), path+".to", r.To, "an operation of a service that stands under gateway")
		if x := v.s.Service(name); x != nil {
			f.Check(x.Protocol != GRPC, path+".to", r.To, "an operation of a service whose protocol is http, which is what clients speak")
		}
		if r.Name != "" {
			operation = r.Name
		}
		f.Check(nameOK(operation) && !names[operation], path+".name", operation, nameWant+", unique among the routes")
		names[operation] = true
		f.Check(r.Rate > 0 && r.Rate <= maxRate, path+".rate", r.Rate, "more than 0 and up to 2000 calls a second")
		within(&f, path+".keys", r.Keys, 0, 1_000_000)
		f.Check(r.Zipf >= 0 && r.Zipf <= 5, path+".zipf", r.Zipf, "0..5")
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			f.Check(headerOK(name, r.Headers[name]), path+".headers."+name, r.Headers[name], "a name and a value that may stand in the head of a request")
		}
	}
	return f.Err()
}

func headerOK(name, value string) bool {
	part := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !part(r) }) && !strings.ContainsFunc(value, control)
}

func (v *validator) fault(x Fault) error {
	var f setting.Faults
	f.Check(slices.Contains(Kinds(), x.Kind), "kind", x.Kind, "one of "+strings.Join(Kinds(), ", "))
	span(&f, "at", x.At)
	span(&f, "for", x.For)
	f.Check(x.Every == 0 || x.For > 0 && x.Every > x.For && x.Every <= maxTime, "every", x.Every, "longer than for, which must be there")
	share(&f, "share", x.Share)
	f.Check(x.Status == 0 || x.Status >= 400 && x.Status <= 599, "status", x.Status, "400..599")
	f.Within("delay", x.Delay.validate())
	switch x.Kind {
	case Delay, Errors, Blackhole, Burn, Skew, Pause, Restart, Region:
		v.target(&f, x)
	case DropIndex, Stale, LockTable:
		v.table(&f, x.Store, x.Table)
		f.Check(x.Kind != DropIndex || column(x.Column), "column", x.Column, columnWant)
	case Flush:
		f.Check(slices.ContainsFunc(v.s.Caches, func(c Cache) bool { return c.Name == x.Cache }), "cache", x.Cache, "the name of a cache")
	case Workers:
		f.Check(slices.ContainsFunc(v.s.Queues, func(q Queue) bool { return q.Name == x.Queue }), "queue", x.Queue, "the name of a queue")
		within(&f, "workers", x.Workers, 0, 1000)
	}
	f.Check(x.Kind != Delay && x.Kind != Region || x.Delay != nil && *x.Delay != Dist{}, "delay", nil, distWant)
	f.Check(x.Kind != Burn && x.Kind != Overload || x.Factor > 1 && x.Factor <= 100, "factor", x.Factor, "more than 1 and up to 100")
	f.Check(x.Kind != Skew || x.Skew != 0 && x.Skew.Abs() <= time.Hour, "skew", x.Skew, "a duration up to 1h that is not 0")
	f.Check(x.Kind != Restart || x.For > 0, "for", x.For, "how long the process is gone")
	f.Check(x.Kind != Pause || x.For > 0, "for", x.For, "how long the process stands still")
	return f.Err()
}

func (v *validator) target(f *setting.Faults, x Fault) {
	s := v.s.Service(x.Service)
	f.Check(s != nil, "service", x.Service, v.services())
	if s == nil {
		return
	}
	within(f, "replica", x.Replica, 0, max(s.Replicas, 1))
	f.Check(x.Operation == "" || s.Operation(x.Operation) != nil, "operation", x.Operation, "an operation of "+x.Service)
}

func (t Truth) validate() error {
	var f setting.Faults
	f.Check(t.Healthy || len(t.Class)+len(t.Code) > 0, "class", nil, "the class of the problem, or healthy: true")
	f.Check(!t.Healthy || len(t.Class)+len(t.Code)+len(t.Service)+len(t.Action) == 0, "healthy", true, "nothing else beside it")
	f.Check(t.Healthy || len(t.Service) > 0, "service", nil, "the service that a finding should name")
	classes, codes := causes()
	for i, x := range t.Class {
		f.Check(slices.Contains(classes, x), fmt.Sprintf("class[%d]", i), x, "one of "+strings.Join(classes, ", "))
	}
	for i, x := range t.Code {
		f.Check(slices.Contains(codes, x), fmt.Sprintf("code[%d]", i), x, "one of "+strings.Join(codes, ", "))
	}
	segments := []string{"", "client", "gateway", "service", "downstream", "cache", "database", "queue", "network"}
	f.Check(slices.Contains(segments, t.Segment), "segment", t.Segment, "one of "+strings.Join(segments, " "))
	span(&f, "p99_after", t.P99After)
	f.Check(t.ErrorsAfter >= 0 && t.ErrorsAfter <= 1, "errors_after", t.ErrorsAfter, "0%..100%")
	f.Check(t.ErrorsAfter == 0 || t.P99After > 0, "errors_after", t.ErrorsAfter, "a p99_after beside it")
	return f.Err()
}

// causes is what a truth may give as classes and as codes. A finding's own name, where it is not its class, does for a class too.
func causes() (classes, codes []string) {
	for _, x := range diagnose.Causes() {
		classes, codes = append(classes, x.Class, x.Name), append(codes, x.Code)
	}
	slices.Sort(classes)
	return slices.Compact(classes), codes
}

// cycles refuses operations that call each other in a ring: a call would never end. It reports whether there are some.
func (v *validator) cycles(f *setting.Faults) (found bool) {
	state := map[string]int{} // 1 = on the way down, 2 = done
	var visit func(to string) bool
	visit = func(to string) bool {
		if state[to] > 0 {
			return state[to] == 1
		}
		state[to] = 1
		defer func() { state[to] = 2 }()
		name, operation, _ := strings.Cut(to, ".")
		s := v.s.Service(name)
		if s == nil || s.Operation(operation) == nil {
			return false
		}
		return slices.ContainsFunc(callsOf(s.Operation(operation).Steps), visit)
	}
	for i, s := range v.s.Services {
		for k, o := range s.Operations {
			ring := visit(s.Name + "." + o.Name)
			found = found || ring
			f.Check(!ring, fmt.Sprintf("services[%d].operations[%d].steps", i, k), s.Name+"."+o.Name, "calls that do not lead back to where they began")
		}
	}
	return found
}

// fanOut refuses requests that are more than a machine can carry, which calls that make calls, each a few times, soon are.
func (v *validator) fanOut(f *setting.Faults) {
	known := map[string]float64{}
	var below func(to string) float64
	var sum func(steps []Step) float64
	sum = func(steps []Step) (n float64) {
		for _, x := range steps {
			n += sum(x.Parallel)
			switch {
			case x.Query != nil:
				n += float64(max(x.Query.Repeat, 1))
			case x.Call != nil:
				n += float64(max(x.Call.Repeat, 1)) * (1 + below(x.Call.To))
			}
		}
		return n
	}
	below = func(to string) float64 {
		n, ok := known[to]
		if name, operation, _ := strings.Cut(to, "."); !ok && v.s.Service(name) != nil {
			if o := v.s.Service(name).Operation(operation); o != nil {
				n = sum(o.Steps)
			}
			known[to] = n
		}
		return n
	}
	for i, r := range v.s.Load.Routes {
		n := below(r.To)
		f.Check(n <= maxFanOut, fmt.Sprintf("load.routes[%d].to", i), r.To, fmt.Sprintf("an operation that makes at most %d calls and statements in all; these are %.3g", maxFanOut, n))
	}
}

func callsOf(steps []Step) (to []string) {
	for _, x := range steps {
		if x.Call != nil {
			to = append(to, x.Call.To)
		}
		to = append(to, callsOf(x.Parallel)...)
	}
	return to
}

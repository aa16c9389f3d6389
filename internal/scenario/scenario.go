package scenario

import (
	"errors"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/conf"
)

// Scenario is a whole file. The zero value is not valid: it has no service and no load.
type Scenario struct {
	Name     string    `yaml:"name"`  // 1..40 lower-case letters, digits and dashes
	About    string    `yaml:"about"` // one sentence: what is wrong, and why that makes calls slow
	Services []Service `yaml:"services"`
	Stores   []Store   `yaml:"stores"`  // databases
	Caches   []Cache   `yaml:"caches"`  // remote caches that services look things up in
	Queues   []Queue   `yaml:"queues"`  // of messages, with the workers behind them
	Gateway  []Edge    `yaml:"gateway"` // the services that are called through the gateway, by clients and by other services
	Load     Load      `yaml:"load"`
	Faults   []Fault   `yaml:"faults"` // what goes wrong and when; a fault of the design needs none
	Truth    Truth     `yaml:"truth"`
}

// Service is a program with replicas, each a server of its own.
type Service struct {
	Name       string         `yaml:"name"`
	Protocol   string         `yaml:"protocol"`    // http or grpc: what its operations answer over; default http
	Replicas   int            `yaml:"replicas"`    // default 1, up to 16
	Cores      int            `yaml:"cores"`       // processors of each replica: pieces of cpu work that run at once; default 2
	Workers    int            `yaml:"workers"`     // requests that a replica works on at once; 0 = no bound
	Backlog    int            `yaml:"backlog"`     // requests that may wait for a worker; beyond it they are answered 503; 0 = no bound
	Pools      map[string]int `yaml:"pools"`       // connections of each replica to a store, by the store's name; default 20
	Link       Link           `yaml:"link"`        // the network in front of it
	External   bool           `yaml:"external"`    // somebody else's: it sends no spans
	Heap       int64          `yaml:"heap"`        // memory allocated between two collections of garbage; default 64MiB
	Pause      time.Duration  `yaml:"pause"`       // for how long a collection stops the process; default 0.5ms
	ColdCalls  int            `yaml:"cold_calls"`  // calls after a restart that do their cpu work ColdFactor times as long; default 0
	ColdFactor float64        `yaml:"cold_factor"` // default 10
	Operations []Operation    `yaml:"operations"`
}

// Link is a network path. The zero value is the loopback as it is.
type Link struct {
	Latency   time.Duration `yaml:"latency"`   // of a request and its answer together
	Bandwidth int64         `yaml:"bandwidth"` // bytes a second of the answer; 0 = no bound
}

// The protocols of a service.
const (
	HTTP = "http"
	GRPC = "grpc"
)

// Operation is one thing that a service does: GET /SERVICE/NAME, or with gRPC the method /SERVICE/NAME.
type Operation struct {
	Name      string `yaml:"name"`
	Answer    int64  `yaml:"answer"`     // bytes of the answer, their median; default 256
	AnswerP99 int64  `yaml:"answer_p99"` // their p99, lognormal; default answer: always the same
	Steps     []Step `yaml:"steps"`      // one after the other
}

// Step is one thing of these, and no more than one.
type Step struct {
	Name     string   `yaml:"name"`     // of cpu, sleep and lock: of the function, and of an INTERNAL span; "" = the time is the operation's own
	CPU      *Dist    `yaml:"cpu"`      // computes for so long, on a core of the replica
	Sleep    *Dist    `yaml:"sleep"`    // waits for something that is not computing
	Call     *Call    `yaml:"call"`     // of another service
	Parallel []Step   `yaml:"parallel"` // calls and queries, started together and all waited for
	Query    *Query   `yaml:"query"`    // of a store
	Publish  *Publish `yaml:"publish"`  // of a message
	Allocate int64    `yaml:"allocate"` // bytes of garbage
	Lock     *Lock    `yaml:"lock"`     // of the process
}

// Dist is a distribution of times, of one of three families: fixed; lognormal by median and p99; Pareto by min and alpha.
type Dist struct {
	Fixed  time.Duration `yaml:"fixed"`
	Median time.Duration `yaml:"median"`
	P99    time.Duration `yaml:"p99"` // default twice the median
	Min    time.Duration `yaml:"min"`
	Alpha  float64       `yaml:"alpha"` // 1..10; the lower, the heavier the tail
	Max    time.Duration `yaml:"max"`   // cuts the tail of a Pareto; default 100 times min
}

// Call is of an operation of another service.
type Call struct {
	To      string        `yaml:"to"`      // SERVICE.OPERATION
	Repeat  int           `yaml:"repeat"`  // so many calls, each for another key, one after the other or, within parallel, together; default 1
	Share   float64       `yaml:"share"`   // of the requests that make it; default 100%
	Retries int           `yaml:"retries"` // more attempts after a failed one, at once
	Timeout time.Duration `yaml:"timeout"` // of each attempt; default 30s
	Ignore  bool          `yaml:"ignore"`  // the request goes on when the call has failed
	Fixed   bool          `yaml:"fixed"`   // always for the same key, as what is the same for everybody
	Cache   *Lookup       `yaml:"cache"`   // nil = none
}

// Lookup asks a cache before a call or a query, and fills it after a miss.
type Lookup struct {
	In  string        `yaml:"in"`  // name of the cache
	TTL time.Duration `yaml:"ttl"` // default 1m
}

// Query is one statement.
type Query struct {
	Store  string  `yaml:"store"`
	Table  string  `yaml:"table"`
	Verb   string  `yaml:"verb"`   // select, update or insert; default select
	Where  string  `yaml:"where"`  // column that it is looked up by; default id
	Rows   int     `yaml:"rows"`   // that it gives; default 1
	Repeat int     `yaml:"repeat"` // so many statements, as with calls; default 1
	Share  float64 `yaml:"share"`  // of the requests that make it; default 100%
	Fixed  bool    `yaml:"fixed"`  // always for the same key
	Hold   *Dist   `yaml:"hold"`   // an update keeps its row locked for so long; nil = no lock
	Cache  *Lookup `yaml:"cache"`
}

// Publish sends a message and does not wait for its work.
type Publish struct {
	Queue string  `yaml:"queue"`
	Share float64 `yaml:"share"` // default 100%
}

// Lock is a mutex of the process, held for some time.
type Lock struct {
	Mutex string `yaml:"mutex"`
	Hold  Dist   `yaml:"hold"` // computing
}

// Store is a database server. Its cost is simulated: a statement that finds its rows by an index takes its base and 5 µs a
// row; one that does not takes 0.2 µs for each row of the table besides, on one of the server's cores.
type Store struct {
	Name        string  `yaml:"name"`
	System      string  `yaml:"system"`      // as in db.system.name; default postgresql
	Cores       int     `yaml:"cores"`       // default 4
	Base        *Dist   `yaml:"base"`        // of one statement with its round trip; default median 0.6ms, p99 1.5ms
	Connections int     `yaml:"connections"` // default 100
	Tables      []Table `yaml:"tables"`
}

// Table is one table of a store. It always has an index on id.
type Table struct {
	Name    string   `yaml:"name"`
	Rows    int      `yaml:"rows"`
	Indexes []string `yaml:"indexes"` // columns
	Stale   bool     `yaml:"stale"`   // its statistics are old: the planner reads it from end to end although there is an index
}

// Cache is a remote cache.
type Cache struct {
	Name   string `yaml:"name"`
	Shards int    `yaml:"shards"` // each works on one lookup at a time; a key is always on the same one; default 4
	Lookup *Dist  `yaml:"lookup"` // time of one; default median 0.3ms, p99 0.8ms
	Keys   int    `yaml:"keys"`   // it can hold; the oldest goes first; default 100000
	Hot    int64  `yaml:"hot"`    // bytes of the value of key 1, the most popular one where keys are not all alike; up to 64MiB; 0 = as small as all others
}

// Queue is a queue of messages and who works on them.
type Queue struct {
	Name       string  `yaml:"name"`
	Service    string  `yaml:"service"` // name of the workers' service in spans; default NAME-worker
	Workers    int     `yaml:"workers"` // default 4
	Work       Dist    `yaml:"work"`    // on one message
	Poison     float64 `yaml:"poison"`  // share of the messages whose work always fails
	Deliveries int     `yaml:"deliveries"`
}

// Edge is a service behind the gateway.
type Edge struct {
	Service string `yaml:"service"`
	Route   string `yaml:"route"`  // further fields of the gateway's routes to it, as text: priority, tenant, payload; "" = none
	Policy  string `yaml:"policy"` // what stands under `policy:` of a gateway's route, as text; "" = the safe defaults
}

// Load is the traffic of clients.
type Load struct {
	Routes   []Route       `yaml:"routes"`
	Arrivals string        `yaml:"arrivals"` // poisson or uniform; default poisson
	Warmup   time.Duration `yaml:"warmup"`   // before anything is measured and any fault begins; default 3s
	Duration time.Duration `yaml:"duration"` // of the measurement before, and of that after; default 12s
}

// Route is one stream of calls.
type Route struct {
	To      string            `yaml:"to"`      // SERVICE.OPERATION
	Name    string            `yaml:"name"`    // default that of the operation
	Rate    float64           `yaml:"rate"`    // calls a second
	Keys    int               `yaml:"keys"`    // different keys asked for; default 100000, so that hardly any comes twice
	Zipf    float64           `yaml:"zipf"`    // how much more popular the first keys are: weight 1/rank^zipf; 0 = all alike
	Headers map[string]string `yaml:"headers"` // of every call
}

// Fault is something that goes wrong. A time line begins with every phase of a run: what is measured before, the trial of a
// cure, what is measured after.
type Fault struct {
	Name      string        `yaml:"name"` // default its kind
	Kind      string        `yaml:"kind"` // one of Kinds
	At        time.Duration `yaml:"at"`   // from the beginning of the phase
	For       time.Duration `yaml:"for"`  // 0 = to its end
	Every     time.Duration `yaml:"every"`
	Service   string        `yaml:"service"`
	Replica   int           `yaml:"replica"`   // counted from 1; 0 = all
	Operation string        `yaml:"operation"` // "" = all
	Share     float64       `yaml:"share"`     // of the calls that are hit; default 100%
	Delay     *Dist         `yaml:"delay"`     // of delay and region
	Status    int           `yaml:"status"`    // of error; default 500
	Factor    float64       `yaml:"factor"`    // of burn: cpu work takes so many times as long; of overload: the load is so many times as high
	Skew      time.Duration `yaml:"skew"`      // of skew: what the clock shows too much
	Store     string        `yaml:"store"`     // of index and lock
	Table     string        `yaml:"table"`     // of index, stale and lock
	Column    string        `yaml:"column"`    // of index
	Cache     string        `yaml:"cache"`     // of flush
	Queue     string        `yaml:"queue"`     // of workers
	Workers   int           `yaml:"workers"`   // of workers: how many are left
}

// Truth is what a diagnosis should find. Where several answers are right, all of them stand here.
type Truth struct {
	Healthy  bool          `yaml:"healthy" json:"healthy,omitempty"`        // nothing is wrong, and nothing should be named
	Class    []string      `yaml:"class" json:"class,omitempty"`            // of the finding
	Code     []string      `yaml:"code" json:"code,omitempty"`              // of the finding, as LP103; may be left out
	Segment  string        `yaml:"segment" json:"segment,omitempty"`        // "" = not judged
	Service  []string      `yaml:"service" json:"service,omitempty"`        // that the finding names
	Action   []string      `yaml:"action" json:"action,omitempty"`          // kinds, any of which should come first
	P99After time.Duration `yaml:"p99_after" json:"p99_after_ns,omitempty"` // bound on the first route's p99, of the calls that do not fail, once a cure of ours is in force; 0 = no cure of ours is expected

	ErrorsAfter float64 `yaml:"errors_after" json:"errors_after,omitempty"` // bound on the share of the first route's calls that fail then, refused ones included; 0 = no more than before
}

// The kinds of fault.
const (
	Delay     = "delay"     // calls take longer, by the distribution delay
	Errors    = "error"     // calls are answered with status at once
	Blackhole = "blackhole" // calls get no answer
	Burn      = "burn"      // cpu work takes factor times as long
	Skew      = "skew"      // the clock is off
	Pause     = "pause"     // the process stands still
	DropIndex = "index"     // an index is gone
	Stale     = "stale"     // a table's statistics are stale
	LockTable = "lock"      // a session keeps the rows of a table locked, and does nothing
	Flush     = "flush"     // a cache is emptied
	Restart   = "restart"   // calls are refused until its end; then the process is new and cold
	Workers   = "workers"   // a queue has other workers
	Region    = "region"    // a service is far away: its link takes longer, by the distribution delay
	Overload  = "overload"  // the load is factor times as high
)

// Kinds is every kind of fault.
func Kinds() []string {
	return []string{Delay, Errors, Blackhole, Burn, Skew, Pause, DropIndex, Stale, LockTable, Flush, Restart, Workers, Region, Overload}
}

// Read decodes a file and finds every fault in it, each with its place; the Scenario has its defaults spelt out. also are further
// checks, of a Scenario without defaults, whose faults are found as those of Validate are.
func Read(file string, data []byte, also ...func(*Scenario) error) (Scenario, error) {
	var s Scenario
	check := func(s *Scenario) error {
		faults := []error{s.Validate()}
		for _, more := range also {
			faults = append(faults, more(s))
		}
		return errors.Join(faults...)
	}
	if err := conf.Load(file, data, &s, check); err != nil {
		return Scenario{}, err
	}
	return s.WithDefaults(), nil
}

// Service finds a service by its name; nil = there is none.
func (s *Scenario) Service(name string) *Service {
	if i := slices.IndexFunc(s.Services, func(x Service) bool { return x.Name == name }); i >= 0 {
		return &s.Services[i]
	}
	return nil
}

// Store finds a store by its name; nil = there is none.
func (s *Scenario) Store(name string) *Store {
	if i := slices.IndexFunc(s.Stores, func(x Store) bool { return x.Name == name }); i >= 0 {
		return &s.Stores[i]
	}
	return nil
}

// Queue finds a queue by its name; nil = there is none.
func (s *Scenario) Queue(name string) *Queue {
	if i := slices.IndexFunc(s.Queues, func(x Queue) bool { return x.Name == name }); i >= 0 {
		return &s.Queues[i]
	}
	return nil
}

// Operation finds an operation by its name; nil = there is none.
func (s *Service) Operation(name string) *Operation {
	if i := slices.IndexFunc(s.Operations, func(x Operation) bool { return x.Name == name }); i >= 0 {
		return &s.Operations[i]
	}
	return nil
}

// Behind reports whether a service is called through the gateway.
func (s *Scenario) Behind(service string) bool {
	return slices.ContainsFunc(s.Gateway, func(e Edge) bool { return e.Service == service })
}

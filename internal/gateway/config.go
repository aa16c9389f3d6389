package gateway

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/offload"
	probes "github.com/longpole/longpole/internal/probe" // probe is a function here
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/setting"
)

// Off disables a listener where an address is expected.
const Off = "off"

// Config is the whole file. The zero value of a field means the default given there.
type Config struct {
	Listen      []Listener          `yaml:"listen"`    // where calls come in; default 127.0.0.1:8080
	Admin       string              `yaml:"admin"`     // admin API, metrics and page; "off" disables; default 127.0.0.1:9901
	Upstreams   map[string]Upstream `yaml:"upstreams"` // by name
	Routes      []Route             `yaml:"routes"`    // the first that matches a call takes it
	OTLP        OTLP                `yaml:"otlp"`
	Limits      Limits              `yaml:"limits"`
	Trust       []string            `yaml:"trust"` // addresses, or ranges such as 10.0.0.0/8, of proxies whose X-Forwarded-For, -Host and -Proto, and whose word about priority and tenant, are believed; default nobody
	Overload    Overload            `yaml:"overload"`
	Tracing     Tracing             `yaml:"tracing"`
	AccessLog   AccessLog           `yaml:"access_log"`
	Redis       *Redis              `yaml:"redis"`       // the second tier of the caches; nil = none
	Record      *Record             `yaml:"record"`      // a share of the calls is kept in files, to be sent again; nil = none
	Offload     offload.StoreConfig `yaml:"offload"`     // where routes with offload keep their jobs
	State       *store.Config       `yaml:"state"`       // where histograms, kept traces and journals outlive the process; nil = they do not
	Evidence    *probes.Config      `yaml:"evidence"`    // systems behind the services that are looked at for the diagnosis of live traffic, which only reads; nil = none
	Zipkin      string              `yaml:"zipkin"`      // address that takes spans as Zipkin's HTTP API does, usually 127.0.0.1:9411; default off
	Jaeger      string              `yaml:"jaeger"`      // address that takes spans as Jaeger's gRPC collector does, usually 127.0.0.1:14250; default off
	SLOs        []slo.Objective     `yaml:"slos"`        // what is promised of routes; with an error budget and alerts each
	Alerts      Alerts              `yaml:"alerts"`      // who is told
	Scale       []scale.Config      `yaml:"scale"`       // workloads whose replicas are recommended
	KEDA        string              `yaml:"keda"`        // address that tells Kubernetes the wanted replicas, as KEDA's external scaler, usually :9902; default off
	Judge       Judge               `yaml:"judge"`       // how rollouts are judged
	Environment staging.Config      `yaml:"environment"` // which of several environments this is, and which one must have verified a change first
	Review      review.Config       `yaml:"review"`      // when the promoted changes are reviewed, and who is told
}

// OTLP is where telemetry of the services around is received; "off" disables one.
type OTLP struct {
	GRPC string `yaml:"grpc"` // default 127.0.0.1:4317
	HTTP string `yaml:"http"` // default 127.0.0.1:4318
}

// Limits bound what a client can make the gateway hold.
type Limits struct {
	HeaderBytes   int64         `yaml:"header_bytes"`   // of one request's head; 4KiB..16MiB; default 64KiB
	ReplayBytes   int64         `yaml:"replay_bytes"`   // of a request body kept for another attempt; a longer one gets a single attempt; default 64KiB
	ReplayTotal   int64         `yaml:"replay_total"`   // of all bodies that are kept at one time; beyond it a body gets a single attempt; default 256MiB
	BodyBytes     int64         `yaml:"body_bytes"`     // of one request body; bodies are streamed; 0 = no limit
	Connections   int           `yaml:"connections"`    // of clients, at each address; more wait to be accepted; default 10000
	HeaderTimeout time.Duration `yaml:"header_timeout"` // from the first byte of a request to the end of its head; default 10s
	IdleTimeout   time.Duration `yaml:"idle_timeout"`   // of a client connection between two requests; default 2m
	StallTimeout  time.Duration `yaml:"stall_timeout"`  // longest pause of a client within a body, sending or reading; default 1m
	DrainDelay    time.Duration `yaml:"drain_delay"`    // from the wish to stop, when /readyz says no, to the end of new calls, so that load balancers can notice; default 0s
	BodyRate      int64         `yaml:"body_rate"`      // bytes a second that a body must bring on average, once StallTimeout was waited for it; default 500
	StreamIdle    time.Duration `yaml:"stream_idle"`    // longest silence, both ways, of a stream or of a connection that was switched to another protocol; default 10m
	DrainTimeout  time.Duration `yaml:"drain_timeout"`  // for calls that run when the gateway stops; default 15s
}

// Load reads a file. The error joins every fault with its place, as conf.Load does; the Config has its defaults spelt out.
func Load(file string, data []byte) (Config, error) {
	var c Config
	if err := conf.Load(file, data, &c, func(c *Config) error { return c.Validate() }); err != nil {
		return Config{}, err
	}
	return c.WithDefaults(), nil
}

// WithDefaults spells out every default, those of the policies by longpole.Config.Safe.
func (c Config) WithDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []Listener{{Address: "127.0.0.1:8080"}}
	}
	setDefault(&c.Admin, "127.0.0.1:9901")
	setDefault(&c.OTLP.GRPC, "127.0.0.1:4317")
	setDefault(&c.OTLP.HTTP, "127.0.0.1:4318")
	c.Limits = c.Limits.WithDefaults()
	c.Overload = c.Overload.WithDefaults()
	c.AccessLog = c.AccessLog.WithDefaults()
	c.Tracing = c.Tracing.WithDefaults()
	c.Offload = c.Offload.WithDefaults()
	c = c.withSignals()
	c.Environment, c.Review = c.Environment.WithDefaults(), c.Review.WithDefaults()
	if c.State != nil {
		part := c.State.WithDefaults()
		c.State = &part
	}
	if c.Redis != nil {
		part := c.Redis.WithDefaults()
		c.Redis = &part
	}
	if c.Evidence != nil {
		part := c.Evidence.WithDefaults()
		c.Evidence = &part
	}
	c.Upstreams = maps.Clone(c.Upstreams)
	for name, u := range c.Upstreams {
		u = u.WithDefaults()
		setDefault(&u.Protocol, ProtocolAuto)
		c.Upstreams[name] = u
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		c.Routes[i] = c.Routes[i].WithDefaults()
	}
	return c
}

// WithDefaults fills what is zero.
func (l Limits) WithDefaults() Limits {
	setDefault(&l.HeaderBytes, 64<<10)
	setDefault(&l.ReplayBytes, 64<<10)
	setDefault(&l.Connections, 10_000)
	setDefault(&l.HeaderTimeout, 10*time.Second)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.StallTimeout, time.Minute)
	setDefault(&l.ReplayTotal, 256<<20)
	setDefault(&l.BodyRate, 500)
	setDefault(&l.StreamIdle, 10*time.Minute)
	setDefault(&l.DrainTimeout, 15*time.Second)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	c.validateListeners(&f)
	f.Within("limits", c.Limits.Validate())
	validateTrust(&f, c.Trust)
	f.Within("overload", c.Overload.Validate())
	f.Within("access_log", c.AccessLog.Validate())
	f.Within("tracing", c.Tracing.Validate())
	c.validateRecord(&f)
	c.validateRedis(&f)
	f.Check(len(c.Upstreams) > 0, "upstreams", nil, "at least one upstream")
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		path := "upstreams." + name
		f.Check(nameOK(name), path, name, "a name of 1..64 letters, digits and -_. characters")
		f.Within(path, c.Upstreams[name].Validate())
	}
	f.Check(len(c.Routes) > 0, "routes", nil, "at least one route")
	c.validateRoutes(&f)
	c.validateOffload(&f)
	c.validateSignals(&f)
	f.Within("environment", c.Environment.Validate())
	f.Within("review", c.Review.Validate())
	if c.State != nil {
		f.Within("state", c.State.Validate())
	}
	if c.Evidence != nil {
		f.Within("evidence", c.Evidence.Validate())
	}
	return f.Err()
}

func nameOK(name string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool { return !ok(r) })
}

// Validate returns every fault of l, joined; each is a *setting.Error.
func (l Limits) Validate() error {
	var f setting.Faults
	f.Check(l.HeaderBytes == 0 || l.HeaderBytes >= 4<<10 && l.HeaderBytes <= 16<<20, "header_bytes", l.HeaderBytes, "4KiB..16MiB")
	f.Check(l.ReplayBytes >= 0 && l.ReplayBytes <= 64<<20, "replay_bytes", l.ReplayBytes, "0..64MiB")
	f.Check(l.BodyBytes >= 0, "body_bytes", l.BodyBytes, "a size that is not negative")
	f.Check(l.Connections >= 0 && l.Connections <= 1<<20, "connections", l.Connections, "1..1048576")
	f.Check(l.HeaderTimeout >= 0, "header_timeout", l.HeaderTimeout, "a duration that is not negative")
	f.Check(l.IdleTimeout >= 0, "idle_timeout", l.IdleTimeout, "a duration that is not negative")
	f.Check(l.StallTimeout >= 0, "stall_timeout", l.StallTimeout, "a duration that is not negative")
	f.Check(l.DrainDelay >= 0, "drain_delay", l.DrainDelay, "a duration that is not negative")
	f.Check(l.ReplayTotal >= 0, "replay_total", l.ReplayTotal, "a size that is not negative")
	f.Check(l.BodyRate >= 0 && l.BodyRate <= 1<<30, "body_rate", l.BodyRate, "0..1GiB")
	f.Check(l.StreamIdle >= 0, "stream_idle", l.StreamIdle, "a duration that is not negative")
	f.Check(l.DrainTimeout >= 0, "drain_timeout", l.DrainTimeout, "a duration that is not negative")
	return f.Err()
}

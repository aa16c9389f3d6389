package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/setting"
)

// Off disables a listener where an address is expected.
const Off = "off"

// Config is the whole file. The zero value of a field means the default given there.
type Config struct {
	Listen    []Listener          `yaml:"listen"`    // where calls come in; default 127.0.0.1:8080
	Admin     string              `yaml:"admin"`     // admin API, metrics and page; "off" disables; default 127.0.0.1:9901
	Upstreams map[string]Upstream `yaml:"upstreams"` // by name
	Routes    []Route             `yaml:"routes"`    // the first that matches a call takes it
	OTLP      OTLP                `yaml:"otlp"`
	Limits    Limits              `yaml:"limits"`
}

// Listener is one address that accepts calls. In a file its address alone may stand for it.
type Listener struct {
	Address string `yaml:"address"` // host:port; port 0 = any free one
	TLS     *TLS   `yaml:"tls"`     // nil = in the clear
}

// UnmarshalText reads an address alone.
func (l *Listener) UnmarshalText(text []byte) error {
	*l = Listener{Address: string(text)}
	return nil
}

// TLS names the files of a certificate chain and its key, both PEM. They are read again on each reload.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Upstream is a set of endpoints that give the same answers.
type Upstream struct {
	Endpoints   []string             `yaml:"endpoints"`    // URLs: http://host:port, with a path that is put before the call's
	Health      balance.HealthConfig `yaml:"health"`       // active checks; none without a path
	RewriteHost bool                 `yaml:"rewrite_host"` // true = Host is the endpoint's; default: the client's
}

// Route sends the calls that match to an upstream under a policy.
type Route struct {
	Name     string          `yaml:"name"` // names the route everywhere; unique, up to 64 characters
	Match    Match           `yaml:"match"`
	Upstream string          `yaml:"upstream"`
	Policy   longpole.Config `yaml:"policy"` // {} = longpole.Config.Safe
}

// Match is what a route takes. The zero value takes every call.
type Match struct {
	Host   string   `yaml:"host" json:"host,omitempty"`     // without port; *.example.com takes every host below it; "" = any
	Path   string   `yaml:"path" json:"path,omitempty"`     // prefix that ends where a segment does: /api takes /api and /api/x, not /apis; default /
	Method []string `yaml:"method" json:"method,omitempty"` // in capitals; one or several; none = any
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
	BodyBytes     int64         `yaml:"body_bytes"`     // of one request body; bodies are streamed; 0 = no limit
	Connections   int           `yaml:"connections"`    // of clients, at each address; more wait to be accepted; default 10000
	HeaderTimeout time.Duration `yaml:"header_timeout"` // from the first byte of a request to the end of its head; default 10s
	IdleTimeout   time.Duration `yaml:"idle_timeout"`   // of a client connection between two requests; default 2m
	StallTimeout  time.Duration `yaml:"stall_timeout"`  // longest pause of a client within a body, sending or reading; default 1m
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
	c.Upstreams = maps.Clone(c.Upstreams)
	for name, u := range c.Upstreams {
		u.Health = u.Health.WithDefaults()
		c.Upstreams[name] = u
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		setDefault(&c.Routes[i].Match.Path, "/")
		c.Routes[i].Policy = c.Routes[i].Policy.Safe()
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
	f.Check(len(c.Upstreams) > 0, "upstreams", nil, "at least one upstream")
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		path := "upstreams." + name
		f.Check(nameOK(name), path, name, "a name of 1..64 letters, digits and -_. characters")
		f.Within(path, c.Upstreams[name].Validate())
	}
	f.Check(len(c.Routes) > 0, "routes", nil, "at least one route")
	c.validateRoutes(&f)
	return f.Err()
}

func (c Config) validateListeners(f *setting.Faults) {
	seen := make(map[string]string)
	check := func(path, address string) {
		if address == "" || address == Off {
			return
		}
		_, port, err := net.SplitHostPort(address)
		f.Check(err == nil && portOK(port), path, address, "host:port")
		first, taken := seen[address]
		f.Check(!taken || port == "0", path, address, "an address that "+first+" does not use")
		seen[address] = path
	}
	for i, l := range c.Listen {
		path := fmt.Sprintf("listen[%d]", i)
		f.Check(l.Address != "" && l.Address != Off, path+".address", l.Address, "host:port")
		check(path+".address", l.Address)
		if l.TLS != nil {
			f.Check(l.TLS.Cert != "", path+".tls.cert", nil, "the file of a certificate")
			f.Check(l.TLS.Key != "", path+".tls.key", nil, "the file of its key")
		}
	}
	check("admin", c.Admin)
	check("otlp.grpc", c.OTLP.GRPC)
	check("otlp.http", c.OTLP.HTTP)
}

func portOK(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n < 1<<16
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
	f.Check(l.DrainTimeout >= 0, "drain_timeout", l.DrainTimeout, "a duration that is not negative")
	return f.Err()
}

// Validate returns every fault of u, joined; each is a *setting.Error.
func (u Upstream) Validate() error {
	var f setting.Faults
	f.Check(len(u.Endpoints) > 0, "endpoints", nil, "at least one URL")
	seen := make(map[string]bool)
	for i, raw := range u.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		e, err := parseEndpoint(raw)
		if err != nil {
			f.Check(false, path, raw, err.Error())
			continue
		}
		f.Check(!seen[e.name], path, raw, "an endpoint that is not listed before")
		seen[e.name] = true
	}
	f.Within("health", u.Health.Validate())
	return f.Err()
}

// location is an endpoint as its URL describes it.
type location struct {
	name string // host:port and path; unique within its upstream
	url  *url.URL
	host string
	port string
}

func parseEndpoint(raw string) (location, error) {
	const want = "a URL such as http://127.0.0.1:9001"
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "" {
		return location{}, errors.New(want)
	}
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return location{}, fmt.Errorf("the scheme http or https")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return location{}, fmt.Errorf("%s, without user, query or fragment", want)
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	if !portOK(port) || port == "0" {
		return location{}, fmt.Errorf("a port of 1..65535")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	host := strings.ToLower(u.Hostname())
	return location{name: net.JoinHostPort(host, port) + u.EscapedPath(), url: u, host: host, port: port}, nil
}

func (c Config) validateRoutes(f *setting.Faults) {
	names := make(map[string]int)
	for i, r := range c.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		f.Check(nameOK(r.Name), path+".name", r.Name, "a name of 1..64 letters, digits and -_./ characters")
		first, taken := names[r.Name]
		f.Check(!taken || r.Name == "", path+".name", r.Name, fmt.Sprintf("a name that routes[%d] does not have", first))
		if !taken {
			names[r.Name] = i
		}
		_, known := c.Upstreams[r.Upstream]
		f.Check(known, path+".upstream", r.Upstream, "one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
		f.Within(path+".match", r.Match.Validate())
		for j, earlier := range c.Routes[:i] {
			if earlier.Match.covers(r.Match) {
				f.Check(false, path+".match", r.Match.String(), fmt.Sprintf("a match that routes[%d] (%s) does not take whole before it", j, earlier.Name))
				break
			}
		}
		// With the defaults that will be in force: they, too, must fit what stands in the file.
		effective := r.Policy.Safe()
		f.Within(path+".policy", effective.Validate())
		f.Within(path+".policy", contradictions(effective))
		if b := effective.Fallback; b != nil && b.Upstream != "" {
			_, known := c.Upstreams[b.Upstream]
			f.Check(known && b.Upstream != r.Upstream, path+".policy.fallback.upstream", b.Upstream, "another one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
		}
	}
}

// contradictions finds settings that are right alone but cannot work together. p has its defaults spelt out.
func contradictions(p longpole.Config) error {
	var f setting.Faults
	if p.Retry == nil || p.Retry.Hedge == nil {
		return nil
	}
	limit, name := p.Timeout, "timeout"
	if p.TryTimeout > 0 {
		limit, name = p.TryTimeout, "try_timeout"
	}
	after := p.Retry.Hedge.After
	f.Check(limit == 0 || after < limit, "retry.hedge.after", after, "less than "+name+" ("+limit.String()+"), or no copy is ever sent")
	f.Check(p.Retry.MaxAttempts != 1, "retry.max_attempts", p.Retry.MaxAttempts, "2..10, because a hedge is an attempt")
	f.Check(!p.Retry.Off, "retry.off", p.Retry.Off, "false, because hedge needs retry")
	return f.Err()
}

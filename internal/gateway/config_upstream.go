package gateway

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/discover"
	"github.com/longpole/longpole/setting"
)

// Upstream is a set of endpoints that give the same answers.
type Upstream struct {
	Endpoints   []Endpoint           `yaml:"endpoints"`    // with Discover only those to begin with, until the first set is found
	Discover    *discover.Config     `yaml:"discover"`     // where endpoints are found; nil = they are those of Endpoints
	Health      balance.HealthConfig `yaml:"health"`       // active checks; none without a path
	Protocol    string               `yaml:"protocol"`     // auto, http1, h2 (over TLS) or h2c (in the clear); default auto
	TLS         *certs.ClientConfig  `yaml:"tls"`          // towards https endpoints; nil = verified by the system's roots
	Probe       Probe                `yaml:"probe"`        // how endpoints are asked for their load; used when a route balances by prequal
	RewriteHost bool                 `yaml:"rewrite_host"` // true = Host is the endpoint's; default: the client's
}

// Endpoint is one place of an upstream, with its weight and its zone. In a file its URL alone may stand for it.
type Endpoint = discover.Endpoint

// Probe is how an endpoint is asked for its load: by GET, to be answered with the field X-Server-Load ("rif=3,
// latency-us=1250"), as httppolicy.Handler does. The same field is read from ordinary answers.
type Probe struct {
	Path string `yaml:"path"` // default /.well-known/server-load
}

// WithDefaults fills what is zero. It shares nothing with u.
func (u Upstream) WithDefaults() Upstream {
	u.Health = u.Health.WithDefaults()
	if u.Discover != nil {
		d := u.Discover.WithDefaults()
		u.Discover = &d
	}
	return u
}

// Validate returns every fault of u, joined; each is a *setting.Error.
func (u Upstream) Validate() error {
	var f setting.Faults
	f.Check(len(u.Endpoints) > 0 || u.Discover != nil, "endpoints", nil, "at least one URL, or discover")
	f.Check(len(u.Endpoints) <= discover.MaxEndpoints, "endpoints", len(u.Endpoints), fmt.Sprintf("at most %d", discover.MaxEndpoints))
	seen := make(map[string]bool)
	secure := u.Discover != nil
	for i, e := range u.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		f.Within(path, e.Validate())
		at, err := parseEndpoint(e.URL)
		if err != nil {
			continue
		}
		path += ".url"
		secure = secure || at.url.Scheme == "https"
		f.Check(u.Protocol != ProtocolH2 || at.url.Scheme == "https", path, e.URL, "the scheme https, because protocol is h2")
		f.Check(u.Protocol != ProtocolH2C || at.url.Scheme == "http", path, e.URL, "the scheme http, because protocol is h2c")
		f.Check(!seen[at.name], path, e.URL, "an endpoint that is not listed before")
		seen[at.name] = true
	}
	f.Check(u.Protocol == "" || slices.Contains([]string{ProtocolAuto, ProtocolHTTP1, ProtocolH2, ProtocolH2C}, u.Protocol),
		"protocol", u.Protocol, "auto, http1, h2 or h2c")
	f.Within("health", u.Health.Validate())
	f.Check(u.Probe.Path == "" || strings.HasPrefix(u.Probe.Path, "/"), "probe.path", u.Probe.Path, "a path that starts with /")
	if u.Discover != nil {
		f.Within("discover", u.Discover.Validate())
	}
	if u.TLS != nil {
		f.Within("tls", u.TLS.Validate())
		f.Check(secure, "tls", "a setting", "none, as no endpoint has the scheme https")
	}
	return f.Err()
}

// client is the TLS settings in force: a name that was resolved to addresses is the one to verify. nil = the defaults.
func (u Upstream) client() *certs.ClientConfig {
	var c certs.ClientConfig
	if u.TLS != nil {
		c = *u.TLS
	}
	if d := u.Discover; c.ServerName == "" && d != nil && d.DNS != nil && d.DNS.Scheme == "https" && d.DNS.Type == discover.Addresses {
		c.ServerName = strings.TrimSuffix(d.DNS.Name, ".")
	}
	if c == (certs.ClientConfig{}) {
		return nil
	}
	return &c
}

// location is an endpoint as its URL describes it.
type location struct {
	name string // host:port and path; unique within its upstream
	url  *url.URL
	host string
	port string
}

func parseEndpoint(raw string) (location, error) {
	l, err := discover.Locate(raw)
	return location{name: l.Name, url: l.URL, host: l.Host, port: l.Port}, err
}

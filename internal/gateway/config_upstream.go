package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/setting"
)

// Upstream is a set of endpoints that give the same answers.
type Upstream struct {
	Endpoints   []string             `yaml:"endpoints"`    // URLs: http://host:port, with a path that is put before the call's
	Health      balance.HealthConfig `yaml:"health"`       // active checks; none without a path
	RewriteHost bool                 `yaml:"rewrite_host"` // true = Host is the endpoint's; default: the client's
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

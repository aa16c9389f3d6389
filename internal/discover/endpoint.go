package discover

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Endpoint is one place that serves an upstream. In a file its URL alone may stand for it.
type Endpoint struct {
	URL    string  `yaml:"url"`    // http://host:port, with a path that is put before the call's
	Weight float64 `yaml:"weight"` // its capacity relative to the others'; 0 = 1; at most 1000000
	Zone   string  `yaml:"zone"`   // where it runs; "" = unknown
}

// UnmarshalText reads a URL alone.
func (e *Endpoint) UnmarshalText(text []byte) error {
	*e = Endpoint{URL: string(text)}
	return nil
}

// Validate returns every fault of e, joined; each is a *setting.Error.
func (e Endpoint) Validate() error {
	var f setting.Faults
	if _, err := Locate(e.URL); err != nil {
		f.Check(false, "url", e.URL, err.Error())
	}
	f.Check(e.Weight >= 0 && e.Weight <= 1e6, "weight", e.Weight, "above 0, at most 1000000")
	f.Check(len(e.Zone) <= 63, "zone", e.Zone, "at most 63 characters")
	return f.Err()
}

// Location is an endpoint as its URL describes it.
type Location struct {
	Name string // host:port and path; unique within an upstream
	URL  *url.URL
	Host string
	Port string
}

// Locate reads the URL of an endpoint. The error says what is wanted.
func Locate(raw string) (Location, error) {
	const want = "a URL such as http://127.0.0.1:9001"
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "" {
		return Location{}, errors.New(want)
	}
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return Location{}, fmt.Errorf("the scheme http or https")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Location{}, fmt.Errorf("%s, without user, query or fragment", want)
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Location{}, fmt.Errorf("a port of 1..65535")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	host := strings.ToLower(u.Hostname())
	return Location{Name: net.JoinHostPort(host, port) + u.EscapedPath(), URL: u, Host: host, Port: port}, nil
}

// settle puts a set in its order and drops doubles and what exceeds MaxEndpoints, so that equal sets look equal.
func settle(set []Endpoint) (settled []Endpoint, dropped int) {
	set = slices.Clone(set)
	for i := range set {
		if !(set[i].Weight > 0) || math.IsInf(set[i].Weight, 1) {
			set[i].Weight = 1
		}
	}
	slices.SortStableFunc(set, func(a, b Endpoint) int { return cmp.Compare(a.URL, b.URL) })
	set = slices.CompactFunc(set, func(a, b Endpoint) bool { return a.URL == b.URL })
	if len(set) > MaxEndpoints {
		set, dropped = set[:MaxEndpoints], len(set)-MaxEndpoints
	}
	return set, dropped
}

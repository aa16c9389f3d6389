package discover

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/longpole/longpole/setting"
)

// MaxEndpoints bounds a set.
const MaxEndpoints = 4096

// Config says where the endpoints of one upstream are found. Exactly one of DNS, File and Kubernetes is set.
type Config struct {
	DNS        *DNS        `yaml:"dns"`
	File       *File       `yaml:"file"`
	Kubernetes *Kubernetes `yaml:"kubernetes"`

	// KeepEmpty is how long the last set that was not empty stays in force when the source says that there are no endpoints;
	// default 1m; 1ns believes it at once.
	KeepEmpty time.Duration `yaml:"keep_empty"`
}

// The kinds of DNS.Type.
const (
	Addresses = "a"   // A and AAAA: all addresses of a host, at DNS.Port
	Services  = "srv" // SRV: hosts, ports, priorities and weights (RFC 2782)
)

// The values of DNS.Family.
const (
	familyIPv4 = "ipv4"
	familyIPv6 = "ipv6"
	familyAll  = "all"
)

// DNS asks a name server, again and again as the answers expire.
type DNS struct {
	Name       string        `yaml:"name"`       // of a host, or of a service as _http._tcp.orders.example.com; relative to resolv.conf's search list unless it ends with a dot or Nameserver is set
	Type       string        `yaml:"type"`       // Addresses or Services; default by Name: Services when it starts with _
	Port       int           `yaml:"port"`       // of Addresses; default 80, or 443 with https
	Family     string        `yaml:"family"`     // ipv4, ipv6, or all; default ipv4, and ipv6 for a host that has no such address
	Scheme     string        `yaml:"scheme"`     // http or https; default http. With https the certificate must be for the name, see the upstream's tls.server_name
	Nameserver string        `yaml:"nameserver"` // host:port; default those of /etc/resolv.conf, one after the other
	MinTTL     time.Duration `yaml:"min_ttl"`    // an answer holds at least so long, whatever it says; at least 1s; default 1s
	MaxTTL     time.Duration `yaml:"max_ttl"`    // and at most; default 5m
}

// File watches a file with a YAML or JSON list of endpoints, each a URL or {url, weight, zone}. It polls: a mounted
// ConfigMap is replaced through links, which file notifications miss.
type File struct {
	Path     string        `yaml:"path"`
	Interval time.Duration `yaml:"interval"` // between two looks; at least 100ms; default 1s
}

// Kubernetes watches the EndpointSlices (discovery.k8s.io/v1) of one Service by the API server. It needs the verbs list
// and watch on endpointslices in that namespace.
type Kubernetes struct {
	Service   string `yaml:"service"`
	Namespace string `yaml:"namespace"`  // default the pod's own
	Port      string `yaml:"port"`       // name or number of the Service's port, as the slices spell it; default the first one
	Scheme    string `yaml:"scheme"`     // http or https; default http
	Server    string `yaml:"server"`     // URL of the API server; default that of the pod's environment
	TokenFile string `yaml:"token_file"` // read again for each request; default the pod's
	CAFile    string `yaml:"ca_file"`    // who signs the API server's certificate; default the pod's
}

// WithDefaults fills what is zero. It shares nothing with c.
func (c Config) WithDefaults() Config {
	fill(&c.KeepEmpty, time.Minute)
	if c.DNS != nil {
		d := *c.DNS
		fill(&d.Type, Addresses)
		if strings.HasPrefix(d.Name, "_") && c.DNS.Type == "" {
			d.Type = Services
		}
		fill(&d.Scheme, "http")
		if d.Type == Addresses {
			fill(&d.Port, map[string]int{"http": 80, "https": 443}[d.Scheme])
		}
		fill(&d.MinTTL, time.Second)
		fill(&d.MaxTTL, max(5*time.Minute, d.MinTTL))
		c.DNS = &d
	}
	if c.File != nil {
		f := *c.File
		fill(&f.Interval, time.Second)
		c.File = &f
	}
	if c.Kubernetes != nil {
		k := *c.Kubernetes
		fill(&k.Scheme, "http")
		fill(&k.TokenFile, podDir+"token")
		fill(&k.CAFile, podDir+"ca.crt")
		c.Kubernetes = &k
	}
	return c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	n := 0
	for _, set := range []bool{c.DNS != nil, c.File != nil, c.Kubernetes != nil} {
		if set {
			n++
		}
	}
	f.Check(n == 1, "", fmt.Sprintf("%d sources", n), "exactly one of dns, file and kubernetes")
	f.Check(c.KeepEmpty >= 0, "keep_empty", c.KeepEmpty, "a duration that is not negative")
	if c.DNS != nil {
		f.Within("dns", c.DNS.validate())
	}
	if c.File != nil {
		f.Check(c.File.Path != "", "file.path", nil, "a file with a list of endpoints")
		f.Check(c.File.Interval == 0 || c.File.Interval >= 100*time.Millisecond, "file.interval", c.File.Interval, "at least 100ms")
	}
	if c.Kubernetes != nil {
		f.Within("kubernetes", c.Kubernetes.validate())
	}
	return f.Err()
}

func (d DNS) validate() error {
	var f setting.Faults
	_, ok := dns.IsDomainName(d.Name)
	f.Check(d.Name != "" && ok && !strings.ContainsAny(d.Name, " \\\"();@*"), "name", d.Name, "a DNS name")
	f.Check(d.Type == "" || d.Type == Addresses || d.Type == Services, "type", d.Type, "a or srv")
	f.Check(d.Port >= 0 && d.Port < 1<<16, "port", d.Port, "1..65535")
	f.Check(d.Port == 0 || d.Type != Services && (d.Type != "" || !strings.HasPrefix(d.Name, "_")), "port", d.Port, "none, as SRV records tell it")
	f.Check(slices.Contains([]string{"", familyIPv4, familyIPv6, familyAll}, d.Family), "family", d.Family, "ipv4, ipv6 or all")
	f.Check(schemeOK(d.Scheme), "scheme", d.Scheme, "http or https")
	if d.Nameserver != "" {
		host, port, err := net.SplitHostPort(d.Nameserver)
		f.Check(err == nil && host != "" && port != "", "nameserver", d.Nameserver, "host:port")
	}
	f.Check(d.MinTTL == 0 || d.MinTTL >= time.Second, "min_ttl", d.MinTTL, "at least 1s")
	f.Check(d.MaxTTL == 0 || d.MaxTTL >= max(time.Second, d.MinTTL), "max_ttl", d.MaxTTL, "at least min_ttl")
	return f.Err()
}

func (k Kubernetes) validate() error {
	var f setting.Faults
	f.Check(labelOK(k.Service), "service", k.Service, "the name of a Service")
	f.Check(k.Namespace == "" || labelOK(k.Namespace), "namespace", k.Namespace, "the name of a namespace")
	f.Check(len(k.Port) <= 63, "port", k.Port, "a name or a number")
	f.Check(schemeOK(k.Scheme), "scheme", k.Scheme, "http or https")
	f.Check(k.Server == "" || strings.HasPrefix(k.Server, "https://") || strings.HasPrefix(k.Server, "http://"), "server", k.Server, "a URL")
	return f.Err()
}

func schemeOK(s string) bool { return s == "" || s == "http" || s == "https" }

// labelOK holds a name to what Kubernetes takes (RFC 1123 labels).
func labelOK(s string) bool {
	ok := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

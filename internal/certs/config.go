package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Bounds of one configuration.
const (
	MaxCertificates = 1000 // of one listener
	MaxHosts        = 100  // of one ACME account
)

// What a client must show, see ServerConfig.ClientAuth.
const (
	Require  = "require"  // a connection without a certificate that ClientCA verifies is refused; the default
	Optional = "optional" // a client may show none; one that does not verify is refused
)

// The challenges of ACME.Challenge.
const (
	HTTP01    = "http-01"     // RFC 8555 section 8.3, answered by any listener in the clear; the CA asks at port 80
	TLSALPN01 = "tls-alpn-01" // RFC 8737, answered by the listener itself; the CA asks at port 443
)

// LetsEncrypt is the directory that is asked unless another one is named.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Version is the lowest version of TLS: "1.2" or "1.3" in a file. Zero is 1.2, below which nothing is spoken.
type Version uint16

// UnmarshalText reads "1.2" or "1.3".
func (v *Version) UnmarshalText(text []byte) error {
	switch string(text) {
	case "1.2":
		*v = tls.VersionTLS12
	case "1.3":
		*v = tls.VersionTLS13
	default:
		return errors.New("want 1.2 or 1.3")
	}
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (v Version) MarshalText() ([]byte, error) {
	if v == tls.VersionTLS13 {
		return []byte("1.3"), nil
	}
	return []byte("1.2"), nil
}

func (v Version) number() uint16 { return max(uint16(v), tls.VersionTLS12) }

// ServerConfig is what a listener shows and whom it believes. All files are PEM; they are read again when they change.
// At least one certificate or ACME is needed.
type ServerConfig struct {
	Cert         string  `yaml:"cert"`         // a certificate with its chain
	Key          string  `yaml:"key"`          // its private key
	Certificates []Pair  `yaml:"certificates"` // further ones, or all; the first of all is shown when none has the name that the client asks for
	ACME         *ACME   `yaml:"acme"`         // certificates that are ordered and renewed; nil = none
	ClientCA     string  `yaml:"client_ca"`    // who signs the clients' certificates; "" = clients are not asked for one
	ClientAuth   string  `yaml:"client_auth"`  // Require or Optional; default Require; only with ClientCA
	MinVersion   Version `yaml:"min_version"`  // default 1.2
}

// Pair names the files of a certificate chain and its key.
type Pair struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// ACME orders certificates from a CA that speaks RFC 8555, keeps them in a directory, and renews them when about a third
// of their life is left, or when the CA says so (RFC 9773). To set it means to agree to the terms of that CA.
type ACME struct {
	Hosts     []string `yaml:"hosts"`     // the names to order for, one certificate each; 1..100, no wildcards
	Email     string   `yaml:"email"`     // where the CA writes to; "" = nowhere
	Directory string   `yaml:"directory"` // URL of the CA; default LetsEncrypt
	Storage   string   `yaml:"storage"`   // directory of accounts, keys and certificates; gateways that share it share them
	Root      string   `yaml:"root"`      // file of the root that signs the directory's own certificate; "" = the system's
	Challenge string   `yaml:"challenge"` // HTTP01 or TLSALPN01; "" = both, one after the other
}

// pairs is all certificates that are files, Cert and Key first, each with the path of its setting.
func (c ServerConfig) pairs() (list []Pair, paths []string) {
	if c.Cert != "" || c.Key != "" {
		list, paths = append(list, Pair{c.Cert, c.Key}), append(paths, "")
	}
	for i, p := range c.Certificates {
		list, paths = append(list, p), append(paths, fmt.Sprintf("certificates[%d].", i))
	}
	return list, paths
}

// Validate returns every fault of c that shows without reading a file, joined; each is a *setting.Error.
func (c ServerConfig) Validate() error {
	var f setting.Faults
	list, paths := c.pairs()
	for i, p := range list {
		f.Check(p.Cert != "", paths[i]+"cert", nil, "the file of a certificate")
		f.Check(p.Key != "", paths[i]+"key", nil, "the file of its key")
	}
	if len(list) == 0 && c.ACME == nil {
		f.Check(false, "cert", nil, "the file of a certificate, or acme")
		f.Check(false, "key", nil, "the file of its key")
	}
	f.Check(len(list) <= MaxCertificates, "certificates", len(list), fmt.Sprintf("at most %d", MaxCertificates))
	switch c.ClientAuth {
	case "", Require, Optional:
	default:
		f.Check(false, "client_auth", c.ClientAuth, "require or optional")
	}
	f.Check(c.ClientAuth == "" || c.ClientCA != "", "client_auth", c.ClientAuth, "client_ca beside it")
	f.Check(versionOK(c.MinVersion), "min_version", uint16(c.MinVersion), "1.2 or 1.3")
	if c.ACME != nil {
		f.Within("acme", c.ACME.Validate())
	}
	return f.Err()
}

func versionOK(v Version) bool { return v == 0 || v == tls.VersionTLS12 || v == tls.VersionTLS13 }

// Validate returns every fault of a, joined; each is a *setting.Error.
func (a ACME) Validate() error {
	var f setting.Faults
	f.Check(len(a.Hosts) > 0 && len(a.Hosts) <= MaxHosts, "hosts", len(a.Hosts), fmt.Sprintf("1..%d names", MaxHosts))
	for i, h := range a.Hosts {
		path := fmt.Sprintf("hosts[%d]", i)
		f.Check(hostOK(h), path, h, "a DNS name without wildcards, in lower case")
		f.Check(!slices.Contains(a.Hosts[:i], h), path, h, "a host that is not listed before")
	}
	if a.Email != "" {
		at, err := mail.ParseAddress(a.Email)
		f.Check(err == nil && at.Address == a.Email, "email", a.Email, "an address such as ops@example.com")
	}
	if a.Directory != "" {
		u, err := url.Parse(a.Directory)
		f.Check(err == nil && u.Scheme == "https" && u.Host != "", "directory", a.Directory, "an https URL")
	}
	f.Check(a.Storage != "", "storage", nil, "a directory that outlives the process")
	switch a.Challenge {
	case "", HTTP01, TLSALPN01:
	default:
		f.Check(false, "challenge", a.Challenge, "http-01 or tls-alpn-01")
	}
	return f.Err()
}

// hostOK holds a name to RFC 1123 section 2.1, with underscores refused as public CAs do.
func hostOK(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
			return false
		}
	}
	return true
}

// ClientConfig is TLS towards the https endpoints of an upstream. The zero value verifies them against the system's roots
// by the host of their URL, and shows no certificate. All files are PEM; they are read again when they change.
type ClientConfig struct {
	CA         string  `yaml:"ca"`          // who signs the endpoints' certificates; "" = the system's roots
	Cert       string  `yaml:"cert"`        // shown to endpoints that ask; "" = none
	Key        string  `yaml:"key"`         // its private key
	ServerName string  `yaml:"server_name"` // asked for, and verified, in place of the host of the URL
	MinVersion Version `yaml:"min_version"` // default 1.2

	// InsecureSkipVerify believes every certificate, so that anybody on the way can read and change all. It is for a
	// test, and each start with it is warned of.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Validate returns every fault of c that shows without reading a file, joined; each is a *setting.Error.
func (c ClientConfig) Validate() error {
	var f setting.Faults
	f.Check(c.Cert == "" || c.Key != "", "key", nil, "the file of the key of cert")
	f.Check(c.Key == "" || c.Cert != "", "cert", nil, "the file of the certificate of key")
	f.Check(c.CA == "" || !c.InsecureSkipVerify, "insecure_skip_verify", true, "no ca beside it, as nothing is verified")
	f.Check(len(c.ServerName) <= 253 && !strings.ContainsAny(c.ServerName, " /:*"), "server_name", c.ServerName, "a host name")
	f.Check(versionOK(c.MinVersion), "min_version", uint16(c.MinVersion), "1.2 or 1.3")
	return f.Err()
}

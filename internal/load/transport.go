package load

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/setting"
)

// Protocol is how calls travel.
type Protocol string

// The protocols. Targets of gRPC need one of HTTP/2.
const (
	HTTP1 Protocol = "http1" // HTTP/1.1, over TLS for https URLs
	HTTP2 Protocol = "http2" // HTTP/2 over TLS, by ALPN
	H2C   Protocol = "h2c"   // HTTP/2 in clear text, without asking first
)

// TLS is how the server is known and what it is shown. The zero value trusts the system's authorities.
type TLS struct {
	CAFile     string `yaml:"ca_file"`     // PEM; trusted instead of the system's authorities
	CertFile   string `yaml:"cert_file"`   // PEM; shown to the server, with KeyFile
	KeyFile    string `yaml:"key_file"`    // PEM
	ServerName string `yaml:"server_name"` // "" = the host of the URL
	Insecure   bool   `yaml:"insecure"`    // do not verify the server
}

// config reads the files.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.Insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // asked for by name
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("load: tls: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load: tls: %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load: tls: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// TransportConfig is how a Client reaches its servers.
type TransportConfig struct {
	Protocol    Protocol // "" = HTTP1
	Connections int      // for each server; 0 = as many as there are calls in flight, over HTTP/2 one
	Streams     int      // calls at once on a connection of HTTP/2; 0 = 100
	NoKeepAlive bool     // a connection for each call
	MaxIdle     int      // idle connections kept when Connections is 0; 0 = 512
	TLS         TLS
	Dial        func(network, address string) (net.Conn, error) // nil = net.Dialer with a timeout of 10 s
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c TransportConfig) Validate() error {
	var f setting.Faults
	f.Check(c.Protocol == "" || c.Protocol == HTTP1 || c.Protocol == HTTP2 || c.Protocol == H2C, "protocol", c.Protocol, "http1, http2 or h2c")
	f.Check(c.Connections >= 0 && c.Connections <= 65536, "connections", c.Connections, "0 up to 65536")
	f.Check(c.Streams >= 0 && c.Streams <= 10000, "streams", c.Streams, "0 up to 10000")
	f.Check(!c.NoKeepAlive || c.Protocol == "" || c.Protocol == HTTP1, "keep_alive", false, "true with http2 and h2c, whose calls share connections")
	f.Check((c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), "tls.cert_file", c.TLS.CertFile, "both cert_file and key_file, or neither")
	return f.Err()
}

// Concurrent is how many calls can be on the wire at once: what Plan.Concurrent shall be. 0 = no bound.
func (c TransportConfig) Concurrent() int {
	switch {
	case c.Connections == 0:
		return 0
	case c.Protocol == HTTP2 || c.Protocol == H2C:
		return c.Connections * c.streams()
	}
	return c.Connections
}

func (c TransportConfig) streams() int {
	if c.Streams == 0 {
		return 100
	}
	return c.Streams
}

// Client is a transport with a fixed number of connections, or with as many as are needed. Safe for concurrent use.
type Client struct {
	transports []*http.Transport // over HTTP/2 one for each connection
	next       atomic.Uint64
}

// NewClient reads the files that c names.
func NewClient(c TransportConfig) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("load: transport: %w", err)
	}
	secure, err := c.TLS.config()
	if err != nil {
		return nil, err
	}
	n := 1
	if c.Concurrent() > c.Connections {
		n = c.Connections
	}
	client := &Client{}
	for range n {
		client.transports = append(client.transports, c.transport(secure.Clone()))
	}
	return client, nil
}

func (c TransportConfig) transport(secure *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: secure, TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives: c.NoKeepAlive, DisableCompression: true,
		MaxConnsPerHost: c.Connections, MaxIdleConnsPerHost: c.Connections, IdleConnTimeout: 90 * time.Second,
		Protocols: new(http.Protocols),
	}
	if c.Dial != nil {
		t.DialContext = nil
		t.Dial = c.Dial //nolint:staticcheck // a dialer that is given has its own idea of time
	}
	if c.Connections == 0 {
		t.MaxIdleConnsPerHost = max(c.MaxIdle, 512)
	}
	switch c.Protocol {
	case HTTP2:
		t.Protocols.SetHTTP2(true)
		t.MaxConnsPerHost, t.ForceAttemptHTTP2 = 0, true
	case H2C:
		t.Protocols.SetUnencryptedHTTP2(true)
		t.MaxConnsPerHost = 0
	default:
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// RoundTrip sends r on one of the connections, in turn.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(c.transports) == 1 {
		return c.transports[0].RoundTrip(r)
	}
	return c.transports[c.next.Add(1)%uint64(len(c.transports))].RoundTrip(r)
}

// Close closes the idle connections.
func (c *Client) Close() {
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

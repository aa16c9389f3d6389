package certs

import (
	"crypto/tls"

	"github.com/longpole/longpole/setting"
)

// Client is TLS towards an upstream. It is immutable and safe for concurrent use.
type Client struct {
	cfg         ClientConfig
	certificate *tls.Certificate // nil = none is shown
	files       files
	session     *tls.Config
}

// NewClient reads the files of c, which must be valid. The error joins every fault; each is a *setting.Error.
func NewClient(c ClientConfig) (*Client, error) {
	var f setting.Faults
	x := &Client{cfg: c}
	x.session = &tls.Config{
		MinVersion:         c.MinVersion.number(),
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.InsecureSkipVerify, // spelled out by the operator, and warned of
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if c.CA != "" {
		x.session.RootCAs = x.files.pool(c.CA, "ca", &f)
	}
	if c.Cert != "" {
		if cert, ok := x.files.pair(Pair{c.Cert, c.Key}, "", &f); ok {
			x.certificate = cert
			x.session.Certificates = []tls.Certificate{*cert}
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return x, nil
}

// Config is what connections use. It is a copy.
func (c *Client) Config() *tls.Config { return c.session.Clone() }

// Changed reports whether a file of c is not what it was when c was made. It asks the file system.
func (c *Client) Changed() bool { return c.files.changed() }

// Status lists the certificate that c shows, if there is one.
func (c *Client) Status() []Status {
	if c.certificate == nil {
		return nil
	}
	return []Status{statusOf(c.certificate.Leaf, c.cfg.Cert)}
}

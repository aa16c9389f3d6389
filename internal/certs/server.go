package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/longpole/longpole/setting"
)

// ErrNoCertificate is why a handshake fails when there is nothing to show: no certificate has the name, and there is no
// default, or it was not issued yet.
var ErrNoCertificate = errors.New("certs: no certificate for this name")

// acmeProtocol is asked for by a CA that validates by TLSALPN01, and by nobody else (RFC 8737 section 3).
const acmeProtocol = "acme-tls/1"

// Server is what one listener shows and whom it believes. It is immutable and safe for concurrent use.
type Server struct {
	cfg          ServerConfig
	certificates []certificate
	table        table
	issuer       *Issuer // nil = none
	files        files
	session      *tls.Config
	challenge    *tls.Config // nil = no issuer
}

// NewServer reads the files of c, which must be valid. issuer gets the certificates of c.ACME; nil = nobody does. The
// error joins every fault; each is a *setting.Error. A certificate that has expired is no fault here: see Check.
func NewServer(c ServerConfig, issuer *Issuer) (*Server, error) {
	var f setting.Faults
	s := &Server{cfg: c, issuer: issuer}
	list, paths := c.pairs()
	for i, p := range list {
		if cert, ok := s.files.pair(p, paths[i], &f); ok {
			s.certificates = append(s.certificates, certificate{cert, p.Cert})
		}
	}
	var clients *x509.CertPool
	if c.ClientCA != "" {
		clients = s.files.pool(c.ClientCA, "client_ca", &f)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	s.table = newTable(s.certificates)
	s.session = &tls.Config{
		MinVersion:     c.MinVersion.number(),
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.choose,
		ClientCAs:      clients,
	}
	switch {
	case c.ClientCA == "":
	case c.ClientAuth == Optional:
		s.session.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		s.session.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if issuer != nil {
		s.challenge = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmeProtocol}, GetCertificate: issuer.certificate}
	}
	return s, nil
}

// For is the configuration of a connection that begins with hello, for tls.Config.GetConfigForClient. Session tickets are
// those of the tls.Config that asks, so that they outlive this Server.
func (s *Server) For(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	// A CA that validates has no client certificate to show.
	if s.challenge != nil && slices.Equal(hello.SupportedProtos, []string{acmeProtocol}) && s.issuer.holds(normal(hello.ServerName)) {
		return s.challenge, nil
	}
	return s.session, nil
}

func (s *Server) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := normal(hello.ServerName)
	if c := best(hello, s.table.named(name)); c != nil {
		return c, nil
	}
	if s.issuer != nil && s.issuer.holds(name) {
		c, err := s.issuer.certificate(hello)
		if err == nil || s.table.first == nil {
			return c, err
		}
	}
	if c := best(hello, s.table.wild(name)); c != nil {
		return c, nil
	}
	if s.table.first != nil {
		return s.table.first, nil
	}
	return nil, ErrNoCertificate
}

// Changed reports whether a file of s is not what it was when s was made. It asks the file system.
func (s *Server) Changed() bool { return s.files.changed() }

// Status lists what s can show, those of its Issuer included, in no order of meaning.
func (s *Server) Status() []Status {
	var all []Status
	for _, c := range s.certificates {
		all = append(all, statusOf(c.Leaf, c.file))
	}
	if s.issuer != nil {
		all = append(all, s.issuer.Status()...)
	}
	return all
}

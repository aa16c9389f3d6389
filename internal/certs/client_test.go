package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestAnUpstreamIsVerified(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	p := ours.pair("orders", ecdsaKey(t), names("orders.internal"))
	me := ours.pair("gateway", ecdsaKey(t), names("gateway.internal"))
	s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key, ClientCA: ours.file, ClientAuth: Optional})
	tests := []struct {
		name     string
		c        ClientConfig
		host     string // of the URL
		ok       bool
		identity string
	}{
		{"its CA", ClientConfig{CA: ours.file}, "orders.internal", true, ""},
		{"another CA", ClientConfig{CA: theirs.file}, "orders.internal", false, ""},
		{"the system's roots", ClientConfig{}, "orders.internal", false, ""},
		{"another name", ClientConfig{CA: ours.file}, "10.0.0.1", false, ""},
		{"its name by hand", ClientConfig{CA: ours.file, ServerName: "orders.internal"}, "10.0.0.1", true, ""},
		{"not at all", ClientConfig{InsecureSkipVerify: true}, "10.0.0.1", true, ""},
		{"with a certificate of ours", ClientConfig{CA: ours.file, Cert: me.Cert, Key: me.Key}, "orders.internal", true, "DNS:gateway.internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewClient(tt.c)
			if err != nil {
				t.Fatal(err)
			}
			cfg := c.Config()
			if cfg.ServerName == "" {
				cfg.ServerName = tt.host // as http.Transport does
			}
			at, _, err := meet(t, base(s), cfg)
			if (err == nil) != tt.ok {
				t.Fatal(err)
			}
			if err == nil && Identity(&at) != tt.identity {
				t.Errorf("the upstream sees %q", Identity(&at))
			}
			if c.Changed() || len(c.Status()) != min(1, len(tt.c.Cert)) {
				t.Errorf("status %v", c.Status())
			}
		})
	}
}

func TestAnIdentityFitsAFieldAndIsOneKindOnly(t *testing.T) {
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		leaf x509.Certificate
		want string
	}{
		{x509.Certificate{URIs: []*url.URL{parse("spiffe://mesh/cart")}, DNSNames: []string{"cart"}}, "URI:spiffe://mesh/cart"},
		{x509.Certificate{DNSNames: []string{"URI:spiffe://mesh/cart"}}, "DNS:URI:spiffe://mesh/cart"},
		{x509.Certificate{EmailAddresses: []string{"eve@example.com"}, Subject: pkix.Name{CommonName: "eve"}}, "email:eve@example.com"},
		{x509.Certificate{Subject: pkix.Name{CommonName: "Ann Lee", Organization: []string{"Shop"}}}, "DN:CN=Ann Lee,O=Shop"},
		{x509.Certificate{DNSNames: []string{"a\r\nX-Admin: 1"}}, "DNS:a%0D%0AX-Admin: 1"},
		{x509.Certificate{DNSNames: []string{"é%41 "}}, "DNS:%C3%A9%2541%20"},
		{x509.Certificate{}, ""},
		{x509.Certificate{DNSNames: []string{strings.Repeat("a", maxIdentity)}}, ""},
	}
	for _, tt := range tests {
		got := Identity(&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{&tt.leaf}}})
		if got != tt.want {
			t.Errorf("got %q; want %q", got, tt.want)
		}
	}
	unverified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{DNSNames: []string{"cart"}}}}
	if Identity(nil) != "" || Identity(unverified) != "" {
		t.Error("what was not verified is nobody")
	}
}

func TestCertmagicLogsToOurLog(t *testing.T) {
	var b bytes.Buffer
	log := zapTo(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.With(zap.String("host", "a.example")).Named("x").Warn("slow", zap.Int("n", 3))
	log.Debug("hidden")
	if got := b.String(); !strings.Contains(got, `level=WARN msg=slow host=a.example n=3`) || strings.Contains(got, "hidden") {
		t.Error(got)
	}
}

package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/longpole/longpole/internal/systemtest"
)

// pebble is the ACME server of Let's Encrypt for tests. It validates for real: names are resolved by a DNS server of the
// test, which sends it to our listeners.
type pebble struct {
	directory string
	root      string // file of what signs the directory's own certificate
}

func startPebble(t *testing.T, httpPort, tlsPort int) pebble {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs an ACME server")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "pebble")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../tools/pebble", "-o", binary, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pebble: %v\n%s", err, out)
	}
	a := newAuthority(t)
	own := a.pair("pebble", ecdsaKey(t), names("localhost"))
	listen := systemtest.FreeAddress(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": "", "certificate": own.Cert, "privateKey": own.Key,
		"httpPort": httpPort, "tlsPort": tlsPort, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "90 days", "validityPeriod": 7776000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "-config", file, "-dnsserver", startDNS(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	_, port, _ := net.SplitHostPort(listen)
	p := pebble{directory: "https://localhost:" + port + "/dir", root: a.file}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool()}}}
	defer client.CloseIdleConnections()
	systemtest.Eventually(t, "pebble answers", func() bool {
		res, err := client.Get(p.directory)
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil
	})
	return p
}

// startDNS says of every name that it is here.
func startDNS(t *testing.T) string {
	t.Helper()
	c, err := net.Listen("tcp", "127.0.0.1:0") // pebble asks by TCP
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(a)
	})}
	ready := make(chan struct{})
	s.NotifyStartedFunc = func() { close(ready) }
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
	return c.Addr().String()
}

// front is a listener in the clear and one with TLS, both of one Issuer.
type front struct {
	issuer *Issuer
	clear  *httptest.Server
	tls    *httptest.Server
}

func newFront(t *testing.T) *front {
	f := &front{}
	f.clear = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.issuer.Answer(w, r) {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(f.clear.Close)
	f.tls = httptest.NewUnstartedServer(http.NotFoundHandler())
	f.tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	f.tls.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		s, err := NewServer(ServerConfig{ACME: &f.issuer.cfg}, f.issuer)
		if err != nil {
			return nil, err
		}
		return s.For(h)
	}}
	f.tls.StartTLS()
	t.Cleanup(f.tls.Close)
	return f
}

func portOf(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

// shown is the certificate that a client sees who asks for name; nil = none.
func (f *front) shown(name string) *x509.Certificate {
	c, err := tls.Dial("tcp", f.tls.Listener.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

func TestACMEGetsACertificate(t *testing.T) {
	f := newFront(t)
	ca := startPebble(t, portOf(f.clear), portOf(f.tls))
	for _, challenge := range []string{HTTP01, TLSALPN01} {
		t.Run(challenge, func(t *testing.T) {
			c := ACME{Hosts: []string{"shop.example.com", "www.example.com"}, Email: "ops@example.com", Directory: ca.directory, Root: ca.root, Storage: t.TempDir(), Challenge: challenge}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			serial := make(map[string]string)
			for round := range 2 {
				var err error
				if f.issuer, err = NewIssuer(c, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
					t.Fatal(err)
				}
				if f.shown("shop.example.com") != nil || f.issuer.Status() != nil {
					t.Fatal("shown before it was ordered")
				}
				ports := Ports{Host: "127.0.0.1", HTTP: portOf(f.clear), TLS: portOf(f.tls)}
				if err := errors.Join(f.issuer.Start(ports), f.issuer.Start(ports)); err != nil {
					t.Fatal(err)
				}
				for _, host := range c.Hosts {
					systemtest.Eventually(t, host+" is served", func() bool { return f.shown(strings.ToUpper(host)) != nil })
					got := f.shown(host)
					if err := got.VerifyHostname(host); err != nil {
						t.Error(err)
					}
					if s := got.SerialNumber.String(); round == 0 {
						serial[host] = s
					} else if serial[host] != s {
						t.Errorf("%s was ordered again, though the storage has it", host)
					}
				}
				if f.shown("other.example.com") != nil {
					t.Error("a certificate for a name that is not listed")
				}
				if all := f.issuer.Status(); len(all) != 2 || all[0].Names[0] != "shop.example.com" || all[0].File != "" || all[0].Expiring(time.Now()) {
					t.Errorf("status %+v", all)
				}
				f.issuer.Close()
				f.issuer.Close()
				if f.shown("shop.example.com") != nil {
					t.Error("shown after Close")
				}
			}
		})
	}
}

func TestAnIssuerNeedsAListenerThatAnswers(t *testing.T) {
	for challenge, p := range map[string]Ports{HTTP01: {TLS: 443}, TLSALPN01: {HTTP: 80}, "": {}} {
		i, err := NewIssuer(ACME{Hosts: []string{"a.example"}, Challenge: challenge}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i.Start(p) == nil {
			t.Errorf("%q with %+v", challenge, p)
		}
	}
}

func TestOnlyChallengesOfOurHostsAreAnswered(t *testing.T) {
	i, err := NewIssuer(ACME{Hosts: []string{"a.example"}, Storage: t.TempDir(), Directory: "https://127.0.0.1:1/dir"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(target string) bool {
		return i.Answer(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil))
	}
	if ask("http://a.example/.well-known/acme-challenge/x") {
		t.Error("answered before Start")
	}
	if !i.Serves(ACME{Hosts: []string{"a.example"}, Storage: i.cfg.Storage, Directory: i.cfg.Directory}) || i.Serves(ACME{}) {
		t.Error("Serves compares")
	}
	if ask("http://a.example/x") || ask("http://b.example/.well-known/acme-challenge/x") {
		t.Error("answered what is somebody else's")
	}
}

package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// signer signs certificates into files of one folder: NAME.pem and NAME.key; root.pem is its own.
type signer struct {
	t    *testing.T
	dir  string
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T) *signer {
	s := &signer{t: t, dir: t.TempDir()}
	s.key = s.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(50, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	s.root = s.write("root", template, template, s.key)
	return s
}

func (s *signer) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *signer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *signer) write(name string, template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	s.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	for suffix, b := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(s.path(name+suffix), pem.EncodeToMemory(b), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

// sign writes NAME.pem and NAME.key for the host of that name, valid from long ago for so long from now on.
func (s *signer) sign(name string, left time.Duration) {
	s.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(left),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, s.root, s.newKey())
}

func (s *signer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.root)
	return p
}

func (s *signer) pair(name string) tls.Certificate {
	s.t.Helper()
	c, err := tls.LoadX509KeyPair(s.path(name+".pem"), s.path(name+".key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// fill puts the folder into a file of settings.
func (s *signer) fill(yaml string) string { return strings.ReplaceAll(yaml, "DIR", s.dir) }

// secureClient calls a gateway by TLS over the network.
func (n *network) secureClient(t *testing.T, c *tls.Config) *http.Client {
	tr := &http.Transport{DialContext: n.dial, TLSClientConfig: c, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

const secureFile = `
listen:
  - {address: gw:443, tls: {cert: DIR/shop.test.pem, key: DIR/shop.test.key, client_ca: DIR/root.pem, client_auth: optional}}
  - gw:80
admin: off
otlp: {grpc: off, http: off}
upstreams: {a: {endpoints: http://up:1}}
routes:
  - {name: cart, match: {path: /, header: {name: X-Client-Identity, exact: "DNS:cart.test"}}, upstream: a, policy: {retry: {off: true}}}
  - {name: all, upstream: a, policy: {retry: {off: true}}}
`

func TestAVerifiedClientIsKnownToRoutesAndUpstreamsAndNobodyElseCanClaimIt(t *testing.T) {
	s := newSigner(t)
	s.sign("shop.test", time.Hour)
	s.sign("cart.test", time.Hour)
	cart := s.pair("cart.test")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "up:1", func(w http.ResponseWriter, r *http.Request) {
			for name, v := range r.Header {
				if strings.Contains(strings.ToLower(name), "client") {
					_, _ = fmt.Fprintf(w, "%s=%s ", name, v)
				}
			}
		})
		g := n.start(t, s.fill(secureFile), nil)
		known := n.secureClient(t, &tls.Config{ServerName: "shop.test", RootCAs: s.pool(), Certificates: []tls.Certificate{cart}})
		unknown := n.secureClient(t, &tls.Config{ServerName: "shop.test", RootCAs: s.pool()})
		claims := http.Header{"X-Client-Identity": {"DNS:admin.test"}, "X-Client_identity": {"DNS:admin.test"}, "Client-Cert": {":AAAA:"}, "Connection": {"X-Client-Identity"}}
		for _, tt := range []struct {
			what, url string
			client    *http.Client
			want      string
		}{
			{"with a certificate", "https://gw:443/", known, "X-Client-Identity=[DNS:cart.test] "},
			{"without", "https://gw:443/", unknown, ""},
			{"in the clear", "http://gw:80/", n.client(t), ""},
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = claims.Clone()
			res, err := tt.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if string(body) != tt.want {
				t.Errorf("%s the upstream sees %q; want %q", tt.what, body, tt.want)
			}
		}
		if all := g.Routes(); all[0].Calls != 1 || all[1].Calls != 2 {
			t.Errorf("calls %d, %d; want 1, 2", all[0].Calls, all[1].Calls)
		}
	})
}

// logged is what a gateway says.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestACertificateIsReadAgainWhenItsFileChanges(t *testing.T) {
	s := newSigner(t)
	s.sign("shop.test", 1000*24*time.Hour)
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "up:1", func(http.ResponseWriter, *http.Request) {})
		log := &logged{}
		g := run(t, load(t, s.fill(secureFile)), Options{Dial: n.dial, Listen: n.listen, Log: slog.New(slog.NewTextHandler(log, nil))})
		shown := func() string {
			c, err := n.dial(t.Context(), "tcp", "gw:443")
			if err != nil {
				t.Fatal(err)
			}
			x := tls.Client(c, &tls.Config{ServerName: "shop.test", RootCAs: s.pool()})
			defer x.Close()
			if err := x.Handshake(); err != nil {
				t.Fatal(err)
			}
			return x.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		first := shown()
		if all := g.Certificates(); len(all) != 1 || all[0].File != s.path("shop.test.pem") {
			t.Errorf("certificates %+v", all)
		}
		s.sign("shop.test", 48*time.Hour)
		time.Sleep(certsEvery + time.Second)
		second := shown()
		if second == first {
			t.Error("the old one is still shown")
		}
		if err := os.WriteFile(s.path("shop.test.key"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if shown() != second {
			t.Error("the last good one is not shown")
		}
		if got := log.count("could not be read again"); got != 1 {
			t.Errorf("logged %d times", got)
		}
		if err := g.Reload(g.Config()); err == nil || !strings.Contains(err.Error(), "listen[0].tls.key") {
			t.Errorf("a reload with the bad file: %v", err)
		}
		time.Sleep(30 * time.Hour)
		if got := log.count("a certificate expires"); got != 2 {
			t.Errorf("warned %d times in 30 h", got)
		}
		s.sign("shop.test", 1000*24*time.Hour)
		if err := g.Reload(g.Config()); err != nil || shown() == second {
			t.Errorf("a reload did not read it: %v", err)
		}
	})
}

func TestFilesOfTLSAreCheckedWithTheirPlace(t *testing.T) {
	s := newSigner(t)
	s.sign("shop.test", -time.Hour)
	file := strings.Replace(s.fill(secureFile), "http://up:1", "https://up:1, tls: {ca: "+s.path("none.pem")+"}", 1)
	c, err := Load("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	err = c.CheckFiles(time.Now())
	if err == nil || !strings.Contains(err.Error(), "listen[0].tls.cert") || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "upstreams.a.tls.ca") {
		t.Errorf("got %v", err)
	}
	if _, err := New(c, Options{}); err == nil || strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "upstreams.a.tls.ca") {
		t.Errorf("New: %v", err)
	}
}

func TestAnUpstreamIsVerifiedAndShownACertificate(t *testing.T) {
	s := newSigner(t)
	s.sign("up.test", time.Hour)
	s.sign("gateway.test", time.Hour)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
	}))
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	up.TLS = &tls.Config{Certificates: []tls.Certificate{s.pair("up.test")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.pool()}
	up.StartTLS()
	defer up.Close()
	log := &logged{}
	for _, tt := range []struct {
		tls    string
		status int
	}{
		{"{ca: DIR/root.pem, cert: DIR/gateway.test.pem, key: DIR/gateway.test.key, server_name: up.test}", 200},
		{"{ca: DIR/root.pem, cert: DIR/gateway.test.pem, key: DIR/gateway.test.key}", 502}, // the name is not that of the certificate
		{"{cert: DIR/gateway.test.pem, key: DIR/gateway.test.key, server_name: up.test}", 502},
		{"{ca: DIR/root.pem, server_name: up.test}", 502},
		{"{insecure_skip_verify: true, cert: DIR/gateway.test.pem, key: DIR/gateway.test.key}", 200},
	} {
		c, err := Load("f", []byte(s.fill("admin: off\notlp: {grpc: off, http: off}\nupstreams: {a: {endpoints: '"+up.URL+"', tls: "+tt.tls+"}}\nroutes: [{name: all, upstream: a, policy: {retry: {off: true}}}]\n")))
		if err != nil {
			t.Fatal(err)
		}
		g, err := New(c, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://shop.test/", nil))
		if w.Code != tt.status || w.Code == 200 && w.Body.String() != "gateway.test" {
			t.Errorf("%s: %d %s", tt.tls, w.Code, w.Body)
		}
		g.roads.close()
	}
	if log.count("INSECURE") != 1 {
		t.Error("the operator was not warned of the one")
	}
}

func TestACAThatValidatesInTheClearIsAnsweredBeforeRoutes(t *testing.T) {
	c, err := Load("f", []byte(`
listen: [127.0.0.1:0, {address: "127.0.0.1:1", tls: {acme: {hosts: [shop.test], storage: DIR, directory: "https://127.0.0.1:1/dir"}}}]
admin: off
otlp: {grpc: off, http: off}
upstreams: {a: {endpoints: http://127.0.0.1:1}}
routes: [{name: all, upstream: a}]
`))
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443})
	b := net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})
	g.servers[0].addr.Store(&b)
	g.servers[1].addr.Store(&a)
	if p := g.ports(g.secured.issuers[0]); p.HTTP != 8080 || p.TLS != 8443 || p.Host != "127.0.0.1" {
		t.Errorf("ports %+v", p)
	}
	again := c
	if err := g.Reload(again); err != nil || len(g.secured.issuers) != 1 {
		t.Errorf("a reload: %v, %d issuers", err, len(g.secured.issuers))
	}
	_, err = Load("f", []byte(strings.Replace(smallest, "listen: 127.0.0.1:8080", `listen: {address: "127.0.0.1:1", tls: {acme: {hosts: [shop.test], storage: d, challenge: http-01}}}`, 1)))
	if err == nil || !strings.Contains(err.Error(), "listener in the clear") {
		t.Errorf("HTTP-01 without a listener in the clear: %v", err)
	}
}

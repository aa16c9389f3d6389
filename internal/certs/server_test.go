package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/setting"
)

func TestTheNameThatIsAskedForChoosesTheCertificate(t *testing.T) {
	a := newAuthority(t)
	first := a.pair("first", ecdsaKey(t), names("first.example"))
	s := server(t, ServerConfig{Cert: first.Cert, Key: first.Key, Certificates: []Pair{
		a.pair("wild", ecdsaKey(t), names("*.shop.example")),
		a.pair("exact", ecdsaKey(t), names("cart.shop.example", "Other.Example")),
	}})
	for name, want := range map[string]string{
		"first.example":        "first",
		"a.shop.example":       "wild",
		"A.Shop.Example":       "wild",
		"cart.shop.example":    "exact",
		"CART.shop.example":    "exact",
		"other.example":        "exact",
		"shop.example":         "first", // a wildcard stands for one label, not for none,
		"a.b.shop.example":     "first", // nor for two
		"nobody.knows.example": "first",
		"":                     "first",
	} {
		_, at, err := meet(t, base(s), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := at.PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%q is shown %s; want %s", name, got, want)
		}
	}
}

func TestAClientIsShownTheCertificateThatItCanVerify(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{Certificates: []Pair{
		a.pair("modern", ecdsaKey(t), names("shop.example")), a.pair("old", rsaKey(t), names("shop.example")),
	}})
	for want, suite := range map[string]uint16{
		"modern": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		"old":    tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	} {
		_, at, err := meet(t, base(s), &tls.Config{ServerName: "shop.example", RootCAs: a.pool(), MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err != nil || at.PeerCertificates[0].Subject.CommonName != want {
			t.Errorf("got %v; want %s; %v", at.PeerCertificates, want, err)
		}
	}
}

func TestNothingBelowTheLowestVersionIsSpoken(t *testing.T) {
	a := newAuthority(t)
	p := a.pair("x", ecdsaKey(t), names("x.example"))
	for _, tt := range []struct {
		lowest Version
		client uint16
		ok     bool
	}{{0, tls.VersionTLS11, false}, {0, tls.VersionTLS12, true}, {tls.VersionTLS13, tls.VersionTLS12, false}, {tls.VersionTLS13, tls.VersionTLS13, true}} {
		s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key, MinVersion: tt.lowest})
		_, _, err := meet(t, base(s), &tls.Config{ServerName: "x.example", RootCAs: a.pool(), MinVersion: tls.VersionTLS10, MaxVersion: tt.client})
		if (err == nil) != tt.ok {
			t.Errorf("lowest %x, client %x: %v", tt.lowest, tt.client, err)
		}
	}
}

func TestHTTP2IsOfferedFirst(t *testing.T) {
	a := newAuthority(t)
	p := a.pair("x", ecdsaKey(t), names("x.example"))
	s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key})
	_, at, err := meet(t, base(s), &tls.Config{ServerName: "x.example", RootCAs: a.pool(), NextProtos: []string{"http/1.1", "h2"}})
	if err != nil || at.NegotiatedProtocol != "h2" {
		t.Errorf("got %q, %v", at.NegotiatedProtocol, err)
	}
}

func TestClientsProveWhoTheyAre(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	p := ours.pair("x", ecdsaKey(t), names("x.example"))
	load := func(a *authority, name string, options ...option) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(a.pair(name, ecdsaKey(t), options...).Cert, filepath.Join(a.dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	good := load(ours, "cart", uri("spiffe://mesh/cart"))
	tests := []struct {
		name, mode string
		show       []tls.Certificate
		ok         bool
		identity   string
	}{
		{"none, none wanted", "", nil, false, ""},
		{"none, may be none", Optional, nil, true, ""},
		{"ours", Require, good, true, "URI:spiffe://mesh/cart"},
		{"ours, may be none", Optional, good, true, "URI:spiffe://mesh/cart"},
		{"of a stranger", Require, load(theirs, "eve"), false, ""},
		{"of a stranger, may be none", Optional, load(theirs, "eve"), false, ""},
		{"expired", Require, load(ours, "late", lasting(-2*time.Hour, -time.Hour)), false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key, ClientCA: ours.file, ClientAuth: tt.mode})
			client := &tls.Config{ServerName: "x.example", RootCAs: ours.pool()}
			if tt.show != nil {
				// Shown whatever the server asks for.
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tt.show[0], nil }
			}
			at, _, err := meet(t, base(s), client)
			if (err == nil) != tt.ok {
				t.Fatal(err)
			}
			if err == nil && Identity(&at) != tt.identity {
				t.Errorf("identity %q", Identity(&at))
			}
		})
	}
}

func TestTicketsOutliveAReload(t *testing.T) {
	a := newAuthority(t)
	p := a.pair("x", ecdsaKey(t), names("x.example"))
	now := server(t, ServerConfig{Cert: p.Cert, Key: p.Key})
	listener := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return now.For(h) }}
	client := &tls.Config{ServerName: "x.example", RootCAs: a.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for round := range 2 {
		_, at, err := meet(t, listener, client)
		if err != nil || at.DidResume != (round == 1) {
			t.Errorf("round %d: resumed %v, %v", round, at.DidResume, err)
		}
		p = a.pair("x", ecdsaKey(t), names("x.example"))
		now = server(t, ServerConfig{Cert: p.Cert, Key: p.Key})
	}
}

func TestAChangedFileIsSeen(t *testing.T) {
	a := newAuthority(t)
	p := a.pair("x", ecdsaKey(t), names("x.example"))
	s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key, ClientCA: a.file})
	if s.Changed() {
		t.Error("nothing has changed")
	}
	for _, file := range []string{p.Cert, p.Key, a.file} {
		s := server(t, ServerConfig{Cert: p.Cert, Key: p.Key, ClientCA: a.file})
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(data, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		if !s.Changed() {
			t.Errorf("%s has changed", file)
		}
	}
	if err := os.Remove(p.Cert); err != nil || !s.Changed() {
		t.Error("a file is gone")
	}
}

func TestCheckNamesTheSettingAndTheFileAtFault(t *testing.T) {
	a := newAuthority(t)
	good, other := a.pair("good", ecdsaKey(t)), a.pair("other", ecdsaKey(t))
	old := a.pair("old", ecdsaKey(t), lasting(-2*time.Hour, -time.Hour))
	early := a.pair("early", ecdsaKey(t), lasting(time.Hour, 2*time.Hour))
	empty := filepath.Join(a.dir, "empty")
	big := filepath.Join(a.dir, "big")
	for file, size := range map[string]int{empty: 0, big: maxFile + 1} {
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(a.dir, "missing")
	tests := []struct {
		c    interface{ Check(time.Time) error }
		path string
		file string
		want string
	}{
		{ServerConfig{Cert: missing, Key: good.Key}, "cert", missing, "no such file"},
		{ServerConfig{Cert: good.Cert, Key: missing}, "key", missing, "no such file"},
		{ServerConfig{Cert: empty, Key: good.Key}, "cert", empty, "a PEM certificate"},
		{ServerConfig{Cert: big, Key: good.Key}, "cert", big, "more than 1 MiB"},
		{ServerConfig{Cert: good.Cert, Key: other.Key}, "key", other.Key, "does not match"},
		{ServerConfig{Cert: good.Cert, Key: empty}, "key", empty, "key"},
		{ServerConfig{Certificates: []Pair{good, old}}, "certificates[1].cert", old.Cert, "expired at"},
		{ServerConfig{Certificates: []Pair{early}}, "certificates[0].cert", early.Cert, "begins at"},
		{ServerConfig{Cert: good.Cert, Key: good.Key, ClientCA: missing}, "client_ca", missing, "no such file"},
		{ServerConfig{Cert: good.Cert, Key: good.Key, ClientCA: empty}, "client_ca", empty, "PEM certificates"},
		{ServerConfig{ACME: &ACME{Root: missing}}, "acme.root", missing, "no such file"},
		{ClientConfig{CA: missing}, "ca", missing, "no such file"},
		{ClientConfig{Cert: good.Cert, Key: other.Key}, "key", other.Key, "does not match"},
		{ClientConfig{Cert: old.Cert, Key: old.Key}, "cert", old.Cert, "expired at"},
	}
	for _, tt := range tests {
		list := setting.List(tt.c.Check(time.Now()))
		if len(list) != 1 {
			t.Errorf("%+v: %v", tt.c, list)
			continue
		}
		fault, ok := errors.AsType[*setting.Error](list[0])
		if !ok || fault.Path != tt.path || fault.Value != tt.file || !strings.Contains(fault.Want, tt.want) {
			t.Errorf("%+v: %v; want %q at %s of %s", tt.c, list[0], tt.want, tt.path, tt.file)
		}
	}
	for _, c := range []interface{ Check(time.Time) error }{ServerConfig{Cert: good.Cert, Key: good.Key, ClientCA: a.file}, ClientConfig{CA: a.file, Cert: good.Cert, Key: good.Key}} {
		if err := c.Check(time.Now()); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAServerServesWithAnExpiredCertificate(t *testing.T) {
	a := newAuthority(t)
	old := a.pair("old", ecdsaKey(t), lasting(-2*time.Hour, -time.Hour))
	s := server(t, ServerConfig{Cert: old.Cert, Key: old.Key})
	if all := s.Status(); len(all) != 1 || all[0].DaysLeft(time.Now()) >= 0 || all[0].File != old.Cert {
		t.Errorf("got %+v", all)
	}
}

func TestValidateFindsEveryFault(t *testing.T) {
	tests := []struct {
		c    interface{ Validate() error }
		want []string
	}{
		{ServerConfig{}, []string{"cert", "key"}},
		{ServerConfig{Cert: "c"}, []string{"key"}},
		{ServerConfig{Cert: "c", Key: "k", Certificates: []Pair{{Key: "k"}}}, []string{"certificates[0].cert"}},
		{ServerConfig{Cert: "c", Key: "k", ClientAuth: "maybe", ClientCA: "f"}, []string{"client_auth"}},
		{ServerConfig{Cert: "c", Key: "k", ClientAuth: Optional}, []string{"client_auth"}},
		{ServerConfig{Cert: "c", Key: "k", MinVersion: tls.VersionTLS10}, []string{"min_version"}},
		{ServerConfig{ACME: &ACME{}}, []string{"acme.hosts", "acme.storage"}},
		{
			ServerConfig{ACME: &ACME{Hosts: []string{"*.a.example", "10.0.0.1", "a.example", "a.example", "-a", "a_b", "a..b"}, Storage: "d", Email: "me", Directory: "http://ca", Challenge: "dns-01"}},
			[]string{"acme.hosts[0]", "acme.hosts[1]", "acme.hosts[3]", "acme.hosts[4]", "acme.hosts[5]", "acme.hosts[6]", "acme.email", "acme.directory", "acme.challenge"},
		},
		{ServerConfig{ACME: &ACME{Hosts: []string{"a.example"}, Storage: "d", Email: "me@a.example", Directory: "https://ca/dir", Challenge: HTTP01}}, nil},
		{ClientConfig{}, nil},
		{ClientConfig{Cert: "c"}, []string{"key"}},
		{ClientConfig{Key: "k"}, []string{"cert"}},
		{ClientConfig{CA: "f", InsecureSkipVerify: true}, []string{"insecure_skip_verify"}},
		{ClientConfig{ServerName: "a b", MinVersion: 1}, []string{"server_name", "min_version"}},
	}
	for _, tt := range tests {
		var got []string
		for _, e := range setting.List(tt.c.Validate()) {
			if fault, ok := errors.AsType[*setting.Error](e); ok {
				got = append(got, fault.Path)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%+v: %s", tt.c, d)
		}
	}
}

func TestVersionsAreReadAndWritten(t *testing.T) {
	for _, text := range []string{"1.2", "1.3"} {
		var v Version
		if err := v.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if back, err := v.MarshalText(); err != nil || string(back) != text {
			t.Errorf("%s became %s, %v", text, back, err)
		}
	}
	if new(Version).UnmarshalText([]byte("1.1")) == nil {
		t.Error("1.1 is not spoken")
	}
}

func TestSomebodyShouldLookBeforeACertificateExpires(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	tests := []struct {
		life, left time.Duration
		want       bool
	}{
		{365 * day, 15 * day, false},
		{365 * day, 13 * day, true},
		{90 * day, 13 * day, true},
		{6 * day, 2 * day, false},
		{6 * day, day, true},
		{90 * day, -day, true},
	}
	for _, tt := range tests {
		s := statusOf(&x509.Certificate{NotBefore: now.Add(tt.left - tt.life), NotAfter: now.Add(tt.left)}, "f")
		if s.Expiring(now) != tt.want || s.DaysLeft(now) != tt.left.Hours()/24 {
			t.Errorf("life %v, left %v: %v, %v days", tt.life, tt.left, s.Expiring(now), s.DaysLeft(now))
		}
	}
}

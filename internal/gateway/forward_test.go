package gateway

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// real starts a gateway on loopback in front of h.
func real(t *testing.T, policy string, h http.HandlerFunc) (g *Gateway, url string) {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	g = run(t, load(t, strings.Replace(one(policy, up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	return g, "http://" + g.Addr().String()
}

func plainClient(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestOnlyEndToEndFieldsPass(t *testing.T) {
	var in http.Header
	var host string
	_, url := real(t, "{}", func(w http.ResponseWriter, r *http.Request) {
		in, host = r.Header, r.Host
		h := w.Header()
		h.Set("Connection", "X-Secret")
		h.Set("X-Secret", "1")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("X-Kept", "1")
		h.Add("Set-Cookie", "a=1")
		h.Add("Set-Cookie", "b=2")
	})
	r := request(t, "GET", url+"/p", nil,
		"Connection", "X-Mine, keep-alive", "X-Mine", "1", "Keep-Alive", "1", "Te", "gzip, trailers", "Proxy-Authorization", "x", "Proxy", "evil",
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/evil", "Forwarded", "for=6.6.6.6",
		"X-Real-Ip", "6.6.6.6", "X_Forwarded_For", "6.6.6.6", "Via", "1.1 other", "X-Kept", "a", "X-Kept", "b", "Authorization", "token", "Upgrade", "h2c")
	r.Host = "shop.example"
	got := do(plainClient(t), r)
	if got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	for _, name := range []string{"Connection", "X-Mine", "Keep-Alive", "Proxy-Authorization", "Proxy", "X-Forwarded-Prefix", "Forwarded", "X-Real-Ip", "X_forwarded_for", "Upgrade"} {
		if v, ok := in[name]; ok {
			t.Errorf("%s: %q passed to the upstream", name, v)
		}
	}
	for name, want := range map[string]string{
		"Te": "[trailers]", "X-Forwarded-For": "[127.0.0.1]", "X-Forwarded-Host": "[shop.example]", "X-Forwarded-Proto": "[http]",
		"Via": "[1.1 other 1.1 longpole]", "X-Kept": "[a b]", "Authorization": "[token]",
	} {
		if v := fmt.Sprint(in[name]); v != want {
			t.Errorf("%s is %s upstream; want %s", name, v, want)
		}
	}
	if host != "shop.example" {
		t.Errorf("host is %q", host)
	}
	for _, name := range []string{"X-Secret", "Keep-Alive", "Proxy-Authenticate"} {
		if v, ok := got.header[name]; ok {
			t.Errorf("%s: %q passed to the client", name, v)
		}
	}
	if fmt.Sprint(got.header["Set-Cookie"]) != "[a=1 b=2]" || got.header.Get("X-Kept") != "1" || got.header.Get("Via") != "1.1 longpole" {
		t.Errorf("answer has %v", got.header)
	}
}

func TestTheTargetArrivesAsItWasWritten(t *testing.T) {
	var uri string
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { uri = r.RequestURI }))
	t.Cleanup(up.Close)
	for _, base := range []string{"", "/base", "/b%2Fs"} {
		g := run(t, load(t, strings.Replace(one("{}", up.URL+base), "gw:80", "127.0.0.1:0", 1)), Options{})
		for _, target := range []string{"/", "/a%2Fb", "/a%20b?q=1;2&x=%zz", "/a//b/", "//host/x", "/?", "/%E2%82%AC", "/a;b=c"} {
			conn, err := net.Dial("tcp", g.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", target)
			b, _ := io.ReadAll(conn)
			_ = conn.Close()
			if want := base + target; uri != want {
				t.Errorf("%q arrived as %q; answer %q", want, uri, b)
			}
		}
	}
}

func TestWhatNoRouteMaySeeIsRefused(t *testing.T) {
	g, url := real(t, "{}", ok("reached"))
	tests := []struct{ name, head, want string }{
		{"upgrade with a body", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", "400 bad_request"},
		{"connect", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n", "501 not_supported"},
		{"dots", "GET /a/../b HTTP/1.1\r\nHost: h\r\n", "400 bad_request"},
		{"hidden dots", "GET /a/%2e%2E/b HTTP/1.1\r\nHost: h\r\n", "400 bad_request"},
		{"star", "OPTIONS * HTTP/1.1\r\nHost: h\r\n", "400 bad_request"},
		{"loop", "GET / HTTP/1.1\r\nHost: h\r\nVia: " + strings.Repeat("1.1 longpole, ", 10) + "\r\n", "508 loop"},
		{"both lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n", "400 "},
		{"length and chunks", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n", "501 "},
		{"space before colon", "GET / HTTP/1.1\r\nHost: h\r\nX : 1\r\n", "400 "},
		{"long head", "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("a", 80<<10) + "\r\n", "431 "},
	}
	for _, tt := range tests {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, tt.head+"\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("X-Longpole-Error")); got != tt.want {
			t.Errorf("%s: got %s; want %s", tt.name, got, tt.want)
		}
		_ = res.Body.Close()
		_ = conn.Close()
	}
	if g.Unrouted() != 6 || g.Routes()[0].Calls != 0 { // the others net/http refuses by itself
		t.Errorf("%d unrouted, %d routed", g.Unrouted(), g.Routes()[0].Calls)
	}
}

// digests streams size bytes through the gateway and back, and compares what went with what came.
func digests(t *testing.T, c *http.Client, url string, size int64) {
	t.Helper()
	sum := sha256.New()
	r := request(t, "POST", url, io.TeeReader(io.LimitReader(rand.Reader, size), sum), "Trailer-Wanted", "yes")
	r.Trailer = http.Header{"X-Sent": nil}
	r.Body = &atEnd{ReadCloser: r.Body, do: func() { r.Trailer.Set("X-Sent", "all") }}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := sha256.New()
	n, err := io.Copy(got, res.Body)
	if err != nil || n != size || !bytes.Equal(sum.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d of %d bytes came back, err %v", n, size, err)
	}
	if res.Trailer.Get("X-Announced") != "a" || res.Trailer.Get("X-Late") != "b" {
		t.Errorf("trailers are %v", res.Trailer)
	}
}

type atEnd struct {
	io.ReadCloser
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == io.EOF {
		a.do()
	}
	return n, err
}

// echo sends the body back as it comes, with trailers.
func echo(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(w, r.Body)
		if r.Method == "POST" && r.Trailer.Get("X-Sent") != "all" {
			t.Errorf("the request's trailers are %v", r.Trailer)
		}
		w.Header().Set("X-Announced", "a")
		w.Header().Set(http.TrailerPrefix+"X-Late", "b")
	}
}

// gathered sends the body back when it has come.
func gathered(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Trailer.Get("X-Sent") != "all" {
			t.Errorf("trailers are %v, %v", r.Trailer, err)
		}
		_, _ = w.Write(b)
		w.Header().Set("X-Announced", "a")
		w.Header().Set(http.TrailerPrefix+"X-Late", "b")
	}
}

func TestBodiesAndTrailersPassWhole(t *testing.T) {
	g, url := real(t, "{}", gathered(t))
	for _, size := range []int64{0, 1, 64 << 10, 8 << 20} {
		digests(t, plainClient(t), url, size)
	}
	if s := g.Routes()[0]; s.Tally.Calls != 4 || s.Classes["ok"] != 4 {
		t.Errorf("tally is %+v", s.Classes)
	}
}

func TestAnAnswerMayBeginBeforeTheBodyEnds(t *testing.T) {
	_, url := real(t, "{}", echo(t))
	digests(t, plainClient(t), url, 8<<20)
	_, url = real(t, "{}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusUnauthorized)
	})
	body, feed := io.Pipe() // never ends by itself
	t.Cleanup(func() { _ = feed.Close() })
	go func() { _, _ = feed.Write(make([]byte, 1<<10)) }()
	if got := do(plainClient(t), request(t, "POST", url, body)); got.status != http.StatusUnauthorized {
		t.Errorf("got %+v", got)
	}
}

func TestCleartextHTTP2Works(t *testing.T) {
	_, url := real(t, "{}", gathered(t))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	t.Cleanup(tr.CloseIdleConnections)
	digests(t, &http.Client{Transport: tr}, url, 4<<20)
	res := do(&http.Client{Transport: tr}, request(t, "GET", url+"/a/./b", nil))
	if res.status != 400 {
		t.Errorf("got %+v", res)
	}
}

func TestHTTP2OverTLSAtBothEnds(t *testing.T) {
	up := httptest.NewUnstartedServer(echo(t))
	up.EnableHTTP2 = true
	up.StartTLS()
	t.Cleanup(up.Close)
	cert, key := certificate(t)
	c := load(t, strings.Replace(one("{}", up.URL), "listen: gw:80", "listen: {address: 127.0.0.1:0, tls: {cert: "+cert+", key: "+key+"}}", 1))
	g, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	trusting(g, "up", up.Certificate())
	ctx := t.Context()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	<-g.Ready()
	t.Cleanup(func() { <-ended })
	pool := x509.NewCertPool()
	text, _ := os.ReadFile(cert)
	pool.AppendCertsFromPEM(text)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	url := "https://" + g.Addr().String()
	digests(t, &http.Client{Transport: tr}, url, 4<<20) // the upstream answers while it is still being sent to
	res, err := (&http.Client{Transport: tr}).Do(request(t, "HEAD", url, nil))
	if err != nil || res.ProtoMajor != 2 || res.Header.Get("Via") != "2 longpole" {
		t.Errorf("got %+v, %v", res, err)
	}
	_ = res.Body.Close()
}

// trusting makes g take cert from the endpoints of an upstream.
func trusting(g *Gateway, name string, cert *x509.Certificate) {
	u := g.upstreams[name]
	cfg := *u.cfg.Load()
	cfg.tls = &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.tls.RootCAs.AddCert(cert)
	u.cfg.Store(&cfg)
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", keyDER)
}

func TestABodyIsSentAgainOnlyWhenItWasKept(t *testing.T) {
	var calls atomic.Int64
	var bodies [10]int64
	_, url := real(t, "{retry: {base_delay: 1ms}}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		bodies[calls.Add(1)-1] = n
		w.WriteHeader(503)
	})
	tests := []struct {
		size     int
		chunked  bool
		attempts int64
	}{{100, false, 3}, {100, true, 3}, {64 << 10, true, 3}, {64<<10 + 1, false, 1}, {64<<10 + 1, true, 1}}
	for _, tt := range tests {
		calls.Store(0)
		var body io.Reader = bytes.NewReader(make([]byte, tt.size))
		if tt.chunked {
			body = io.MultiReader(body)
		}
		got := do(plainClient(t), request(t, "PUT", url, body))
		if got.status != 503 || calls.Load() != tt.attempts {
			t.Errorf("%+v: %d attempts, got %+v", tt, calls.Load(), got)
		}
		for _, n := range bodies[:calls.Load()] {
			if n != int64(tt.size) {
				t.Errorf("%+v: %d bytes arrived", tt, n)
			}
		}
	}
}

func TestABodyBeyondTheLimitIsRefused(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(up.Close)
	g := run(t, load(t, "limits: {body_bytes: 100KiB}\n"+strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	for size, want := range map[int]int{100 << 10: 200, 100<<10 + 1: 413} {
		for _, method := range []string{"POST", "PUT"} {
			for _, body := range []io.Reader{bytes.NewReader(make([]byte, size)), io.MultiReader(bytes.NewReader(make([]byte, size)))} {
				got := do(plainClient(t), request(t, method, "http://"+g.Addr().String(), body))
				if got.status != want {
					t.Errorf("%s of %d: got %+v", method, size, got)
				}
			}
		}
	}
	if s := g.Routes()[0]; s.Tally.Failed != 0 || s.Endpoints[0].Breaker != "closed" {
		t.Errorf("the upstream is blamed: %+v", s.Classes)
	}
}

func TestAHeadHasNoBodyAndKeepsItsLength(t *testing.T) {
	_, url := real(t, "{cache: {}}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1234")
		if _, err := w.Write(make([]byte, 1234)); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
			t.Error(err)
		}
	})
	for _, method := range []string{"HEAD", "GET", "HEAD", "GET"} {
		got := do(plainClient(t), request(t, method, url, nil))
		if got.header.Get("Content-Length") != "1234" || got.err != nil || (len(got.body) == 0) != (method == "HEAD") {
			t.Errorf("%s: got %d bytes, %+v", method, len(got.body), got.header)
		}
	}
}

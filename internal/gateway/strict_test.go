package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// witness is an endpoint that writes down every byte it is sent, and answers each request in turn.
type witness struct {
	mu   sync.Mutex
	seen []string // method, target, host and body of each request
	raw  bytes.Buffer
}

func (o *witness) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var run sync.WaitGroup
	run.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			run.Go(func() { o.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); run.Wait() })
	return "http://" + l.Addr().String()
}

func (o *witness) serve(c net.Conn) {
	defer c.Close()
	var own bytes.Buffer
	r := bufio.NewReader(io.TeeReader(c, &own))
	for {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		o.mu.Lock()
		o.seen = append(o.seen, fmt.Sprintf("%s %s %s %q %v", req.Method, req.RequestURI, req.Host, body, err))
		o.raw.Write(own.Bytes())
		own.Reset()
		o.mu.Unlock()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// take returns what was seen since the last time.
func (o *witness) take() (seen []string, raw string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, raw, o.seen = o.seen, o.raw.String(), nil
	o.raw.Reset()
	return seen, raw
}

// spoken sends text on a connection of its own and returns the statuses of all answers until the gateway closes it, or
// says nothing more.
func spoken(t *testing.T, address, text string) (statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, res.Body)
		statuses = append(statuses, res.StatusCode)
		_ = conn.(*net.TCPConn).CloseWrite() // no more requests
	}
}

// TestNoRequestIsSmuggledOverHTTP1 sends what servers have taken apart differently. Each is either refused, or reaches the
// endpoint as exactly the requests that stand here, framed anew.
func TestNoRequestIsSmuggledOverHTTP1(t *testing.T) {
	var o witness
	up := o.start(t)
	g := run(t, load(t, strings.Replace(one("{retry: {off: true}, breaker: {off: true}}", up), "gw:80", "127.0.0.1:0", 1)), Options{})
	const post, chunked = "POST / HTTP/1.1\r\nHost: h\r\n", "Transfer-Encoding: chunked\r\n"
	inner := "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"
	refused := []string(nil)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"length and chunks", post + "Content-Length: 4\r\n" + chunked + "\r\n3\r\nabc\r\n0\r\n\r\n", []string{`POST / h "abc" <nil>`}},
		{"chunks and length", post + chunked + "Content-Length: 44\r\n\r\n0\r\n\r\n", []string{`POST / h "" <nil>`}},
		{"two lengths", post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", refused},
		{"a list of lengths", post + "Content-Length: 3, 4\r\n\r\nabcd", refused},
		{"equal lengths", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", []string{`POST / h "abc" <nil>`}},
		{"signed length", post + "Content-Length: +3\r\n\r\nabc", refused},
		{"negative length", post + "Content-Length: -1\r\n\r\n", refused},
		{"hexadecimal length", post + "Content-Length: 0x3\r\n\r\nabc", refused},
		{"length that overflows", post + "Content-Length: 18446744073709551619\r\n\r\nabc", refused},
		{"obscured chunks: other name", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", refused},
		{"obscured chunks: vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", refused},
		{"obscured chunks: space before colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", refused},
		{"obscured chunks: folded", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", nil},
		{"obscured chunks: twice", post + chunked + "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", refused},
		{"obscured chunks: a list", post + "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", refused},
		{"identity", post + "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", refused},
		{"chunk extension with a bare line feed", post + chunked + "\r\n3;a\nbc\r\nabc\r\n0\r\n\r\n" + inner, refused},
		{"chunk size with a bare line feed", post + chunked + "\r\n3\nabc\r\n0\r\n\r\n", refused},
		{"chunk size that overflows", post + chunked + "\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", refused},
		{"chunk size with a sign", post + chunked + "\r\n+3\r\nabc\r\n0\r\n\r\n", refused},
		{"chunk without its end", post + chunked + "\r\n3\r\nabcX\r\n0\r\n\r\n", refused},
		{"bare carriage return in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n", refused},
		{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", refused},
		{"space before colon", "GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", refused},
		{"field without a name", "GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", refused},
		{"line without a colon", "GET / HTTP/1.1\r\nHost: h\r\nodd\r\n\r\n", refused},
		{"folded first line", "GET / HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n", refused},
		{"no host", "GET / HTTP/1.1\r\n\r\n", refused},
		{"two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n", refused},
		{"host with a path", "GET / HTTP/1.1\r\nHost: h/evil\r\n\r\n", refused},
		{"host with a user", "GET / HTTP/1.1\r\nHost: a@h\r\n\r\n", refused},
		{"absolute target wins over host", "GET http://h/a HTTP/1.1\r\nHost: evil\r\n\r\n", []string{`GET /a h "" <nil>`}},
		{"absolute target with a user", "GET http://a@h/ HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"fragment in the target", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"NUL in the path", "GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"encoded slash stays encoded", "GET /a%2Fb//c HTTP/1.1\r\nHost: h\r\n\r\n", []string{`GET /a%2Fb//c h "" <nil>`}},
		{"dots behind a backslash", "GET /a/..%5cb HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"dots with a parameter", "GET /a/..;x/b HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"method that is no token", "GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"method without end", strings.Repeat("G", 100) + " / HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"target without end", "GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\nHost: h\r\n\r\n", refused},
		{"version that is none", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", refused},
		{"body on a GET", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 31\r\n\r\n" + inner, []string{fmt.Sprintf("GET / h %q <nil>", inner)}},
		{"chunks over HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n" + chunked + "\r\n0\r\n\r\n", nil},
	}
	for _, tt := range tests {
		statuses := spoken(t, g.Addr().String(), tt.text)
		seen, raw := o.take()
		if strings.Contains("\n"+strings.Join(seen, "\n"), "\nGET /evil") {
			t.Errorf("%s: a request was smuggled: %v", tt.name, seen)
		}
		switch tt.name {
		case "obscured chunks: folded", "chunks over HTTP/1.0": // refused, or the one request that it can only be
			if len(seen) > 1 {
				t.Errorf("%s: %v", tt.name, seen)
			}
			continue
		}
		if tt.want == nil {
			for _, s := range seen { // a body that broke off has begun, and must not have ended
				if strings.HasSuffix(s, "<nil>") {
					t.Errorf("%s: reached the endpoint as %v", tt.name, seen)
				}
			}
			if len(statuses) > 1 || len(statuses) == 1 && statuses[0] < 400 {
				t.Errorf("%s: answered %v", tt.name, statuses)
			}
			continue
		}
		// What an earlier case broke off may come as late as now; it never has an end.
		whole := slices.DeleteFunc(seen, func(s string) bool { return !strings.HasSuffix(s, "<nil>") })
		if fmt.Sprint(whole) != fmt.Sprint(tt.want) {
			t.Errorf("%s: arrived as %v, want %v", tt.name, whole, tt.want)
		}
		if l, c := strings.Contains(raw, "Content-Length"), strings.Contains(raw, "Transfer-Encoding"); l && c {
			t.Errorf("%s: framed twice: %q", tt.name, raw)
		}
	}
}

// frames is a client of HTTP/2 that sends what it is told, right or wrong.
type frames struct {
	*http2.Framer
	conn net.Conn
	buf  bytes.Buffer
	enc  *hpack.Encoder
}

func speak2(t *testing.T, address string) *frames {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	f := &frames{Framer: http2.NewFramer(conn, conn), conn: conn}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.buf)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = f.WriteSettings()
	return f
}

// block is a header block of pairs.
func (f *frames) block(pairs ...string) []byte {
	f.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(f.buf.Bytes())
}

// ask sends a request and returns its status, or what came in its place.
func (f *frames) ask(stream uint32, body string, pairs ...string) string {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block(pairs...), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		_ = f.WriteData(stream, true, []byte(body))
	}
	return f.outcome(stream)
}

func (f *frames) outcome(stream uint32) string {
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			if fr.StreamID == stream {
				return fr.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if fr.StreamID == stream {
				return "reset " + fr.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			if fr.ErrCode != http2.ErrCodeNo {
				return "goaway " + fr.ErrCode.String()
			}
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !fr.IsAck() {
				_ = f.WritePing(true, fr.Data)
			}
		}
	}
}

// TestNoRequestIsSmuggledFromHTTP2ToHTTP1 sends over HTTP/2 what would mean something else as text.
func TestNoRequestIsSmuggledFromHTTP2ToHTTP1(t *testing.T) {
	var o witness
	g := run(t, load(t, strings.Replace(one("{retry: {off: true}, breaker: {off: true}}", o.start(t)), "gw:80", "127.0.0.1:0", 1)), Options{})
	head := func(method, path, authority string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", authority}, more...)
	}
	tests := []struct {
		name, body string
		pairs      []string
		want       string // what the endpoint sees; "" = nothing
	}{
		{"a plain one", "", head("GET", "/a", "h"), `GET /a h "" <nil>`},
		{"space in the path", "", head("GET", "/a HTTP/1.1\x20", "h"), ""},
		{"space in the query", "", head("GET", "/?a HTTP/1.1", "h"), ""},
		{"fragment in the path", "", head("GET", "/a#b", "h"), ""},
		{"line end in the path", "", head("GET", "/a\r\nX: b", "h"), ""},
		{"path without slash", "", head("GET", "a", "h"), ""},
		{"empty path", "", head("GET", "", "h"), ""},
		{"space in the method", "", head("GET /evil HTTP/1.1", "/", "h"), ""},
		{"line end in the method", "", head("GET\r\n", "/", "h"), ""},
		{"line end in a value", "", head("GET", "/", "h", "x", "a\r\nhost: evil"), ""},
		{"NUL in a value", "", head("GET", "/", "h", "x", "a\x00"), ""},
		{"colon in a name", "", head("GET", "/", "h", "x:y", "a"), ""},
		{"line end in a name", "", head("GET", "/", "h", "x\r\ny", "a"), ""},
		{"capitals in a name", "", head("GET", "/", "h", "X", "a"), ""},
		{"host against authority", "", head("GET", "/", "h", "host", "evil"), ""},
		{"host that agrees", "", head("GET", "/", "h", "host", "h"), `GET / h "" <nil>`},
		{"line end in the authority", "", head("GET", "/", "h\r\nx: y"), ""},
		{"user in the authority", "", head("GET", "/", "a@h"), ""},
		{"shorter than its length", "abc", head("POST", "/", "h", "content-length", "5"), ""},
		{"longer than its length", "abc", head("POST", "/", "h", "content-length", "2"), ""},
		{"length that is none", "abc", head("POST", "/", "h", "content-length", "x"), ""},
		{"length that is none, of no body", "", head("GET", "/", "h", "content-length", "x"), ""},
		{"two lengths", "abc", head("POST", "/", "h", "content-length", "3", "content-length", "4"), ""},
		{"twice the same length", "abc", head("POST", "/", "h", "content-length", "3", "content-length", "3"), ""},
		{"transfer-encoding", "abc", head("POST", "/", "h", "transfer-encoding", "chunked"), ""},
		{"connection", "", head("GET", "/", "h", "connection", "keep-alive"), ""},
		{"upgrade", "", head("GET", "/", "h", "upgrade", "websocket"), ""},
		{"te other than trailers", "", head("GET", "/", "h", "te", "gzip"), ""},
		{"twice the same pseudo field", "", head("GET", "/", "h", ":path", "/evil"), ""},
		{"pseudo field after a field", "", []string{":method", "GET", ":scheme", "http", "x", "y", ":path", "/", ":authority", "h"}, ""},
		{"extended CONNECT", "", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "h"}, ""},
		{"CONNECT", "", []string{":method", "CONNECT", ":authority", "h:80"}, ""},
	}
	for _, tt := range tests {
		got := speak2(t, g.Addr().String()).ask(1, tt.body, tt.pairs...)
		seen, _ := o.take()
		if tt.want != "" {
			if len(seen) != 1 || seen[0] != tt.want || got != "200" {
				t.Errorf("%s: %s, arrived as %v", tt.name, got, seen)
			}
			continue
		}
		for _, s := range seen {
			if strings.HasSuffix(s, "<nil>") {
				t.Errorf("%s: reached the endpoint as %v", tt.name, seen)
			}
		}
		if got == "200" {
			t.Errorf("%s: answered %s", tt.name, got)
		}
	}
}

func TestWhatOnlyAProxyMaySayIsDroppedInEverySpelling(t *testing.T) {
	var in http.Header
	_, url := real(t, "{}", func(_ http.ResponseWriter, r *http.Request) { in = r.Header })
	got := do(plainClient(t), request(t, "GET", url, nil,
		"X-Forwarded-For", "6.6.6.6", "X_Forwarded_For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-User", "root", "X-Real-Ip", "6.6.6.6", "X_Real-IP", "6.6.6.6",
		"Forwarded", "for=6.6.6.6", "Proxy", "http://evil", "Connection", "X-Forwarded-For, X-Forwarded-Proto, Keep-Alive"))
	if got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	for name, values := range in {
		if strings.Contains(strings.Join(values, " "), "6.6.6.6") || name == "Proxy" || name == "X-Forwarded-User" {
			t.Errorf("%s: %v passed", name, values)
		}
	}
	if in.Get("X-Forwarded-For") != "127.0.0.1" || in.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("ours are missing: %v", in)
	}
}

func TestTrailersNeverBecomeFields(t *testing.T) {
	var head, trailers http.Header
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head = r.Header.Clone()
		_, _ = io.Copy(io.Discard, r.Body)
		trailers = r.Trailer.Clone()
		w.Header().Set("Trailer", "X-End, Set-Cookie")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-End", "1")
		w.Header().Set("Set-Cookie", "a=b")
	}))
	defer up.Close()
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sent, X-Forwarded-For, Authorization\r\n\r\n1\r\na\r\n0\r\nX-Sent: 1\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: evil\r\nX-Unsaid: 1\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if head.Get("X-Sent") != "" || head.Get("Authorization") != "" || trailers.Get("X-Sent") != "1" || trailers.Get("X-Forwarded-For") != "" || trailers.Get("Authorization") != "" {
		t.Errorf("head %v, trailers %v", head, trailers)
	}
	if res.Header.Get("X-End") != "" || res.Header.Get("Set-Cookie") != "" || res.Trailer.Get("X-End") != "1" {
		t.Errorf("answer: head %v, trailers %v", res.Header, res.Trailer)
	}
}

func TestAHeadIsBoundedInBytesAndInLines(t *testing.T) {
	_, url := real(t, "{}", ok("reached"))
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "X-%d: 1\r\n", i)
	}
	address := strings.TrimPrefix(url, "http://")
	if got := spoken(t, address, "GET / HTTP/1.1\r\nHost: h\r\n"+many.String()+"\r\n"); fmt.Sprint(got) != "[400]" {
		t.Errorf("300 fields: %v", got)
	}
	if got := spoken(t, address, "GET / HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat("a", 100<<10)+"\r\n\r\n"); fmt.Sprint(got) != "[431]" {
		t.Errorf("100 KiB: %v", got)
	}
}

func FuzzMalformed(f *testing.F) {
	f.Add("GET", "/a?b", "h", "X", "y")
	f.Add("G T", "/a b", "h h", "X\r\nY", "y\r\n")
	f.Fuzz(func(t *testing.T, method, target, host, name, value string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.RequestURI, r.Host = method, target, host
		r.Header = http.Header{name: {value}}
		if malformed(r) != "" {
			return
		}
		// What passes is one request to a parser that splits at line ends and spaces.
		text := method + " " + target + " HTTP/1.1\r\nHost: h\r\n" + name + ": " + value + "\r\n\r\n"
		lines := strings.Split(text, "\r\n")
		if len(lines) != 5 || strings.Count(lines[0], " ") != 2 || strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
			t.Errorf("%q passed", text)
		}
	})
}

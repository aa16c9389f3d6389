package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// TestLineEndsAndFoldsNeverReachAnUpstreamAsTheyCame covers bare LF and CR and obs-fold: what is taken at all is one
// request, written anew.
func TestLineEndsAndFoldsNeverReachAnUpstreamAsTheyCame(t *testing.T) {
	var o witness
	g := run(t, load(t, strings.Replace("limits: {header_timeout: 300ms}\n"+one("{retry: {off: true}, breaker: {off: true}}", o.start(t)), "gw:80", "127.0.0.1:0", 1)), Options{})
	for _, tt := range []struct {
		name, text string
		taken      bool
	}{
		{"lines end in LF", "GET /a HTTP/1.1\nHost: h\nX: b\n\n", true},
		{"folded with space", "GET /a HTTP/1.1\r\nHost: h\r\nX: b\r\n c\r\n\r\n", true},
		{"folded with tab", "GET /a HTTP/1.1\r\nHost: h\r\nX: b\r\n\tGET /evil HTTP/1.1\r\n\r\n", true},
		{"folded host", "GET /a HTTP/1.1\r\nHost:\r\n h\r\n\r\n", true},
		{"CR alone", "GET /a HTTP/1.1\rHost: h\r\r", false},
		{"CR within a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: b\rc\r\n\r\n", false},
		{"CR CR LF", "GET /a HTTP/1.1\r\nHost: h\r\nX: b\r\r\n\r\n", false},
		{"CR before the colon", "GET /a HTTP/1.1\r\nHost: h\r\nX\r: b\r\n\r\n", false},
		{"line without name after LF", "GET /a HTTP/1.1\r\nHost: h\r\nX: b\nGET /evil HTTP/1.1\r\n\r\n", false},
		{"head ends in LF LF", "GET /a HTTP/1.1\r\nHost: h\n\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", true},
	} {
		spoken(t, g.Addr().String(), tt.text)
		seen, raw := o.take()
		if strings.Contains(tt.name, "LF LF") { // the second request is one of the client's own
			if len(seen) > 2 {
				t.Errorf("%s: %v", tt.name, seen)
			}
		} else if want := `GET /a h "" <nil>`; len(seen) > 1 || len(seen) == 1 && (!tt.taken || seen[0] != want) {
			t.Errorf("%s: arrived as %v", tt.name, seen)
		}
		lines := strings.Split(raw, "\r\n")
		if strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
			t.Errorf("%s: passed as %q", tt.name, raw)
		}
		for _, line := range lines {
			if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
				t.Errorf("%s: a fold passed: %q", tt.name, raw)
			}
		}
	}
}

// TestConnectionCannotNameWhatTheGatewaySays has a client declare fields to be of the connection alone, which a proxy
// drops: those that the gateway sets itself stay, and the framing too.
func TestConnectionCannotNameWhatTheGatewaySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var mu sync.Mutex
		var seen http.Header
		var body string
		n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			seen, body = r.Header.Clone(), fmt.Sprintf("%s %s %s", r.Host, b, r.TransferEncoding)
		})
		n.start(t, one("{timeout: 10s}", "http://a:1"), nil)
		names := "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Via, Traceparent, X-Request-Timeout-Ms, Host, Content-Length, Transfer-Encoding, X-Longpole-Priority, User-Agent"
		_, r := n.raw(t, "POST /x HTTP/1.1\r\nHost: shop.example\r\nConnection: "+names+"\r\nContent-Length: 4\r\n\r\nbody")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Fatalf("%+v, %v", res, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Via", "Traceparent", "X-Request-Timeout-Ms"} {
			if len(seen[name]) == 0 {
				t.Errorf("%s is missing: %v", name, seen)
			}
		}
		if body != "shop.example body []" {
			t.Errorf("arrived as %s", body)
		}
	})
}

// TestAnAnswerCannotSmuggleAnother has an upstream frame its answers in ways that are taken apart differently: a client
// gets one answer for one request, and the next request gets its own.
func TestAnAnswerCannotSmuggleAnother(t *testing.T) {
	evil := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for name, text := range map[string]string{
		"two lengths":              "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n" + evil,
		"length and chunks":        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"chunk that is longer":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + evil,
		"body after 204":           "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n" + evil,
		"body after 304":           "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n" + evil,
		"more than its length":     "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + evil,
		"an answer before":         "HTTP/1.1 100 Continue\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + evil,
		"line end in a value":      "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n",
		"length that is none":      "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\n" + evil,
		"a head without an end":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 2*answerHeadBytes) + "\r\n\r\n",
		"chunk sizes out of range": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/own" {
					_, _ = io.WriteString(w, "own")
					return
				}
				conn, _, _ := http.NewResponseController(w).Hijack()
				_, _ = io.WriteString(conn, text)
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
			n.start(t, one("{timeout: 10s, retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
			conn, r := n.raw(t, "GET /odd HTTP/1.1\r\nHost: h\r\n\r\n")
			res, err := http.ReadResponse(r, nil)
			if err == nil {
				var b []byte
				b, err = io.ReadAll(res.Body)
				if strings.Contains(string(b), "evil") || res.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s: got %q %v", name, b, res.Header)
				}
			}
			if err != nil || res.Close {
				conn, r = n.raw(t, "")
			}
			go func() { _, _ = io.WriteString(conn, "GET /own HTTP/1.1\r\nHost: h\r\n\r\n") }()
			res, err = http.ReadResponse(r, nil)
			if err != nil {
				t.Errorf("%s: the next call: %v", name, err)
				return
			}
			if b, _ := io.ReadAll(res.Body); string(b) != "own" {
				t.Errorf("%s: the next call got %q", name, b)
			}
		})
	}
}

// TestACallThatIsRefusedWithItsBodyOnTheWayEndsItsConnection has a client send a body that nobody reads, which holds
// what looks like a request.
func TestACallThatIsRefusedWithItsBodyOnTheWayEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls []string
		var mu sync.Mutex
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, r.URL.Path)
		})
		file := "listen: gw:80\nlimits: {body_bytes: 10}\nupstreams: {up: {endpoints: 'http://a:1'}}\nroutes:\n- {name: all, match: {path: /in}, upstream: up}\n"
		n.start(t, file, nil)
		inner := "GET /in/evil HTTP/1.1\r\nHost: h\r\n\r\n"
		for _, head := range []string{
			"POST /nowhere HTTP/1.1\r\nHost: h\r\n", "POST /in HTTP/1.1\r\nHost: h\r\n", "TRACE /in HTTP/1.1\r\nHost: h\r\n", "POST /in/../x HTTP/1.1\r\nHost: h\r\n",
			"POST /in HTTP/1.1\r\nHost: h@evil\r\n",
		} {
			for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
				conn, err := n.dial(t.Context(), "tcp", "gw:80")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					_, _ = fmt.Fprintf(conn, "%s%sContent-Length: %d\r\n\r\n%s", head, expect, 2*len(inner), inner+inner)
				}()
				r := bufio.NewReader(conn)
				answers := 0
				for {
					res, err := http.ReadResponse(r, nil)
					if err != nil {
						break
					}
					_, _ = io.Copy(io.Discard, res.Body)
					if res.StatusCode >= 200 {
						answers++
					}
					if res.StatusCode < 400 && res.StatusCode >= 200 {
						t.Errorf("%q: answered %d", head, res.StatusCode)
					}
				}
				_ = conn.Close()
				if answers > 1 {
					t.Errorf("%q: %d answers", head, answers)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(strings.Join(calls, " "), "evil") {
			t.Errorf("the upstream saw %v", calls)
		}
	})
}

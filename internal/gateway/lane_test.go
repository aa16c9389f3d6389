package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
)

// rawServer answers on real sockets by writing what answer returns for the n-th request of a connection, both from 1;
// then hang up says whether it closes the connection.
func rawServer(t *testing.T, answer func(conn, n int) (text string, hangUp bool)) (url string, conns, ended *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	conns, ended = new(atomic.Int64), new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := int(conns.Add(1))
			go func() {
				defer ended.Add(1)
				defer c.Close()
				in := bufio.NewReader(c)
				for n := 1; ; n++ {
					if _, err := http.ReadRequest(in); err != nil { //nolint:bodyclose // there is none
						return
					}
					text, hangUp := answer(conn, n)
					if _, err := io.WriteString(c, text); err != nil || hangUp {
						return
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String(), conns, ended
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

// behind gives a client's view of a gateway before the endpoint, on real sockets.
func behind(t *testing.T, policy, endpoint string) func(method, path string) (status int, body string) {
	t.Helper()
	c, err := Load("test", []byte(strings.Replace(one(policy, endpoint), "gw:80", "127.0.0.1:0", 1)))
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	<-g.Ready()
	t.Cleanup(func() { stop(); <-ended })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	return func(method, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.Addr().String()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
}

const single = "{retry: {off: true}, breaker: {off: true}}"

func TestALaneUsesItsConnectionsAgain(t *testing.T) {
	answers := []string{
		fine,
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX-After: 1\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine,
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
	}
	url, conns, _ := rawServer(t, func(_, n int) (string, bool) { return answers[n%len(answers)], false })
	call := behind(t, single, url)
	for i := 1; i <= 20; i++ {
		if status, body := call("GET", "/"); status != []int{200, 204, 200, 200, 404}[i%5] || status == 200 && body != "fine" {
			t.Errorf("call %d: %d %q", i, status, body)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 20 calls", conns.Load())
	}
}

func TestALaneLeavesAConnectionThatWillEnd(t *testing.T) {
	for name, answer := range map[string]string{
		"close":               "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine",
		"until the end":       "HTTP/1.1 200 OK\r\n\r\nfine",
		"HTTP/1.0":            "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
		"without a word":      fine,
		"more than was asked": fine + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
	} {
		t.Run(name, func(t *testing.T) {
			url, conns, ended := rawServer(t, func(int, int) (string, bool) { return answer, name != "more than was asked" })
			call := behind(t, single, url)
			for i := range int64(5) {
				if status, body := call("GET", "/"); status != 200 || body != "fine" {
					t.Errorf("%d %q", status, body)
				}
				eventually(t, func() bool { return ended.Load() == i+1 })
			}
			if conns.Load() != 5 {
				t.Errorf("%d connections for 5 calls", conns.Load())
			}
		})
	}
}

// TestWhatNobodyAskedForIsNoAnswer has an endpoint speak on a connection that lies idle.
func TestWhatNobodyAskedForIsNoAnswer(t *testing.T) {
	spoken, answered := make(chan struct{}, 8), make(chan struct{}, 8)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if _, err := http.ReadRequest(in); err != nil { //nolint:bodyclose // there is none
					return
				}
				_, _ = io.WriteString(c, fine)
				<-answered
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				spoken <- struct{}{}
				_, _ = io.Copy(io.Discard, in)
			}()
		}
	}()
	call := behind(t, single, "http://"+l.Addr().String())
	for range 5 {
		if status, body := call("GET", "/"); status != 200 || body != "fine" {
			t.Errorf("%d %q", status, body)
		}
		answered <- struct{}{}
		<-spoken
	}
}

func TestALaneSendsNothingTwiceByItself(t *testing.T) {
	var asked atomic.Int64
	url, _, _ := rawServer(t, func(_, n int) (string, bool) {
		asked.Add(1)
		if n == 2 {
			return "", true
		}
		return fine, false
	})
	call := behind(t, single, url)
	if status, _ := call("GET", "/"); status != 200 {
		t.Errorf("first: %d", status)
	}
	if status, _ := call("GET", "/"); status != 502 || asked.Load() != 2 {
		t.Errorf("second: %d after %d requests", status, asked.Load())
	}
	if status, _ := call("GET", "/"); status != 200 {
		t.Errorf("third: %d", status)
	}
}

func TestALaneBoundsTheHeadOfAnAnswer(t *testing.T) {
	hints := strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInformational+1)
	for name, answer := range map[string]string{
		"head":  "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", answerHeadBytes) + "\r\nContent-Length: 4\r\n\r\nfine",
		"hints": hints + fine,
		"text":  "garbage\r\n\r\n",
		"other": "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"low":   "HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n",
		"lower": "HTTP/1.1 +12 What\r\nContent-Length: 0\r\n\r\n",
		"both":  "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine",
	} {
		url, _, _ := rawServer(t, func(int, int) (string, bool) { return answer, true })
		if status, body := behind(t, single, url)("GET", "/"); status != 502 {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
}

func TestALaneIsSweptOfWhatTheEndpointClosed(t *testing.T) {
	a, b := net.Pipe()
	var l lane
	l.put(newLink(a))
	_ = b.Close()
	l.sweep()
	if len(l.idle) != 0 || l.timer != nil {
		t.Errorf("%d connections are left", len(l.idle))
	}
	a, b = net.Pipe()
	defer b.Close()
	l.put(newLink(a))
	l.sweep()
	if len(l.idle) != 1 {
		t.Error("one that is fit was closed")
	}
	l.close()
	if _, err := b.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // a pipe says just that
		t.Errorf("after close: %v", err)
	}
}

// TestALaneEndsWithItsEndpoint has an endpoint leave, come back, and go with its upstream; the connections go with it, and
// with the gateway.
func TestALaneEndsWithItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		leave := make(chan struct{})
		for _, address := range []string{"a:1", "b:1"} {
			n.serve(t, address, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-leave
				}
				_, _ = io.WriteString(w, "fine")
			})
		}
		c := load(t, one("{}", "http://a:1"))
		g, err := New(c, Options{Listen: n.listen, Dial: n.dial})
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		<-g.Ready()
		client := n.client(t)
		place := func() *endpoint {
			cfg := g.upstreams["up"].cfg.Load()
			return cfg.places[cfg.names[0]]
		}
		idle := func(e *endpoint) int {
			e.lane.mu.Lock()
			defer e.lane.mu.Unlock()
			return len(e.lane.idle)
		}
		a := place()
		get(t, client, "http://gw:80/")
		if idle(a) != 1 {
			t.Errorf("%d connections are kept", idle(a))
		}
		slow := make(chan answer, 1)
		go func() { slow <- get(t, client, "http://gw:80/slow") }()
		synctest.Wait()
		must(t, g.Reload(load(t, one("{}", "http://b:1"))))
		close(leave)
		if s := <-slow; s.body != "fine" || idle(a) != 0 {
			t.Errorf("after the endpoint left: %+v, %d connections are kept", s, idle(a))
		}
		must(t, g.Reload(load(t, one("{}", "http://a:1"))))
		get(t, client, "http://gw:80/")
		if a = place(); idle(a) != 1 {
			t.Errorf("after it came back %d connections are kept", idle(a))
		}
		must(t, g.Reload(load(t, strings.ReplaceAll(strings.ReplaceAll(one("{}", "http://a:1"), "{up:", "{other:"), "upstream: up", "upstream: other"))))
		if idle(a) != 0 {
			t.Errorf("after its upstream left %d connections are kept", idle(a))
		}
		must(t, g.Reload(c))
		get(t, client, "http://gw:80/")
		a = place()
		stop()
		<-ended
		if idle(a) != 0 {
			t.Errorf("after the end %d connections are kept", idle(a))
		}
	})
}

// TestATimeThatIsOverCostsNoConnections begins an attempt too late, with connections at hand.
func TestATimeThatIsOverCostsNoConnections(t *testing.T) {
	a := attemptFor("GET")
	a.x.g = &Gateway{options: Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }}}
	a.headBy, a.why = time.Unix(1, 0), longpole.ErrTryTimeout
	l := &lane{}
	defer l.close()
	for range 3 {
		near, far := net.Pipe()
		defer far.Close()
		l.put(newLink(near))
	}
	if _, err := a.direct(l, &endpoint{location: location{url: a.out.URL}}); err == nil || !errors.Is(a.cause(), longpole.ErrTryTimeout) { //nolint:bodyclose // there is none
		t.Errorf("%v, because of %v", err, a.cause())
	}
	a.close(call.Timeout)
	if len(l.idle) != 2 {
		t.Errorf("%d of 3 connections are left", len(l.idle))
	}
}

func TestAnAnswerThatCallsItselfHTTP2IsNotDelimitedForThat(t *testing.T) {
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader("HTTP/2.0 200 OK\r\n\r\nfi")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if delimited(res) {
		t.Error("a cut answer would be kept as a whole one")
	}
}

// FuzzCompose holds what a lane writes against what http.Request.Write does: a server must read the same from both.
func FuzzCompose(f *testing.F) {
	f.Add("GET", "/a/b", "", "q=1", "h.example", "X-A", "1", "")
	f.Add("POST", "/a b", "/a%20b", "", "[::1%25en0]:80", "User-Agent", "x", "body")
	f.Add("PUT", "", "", "", "h", "Content-Length", "7", "")
	f.Add("DELETE", "/%", "", "a b", "h/x", "User-Agent", "", "")
	f.Add("GET", "/é~_-.", "", "é", "é.example", "Te", " trailers\t", "")
	f.Fuzz(func(t *testing.T, method, path, raw, query, host, name, value, body string) {
		if !isToken(method) || method == http.MethodConnect || !isToken(name) || len(path)+len(raw) > 0 && !strings.HasPrefix(path, "/") || host == "" {
			return
		}
		r := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: "to:1", Path: path, RawPath: raw, RawQuery: query}, Host: host, Header: http.Header{}, Body: http.NoBody}
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
		if _, ok := r.Header["User-Agent"]; !ok {
			r.Header["User-Agent"] = silent
		}
		if body != "" {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		}
		l := &link{}
		err := l.compose(r, []byte(body))
		var theirs bytes.Buffer
		if werr := r.Write(&theirs); werr != nil || err != nil {
			if err == nil {
				t.Fatalf("composed what cannot be written: %v", werr)
			}
			return // ours may be stricter
		}
		ours, text := l.buf, theirs.Bytes()
		a, aerr := http.ReadRequest(bufio.NewReader(bytes.NewReader(ours)))
		b, berr := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if (aerr == nil) != (berr == nil) {
			t.Fatalf("%v; want %v\n%s\n%s", aerr, berr, ours, text)
		}
		if aerr != nil {
			return
		}
		one, _ := io.ReadAll(a.Body)
		two, _ := io.ReadAll(b.Body)
		same := maps.EqualFunc(a.Header, b.Header, func(x, y []string) bool { return slices.Equal(x, y) })
		if is, want := fmt.Sprint(a.Method, a.RequestURI, a.Host, a.ContentLength, string(one)), fmt.Sprint(b.Method, b.RequestURI, b.Host, b.ContentLength, string(two)); is != want || !same {
			t.Errorf("read as\n%s %v\nwant\n%s %v", is, a.Header, want, b.Header)
		}
	})
}

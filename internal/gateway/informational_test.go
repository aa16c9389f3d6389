package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEarlyHintsPassAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var hints atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			for i := range hints.Load() {
				w.Header().Set("Link", fmt.Sprintf("</%d>; rel=preload", i))
				w.Header().Set("Connection", "X-Hop")
				w.Header().Set("X-Hop", "1")
				w.WriteHeader(http.StatusEarlyHints)
			}
			w.Header().Del("Connection")
			w.Header().Del("X-Hop")
			w.Header().Set("Link", "final")
			_, _ = io.WriteString(w, "body")
		})
		n.start(t, one("{retry: {off: true}, breaker: {off: true}}", "http://a:1"), nil)
		ask := func(count int64) (links []string, got answer) {
			hints.Store(count)
			r := request(t, "GET", "http://gw:80/", nil)
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if h.Get("X-Hop") != "" {
					t.Errorf("hop-by-hop fields passed: %v", h)
				}
				links = append(links, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			}}))
			got = do(n.client(t), r)
			return links, got
		}
		if links, got := ask(2); fmt.Sprint(links) != "[103 </0>; rel=preload 103 </1>; rel=preload]" || got.body != "body" || got.header.Get("Link") != "final" || got.header.Get("X-Hop") != "" {
			t.Errorf("%v, %+v", links, got)
		}
		if links, got := ask(20); len(links) != passedInformational || got.body != "body" {
			t.Errorf("20 hints: %d passed, %+v", len(links), got)
		}
		if links, got := ask(1000); len(links) > passedInformational || got.status != 502 {
			t.Errorf("1000 hints: %d passed, %+v", len(links), got)
		}
	})
}

func TestAClientOfHTTP10GetsNoInformationalAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); _, _ = io.WriteString(w, "x") })
		n.start(t, one("{}", "http://a:1"), nil)
		_, r := n.raw(t, "GET / HTTP/1.0\r\nHost: h\r\n\r\n")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Errorf("got %+v, %v", res, err)
		}
	})
}

func TestTheEndpointDecidesWhetherTheBodyIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			b, _ := io.ReadAll(r.Body) // net/http sends 100 here
			_, _ = w.Write(b)
		})
		n.start(t, one("{retry: {off: true}}", "http://a:1"), nil)
		head := "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
		conn, r := n.raw(t, fmt.Sprintf(head, "/yes"))
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 100 {
			t.Fatalf("got %+v, %v", res, err)
		}
		_, _ = io.WriteString(conn, "body")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Fatalf("got %+v, %v", res, err)
		}
		_, r = n.raw(t, fmt.Sprintf(head, "/no"))
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 417 {
			t.Errorf("got %+v, %v: the client must not be asked for a body that nobody wants", res, err)
		}
	})
}

func TestEventsAreSentAtOnceAndOutliveTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			}
			for i := range 5 {
				if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(20 * time.Second):
				case <-r.Context().Done():
					return
				}
			}
		})
		g := n.start(t, one("{timeout: 30s}", "http://a:1"), nil)
		start := time.Now()
		res, err := n.client(t).Do(request(t, "GET", "http://gw:80/events", nil))
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(res.Body)
		for i := range 5 {
			line, err := r.ReadString('\n')
			if _, _ = r.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) || time.Since(start) != time.Duration(i)*20*time.Second {
				t.Fatalf("%d: %q, %v after %v", i, line, err, time.Since(start))
			}
		}
		_, _ = io.Copy(io.Discard, r)
		synctest.Wait()
		if s := g.Routes()[0]; s.Tally.Failed != 0 || s.Tally.Latency.Quantile(1) > time.Second {
			t.Errorf("the stream counts as %+v", s.Tally)
		}
		// Any other answer is bounded as a whole.
		if got := get(t, n.client(t), "http://gw:80/plain"); got.err == nil || got.took != 30*time.Second {
			t.Errorf("got %+v", got)
		}
	})
}

func TestASilentStreamIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		n.start(t, "limits: {stream_idle: 90s}\n"+one("{}", "http://a:1"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.err == nil || got.took != 90*time.Second {
			t.Errorf("got %+v", got)
		}
	})
}

func TestARouteMaySayThatItsAnswersAreLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Request-Timeout-Ms") != "" {
				t.Error("the endpoint is told of a deadline that does not hold")
			}
			for range 4 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1000))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Second)
			}
		})
		file := strings.Replace(one("{timeout: 30s}", "http://a:1"), "name: all,", "name: all, stream: true,", 1)
		n.start(t, file, nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.err != nil || len(got.body) != 4000 || got.took != 80*time.Second {
			t.Errorf("got %d bytes, %v after %v", len(got.body), got.err, got.took)
		}
	})
}

func TestAnEventStreamOverHTTP2IsFlushedAtOnce(t *testing.T) {
	more := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-more
	}))
	defer up.Close()
	g := run(t, load(t, strings.Replace(one("{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	res, err := h2cClient(t).Do(request(t, "GET", "http://"+g.Addr().String(), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 9)
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "data: 1\n\n" {
		t.Errorf("%q, %v", got, err)
	}
	close(more)
}

func TestAStreamOverHTTP2MayPauseForLongerThanAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			for range 4 {
				_, _ = io.WriteString(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(25 * time.Second)
			}
		})
		n.start(t, "limits: {stall_timeout: 10s}\n"+one("{timeout: 5m}", "http://a:1"), nil)
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{DialContext: n.dial, Protocols: p, DisableCompression: true}
		defer tr.CloseIdleConnections()
		for _, path := range []string{"/events", "/slow"} {
			if got := get(t, &http.Client{Transport: tr}, "http://gw:80"+path); got.err != nil || len(got.body) != 36 || got.took != 100*time.Second {
				t.Errorf("%s: %d bytes, %v after %v", path, len(got.body), got.err, got.took)
			}
		}
	})
}

package gateway

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/payload"
)

// with is a file with one route, all, that has more than a policy.
func with(more, policy string, endpoints ...string) string {
	return strings.Replace(one(policy, endpoints...), "policy:", more+", policy:", 1)
}

var long = strings.Repeat(`{"id": 1, "name": "a fine thing"},`, 500)

// typed answers with text of a media type; sized says whether its length is told.
func typed(kind, text string, sized bool, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		if sized {
			h.Set("Content-Length", fmt.Sprint(len(text)))
		}
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, text)
		}
	}
}

func TestAnswersAreEncodedAsTheClientLikes(t *testing.T) {
	huge := strings.Repeat(long, 20)
	for name, text := range map[string]string{"whole": long, "in parts": huge} {
		for _, sized := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.serve(t, "a:1", typed("application/json", text, sized, "Etag", `"v1"`, "Accept-Ranges", "bytes"))
				g := n.start(t, with("payload: {compress: {}}", "{}", "http://a:1"), nil)
				c := n.client(t)
				for accept, want := range map[string]string{"zstd, gzip, br": "zstd", "gzip": "gzip", "br;q=0.9, gzip;q=0.1": "br", "": "", "identity": ""} {
					got := get(t, c, "http://gw:80/", "Accept-Encoding", accept)
					plain, err := payload.Read([]byte(got.body), payload.Coding(want), 1<<20)
					if got.err != nil || err != nil || string(plain) != text {
						t.Fatalf("%s, %t, %q: %d bytes, %v, %v", name, sized, accept, len(plain), got.err, err)
					}
					h := got.header
					if h.Get("Content-Encoding") != want || h.Get("Vary") != "Accept-Encoding" {
						t.Errorf("%s, %t, %q: the head is %v", name, sized, accept, h)
					}
					if want != "" && (h.Get("Etag") != `W/"v1"` || h.Get("Accept-Ranges") != "" || len(got.body) > len(text)/4) {
						t.Errorf("%s, %t, %q: %d bytes, the head is %v", name, sized, accept, len(got.body), h)
					}
					if l := h.Get("Content-Length"); l != "" && l != fmt.Sprint(len(got.body)) {
						t.Errorf("%q: Content-Length %s of %d", accept, l, len(got.body))
					}
					head := do(c, request(t, http.MethodHead, "http://gw:80/", nil, "Accept-Encoding", accept))
					for _, name := range []string{"Content-Encoding", "Vary", "Etag"} {
						if head.header.Get(name) != h.Get(name) {
							t.Errorf("%q: HEAD says %s: %q, GET %q", accept, name, head.header.Get(name), h.Get(name))
						}
					}
				}
				synctest.Wait()
				s := g.Routes()[0]
				if s.Payload == nil || s.Payload.Encoded != 3 || s.Payload.OutBytes >= s.Payload.InBytes {
					t.Errorf("%+v", s.Payload)
				}
				if s.ResponseBytes.P99 < int64(len(text))*99/100 || s.ResponseBytes.P50 > int64(len(text))/4 {
					t.Errorf("%+v", s.ResponseBytes)
				}
			})
		}
	}
}

// An event reaches the client when it was sent, not when the next one is.
func TestAnEncodedStreamIsNotHeldBack(t *testing.T) {
	for _, kind := range []string{"application/x-ndjson", "text/event-stream"} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				for i := range 3 {
					_, _ = fmt.Fprintf(w, "event %d\n\n", i)
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			})
			n.start(t, with("payload: {compress: {codings: gzip, streams: true}}", "{}", "http://a:1"), nil)
			start := time.Now()
			res, err := n.client(t).Do(request(t, "GET", "http://gw:80/", nil, "Accept-Encoding", "gzip"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.Header.Get("Content-Encoding") != "gzip" {
				t.Fatal(res.Header)
			}
			events, err := gunzip(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, len("event 0\n\n"))
			for i := range 3 {
				if _, err := io.ReadFull(events, buf); err != nil || time.Since(start) != time.Duration(i)*time.Second {
					t.Fatalf("event %d came after %s: %q, %v", i, time.Since(start), buf, err)
				}
			}
			if _, err := events.Read(buf); err != io.EOF {
				t.Errorf("the end is %v", err)
			}
		})
	}
}

func TestAnEncodedAnswerThatBreaksOffIsNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, strings.Repeat(long, 10))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		g := n.start(t, with("payload: {compress: {}}", "{}", "http://a:1"), nil)
		for _, accept := range []string{"gzip", "br", "zstd"} {
			if got := get(t, n.client(t), "http://gw:80/", "Accept-Encoding", accept); got.err == nil {
				t.Errorf("%s: the part was taken for the whole", accept)
			}
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Tally.Failed != 3 {
			t.Errorf("%+v", s.Tally)
		}
	})
}

func TestAClientThatHasTheAnswerGets304(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			text, tag := "small", ""
			if r.URL.Path == "/own" {
				tag = `"own"`
			}
			if r.URL.Path == "/long" {
				text = strings.Repeat("x", 2000)
			}
			typed("text/plain", text, true, "Etag", tag, "Cache-Control", "max-age=5")(w, r)
		})
		n.start(t, with("payload: {etag: {max_bytes: 1KiB}}", "{}", "http://a:1"), nil)
		c := n.client(t)
		first := get(t, c, "http://gw:80/")
		tag := first.header.Get("Etag")
		if first.body != "small" || tag != payload.Tag([]byte("small")) {
			t.Fatalf("%+v", first)
		}
		for _, asked := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			again := get(t, c, "http://gw:80/", "If-None-Match", asked)
			if again.status != 304 || again.body != "" || again.header.Get("Etag") != tag || again.header.Get("Cache-Control") != "max-age=5" || again.header.Get("Content-Type") != "" {
				t.Errorf("%s: %+v", asked, again)
			}
		}
		if got := get(t, c, "http://gw:80/", "If-None-Match", `"other"`); got.status != 200 || got.body != "small" {
			t.Errorf("%+v", got)
		}
		if got := get(t, c, "http://gw:80/own", "If-None-Match", `"own"`); got.status != 304 {
			t.Errorf("the origin's own tag: %+v", got)
		}
		if got := get(t, c, "http://gw:80/long"); got.header.Get("Etag") != "" || len(got.body) != 2000 {
			t.Errorf("a long answer: %+v", got.header)
		}
	})
}

func TestAnAnswerThatIsTooLargeIsRefusedOrBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			size := 1000
			if r.URL.Path == "/more" {
				size = 1001
			}
			typed("text/plain", strings.Repeat("x", size), r.URL.RawQuery == "sized", "X-Upstream", "1")(w, r)
			if r.URL.RawQuery != "sized" {
				_ = http.NewResponseController(w).Flush()
			}
		})
		g := n.start(t, with("payload: {max_answer_bytes: 1000}", "{}", "http://a:1"), nil)
		c := n.client(t)
		for _, path := range []string{"/", "/?sized"} {
			if got := get(t, c, "http://gw:80"+path); got.status != 200 || len(got.body) != 1000 {
				t.Errorf("%s: %+v", path, got)
			}
		}
		if got := get(t, c, "http://gw:80/more?sized"); got.status != 502 || got.header.Get("X-Longpole-Error") != "answer_too_large" || got.header.Get("X-Upstream") != "" {
			t.Errorf("known: %+v", got)
		}
		if got := get(t, c, "http://gw:80/more"); got.err == nil || len(got.body) > 1000 {
			t.Errorf("unknown: %+v", got)
		}
		if got := do(c, request(t, "HEAD", "http://gw:80/more?sized", nil)); got.status != 200 {
			t.Errorf("HEAD: %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Tally.Failed != 2 {
			t.Errorf("%+v", s.Tally)
		}
	})
}

func TestSizesAreToldByRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var bytesIn atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bytesIn.Add(int64(len(b)))
			_, _ = w.Write(bytes.Repeat([]byte("x"), 2*len(b)))
		})
		g := n.start(t, one("{}", "http://a:1"), nil)
		for i := range 100 {
			size := 100
			if i >= 98 {
				size = 10_000
			}
			do(n.client(t), request(t, "PUT", "http://gw:80/", bytes.NewReader(make([]byte, size))))
		}
		synctest.Wait()
		s := g.Routes()[0]
		near := func(got, want int64) bool { return got > want*99/100 && got < want*101/100 }
		if !near(s.RequestBytes.P50, 100) || !near(s.RequestBytes.P99, 10_000) || !near(s.ResponseBytes.P50, 200) || !near(s.ResponseBytes.P99, 20_000) {
			t.Errorf("%+v, %+v", s.RequestBytes, s.ResponseBytes)
		}
		if s.RequestSizes.Sum() != bytesIn.Load() || s.ResponseSizes.Sum() != 2*bytesIn.Load() {
			t.Errorf("sums %d and %d", s.RequestSizes.Sum(), s.ResponseSizes.Sum())
		}
	})
}

func TestFaultsOfTheSideOfARoute(t *testing.T) {
	for more, want := range map[string]string{
		"payload: {compress: {level: best}}":                                     "compress.level",
		"mirror: {upstream: up, share: 1%}":                                      "mirror.upstream",
		"mirror: {upstream: none, share: 2}":                                     "mirror.share",
		"faults: [{name: a, share: 5%, abort: 503}]":                             "faults[0].ttl",
		"faults: [{name: a, share: 5%, abort: 503, ttl: 1m}, {name: a}]":         "faults[1].name",
		"faults: [{name: a, share: 5%, delay: {distribution: x}, ttl: 1m}]":      "delay.distribution",
		"faults: [{name: a, share: 5%, delay: {mean: 1s}, headers: 5, ttl: 1m}]": "headers",
	} {
		if _, err := Load("test", []byte(with(more, "{}", "http://a:1"))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", more, err, want)
		}
	}
	file := one("{}", "http://a:1") + "record: {share: 5, routes: [none], scrub: {headers: [Cookie]}}\n"
	_, err := Load("test", []byte(file))
	for _, want := range []string{"record.files.dir", "record.share", "record.routes[0]", "record.scrub.headers[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// The cache keeps an answer as it came; each client gets it as it likes it.
func TestWhatIsCachedIsEncodedForEachClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", typed("application/json", long, true, "Cache-Control", "max-age=60", "Etag", `"v1"`))
		g := n.start(t, with("payload: {compress: {}}", "{cache: {}}", "http://a:1"), nil)
		c := n.client(t)
		for range 2 {
			for _, accept := range []string{"gzip", "zstd", ""} {
				got := get(t, c, "http://gw:80/", "Accept-Encoding", accept)
				if plain, err := payload.Read([]byte(got.body), payload.Coding(accept), 1<<20); err != nil || string(plain) != long || got.header.Get("Content-Encoding") != accept {
					t.Errorf("%q: %v, %v", accept, got.header, err)
				}
				held := get(t, c, "http://gw:80/", "Accept-Encoding", accept, "If-None-Match", got.header.Get("Etag"))
				if held.status != 304 || held.header.Get("Etag") != got.header.Get("Etag") || held.header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%q: the client holds it: %d %v", accept, held.status, held.header)
				}
			}
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Tally.CacheHits < 6 {
			t.Errorf("%+v", s.Tally)
		}
	})
}

func TestAnswersAreEncodedOverHTTP2(t *testing.T) {
	up := httptest.NewServer(typed("text/html", long, true))
	t.Cleanup(up.Close)
	g := run(t, load(t, strings.Replace(with("payload: {compress: {}}", "{}", up.URL), "gw:80", "127.0.0.1:0", 1)), Options{})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	got := get(t, &http.Client{Transport: tr}, "http://"+g.Addr().String(), "Accept-Encoding", "br")
	if plain, err := payload.Read([]byte(got.body), payload.Brotli, 1<<20); err != nil || string(plain) != long || got.header.Get("Content-Encoding") != "br" {
		t.Errorf("%v, %v", got.header, err)
	}
}

// A body that broke off before its head was sent is an error of the upstream, and gives no half of it.
func TestAShortAnswerThatBreaksOffIs502(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", "5000")
			w.Header().Set("X-Upstream", "1")
			_, _ = io.WriteString(w, long[:3000])
		})
		for _, more := range []string{"payload: {compress: {}}", "payload: {etag: {}}"} {
			g, err := New(load(t, with(more, "{}", "http://a:1")), Options{Dial: n.dial})
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			g.Handler().ServeHTTP(w, request(t, "GET", "http://gw/", nil, "Accept-Encoding", "gzip"))
			if w.Code != 502 || w.Header().Get("X-Longpole-Error") != "upstream_error" || w.Header().Get("X-Upstream") != "" || w.Header().Get("Content-Encoding") != "" {
				t.Errorf("%s: %d %v", more, w.Code, w.Header())
			}
			g.roads.close()
		}
	})
}

func TestAMergedAnswerIsEncodedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", typed("application/json", "["+strings.TrimSuffix(long, ",")+"]", true))
		file := "listen: gw:80\nupstreams: {up: {endpoints: http://a:1}}\nroutes:\n- {name: all, upstream: up, payload: {compress: {}, etag: {}}, aggregate: {parts: [{name: one, path: /1}, {name: two, path: /2}]}}\n"
		n.start(t, file, nil)
		got := get(t, n.client(t), "http://gw:80/", "Accept-Encoding", "gzip")
		plain, err := payload.Read([]byte(got.body), payload.Gzip, 1<<20)
		if err != nil || got.header.Get("Content-Encoding") != "gzip" || len(plain) < 2*len(long) {
			t.Fatalf("%d bytes, %v, %v", len(plain), got.header, err)
		}
	})
}

func TestFaultsNeedCallsThatAreForwarded(t *testing.T) {
	n := newNetwork()
	g, err := New(load(t, "upstreams: {up: {endpoints: http://a:1}}\nroutes:\n- {name: all, static: {status: 200, body: x}}\n"), Options{Dial: n.dial})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.StartFault("all", fault.Config{Name: "f", Share: 1, TTL: 1, Abort: 500}); !errors.Is(err, ErrNotForwarded) {
		t.Error(err)
	}
}

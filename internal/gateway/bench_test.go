package gateway

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answerer is an endpoint that costs next to nothing: it answers every request that it reads the end of.
func answerer(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 128\r\n\r\n" + strings.Repeat("x", 128))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := c.Write(reply); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// asker sends one request after another and reads what is known to come.
func asker(b *testing.B, address string) {
	b.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ask := []byte("GET /items/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n")
	r := bufio.NewReader(c)
	round := func() {
		if _, err := c.Write(ask); err != nil {
			b.Fatal(err)
		}
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(128); err != nil {
			b.Fatal(err)
		}
	}
	for range 200 {
		round()
	}
	b.ReportAllocs()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		round()
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(spent)/float64(b.N)/float64(time.Microsecond), "cpu-µs/op")
}

// BenchmarkDirect is what the client and the endpoint of the others cost by themselves.
func BenchmarkDirect(b *testing.B) { asker(b, strings.TrimPrefix(answerer(b), "http://")) }

// BenchmarkForward is one call through the gateway with all default policies; BenchmarkReverseProxy is its measure.
func BenchmarkForward(b *testing.B) {
	c, err := Load("bench", []byte(strings.Replace(one("{}", answerer(b)), "gw:80", "127.0.0.1:0", 1)))
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(c, Options{})
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx := b.Context()
	go func() { ended <- g.Run(ctx) }()
	<-g.Ready()
	b.Cleanup(func() { <-ended })
	asker(b, g.Addr().String())
}

// BenchmarkReverseProxy is a bare httputil.ReverseProxy, tuned as the gateway is: idle connections, buffers, timeouts.
func BenchmarkReverseProxy(b *testing.B) {
	to, err := url.Parse(answerer(b))
	if err != nil {
		b.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host; r.SetXForwarded() },
		BufferPool: bufferPool{},
		Transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleTime,
			ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10,
		},
	}
	s := httptest.NewUnstartedServer(p)
	s.Config.ReadHeaderTimeout, s.Config.IdleTimeout = 10*time.Second, 2*time.Minute
	s.Start()
	b.Cleanup(s.Close)
	asker(b, strings.TrimPrefix(s.URL, "http://"))
}

type bufferPool struct{}

func (bufferPool) Get() []byte  { return chunks.Get().(*[32 << 10]byte)[:] }
func (bufferPool) Put(p []byte) { chunks.Put((*[32 << 10]byte)(p)) }

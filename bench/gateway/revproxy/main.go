// Command revproxy is the yardstick of the gateway's bench: httputil.ReverseProxy, tuned, and nothing else. No policy, no
// log, no route; buffers are pooled, connections to the backend are kept, and both HTTP/1.1 and HTTP/2 are spoken.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/metrics"
	"sync"
	"time"
)

// buffers is a pool of copy buffers.
type buffers struct{ sync.Pool }

// Get returns a buffer of 32 KiB.
func (b *buffers) Get() []byte {
	if p, ok := b.Pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put takes a buffer back.
func (b *buffers) Put(p []byte) { b.Pool.Put(&p) }

func main() {
	listen := flag.String("listen", "127.0.0.1:9111", "`address` for HTTP/1.1 and HTTP/2 in the clear")
	secure := flag.String("tls", "127.0.0.1:9411", "`address` for TLS")
	backend := flag.String("backend", "http://127.0.0.1:9000", "`URL` of the backend")
	cert := flag.String("cert", "", "`file` of the certificate")
	key := flag.String("key", "", "`file` of its key")
	admin := flag.String("metrics", "127.0.0.1:9911", "`address` that tells the number of allocations")
	flag.Parse()
	target, err := url.Parse(*backend)
	if err != nil {
		log.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096,
			IdleConnTimeout: 10 * time.Minute, DisableCompression: true,
		},
		BufferPool: &buffers{},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := func(address string) *http.Server {
		return &http.Server{Addr: address, Handler: proxy, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Minute}
	}
	ended := make(chan error, 3)
	go func() { ended <- server(*listen).ListenAndServe() }()
	go func() { ended <- server(*secure).ListenAndServeTLS(*cert, *key) }()
	go func() { ended <- http.ListenAndServe(*admin, http.HandlerFunc(allocations)) }()
	fmt.Fprintln(os.Stderr, cmp.Or(<-ended, io.EOF))
	os.Exit(1)
}

// allocations answers in the text that Prometheus reads.
func allocations(w http.ResponseWriter, _ *http.Request) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	metrics.Read(s)
	fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", s[0].Value.Uint64()+s[1].Value.Uint64())
}

package httpcache

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"time"
)

// Wishes are what a request asks of a kept answer (RFC 9111 section 5.2.1). The zero value takes any that is fresh.
type Wishes struct {
	NoStore      bool          // neither keep nor give a kept one
	Confirm      bool          // only one that the origin has just confirmed: no-cache, max-age=0, or Pragma alone
	OnlyIfCached bool          // never ask the origin
	MaxAge       time.Duration // no older than this; 0 = any age
	MinFresh     time.Duration // still fresh for so long
	MaxStale     time.Duration // may be stale for so long
}

// forever is longer than anything is kept.
const forever = maxSeconds * time.Second

// WishesOf reads them from a request's header.
func WishesOf(h http.Header) (w Wishes) {
	lines := h["Cache-Control"]
	if len(lines) == 0 {
		w.Confirm = len(h["Pragma"]) > 0 && pragmaNoCache(h)
		return w
	}
	d := ParseDirectives(lines)
	w.NoStore = d.Has("no-store")
	w.OnlyIfCached = d.Has("only-if-cached")
	w.MinFresh, _ = d.Seconds("min-fresh")
	age, said := d.Seconds("max-age")
	w.MaxAge = age
	w.Confirm = d.Has("no-cache") || said && age == 0
	if v, ok := d.Value("max-stale"); ok {
		if w.MaxStale, _ = seconds(v); v == "" {
			w.MaxStale = forever
		}
	}
	return w
}

func pragmaNoCache(h http.Header) bool {
	d := ParseDirectives(h["Pragma"])
	return d.Has("no-cache")
}

// overriding are fields by which some frameworks let a request stand for another one than its line says. They are in no
// key, so a request that has one is not for a cache. Names are in lower case, with - for _.
var overriding = map[string]bool{
	"x-http-method-override": true, "x-http-method": true, "x-method-override": true,
	"x-original-url": true, "x-rewrite-url": true, "x-original-host": true, "x-original-uri": true,
	"x-host": true, "x-http-host-override": true, "x-http-path-override": true, "x-http-destinationurl": true,
}

// Overrides reports whether a request has a field that may make the origin answer something other than what its method
// and target say, such as X-HTTP-Method-Override.
func Overrides(h http.Header) bool {
	for name := range h {
		if name == "" || name[0]|0x20 != 'x' {
			continue
		}
		if len(name) <= 32 && overriding[strings.ReplaceAll(strings.ToLower(name), "_", "-")] {
			return true
		}
	}
	return false
}

// maxKey bounds a key in bytes. A longer one ends in a digest of the whole.
const maxKey = 1 << 10

// Key names what a request is about: scope tells apart what shares a store, target is the path and query as they are
// sent to the origin, byte for byte. The method is no part of it, as GET and HEAD share answers. The parts are parted by
// a byte that none of them can hold, so no two requests share a key by chance or by design. At most 1 KiB.
func Key(scope, scheme, host, target string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return bounded(strings.Join([]string{scope, scheme, host, target}, "\n"))
}

func bounded(key string) string {
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return key[:maxKey-len(sum)-1] + "\n" + string(sum[:])
}

package httpcache

import (
	"net/http"
	"net/url"
	"strings"
)

// Unsafe reports whether a method may change what its target stands for (RFC 9110 section 9.2.1). One that is not known
// is taken to.
func Unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "PROPFIND", "REPORT", "SEARCH":
		return false
	}
	return true
}

// Invalidated are the targets (path and query) of the same host whose kept answers an unsafe request to target has made
// worthless: its own, and those that a good answer with the header h names in Location and Content-Location (RFC 9111
// section 4.4). There are none when the request failed. What names another host is ignored: nobody may take away
// what is not his.
func Invalidated(scheme, host, target string, status int, h http.Header) []string {
	if status < 200 || status >= 400 {
		return nil
	}
	targets := []string{target}
	base, err := url.Parse(scheme + "://" + host + target)
	if err != nil {
		return targets
	}
	for _, name := range []string{"Location", "Content-Location"} {
		lines := h[name]
		if len(lines) == 0 {
			continue
		}
		u, err := base.Parse(lines[0])
		if err != nil || !sameHost(base, u) {
			continue
		}
		if t := u.RequestURI(); !strings.HasPrefix(t, "/") || t == target {
			continue
		} else {
			targets = append(targets, t)
		}
	}
	return targets
}

func sameHost(a, b *url.URL) bool {
	plain := func(u *url.URL) string {
		host := strings.ToLower(u.Host)
		if u.Scheme == "https" {
			return strings.TrimSuffix(host, ":443")
		}
		return strings.TrimSuffix(host, ":80")
	}
	return a.Scheme == b.Scheme && plain(a) == plain(b)
}

package gateway

import (
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// hopByHop are the fields that belong to one connection (RFC 9110 section 7.6.1), whatever Connection names.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// stripHopByHop removes from h what must not pass the gateway.
func stripHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// hasToken reports whether a comma-separated field names token.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(part), token) {
				return true
			}
		}
	}
	return false
}

// ours reports whether only a proxy may set a field. Some servers take _ for -, so both spellings are caught.
func ours(name string) bool {
	if c := name[0] | 0x20; c != 'x' && c != 'f' && c != 'p' {
		return false
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return strings.HasPrefix(name, "x-forwarded-") || slices.Contains([]string{"forwarded", "x-real-ip", "proxy"}, name)
}

// forwardHeader is the header of r as every attempt sends it, less what names the attempt.
func forwardHeader(r *http.Request) http.Header {
	h := r.Header.Clone()
	trailers := hasToken(h["Te"], "trailers")
	stripHopByHop(h)
	for name := range h {
		if name == "" || ours(name) {
			delete(h, name)
		}
	}
	// net/http answers 100-continue itself, when the body is first read.
	delete(h, "Expect")
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // or the transport would put its own there
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	scheme := schemeOf(r)
	h["X-Forwarded-For"] = []string{client}
	h["X-Forwarded-Host"] = []string{r.Host}
	h["X-Forwarded-Proto"] = []string{scheme}
	h["Via"] = append(slices.Clone(h["Via"]), via(r.ProtoMajor, r.ProtoMinor))
	return h
}

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

const pseudonym = "longpole"

func via(major, minor int) string {
	switch {
	case major == 2:
		return "2 " + pseudonym
	case minor == 0:
		return "1.0 " + pseudonym
	}
	return "1.1 " + pseudonym
}

// maxHops is how often a call may pass gateways like this one before it is taken to go in a circle.
const maxHops = 10

func looping(r *http.Request) bool {
	n := 0
	for _, line := range r.Header["Via"] {
		n += strings.Count(line, " "+pseudonym)
	}
	return n >= maxHops
}

// upgrades reports whether the client asks for another protocol. h2c is not meant: the offer may be ignored
// (RFC 9110 section 7.8), and HTTP/2 in the clear works by prior knowledge.
func upgrades(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return true
	}
	wants := r.Header["Upgrade"]
	return len(wants) > 0 && hasToken(r.Header["Connection"], "upgrade") && !hasToken(wants, "h2c")
}

// climbs reports whether a path holds a dot segment. Clients resolve these (RFC 3986 section 5.2.4); a path that still
// has one may mean another place to the upstream than to the match of the route.
func climbs(path string) bool {
	if !strings.Contains(path, "/.") {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

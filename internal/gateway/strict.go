package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// What a request line and a head may hold at most. The bytes of a head are bounded by Limits.HeaderBytes.
const (
	maxMethod = 32
	maxTarget = 16 << 10
	maxFields = 256 // lines
)

// malformed finds what net/http lets pass but a server behind this one might take for something else. "" = nothing. A
// request over HTTP/2 is held to the rules of the HTTP/1.1 that it may become.
func malformed(r *http.Request) string {
	switch {
	case len(r.Method) > maxMethod || !isToken(r.Method):
		return "want a method of 1..32 token characters"
	case len(r.RequestURI) > maxTarget:
		return "want a target of at most 16384 bytes"
	case !cleanTarget(r.RequestURI):
		return "want a target without space, fragment, control or non-ASCII characters"
	case r.URL.User != nil:
		return "want a target without a user"
	case strings.Contains(r.URL.Path, "\x00"):
		return "want a path without NUL"
	case r.Host != "" && !isHost(r.Host):
		return "want a host that is one"
	case differs(r):
		return "want one host, not two"
	}
	lines := 0
	for name, values := range r.Header {
		lines += len(values)
		if !cleanField(name, values) {
			return "want header fields without control characters"
		}
	}
	if lines > maxFields {
		return "want at most 256 header fields"
	}
	if r.ProtoMajor == 2 {
		return connectionSpecific(r)
	}
	return ""
}

// differs reports an HTTP/2 request whose host field is not its :authority (RFC 9113 section 8.3.1). net/http has dropped
// the field of an HTTP/1.1 one in favour of an absolute target, as RFC 9112 section 3.2.2 asks.
func differs(r *http.Request) bool {
	lines := r.Header["Host"]
	return len(lines) > 1 || len(lines) == 1 && !strings.EqualFold(lines[0], r.Host)
}

// connectionSpecific finds the fields that HTTP/2 has no place for (RFC 9113 section 8.2.2), most of which net/http refuses
// by itself, and a length that is none, which it takes for 0.
func connectionSpecific(r *http.Request) string {
	for _, name := range [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade"} {
		if _, has := r.Header[name]; has {
			return "want no connection-specific field over HTTP/2"
		}
	}
	if l := r.Header["Content-Length"]; len(l) > 1 || len(l) == 1 && !isNumber(l[0]) {
		return "want one content-length in digits"
	}
	if te, has := r.Header["Te"]; has && !slices.Equal(te, []string{"trailers"}) {
		return "want no te but trailers over HTTP/2"
	}
	return ""
}

// isHost reports whether s is a host, with a port or without, in ASCII as names travel (RFC 3986 section 3.2.2). What could
// not be sent as one would look like a fault of the endpoint.
func isHost(s string) bool {
	name, rest, literal := s, "", strings.HasPrefix(s, "[")
	if end := strings.IndexByte(s, ']'); literal && end > 0 {
		name, rest = s[1:end], s[end+1:]
	} else if i := strings.IndexByte(s, ':'); !literal && i >= 0 {
		name, rest = s[:i], s[i:]
	} else if literal {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-._~!$&'()*+;=", c) >= 0 {
			continue
		}
		if !literal || c != ':' && c != '%' {
			return false
		}
	}
	return name != "" && (rest == "" || rest[0] == ':' && strings.Trim(rest[1:], "0123456789") == "")
}

// isToken reports whether s is one (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// cleanTarget reports whether a target can stand in a request line as it is.
func cleanTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// cleanField reports whether a field has no byte that ends a line for somebody.
func cleanField(name string, values []string) bool {
	if !isToken(name) {
		return false
	}
	for _, v := range values {
		for i := range len(v) {
			if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
				return false
			}
		}
	}
	return true
}

// climbs reports whether a path holds a dot segment. Clients resolve these (RFC 3986 section 5.2.4); a path that still
// has one may mean another place to the upstream than to the match of the route. Some servers take \ for /.
func climbs(path string) bool {
	if !strings.Contains(path, "/.") && !strings.Contains(path, `\.`) {
		return false
	}
	for segment := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
		if segment == "." || segment == ".." || strings.HasPrefix(segment, "..;") || strings.HasPrefix(segment, ".;") {
			return true
		}
	}
	return false
}

package routing

import (
	"net/url"
	"strings"
)

// Canonical is the form in which paths are compared, of one in the form of a URL (url.URL.EscapedPath): every code is
// decoded, except those of / and %. A code that is none stays as it is. It allocates only for a path with a %.
func Canonical(escaped string) string {
	first := strings.IndexByte(escaped, '%')
	if first < 0 {
		return escaped
	}
	b := make([]byte, first, len(escaped))
	copy(b, escaped)
	for i := first; i < len(escaped); i++ {
		c := escaped[i]
		if c != '%' {
			b = append(b, c)
			continue
		}
		decoded, ok := code(escaped[i:])
		switch {
		case !ok:
			b = append(b, "%25"...)
			continue
		case decoded == '/':
			b = append(b, "%2F"...)
		case decoded == '%':
			b = append(b, "%25"...)
		default:
			b = append(b, decoded)
		}
		i += 2
	}
	return string(b)
}

// code reads %XX at the start of s.
func code(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, ok1 := hex(s[1])
	low, ok2 := hex(s[2])
	return high<<4 | low, ok1 && ok2
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// escapePath is the way back: canonical text as a part of a URL's path. Its slashes part segments, its codes stay.
func escapePath(canonical string) string {
	n := 0
	for i := range len(canonical) {
		if !inPath(canonical[i]) {
			n++
		}
	}
	if n == 0 {
		return canonical
	}
	b := make([]byte, 0, len(canonical)+2*n)
	for i := range len(canonical) {
		if c := canonical[i]; inPath(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

const digits = "0123456789ABCDEF"

// inPath reports whether a byte may stand in a path as it is (RFC 3986 section 3.3), / and the % of a code included.
func inPath(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@/%", c) >= 0
}

// plain is canonical text with its last codes decoded.
func plain(canonical string) string {
	if strings.IndexByte(canonical, '%') < 0 {
		return canonical
	}
	return strings.NewReplacer("%2F", "/", "%25", "%").Replace(canonical)
}

// climbs reports whether an escaped path holds a dot segment, be its slashes or dots encoded or not.
func climbs(escaped string) bool {
	if !strings.Contains(escaped, ".") && !strings.Contains(escaped, "%") {
		return false
	}
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// cutSegment parts the first segment of path, which has no leading slash, from the rest.
func cutSegment(path string) (segment, rest string, more bool) {
	return strings.Cut(path, "/")
}

// strip takes prefix, in canonical form, off an escaped path: at the end of a segment only. What is left
// starts with a slash, or is empty.
func strip(escaped, prefix string) (rest string, ok bool) {
	prefix = strings.TrimSuffix(prefix, "/")
	i := 0
	for j := 0; j < len(prefix); {
		if i == len(escaped) {
			return escaped, false
		}
		c, width := escaped[i], 1
		text := escaped[i : i+1]
		if c == '%' {
			decoded, isCode := code(escaped[i:])
			if !isCode {
				return escaped, false
			}
			width, text = 3, string([]byte{decoded})
			switch decoded {
			case '/':
				text = "%2F"
			case '%':
				text = "%25"
			}
		}
		if !strings.HasPrefix(prefix[j:], text) {
			return escaped, false
		}
		i, j = i+width, j+len(text)
	}
	if rest = escaped[i:]; rest != "" && rest[0] != '/' {
		return escaped, false
	}
	return rest, true
}

// HostOf is the host that an authority (the Host of a request) names: in lower case, without port, without the
// brackets of an IPv6 address. It allocates only for capitals.
func HostOf(authority string) string {
	host := authority
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") && (host[0] == '[' || strings.IndexByte(host, ':') == i) {
		host = host[:i]
	}
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

package recording

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Scrub is what of a request may be written.
type Scrub struct {
	Headers   []string `yaml:"headers"`    // fields that are kept; those with credentials never are; default: Accept, Accept-Encoding, Accept-Language, Content-Type
	HashQuery []string `yaml:"hash_query"` // parameters whose values are replaced by a hash; those with credentials always are; "*" = all
	HashIDs   bool     `yaml:"hash_ids"`   // true = path segments that look like identifiers are replaced by others of their shape
	BodyBytes int64    `yaml:"body_bytes"` // request bodies up to this are kept, as they are; 0 = none; up to 1MiB
}

// credentials are fields that open doors, or name a person. They are never written.
var credentials = []string{
	"Authorization", "Proxy-Authorization", "Cookie", "Cookie2", "Set-Cookie", "Www-Authenticate", "Authentication-Info", "X-Api-Key",
	"Api-Key", "Apikey", "X-Auth-Token", "X-Csrf-Token", "X-Xsrf-Token", "X-Amz-Security-Token", "X-Goog-Iap-Jwt-Assertion", "X-Access-Token",
	"X-Session-Id", "X-Session-Token", "X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Forwarded-Client-Cert", "X-Client-Identity", "X-Vault-Token",
}

// secretWords mark names that carry credentials, wherever they stand in them.
var secretWords = []string{"token", "secret", "password", "passwd", "apikey", "api_key", "api-key", "signature", "credential", "session", "auth", "jwt", "cookie"}

// secretNames carry them under a name that is too short to look for within others.
var secretNames = []string{"sig", "code", "key", "pwd", "pass", "sid", "otp", "pin"}

// Secret reports whether the name of a field or parameter is one that carries a credential.
func Secret(name string) bool {
	lower := strings.ToLower(name)
	if slices.Contains(secretNames, lower) {
		return true
	}
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(lower, w) })
}

// Credential reports whether a header field opens doors or names a person.
func Credential(name string) bool {
	return slices.Contains(credentials, http.CanonicalHeaderKey(name)) || Secret(name)
}

// scrubber is a compiled Scrub with the key of one file. It is used by one goroutine.
type scrubber struct {
	headers   []string
	hashAll   bool
	hashQuery []string
	hashIDs   bool
	bodyBytes int64
	mac       hash.Hash
}

// defaultHeaders change what is answered, and say nothing of who asks.
var defaultHeaders = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type"}

func newScrubber(c Scrub, secret []byte) *scrubber {
	s := &scrubber{hashQuery: c.HashQuery, hashAll: slices.Contains(c.HashQuery, "*"), hashIDs: c.HashIDs, bodyBytes: min(c.BodyBytes, MaxBodyBytes), mac: hmac.New(sha256.New, secret)}
	list := c.Headers
	if len(list) == 0 {
		list = defaultHeaders
	}
	for _, name := range list {
		if name = http.CanonicalHeaderKey(name); !Credential(name) && !slices.Contains(s.headers, name) {
			s.headers = append(s.headers, name)
		}
	}
	return s
}

// scrub is what of e may be written. e itself is not changed.
func (s *scrubber) scrub(e Entry) Entry {
	from := e.Header
	e.Header = nil
	for _, name := range s.headers {
		if values := from[name]; len(values) > 0 && len(e.Header) < maxFields {
			if e.Header == nil {
				e.Header = make(map[string][]string, len(s.headers))
			}
			e.Header[name] = values
		}
	}
	e.Query = s.query(e.Query)
	if s.hashIDs {
		e.Path = s.path(e.Path)
	}
	if n := int64(len(e.Body)); n > s.bodyBytes {
		e.Body, e.Clipped = nil, true
	}
	return e
}

// query replaces the values that must not be known, and keeps the rest byte by byte. Some servers part parameters by ;
// too.
func (s *scrubber) query(raw string) string {
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		if whole := s.parameter(part); whole != part || strings.IndexByte(part, ';') < 0 {
			parts[i] = whole
			continue
		}
		inner := strings.Split(part, ";")
		for k := range inner {
			inner[k] = s.parameter(inner[k])
		}
		parts[i] = strings.Join(inner, ";")
	}
	return strings.Join(parts, "&")
}

// parameter is query for one of them.
func (s *scrubber) parameter(text string) string {
	name, value, ok := strings.Cut(text, "=")
	plain, err := url.QueryUnescape(name)
	if err != nil {
		plain = name
	}
	switch {
	case ok && value != "" && (s.hashAll || slices.Contains(s.hashQuery, plain) || Secret(plain)):
		return name + "=" + s.token(value, 16)
	case !ok && text != "" && (s.hashAll || identifier(text)):
		return s.token(text, 16) // a value without a name may be anything
	}
	return text
}

// path replaces segments that look like identifiers.
func (s *scrubber) path(p string) string {
	segments := strings.Split(p, "/")
	for i, one := range segments {
		if identifier(one) {
			segments[i] = s.alike(one)
		}
	}
	return strings.Join(segments, "/")
}

// identifier reports a text that names one thing among many: digits, a UUID, a long text of hex digits, an address of
// mail, or a long mixture of letters and digits.
func identifier(s string) bool {
	digits, letters, hex, at := 0, 0, 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
			hex++
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			letters++
			hex++
		case c|0x20 >= 'g' && c|0x20 <= 'z':
			letters++
		case c == '@', c == '%' && strings.HasPrefix(strings.ToLower(s[i:]), "%40"):
			at = true
		}
	}
	dashes := strings.Count(s, "-")
	switch {
	case at:
		return true
	case digits == 0:
		return false
	case letters == 0 && digits+dashes == len(s):
		return true
	case hex+dashes == len(s) && hex >= 12:
		return true
	}
	return digits >= 3 && letters >= 3 && digits+letters+dashes+strings.Count(s, "_") == len(s) && len(s) >= 16
}

// alike is another text of the same shape: a digit for each digit, a letter for each letter, hex where all was hex.
func (s *scrubber) alike(text string) string {
	sum := s.sum(text)
	hex := strings.Trim(strings.ToLower(text), "0123456789abcdef-") == ""
	out := []byte(text)
	for i, c := range out {
		if i > 0 && i%len(sum) == 0 {
			s.mac.Reset()
			_, _ = s.mac.Write(sum)
			sum = s.mac.Sum(nil)
		}
		r := sum[i%len(sum)]
		switch {
		case c >= '0' && c <= '9':
			if out[i] = '0' + r%10; i == 0 && out[i] == '0' && c != '0' {
				out[i] = '1' + r%9 // a number does not begin with 0
			}
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			span := byte(26)
			if hex {
				span = 6
			}
			out[i] = c&0x20 | 'A' + r%span
		}
	}
	return string(out)
}

// token is a short keyed hash.
func (s *scrubber) token(value string, n int) string {
	return "h." + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(s.sum(value))[:n])
}

func (s *scrubber) sum(value string) []byte {
	s.mac.Reset()
	_, _ = s.mac.Write([]byte(value))
	return s.mac.Sum(nil)
}

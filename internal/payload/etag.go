package payload

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// Tags reports whether an answer is one to read whole, and to tag: a 200 to a GET of a known, small length that may be
// stored and is no stream. One that has a tag is taken too, as its origin may not know of If-None-Match.
func (p *Policy) Tags(method string, h http.Header, status int, length int64) bool {
	e := p.cfg.ETag
	if e == nil || method != http.MethodGet || status != http.StatusOK || length < 0 || length > e.MaxBytes {
		return false
	}
	kind := h["Content-Type"]
	return !listed(h["Cache-Control"], "no-store") && (len(kind) == 0 || !Streams(kind[0]))
}

// Tag is the strong entity tag of a body: 128 bits of its SHA-256 (RFC 9110 section 8.8.3).
func Tag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// Revalidate sets the tag of an answer of these bytes, unless it has one, and reports whether the client holds it
// already. Then h is that of the 304 (RFC 9110 section 15.4.5): without what describes a body.
func Revalidate(request, h http.Header, body []byte) (unmodified bool) {
	if h.Get("Etag") == "" {
		h["Etag"] = []string{Tag(body)}
	}
	if !Matches(request["If-None-Match"], h["Etag"][0]) {
		return false
	}
	for name := range h {
		if strings.HasPrefix(name, "Content-") && name != "Content-Location" {
			delete(h, name)
		}
	}
	return true
}

// maxTags bounds what is read of one If-None-Match.
const maxTags = 256

// Matches reports whether If-None-Match names tag, by the weak comparison of RFC 9110 section 8.8.3.2, or is "*".
func Matches(lines []string, tag string) bool {
	if len(lines) == 1 && trim(lines[0]) == "*" {
		return true
	}
	tag = strings.TrimPrefix(tag, "W/")
	return find(lines, func(t string) bool { return strings.TrimPrefix(t, "W/") == tag })
}

// asked reports whether If-None-Match holds exactly tag.
func asked(lines []string, tag string) bool {
	return find(lines, func(t string) bool { return t == tag })
}

// find walks the entity tags of a field. A tag may hold a comma, so the field is not merely split.
func find(lines []string, ok func(tag string) bool) bool {
	n := 0
	for _, line := range lines {
		for n < maxTags {
			line = strings.TrimLeft(line, " \t,")
			start := 0
			if strings.HasPrefix(line, "W/") {
				start = 2
			}
			if len(line) <= start || line[start] != '"' {
				break
			}
			end := strings.IndexByte(line[start+1:], '"')
			if end < 0 {
				break
			}
			end += start + 2
			if ok(line[:end]) {
				return true
			}
			line = line[end:]
			n++
		}
	}
	return false
}

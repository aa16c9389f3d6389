package httpcache

import (
	"maps"
	"net/http"
	"strings"
	"time"
)

// Preconditioned reports whether a request has a condition that only the origin may judge: If-Match or
// If-Unmodified-Since (RFC 9110 section 13.1).
func Preconditioned(h http.Header) bool {
	return len(h["If-Match"]) > 0 || len(h["If-Unmodified-Since"]) > 0
}

// NotModified reports whether a request whose header is h is to be answered with 304, because its client has a already
// (RFC 9110 sections 13.1.2, 13.1.3 and 13.2.2). Only an answer with status 200 can be.
func (a *Answer) NotModified(h http.Header, now time.Time) bool {
	if a.Status != http.StatusOK {
		return false
	}
	if lines := h["If-None-Match"]; len(lines) > 0 {
		tag := first(a.Header["Etag"])
		for _, line := range lines {
			for line != "" {
				var member string
				if member, line = cutMember(line); member == "*" || tag != "" && weak(member) == weak(tag) {
					return true
				}
			}
		}
		return false // If-Modified-Since does not count beside it
	}
	since, ok := dateOf(h, "If-Modified-Since", now)
	if !ok {
		return false
	}
	changed, ok := dateOf(a.Header, "Last-Modified", now)
	if !ok {
		if changed, ok = dateOf(a.Header, "Date", now); !ok {
			changed = a.Received
		}
	}
	return !changed.After(since)
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

func weak(tag string) string { return strings.TrimPrefix(tag, "W/") }

// Unmodified is the header of the 304 that stands for a, whose header is h and belongs to the caller: fields that
// describe a body are taken out (RFC 9110 section 15.4.5).
func Unmodified(h http.Header) {
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language", "Content-Range", "Accept-Ranges"} {
		delete(h, name)
	}
}

// Unconditional takes the fields out of h, the header of a request, by which its client asks for something other than
// the whole answer: conditions and ranges.
func Unconditional(h http.Header) {
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"} {
		delete(h, name)
	}
}

// Ask puts the conditions into h, the header of a request, by which the origin may confirm a (RFC 9111 section 4.3.1).
// It reports whether there are any.
func (a *Answer) Ask(h http.Header) bool {
	if tag := a.Header["Etag"]; len(tag) > 0 {
		h["If-None-Match"] = tag[:1]
	}
	if changed := a.Header["Last-Modified"]; len(changed) > 0 {
		h["If-Modified-Since"] = changed[:1]
	}
	return Validates(a.Header)
}

// ConfirmedBy reports whether a 304 with the header h, the answer to what Ask asked, is about a: a validator that it has
// must be that of a (RFC 9111 section 4.3.4).
func (a *Answer) ConfirmedBy(h http.Header) bool { return a.matches(h) }

func (a *Answer) matches(h http.Header) bool {
	if tag := first(h["Etag"]); tag != "" {
		return weak(tag) == weak(first(a.Header["Etag"]))
	}
	changed := first(h["Last-Modified"])
	return changed == "" || changed == first(a.Header["Last-Modified"])
}

// dependent are the fields that belong to the body that is kept: a message without a body does not replace them.
var dependent = map[string]bool{
	"Content-Length": true, "Content-Encoding": true, "Content-Range": true, "Transfer-Encoding": true, "Trailer": true,
}

// Refreshed is the header of a after a 304, or the answer to a HEAD, with the header h: what h has replaces what was
// there, except what belongs to the body (RFC 9111 section 3.2), and Set-Cookie, which is for one client. A field of the
// chain of caches that h does not have is that of an earlier answer, and goes. It shares no map with a.
func (a *Answer) Refreshed(h http.Header) http.Header {
	merged := make(http.Header, len(a.Header)+4)
	maps.Copy(merged, a.Header)
	for _, name := range []string{"Age", "Date", "Cache-Status", "Via", "Warning"} {
		delete(merged, name)
	}
	for name, lines := range h {
		if !dependent[name] && name != "Set-Cookie" && name != "Set-Cookie2" {
			merged[name] = lines
		}
	}
	return merged
}

// HeadTells says what the answer to a HEAD tells about a (RFC 9111 section 4.3.5): with same, that a is still what the
// origin has, so that Refreshed may be used; with other, that it is not. An answer that has nothing to compare by tells
// neither.
func (a *Answer) HeadTells(status int, h http.Header) (same, other bool) {
	if status != a.Status {
		return false, status < 500 && status != http.StatusNotModified
	}
	length := first(h["Content-Length"])
	switch {
	case !a.matches(h), length != "" && length != first(a.Header["Content-Length"]):
		return false, true
	case length == "" && !Validates(h):
		return false, false
	}
	return true, false
}

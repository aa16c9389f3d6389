package httpcache

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Cut is what a request with a Range asks for of an answer that is kept whole.
type Cut uint8

// The kinds of Cut.
const (
	Whole         Cut = iota // all of it: the request has no range, or one that may be ignored
	Part                     // one range: 206
	Unsatisfiable            // a range beyond the end: 416
)

// Cut reads the Range and If-Range of a request's header (RFC 9110 sections 13.1.5 and 14.2). from and to bound a Part:
// to is not in it. Several ranges, and ranges in other units than bytes, are ignored, as a server may.
func (a *Answer) Cut(h http.Header, now time.Time) (cut Cut, from, to int64) {
	lines := h["Range"]
	if len(lines) != 1 || a.Status != http.StatusOK || !a.sameRepresentation(h, now) {
		return Whole, 0, 0
	}
	unit, set, ok := strings.Cut(lines[0], "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(set, ",") {
		return Whole, 0, 0
	}
	low, high, ok := strings.Cut(strings.TrimSpace(set), "-")
	size := int64(len(a.Body))
	start, okStart := position(low)
	end, okEnd := position(high)
	switch {
	case !ok || !okStart || !okEnd || low == "" && high == "":
		return Whole, 0, 0
	case low == "" && (end == 0 || size == 0):
		return Unsatisfiable, 0, 0
	case low == "":
		return Part, size - min(end, size), size
	case high != "" && end < start:
		return Whole, 0, 0
	case start >= size:
		return Unsatisfiable, 0, 0
	case high == "":
		return Part, start, size
	}
	return Part, start, min(end, size-1) + 1
}

// position reads one end of a range; "" is 0. What is larger than any answer is as good as the largest.
func position(s string) (int64, bool) {
	n := int64(0)
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), 1<<50)
	}
	return n, true
}

// sameRepresentation reports whether an If-Range, if there is one, names exactly this answer: a strong tag, or the date
// of its last change.
func (a *Answer) sameRepresentation(h http.Header, now time.Time) bool {
	lines := h["If-Range"]
	if len(lines) == 0 {
		return true
	}
	if s := lines[0]; strings.HasPrefix(s, `"`) || strings.HasPrefix(s, "W/") {
		return s[0] == '"' && s == first(a.Header["Etag"])
	}
	want, ok := ParseDate(lines[0], now)
	changed, known := dateOf(a.Header, "Last-Modified", now)
	made, dated := dateOf(a.Header, "Date", now)
	// A change within the second of the answer would not show in the date (RFC 9110 section 8.8.2.2).
	return ok && known && dated && want.Equal(changed) && made.Sub(changed) >= time.Second
}

// ContentRange is the field of a 206 that has the bytes from..to of size.
func ContentRange(from, to, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", from, to-1, size)
}

// NoRange is the field of a 416 for an answer of that size.
func NoRange(size int64) string { return "bytes */" + strconv.FormatInt(size, 10) }

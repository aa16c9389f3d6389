package gateway

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

// What this cache does is the careful half of RFC 9111: an answer is kept, for a route whose owner has turned the cache
// on, when nothing in the request or in it speaks against that.

// uncacheable are the request fields that ask for an answer of one's own, or that frameworks take to override what the
// key is made of.
var uncacheable = []string{
	"Authorization", "Cookie", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Pragma",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Original-Host",
}

// cacheKey names the answer that r wants; "" = it must not be answered from a cache. The parts are parted by a byte
// that none of them can hold, so that no two requests share a key by chance or by design.
func cacheKey(r *http.Request, body *inbound) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !body.replayable() || len(body.kept) > 0 {
		return ""
	}
	for _, name := range uncacheable {
		if len(r.Header[name]) > 0 {
			return ""
		}
	}
	if control := directives(r.Header); control.has("no-store") || control.has("no-cache") || control.zero("max-age") {
		return ""
	}
	return strings.Join([]string{
		r.Method, schemeOf(r), strings.ToLower(r.Host), r.URL.EscapedPath(), r.URL.RawQuery,
		strings.Join(r.Header["Accept-Encoding"], ","), strings.Join(r.Header["Accept"], ","),
	}, "\n")
}

// control is the directives of Cache-Control, names in lower case.
type control map[string]string

func directives(h http.Header) control {
	lines := h["Cache-Control"]
	if len(lines) == 0 {
		return nil
	}
	c := make(control)
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
				continue
			}
			if _, twice := c[name]; !twice {
				c[name] = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
	}
	return c
}

func (c control) has(name string) bool { _, ok := c[name]; return ok }

func (c control) zero(name string) bool { v, ok := c[name]; return ok && strings.Trim(v, "0") == "" }

// seconds reads a directive; a value that cannot be read is 0, which is stale (RFC 9111 section 4.2.1).
func (c control) seconds(name string) (time.Duration, bool) {
	v, ok := c[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, true
	}
	return time.Duration(max(n, 0)) * time.Second, true
}

// lifetime is how long an answer may be kept; 0 with ok = it does not say.
func lifetime(res *http.Response, now time.Time) (ttl time.Duration, ok bool) {
	h := res.Header
	if res.StatusCode != http.StatusOK || len(h["Set-Cookie"]) > 0 || len(res.Trailer) > 0 || streams(res) {
		return 0, false
	}
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, "Accept-Encoding") && !strings.EqualFold(name, "Accept") {
				return 0, false
			}
		}
	}
	c := directives(h)
	if slices.ContainsFunc([]string{"no-store", "private", "no-cache"}, c.has) {
		return 0, false
	}
	ttl, said := c.seconds("s-maxage")
	if !said {
		ttl, said = c.seconds("max-age")
	}
	if !said {
		ttl, said = expires(h, now)
	}
	if !said {
		return 0, true
	}
	ttl -= age(h)
	return ttl, ttl > 0
}

// streams reports whether an answer is one that does not end soon.
func streams(res *http.Response) bool {
	return strings.HasPrefix(strings.ToLower(res.Header.Get("Content-Type")), "text/event-stream")
}

// expires reads the older way to say it; a date that cannot be read lies in the past.
func expires(h http.Header, now time.Time) (time.Duration, bool) {
	if len(h["Expires"]) == 0 {
		return 0, false
	}
	until, err := http.ParseTime(h.Get("Expires"))
	if err != nil {
		return 0, true
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, until.Sub(now)), true
}

func age(h http.Header) time.Duration {
	n, err := strconv.ParseInt(h.Get("Age"), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(max(n, 0)) * time.Second
}

// stored is a kept answer. It is immutable.
type stored struct {
	header http.Header
	body   []byte
	length int64 // as announced; for HEAD it is not that of body
	at     time.Time
	age    time.Duration // when it came
	bytes  int64
}

// Size is what the answer costs the cache.
func (s *stored) Size() int64 { return s.bytes }

// Keep makes an answer into a value, when its headers allow it and its body is short enough.
func (x *exchange) Keep(res *http.Response, limit int64) (v cache.Value, ttl time.Duration, rest *http.Response, ok bool) {
	now := time.Now()
	ttl, ok = lifetime(res, now)
	if !ok || res.ContentLength > limit && x.in.Method != http.MethodHead {
		return nil, 0, res, false
	}
	head := int64(0)
	for name, values := range res.Header {
		for _, value := range values {
			head += int64(len(name) + len(value) + 32)
		}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit-head+1))
	if err != nil || int64(len(body))+head > limit {
		res.Body = &rejoined{Reader: io.MultiReader(bytes.NewReader(body), &failing{err, res.Body}), Closer: res.Body}
		return nil, 0, res, false
	}
	_ = res.Body.Close()
	length := res.ContentLength
	if x.in.Method != http.MethodHead {
		length = int64(len(body))
		res.Header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	return &stored{
		header: res.Header, body: body, length: length, at: now, age: age(res.Header), bytes: int64(len(body)) + head,
	}, ttl, nil, true
}

type rejoined struct {
	io.Reader
	io.Closer
}

// failing gives an error that was met already, or reads on.
type failing struct {
	err error
	io.Reader
}

// Read reads on unless there is nothing to read.
func (f *failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Reader.Read(p)
}

// Open makes a kept answer into one of its own for a caller.
func (x *exchange) Open(v cache.Value, _ call.CacheState) *http.Response {
	s := v.(*stored)
	h := maps.Clone(s.header)
	h["Age"] = []string{strconv.FormatInt(int64((s.age+time.Since(s.at))/time.Second), 10)}
	res := &http.Response{StatusCode: http.StatusOK, Header: h, ContentLength: s.length, Body: http.NoBody}
	if len(s.body) > 0 {
		res.Body = io.NopCloser(bytes.NewReader(s.body))
	}
	return res
}

// cacheStatus says what the cache did (RFC 9211).
func cacheStatus(s call.CacheState) string {
	switch s {
	case call.Hit, call.Stale:
		return pseudonym + "; hit"
	case call.Coalesced:
		return pseudonym + "; fwd=miss; collapsed"
	case call.Miss:
		return pseudonym + "; fwd=miss"
	}
	return pseudonym + "; fwd=bypass"
}

// addCacheStatus appends ours after those of caches nearer to the origin. The lines are shared with a kept answer.
func addCacheStatus(h http.Header, s call.CacheState) {
	h["Cache-Status"] = append(slices.Clone(h["Cache-Status"]), cacheStatus(s))
}

package gateway

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/httpcache"
)

var (
	_ longpole.Selective[*http.Response] = (*exchange)(nil)
	_ longpole.Portable[*http.Response]  = (*exchange)(nil)
)

// caching is what an exchange knows of its route's cache.
type caching struct {
	key    string // "" = the call has nothing to do with it
	rules  httpcache.Rules
	wishes httpcache.Wishes
	learnt atomic.Pointer[httpcache.Variance] // on what of the request the answers for key depend; nil = not known
}

// rulesOf reads the settings of a policy.
func rulesOf(c *cache.Config) httpcache.Rules {
	if c == nil {
		return httpcache.Rules{Implicit: httpcache.ImplicitNone}
	}
	r := httpcache.Rules{TTL: c.TTL, NegativeTTL: c.NegativeTTL, Stale: c.StaleIfError > 0 || c.StaleWhileRevalidate > 0}
	switch c.Implicit {
	case "heuristic":
		r.Implicit = httpcache.ImplicitHeuristic
	case "none":
		r.Implicit = httpcache.ImplicitNone
	}
	return r
}

// cacheable prepares the call for the cache of its route, and returns its key; "" = it must not be answered from there.
func (v *visit) cacheable(body *inbound) string {
	x, h := v.x, v.r.Header
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead || x.mode != plain || v.route.cfg.Stream ||
		!body.none() || httpcache.Overrides(h) || httpcache.Preconditioned(h) {
		return ""
	}
	if x.cached.wishes = httpcache.WishesOf(h); x.cached.wishes.NoStore {
		return ""
	}
	x.cached.rules = v.arm.rules
	x.cached.key = x.keyOf(v.route, x.up, targetOf(v.r))
	return x.cached.key
}

// keyOf names the answers of a target as a route has them from an upstream. What the upstream is told of the scheme and
// of the host that the client asked for is part of it, as some put it into their answers.
func (x *exchange) keyOf(r *route, up *upstream, target string) string {
	scope := r.cfg.Name
	if up != nil {
		scope += "\t" + up.name
	}
	if told := x.header["X-Forwarded-Host"]; len(told) > 0 && told[0] != x.in.Host {
		scope += "\t" + strings.ToLower(told[0])
	}
	scheme := schemeOf(x.in)
	if told := x.header["X-Forwarded-Proto"]; len(told) > 0 {
		scheme = strings.ToLower(told[0])
	}
	return httpcache.Key(scope, scheme, x.in.Host, target)
}

// targetOf is the path and query of a request, byte for byte as they are sent on.
func targetOf(r *http.Request) string {
	target := r.URL.EscapedPath()
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		target += "?" + r.URL.RawQuery
	}
	return target
}

// streams reports whether an answer is one that does not end soon.
func streams(res *http.Response) bool { return httpcache.Streams(res.Header) }

// Wish is what the client wants of a kept answer. A HEAD, a range and a request with Authorization are answered from
// what is kept, but what is fetched for them is theirs alone.
func (x *exchange) Wish() cache.Wish {
	h, w := x.in.Header, &x.cached.wishes
	wish := cache.Wish{Confirm: w.Confirm, Only: w.OnlyIfCached, MaxAge: w.MaxAge, MinFresh: w.MinFresh, MaxStale: w.MaxStale}
	known := httpcache.Authenticated(h)
	wish.Alone = known || x.in.Method == http.MethodHead || len(h["Range"]) > 0
	if known || len(h["Cookie"]) > 0 {
		wish.Suits = func(v cache.Value) bool {
			a, ok := v.(*httpcache.Answer)
			return ok && a.Suits(h)
		}
	}
	return wish
}

// Under is where the answer for the call lies.
func (x *exchange) Under(base string, s cache.Signpost) string {
	v, ok := s.(*httpcache.Variance)
	if !ok {
		return base
	}
	x.cached.learnt.Store(v)
	return v.Key(base, x.header)
}

// Pack writes a kept value into bytes.
func (x *exchange) Pack(v cache.Value) ([]byte, error) {
	switch v := v.(type) {
	case *httpcache.Answer:
		return v.AppendTo(make([]byte, 0, v.Size())), nil
	case *httpcache.Variance:
		return v.AppendTo(nil), nil
	}
	return nil, httpcache.ErrForm
}

// Unpack reads what Pack wrote.
func (x *exchange) Unpack(data []byte) (cache.Value, error) {
	a, v, err := httpcache.Decode(data)
	switch {
	case err != nil:
		return nil, err
	case a != nil:
		return a, nil
	}
	return v, nil
}

// Open makes a kept answer into one of its own for a caller.
func (x *exchange) Open(v cache.Value, state call.CacheState) *http.Response {
	a, now := v.(*httpcache.Answer), time.Now()
	s := httpcache.Status{Timed: true, TTL: a.Left(now)}
	switch state {
	case call.Hit, call.Stale:
		s.Hit = true
	case call.Revalidated:
		s.Forward, s.Answered, s.Stored = x.why(true), http.StatusNotModified, true
	case call.Coalesced:
		s.Forward, s.Collapsed = x.why(false), true
	default:
		s.Forward, s.Stored = x.why(false), true
	}
	return x.present(a, nil, s, now)
}

// why is the reason for asking the upstream, in the words of RFC 9211; stale says that there was something to confirm.
func (x *exchange) why(stale bool) string {
	w := &x.cached.wishes
	switch {
	case w.Confirm || w.MaxAge > 0 || w.MinFresh > 0:
		return "request"
	case stale:
		return "stale"
	}
	return "miss"
}

// present gives the client what it asked for of an answer: all of it, 304, or a range. body is that of the answer while it
// still comes; nil = that of a. The line for Cache-Status travels in Status, which no one sends.
func (x *exchange) present(a *httpcache.Answer, body io.ReadCloser, s httpcache.Status, now time.Time) *http.Response {
	h := maps.Clone(a.Header)
	if age := a.AgeAt(now); body == nil || age >= time.Second {
		h["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
	}
	res := &http.Response{
		Status: s.Line(pseudonym), StatusCode: a.Status, Header: h, ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(a.Body)), Body: http.NoBody,
	}
	if a.NotModified(x.in.Header, now) {
		httpcache.Unmodified(h)
		res.StatusCode, res.ContentLength = http.StatusNotModified, 0
		return res
	}
	if body != nil {
		res.Body, res.ContentLength = body, -1
		if n, err := strconv.ParseInt(first(h["Content-Length"]), 10, 64); err == nil {
			res.ContentLength = n
		}
		return res
	}
	content := a.Body
	if x.in.Method == http.MethodGet {
		cut, from, to := a.Cut(x.in.Header, now)
		content = x.cut(res, a, cut, from, to)
	}
	if len(content) > 0 && x.in.Method != http.MethodHead {
		res.Body = io.NopCloser(bytes.NewReader(content))
	}
	return res
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// cut makes res into an answer with a part of a, and returns that part.
func (x *exchange) cut(res *http.Response, a *httpcache.Answer, cut httpcache.Cut, from, to int64) []byte {
	content := a.Body
	switch cut {
	case httpcache.Part:
		content = a.Body[from:to]
		res.StatusCode = http.StatusPartialContent
		res.Header["Content-Range"] = []string{httpcache.ContentRange(from, to, int64(len(a.Body)))}
	case httpcache.Unsatisfiable:
		content = nil
		res.StatusCode = http.StatusRequestedRangeNotSatisfiable
		httpcache.Unmodified(res.Header)
		res.Header["Content-Range"] = []string{httpcache.NoRange(int64(len(a.Body)))}
	default:
		return content
	}
	res.ContentLength = int64(len(content))
	res.Header["Content-Length"] = []string{strconv.Itoa(len(content))}
	return content
}

// cacheLine says in h what the cache did (RFC 9211), after those of caches nearer to the origin. res is nil for a refusal.
func (v *visit) cacheLine(h http.Header, res *http.Response) {
	if v.arm == nil || !v.arm.caches {
		return
	}
	line := ""
	switch {
	case res != nil && strings.HasPrefix(res.Status, pseudonym):
		line = res.Status
	case v.key == "" && v.r.Method != http.MethodGet && v.r.Method != http.MethodHead:
		line = httpcache.Status{Forward: "method"}.Line(pseudonym)
	case v.key == "":
		line = httpcache.Status{Forward: "bypass"}.Line(pseudonym)
	default:
		line = httpcache.Status{Forward: v.x.why(false), Collapsed: v.rec.Cache == call.Coalesced}.Line(pseudonym)
	}
	h["Cache-Status"] = append(slices.Clone(h["Cache-Status"]), line) // the lines may be those of a kept answer
}

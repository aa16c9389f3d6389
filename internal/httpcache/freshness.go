package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Implicit is what an answer that does not say how long it is fresh is taken for.
type Implicit uint8

// The choices.
const (
	ImplicitTTL       Implicit = iota // fresh for Rules.TTL
	ImplicitHeuristic                 // fresh for a tenth of its age at that time (RFC 9111 section 4.2.2), a day at most; without Last-Modified for no time
	ImplicitNone                      // fresh for no time
)

// maxHeuristic bounds what is taken from Last-Modified: beyond a day the RFC once wanted a warning.
const maxHeuristic = 24 * time.Hour

// Rules are what the owner of the data has settled. The zero value takes nothing for fresh that does not say so.
type Rules struct {
	Implicit    Implicit
	TTL         time.Duration // for ImplicitTTL
	NegativeTTL time.Duration // in its place when the answer is an error
	Stale       bool          // stale answers may be used for some time, though they do not say so
}

// Exchanged is a request and the head of its answer.
type Exchanged struct {
	Method   string      // of the request as it was sent
	Request  http.Header // as it was sent
	Status   int
	Header   http.Header // of the answer, without the fields of one connection
	Sent     time.Time   // the request, by our clock
	Received time.Time   // the head of the answer
}

// Verdict says whether an answer may be kept, and for how long. Why is empty then.
type Verdict struct {
	Why        string        // it may not be kept; for Cache-Status
	Age        time.Duration // when it came (RFC 9111 section 4.2.3)
	Fresh      time.Duration // from its coming on; not above 0 = every use needs a word of the origin
	Revalidate time.Duration // beyond, it may be used while it is fetched anew (RFC 5861 section 3); negative = never; 0 = not said
	IfError    time.Duration // beyond, it may be used when the fetch fails (RFC 5861 section 4); negative = never; 0 = not said
	Explicit   bool          // it says itself how long it is fresh
	Authorized bool          // may be given to a request with Authorization (RFC 9111 section 3.5)
	Omit       []string      // fields that are not for everybody, in canonical form
}

// understood are the status codes whose meaning for caches we know; those with true may be kept without being told for
// how long (RFC 9110 section 15.1).
var understood = map[int]bool{
	200: true, 201: false, 202: false, 203: true, 204: true, 205: false, 300: true, 301: true, 302: false, 303: false, 307: false, 308: true,
	404: true, 405: true, 410: true, 414: true, 451: false, 501: true,
}

// shared are the errors that are about a target, whoever asks for it and how. The others may be the fault of one request,
// or that of a moment.
var shared = map[int]bool{404: true, 405: true, 410: true, 414: true, 451: true, 501: true}

// Judge decides about one answer (RFC 9111 sections 3 and 4.2).
func (r Rules) Judge(x Exchanged) Verdict {
	d, targeted := governing(x.Header)
	v := Verdict{Age: age(x)}
	if v.Why = refusal(x, &d); v.Why != "" {
		return v
	}
	lifetime, explicit := lifetime(x, &d, targeted)
	v.Explicit = explicit
	if !explicit {
		if len(x.Request["Cookie"]) > 0 {
			v.Why = "cookie"
			return v
		}
		lifetime = r.implicit(x, &d)
	}
	if _, whole := d.Fields("no-cache"); whole {
		lifetime = 0
	}
	v.Fresh = lifetime - v.Age
	v.Authorized = authorized(&d)
	v.Omit = omitted(&d)
	if len(x.Header["Set-Cookie"]) > 0 {
		v.Omit = append(v.Omit, "Set-Cookie")
	}
	if v.Revalidate, v.IfError = windows(&d); !explicit && reserved(x, &d) {
		v.Revalidate, v.IfError = -1, -1
	}
	if v.Fresh <= 0 && !Validates(x.Header) && v.Revalidate <= 0 && v.IfError <= 0 && (v.IfError < 0 || !r.Stale) {
		v.Why = "not-fresh" // and never will be of use
	}
	return v
}

// refusal is why an answer may not be kept at all.
func refusal(x Exchanged, d *Directives) string {
	_, known := understood[x.Status]
	public := d.Has("public") || d.Has("s-maxage")
	_, private := d.Fields("private")
	_, varies := Vary(x.Header)
	switch {
	case x.Method != http.MethodGet:
		return "method"
	case x.Status < 200, x.Status == http.StatusPartialContent, x.Status == http.StatusNotModified, x.Status >= 400 && !shared[x.Status]:
		return "status"
	case d.Has("must-understand") && !known:
		return "must-understand"
	case d.Has("no-store") && !d.Has("must-understand"):
		return "no-store"
	case private:
		return "private"
	case Authenticated(x.Request) && !authorized(d):
		return "authorization"
	case len(x.Header["Set-Cookie"]) > 0 && !public && !slices.Contains(omitted(d), "Set-Cookie"):
		return "set-cookie"
	case !varies:
		return "vary"
	case Streams(x.Header):
		return "stream"
	}
	return ""
}

func authorized(d *Directives) bool {
	return d.Has("public") || d.Has("s-maxage") || d.Has("must-revalidate")
}

// Streams reports whether an answer is one that does not end soon, so that nobody may wait for its end.
func Streams(h http.Header) bool {
	lines := h["Content-Type"]
	return len(lines) > 0 && len(lines[0]) >= 17 && strings.EqualFold(lines[0][:17], "text/event-stream")
}

// Validates reports whether an answer can be confirmed by the origin later on.
func Validates(h http.Header) bool { return len(h["Etag"]) > 0 || len(h["Last-Modified"]) > 0 }

// lifetime is how long an answer says that it is fresh since the origin made it (RFC 9111 section 4.2.1).
func lifetime(x Exchanged, d *Directives, targeted bool) (time.Duration, bool) {
	if ttl, said := d.Seconds("s-maxage"); said {
		return ttl, true
	}
	if ttl, said := d.Seconds("max-age"); said {
		return ttl, true
	}
	lines := x.Header["Expires"]
	if len(lines) == 0 || targeted {
		return 0, false
	}
	until, ok := dateOf(x.Header, "Expires", x.Received)
	if !ok {
		return 0, true // a date that cannot be read lies in the past (RFC 9111 section 5.3)
	}
	return min(max(0, until.Sub(made(x))), forever), true
}

// made is when the origin made the answer, by its clock.
func made(x Exchanged) time.Time {
	if at, ok := dateOf(x.Header, "Date", x.Received); ok {
		return at
	}
	return x.Received
}

// reserved reports an answer that may only be used when it says for how long: by its status, or because it has the
// no-cache of HTTP/1.0.
func reserved(x Exchanged, d *Directives) bool {
	return !d.Has("public") && (!understood[x.Status] || len(d.list) == 0 && pragmaNoCache(x.Header))
}

// implicit is the lifetime of an answer that does not say.
func (r Rules) implicit(x Exchanged, d *Directives) time.Duration {
	if reserved(x, d) {
		return 0
	}
	switch r.Implicit {
	case ImplicitTTL:
		if x.Status >= 400 {
			return r.NegativeTTL
		}
		return r.TTL
	case ImplicitHeuristic:
		if changed, ok := dateOf(x.Header, "Last-Modified", x.Received); ok {
			return max(0, min(made(x).Sub(changed)/10, maxHeuristic))
		}
	}
	return 0
}

// age is how old an answer was when it came: the larger of what it shows by its Date, and of what it says, plus the time
// that it was under way (RFC 9111 section 4.2.3). More than forever is that.
func age(x Exchanged) time.Duration {
	var said time.Duration
	if lines := x.Header["Age"]; len(lines) > 0 {
		first, _, _ := strings.Cut(lines[0], ",")
		said, _ = seconds(strings.TrimSpace(first))
	}
	said += max(0, x.Received.Sub(x.Sent))
	return min(max(0, said, x.Received.Truncate(time.Second).Sub(made(x))), forever)
}

// windows are for how long an answer may be used stale, as it says itself.
func windows(d *Directives) (revalidate, ifError time.Duration) {
	if _, confirm := d.Fields("no-cache"); confirm || d.Has("must-revalidate") || d.Has("proxy-revalidate") {
		return -1, -1
	}
	revalidate, _ = d.Seconds("stale-while-revalidate")
	ifError, _ = d.Seconds("stale-if-error")
	if d.Has("s-maxage") { // means proxy-revalidate too (RFC 9111 section 5.2.2.10), unless the answer says otherwise
		if revalidate == 0 {
			revalidate = -1
		}
		if ifError == 0 {
			ifError = -1
		}
	}
	return revalidate, ifError
}

// omitted are the fields that private or no-cache list.
func omitted(d *Directives) []string {
	private, _ := d.Fields("private")
	confirm, _ := d.Fields("no-cache")
	return append(private, confirm...)
}

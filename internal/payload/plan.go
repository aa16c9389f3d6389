package payload

import (
	"net/http"
	"slices"
	"strings"
)

// Policy is a compiled Config. It is immutable but for its pool of encoders, and safe for concurrent use.
type Policy struct {
	cfg   Config
	types types
	pool  *pool
}

// New compiles c, whose defaults it fills in. c must be valid.
func New(c Config) *Policy {
	p := &Policy{cfg: c.WithDefaults()}
	if z := p.cfg.Compress; z != nil {
		p.types = compileTypes(z.Types)
		p.pool = newPool(z.Level, z.AtOnce)
	}
	return p
}

// Config is what p was compiled from, defaults spelt out.
func (p *Policy) Config() Config { return p.cfg }

// Counters are what p did since it was made.
func (p *Policy) Counters() Counters {
	if p.pool == nil {
		return Counters{}
	}
	return p.pool.counters()
}

// TooLarge reports an answer of a known length that is over the limit; length is -1 when it is not known.
func (p *Policy) TooLarge(length int64) bool {
	return p.cfg.MaxAnswerBytes > 0 && length > p.cfg.MaxAnswerBytes
}

// Prepare makes the head of an answer what the client shall see, and tells the coding that its body must then get.
// request and h are fields of the call and of the answer, which h is of alone; length is -1 when it is not known.
//
// A HEAD, and other answers without a body, get the head that they would have with one, without the fields that only the
// encoded body could tell. With a body, and a coding that is not Identity, an encoder is reserved: Encode must follow.
func (p *Policy) Prepare(request, h http.Header, status int, length int64, body bool) Coding {
	if p.cfg.Compress == nil {
		return Identity
	}
	if status == http.StatusNotModified {
		p.unmodified(request, h)
		return Identity
	}
	if !p.encodable(h, status, length) {
		return Identity
	}
	addVary(h)
	if noTransform(request["Cache-Control"]) {
		return Identity
	}
	chosen := ParseAccept(request["Accept-Encoding"]).Choose(p.cfg.Compress.Codings)
	if chosen == Identity || body && !p.pool.reserve() {
		return Identity
	}
	h["Content-Encoding"] = []string{string(chosen)}
	delete(h, "Content-Length")
	// Ranges are of the encoded bytes, which nobody keeps.
	delete(h, "Accept-Ranges")
	Weaken(h)
	return chosen
}

// integrity are the fields that name the bytes of a body.
var integrity = []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Content-Range"}

// encodable reports whether an answer would be encoded for a client that likes it.
func (p *Policy) encodable(h http.Header, status int, length int64) bool {
	switch {
	case status < 200, status == http.StatusNoContent, status == http.StatusResetContent, status == http.StatusPartialContent:
		return false
	case length >= 0 && length < p.cfg.Compress.MinBytes:
		return false
	case len(h["Content-Encoding"]) > 0 && !identity(h["Content-Encoding"]):
		return false
	case noTransform(h["Cache-Control"]):
		return false
	}
	kind := ""
	if lines := h["Content-Type"]; len(lines) > 0 {
		kind = lines[0]
	}
	if !p.types.has(kind) || Streams(kind) && !p.cfg.Compress.Streams {
		return false
	}
	return !slices.ContainsFunc(integrity, func(name string) bool { return len(h[name]) > 0 })
}

// unmodified keeps a 304 in line with the 200 that it stands for: the tag that we have weakened is told as weak, and
// Vary is there when the type does not speak against it.
func (p *Policy) unmodified(request, h http.Header) {
	if kind := h["Content-Type"]; len(kind) > 0 && !p.types.has(kind[0]) {
		return
	}
	addVary(h)
	tag := h["Etag"]
	if len(tag) == 1 && strings.HasPrefix(tag[0], `"`) && asked(request["If-None-Match"], "W/"+tag[0]) && !asked(request["If-None-Match"], tag[0]) {
		Weaken(h)
	}
}

// identity reports a Content-Encoding that says nothing.
func identity(lines []string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if part = trim(part); part != "" && !strings.EqualFold(part, "identity") {
				return false
			}
		}
	}
	return true
}

// noTransform reads the directive of RFC 9111 sections 5.2.1.6 and 5.2.2.6.
func noTransform(lines []string) bool { return listed(lines, "no-transform") }

func listed(lines []string, token string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(trim(part), token) {
				return true
			}
		}
	}
	return false
}

// Streams reports a media type whose answers do not end soon.
func Streams(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(trim(kind), "text/event-stream")
}

func addVary(h http.Header) {
	if lines := h["Vary"]; !listed(lines, "Accept-Encoding") && !listed(lines, "*") {
		h["Vary"] = append(slices.Clone(lines), "Accept-Encoding")
	}
}

// Weaken makes a strong entity tag a weak one; others stay.
func Weaken(h http.Header) {
	if tag := h["Etag"]; len(tag) == 1 && strings.HasPrefix(tag[0], `"`) {
		h["Etag"] = []string{"W/" + tag[0]}
	}
}
